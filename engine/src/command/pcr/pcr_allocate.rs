//! `TPM2_PCR_Allocate` (Part 3, 22.5).

use crate::command::{Context, Output, parameters};
use crate::pcr::DRTM_PCR;
use crate::state::{HCRTM_PCR, State};
use vtpm_protocol::codec::Reader;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{PCR_COUNT, TpmlPcrSelection, hash_size};

/// Chooses which PCRs there are in the banks that are named, from the next `_TPM_Init` on; of a bank that is named more than once the last
/// time counts, and the others stay as they are. Returns whether that succeeded, the most PCRs of a bank, and the bytes that all
/// PCRs take and that there are for them.
///
/// # Errors
/// `TPM_RC_PCR` when PCR 0 or PCR 17 would be in no bank.
pub fn pcr_allocate(cx: &mut Context<'_>, r: &mut Reader<'_>) -> Result<Output, ResponseCode> {
    let (wanted,): (TpmlPcrSelection,) = parameters(r)?;
    // Another allocation may be waiting for the next boot; this one begins at what is there now.
    let mut next = cx.state.volatile.pcrs.allocation();
    let mut there_is_a_bank = true;
    for entry in wanted.0 {
        match next.0.iter_mut().find(|bank| bank.hash == entry.hash) {
            Some(bank) => *bank = entry,
            None => there_is_a_bank &= entry.pcrs().next().is_none(),
        }
    }
    for needed in [HCRTM_PCR, DRTM_PCR] {
        if !next.0.iter().any(|bank| bank.contains(needed)) {
            return Err(ResponseCode::PCR);
        }
    }
    let needed = size(&next);
    if there_is_a_bank {
        cx.state.permanent_mut().pcr_allocation = next;
        cx.state.volatile_mut().pcr_reconfigured = true;
    }
    Ok(Output::of(&(there_is_a_bank, PCR_COUNT, needed, available(cx.state))))
}

/// The bytes of all PCRs of an allocation.
fn size(allocation: &TpmlPcrSelection) -> u32 {
    let sizes = allocation.0.iter().flat_map(|bank| bank.pcrs().map(|_| hash_size(bank.hash).unwrap_or(0)));
    u32::try_from(sizes.sum::<usize>()).unwrap_or(u32::MAX)
}

/// The bytes that there are for PCRs: all PCRs in all banks.
fn available(state: &State) -> u32 {
    let sizes: usize = state.volatile.pcrs.hashes().filter_map(hash_size).sum();
    u32::try_from(sizes).unwrap_or(u32::MAX).saturating_mul(PCR_COUNT)
}

#[cfg(test)]
mod tests {
    use crate::testing::TestTpm;
    use vtpm_protocol::codec::decode_exact;
    use vtpm_protocol::rc::ResponseCode;
    use vtpm_protocol::tpm::{
        Tpm2bEvent, TpmAlgId, TpmCap, TpmCc, TpmHandle, TpmSu, Tpml, TpmlDigest, TpmlPcrSelection,
        TpmsPcrSelection,
    };

    const ALL: [u32; 24] =
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];

    fn allocate(
        tpm: &mut TestTpm,
        banks: &[(TpmAlgId, &[u32])],
    ) -> Result<(bool, u32, u32, u32), ResponseCode> {
        let select = |&(hash, pcrs): &(TpmAlgId, &[u32])| TpmsPcrSelection::of(hash, pcrs.iter().copied());
        let list: TpmlPcrSelection = Tpml(banks.iter().map(select).collect());
        let (_, out) = tpm.run_with(TpmCc::PCR_ALLOCATE, &[TpmHandle::PLATFORM], &[b""], &list)?;
        Ok(decode_exact(&out).unwrap())
    }

    fn told(tpm: &mut TestTpm) -> Vec<(TpmAlgId, usize)> {
        let out = tpm.run(TpmCc::GET_CAPABILITY, &[], &(TpmCap::PCRS, 0u32, 1u32)).unwrap();
        let list: TpmlPcrSelection = decode_exact(&out[5..]).unwrap();
        list.0.iter().map(|bank| (bank.hash, bank.pcrs().count())).collect()
    }

    fn boot(tpm: &mut TestTpm) {
        tpm.init();
        tpm.run(TpmCc::STARTUP, &[], &TpmSu::CLEAR).unwrap();
    }

    #[test]
    fn takes_effect_with_the_next_boot_and_lasts() {
        let mut tpm = TestTpm::started();
        let banks: [(TpmAlgId, &[u32]); 3] =
            [(TpmAlgId::SHA1, &[]), (TpmAlgId::SHA384, &[0, 23]), (TpmAlgId::SHA512, &[])];
        let sizes = 24 * 32 + 2 * 48;
        assert_eq!(allocate(&mut tpm, &banks), Ok((true, 24, sizes, 24 * (20 + 32 + 48 + 64))));
        assert_eq!(told(&mut tpm).iter().map(|b| b.1).sum::<usize>(), 4 * 24);
        for _ in 0..2 {
            boot(&mut tpm);
            let expected =
                [(TpmAlgId::SHA1, 0), (TpmAlgId::SHA256, 24), (TpmAlgId::SHA384, 2), (TpmAlgId::SHA512, 0)];
            assert_eq!(told(&mut tpm), expected);
        }
        // What is not there is neither extended nor read.
        for pcr in [0, 1] {
            let event = Tpm2bEvent::new(*b"event").unwrap();
            tpm.run_with(TpmCc::PCR_EVENT, &[TpmHandle(pcr)], &[b""], &event).unwrap();
        }
        let wanted: TpmlPcrSelection = Tpml(
            [TpmAlgId::SHA1, TpmAlgId::SHA256, TpmAlgId::SHA384]
                .map(|hash| TpmsPcrSelection::of(hash, [0, 1]))
                .to_vec(),
        );
        let out = tpm.run(TpmCc::PCR_READ, &[], &wanted).unwrap();
        let (_, read, values): (u32, TpmlPcrSelection, TpmlDigest) = decode_exact(&out).unwrap();
        let pcrs: Vec<Vec<u32>> = read.0.iter().map(|s| s.pcrs().collect()).collect();
        assert_eq!(pcrs, [vec![], vec![0, 1], vec![0]]);
        assert_eq!(values.0.iter().map(|v| v.len()).collect::<Vec<_>>(), [32, 32, 48]);
    }

    #[test]
    fn the_last_of_several_counts_and_a_new_one_replaces_one_that_waits() {
        let mut tpm = TestTpm::started();
        allocate(&mut tpm, &[(TpmAlgId::SHA256, &[]), (TpmAlgId::SHA256, &[5])]).unwrap();
        allocate(&mut tpm, &[(TpmAlgId::SHA1, &[]), (TpmAlgId::SHA1, &[7])]).unwrap();
        boot(&mut tpm);
        assert_eq!(told(&mut tpm)[..2], [(TpmAlgId::SHA1, 1), (TpmAlgId::SHA256, 24)]);
    }

    #[test]
    fn pcrs_0_and_17_are_always_there() {
        for (pcrs, allowed) in [
            (&ALL[..], true),
            (&[0, 17], true),
            (&[0], false),
            (&[17], false),
            (&ALL[1..], false),
            (&[], false),
        ] {
            let mut tpm = TestTpm::started();
            let banks: [(TpmAlgId, &[u32]); 4] = [
                (TpmAlgId::SHA1, &[]),
                (TpmAlgId::SHA256, pcrs),
                (TpmAlgId::SHA384, &[]),
                (TpmAlgId::SHA512, &[]),
            ];
            let result = allocate(&mut tpm, &banks).map(drop);
            assert_eq!(result, if allowed { Ok(()) } else { Err(ResponseCode::PCR) }, "{pcrs:?}");
        }
        // Each in a bank of its own will do.
        let mut tpm = TestTpm::started();
        let banks: [(TpmAlgId, &[u32]); 4] = [
            (TpmAlgId::SHA1, &[0]),
            (TpmAlgId::SHA256, &[17]),
            (TpmAlgId::SHA384, &[]),
            (TpmAlgId::SHA512, &[]),
        ];
        allocate(&mut tpm, &banks).unwrap();
    }

    #[test]
    fn the_next_start_is_a_reset() {
        let mut tpm = TestTpm::started();
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        allocate(&mut tpm, &[(TpmAlgId::SHA1, &[])]).unwrap();
        assert_eq!(tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE), Err(ResponseCode::TYPE.parameter(1)));
        let mut before = tpm.tpm.clone();
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::CLEAR).unwrap();
        boot(&mut tpm);
        assert_eq!(tpm.state().volatile.state_reset.restart_count, 0);
        tpm.run(TpmCc::SHUTDOWN, &[], &TpmSu::STATE).unwrap();
        // Nor does the Shutdown count that came before.
        core::mem::swap(&mut tpm.tpm, &mut before);
        tpm.resave();
        tpm.init();
        assert_eq!(tpm.run(TpmCc::STARTUP, &[], &TpmSu::STATE), Err(ResponseCode::VALUE.parameter(1)));
    }

    #[test]
    fn only_the_platform_may() {
        let mut tpm = TestTpm::started();
        for by in [TpmHandle::OWNER, TpmHandle::LOCKOUT] {
            let rc = tpm.run_with(TpmCc::PCR_ALLOCATE, &[by], &[b""], &0u32).unwrap_err();
            assert_eq!(rc, ResponseCode::VALUE.handle(1));
        }
        let rc = tpm.run_with(TpmCc::PCR_ALLOCATE, &[TpmHandle::PLATFORM], &[b""], &u32::MAX).unwrap_err();
        assert_eq!(rc, ResponseCode::SIZE.parameter(1));
    }
}
