//! When an entry of the table holds, where command and codes do not tell.

use crate::bytes::{OURS, THEIRS, nth_2b, u16_at, u32_at};
use crate::client::{Auth, Call, attr};
use std::ops::RangeInclusive;

/// Told by [`crate::generate::mutate`] of a change in front of bytes that are each side's own.
pub const BEFORE_BYTES_THAT_DIFFER: &str = "before bytes that differ";

/// One of the handles is a persistent object's.
pub fn works_with_persistent(call: &Call) -> bool {
    call.handles.iter().any(|e| e.handle[THEIRS] >> 24 == 0x81)
}

/// The first handle is another object on each side.
pub fn first_object_differs(call: &Call) -> bool {
    call.handles.first().is_some_and(|e| e.name[THEIRS] != e.name[OURS])
}

/// A session has an attribute of audit, but not audit itself.
pub fn audits_without_audit(call: &Call) -> bool {
    call.auths.iter().any(|auth| {
        matches!(auth, Auth::Session(_, bits) if bits & attr::AUDIT == 0 && bits & (attr::RESET | attr::EXCLUSIVE) != 0)
    })
}

/// A session authorizes a handle.
pub fn session_authorizes(call: &Call) -> bool {
    call.auths.iter().take(call.authorized).any(|auth| matches!(auth, Auth::Session(..)))
}

/// `TPM2_GetCapability` asks from a property on that has more than 16 bits.
pub fn property_beyond_16_bits(call: &Call) -> bool {
    u32_at(&call.params.0[THEIRS], 4) > 0xffff
}

/// The parameters end with a `TPM_EO` that compares signed numbers.
pub fn compares_signed(call: &Call) -> bool {
    let params = &call.params.0[THEIRS];
    matches!(u16_at(params, params.len().saturating_sub(2)), 2 | 4 | 6 | 8)
}

/// Somewhere in the parameters of one side stands a number of 16 bits that is in `range`.
fn has_a_number_in(call: &Call, range: RangeInclusive<u16>) -> bool {
    let has = |params: &Vec<u8>| params.windows(2).any(|b| range.contains(&u16::from_be_bytes([b[0], b[1]])));
    call.params.0.iter().any(has)
}

/// Something may be as long as only an RSA key of 4096 bits makes it: libtpms 0.9 goes to 3072.
pub fn has_a_size_of_rsa_4096(call: &Call) -> bool {
    has_a_number_in(call, 385..=512)
}

/// Something may be as long as only BN_P638 makes it: here curves end with P-521.
pub fn has_a_size_of_bn_p638(call: &Call) -> bool {
    has_a_number_in(call, 67..=80)
}

/// `TPM2_PolicyCounterTimer` compares more of `TPMS_TIME_INFO` than the two counters: time, clock, or whether that is safe.
pub fn compares_the_clock(call: &Call) -> bool {
    let params = &call.params.0[THEIRS];
    let size = nth_2b(params, 0).len();
    let offset = usize::from(u16_at(params, 2 + size));
    offset < 16 || offset + size > 24
}

/// `TPM2_CertifyX509` without a key to sign with.
pub fn nobody_signs(call: &Call) -> bool {
    call.handles.get(1).is_some_and(|e| e.handle[THEIRS] == vtpm_protocol::tpm::TpmHandle::NULL.0)
}

/// The public area behind the first `TPM2B` has `firmwareLimited` or `svnLimited`.
pub fn limits_an_object(call: &Call) -> bool {
    u32_at(&nth_2b(&call.params.0[THEIRS], 1), 4) & 0x300 != 0
}
