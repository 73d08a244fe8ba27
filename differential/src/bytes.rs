//! Byte strings that may differ from side to side, and how they are put together.

/// One of each side: swtpm's first, ours second.
pub type Pair<T> = [T; 2];

/// The side of swtpm, the oracle.
pub const THEIRS: usize = 0;
/// Our side.
pub const OURS: usize = 1;
/// Both, in this order.
pub const SIDES: [usize; 2] = [THEIRS, OURS];

/// The same for both.
pub fn both<T: Clone>(value: T) -> Pair<T> {
    [value.clone(), value]
}

/// What is sent: the parameters of a command, for each side.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct Bytes(pub Pair<Vec<u8>>);

impl Bytes {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same for both.
    pub fn same(bytes: &[u8]) -> Self {
        Self::new().raw(bytes)
    }

    /// Appends to both.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.iter_mut().for_each(|side| side.extend_from_slice(bytes));
        self
    }

    /// Appends to each its own.
    pub fn each(mut self, bytes: &Pair<Vec<u8>>) -> Self {
        for side in SIDES {
            self.0[side].extend_from_slice(&bytes[side]);
        }
        self
    }

    /// Appends what was put together before.
    pub fn then(self, other: &Self) -> Self {
        self.each(&other.0)
    }

    /// A byte.
    pub fn u8(self, n: u8) -> Self {
        self.raw(&[n])
    }

    /// Two bytes.
    pub fn u16(self, n: u16) -> Self {
        self.raw(&n.to_be_bytes())
    }

    /// Four bytes.
    pub fn u32(self, n: u32) -> Self {
        self.raw(&n.to_be_bytes())
    }

    /// Eight bytes.
    pub fn u64(self, n: u64) -> Self {
        self.raw(&n.to_be_bytes())
    }

    /// A handle.
    pub fn handle(self, handle: Pair<u32>) -> Self {
        self.each(&handle.map(|h| h.to_be_bytes().to_vec()))
    }

    /// A `TPM2B`.
    pub fn b2(self, bytes: &[u8]) -> Self {
        self.raw(&b2(bytes))
    }

    /// A `TPM2B` of each its own.
    pub fn b2_each(self, bytes: &Pair<Vec<u8>>) -> Self {
        self.each(&[b2(&bytes[0]), b2(&bytes[1])])
    }

    /// A `TPM2B` around what was put together before.
    pub fn b2_of(self, other: &Self) -> Self {
        self.b2_each(&other.0)
    }

    /// Whether both sides get the same.
    pub fn is_same(&self) -> bool {
        self.0[THEIRS] == self.0[OURS]
    }
}

/// A `TPM2B`.
pub fn b2(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

/// Takes bytes from the front, `None` when there are fewer.
pub fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(n)?;
    *bytes = tail;
    Some(head)
}

/// Takes a big-endian number of `n` bytes from the front.
pub fn take_number(bytes: &mut &[u8], n: usize) -> Option<u64> {
    take(bytes, n).map(|b| b.iter().fold(0, |acc, b| acc << 8 | u64::from(*b)))
}

/// Takes a `TPM2B` from the front.
pub fn take_2b<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let size = take_number(bytes, 2)?;
    take(bytes, size as usize)
}

/// The `n`th `TPM2B` of bytes that begin with `TPM2B`s, counted from 0; empty where there is none.
pub fn nth_2b(mut bytes: &[u8], n: usize) -> Vec<u8> {
    (0..=n).map(|_| take_2b(&mut bytes)).last().flatten().unwrap_or_default().to_vec()
}

/// The 32-bit number at a place, 0 beyond the end.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |mut b| take_number(&mut b, 4).unwrap_or_default() as u32)
}

/// The 16-bit number at a place, 0 beyond the end.
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |mut b| take_number(&mut b, 2).unwrap_or_default() as u16)
}
