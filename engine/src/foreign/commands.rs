//! Lists of commands, which libtpms keeps as one bit for each.
//!
//! Until version 4 of `PERSISTENT_DATA` a bit stands for the command with this number among those that libtpms 0.9 and before implement, in the
//! order of their codes; from version 5 on for the command code less that of `TPM2_NV_UndefineSpaceSpecial`.

use vtpm_protocol::tpm::TpmCc;

/// `TPM_CC_FIRST`.
const FIRST: u32 = 0x11f;
/// Codes between the first and the last command of libtpms 0.9 of which it has none: reserved ones, the field upgrade, and the like.
const LAST_COMPRESSED: u32 = 0x197;
const NOT_THERE: [u32; 11] = [0x123, 0x12f, 0x141, 0x15a, 0x15f, 0x166, 0x175, 0x179, 0x194, 0x195, 0x196];

/// The commands whose bits are set, ascending, and how many bits stand for none.
pub fn listed(bits: &[u8], version: u16) -> (Vec<TpmCc>, usize) {
    let mut codes: Box<dyn Iterator<Item = u32>> = if version <= 4 {
        Box::new((FIRST..=LAST_COMPRESSED).filter(|code| !NOT_THERE.contains(code)))
    } else {
        Box::new(FIRST..=u32::from(u16::MAX))
    };
    let (mut list, mut unknown) = (Vec::new(), 0usize);
    for byte in bits {
        for bit in 0..8u32 {
            let code = codes.next();
            if byte.wrapping_shr(bit) & 1 == 0 {
                continue;
            }
            match code {
                Some(code) => list.push(TpmCc(code)),
                None => unknown = unknown.saturating_add(1),
            }
        }
    }
    (list, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(bytes: usize, bit: usize, version: u16) -> (Vec<TpmCc>, usize) {
        let mut bits = vec![0; bytes];
        bits[bit / 8] = 1 << (bit % 8);
        listed(&bits, version)
    }

    #[test]
    fn bits_stand_for_the_commands_of_libtpms() {
        for (bit, expected) in [
            (0, TpmCc::NV_UNDEFINE_SPACE_SPECIAL),
            (6, TpmCc::CLEAR),
            (13, TpmCc::PP_COMMANDS),
            (31, TpmCc::SET_COMMAND_CODE_AUDIT_STATUS),
            (54, TpmCc::QUOTE),
            (60, TpmCc::POLICY_SIGNED),
            (84, TpmCc::GET_RANDOM),
            (109, TpmCc::CERTIFY_X509),
        ] {
            assert_eq!(code(14, bit, 4), (vec![expected], 0), "{bit}");
        }
        assert_eq!(code(14, 110, 4), (vec![], 1));
        assert_eq!(code(16, 0x158 - 0x11f, 5), (vec![TpmCc::QUOTE], 0));
        assert_eq!(listed(&[0; 16], 5), (vec![], 0));
    }
}
