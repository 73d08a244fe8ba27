//! The log of a running vtpmd: its formats, its fields, and that no secret gets into it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test that panics has failed"
)]

#[path = "../control/client.rs"]
#[allow(dead_code, reason = "shared with the other tests of the programs")]
mod client;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "shared with the other tests of the programs")]
mod common;
mod journal;
mod secrets;

use std::fs::File;
use std::path::{Path, PathBuf};

use client::Machine;
use common::Host;
use secrets::Secrets;
use serde_json::Value;
use vtpm_protocol::codec::Encode;
use vtpm_protocol::instance::cc;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::*;

const UUID: &str = "b9a6a2d4-5f6e-4c3b-9a51-6f3c1d2e4f52";

/// A host whose daemon writes its standard error to a file.
struct Logged {
    host: Host,
    log: PathBuf,
}

impl Logged {
    fn start(dir: &Path, name: &str, arguments: &[&str]) -> Self {
        let mut logged = Self { host: Host::at(dir.join(name)), log: dir.join(format!("{name}.log")) };
        assert!(logged.host.vtpmd("init").output().unwrap().status.success());
        logged.run(arguments, &[]);
        logged
    }

    fn run(&mut self, arguments: &[&str], environment: &[(&str, &str)]) {
        let mut program = self.host.vtpmd("run");
        program.args(arguments).envs(environment.iter().copied());
        program.stderr(File::options().append(true).create(true).open(&self.log).unwrap());
        assert_eq!(self.host.launch(program), None);
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.log).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }

    /// The lines, each of which is an object.
    fn objects(&self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }
}

/// All that a machine and an operator do with secrets: on the way, every secret goes into `secrets`.
fn live_a_life(a: &Logged, b: &Logged, dir: &Path, secrets: &mut Secrets) {
    a.host.pin(&b.host);
    a.host.ctl(&["create", "guest", "--uuid", UUID]);
    let mut machine = Machine::connect(&a.host.runtime().join("guest/control.sock"));
    machine.boot();

    // Authorizations, sealed data, what is in NV, random numbers.
    let owner = secrets.new_one("the owner authorization of the machine", 32);
    let change = |machine: &mut Machine, hierarchy, old: &[u8], new: &[u8]| {
        let new = Tpm2bAuth::new(new.to_vec()).unwrap();
        let done = machine.data.run(TpmCc::HIERARCHY_CHANGE_AUTH, &[hierarchy], Some(old), &new).unwrap();
        assert_eq!(done.0, ResponseCode::SUCCESS);
    };
    change(&mut machine, TpmHandle::OWNER, b"", &owner);
    let index = TpmHandle(0x0150_0001);
    let auth = secrets.new_one("the authorization of an index", 32);
    let public = TpmsNvPublic {
        nv_index: index,
        name_alg: TpmiAlgHash(TpmAlgId::SHA256),
        attributes: TpmaNv::AUTH_WRITE | TpmaNv::AUTH_READ | TpmaNv::NO_DA,
        auth_policy: Tpm2bDigest::empty(),
        data_size: 64,
    };
    let index_auth = Tpm2bAuth::new(auth.clone()).unwrap();
    let define = (index_auth, Sized2b(public));
    let run =
        |machine: &mut Machine, code, handles: &[TpmHandle], password: &[u8], parameters: &dyn Encode| {
            let (rc, out) = machine.data.run(code, handles, Some(password), parameters).unwrap();
            assert_eq!(rc, ResponseCode::SUCCESS, "{code:?}");
            out
        };
    run(&mut machine, TpmCc::NV_DEFINE_SPACE, &[TpmHandle::OWNER], &owner, &define);
    let data = secrets.new_one("what is in an index", 64);
    let written = Tpm2bMaxNvBuffer::new(data.clone()).unwrap();
    run(&mut machine, TpmCc::NV_WRITE, &[index, index], &auth, &(written, 0u16));
    assert_eq!(run(&mut machine, TpmCc::NV_READ, &[index, index], &auth, &(64u16, 0u16))[6..70], data[..]);
    let (rc, random) = machine.data.run(TpmCc::GET_RANDOM, &[], None, &32u16).unwrap();
    assert_eq!(rc, ResponseCode::SUCCESS);
    secrets.add("a random number", &random[2..34]);
    // A wrong password, and nonsense with a secret in it, are told of by their code at most.
    let wrong = secrets.new_one("a wrong password", 32);
    let refused = machine.data.run(TpmCc::NV_READ, &[index, index], Some(&wrong), &(64u16, 0u16)).unwrap();
    assert!(refused.0.is(ResponseCode::BAD_AUTH) || refused.0.is(ResponseCode::AUTH_FAIL), "{}", refused.0);
    let nonsense = secrets.new_one("nonsense", 40);
    let (rc, _) = machine.data.run(TpmCc(0x1fe), &[], None, &Raw40(nonsense.try_into().unwrap())).unwrap();
    assert_eq!(rc, ResponseCode::COMMAND_CODE);
    assert_eq!(machine.result(vtpm_protocol::control::Request::Stop), 0);
    drop(machine);

    // A migration, and its receipt.
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let (ticket, stream) = (path("ticket"), path("stream"));
    b.host.ctl(&["migrate", "prepare", "guest", "--uuid", UUID, "--ticket", &ticket]);
    a.host.ctl(&["export", "guest", "--ticket", &ticket, "--output", &stream]);
    b.host.ctl(&["import", "guest", "--input", &stream]);
    let mut machine = Machine::connect(&b.host.runtime().join("guest/control.sock"));
    machine.boot();
    assert_eq!(run(&mut machine, TpmCc::NV_READ, &[index, index], &auth, &(64u16, 0u16))[6..70], data[..]);
    let receipt = b.host.json(&["migrate", "commit", "guest"])["receipt"].as_str().unwrap().to_owned();
    secrets.add("a receipt", &hex::decode(&receipt).unwrap());
    a.host.ctl(&["migrate", "commit", "guest", "--receipt", &receipt]);
    let (rc, _) = a
        .host
        .raw()
        .run(cc::LIST_INSTANCES, &[TpmHandle::OWNER, TpmHandle(0xa000_0000)], Some(&wrong), &(0u32, 9u32))
        .unwrap();
    assert!(rc.is(ResponseCode::BAD_AUTH), "{rc}");
}

/// Bytes as they are.
struct Raw40([u8; 40]);

impl Encode for Raw40 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

#[test]
fn no_secret_is_in_the_log_whatever_its_level_and_format() {
    for format in ["text", "json", "journal"] {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["--log-level", "trace", "--log-format", format];
        let (mut a, mut b) =
            (Logged::start(dir.path(), "a", &arguments), Logged::start(dir.path(), "b", &arguments));
        let mut secrets = Secrets::default();
        live_a_life(&a, &b, dir.path(), &mut secrets);
        for host in [&mut a, &mut b] {
            secrets.add("the host key", &secrets::host_key(&host.host.state()));
            secrets.add("the owner authorization of a root", &host.host.owner_auth());
            host.host.terminate();
        }
        for host in [&a, &b] {
            let log = host.bytes();
            // It is the log of all this.
            for word in
                ["HIERARCHY_CHANGE_AUTH", "NV_WRITE", "NV_READ", "GET_INSTANCE_KEY", "SET_INSTANCE_KEY", UUID]
            {
                let there = log.windows(word.len()).any(|w| w == word.as_bytes());
                let elsewhere = match word {
                    "HIERARCHY_CHANGE_AUTH" | "NV_WRITE" | "GET_INSTANCE_KEY" => host.log.ends_with("b.log"),
                    "SET_INSTANCE_KEY" => host.log.ends_with("a.log"),
                    _ => false,
                };
                assert!(there || elsewhere, "{format} {word} {}", host.log.display());
            }
            assert!(log.len() > 5000, "{}", log.len());
            assert_eq!(secrets.found_in(&log), None::<String>, "{format}");
        }
    }
}

#[test]
fn a_secret_in_a_log_would_be_found() {
    let mut secrets = Secrets::default();
    let secret = secrets.new_one("a secret", 32);
    let part = &secret[5..17];
    let list = format!("{part:?}");
    for spelling in [
        part.to_vec(),
        hex::encode(part).into_bytes(),
        hex::encode_upper(part).into_bytes(),
        part.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":").into_bytes(),
        part.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(" ").into_bytes(),
        list.into_bytes(),
        secrets::base64(&[b"xy", part].concat()).into_bytes(),
        secrets::base64(&[b"x", part, b"abc"].concat()).replace('+', "-").replace('/', "_").into_bytes(),
    ] {
        let log = [b"some line ", &spelling[..], b" goes on"].concat();
        assert!(secrets.found_in(&log).is_some(), "{}", String::from_utf8_lossy(&log));
    }
    assert!(secrets.found_in(b"some line without it").is_none());
}

#[test]
fn a_line_in_json_says_which_instance_migration_and_command_it_is_about() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--log-level", "trace", "--log-format", "json"];
    let (a, b) = (Logged::start(dir.path(), "a", &arguments), Logged::start(dir.path(), "b", &arguments));
    live_a_life(&a, &b, dir.path(), &mut Secrets::default());
    let (of_a, of_b) = (a.objects(), b.objects());
    for object in of_a.iter().chain(&of_b) {
        let time = object["time"].as_str().unwrap();
        assert!(time.len() == 24 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
        assert!(["error", "warn", "info", "debug", "trace"].contains(&object["level"].as_str().unwrap()));
        assert!(object["target"].as_str().unwrap().starts_with("vtpm"), "{object}");
        assert!(object["message"].is_string(), "{object}");
    }
    let writes: Vec<&Value> = of_a.iter().filter(|o| o["command"] == "NV_WRITE").collect();
    let [write] = writes[..] else { panic!("{writes:?}") };
    assert_eq!(
        (&write["instance"], &write["uuid"], &write["code"]),
        (&"guest".into(), &UUID.into(), &0.into())
    );
    assert!(write["handle"].as_str().unwrap().starts_with("0xa0"), "{write}");
    let steps = |of: &[Value]| -> Vec<(String, String)> {
        let steps = of.iter().filter(|o| o["level"] == "info" && o["step"].is_string());
        steps.map(|o| (o["side"].as_str().unwrap().into(), o["step"].as_str().unwrap().into())).collect()
    };
    let expected = |side: &str, steps: &[&str]| -> Vec<(String, String)> {
        steps.iter().map(|step| (side.to_owned(), (*step).to_owned())).collect()
    };
    assert_eq!(steps(&of_a), expected("source", &["lock", "get-key", "get-data", "commit"]));
    assert_eq!(
        steps(&of_b),
        expected("destination", &["prepare", "set-key", "set-data", "unlock", "first-command"])
    );
    // One and the same at both ends, and as long as it takes to tell migrations apart.
    let ids: std::collections::BTreeSet<&str> =
        of_a.iter().chain(&of_b).filter_map(|o| o["migration"].as_str()).collect();
    assert_eq!(ids.iter().map(|id| id.len()).collect::<Vec<_>>(), [12]);
}

#[test]
fn why_the_daemon_does_not_start_is_a_line_like_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::at(dir.path().join("a"));
    let output = host.vtpmd("run").args(["--log-format", "json"]).output().unwrap();
    assert!(!output.status.success());
    let line: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["message"].as_str().unwrap().starts_with("vtpmd: "), "{line}");
    let output = host.vtpmd("run").output().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().starts_with("vtpmd: "));
}
