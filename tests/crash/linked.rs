//! A migration that the peer link carries: QEMU sends its device's state, and nobody types anything. Tickets and receipts travel between the
//! daemons, one of which dies, or the connection between them.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::machine::{Machine, probe};
use crate::migration::{Fault, UUID, template};
use crate::network::Network;
use crate::site::{self, NAME, Site};
use crate::tpm::{self, Possessions};

const RETRY: u32 = 0x922;
/// How long the daemons may take to settle it among themselves, with the pauses between their attempts.
const PATIENCE: Duration = Duration::from_secs(90);

/// How the migration ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The machine goes on at the destination.
    Success,
    /// It goes on at the source, when all is imported.
    Fallback,
    /// It goes on at the source, before anything reached the destination.
    EarlyFallback,
}

/// Two hosts whose daemons know each other's addresses. All runs use the same, so that there is one at a time.
pub struct Pair {
    dir: TempDir,
    addresses: [SocketAddr; 2],
    network: Network,
    before: Possessions,
    strict: bool,
}

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn sites(from: &Path, to: &Path, addresses: &[SocketAddr; 2]) -> [Site; 2] {
    let mut addresses = addresses.iter();
    ["a", "b"].map(|name| {
        for part in ["state", "run"] {
            site::copy(&from.join(name).join(part), &to.join(name).join(part));
        }
        Site::linked(to.join(name), *addresses.next().unwrap())
    })
}

impl Pair {
    pub fn new(strict: bool) -> Self {
        let (from, before) = template();
        let dir = tempfile::tempdir().unwrap();
        let addresses = [free(), free()];
        let network = Network::to(addresses[1]);
        let [mut a, mut b] = sites(from, dir.path(), &addresses);
        a.start(None);
        b.start(None);
        a.befriend(&b, network.address());
        b.befriend(&a, addresses[0]);
        if strict {
            a.ctl(&["policy", NAME, "strict"]).unwrap();
        }
        a.stop();
        b.stop();
        Self { dir, addresses, network, before: before.clone(), strict }
    }

    /// One migration, with a fault in either daemon, or the connection cut when so many pieces have passed. How many struck.
    pub fn migrate(&self, way: Way, faults: &[Option<Fault>; 2], cut: Option<u64>) -> u32 {
        let dir = tempfile::tempdir().unwrap();
        let [mut a, mut b] = sites(self.dir.path(), dir.path(), &self.addresses);
        self.network.heal();
        a.start(faults[0].as_ref().map(Fault::as_str));
        b.start(faults[1].as_ref().map(Fault::as_str));
        self.network.cut_after(cut);
        let mut run = Run {
            a,
            b,
            here: Machine::new(),
            there: Machine::new(),
            counter: self.before.counter,
            tickets: 0,
        };
        let at_destination = way == Way::Success;
        run.travel(way);
        let Run { mut a, mut b, here, there, counter, .. } = run;
        let (machine, site, other) =
            if at_destination { (there, &mut b, &mut a) } else { (here, &mut a, &mut b) };
        let mut machine = machine;
        assert_eq!(probe(other), if at_destination { None } else { Some(RETRY) });
        for _ in 0..2 {
            let now = tpm::possessions(&mut machine, site);
            assert_eq!(now, Possessions { counter, ..self.before.clone() });
            machine.leave(site);
            site.crash();
        }
        if self.strict {
            assert!(
                site.ctl(&["info", NAME, "--json"]).unwrap().contains("strict"),
                "the policy travels along"
            );
        }
        u32::from(a.struck()) + u32::from(b.struck()) + u32::from(self.network.has_cut())
    }
}

/// A migration under way.
struct Run {
    a: Site,
    b: Site,
    here: Machine,
    there: Machine,
    counter: u64,
    tickets: u32,
}

impl Run {
    /// Until it is so. Daemons that die meanwhile are restarted.
    fn until(&mut self, what: &str, mut reached: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !reached(self) {
            assert!(Instant::now() < end, "never {what}\na: {}\nb: {}", self.a.log(), self.b.log());
            self.a.mend();
            self.b.mend();
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// QEMU tries until it gets through; after each failure the machine goes on at the source.
    fn travel(&mut self, way: Way) {
        self.count_at_source();
        for _ in 0..5 {
            self.prepare();
            let Some(stream) = self.save() else {
                self.count_at_source();
                continue;
            };
            assert!(self.here.is_away(), "the machine is stopped");
            if way == Way::EarlyFallback || !self.there.load(&mut self.b, &stream) || way == Way::Fallback {
                let through = way == Way::EarlyFallback || self.b.state().as_deref() == Some("imported");
                self.there = Machine::new();
                self.count_at_source();
                if through && way != Way::Success {
                    assert_eq!(self.b.state().as_deref(), Some("void"));
                    return;
                }
                continue;
            }
            self.until("counted at the destination", |run| {
                tpm::code(&run.there.run(&mut run.b, &tpm::increment())) == 0
            });
            self.counter += 1;
            self.until("gone from the source", |run| run.a.state().is_none());
            return;
        }
        panic!("no migration gets through\na: {}\nb: {}", self.a.log(), self.b.log());
    }

    /// The machine runs at the source, and is served as soon as the daemons have settled that.
    fn count_at_source(&mut self) {
        self.until("served at the source", |run| {
            let code = tpm::code(&run.here.run(&mut run.a, &tpm::increment()));
            assert!(code == 0 || code == RETRY, "{code:#x}");
            code == 0
        });
        self.counter += 1;
    }

    /// The one step by hand. Its answer may be lost: the ticket goes over the link.
    fn prepare(&mut self) {
        self.until("prepared", |run| {
            if run.b.state().as_deref() == Some("void") {
                let _done = run.b.ctl(&["delete", NAME]);
            }
            run.tickets += 1;
            let file = run.b.host().state().with_file_name(format!("ticket{}", run.tickets));
            let prepare = ["migrate", "prepare", NAME, "--uuid", UUID, "--ticket"];
            let complaint = run.b.ctl(&[&prepare[..], &[file.to_str().unwrap()]].concat()).err();
            let prepared = run.b.state().as_deref() == Some("destination-locked");
            assert!(prepared || run.b.struck(), "{complaint:?}");
            prepared
        });
    }

    /// The state of the device, when QEMU gets it. A ticket may be a while in coming.
    fn save(&mut self) -> Option<Vec<u8>> {
        self.here.migrate(&mut self.a);
        let until = Instant::now() + Duration::from_secs(5);
        let armed = |info: String| {
            serde_json::from_str::<serde_json::Value>(&info).unwrap()["migration_id"].is_string()
        };
        while !self.a.ctl(&["info", NAME, "--json"]).is_ok_and(armed) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.here.save(&mut self.a)
    }
}
