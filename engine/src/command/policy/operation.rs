//! The comparisons of policies (Part 2, 6.8): of operand A, which the TPM has, with operand B, which the policy names.

use super::extend;
use crate::alg::hash_of;
use crate::state::Session;
use core::cmp::Ordering;
use vtpm_protocol::codec::{Decode, Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{Tpm2bDigest, TpmCc, TpmEo};

/// `TPM_EO` as a command parameter.
#[derive(Clone, Copy)]
pub struct Operation(TpmEo);

impl Encode for Operation {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for Operation {
    fn decode(r: &mut Reader<'_>) -> Result<Self, ResponseCode> {
        let operation = TpmEo::decode(r)?;
        if operation <= TpmEo::BITCLEAR { Ok(Self(operation)) } else { Err(ResponseCode::VALUE) }
    }
}

impl Operation {
    /// Whether anything but what there is not would do: [`TpmEo::NEQ`].
    pub fn is_not_equal(self) -> bool {
        self.0 == TpmEo::NEQ
    }

    /// Whether it holds for two operands of the same size. Both are big-endian, and where they are signed two's complements, as the errata of
    /// version 1.59 have it (1.4, 2.5), the reference code since version 1.83, and libtpms since 0.10. Those before them took of two
    /// negative numbers the one with the lower bytes for the greater.
    pub fn holds(self, a: &[u8], b: &[u8]) -> bool {
        let order = match self.0 {
            TpmEo::SIGNED_GT | TpmEo::SIGNED_LT | TpmEo::SIGNED_GE | TpmEo::SIGNED_LE => {
                let negative = |n: &[u8]| n.first().is_some_and(|byte| byte & 0x80 != 0);
                negative(b).cmp(&negative(a)).then(a.cmp(b))
            }
            _ => a.cmp(b),
        };
        match self.0 {
            TpmEo::EQ => order == Ordering::Equal,
            TpmEo::NEQ => order != Ordering::Equal,
            TpmEo::SIGNED_GT | TpmEo::UNSIGNED_GT => order == Ordering::Greater,
            TpmEo::SIGNED_LT | TpmEo::UNSIGNED_LT => order == Ordering::Less,
            TpmEo::SIGNED_GE | TpmEo::UNSIGNED_GE => order != Ordering::Less,
            TpmEo::SIGNED_LE | TpmEo::UNSIGNED_LE => order != Ordering::Greater,
            TpmEo::BITSET => a.iter().zip(b).all(|(a, b)| a & b == *b),
            TpmEo::BITCLEAR => a.iter().zip(b).all(|(a, b)| a & b == 0),
            _ => false,
        }
    }
}

/// What a policy compares: operandB with the bytes at offset.
pub struct Comparison {
    /// Operand B.
    pub operand: Tpm2bDigest,
    /// Where operand A begins.
    pub offset: u16,
    /// The operation.
    pub operation: Operation,
}

impl Comparison {
    /// `policyDigest = H(policyDigest || commandCode || H(operandB || offset || operation || more) || name)`.
    pub fn extend(&self, session: &mut Session, code: TpmCc, more: &[u8], name: &[u8]) {
        let rest = (self.offset, self.operation).to_bytes();
        let arguments = hash_of(session.auth_hash).digest(&[&self.operand, &rest, more]);
        extend(session, &[&code.to_bytes(), &arguments, name]);
    }

    /// Operand A of the data that a policy is about.
    pub fn of<'a>(&self, data: &'a [u8]) -> Option<&'a [u8]> {
        let start = usize::from(self.offset);
        data.get(start..start.checked_add(self.operand.len())?)
    }

    /// Whether the comparison holds for operand A.
    ///
    /// # Errors
    /// `TPM_RC_POLICY` when not.
    pub fn check(&self, a: &[u8]) -> Result<(), ResponseCode> {
        if self.operation.holds(a, &self.operand) { Ok(()) } else { Err(ResponseCode::POLICY) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtpm_protocol::codec::decode_exact;

    /// Which of the operations hold for a and b: a bit for each.
    fn holding(a: &[u8], b: &[u8]) -> Vec<u16> {
        (0..=0xb).filter(|&op| Operation(TpmEo(op)).holds(a, b)).collect()
    }

    #[test]
    fn every_operation_holds_where_it_should() {
        let (gt, lt) = ([2, 6], [4, 8]);
        let (ugt, ult) = ([3, 7], [5, 9]);
        let equal = vec![0, 6, 7, 8, 9];
        let sorted = |mut ops: Vec<u16>| {
            ops.sort_unstable();
            ops
        };
        assert_eq!(holding(&[], &[]), [equal.clone(), vec![10, 11]].concat());
        assert_eq!(holding(&[0; 8], &[0; 8]), [equal.clone(), vec![10, 11]].concat());
        assert_eq!(holding(&[5, 1], &[5, 1]), [equal, vec![10]].concat());
        assert_eq!(holding(&[1, 0], &[0, 0xff]), sorted([&[1, 11][..], &gt, &ugt].concat()));
        assert_eq!(holding(&[0, 0xff], &[1, 0]), sorted([&[1, 11][..], &lt, &ult].concat()));
        // Negative numbers: less than positive ones, and -1 more than -2.
        assert_eq!(holding(&[0xff, 0xff], &[0, 1]), sorted([&[1, 10][..], &lt, &ugt].concat()));
        assert_eq!(holding(&[0, 1], &[0x80, 0]), sorted([&[1, 11][..], &gt, &ult].concat()));
        assert_eq!(holding(&[0xff, 0xff], &[0xff, 0xfe]), sorted([&[1, 10][..], &gt, &ugt].concat()));
        assert_eq!(holding(&[0x80, 0], &[0xff, 0xfe]), sorted([&[1][..], &lt, &ult].concat()));
    }

    #[test]
    fn there_are_twelve_operations() {
        assert!(decode_exact::<Operation>(&[0, 0xb]).is_ok());
        assert_eq!(decode_exact::<Operation>(&[0, 0xc]).err(), Some(ResponseCode::VALUE));
        assert_eq!(decode_exact::<Operation>(&[1, 0]).err(), Some(ResponseCode::VALUE));
    }
}
