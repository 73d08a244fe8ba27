//! The way by ssh: `vtpmctl migrate serve --stdio` on the other host, at the other end of a pipe; sent there first where it is missing
//! (claim 34 of the patent).

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::link::wire::{Timed, TimedSocket};

/// What stands in the remote command for the program.
const PROGRAM: &str = "{}";
/// In front of what the script on the other host says, among what a shell there may print at its start.
const MARK: &str = "vtpmctl-pipe: ";
/// The longest line that is looked at, and how many there may be.
const MAX_LINE: usize = 2000;
const MAX_LINES: usize = 1000;
/// For a connection, with whatever a person is asked for meanwhile.
const CONNECT: Duration = Duration::from_secs(300);
/// For each portion of the program.
const PORTION: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 64 << 10;
/// How long the end waits for ssh.
const END_WAIT: Duration = Duration::from_secs(5);

/// Why there is no pipe.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// ssh or the shell for it.
    #[error("{0:?} cannot be started")]
    Start(String, #[source] io::Error),
    /// ssh ended before there was a connection; it has said why.
    #[error("{command} ended with {status} before the other host answered")]
    Ended {
        /// The command.
        command: String,
        /// How.
        status: String,
    },
    /// The pipe broke.
    #[error("the pipe broke off")]
    Io(#[from] io::Error),
    /// There is no vtpmctl there.
    #[error(
        "vtpmctl cannot be run on the other host ({why}); --bootstrap ssh sends it there for the time of the migration"
    )]
    Absent {
        /// What the shell there said.
        why: String,
    },
    /// It cannot be sent there.
    #[error("vtpmctl cannot be run on the other host, which is {there}: this one is for {here}")]
    Architecture {
        /// Of the other host.
        there: String,
        /// Of this program.
        here: String,
    },
    /// It was sent, and does not run there.
    #[error("the vtpmctl that was sent to the other host does not run there: {0}")]
    Failed(String),
    /// What came is nothing that the script says.
    #[error("the other host said {0:?}")]
    Nonsense(String),
    /// This program.
    #[error("this program cannot be read, to be sent")]
    Own(#[source] io::Error),
}

/// How the other host is reached.
pub(super) struct Ssh {
    /// A piece of shell: the program, and options for it.
    pub(super) command: String,
    /// `USER@HOST`.
    pub(super) host: String,
    /// What is run there, with `{}` for vtpmctl.
    pub(super) remote: String,
    /// Send vtpmctl where it is missing.
    pub(super) bootstrap: bool,
}

/// ssh, running.
pub(super) struct SshStream {
    socket: TimedSocket<UnixStream>,
    child: Child,
}

impl Ssh {
    /// A pipe on which the other side waits for a hello. `sent` is told how much of the program has been sent.
    pub(super) fn connect(&self, mut sent: impl FnMut(u64, u64)) -> Result<SshStream, SshError> {
        let (ours, theirs) = UnixStream::pair()?;
        let end = |stream: &UnixStream| Ok::<_, io::Error>(Stdio::from(OwnedFd::from(stream.try_clone()?)));
        let remote = format!("exec sh -c {}", quoted(&script(&self.remote)));
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("exec {} \"$@\"", self.command)).arg("ssh").arg(&self.host).arg(remote);
        command.stdin(end(&theirs)?).stdout(end(&theirs)?);
        let child = command.spawn().map_err(|error| SshError::Start(self.command.clone(), error))?;
        // Both hold the other end otherwise, and its end would never be seen.
        drop((command, theirs));
        let mut stream = SshStream { socket: TimedSocket::new(ours), child };
        let said = match stream.line(CONNECT) {
            Err(SshError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(SshError::Ended { command: self.command.clone(), status: stream.status() });
            }
            other => other?,
        };
        let Some(absent) = said.strip_prefix("absent ") else {
            return if said == "here" { Ok(stream) } else { Err(SshError::Nonsense(said)) };
        };
        let mut words = absent.splitn(3, ' ');
        let (os, machine) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if !self.bootstrap {
            return Err(SshError::Absent { why: words.next().unwrap_or("it says nothing").to_owned() });
        }
        if !runs_here(os, machine) {
            let here = format!("{} {}", std::env::consts::OS, std::env::consts::ARCH);
            return Err(SshError::Architecture { there: format!("{os} {machine}"), here });
        }
        let program = stream.send_program(&mut sent);
        // It may have said why it takes no more.
        let said = match (stream.line(PORTION), program) {
            (Ok(said), _) => said,
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
        };
        match (said.as_str(), said.strip_prefix("failed ")) {
            ("ready", _) => Ok(stream),
            (_, Some(why)) => Err(SshError::Failed(why.to_owned())),
            _ => Err(SshError::Nonsense(said)),
        }
    }
}

impl SshStream {
    fn within(&mut self, time: Duration) {
        let now = Instant::now();
        self.set_deadline(now.checked_add(time).unwrap_or(now));
    }

    /// The next line of the script, without its mark.
    fn line(&mut self, time: Duration) -> Result<String, SshError> {
        self.within(time);
        for _ in 0..MAX_LINES {
            let mut line = Vec::new();
            loop {
                let mut byte = [0];
                // Not more than the line: what follows is the link's.
                self.socket.read_exact(&mut byte)?;
                let [byte] = byte;
                if byte == b'\n' {
                    break;
                }
                if line.len() < MAX_LINE {
                    line.push(byte);
                }
            }
            let line = String::from_utf8_lossy(&line);
            if let Some(said) = line.strip_prefix(MARK) {
                return Ok(said.trim_end().chars().filter(|c| !c.is_control()).collect());
            }
        }
        Err(SshError::Nonsense("too much".into()))
    }

    /// Length and checksum on a line, then this program, as it runs.
    fn send_program(&mut self, sent: &mut dyn FnMut(u64, u64)) -> Result<(), SshError> {
        // Also when the file was replaced by another release meanwhile.
        let program = fs::read("/proc/self/exe").map_err(SshError::Own)?;
        let length = u64::try_from(program.len()).unwrap_or(u64::MAX);
        self.within(PORTION);
        writeln!(self.socket, "{length} {}", hex::encode(Sha256::digest(&program)))?;
        let mut done = 0u64;
        for portion in program.chunks(AT_ONCE) {
            self.within(PORTION);
            self.socket.write_all(portion)?;
            done = done.saturating_add(u64::try_from(portion.len()).unwrap_or(0));
            sent(done, length);
        }
        Ok(())
    }

    /// How ssh ended, if it does soon.
    fn status(&mut self) -> String {
        let until = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) if until.elapsed() < END_WAIT => std::thread::sleep(Duration::from_millis(10)),
                _ => return "no status".to_owned(),
            }
        }
    }
}

impl Drop for SshStream {
    fn drop(&mut self) {
        // The other side sees the end of its input, clears up, and goes.
        let _gone = self.socket.socket().shutdown(std::net::Shutdown::Write);
        let until = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if until.elapsed() > END_WAIT {
                let _gone = self.child.kill();
                let _gone = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Timed for SshStream {
    fn set_deadline(&mut self, deadline: Instant) {
        self.socket.set_deadline(deadline);
    }
}

impl Read for SshStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.socket.read(out)
    }
}

impl Write for SshStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// What the other host's shell runs, on one line for shells that take no other: the vtpmctl that is there; else one that comes over the
/// pipe, in a private directory that goes with the script.
fn script(remote: &str) -> String {
    let vtpmctl = remote.replace(PROGRAM, "\"$vtpmctl\"");
    let serve = format!("{vtpmctl} migrate serve --stdio");
    [
        "set -f".to_owned(),
        format!("say() {{ printf '{MARK}%s\\n' \"$*\"; }}"),
        "vtpmctl=vtpmctl".to_owned(),
        format!(
            "if why=$({vtpmctl} migrate serve --help 2>&1 </dev/null >/dev/null); then say here; {serve}; exit; fi"
        ),
        "say absent \"$(uname -s)\" \"$(uname -m)\" $why".to_owned(),
        "read -r size sum || exit 1".to_owned(),
        "umask 077".to_owned(),
        // Where programs may be run; /tmp is not everywhere such a place.
        "dir=".to_owned(),
        "trap 'rm -rf \"$dir\"' EXIT".to_owned(),
        "trap 'exit 1' HUP INT TERM PIPE".to_owned(),
        "for base in \"${TMPDIR:-/tmp}\" \"$HOME\"; do dir=$(mktemp -d \"$base/vtpmctl.XXXXXXXXXX\") || continue; \
         printf '#!/bin/sh\\n' >\"$dir/try\"; chmod 700 \"$dir/try\"; \"$dir/try\" && break; rm -rf \"$dir\"; dir=; done 2>/dev/null"
            .to_owned(),
        "if [ -z \"$dir\" ]; then head -c \"$size\" >/dev/null; say failed there is no directory from which programs run; exit 1; fi"
            .to_owned(),
        "vtpmctl=$dir/vtpmctl".to_owned(),
        "why=$(head -c \"$size\" 2>&1 >\"$vtpmctl\") || { say failed $why; exit 1; }".to_owned(),
        "got=$(sha256sum <\"$vtpmctl\")".to_owned(),
        "if [ \"${got%% *}\" != \"$sum\" ]; then say failed it was changed on the way; exit 1; fi".to_owned(),
        "chmod 500 \"$vtpmctl\"".to_owned(),
        // Libraries that are missing say so here.
        "why=$(\"$vtpmctl\" --version 2>&1 </dev/null) || { say failed $why; exit 1; }".to_owned(),
        "say ready".to_owned(),
        serve,
    ]
    .join("; ")
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Whether this program is for a host that calls itself so.
fn runs_here(os: &str, machine: &str) -> bool {
    let arch = match machine {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "ppc64le" => "powerpc64",
        other => other,
    };
    os.eq_ignore_ascii_case(std::env::consts::OS) && arch == std::env::consts::ARCH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        for text in ["plain", "it's", "a b\"c$d`e\\", "''"] {
            let line = format!("printf %s {}", quoted(text));
            let out = Command::new("sh").arg("-c").arg(line).output().unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), text);
        }
    }

    #[test]
    fn the_script_is_one_line_that_a_shell_takes() {
        let script = script("sudo -n {} --state-dir '/a b'");
        assert!(!script.contains('\n'));
        assert!(script.contains("sudo -n \"$vtpmctl\" --state-dir '/a b' migrate serve --stdio"));
        let checked = Command::new("sh").args(["-n", "-c", &script]).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }

    #[test]
    fn hosts_of_another_kind_are_told_apart() {
        assert!(runs_here("Linux", std::env::consts::ARCH));
        assert!(!runs_here("Linux", "sparc64") && !runs_here("Darwin", std::env::consts::ARCH));
    }
}
