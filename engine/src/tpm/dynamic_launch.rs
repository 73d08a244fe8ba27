//! `_TPM_Hash_Start`, `_TPM_Hash_Data` and `_TPM_Hash_End` (Part 1, "Dynamic Root of Trust Measurement"; Part 3, 22.9 to 22.11): signals of
//! the hardware, at locality 4.
//!
//! After Startup they are a dynamic launch: its PCRs are reset, and PCR 17 is extended with the measurement. Before Startup they are an
//! H-CRTM, whose measurement Startup puts into PCR 0.

use super::Tpm;
use crate::alg::{hash_alg, hash_id};
use crate::crypto::Hasher;
use crate::env::{CommitFailed, Environment};
use crate::state::SelfTest;
use vtpm_protocol::tpm::{PCR_BANK_ALGS, TpmtHa};

impl Tpm {
    /// `_TPM_Hash_Start`: begins a measurement, in place of one that was begun before. From now on the bit `tpmEstablishment` tells of it.
    ///
    /// # Errors
    /// [`CommitFailed`]: no measurement was begun.
    pub fn hash_start(&mut self, env: &mut dyn Environment) -> Result<(), CommitFailed> {
        self.measurement = None;
        self.set_established(env, true)?;
        self.measurement =
            Some(PCR_BANK_ALGS.iter().filter_map(|&id| hash_alg(id)).map(Hasher::new).collect());
        Ok(())
    }

    /// `_TPM_Hash_Data`: adds to the measurement. Without one that was begun and not aborted by a command, nothing happens.
    pub fn hash_data(&mut self, data: &[u8]) {
        for hasher in self.measurement.iter_mut().flatten() {
            hasher.update(data);
        }
    }

    /// `_TPM_Hash_End`: completes the measurement and puts it where it belongs. Without one, as in Failure mode, nothing happens.
    ///
    /// # Errors
    /// [`CommitFailed`]: the PCRs are as before, and the measurement is lost.
    pub fn hash_end(&mut self, env: &mut dyn Environment) -> Result<(), CommitFailed> {
        let Some(hashers) = self.measurement.take() else { return Ok(()) };
        if self.state.volatile.self_test == SelfTest::Failed {
            return Ok(());
        }
        let digests: Vec<TpmtHa> = hashers
            .into_iter()
            .map(|hasher| TpmtHa { hash_alg: hash_id(hasher.alg()), digest: hasher.finish().to_vec() })
            .collect();
        let before = self.state.clone();
        if self.state.volatile.started {
            self.state.dynamic_launch(&digests);
        } else {
            self.state.measure_hcrtm(&digests);
        }
        let changes = self.state.changes_since(&before);
        env.commit(changes, &[]).inspect_err(|_| self.state = before)
    }

    /// The bit `tpmEstablishment` of the hardware interface: a measurement was begun since it was last reset.
    #[must_use]
    pub fn is_established(&self) -> bool {
        self.state.volatile.established
    }

    /// Resets [`Self::is_established`] for locality 3 or 4; `false` for any other, which may not.
    ///
    /// # Errors
    /// [`CommitFailed`]: it is as before.
    pub fn reset_established(
        &mut self,
        env: &mut dyn Environment,
        locality: u8,
    ) -> Result<bool, CommitFailed> {
        if !matches!(locality, 3 | 4) {
            return Ok(false);
        }
        self.set_established(env, false).map(|()| true)
    }

    fn set_established(&mut self, env: &mut dyn Environment, on: bool) -> Result<(), CommitFailed> {
        if self.state.volatile.established == on {
            return Ok(());
        }
        let before = self.state.clone();
        self.state.volatile_mut().established = on;
        let changes = self.state.changes_since(&before);
        env.commit(changes, &[]).inspect_err(|_| self.state = before)
    }
}

#[cfg(test)]
mod tests;
