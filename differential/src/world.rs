//! Both TPMs in lockstep: every command goes to both, and every answer is compared.

use crate::accepted::{self, Usage};
use crate::bytes::{Bytes, OURS, Pair, SIDES, THEIRS, both, u32_at};
use crate::client::{self, Auth, Call, Entity, Reply, Sent, attr};
use crate::compare::{self, What};
use crate::coverage::Coverage;
use crate::device::{Device, Died};
use crate::effects;
use crate::generate::{authorize, mutate};
use crate::model::Model;
use crate::rng::Rng;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmAlgId, TpmCc, TpmHandle};

/// What both can do, found out once for a run.
#[derive(Clone, Debug, Default)]
pub struct Common {
    /// The commands of both.
    pub commands: BTreeSet<u32>,
    /// Those that only we have.
    pub ours_only: BTreeSet<u32>,
    /// Those that only swtpm has.
    pub theirs_only: BTreeSet<u32>,
    /// The algorithms of both.
    pub algs: BTreeSet<u16>,
    /// Algorithms that one has and the other has not.
    pub disputed_algs: BTreeSet<u16>,
    /// The curves of both.
    pub curves: BTreeSet<u16>,
    /// RSA key sizes of both.
    pub rsa_bits: BTreeSet<u16>,
    /// RSA key sizes that one has and the other has not.
    pub disputed_rsa_bits: BTreeSet<u16>,
    /// AES key sizes of both.
    pub aes_bits: BTreeSet<u16>,
    /// AES key sizes that one has and the other has not.
    pub disputed_aes_bits: BTreeSet<u16>,
    /// Curves that one has and the other has not.
    pub disputed_curves: BTreeSet<u16>,
}

impl Common {
    /// Whether both have the command.
    pub fn has(&self, code: TpmCc) -> bool {
        self.commands.contains(&code.0)
    }
}

/// One command with its answers.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The number of the step.
    pub step: usize,
    /// The command's name, and how it was made wrong.
    pub title: String,
    /// What was sent.
    pub sent: Pair<Vec<u8>>,
    /// What came back.
    pub received: Pair<Vec<u8>>,
}

/// A difference that no entry of the table accepts.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The command code.
    pub code: u32,
    /// How it was made wrong; empty for a good one.
    pub mutation: String,
    /// What differs.
    pub what: What,
    /// The step.
    pub step: usize,
    /// How many exchanges there were then, this one included.
    pub at: usize,
}

impl Difference {
    /// Whether two are of the same kind.
    pub fn resembles(&self, other: &Self) -> bool {
        let same = match (&self.what, &other.what) {
            (What::Field(a, ..), What::Field(b, ..)) => a == b,
            (a, b) => a == b,
        };
        self.code == other.code && same
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}, {:?}{}: ", self.step, TpmCc(self.code), self.mutation)?;
        match &self.what {
            What::Code(theirs, ours) => write!(f, "{theirs:#x} / {ours:#x}"),
            What::Field(name, ..) => f.write_str(name),
        }
    }
}

/// The answers to a command that both did.
#[derive(Clone, Debug)]
pub struct Replies {
    /// The handles.
    pub handle: Pair<u32>,
    /// The parameters.
    pub params: Bytes,
}

impl Replies {
    /// The `n`th `TPM2B` of the parameters.
    pub fn b2(&self, n: usize) -> Pair<Vec<u8>> {
        SIDES.map(|s| crate::bytes::nth_2b(&self.params.0[s], n))
    }
}

/// Whether a command that succeeded changed nothing: neither anything that it names nor a nonce.
fn is_harmless(call: &Call) -> bool {
    let commands = [
        TpmCc::GET_CAPABILITY,
        TpmCc::TEST_PARMS,
        TpmCc::IMPORT,
        TpmCc::CREATE,
        TpmCc::CERTIFY,
        TpmCc::ACTIVATE_CREDENTIAL,
    ];
    let plain = call.auths.iter().all(|a| matches!(a, Auth::Password(_)));
    plain && commands.contains(&TpmCc(call.code))
}

/// The world of one episode.
pub struct World {
    devices: Pair<Box<dyn Device>>,
    /// What both can do.
    pub common: Arc<Common>,
    /// What is there on both sides, as far as good commands need to know.
    pub model: Model,
    /// Where choices come from.
    pub rng: Rng,
    /// All that was sent.
    pub log: Vec<Exchange>,
    /// What ran.
    pub coverage: Coverage,
    /// Which entries of the table were needed.
    pub usage: Usage,
    /// What differs and must not.
    pub differences: Vec<Difference>,
    /// The number of the current step.
    pub step: usize,
    /// How many commands of a hundred are made wrong.
    pub mutations: usize,
    /// The sides are no longer the same: nothing more is sent.
    pub ended: bool,
    /// After which difference that was.
    pub ended_by: Option<String>,
    /// What a device died of.
    pub died: Option<Died>,
    /// How often swtpm died of a command that it is known to die of.
    pub oracle_deaths: u64,
}

impl World {
    /// Two TPMs before their Startup.
    pub fn new(devices: Pair<Box<dyn Device>>, common: Arc<Common>) -> Self {
        Self {
            devices,
            common,
            model: Model::default(),
            rng: Rng::new(0),
            log: Vec::new(),
            coverage: Coverage::default(),
            usage: Usage::default(),
            differences: Vec::new(),
            step: 0,
            mutations: 25,
            ended: false,
            died: None,
            ended_by: None,
            oracle_deaths: 0,
        }
    }

    /// How often our TPM went on from what it had saved.
    pub fn reloaded(&self) -> u64 {
        self.devices[OURS].reloaded()
    }

    /// A good command with its handles.
    pub fn call(&self, code: TpmCc, handles: &[&Entity], params: Bytes) -> Call {
        let shape = client::shape(code);
        Call {
            code: code.0,
            handles: handles.iter().map(|e| (*e).clone()).collect(),
            authorized: shape.authorized,
            params,
            returns_handle: shape.returns_handle,
            ..Call::default()
        }
    }

    /// Whether both have a command.
    pub fn has(&self, code: TpmCc) -> bool {
        self.common.has(code)
    }

    /// Sends a command with authorizations of the generator's choice, made wrong now and then. The answers, when both did it.
    pub fn run(&mut self, mut call: Call) -> Option<Replies> {
        if !self.ready(&call) {
            return None;
        }
        if call.auths.is_empty() {
            authorize::complete(self, &mut call);
        }
        if self.rng.chance(self.mutations) {
            mutate::spoil(self, &mut call);
        }
        self.send(&call)
    }

    /// Sends a command with authorizations of the generator's choice, as it is.
    pub fn run_good(&mut self, mut call: Call) -> Option<Replies> {
        if !self.ready(&call) {
            return None;
        }
        if call.auths.is_empty() {
            authorize::simply(&mut call);
        }
        self.send(&call)
    }

    fn ready(&mut self, call: &Call) -> bool {
        if self.ended {
            return false;
        }
        if self.common.ours_only.contains(&call.code) {
            let mut call = call.clone();
            authorize::simply(&mut call);
            let sent = client::build(&call, OURS, &self.model.sessions, &mut self.rng);
            if let Err(e) = self.devices[OURS].probe(&sent.bytes) {
                self.die(e);
            }
        }
        // What is gone meanwhile is not asked for again, as its number may be another's on one side only.
        let is_there = |e: &Entity| {
            let m = &self.model;
            let mut known =
                m.objects.iter().map(|o| o.entity.handle).chain(m.sequences.iter().map(|s| s.entity.handle));
            e.handle[OURS] >> 24 != 0x80 || known.any(|h| h == e.handle)
        };
        self.common.commands.contains(&call.code) && call.handles.iter().all(is_there)
    }

    /// A device is gone. That swtpm is, some commands are known for.
    fn die_of(&mut self, side: usize, call: &Call, e: Died) {
        if side == THEIRS && accepted::ORACLE_DIES_OF.contains(&TpmCc(call.code)) {
            self.ended = true;
            self.oracle_deaths += 1;
        } else {
            self.die(e);
        }
    }

    fn die(&mut self, e: Died) {
        self.ended = true;
        self.died.get_or_insert(e);
    }

    /// Sends a command as it is, compares the answers, and takes over what it changed.
    pub fn send(&mut self, call: &Call) -> Option<Replies> {
        if self.ended {
            return None;
        }
        let mut call = call.clone();
        call.known = call.edits.is_empty() && self.is_known(&call);
        let sent: Pair<Sent> =
            SIDES.map(|s| client::build(&call, s, &self.model.sessions, &mut self.rng.clone()));
        self.rng.draw();
        let mut received = both(Vec::new());
        let title = format!("{:?}{}", TpmCc(call.code), call.mutation);
        for side in SIDES {
            match self.devices[side].execute(&sent[side].bytes).and_then(|response| {
                // As clients do: a TPM that says so has not begun yet.
                let again = u32_at(&response, 6) == ResponseCode::RETRY.value();
                if again { self.devices[side].execute(&sent[side].bytes) } else { Ok(response) }
            }) {
                Ok(response) => received[side] = response,
                Err(e) => self.die_of(side, &call, e),
            }
            if self.ended {
                break;
            }
        }
        let bytes = sent.clone().map(|s| s.bytes);
        self.log.push(Exchange { step: self.step, title, sent: bytes, received: received.clone() });
        if self.ended {
            return None;
        }
        let codes = SIDES.map(|s| u32_at(&received[s], 6));
        self.coverage.count(&call, codes[THEIRS]);
        if codes[THEIRS] == ResponseCode::FAILURE.value() {
            // From now on it says nothing else.
            self.end(&call, codes);
        }
        if codes[THEIRS] != codes[OURS] {
            self.codes_differ(&call, codes, &received);
            return None;
        }
        if codes[THEIRS] != 0 {
            return None;
        }
        let mut replies: Pair<Reply> = both(Reply::default());
        for side in SIDES {
            replies[side] = client::read(&call, side, &mut self.model.sessions, &sent[side], &received[side]);
        }
        for what in compare::replies(&call, &replies) {
            self.found(&call, what);
        }
        let [theirs, ours] = replies;
        let replies =
            Replies { handle: [theirs.handle, ours.handle], params: Bytes([theirs.params, ours.params]) };
        self.after_sessions(&call);
        effects::of(self, &call, &replies);
        if !call.mutation.is_empty() && call.returns_handle {
            // Nobody knows what this is.
            self.flush(replies.handle);
            return None;
        }
        // What the client did not mean to ask for it does not work with.
        call.edits.is_empty().then_some(replies)
    }

    /// Whether the result is the same on both sides.
    fn is_known(&self, call: &Call) -> bool {
        let same_name = |e: &Entity| e.name[THEIRS] == e.name[OURS];
        let same_policy = |e: &Entity| {
            let session = self.model.sessions.values().find(|s| s.handle == e.handle);
            session.is_none_or(|s| s.same_policy)
        };
        let sequence_known =
            self.model.sequences.iter().find(|s| call.handles.iter().any(|h| h.handle == s.entity.handle));
        let random = [TpmCc::CREATE_PRIMARY, TpmCc::CREATE, TpmCc::START_AUTH_SESSION, TpmCc::GET_RANDOM];
        // A derived object comes of its parent alone.
        let parent = call
            .handles
            .first()
            .and_then(|e| self.model.objects.iter().find(|o| o.entity.handle == e.handle));
        let derived = parent.is_some_and(|o| o.alg() == TpmAlgId::KEYEDHASH);
        let made_up = random.contains(&TpmCc(call.code)) || call.code == TpmCc::CREATE_LOADED.0 && !derived;
        !made_up
            && call.params.is_same()
            && call.handles.iter().all(|e| same_name(e) && same_policy(e))
            && sequence_known.is_none_or(|s| s.known)
    }

    /// The sides are not the same any more.
    fn end(&mut self, call: &Call, codes: Pair<u32>) {
        self.ended = true;
        let mutation = if call.mutation.is_empty() { "" } else { " (made wrong)" };
        let why = format!("{:?}{mutation}: {:#x} / {:#x}", TpmCc(call.code), codes[THEIRS], codes[OURS]);
        self.ended_by.get_or_insert(why);
    }

    fn codes_differ(&mut self, call: &Call, codes: Pair<u32>, received: &Pair<Vec<u8>>) {
        self.found(call, What::Code(codes[THEIRS], codes[OURS]));
        let base = |rc: u32| ResponseCode::from_value(rc).base();
        let counts = [ResponseCode::AUTH_FAIL, ResponseCode::LOCKOUT, ResponseCode::BAD_AUTH];
        if codes[THEIRS] == 0 || codes[OURS] == 0 {
            let side = if codes[THEIRS] == 0 { THEIRS } else { OURS };
            if call.returns_handle && call.auths.iter().all(|a| matches!(a, Auth::Password(_))) {
                // What one of them made goes away again, and they are the same as before.
                let handle = u32_at(&received[side], 10);
                let flush = [&[0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65][..], &handle.to_be_bytes()].concat();
                if let Err(e) = self.devices[side].execute(&flush) {
                    self.die(e);
                }
            } else if !is_harmless(call) {
                self.end(call, codes);
            }
        } else if counts.contains(&base(codes[THEIRS])) || counts.contains(&base(codes[OURS])) {
            self.end(call, codes);
        }
    }

    fn found(&mut self, call: &Call, what: What) {
        if accepted::accepts(call, &what, self.step, &mut self.usage) {
            return;
        }
        self.differences.push(Difference {
            code: call.code,
            mutation: call.mutation.clone(),
            what,
            step: self.step,
            at: self.log.len(),
        });
    }

    /// What a command that succeeded does to its sessions.
    fn after_sessions(&mut self, call: &Call) {
        for auth in &call.auths {
            let Auth::Session(n, attributes) = auth else { continue };
            let Some(s) = self.model.sessions.get_mut(n) else { continue };
            if attributes & attr::AUDIT != 0 {
                s.audited = true;
                s.bound = None;
            }
            if s.is_policy() {
                s.auth_value_needed = false;
                s.password_needed = false;
                s.same_policy = true;
            }
            let handle = s.handle;
            if attributes & attr::CONTINUE == 0 {
                self.model.sessions.remove(n);
            } else if !call.edits.is_empty() {
                self.flush(handle);
            }
        }
    }

    /// Flushes an object or session.
    pub fn flush(&mut self, handle: Pair<u32>) {
        let call = self.call(TpmCc::FLUSH_CONTEXT, &[], Bytes::new().handle(handle));
        self.send(&call);
        // Whatever they say: it is of no more use.
        effects::flushed(self, handle);
    }

    /// `_TPM_Init` of both, and a Startup.
    pub fn power_cycle(&mut self, startup_state: bool) {
        self.power_off();
        self.start(startup_state);
    }

    /// `_TPM_Init` of both.
    pub fn power_off(&mut self) {
        if self.ended {
            return;
        }
        for side in SIDES {
            if let Err(e) = self.devices[side].power_cycle() {
                self.die(e);
            }
        }
        self.log.push(Exchange {
            step: self.step,
            title: "_TPM_Init".into(),
            sent: both(vec![]),
            received: both(vec![]),
        });
        self.model.powered_off();
    }

    /// Startup, of the other type where this one is refused.
    pub fn start(&mut self, startup_state: bool) {
        let startup = self.call(TpmCc::STARTUP, &[], Bytes::new().u16(u16::from(startup_state)));
        if self.send(&startup).is_none() && startup_state {
            let startup = self.call(TpmCc::STARTUP, &[], Bytes::new().u16(0));
            self.send(&startup);
        }
        // An unorderly end counts as a failed try, on one side also where a command failed later.
        let lockout = self.model.permanent(TpmHandle::LOCKOUT);
        let reset = self.call(TpmCc::DICTIONARY_ATTACK_LOCK_RESET, &[&lockout], Bytes::new());
        self.run_good(reset);
    }

    /// A dynamic launch, or before Startup a measurement of the H-CRTM.
    pub fn measure(&mut self, data: &[u8]) {
        if self.ended {
            return;
        }
        for side in SIDES {
            if let Err(e) = self.devices[side].measure(data) {
                self.die(e);
            }
        }
        let title = format!("_TPM_Hash_Start, _TPM_Hash_Data {}, _TPM_Hash_End", hex::encode(data));
        self.log.push(Exchange { step: self.step, title, sent: both(vec![]), received: both(vec![]) });
    }

    /// The locality of what follows.
    pub fn set_locality(&mut self, locality: u8) {
        if self.ended {
            return;
        }
        for side in SIDES {
            if let Err(e) = self.devices[side].set_locality(locality) {
                self.die(e);
            }
        }
        let title = format!("locality {locality}");
        self.log.push(Exchange { step: self.step, title, sent: both(vec![]), received: both(vec![]) });
    }
}
