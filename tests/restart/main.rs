//! vtpmd under a service manager: started, restarted and ended by it.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has failed"
)]

#[allow(dead_code, reason = "shared with tests/control, which uses the rest")]
#[path = "../control/client.rs"]
mod client;
#[allow(dead_code, reason = "shared with tests/programs.rs, which uses the rest")]
#[path = "../common/mod.rs"]
mod common;
#[path = "../../backend/tests/common/mod.rs"]
mod front_end;
mod machines;
mod manager;
mod systemd;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vtpm_protocol::codec::Encode;
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, TpmHandle};

use common::Host;
use machines::{Kind, Machine, Record};
use manager::Manager;
use systemd::Container;

/// A service whose unit is started and stopped.
struct Service {
    host: Host,
    manager: Manager,
    dir: tempfile::TempDir,
}

impl Service {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::at(dir.path().join("a"));
        assert!(host.vtpmd("init").output().unwrap().status.success());
        let manager = Manager::at(dir.path());
        Self { host, manager, dir }
    }

    fn start(&mut self) {
        self.start_with(&[]);
    }

    fn start_with(&mut self, arguments: &[&str]) {
        let mut vtpmd = self.host.vtpmd("run");
        vtpmd.args(arguments);
        let program = self.manager.command(&vtpmd);
        assert_eq!(self.host.launch(program), None);
        self.manager.wait_ready();
    }

    fn socket(&self, instance: &str, name: &str) -> std::path::PathBuf {
        self.host.runtime().join(instance).join(name)
    }

    /// `systemctl restart`.
    fn restart(&mut self) {
        self.host.terminate();
        assert_eq!(self.manager.told().last().unwrap(), "STOPPING=1");
        self.start();
    }
}

const MACHINES: usize = 100;
const RESTARTS: usize = 3;

/// Which files the sockets of instances are.
fn files(runtime: &Path, names: &[String]) -> Vec<u64> {
    use std::os::unix::fs::MetadataExt;
    let doors = names.iter().flat_map(|name| ["control.sock", "vhost-user.sock"].map(|door| (name, door)));
    doors.map(|(name, door)| std::fs::metadata(runtime.join(name).join(door)).unwrap().ino()).collect()
}

fn names() -> Vec<String> {
    (0..MACHINES).map(|i| format!("vm{i}")).collect()
}

/// A hundred machines at the sockets in `runtime` do not notice what `restart` does.
fn not_noticed(runtime: &Path, names: &[String], mut restart: impl FnMut()) {
    let before = files(runtime, names);
    let done = AtomicBool::new(false);
    let records: Vec<Record> = std::thread::scope(|scope| {
        let machine = |(i, name): (usize, &String)| {
            let kind = if i % 2 == 0 { Kind::Virtio } else { Kind::Control };
            let (done, dir) = (&done, runtime.join(name));
            scope.spawn(move || Machine::boot(kind, &dir).work(done))
        };
        let machines: Vec<_> = names.iter().enumerate().map(machine).collect();
        std::thread::sleep(Duration::from_millis(1500));
        for _ in 0..RESTARTS {
            let begin = Instant::now();
            restart();
            println!("restarted in {:?}", begin.elapsed());
            std::thread::sleep(Duration::from_millis(700));
        }
        done.store(true, Ordering::Release);
        machines.into_iter().map(|machine| machine.join().unwrap()).collect()
    });
    assert_eq!(files(runtime, names), before);
    for kind in [Kind::Virtio, Kind::Control] {
        let of: Vec<&Record> = records.iter().filter(|r| r.kind == kind).collect();
        let longest = of.iter().map(|r| r.longest).max().unwrap();
        let commands: u32 = of.iter().map(|r| r.commands).sum();
        println!("{kind:?}: {commands} times two commands, the longest {longest:?}");
        // Half a second is what it may take; the host of this test may have other things to do.
        assert!(longest < Duration::from_secs(5));
        let reconnects: Vec<usize> = of.iter().map(|r| r.reconnects).collect();
        assert_eq!(reconnects, vec![if kind == Kind::Virtio { RESTARTS } else { 0 }; of.len()]);
    }
}

#[test]
fn a_hundred_machines_do_not_notice_a_restart() {
    let mut service = Service::new();
    service.start();
    assert_eq!(service.manager.status(), "1 instances");
    let names = names();
    names.iter().for_each(|name| drop(service.host.ctl(&["create", name])));
    let runtime = service.host.runtime();
    not_noticed(&runtime, &names, || service.restart());
    assert_eq!(service.manager.kept(), [""; 0]);
}

#[test]
fn nor_do_they_notice_systemctl_restart() {
    let container = match Container::boot() {
        Ok(container) => container,
        Err(why) => return println!("SKIPPED: this machine cannot run systemd in a container: {why}"),
    };
    let programs = Path::new(env!("CARGO_BIN_EXE_vtpmd")).parent().unwrap();
    container.install(programs, &Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd"));
    let systemctl = |what: &str, unit: &str| container.run(&["systemctl", what, unit]).status.success();
    // A state is not made by itself.
    assert!(!systemctl("start", "vtpmd.service"));
    container.succeed(&["systemctl", "start", "vtpmd-init.service"]);
    container.succeed(&["systemctl", "start", "vtpmd.service"]);
    let names = names();
    names.iter().for_each(|name| drop(container.succeed(&["vtpmctl", "create", name])));
    let runtime = container.path("/run/vtpmd");
    not_noticed(&runtime, &names, || drop(container.succeed(&["systemctl", "restart", "vtpmd.service"])));
    assert_eq!(container.property("NFileDescriptorStore"), "0");
    assert_eq!(container.property("NRestarts"), "0");

    // Who does not move is started anew.
    let dropin = container.path("/run/systemd/system/vtpmd.service.d");
    std::fs::create_dir_all(&dropin).unwrap();
    std::fs::write(dropin.join("watchdog.conf"), "[Service]\nWatchdogSec=1\n").unwrap();
    container.succeed(&["systemctl", "daemon-reload"]);
    container.succeed(&["systemctl", "restart", "vtpmd.service"]);
    let pid = container.property("MainPID");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(container.property("MainPID"), pid);
    container.succeed(&["kill", "-STOP", &pid]);
    let until = Instant::now() + Duration::from_secs(60);
    while container.property("NRestarts") != "1" || container.property("SubState") != "running" {
        assert!(Instant::now() < until, "{}", container.succeed(&["systemctl", "status", "vtpmd.service"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_ne!(container.property("MainPID"), pid);
    assert!(container.succeed(&["vtpmctl", "list"]).contains("vm99"));

    // By socket activation, when somebody asks.
    container.succeed(&["systemctl", "stop", "vtpmd.service"]);
    container.succeed(&["systemctl", "start", "vtpmd.socket"]);
    assert_eq!(container.property("ActiveState"), "inactive");
    assert!(container.succeed(&["vtpmctl", "list"]).contains("vm99"));
    assert_eq!(container.property("ActiveState"), "active");
    container.succeed(&["systemctl", "stop", "vtpmd.service"]);
    assert!(container.succeed(&["vtpmctl", "list"]).contains("vm99"));
}

/// Of the package that `scripts/package` has built.
#[test]
fn the_debian_package_is_installed_upgraded_and_removed() {
    let Some(package) = std::env::var_os("VTPMD_PACKAGE") else {
        return println!("SKIPPED: VTPMD_PACKAGE does not say where a package is; scripts/test builds one");
    };
    let container = match Container::boot() {
        Ok(container) => container,
        Err(why) => return println!("SKIPPED: this machine cannot run systemd in a container: {why}"),
    };
    std::fs::copy(package, container.path("/root/vtpmd.deb")).unwrap();
    // An image that tests run in may forbid packages to start services.
    let _nothing_forbids = std::fs::remove_file(container.path("/usr/sbin/policy-rc.d"));
    let install = || container.succeed(&["dpkg", "--install", "/root/vtpmd.deb"]);
    install();
    // Nothing runs that nobody has asked for.
    assert_eq!(container.property("ActiveState"), "inactive");
    assert_eq!(container.property("UnitFileState"), "disabled");
    let swtpm = ["/usr/lib/vtpmd/swtpm/swtpm", "socket", "--tpm2", "--print-capabilities"];
    assert!(container.succeed(&swtpm).contains("\"tpm-2.0\""));

    assert!(container.path("/usr/share/man/man8/vtpmctl-migrate-prepare.8.gz").exists());
    container.succeed(&["systemctl", "start", "vtpmd-init.service"]);
    container.succeed(&["systemctl", "enable", "--now", "vtpmd.service"]);
    let names: Vec<String> = names().into_iter().take(4).collect();
    names.iter().for_each(|name| drop(container.succeed(&["vtpmctl", "create", name])));
    let mut processes = vec![container.property("MainPID")];
    not_noticed(&container.path("/run/vtpmd"), &names, || {
        install();
        processes.push(container.property("MainPID"));
    });
    let count = processes.len();
    processes.dedup();
    assert_eq!((processes.len(), count), (RESTARTS + 1, RESTARTS + 1));
    assert_eq!(container.property("NFileDescriptorStore"), "0");
    assert_eq!(container.succeed(&["dpkg", "--verify", "vtpmd"]), "");

    container.succeed(&["dpkg", "--remove", "vtpmd"]);
    assert_eq!(container.property("LoadState"), "not-found");
    assert!(!container.run(&["pgrep", "-x", "vtpmd"]).status.success());
    let said = container.run(&["dpkg", "--purge", "vtpmd"]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("stay in /var/lib/vtpmd"));
    assert!(container.path("/var/lib/vtpmd/vtpmd.sqlite").exists());
    let gone = [
        "/etc/vtpmd",
        "/etc/systemd/system/multi-user.target.wants/vtpmd.service",
        "/usr/lib/vtpmd",
        "/run/vtpmd",
    ];
    for path in gone {
        assert!(container.path(path).symlink_metadata().is_err(), "{path}");
    }
}

#[test]
fn a_start_that_fails_leaves_the_clients_to_the_next_one() {
    let mut service = Service::new();
    service.start();
    service.host.ctl(&["create", "vm"]);
    let mut machine = client::Machine::connect(&service.socket("vm", "control.sock"));
    machine.boot();
    service.host.terminate();
    assert_eq!(service.manager.kept().len(), 2);
    let configuration = service.dir.path().join("vtpmd.toml");
    std::fs::write(&configuration, "no_such_key = 1\n").unwrap();
    let mut vtpmd = service.host.vtpmd("run");
    vtpmd.arg("--config").arg(&configuration);
    let status = service.manager.command(&vtpmd).status().unwrap();
    assert!(!status.success());
    assert_eq!(service.manager.kept().len(), 2);
    service.manager.told();
    service.start();
    assert_eq!(machine.random(), ResponseCode::SUCCESS);
    assert_eq!(service.manager.kept().len(), 0);
}

#[test]
fn what_is_kept_and_not_understood_costs_connections_only() {
    let mut service = Service::new();
    service.start();
    service.host.ctl(&["create", "vm"]);
    service.host.terminate();
    // Neither a parcel nor the end of one, and something of which nobody knows what it is.
    let keep = |name: &str| {
        let (here, there) = UnixStream::pair().unwrap();
        service.manager.keep(name, here.into());
        there
    };
    service.manager.told();
    assert_eq!(service.manager.kept().len(), 2);
    service.manager.forget();
    let _ends = ["vtpmd-parcel", "vtpmd-parcel-end", "what.else"].map(keep);
    service.start();
    let mut machine = client::Machine::connect(&service.socket("vm", "control.sock"));
    machine.boot();
    service.restart();
    assert_eq!(machine.random(), ResponseCode::SUCCESS);
}

#[test]
fn sockets_of_the_service_manager_are_served_and_stay_its_own() {
    let mut service = Service::new();
    service.start();
    service.host.ctl(&["create", "vm"]);
    service.host.terminate();
    service.manager.forget();
    let control = service.socket("vm", "control.sock");
    let root = service.socket("root", "tpm.sock");
    let listen = |path: &Path| {
        let _left_behind = std::fs::remove_file(path);
        UnixListener::bind(path).unwrap()
    };
    let peers = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = peers.local_addr().unwrap();
    let metrics = service.dir.path().join("metrics.sock");
    service.manager.listening = vec![
        ("root".into(), listen(&root).into()),
        ("vm".into(), listen(&control).into()),
        ("peers".into(), peers.into()),
        ("metrics".into(), listen(&metrics).into()),
    ];
    let configuration = service.dir.path().join("vtpmd.toml");
    let text = format!(
        "[link]\nlisten = \"{address}\"\n[metrics]\nlisten = \"unix:{}\"\n",
        metrics.to_str().unwrap()
    );
    std::fs::write(&configuration, text).unwrap();
    service.manager.told();
    // Whoever connects before vtpmd is there is served as well.
    let mut early = service.host.raw();
    let arguments = ["--config", configuration.to_str().unwrap()];
    service.start_with(&arguments);
    let random = early.run(TpmCc::GET_RANDOM, &[], None, &8u16).unwrap();
    assert_eq!(random.0, ResponseCode::SUCCESS);
    let mut machine = client::Machine::connect(&control);
    machine.boot();
    assert!(TcpStream::connect(address).is_ok());
    let scrape = |mut client: UnixStream| {
        client.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        text
    };
    assert!(scrape(UnixStream::connect(&metrics).unwrap()).contains("vtpmd_instances"));
    for _ in 0..2 {
        service.host.terminate();
        // They listen still, with nobody inside.
        assert!(control.exists() && root.exists() && metrics.exists());
        let early = UnixStream::connect(&metrics).unwrap();
        assert!(TcpStream::connect(address).is_ok());
        service.manager.told();
        service.start_with(&arguments);
        assert_eq!(machine.random(), ResponseCode::SUCCESS);
        assert!(service.host.ctl(&["list"]).contains("vm"));
        assert!(scrape(early).contains("vtpmd_instances"));
    }
}

#[test]
fn the_watchdog_is_told_while_vtpmd_lives() {
    let mut service = Service::new();
    service.manager.environment = vec![("WATCHDOG_USEC", "100000".into())];
    service.start();
    let wait = |times: usize| {
        let until = Instant::now() + Duration::from_secs(20);
        while service.manager.watchdogs() < times {
            assert!(Instant::now() < until, "told {} times", service.manager.watchdogs());
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait(5);
    service.host.terminate();
    assert_eq!(service.manager.told(), ["READY=1", "WATCHDOG=1", "STOPPING=1"]);
    let told = service.manager.watchdogs();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(service.manager.watchdogs(), told);
}

#[test]
fn a_command_at_the_root_is_answered_before_the_end() {
    for managed in [true, false] {
        let mut service = Service::new();
        if managed {
            service.start();
        } else {
            service.host.run();
        }
        let mut raw = service.host.raw();
        let mut idle = service.host.raw();
        let auth = service.host.owner_auth();
        // TPMT_PUBLIC of an RSA key, whose search takes its time.
        let public =
            ((1u16, 0x0bu16, 0x0003_0072u32, 0u16), (6u16, 128u16, 0x43u16, 0x10u16), (3072u16, 0u32, 0u16));
        let size = u16::try_from(public.to_bytes().len()).unwrap();
        let parameters = ((4u16, 0u16, 0u16), size, public, 0u16, 0u32);
        let ended = std::thread::scope(|scope| {
            let answer = scope.spawn(|| {
                raw.run(TpmCc::CREATE_PRIMARY, &[TpmHandle::OWNER], Some(&auth), &parameters).unwrap()
            });
            std::thread::sleep(Duration::from_millis(30));
            service.host.terminate();
            answer.join().unwrap().0
        });
        assert_eq!(ended, ResponseCode::SUCCESS);
        assert!(idle.run(TpmCc::GET_RANDOM, &[], None, &8u16).is_err());
    }
}
