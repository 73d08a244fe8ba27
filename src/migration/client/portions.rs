//! In how many steps the state leaves: in one where both parents have room for it (figure 8 of the patent), else area by area (figure 7).

use std::io::Write;

use vtpm_protocol::codec::Reader;
use vtpm_protocol::instance::migration::{PieceHeader, SealedPiece};
use vtpm_protocol::instance::{
    GetInstanceDataIn, GetInstanceDataOut, InstanceCapability, InstanceCapabilityData, LimitTag, PieceInfo,
    PieceKind,
};
use vtpm_protocol::stream::Frame;
use vtpm_protocol::tpm::Tpm2b;

use super::stream::FrameWriter;
use super::{Client, ClientError, Departure, Result, Transport};

/// What an export has to go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The longest parameter `data` of a command at the destination, in bytes; `None` where nobody can be asked. The
    /// limit here counts in any case.
    pub their_limit: Option<u32>,
    /// Area by area, also where one step would do.
    pub by_area: bool,
}

/// In how many steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portions {
    /// One GetInstanceData for everything.
    Whole,
    /// One or several for each NV index, each persistent object, the permanent and the volatile state.
    Areas,
}

/// How an export goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In how many steps.
    pub portions: Portions,
    /// The most bytes of sealed parts in one response and one command.
    pub limit: u32,
    /// Pieces that are not out yet, the manifest among them.
    pub pieces: usize,
    /// NV indices among them.
    pub nv_indices: usize,
    /// Persistent objects among them.
    pub persistent: usize,
    /// What they come to, sealed, in bytes.
    pub bytes: u64,
}

/// How far an export has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Pieces that are out in full.
    pub pieces: usize,
    /// Bytes of sealed parts.
    pub bytes: u64,
}

impl Plan {
    /// Over the pieces that are left, with `here` bytes in one response.
    fn new(left: &[PieceInfo], here: u32, overhead: u32, choice: &Choice) -> Self {
        let limit = choice.their_limit.map_or(here, |there| there.min(here));
        let overhead = u64::from(overhead);
        // Of content, in one part.
        let room = u64::from(limit).saturating_sub(overhead).max(1);
        let sealed = |parts: u64, size: u64| parts.saturating_mul(overhead).saturating_add(size);
        let sum = |parts: &dyn Fn(u64) -> u64| {
            let sizes = left.iter().map(|piece| u64::from(piece.size));
            sizes.fold(0u64, |sum, size| sum.saturating_add(sealed(parts(size), size)))
        };
        let at_once = sum(&|_| 1);
        let whole = !choice.by_area && at_once <= u64::from(limit);
        let of = |kind| left.iter().filter(|piece| piece.kind == kind).count();
        Self {
            portions: if whole { Portions::Whole } else { Portions::Areas },
            limit,
            pieces: left.len(),
            nv_indices: of(PieceKind::NvIndex),
            persistent: of(PieceKind::Persistent),
            bytes: if whole { at_once } else { sum(&|size: u64| size.div_ceil(room).max(1)) },
        }
    }
}

/// An export that goes on.
struct Export<'a, T> {
    client: &'a Client<T>,
    instance: u32,
    limit: u32,
    out: FrameWriter<'a>,
    watch: &'a mut dyn FnMut(&Plan, Moved),
    plan: Plan,
    moved: Moved,
    /// The sequence number of the next part.
    sequence: u32,
    /// The header of the last part.
    last: Option<PieceHeader>,
}

impl<T: Transport> Client<T> {
    /// As [`Self::export`], in one step or area by area, as the choice and the limits have it. `watch` is told the plan at first, and
    /// then after each step how far it has come; what was exported before and is written again is not in the plan, and not in what moved.
    ///
    /// # Errors
    /// As [`Self::export`].
    pub fn export_in_portions(
        &self,
        instance: u32,
        departure: &Departure,
        choice: &Choice,
        watch: &mut dyn FnMut(&Plan, Moved),
        out: &mut dyn Write,
    ) -> Result<Plan> {
        let out = self.begin_stream(instance, departure, out)?;
        let exported = self.info(instance)?.next;
        let plan = self.plan(instance, choice)?;
        let moved = Moved { pieces: 0, bytes: 0 };
        watch(&plan, moved);
        let limit = plan.limit;
        let mut export =
            Export { client: self, instance, limit, out, watch, plan, moved, sequence: 0, last: None };
        let mut digest = Vec::new();
        while export.sequence < exported {
            digest = export.step(PieceKind::Everything, 0, false)?;
        }
        while digest.is_empty() {
            digest = match plan.portions {
                Portions::Whole => export.step(PieceKind::Everything, 0, true)?,
                Portions::Areas => export.areas()?,
            };
        }
        let digest = Tpm2b::new(digest).map_err(|_| malformed())?;
        export.out.write(&Frame::End(digest))?;
        export.out.finish()?;
        Ok(plan)
    }

    fn limit(&self, instance: u32, wanted: LimitTag) -> Result<u32> {
        let limits = self.capability(instance, InstanceCapability::Limits, wanted as u32)?;
        let InstanceCapabilityData::Limits(list) = limits.data else { return Err(malformed()) };
        list.iter().find(|(tag, _)| *tag == wanted).map(|&(_, value)| value).ok_or_else(malformed)
    }

    /// What GetInstanceData fills at most.
    pub(super) fn max_data(&self, instance: u32) -> Result<u32> {
        self.limit(instance, LimitTag::MaxData)
    }

    /// How the export of a source-locked instance would go.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn plan(&self, instance: u32, choice: &Choice) -> Result<Plan> {
        let here = self.max_data(instance)?;
        let overhead = self.limit(instance, LimitTag::PieceOverhead)?;
        Ok(Plan::new(&self.pieces_left(instance)?, here, overhead, choice))
    }

    /// The pieces that are not out in full, with as many GetInstanceCapability as it takes.
    fn pieces_left(&self, instance: u32) -> Result<Vec<PieceInfo>> {
        let mut all: Vec<PieceInfo> = Vec::new();
        loop {
            let first = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let page = self.capability(instance, InstanceCapability::Pieces, first)?;
            let InstanceCapabilityData::Pieces(list) = page.data else { return Err(malformed()) };
            let more = page.more && !list.is_empty();
            all.extend(list);
            if !more {
                return Ok(all);
            }
        }
    }

    /// The handles of one kind of area that are not out in full.
    fn areas_left(&self, instance: u32, capability: InstanceCapability) -> Result<Vec<u32>> {
        let mut all: Vec<u32> = Vec::new();
        loop {
            let first = all.last().map_or(0, |last| last.saturating_add(1));
            let page = self.capability(instance, capability, first)?;
            let (InstanceCapabilityData::NvIndices(list) | InstanceCapabilityData::Persistent(list)) =
                page.data
            else {
                return Err(malformed());
            };
            let more = page.more && !list.is_empty();
            all.extend(list);
            if !more {
                return Ok(all);
            }
        }
    }
}

impl<T: Transport> Export<'_, T> {
    /// One GetInstanceData. Returns the digest, which is empty before the last one.
    fn step(&mut self, kind: PieceKind, handle: u32, new: bool) -> Result<Vec<u8>> {
        let request = GetInstanceDataIn { sequence: self.sequence, kind, handle, max_size: self.limit };
        let GetInstanceDataOut { data, next, digest } = self.client.get_data(self.instance, &request)?;
        let mut r = Reader::new(&data);
        let mut parts = 0u32;
        let mut whole = 0usize;
        while !r.is_empty() {
            let header = SealedPiece::take(&mut r).map_err(|_| malformed())?.header;
            parts = parts.saturating_add(1);
            whole = whole.saturating_add(usize::from(ends_piece(&header)));
            self.last = Some(header);
        }
        if parts == 0 || next != self.sequence.saturating_add(parts) {
            return Err(malformed());
        }
        self.sequence = next;
        if new {
            let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
            self.moved.bytes = self.moved.bytes.saturating_add(bytes);
            self.moved.pieces = self.moved.pieces.saturating_add(whole);
        }
        self.out.write(&Frame::Pieces(data))?;
        if new {
            (self.watch)(&self.plan, self.moved);
        }
        Ok(digest.to_vec())
    }

    /// All parts of one piece that are not out.
    fn piece(&mut self, kind: PieceKind, handle: u32) -> Result<Vec<u8>> {
        loop {
            let digest = self.step(kind, handle, true)?;
            match &self.last {
                Some(last) if (last.kind, last.handle) != (kind, handle) => return Err(malformed()),
                Some(last) if ends_piece(last) => return Ok(digest),
                _ => {}
            }
        }
    }

    /// Figure 7: the NV indices, the persistent objects, the rest; first what an export that broke off has begun.
    fn areas(&mut self) -> Result<Vec<u8>> {
        if let Some(open) = self.last.filter(|last| !ends_piece(last)) {
            let digest = self.piece(open.kind, open.handle)?;
            if !digest.is_empty() {
                return Ok(digest);
            }
        }
        let areas = [
            (InstanceCapability::NvIndices, PieceKind::NvIndex),
            (InstanceCapability::Persistent, PieceKind::Persistent),
        ];
        for (capability, kind) in areas {
            for handle in self.client.areas_left(self.instance, capability)? {
                self.piece(kind, handle)?;
            }
        }
        let mut digest = Vec::new();
        for piece in self.client.pieces_left(self.instance)? {
            digest = self.piece(piece.kind, piece.handle)?;
        }
        if digest.is_empty() { Err(malformed()) } else { Ok(digest) }
    }
}

fn ends_piece(part: &PieceHeader) -> bool {
    part.offset.checked_add(part.length) == Some(part.total)
}

fn malformed() -> ClientError {
    ClientError::Malformed { command: "GetInstanceData" }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: u32 = 1 << 20;

    fn plan(sizes: &[(PieceKind, u32)], choice: Choice) -> Plan {
        let left: Vec<PieceInfo> =
            sizes.iter().map(|&(kind, size)| PieceInfo { kind, handle: 0, size }).collect();
        Plan::new(&left, HERE, 100, &choice)
    }

    const STATE: [(PieceKind, u32); 5] = [
        (PieceKind::NvIndex, 1000),
        (PieceKind::Persistent, 500),
        (PieceKind::Permanent, 2000),
        (PieceKind::Volatile, 3000),
        (PieceKind::Manifest, 90),
    ];

    #[test]
    fn what_both_hosts_have_room_for_goes_in_one_step() {
        let open = plan(&STATE, Choice::default());
        assert_eq!((open.portions, open.limit, open.bytes), (Portions::Whole, HERE, 7090));
        assert_eq!((open.pieces, open.nv_indices, open.persistent), (5, 1, 1));
        let exact = Choice { their_limit: Some(7090), by_area: false };
        assert_eq!(plan(&STATE, exact).portions, Portions::Whole);
    }

    #[test]
    fn one_byte_less_at_either_host_goes_area_by_area() {
        let there = Choice { their_limit: Some(7089), by_area: false };
        let areas = plan(&STATE, there);
        assert_eq!((areas.portions, areas.limit, areas.bytes), (Portions::Areas, 7089, 7090));
        let here = Plan::new(
            &[PieceInfo { kind: PieceKind::Volatile, handle: 0, size: HERE - 99 }],
            HERE,
            100,
            &Choice { their_limit: Some(u32::MAX), by_area: false },
        );
        assert_eq!((here.portions, here.limit), (Portions::Areas, HERE));
    }

    #[test]
    fn areas_longer_than_a_buffer_are_counted_with_each_of_their_parts() {
        let small = plan(&STATE, Choice { their_limit: Some(1100), by_area: false });
        // 1 + 1 + 2 + 3 + 1 parts.
        assert_eq!(small.bytes, 6590 + 8 * 100);
        let told = plan(&STATE, Choice { their_limit: None, by_area: true });
        assert_eq!((told.portions, told.bytes), (Portions::Areas, 7090));
    }
}
