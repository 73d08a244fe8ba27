//! Our engine, in this process, with random numbers of the seed and a clock that ticks once a command.

use super::{Device, Died};
use crate::rng::Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use vtpm_engine::{Change, CommitFailed, Environment, Tpm};

struct World {
    rng: Rng,
    now: u64,
}

impl Environment for World {
    fn fill_random(&mut self, out: &mut [u8]) {
        out.fill_with(|| self.rng.draw() as u8);
    }

    fn now_ms(&mut self) -> u64 {
        self.now
    }

    fn commit(&mut self, _changes: Vec<Change>, _response: &[u8]) -> Result<(), CommitFailed> {
        Ok(())
    }
}

/// A TPM of ours.
pub struct Ours {
    tpm: Tpm,
    world: World,
    locality: u8,
}

impl Ours {
    /// A new one, before Startup.
    pub fn manufacture(seed: u64) -> Self {
        let mut world = World { rng: Rng::part(seed, 0x6f75_7273), now: 1000 };
        Self { tpm: Tpm::manufacture(&mut world), world, locality: 0 }
    }
}

fn caught<T>(f: impl FnOnce() -> T) -> Result<T, Died> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Died(format!("our engine panicked: {}", text.or(panic.downcast_ref().copied()).unwrap_or("?")))
    })
}

impl Device for Ours {
    fn execute(&mut self, command: &[u8]) -> Result<Vec<u8>, Died> {
        self.world.now += 1;
        caught(|| self.tpm.execute(&mut self.world, self.locality, command))
    }

    fn power_cycle(&mut self) -> Result<(), Died> {
        caught(|| self.tpm.init(&mut self.world))?.map_err(|_| Died("_TPM_Init failed".into()))
    }

    fn set_locality(&mut self, locality: u8) -> Result<(), Died> {
        self.locality = locality;
        Ok(())
    }

    fn measure(&mut self, data: &[u8]) -> Result<(), Died> {
        caught(|| {
            self.tpm.hash_start(&mut self.world)?;
            self.tpm.hash_data(data);
            self.tpm.hash_end(&mut self.world)
        })?
        .map_err(|_| Died("_TPM_Hash_End failed".into()))
    }

    fn probe(&mut self, command: &[u8]) -> Result<(), Died> {
        let mut copy = self.tpm.clone();
        let mut world = World { rng: self.world.rng.clone(), now: self.world.now };
        caught(|| copy.execute(&mut world, self.locality, command)).map(drop)
    }
}
