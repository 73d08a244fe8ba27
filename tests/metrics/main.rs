//! The endpoint for metrics of a running vtpmd: what is counted there, and that nobody who asks can hold anything up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::float_cmp,
    unreachable_pub,
    reason = "a test that panics has failed"
)]

#[path = "../control/client.rs"]
#[allow(dead_code, reason = "shared with the other tests of the programs")]
mod client;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "shared with the other tests of the programs")]
mod common;
mod openmetrics;
mod scraper;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use client::Machine;
use common::Host;
use scraper::{Observed, until};
use vtpm_protocol::rc::ResponseCode;
use vtpm_protocol::tpm::{TpmCc, TpmHandle};

const UUID: &str = "b9a6a2d4-5f6e-4c3b-9a51-6f3c1d2e4f51";

fn instances(state: &str) -> [(&str, &str); 1] {
    [("state", state)]
}

#[test]
fn what_is_sent_is_counted_by_command_and_result() {
    let dir = tempfile::tempdir().unwrap();
    let host = Observed::start(dir.path(), "a", "");
    host.ctl(&["create", "guest"]);
    host.ctl(&["create", "other"]);
    let mut machine = Machine::connect(&host.runtime().join("guest/control.sock"));
    machine.boot();
    let mut raw = host.raw();
    assert_eq!(raw.run(TpmCc::GET_RANDOM, &[], None, &8u16).unwrap().0, ResponseCode::SUCCESS);

    let before = host.scrape();
    for _ in 0..5 {
        assert_eq!(machine.random(), ResponseCode::SUCCESS);
    }
    (0..3).for_each(|pcr| machine.extend(pcr));
    // The same code, whatever it blames.
    let (long, _) = machine.data.run(TpmCc::PCR_RESET, &[TpmHandle(99)], Some(b""), &()).unwrap();
    let (pcr, _) = machine.data.run(TpmCc::PCR_EXTEND, &[TpmHandle(99)], Some(b""), &0u32).unwrap();
    assert_eq!((long, pcr), (ResponseCode::VALUE.handle(1), ResponseCode::VALUE.handle(1)));
    for code in [0x1ff, 0x2000_0fff, u32::MAX] {
        let (rc, _) = machine.data.run(TpmCc(code), &[], None, &()).unwrap();
        assert!(rc.is(ResponseCode::COMMAND_CODE), "{rc}");
    }
    for _ in 0..2 {
        assert_eq!(raw.run(TpmCc::GET_RANDOM, &[], None, &8u16).unwrap().0, ResponseCode::SUCCESS);
    }
    let after = host.scrape();

    let grown = |name: &str, labels: &[(&str, &str)]| after.get(name, labels) - before.get(name, labels);
    let commands = |command: &'static str, result: &'static str| {
        grown("vtpmd_commands_total", &[("command", command), ("result", result)])
    };
    assert_eq!(commands("GET_RANDOM", "SUCCESS"), 7.0);
    assert_eq!(commands("PCR_EXTEND", "SUCCESS"), 3.0);
    assert_eq!(commands("PCR_EXTEND", "VALUE"), 1.0);
    assert_eq!(commands("PCR_RESET", "VALUE"), 1.0);
    assert_eq!(commands("other", "COMMAND_CODE"), 3.0);
    let all = |of: &openmetrics::Exposition| of.sum("vtpmd_commands_total", &[]);
    assert_eq!(all(&after) - all(&before), 15.0);
    for (command, count) in after.by("vtpmd_command_duration_seconds_count", "command") {
        assert_eq!(count, after.sum("vtpmd_commands_total", &[("command", &command)]), "{command}");
    }
    let took = after.get("vtpmd_command_duration_seconds_sum", &[("command", "PCR_EXTEND")]);
    assert!(took > 0.0 && took < 60.0, "{took}");

    // An extended PCR is left to the memory of the system, one at a time.
    assert_eq!(grown("vtpmd_transactions_total", &[("durability", "process")]), 3.0);
    assert_eq!(grown("vtpmd_transactions_total", &[("durability", "medium")]), 0.0);
    assert_eq!(grown("vtpmd_commits_total", &[]), 3.0);
    assert_eq!(after.get("vtpmd_transaction_commits_count", &[]), after.sum("vtpmd_transactions_total", &[]));
    assert_eq!(
        after.get("vtpmd_sync_duration_seconds_count", &[]),
        after.get("vtpmd_transactions_total", &[("durability", "medium")])
    );
    assert_eq!(after.sum("vtpmd_commit_failures_total", &[]), 0.0);

    assert_eq!(after.get("vtpmd_instances", &instances("live")), 2.0);
    assert_eq!(after.sum("vtpmd_instances", &[]), 2.0);
    assert_eq!(after.get("vtpmd_instances_awake", &[]), 2.0);
    assert_eq!(after.get("vtpmd_connections", &[("door", "control")]), 1.0);
    assert_eq!(after.get("vtpmd_connections", &[("door", "vhost-user")]), 0.0);
    assert_eq!(after.get("vtpmd_connections", &[("door", "raw")]), 1.0);
    assert_eq!(after.get("vtpmd_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);

    let database = std::fs::metadata(host.state().join("vtpmd.sqlite")).unwrap().len();
    assert_eq!(after.get("vtpmd_database_bytes", &[]), f64::from(u32::try_from(database).unwrap()));
    assert!(after.get("vtpmd_database_log_bytes", &[]) > 0.0);
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid())).unwrap();
    let field = |name: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (rss, now) = (after.get("process_resident_memory_bytes", &[]), field("VmRSS:") * 1024.0);
    assert!((rss - now).abs() < now / 4.0, "{rss} {now}");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", host.pid())).unwrap().count();
    let told = after.get("process_open_fds", &[]);
    assert!((told - f64::from(u32::try_from(descriptors).unwrap())).abs() <= 2.0, "{told} {descriptors}");
    assert!(after.get("process_max_fds", &[]) >= told);
    assert!(after.get("process_cpu_seconds_total", &[]) > 0.0);

    // No label tells one machine from another.
    let labels = BTreeSet::from([
        "command",
        "result",
        "side",
        "outcome",
        "state",
        "door",
        "durability",
        "reason",
        "le",
        "version",
    ]);
    assert!(after.label_names().is_subset(&labels), "{:?}", after.label_names());
    assert!(!host.text().contains("guest"));
    assert!(after.len() < 2000, "{}", after.len());
}

#[test]
fn both_ends_of_a_migration_count_what_came_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut a, b) = (Observed::start(dir.path(), "a", ""), Observed::start(dir.path(), "b", ""));
    a.pin(&b);
    a.ctl(&["create", "guest", "--uuid", UUID]);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let move_over = |round: &str| {
        let (ticket, stream) = (path(&format!("{round}.ticket")), path(&format!("{round}.stream")));
        b.ctl(&["migrate", "prepare", "guest", "--uuid", UUID, "--ticket", &ticket]);
        a.ctl(&["export", "guest", "--ticket", &ticket, "--output", &stream]);
        b.ctl(&["import", "guest", "--input", &stream]);
    };
    let receipt = |what: &str| b.json(&["migrate", what, "guest"])["receipt"].as_str().unwrap().to_owned();

    move_over("one");
    assert_eq!(a.scrape().get("vtpmd_instances", &instances("exported")), 1.0);
    assert_eq!(b.scrape().get("vtpmd_instances", &instances("imported")), 1.0);
    a.ctl(&["migrate", "abort", "guest", "--receipt", &receipt("abort")]);
    assert_eq!(b.scrape().get("vtpmd_instances", &instances("void")), 1.0);
    b.ctl(&["delete", "guest"]);

    move_over("two");
    // Nobody uses it after a start; that it waits for a receipt shows all the same.
    a.again();
    until("an exported instance is seen", || {
        a.scrape().get("vtpmd_instances", &instances("exported")) == 1.0
    });
    assert_eq!(a.scrape().get("vtpmd_instances_awake", &[]), 0.0);
    let mut machine = Machine::connect(&b.runtime().join("guest/control.sock"));
    machine.boot();
    a.ctl(&["migrate", "commit", "guest", "--receipt", &receipt("commit")]);

    let (a, b) = (a.scrape(), b.scrape());
    let counted = |of: &openmetrics::Exposition, side, outcome| {
        of.get("vtpmd_migrations_total", &[("side", side), ("outcome", outcome)])
    };
    // The counters of a start anew with the process.
    let outcomes = ["started", "live", "void", "deleted"];
    assert_eq!(outcomes.map(|outcome| counted(&a, "source", outcome)), [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(outcomes.map(|outcome| counted(&b, "destination", outcome)), [2.0, 1.0, 1.0, 0.0]);
    assert_eq!(b.sum("vtpmd_migrations_total", &[("side", "source")]), 0.0);
    assert_eq!(a.sum("vtpmd_instances", &[]), 0.0);
    assert_eq!(b.get("vtpmd_instances", &instances("live")), 1.0);
}

#[test]
fn a_source_counts_what_it_began_and_what_it_took_back() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (Observed::start(dir.path(), "a", ""), Observed::start(dir.path(), "b", ""));
    a.pin(&b);
    a.ctl(&["create", "guest", "--uuid", UUID]);
    let started = |of: &Observed, outcome| {
        of.scrape().get("vtpmd_migrations_total", &[("side", "source"), ("outcome", outcome)])
    };
    for (round, command) in ["arm", "lock"].into_iter().enumerate() {
        let ticket = dir.path().join(command).to_str().unwrap().to_owned();
        b.ctl(&["migrate", "prepare", "guest", "--uuid", UUID, "--ticket", &ticket]);
        match command {
            "arm" => a.ctl(&["migrate", "arm", "guest", "--ticket", &ticket]),
            _ => a.ctl(&["lock", "guest", "--ticket", &ticket]),
        };
        let receipt = b.json(&["migrate", "abort", "guest"])["receipt"].as_str().unwrap().to_owned();
        a.ctl(&["migrate", "abort", "guest", "--receipt", &receipt]);
        b.ctl(&["delete", "guest"]);
        let round = f64::from(u32::try_from(round).unwrap());
        assert_eq!(
            [started(&a, "disarmed"), started(&a, "started"), started(&a, "void")],
            [1.0, round, round]
        );
    }
}

#[test]
fn too_many_commands_and_damaged_instances_show() {
    let dir = tempfile::tempdir().unwrap();
    let limits = "[limits]\ncommands_per_second = 1\ncommand_burst = 3\n";
    let mut host = Observed::start(dir.path(), "a", limits);
    for name in ["record", "row", "sound"] {
        host.ctl(&["create", name]);
    }
    let mut machine = Machine::connect(&host.runtime().join("sound/control.sock"));
    machine.boot();
    let refused = (0..20).filter(|_| machine.random() == ResponseCode::RETRY).count();
    assert!(refused > 10);
    let told = host.scrape();
    assert_eq!(
        told.get("vtpmd_commands_rate_limited_total", &[]),
        f64::from(u32::try_from(refused).unwrap())
    );
    let retries = told.get("vtpmd_commands_total", &[("command", "GET_RANDOM"), ("result", "RETRY")]);
    assert_eq!(retries, f64::from(u32::try_from(refused).unwrap()));
    drop(machine);

    host.terminate();
    let database = rusqlite::Connection::open(host.state().join("vtpmd.sqlite")).unwrap();
    let id = |name: &str| -> i64 {
        database.query_row("SELECT id FROM instance WHERE name = ?1", [name], |row| row.get(0)).unwrap()
    };
    // A value alone, which shows when it is read; and what the whole instance is sealed with, which shows at the start.
    let (record, row) = (id("record"), id("row"));
    let changed =
        database.execute("UPDATE record SET sealed = zeroblob(length(sealed)) WHERE instance = ?1", [record]);
    assert!(changed.unwrap() > 0);
    assert!(database.execute("DELETE FROM record WHERE instance = ?1", [row]).unwrap() > 0);
    drop(database);
    host.run();
    until("both are found", || host.scrape().get("vtpmd_instances", &instances("damaged")) == 2.0);
    until("the third is seen", || host.scrape().get("vtpmd_instances", &instances("live")) == 1.0);
    assert_eq!(host.scrape().get("vtpmd_instances", &instances("unread")), 0.0);
}

#[test]
fn requests_that_ask_for_something_else_are_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let host = Observed::start_at(dir.path(), "a", "", &free.to_string());
    let answer = |request: &[u8]| {
        let mut stream = std::net::TcpStream::connect(free).unwrap();
        stream.write_all(request).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let metrics = answer(b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text\r\n\r\n");
    let (head, body) = metrics.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
    assert!(openmetrics::Exposition::read(body).len() > 50);
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody", "405"),
        (b"\x80\x01\x00\x00\x00\x0c\x00\x00\x01\x44\x00\x00", "400"),
        (&[&b"GET /metrics HTTP/1.1\r\nX: "[..], &[b'x'; 20_000]].concat(), "431"),
    ] {
        let text = answer(request);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{status}: {text}");
        assert_eq!(text.contains("\r\nAllow: GET\r\n"), status == "405", "{text}");
    }
    assert!(host.refused(&["create", "../x"]).contains("cannot be the name"));
    drop(host);
}

#[test]
fn the_socket_is_the_users_and_the_groups_and_goes_with_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Observed::start(dir.path(), "a", "");
    let socket = host.socket().to_owned();
    let mode = || std::fs::metadata(&socket).unwrap().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    // What a dead process left is no hindrance; what a living one has is.
    host.kill();
    assert!(socket.exists());
    host.run();
    let second = Host::at(dir.path().join("b"));
    assert!(second.vtpmd("init").status().unwrap().success());
    let mut program = second.vtpmd("run");
    program.arg("--config").arg(host.config());
    let output = program.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("in use by a running process"));
    host.terminate();
    assert!(!socket.exists());
    let own = std::fs::metadata(dir.path()).unwrap();
    let group = if own.uid() == 0 { 4711 } else { own.gid() };
    host.configure(&format!("group = \"{group}\"\n"));
    host.run();
    assert_eq!((mode(), std::fs::metadata(&socket).unwrap().gid()), (0o660, group));
    host.scrape();
}

#[test]
fn without_the_table_there_is_no_endpoint() {
    let dir = tempfile::tempdir().unwrap();
    let host = Host::start(dir.path(), "a");
    let threads = std::fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap();
    let names = threads.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    assert!(names.filter(|name| name.starts_with("metrics")).count() == 0);
}

#[test]
fn who_never_asks_and_who_never_reads_hold_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let host = Observed::start(dir.path(), "a", "");
    host.ctl(&["create", "guest"]);
    let mut machine = Machine::connect(&host.runtime().join("guest/control.sock"));
    machine.boot();

    // One that is silent, one that sends a byte a second: both are sent away when their time is over.
    let begin = Instant::now();
    let silent = UnixStream::connect(host.socket()).unwrap();
    let mut dribbling = UnixStream::connect(host.socket()).unwrap();
    std::thread::scope(|scope| {
        let gone = scope.spawn(|| {
            for byte in b"GET /metrics HTTP/1.1\r\n" {
                if dribbling.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
            begin.elapsed()
        });
        let ended = scope.spawn(|| {
            assert_eq!((&silent).read(&mut [0; 16]).unwrap(), 0);
            begin.elapsed()
        });
        // Others are served meanwhile.
        for _ in 0..20 {
            let asked = Instant::now();
            host.scrape();
            assert_eq!(machine.random(), ResponseCode::SUCCESS);
            assert!(asked.elapsed() < Duration::from_secs(2));
        }
        for took in [gone.join().unwrap(), ended.join().unwrap()] {
            assert!((4..12).contains(&took.as_secs()), "{took:?}");
        }
    });

    // All places are taken by those who are silent: the next one is told at once, and served when they are gone.
    let crowd: Vec<UnixStream> = (0..8).map(|_| UnixStream::connect(host.socket()).unwrap()).collect();
    until("there is no place", || host.ask().starts_with("HTTP/1.1 503 "));
    assert_eq!(machine.random(), ResponseCode::SUCCESS);
    drop(crowd);
    until("there is one again", || host.ask().starts_with("HTTP/1.1 200 "));

    // One that does not take its response keeps its own place alone, and the daemon ends in time all the same.
    let mut stuck = UnixStream::connect(host.socket()).unwrap();
    stuck.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    host.scrape();
    let mut host = host;
    let begin = Instant::now();
    drop(machine);
    host.terminate();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    drop(stuck);
}

#[test]
fn many_scrape_at_once_while_commands_go_on_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let host = Observed::start(dir.path(), "a", "");
    for n in 0..4 {
        host.ctl(&["create", &format!("g{n}")]);
    }
    const EACH: u32 = 200;
    let before = host.scrape();
    let scraped = std::sync::atomic::AtomicU32::new(0);
    let busy = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        let machines: Vec<_> = (0..4)
            .map(|n| {
                let socket = host.runtime().join(format!("g{n}/control.sock"));
                scope.spawn(move || {
                    let mut machine = Machine::connect(&socket);
                    machine.boot();
                    for _ in 0..EACH {
                        machine.extend(10);
                    }
                })
            })
            .collect();
        let scrapers: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    while busy.load(std::sync::atomic::Ordering::Relaxed) {
                        let answer = host.ask();
                        if answer.starts_with("HTTP/1.1 503 ") {
                            std::thread::sleep(Duration::from_millis(2));
                            continue;
                        }
                        openmetrics::Exposition::read(answer.split_once("\r\n\r\n").unwrap().1);
                        scraped.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                })
            })
            .collect();
        machines.into_iter().for_each(|machine| machine.join().unwrap());
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
        scrapers.into_iter().for_each(|scraper| scraper.join().unwrap());
    });
    let after = host.scrape();
    let extends = [("command", "PCR_EXTEND"), ("result", "SUCCESS")];
    let grown = after.get("vtpmd_commands_total", &extends) - before.get("vtpmd_commands_total", &extends);
    assert_eq!(grown, f64::from(4 * EACH));
    assert!(scraped.into_inner() > 10);
    // Commits that shared a transaction are all there.
    let commits = after.get("vtpmd_commits_total", &[]);
    assert_eq!(after.get("vtpmd_transaction_commits_sum", &[]), commits);
}

#[test]
fn the_documentation_has_every_metric_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let host = Observed::start(dir.path(), "a", "");
    let told: BTreeSet<(String, String)> = host
        .scrape()
        .families
        .iter()
        .map(|(name, family)| match family.kind.as_str() {
            "counter" => (format!("{name}_total"), "counter".to_owned()),
            "info" => (format!("{name}_info"), "gauge".to_owned()),
            kind => (name.clone(), kind.to_owned()),
        })
        .collect();
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operating.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("Metrics\n")).unwrap();
    let documented: BTreeSet<(String, String)> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let (name, rest) = row.split_once('`').unwrap();
            (name.to_owned(), rest.split('|').nth(1).unwrap().trim().to_owned())
        })
        .collect();
    assert_eq!(documented, told);
    // What the examples of rules speak of is there as well.
    let names: BTreeSet<&str> = documented.iter().map(|(name, _)| name.as_str()).collect();
    for word in section.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| word.strip_suffix(s)).unwrap_or(word);
        let known = names.contains(word) || names.contains(base);
        assert!(!word.starts_with("vtpmd_") || known, "{word}");
    }
}
