//! A virtual machine.

use crate::agent::Agent;
use crate::error::{Error, Result};
use crate::frame::Response;
use crate::process::{Process, wait_until};
use crate::qmp::Qmp;
use crate::setup::Setup;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a guest may take from power on to its agent, on two busy cores under TCG.
pub const BOOT: Duration = Duration::from_secs(90);

/// How long a command in the guest may take unless said otherwise.
pub const COMMAND: Duration = Duration::from_secs(60);

/// An emulated machine on a busy host loses processor time in the middle of the loops with which Linux tries its timer interrupt and
/// measures the local APIC's timer: it then gives up ("IO-APIC + timer doesn't work"), or goes on with a timer that is far too slow and
/// sleeps for good. So nothing is tried or measured. The HPET would do but for its comparator, an absolute number of 32 bits: a tick that is overdue
/// when the machine is stopped to migrate comes 43 s late afterwards (`hpet_post_load` in QEMU 10.0). The PIT counts down from now.
pub(crate) const MACHINE_CLOCK: &str = "no_timer_check nolapic_timer hpet=disable clocksource=acpi_pm";

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct GuestBuilder {
    name: String,
    kernel: String,
    qemu: Option<PathBuf>,
    tpm: Option<PathBuf>,
    /// A control channel, and the device in front of it.
    emulator: Option<(PathBuf, String)>,
    incoming: Option<String>,
    memory: u32,
    driver: bool,
    paused: bool,
    sleeps: bool,
    kernel_arguments: Vec<String>,
    disk: Option<PathBuf>,
    extra: Vec<String>,
}

impl GuestBuilder {
    /// A machine with the setup's kernel and without a TPM. The name is that of its logs and sockets.
    #[must_use]
    pub fn new(setup: &Setup, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kernel: setup.kernel.clone(),
            qemu: None,
            tpm: None,
            emulator: None,
            incoming: None,
            memory: 256,
            driver: true,
            paused: false,
            sleeps: false,
            kernel_arguments: Vec::new(),
            disk: None,
            extra: Vec::new(),
        }
    }

    /// With the device `vhost-user-tpm-pci`, served at this socket.
    #[must_use]
    pub fn tpm(mut self, socket: &Path) -> Self {
        self.tpm = Some(socket.to_owned());
        self
    }

    /// On another QEMU than the setup's.
    #[must_use]
    pub fn qemu(mut self, program: &Path) -> Self {
        self.qemu = Some(program.to_owned());
        self
    }

    /// With a TPM as every QEMU has it: the device `tpm-crb` or `tpm-tis` in front of the control channel at this socket.
    #[must_use]
    pub fn emulator(mut self, control: &Path, device: &str) -> Self {
        self.emulator = Some((control.to_owned(), device.to_owned()));
        self
    }

    /// With another kernel, by the name of its directory.
    #[must_use]
    pub fn kernel(mut self, kernel: &str) -> Self {
        kernel.clone_into(&mut self.kernel);
        self
    }

    /// Waits for a migration at this socket instead of booting.
    #[must_use]
    pub fn incoming(mut self, socket: &Path) -> Self {
        self.incoming = Some(format!("unix:{}", socket.display()));
        self
    }

    /// Takes its state from what a command of the host's writes, such as `cat file`, instead of booting.
    #[must_use]
    pub fn incoming_from_command(mut self, command: &str) -> Self {
        self.incoming = Some(format!("exec:{command}"));
        self
    }

    /// Does not load the driver, so that the guest never touches the device.
    #[must_use]
    pub fn without_driver(mut self) -> Self {
        self.driver = false;
        self
    }

    /// Starts with its processors stopped (`-S`).
    #[must_use]
    pub fn paused(mut self) -> Self {
        self.paused = true;
        self
    }

    /// Will be suspended to memory. It keeps the local APIC's timer, for Linux finds the PIT stopped when it wakes up.
    #[must_use]
    pub fn sleeps(mut self) -> Self {
        self.sleeps = true;
        self
    }

    /// With a further argument for the kernel.
    #[must_use]
    pub fn kernel_argument(mut self, argument: &str) -> Self {
        self.kernel_arguments.push(argument.to_owned());
        self
    }

    /// With a disk, whose content is in this file, and with programs to encrypt it.
    #[must_use]
    pub fn disk(mut self, file: &Path) -> Self {
        self.disk = Some(file.to_owned());
        self
    }

    /// With further arguments for QEMU.
    #[must_use]
    pub fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.extra.extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Starts QEMU, with its sockets and logs in `directory`, and connects to it. The guest boots meanwhile.
    ///
    /// # Errors
    /// [`Error::Ended`] if QEMU refuses, [`Error::Timeout`] if its monitor does not answer.
    pub fn start(&self, setup: &Setup, directory: &Path) -> Result<Guest> {
        let file = |suffix: &str| directory.join(format!("{}{suffix}", self.name));
        let (monitor, serial, console) = (file(".qmp"), file(".agent"), file("-console.log"));
        let out_of_band = file(".qmp-oob");
        let kernel = setup.guests.join(&self.kernel);
        let clock = if self.sleeps { "no_timer_check" } else { MACHINE_CLOCK };
        let mut command_line = format!("console=ttyS0 quiet loglevel=5 panic=0 {clock}");
        let nodriver = (!self.driver).then_some("vtpmd.nodriver");
        for argument in self.kernel_arguments.iter().map(String::as_str).chain(nodriver) {
            command_line.push(' ');
            command_line.push_str(argument);
        }

        let mut arguments: Vec<String> = Vec::new();
        let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        add("-name", self.name.clone());
        add("-accel", setup.accelerator.into());
        add("-cpu", "max".into());
        add("-smp", "1".into());
        add("-machine", "q35,memory-backend=mem".into());
        add("-m", format!("{}M", self.memory));
        // Shared, because the back-end reads and writes the guest's memory itself.
        add("-object", format!("memory-backend-memfd,id=mem,size={}M,share=on", self.memory));
        add("-display", "none".into());
        add("-kernel", kernel.join("vmlinuz").display().to_string());
        add("-initrd", self.initramfs(&kernel, directory)?.display().to_string());
        add("-append", command_line);
        add("-qmp", format!("unix:{},server=on,wait=off", monitor.display()));
        add("-qmp", format!("unix:{},server=on,wait=off", out_of_band.display()));
        add("-serial", format!("file:{}", console.display()));
        add("-serial", format!("unix:{},server=on,wait=off", serial.display()));
        if let Some(socket) = &self.tpm {
            add("-chardev", format!("socket,id=tpm,path={},reconnect-ms=100", socket.display()));
            // Only behind a root port is it a PCI Express function, and can be reset as one.
            add("-device", "pcie-root-port,id=pcie1,chassis=1,slot=1".into());
            add("-device", "vhost-user-tpm-pci,id=tpm0,bus=pcie1,chardev=tpm".into());
        }
        if let Some((control, device)) = &self.emulator {
            add("-chardev", format!("socket,id=chrtpm,path={}", control.display()));
            add("-tpmdev", "emulator,id=tpm0,chardev=chrtpm".into());
            add("-device", format!("{device},tpmdev=tpm0"));
        }
        if let Some(file) = &self.disk {
            add("-drive", format!("if=none,id=disk,format=raw,file={}", file.display()));
            add("-device", "virtio-blk-pci,drive=disk,bus=pcie.0,addr=0x1d".into());
        }
        if let Some(incoming) = &self.incoming {
            add("-incoming", incoming.clone());
        }
        if self.paused {
            arguments.push("-S".into());
        }
        arguments.extend(["-nodefaults".into(), "-no-user-config".into()]);
        arguments.extend(self.extra.iter().cloned());

        let program = self.qemu.as_ref().unwrap_or(&setup.qemu);
        let mut process = Process::start(&self.name, program, arguments, &file("-qemu.log"))?;
        // A back-end that is not there yet holds QEMU back before it serves its monitor.
        wait_until(&format!("{} has no monitor", self.name), Duration::from_secs(30), || {
            process.still_running()?;
            Ok(monitor.exists().then_some(()))
        })?;
        let qmp = match Qmp::connect(&monitor, Duration::from_secs(30)) {
            Ok(qmp) => qmp,
            Err(error) => {
                process.still_running()?;
                return Err(error);
            }
        };
        let agent = Agent::connect(&serial, Duration::from_secs(10))?;
        Ok(Guest { name: self.name.clone(), process: Some(process), qmp, out_of_band, agent, console })
    }

    /// The kernel unpacks archives that stand one behind the other.
    fn initramfs(&self, kernel: &Path, directory: &Path) -> Result<PathBuf> {
        let plain = kernel.join("initramfs.cpio");
        if self.disk.is_none() {
            return Ok(plain);
        }
        let mut whole = fs::read(&plain).map_err(Error::io(plain.display().to_string()))?;
        let more = kernel.join("disk.cpio");
        whole.extend(fs::read(&more).map_err(Error::io(more.display().to_string()))?);
        let path = directory.join(format!("{}.cpio", self.name));
        fs::write(&path, whole).map_err(Error::io(path.display().to_string()))?;
        Ok(path)
    }

    /// Starts it and waits for its agent.
    ///
    /// # Errors
    /// As [`Self::start`], and [`Error::Timeout`] if the guest does not boot.
    pub fn boot(&self, setup: &Setup, directory: &Path) -> Result<Guest> {
        let mut guest = self.start(setup, directory)?;
        guest.wait_ready()?;
        Ok(guest)
    }
}

/// A running virtual machine. A QEMU that was started here is killed when it is dropped.
#[derive(Debug)]
pub struct Guest {
    name: String,
    /// `None` when somebody else started it.
    process: Option<Process>,
    qmp: Qmp,
    out_of_band: PathBuf,
    agent: Agent,
    console: PathBuf,
}

impl Guest {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its monitor.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// A second monitor, whose commands may run while QEMU's lock is held.
    ///
    /// # Errors
    /// As [`Qmp::connect`].
    pub fn out_of_band(&self) -> Result<Qmp> {
        Qmp::connect_out_of_band(&self.out_of_band, Duration::from_secs(10))
    }

    /// A machine that somebody else has started, with its monitors, agent and console in this directory.
    ///
    /// # Errors
    /// [`Error::Timeout`] if its monitor or agent is not there.
    pub(crate) fn of_another(name: &str, directory: &Path) -> Result<Self> {
        let (out_of_band, console) = (directory.join("qmp-oob"), directory.join("console.log"));
        let qmp = Qmp::connect(&directory.join("qmp"), Duration::from_secs(30))?;
        let agent = Agent::connect(&directory.join("agent"), Duration::from_secs(10))?;
        Ok(Self { name: name.to_owned(), process: None, qmp, out_of_band, agent, console })
    }

    /// The QEMU process.
    ///
    /// # Errors
    /// [`Error::Setup`] if it belongs to somebody else.
    pub fn process(&mut self) -> Result<&mut Process> {
        let other = || Error::Setup(format!("the process of {} is not ours", self.name));
        self.process.as_mut().ok_or_else(other)
    }

    /// The log of its console.
    #[must_use]
    pub fn console(&self) -> &Path {
        &self.console
    }

    /// Waits for its agent.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not answer.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.agent.wait_ready(BOOT)
    }

    /// Runs a command line in the guest, whatever its status.
    ///
    /// # Errors
    /// [`Error::Timeout`] if the guest does not answer.
    pub fn execute(&mut self, argv: &[&str], stdin: &[u8], timeout: Duration) -> Result<Response> {
        self.agent.execute(argv, stdin, timeout)
    }

    /// Runs a command line in the guest that must succeed, and returns what it printed.
    ///
    /// # Errors
    /// [`Error::Status`] if its status is not zero.
    pub fn run(&mut self, argv: &[&str]) -> Result<String> {
        let response = self.execute(argv, &[], COMMAND)?;
        let stdout = String::from_utf8_lossy(&response.stdout).into_owned();
        if response.status == 0 {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&response.stderr);
        Err(Error::Status {
            command: format!("{}# {}", self.name, argv.join(" ")),
            status: response.status,
            output: format!("{stdout}{stderr}").trim().to_owned(),
        })
    }

    /// Runs a shell script in the guest; every line of it must succeed.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn shell(&mut self, script: &str) -> Result<String> {
        self.run(&["sh", "-euc", script])
    }

    /// Writes a file in the guest.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn write(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let mut argument = vec!["sh", "-c", "cat >\"$0\"", path];
        let response = self.execute(&argument, content, COMMAND)?;
        if response.status == 0 {
            return Ok(());
        }
        Err(Error::Status {
            command: argument.split_off(1).join(" "),
            status: response.status,
            output: String::from_utf8_lossy(&response.stderr).into_owned(),
        })
    }

    /// Runs a command that prints JSON.
    ///
    /// # Errors
    /// [`Error::Format`] if it prints something else.
    pub fn json<T: DeserializeOwned>(&mut self, argv: &[&str]) -> Result<T> {
        let text = self.run(argv)?;
        serde_json::from_str(&text).map_err(|_| Error::Format { what: argv.join(" "), text })
    }

    /// The PCRs of a bank (`sha256`), in hexadecimal.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn pcrs(&mut self, bank: &str) -> Result<Vec<String>> {
        let text = self.run(&["guest-helper", "pcrs", bank])?;
        Ok(text.lines().map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned()).collect())
    }

    /// Sends one TPM command as it is.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn tpm(&mut self, command: &str) -> Result<Vec<u8>> {
        let text = self.run(&["guest-helper", "raw", command])?;
        hex::decode(text.trim()).map_err(|_| Error::Format { what: format!("response to {command}"), text })
    }

    /// An identifier that a boot of the kernel gives itself, to tell a reboot from none.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn boot_id(&mut self) -> Result<String> {
        Ok(self.run(&["cat", "/proc/sys/kernel/random/boot_id"])?.trim().to_owned())
    }

    /// Waits until another boot than `before` is up.
    ///
    /// # Errors
    /// [`Error::Timeout`] if there is none.
    pub fn wait_reboot(&mut self, before: &str) -> Result<()> {
        wait_until(&format!("{} did not reboot", self.name), BOOT, || {
            // While it goes down it may not answer, or answer no more.
            match self.agent.execute(&["cat", "/proc/sys/kernel/random/boot_id"], &[], BOOT) {
                Ok(response) => {
                    let now = String::from_utf8_lossy(&response.stdout).trim().to_owned();
                    Ok((response.status == 0 && now != before).then_some(()))
                }
                Err(Error::Timeout { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    /// Resets the machine and waits until it has booted again.
    ///
    /// # Errors
    /// As [`Self::wait_reboot`].
    pub fn reset(&mut self) -> Result<()> {
        let before = self.boot_id()?;
        self.qmp.system_reset()?;
        self.wait_reboot(&before)
    }
}
