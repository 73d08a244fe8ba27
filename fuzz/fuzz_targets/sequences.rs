//! Sequences of commands against one TPM. Whatever they are: nothing panics, every response is well-formed, a command that failed changed
//! nothing but what dictionary attack protection and PINs count, what was committed is what the TPM remembers, and what is saved
//! loads to the same state.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use vtpm_engine::command::{Role, table};
use vtpm_engine::crypto::HashAlg;
use vtpm_engine::{Change, CommitFailed, Environment, RecordKey, Tpm};
use vtpm_protocol::codec::{Encode, Reader};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, TpmHandle, TpmSt};

/// Steps of one sequence; more take too long for what they find.
const MAX_STEPS: usize = 32;

/// Deterministic, so that a finding can be repeated.
#[derive(Default)]
struct Host {
    counter: u64,
    now: u64,
    saved: BTreeMap<RecordKey, Vec<u8>>,
}

impl Environment for Host {
    fn fill_random(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            self.counter += 1;
            let block = HashAlg::Sha256.digest(&[b"fuzz", &self.counter.to_be_bytes()]);
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }

    fn now_ms(&mut self) -> u64 {
        self.now
    }

    fn commit(&mut self, changes: Vec<Change>, _response: &[u8]) -> Result<(), CommitFailed> {
        for Change { key, value } in changes {
            match value {
                Some(value) => drop(self.saved.insert(key, value.to_vec())),
                None => drop(self.saved.remove(&key)),
            }
        }
        Ok(())
    }
}

type Records = BTreeMap<RecordKey, Vec<u8>>;

fn records(tpm: &Tpm) -> Records {
    tpm.records().into_iter().map(|(k, v)| (k, v.to_vec())).collect()
}

/// Handles that sequences meet again and again; a step names one of them by a byte.
const HANDLES: [TpmHandle; 32] = [
    TpmHandle::OWNER,
    TpmHandle::NULL,
    TpmHandle::PLATFORM,
    TpmHandle::ENDORSEMENT,
    TpmHandle::LOCKOUT,
    TpmHandle::PLATFORM_NV,
    TpmHandle(0x8000_0000),
    TpmHandle(0x8000_0001),
    TpmHandle(0x8000_0002),
    TpmHandle(0x8100_0000),
    TpmHandle(0x8100_0001),
    TpmHandle(0x8180_0000),
    TpmHandle(0x0100_0000),
    TpmHandle(0x0100_0001),
    TpmHandle(0x0140_0001),
    TpmHandle(0x01c0_0002),
    TpmHandle(0x0200_0000),
    TpmHandle(0x0200_0001),
    TpmHandle(0x0300_0000),
    TpmHandle(0x0300_0001),
    TpmHandle(0x0300_0002),
    TpmHandle(0),
    TpmHandle(10),
    TpmHandle(16),
    TpmHandle(17),
    TpmHandle(23),
    TpmHandle(24),
    TpmHandle::UNASSIGNED,
    TpmHandle::RS_PW,
    TpmHandle::ACT_0,
    TpmHandle(0x0200_003f),
    TpmHandle(0xffff_ffff),
];

/// What is left of the fuzzer's bytes.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn bytes(&mut self, wanted: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(wanted.min(self.0.len()));
        self.0 = rest;
        head
    }

    fn number(&mut self) -> Option<usize> {
        Some(usize::from(self.byte()?) << 8 | usize::from(self.byte()?))
    }

    fn handle(&mut self) -> Option<TpmHandle> {
        Some(HANDLES[usize::from(self.byte()?) % HANDLES.len()])
    }

    /// A command of the table with handles of the list, as many sessions as it needs or a few more, and parameters as they come.
    fn command(&mut self) -> Option<Vec<u8>> {
        // By code and not by place in the table, so that corpora outlive new commands.
        let command = table::find(TpmCc(TpmCc::NV_UNDEFINE_SPACE_SPECIAL.0 + u32::from(self.byte()?)))?;
        let mut body = Vec::new();
        for _ in command.handles {
            self.handle()?.encode(&mut body);
        }
        let sessions = self.byte()?;
        let needed = command.handles.iter().filter(|h| h.role != Role::None).count();
        let count = needed + usize::from(sessions & 3 == 3);
        let mut area = Vec::new();
        for _ in 0..count {
            if sessions & 4 == 0 {
                (TpmHandle::RS_PW, 0u16, 0u8, 0u16).encode(&mut area);
            } else {
                let attributes = self.byte()? & 0xe7;
                (self.handle()?, 0u16, attributes, 0u16).encode(&mut area);
            }
        }
        if count > 0 {
            u32::try_from(area.len()).ok()?.encode(&mut body);
            body.append(&mut area);
        }
        let size = usize::from(self.byte()?);
        body.extend_from_slice(self.bytes(size));
        let tag = if count > 0 { TpmSt::SESSIONS } else { TpmSt::NO_SESSIONS };
        let mut out = (tag, u32::try_from(body.len() + 10).ok()?, command.code).to_bytes();
        out.append(&mut body);
        Some(out)
    }
}

struct Machine {
    tpm: Tpm,
    host: Host,
    locality: u8,
}

/// A TPM before its first Startup; made once, as its seeds do not matter.
static MANUFACTURED: LazyLock<Tpm> = LazyLock::new(|| Tpm::manufacture(&mut Host::default()));

impl Machine {
    fn started() -> Self {
        let tpm = MANUFACTURED.clone();
        let host = Host { counter: 1000, saved: records(&tpm), ..Host::default() };
        let mut machine = Self { tpm, host, locality: 0 };
        machine.execute(&[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0]);
        machine
    }

    fn execute(&mut self, command: &[u8]) {
        let before = records(&self.tpm);
        let response = self.tpm.execute(&mut self.host, self.locality, command);
        let mut r = Reader::new(&response);
        let header =
            (r.take(2), r.array::<4>().map(u32::from_be_bytes), r.array::<4>().map(u32::from_be_bytes));
        let (Ok(_), Ok(size), Ok(rc)) = header else {
            panic!("a response without a header: {response:02x?}")
        };
        assert_eq!(usize::try_from(size), Ok(response.len()));
        let rc = ResponseCode::from_value(rc);
        let now = records(&self.tpm);
        let counts = rc.is(ResponseCode::AUTH_FAIL)
            || rc.is(ResponseCode::BAD_AUTH)
            || rc == ResponseCode::FAILURE
            || uses_pin(&before);
        if rc != ResponseCode::SUCCESS && !counts {
            assert!(before == now, "{rc} changed the state: {command:02x?}");
        }
        self.check();
    }

    fn check(&self) {
        let saved = self.tpm.records();
        assert!(records(&self.tpm) == self.host.saved, "what was committed is not what the TPM remembers");
        let loaded =
            Tpm::from_records(&saved).unwrap_or_else(|e| panic!("what was saved does not load: {e}"));
        assert!(records(&loaded) == self.host.saved, "what was loaded is another state");
    }

    fn init(&mut self) {
        assert!(self.tpm.init(&mut self.host).is_ok());
        self.check();
    }
}

/// A right PIN counts as used, whatever becomes of the command.
fn uses_pin(before: &Records) -> bool {
    before.keys().any(|k| matches!(k, RecordKey::Nv(_)))
}

fuzz_target!(|data: &[u8]| {
    let mut machine = Machine::started();
    let mut input = Input(data);
    for _ in 0..MAX_STEPS {
        let Some(kind) = input.byte() else { return };
        match kind % 8 {
            0 | 1 => {
                let Some(size) = input.number() else { return };
                let command = input.bytes(size % 1500).to_vec();
                machine.execute(&command);
            }
            2 => {
                machine.init();
                let startup = (TpmSt::NO_SESSIONS, 12u32, TpmCc::STARTUP, u16::from(kind >> 7)).to_bytes();
                machine.execute(&startup);
            }
            3 => {
                let Some(seconds) = input.number() else { return };
                machine.host.now += seconds as u64 * 1000;
                machine.locality = kind >> 4 & 7;
            }
            _ => match input.command() {
                Some(command) => machine.execute(&command),
                None => continue,
            },
        }
    }
});
