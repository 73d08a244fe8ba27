//! Our engine, in this process, with random numbers of the seed and a clock that ticks once a command.

use super::{Device, Died};
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use vtpm_engine::{Change, CommitFailed, Environment, RecordKey, Tpm};
use zeroize::Zeroizing;

/// How many commands of a hundred find a TPM that was just loaded, where reloading is asked for.
const RELOADS: usize = 30;

struct World {
    rng: Rng,
    now: u64,
    /// The records as they were committed, where they are wanted.
    saved: Option<BTreeMap<RecordKey, Zeroizing<Vec<u8>>>>,
}

impl Environment for World {
    fn fill_random(&mut self, out: &mut [u8]) {
        out.fill_with(|| self.rng.draw() as u8);
    }

    fn now_ms(&mut self) -> u64 {
        self.now
    }

    fn commit(&mut self, changes: Vec<Change>, _response: &[u8]) -> Result<(), CommitFailed> {
        let Some(saved) = &mut self.saved else { return Ok(()) };
        for Change { key, value } in changes {
            match value {
                Some(value) => drop(saved.insert(key, value)),
                None => drop(saved.remove(&key)),
            }
        }
        Ok(())
    }
}

/// A TPM of ours.
pub struct Ours {
    tpm: Tpm,
    world: World,
    locality: u8,
    /// When it is loaded anew: a generator of its own, so that the commands are the same as without.
    reloads: Rng,
    reloaded: u64,
}

impl Ours {
    /// A new one, before Startup. With `reload` it is dropped between commands now and then, and goes on from what it has committed.
    pub fn manufacture(seed: u64, reload: bool) -> Self {
        let mut world = World { rng: Rng::part(seed, 0x6f75_7273), now: 1000, saved: None };
        let tpm = Tpm::manufacture(&mut world);
        world.saved = reload.then(|| tpm.records().into_iter().collect());
        Self { tpm, world, locality: 0, reloads: Rng::part(seed, 0x7265_6c6f), reloaded: 0 }
    }

    /// Now and then, goes on from the records.
    fn reload(&mut self) -> Result<(), Died> {
        let Some(saved) = &self.world.saved else { return Ok(()) };
        if !self.reloads.chance(RELOADS) {
            return Ok(());
        }
        let records: Vec<_> = saved.iter().map(|(k, v)| (*k, v.clone())).collect();
        if !self.tpm.records().into_iter().collect::<BTreeMap<_, _>>().eq(saved) {
            return Err(Died("our engine remembers something else than it has committed".into()));
        }
        self.tpm = caught(|| Tpm::from_records(&records))?
            .map_err(|e| Died(format!("our engine does not load what it has committed: {e}")))?;
        self.reloaded += 1;
        Ok(())
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
        self.reload()?;
        caught(|| self.tpm.execute(&mut self.world, self.locality, command))
    }

    fn power_cycle(&mut self) -> Result<(), Died> {
        self.reload()?;
        caught(|| self.tpm.init(&mut self.world))?.map_err(|_| Died("_TPM_Init failed".into()))
    }

    fn set_locality(&mut self, locality: u8) -> Result<(), Died> {
        self.locality = locality;
        Ok(())
    }

    fn measure(&mut self, data: &[u8]) -> Result<(), Died> {
        self.reload()?;
        caught(|| {
            self.tpm.hash_start(&mut self.world)?;
            self.tpm.hash_data(data);
            self.tpm.hash_end(&mut self.world)
        })?
        .map_err(|_| Died("_TPM_Hash_End failed".into()))
    }

    fn probe(&mut self, command: &[u8]) -> Result<(), Died> {
        let mut copy = self.tpm.clone();
        let mut world = World { rng: self.world.rng.clone(), now: self.world.now, saved: None };
        caught(|| copy.execute(&mut world, self.locality, command)).map(drop)
    }

    fn reloaded(&self) -> u64 {
        self.reloaded
    }
}
