//! `vtpmctl libvirt-hook`: what libvirt's hook for QEMU calls, so that a migration takes no step by hand.
//!
//! libvirt hands the domain's XML to the hook. A domain names its TPM by the path of a socket below our runtime directory, in whatever
//! element: the arguments for QEMU of the virtio device, or the source of an external TPM.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use roxmltree::Document;
use vtpm_protocol::instance::{InstanceName, Uuid};

use super::args::Reach;
use super::{CtlError, Result, taken};
use crate::daemon::{CONTROL_SOCKET, ROOT_NAME, VHOST_USER_SOCKET};
use crate::link::server::Remote;
use crate::link::slot::{self, Slot};

/// No domain's XML is near this size.
const MAX_XML: u64 = 16 << 20;

/// Why the hook stops what libvirt is about to do.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The XML cannot be read.
    #[error("the domain's XML does not come in")]
    Read(#[source] io::Error),
    /// What libvirt gave is no XML.
    #[error("the domain's XML cannot be understood")]
    Xml(#[source] roxmltree::Error),
    /// There is no UUID in it.
    #[error("the domain's XML has no UUID")]
    Uuid,
    /// There is more than one TPM in it.
    #[error("the domain names the sockets of two instances, {0} and {1}; a machine has one TPM")]
    Two(InstanceName, InstanceName),
    /// The TPM cannot come here.
    #[error("the TPM of {domain} cannot come here: {why}")]
    Taken {
        /// The domain.
        domain: String,
        /// Why.
        why: String,
    },
}

/// The TPM of a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
struct DomainTpm {
    uuid: Uuid,
    instance: InstanceName,
}

impl DomainTpm {
    /// Out of a domain's XML; `None` when its TPM is not one of ours, if it has any.
    fn find(xml: &str, runtime_dir: &Path) -> std::result::Result<Option<Self>, HookError> {
        let document = Document::parse(xml).map_err(HookError::Xml)?;
        let names: BTreeSet<InstanceName> = document
            .descendants()
            .flat_map(|node| node.attributes().map(|attribute| attribute.value()).collect::<Vec<_>>())
            // QEMU's options are lists of assignments, or JSON.
            .flat_map(|value| value.split([',', '=', '"', '\'']))
            .filter_map(|value| instance_at(Path::new(value), runtime_dir))
            .collect();
        let mut names = names.into_iter();
        let Some(instance) = names.next() else { return Ok(None) };
        if let Some(other) = names.next() {
            return Err(HookError::Two(instance, other));
        }
        let uuid = document.root_element().children().find(|node| node.has_tag_name("uuid"));
        let uuid = uuid.and_then(|node| node.text()).and_then(|text| text.trim().parse::<uuid::Uuid>().ok());
        let uuid = Uuid(*uuid.ok_or(HookError::Uuid)?.as_bytes());
        Ok(Some(Self { uuid, instance }))
    }
}

/// The instance of which this is a socket.
fn instance_at(socket: &Path, runtime_dir: &Path) -> Option<InstanceName> {
    let socket = plain(socket);
    if !SOCKETS.iter().any(|name| socket.ends_with(name)) {
        return None;
    }
    let dir = socket.parent()?;
    if dir.parent()? != plain(runtime_dir) {
        return None;
    }
    let name = dir.file_name()?.to_str()?;
    (name != ROOT_NAME).then(|| InstanceName::new(name).ok()).flatten()
}

/// The file names of the sockets for machines.
const SOCKETS: &[&str] = &[VHOST_USER_SOCKET, CONTROL_SOCKET];

/// `/var/run` and `/run` are one directory.
fn plain(path: &Path) -> PathBuf {
    let path: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    match path.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => path,
    }
}

/// What libvirt tells of `domain`, with its XML. Prints nothing to standard output: libvirt would take it for another XML.
pub(super) fn hook(reach: &Reach, domain: &str, operation: &str, stage: &str, xml: impl Read) -> Result<()> {
    // On the destination, before anything else is done there.
    if (operation, stage) != ("migrate", "begin") {
        return Ok(());
    }
    let mut text = String::new();
    xml.take(MAX_XML).read_to_string(&mut text).map_err(HookError::Read)?;
    let Some(DomainTpm { uuid, instance }) = DomainTpm::find(&text, &reach.runtime_dir()?)? else {
        return Ok(());
    };
    let client = reach.connect()?;
    let slot = slot::find_or_make(&client, &Remote(&client), uuid, &instance);
    match slot.map_err(|error| taken(error, instance.as_str()))? {
        Slot::Found { .. } | Slot::Made { .. } => Ok(()),
        Slot::Taken(why) => Err(HookError::Taken { domain: domain.to_owned(), why }.into()),
    }
}

impl From<HookError> for CtlError {
    fn from(error: HookError) -> Self {
        Self::Hook(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "6f1c5a52-9b0c-4d0e-8d65-0d2a5b1c7e01";

    fn domain(devices: &str) -> String {
        format!(
            "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>alice</name>\
             <uuid>{UUID}</uuid>{devices}</domain>"
        )
    }

    fn find(xml: &str) -> std::result::Result<Option<String>, HookError> {
        let found = DomainTpm::find(xml, Path::new("/run/vtpmd"))?;
        Ok(found.map(|tpm| {
            assert_eq!(tpm.uuid, Uuid(*uuid::Uuid::parse_str(UUID).unwrap().as_bytes()));
            tpm.instance.as_str().to_owned()
        }))
    }

    fn argument(value: &str) -> String {
        domain(&format!("<qemu:commandline><qemu:arg value='{value}'/></qemu:commandline>"))
    }

    #[test]
    fn the_instance_is_found_by_the_path_of_its_socket() {
        for value in [
            "socket,id=tpm,path=/run/vtpmd/alice/vhost-user.sock,reconnect-ms=100",
            "socket,id=tpm,path=/var/run/vtpmd/alice/vhost-user.sock",
            "socket,path=/run//vtpmd/./alice/vhost-user.sock",
            "{&quot;type&quot;:&quot;unix&quot;,&quot;path&quot;:&quot;/run/vtpmd/alice/vhost-user.sock&quot;}",
        ] {
            assert_eq!(find(&argument(value)).unwrap().as_deref(), Some("alice"), "{value}");
        }
        let external = "<devices><tpm model='tpm-crb'><backend type='external'>\
                        <source type='unix' mode='connect' path='/run/vtpmd/alice/control.sock'/></backend></tpm></devices>";
        assert_eq!(find(&domain(external)).unwrap().as_deref(), Some("alice"));
    }

    #[test]
    fn other_domains_are_none_of_ours() {
        for value in [
            "socket,path=/run/other/alice/vhost-user.sock",
            "socket,path=/run/vtpmd/vhost-user.sock",
            "socket,path=/run/vtpmd/a/b/vhost-user.sock",
            "socket,path=/run/vtpmd/alice/other.sock",
            "socket,path=/run/vtpmd/root/vhost-user.sock",
            "socket,path=/run/vtpmd/../vhost-user.sock",
            "/run/vtpmd/alice",
        ] {
            assert_eq!(find(&argument(value)).unwrap(), None, "{value}");
        }
        assert_eq!(find(&domain("<devices/>")).unwrap(), None);
    }

    #[test]
    fn a_domain_that_cannot_be_right_is_refused() {
        let two = argument("path=/run/vtpmd/alice/vhost-user.sock,path=/run/vtpmd/bob/vhost-user.sock");
        assert!(
            matches!(find(&two), Err(HookError::Two(a, b)) if a.as_str() == "alice" && b.as_str() == "bob")
        );
        let once = argument("path=/run/vtpmd/alice/vhost-user.sock");
        assert!(matches!(find(&once.replace(UUID, "six")), Err(HookError::Uuid)));
        assert!(matches!(find(once.trim_end_matches("</domain>")), Err(HookError::Xml(_))));
        let entities = format!("<!DOCTYPE d [<!ENTITY e 'x'>]>{once}");
        assert!(matches!(find(&entities), Err(HookError::Xml(_))));
    }
}
