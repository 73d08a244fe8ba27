//! A process that is killed, and a log that was written in part.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

const CHILD: &str = "VTPMD_STORE_TEST_CHILD";
const THREADS: u8 = 4;
const ROUNDS: usize = 24;

/// Each thread writes the same number into two records of its instance, again and again, and says so after each
/// commit; now and then it makes and deletes an instance besides.
fn commit_until_killed(path: &Path) -> ! {
    let store = Store::open(path, &key()).unwrap();
    let instances: Vec<_> = store.instances().unwrap();
    std::thread::scope(|scope| {
        for (thread, instance) in instances.iter().skip(1).take(THREADS.into()).enumerate() {
            let store = &store;
            scope.spawn(move || {
                let mut number = last_number(store, instance.id);
                loop {
                    number += 1;
                    let value = number.to_be_bytes();
                    let mut ops = vec![put(instance.id, A, &value), put(instance.id, B, &value)];
                    if number.is_multiple_of(16) {
                        let brief = row(store, Some(instance.id), &format!("brief {thread}"));
                        let id = brief.id;
                        ops.extend([Op::CreateInstance(brief), put(id, A, &value)]);
                        commit(store, ops).unwrap();
                        commit(store, vec![Op::DeleteInstance(id)]).unwrap();
                    } else {
                        commit(store, ops).unwrap();
                    }
                    // One write of a short line into a pipe is not torn.
                    std::io::stdout().write_all(format!("done {thread} {number}\n").as_bytes()).unwrap();
                }
            });
        }
    });
    unreachable!("the threads do not end")
}

fn last_number(store: &Store, id: InstanceId) -> u64 {
    let numbers: Vec<_> = contents(store, id)
        .iter()
        .map(|(_, value)| u64::from_be_bytes(value[..].try_into().unwrap()))
        .collect();
    match numbers[..] {
        [] => 0,
        [a, b] if a == b => a,
        _ => panic!("a batch of {id} is there in part: {numbers:?}"),
    }
}

#[test]
fn acknowledged_commits_survive_sigkill() {
    if let Some(path) = std::env::var_os(CHILD) {
        commit_until_killed(Path::new(&path));
    }
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let instances: Vec<_> =
        (0..THREADS).map(|thread| create_instance(&store, Some(root), &format!("vm{thread}"))).collect();
    store.close();

    let this_test =
        format!("{}::acknowledged_commits_survive_sigkill", module_path!().split_once("::").unwrap().1);
    let mut acknowledged = vec![0u64; THREADS.into()];
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &this_test, "--nocapture"])
            .env(CHILD, place.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut note = |line: String| {
            if let Some(("done", rest)) = line.split_once(' ') {
                let (thread, number) = rest.split_once(' ').unwrap();
                acknowledged[thread.parse::<usize>().unwrap()] = number.parse().unwrap();
                return true;
            }
            false
        };
        // It is killed while it commits, at a random moment after the first.
        while !note(lines.next().expect("the child commits").unwrap()) {}
        let mut moment = [0u8; 1];
        getrandom::fill(&mut moment).unwrap();
        std::thread::sleep(Duration::from_micros(u64::from(moment[0]) * 300));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.for_each(|line| {
            note(line.unwrap());
        });

        let store = place.open();
        assert!(store.damaged().unwrap().is_empty(), "round {round}");
        for (id, acknowledged) in instances.iter().zip(&mut acknowledged) {
            let found = last_number(&store, *id);
            let expected = *acknowledged..=*acknowledged + 1;
            assert!(
                expected.contains(&found),
                "round {round}: {id} has {found}, acknowledged was {acknowledged}"
            );
            *acknowledged = found;
        }
        // What the deaths left behind of brief instances.
        for brief in store.instances().unwrap().into_iter().filter(|row| row.name.starts_with("brief")) {
            assert_eq!(contents(&store, brief.id).len(), 1);
            commit(&store, vec![Op::DeleteInstance(brief.id)]).unwrap();
        }
    }
    assert!(
        acknowledged.iter().all(|number| *number > ROUNDS as u64),
        "the children hardly ran: {acknowledged:?}"
    );
}

#[test]
fn log_that_is_cut_or_spoilt_at_any_byte_gives_an_earlier_whole_state() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let number = |n: u64| vec![put(root, A, &n.to_be_bytes()), put(root, B, &n.to_be_bytes())];
    for n in 1..=30 {
        commit(&store, number(n)).unwrap();
    }
    let database = std::fs::read(place.path()).unwrap();
    let log = std::fs::read(place.path().with_extension("sqlite-wal")).unwrap();
    assert!(log.len() > 100_000);
    let copy_holds = |log: &[u8]| {
        let copy = Place::new();
        std::fs::write(copy.path(), &database).unwrap();
        std::fs::write(copy.path().with_extension("sqlite-wal"), log).unwrap();
        let store = copy.open();
        assert!(store.damaged().unwrap().is_empty());
        match store.instances().unwrap().is_empty() {
            true => None,
            false => Some(last_number(&store, root)),
        }
    };
    let mut last = None;
    let mut seen = BTreeSet::new();
    for end in (0..log.len()).step_by(3001) {
        let found = copy_holds(&log[..end]);
        assert!(found >= last, "cut at {end}");
        let mut spoilt = log.clone();
        spoilt[end] ^= 0x10;
        // A spoilt byte ends the log no later than its own page does.
        assert!(copy_holds(&spoilt) >= found && copy_holds(&spoilt) <= Some(30));
        seen.insert(found);
        last = found;
    }
    assert!(seen.len() > 20, "{seen:?}");
    assert_eq!(copy_holds(&log), Some(30));
}

#[test]
fn what_need_not_outlive_the_power_is_not_synchronised() {
    let place = Place::new();
    let store = place.create();
    let root = create_instance(&store, None, "root");
    let before = store.statistics();
    let lightly =
        |key, value: &[u8]| Batch { ops: vec![put(root, key, value)], durability: Durability::Process };
    store.commit(lightly(A, b"one")).unwrap();
    store.commit(lightly(A, b"two")).unwrap();
    let level = store.with_writer(|writer| {
        writer.connection().pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0)).unwrap()
    });
    assert_eq!(level, 1);
    let between = store.statistics();
    assert_eq!((between.transactions, between.synchronised), (before.transactions + 2, before.synchronised));
    commit(&store, vec![put(root, B, b"three")]).unwrap();
    let level = store.with_writer(|writer| {
        writer.connection().pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0)).unwrap()
    });
    assert_eq!(level, 2);
    assert_eq!(store.statistics().synchronised, before.synchronised + 1);
    store.close();
    let store = place.open();
    assert!(contents(&store, root).contains(&(A, b"two".to_vec())));
    store.close();
}
