//! libvirt, as on a host of its own.

use crate::daemon::Daemon;
use crate::error::{Error, Result};
use crate::guest::{Guest, MACHINE_CLOCK};
use crate::process::{Process, run, wait_until};
use crate::setup::Setup;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a machine's agent, monitor and console are met, as its host sees it.
const GUEST_DIR: &str = "/run/guest";

/// Everything that belongs to this host stands where it stands on any host; the rest is that of the machine on which the test runs. The shell is
/// the first process of its name space: nothing outlives it, and it takes in the QEMUs that libvirtd lets go, for libvirtd waits until
/// they are gone.
const IN_ITS_OWN_WORLD: &str = r#"
set -eu
for dir in /run /var/lib /var/cache /var/log; do mount -t tmpfs tmpfs "$dir"; done
mkdir -p /etc/libvirt /run/libvirt /run/guest /run/vtpmd /var/lib/vtpmd
mount --bind "$1/etc" /etc/libvirt
mount --bind "$1/run" /run/libvirt
mount --bind "$1/guest" /run/guest
mount --bind "$1/log" /var/log
mount --bind "$2" /run/vtpmd
mount --bind "$3" /var/lib/vtpmd
ip link set lo up
libvirtd &
wait
"#;

/// A libvirtd with directories, processes and a network of its own. Its machines end with it.
#[derive(Debug)]
pub struct Libvirtd {
    root: PathBuf,
    process: Process,
}

impl Libvirtd {
    /// Starts it beside a vtpmd, which it finds where every host has it, with the hook that we ship.
    ///
    /// # Errors
    /// [`Error::Ended`] if it does not stay, [`Error::Timeout`] if it does not listen.
    pub fn start(setup: &Setup, directory: &Path, name: &str, daemon: &Daemon) -> Result<Self> {
        let root = directory.join(name);
        let etc = root.join("etc");
        let hooks = etc.join("hooks/qemu.d");
        for dir in [&hooks, &root.join("run"), &root.join("guest"), &root.join("log")] {
            fs::create_dir_all(dir).map_err(Error::io(dir.display().to_string()))?;
        }
        let write = |file: &str, text: &str| {
            let path = etc.join(file);
            fs::write(&path, text).map_err(Error::io(path.display().to_string()))
        };
        // libvirt migrates to another host only, and tells hosts by this.
        let uuid = format!("11111111-2222-4333-8444-{:012x}", fnv(name));
        write("libvirtd.conf", &format!("auth_unix_rw = \"none\"\nhost_uuid = \"{uuid}\"\n"))?;
        write(
            "qemu.conf",
            "user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\nsecurity_driver = \"none\"\n\
             cgroup_controllers = []\nswtpm_user = \"root\"\nswtpm_group = \"root\"\nnamespaces = []\nseccomp_sandbox = 0\nstdio_handler = \"file\"\n",
        )?;
        let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../libvirt/50-vtpmd");
        fs::copy(&hook, hooks.join("50-vtpmd")).map_err(Error::io(hook.display().to_string()))?;

        let path = format!("PATH={}:{}", setup.programs.display(), env::var("PATH").unwrap_or_default());
        let (shown, run_dir, state) = (root.display(), daemon.runtime().display(), daemon.state().display());
        let arguments = [
            path,
            "unshare".into(),
            "--mount".into(),
            "--net".into(),
            "--pid".into(),
            "--mount-proc".into(),
            "--fork".into(),
            "--kill-child=KILL".into(),
            "sh".into(),
            "-c".into(),
            IN_ITS_OWN_WORLD.into(),
            "sh".into(),
            shown.to_string(),
            run_dir.to_string(),
            state.to_string(),
        ];
        let log = directory.join(format!("{name}.log"));
        let process = Process::start(name, Path::new("env"), arguments, &log)?;
        let mut host = Self { root, process };
        wait_until(&format!("{name} does not answer"), Duration::from_secs(60), || {
            host.process.still_running()?;
            Ok(host.virsh(&["version"]).ok())
        })?;
        Ok(host)
    }

    /// The URI by which its clients, and other libvirtds, reach it.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.root.join("run/libvirt-sock").display())
    }

    /// Runs `virsh` on it and returns what it printed.
    ///
    /// # Errors
    /// [`Error::Status`] with libvirt's words.
    pub fn virsh(&self, arguments: &[&str]) -> Result<String> {
        let uri = self.uri();
        let own = ["--connect", uri.as_str(), "--quiet"];
        let printed = run(Path::new("virsh"), own.iter().chain(arguments))?;
        Ok(String::from_utf8_lossy(&printed).trim().to_owned())
    }

    /// Makes a machine known to it.
    ///
    /// # Errors
    /// [`Error::Status`] if libvirt does not like the XML.
    pub fn define(&self, xml: &str) -> Result<()> {
        let file = self.root.join("domain.xml");
        fs::write(&file, xml).map_err(Error::io(file.display().to_string()))?;
        self.virsh(&["define", &file.display().to_string()]).map(drop)
    }

    /// Moves a running machine to another host, as a live migration between their libvirtds.
    ///
    /// # Errors
    /// [`Error::Status`] with libvirt's words; the machine then runs on here.
    pub fn migrate(&self, name: &str, to: &Self) -> Result<()> {
        let (wire, there) = (to.root.join("guest/wire"), to.uri());
        let wire = format!("unix://{}", wire.display());
        let how = ["migrate", "--live", "--persistent", "--undefinesource", name, &there];
        self.virsh(&[&how[..], &["--migrateuri", &wire, "--timeout", "120"]].concat()).map(drop)
    }

    /// The machine that runs here.
    ///
    /// # Errors
    /// [`Error::Timeout`] if its monitor or agent is not there.
    pub fn guest(&self, name: &str) -> Result<Guest> {
        Guest::of_another(name, &self.root.join("guest"))
    }
}

/// The name as a number, the same in every run.
fn fnv(name: &str) -> u64 {
    name.bytes()
        .fold(0x811c_9dc5, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0193) & 0xffff_ffff)
}

/// The XML of a machine with the virtio TPM of the instance of its name, as docs/libvirt.md has it, and what the tests need to talk to it.
#[must_use]
pub fn virtio_domain(setup: &Setup, name: &str, uuid: &str) -> String {
    let devices = format!(
        "<qemu:arg value='-chardev'/>
         <qemu:arg value='socket,id=tpm,path=/run/vtpmd/{name}/vhost-user.sock,reconnect-ms=100'/>
         <qemu:arg value='-device'/>
         <qemu:arg value='vhost-user-tpm-pci,id=tpm0,chardev=tpm,bus=pcie.0,addr=0x1e'/>"
    );
    domain(setup, name, uuid, &setup.qemu.display().to_string(), "", &devices)
}

/// The XML of a machine of the distribution's QEMU with a tpm-crb, which is the instance of its name.
#[must_use]
pub fn external_domain(setup: &Setup, name: &str, uuid: &str) -> String {
    let tpm = format!(
        "<tpm model='tpm-crb'><backend type='external'>
           <source type='unix' mode='connect' path='/run/vtpmd/{name}/control.sock'/>
         </backend></tpm>"
    );
    distribution(setup, name, uuid, &tpm)
}

/// The XML of a machine of the distribution's QEMU with a tpm-crb, for which libvirt starts the `swtpm` that it finds.
#[must_use]
pub fn emulator_domain(setup: &Setup, name: &str, uuid: &str) -> String {
    distribution(setup, name, uuid, "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>")
}

fn distribution(setup: &Setup, name: &str, uuid: &str, tpm: &str) -> String {
    // Its TCG now and then corrupts the flags of a 6.12, which then dies at boot.
    let setup = Setup { kernel: "6.1".into(), ..setup.clone() };
    domain(&setup, name, uuid, "/usr/bin/qemu-system-x86_64", tpm, "")
}

/// A machine with further elements below `devices`, and further arguments for QEMU.
#[must_use]
pub fn domain(
    setup: &Setup,
    name: &str,
    uuid: &str,
    emulator: &str,
    devices: &str,
    arguments: &str,
) -> String {
    let kernel = setup.guests.join(&setup.kernel);
    let (kernel, accelerator) = (kernel.display(), if setup.accelerator == "kvm" { "kvm" } else { "qemu" });
    format!(
        "<domain type='{accelerator}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
           <name>{name}</name>
           <uuid>{uuid}</uuid>
           <memory unit='MiB'>256</memory>
           <vcpu>1</vcpu>
           <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
           <os>
             <type arch='x86_64' machine='q35'>hvm</type>
             <kernel>{kernel}/vmlinuz</kernel>
             <initrd>{kernel}/initramfs.cpio</initrd>
             <cmdline>console=ttyS0 quiet loglevel=5 panic=0 {MACHINE_CLOCK}</cmdline>
           </os>
           <features><acpi/></features>
           <cpu mode='maximum'/>
           <devices>
             <emulator>{emulator}</emulator>
             <controller type='usb' model='none'/>
             <memballoon model='none'/>
             <serial type='file'><source path='{GUEST_DIR}/console.log'/></serial>
             <serial type='unix'><source mode='bind' path='{GUEST_DIR}/agent'/></serial>
             {devices}
           </devices>
           <qemu:commandline>
             {arguments}
             <qemu:arg value='-qmp'/><qemu:arg value='unix:{GUEST_DIR}/qmp,server=on,wait=off'/>
             <qemu:arg value='-qmp'/><qemu:arg value='unix:{GUEST_DIR}/qmp-oob,server=on,wait=off'/>
           </qemu:commandline>
         </domain>"
    )
}
