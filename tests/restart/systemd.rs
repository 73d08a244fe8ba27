//! The units of `systemd/` under systemd itself, which runs as the first process of a container on a copy of this system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends with all that is in it when this is dropped.
pub struct Container {
    nspawn: Child,
    leader: i32,
    _dir: tempfile::TempDir,
}

/// Makes the container's files, those of this system, in a mount namespace of its own, where what is written goes to memory, and starts it.
const BOOT: &str = r#"
set -e
mount -t tmpfs vtpmd-test "$DIR"
mkdir "$DIR/upper" "$DIR/work" "$DIR/root"
mount -t overlay vtpmd-test -o "lowerdir=/,upperdir=$DIR/upper,workdir=$DIR/work" "$DIR/root"
exec systemd-nspawn --quiet --directory="$DIR/root" --register=no --keep-unit --private-network \
    --boot -- --unit=sysinit.target
"#;

impl Container {
    /// A system that is up.
    ///
    /// # Errors
    /// Why this machine cannot have it.
    pub fn boot() -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("boot.log");
        let mut nspawn = Command::new("unshare");
        nspawn.args(["--mount", "--propagation", "private", "bash", "-c", BOOT]).stdin(Stdio::null());
        nspawn.env("DIR", tempfile::tempdir_in(dir.path()).unwrap().keep());
        let output = fs::File::create(&log).unwrap();
        let nspawn = nspawn.stdout(output.try_clone().unwrap()).stderr(output).spawn();
        let nspawn = nspawn.map_err(|error| format!("unshare: {error}"))?;
        let mut container = Self { nspawn, leader: 0, _dir: dir };
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let ended = container.nspawn.try_wait().unwrap();
            if ended.is_some() || Instant::now() > until {
                return Err(format!("{ended:?}: {}", fs::read_to_string(log).unwrap_or_default()));
            }
            let Some(leader) = container.find_leader() else { continue };
            container.leader = leader;
            let state = container.run(&["systemctl", "is-system-running"]);
            if ["running\n", "degraded\n"].contains(&String::from_utf8_lossy(&state.stdout).as_ref()) {
                break;
            }
        }
        Ok(container)
    }

    /// Gives the system vtpmd and vtpmctl of the directory `programs`, vtpmd's units and its user.
    pub fn install(&self, programs: &Path, units: &Path) {
        let put = |from: PathBuf, to: &str| assert!(fs::copy(from, self.path(to)).unwrap() > 0);
        for program in ["vtpmd", "vtpmctl"] {
            put(programs.join(program), &format!("/usr/bin/{program}"));
        }
        for unit in ["vtpmd.service", "vtpmd-init.service", "vtpmd.socket"] {
            put(units.join(unit), &format!("/usr/lib/systemd/system/{unit}"));
        }
        put(units.join("vtpmd.sysusers"), "/usr/lib/sysusers.d/vtpmd.conf");
        self.succeed(&["systemd-sysusers"]);
        self.succeed(&["systemctl", "daemon-reload"]);
    }

    /// The container's first process.
    fn find_leader(&self) -> Option<i32> {
        let pid = self.nspawn.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().find_map(|child| {
            let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (name == "systemd\n").then(|| child.parse().ok())?
        })
    }

    /// Runs a program in the container.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &self.leader.to_string(), "--"]).args(arguments);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// What a program prints that succeeds.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stderr), self.journal());
        text(&output.stdout)
    }

    fn journal(&self) -> String {
        let output = self.run(&["journalctl", "--no-pager", "--unit", "vtpmd"]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// A property of vtpmd's unit.
    pub fn property(&self, name: &str) -> String {
        let value = self.succeed(&["systemctl", "show", "--value", "--property", name, "vtpmd.service"]);
        value.trim().to_owned()
    }

    /// A directory of the container, as seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new("/proc").join(self.leader.to_string()).join("root").join(inside.trim_start_matches('/'))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // With its first process go all others of the container.
        if self.leader != 0 {
            let _gone = kill(Pid::from_raw(self.leader), Signal::SIGKILL);
        } else {
            let _gone = self.nspawn.kill();
        }
        let _ended = self.nspawn.wait();
    }
}
