//! Trust between two daemons, as operators set it up: pinned identities, an authority, a shared storage key.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test that panics has failed"
)]

#[allow(dead_code, reason = "shared with the other tests of the programs")]
mod common;

use common::Host;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use std::path::Path;

const UUID: &str = "5f0c9c36-7d5e-4b0e-9a33-0d7f3f1f2a10";

fn file(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_owned()
}

fn prepare(to: &Host, dir: &Path, ticket: &str, more: &[&str]) -> String {
    let path = file(dir, ticket);
    to.ctl(&[&["migrate", "prepare", "guest", "--uuid", UUID, "--ticket", &path], more].concat());
    path
}

/// Locks, exports, imports, and lets the destination give up, so that the source lives again.
fn there_and_void(a: &Host, b: &Host, dir: &Path, ticket: &str) {
    let stream = format!("{ticket}.stream");
    a.ctl(&["export", "guest", "--ticket", ticket, "--output", &stream]);
    b.ctl(&["import", "guest", "--input", &stream]);
    assert_eq!((a.state_of("guest").as_str(), b.state_of("guest").as_str()), ("exported", "imported"));
    let receipt = b.json(&["migrate", "abort", "guest"])["receipt"].as_str().unwrap().to_owned();
    a.ctl(&["migrate", "abort", "guest", "--receipt", &receipt]);
    b.ctl(&["delete", "guest"]);
    assert_eq!(a.state_of("guest"), "live");
    let _ = dir;
}

/// Every way in which the source would use the ticket says why it does not, and the instance lives on.
fn assert_refused(a: &Host, ticket: &str, why: &str) {
    for command in [
        &["migrate", "arm", "guest", "--ticket", ticket][..],
        &["lock", "guest", "--ticket", ticket],
        &["export", "guest", "--ticket", ticket, "--output", &format!("{ticket}.refused")],
    ] {
        let words = a.refused(command);
        assert!(words.contains(why) && words.contains("TPM_RC_SIGNATURE"), "{command:?}: {words}");
        let _ = std::fs::remove_file(format!("{ticket}.refused"));
    }
    assert_eq!(a.state_of("guest"), "live");
}

#[test]
fn a_host_is_trusted_from_the_moment_its_identity_is_pinned_to_that_when_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (a, b) = (Host::start(dir, "a"), Host::start(dir, "b"));
    a.ctl(&["create", "guest", "--uuid", UUID]);
    let ticket = prepare(&b, dir, "ticket", &[]);
    let fingerprint = b.json(&["identity", "show"])["fingerprint"].as_str().unwrap().to_owned();
    assert_refused(&a, &ticket, &fingerprint);
    assert_refused(&a, &ticket, "not pinned");

    let identity = file(dir, "b.identity");
    b.ctl(&["identity", "export", "--output", &identity]);
    assert_eq!(a.json(&["identity", "show", &identity])["fingerprint"], fingerprint.as_str());
    let own = a.json(&["identity", "show"])["fingerprint"].as_str().unwrap().to_owned();
    let wrong = a.refused(&["peer", "add", "b", "--identity", &identity, "--fingerprint", &own]);
    assert!(wrong.contains(&fingerprint) && wrong.contains("nothing was added"), "{wrong}");
    let spelled = fingerprint.to_uppercase();
    let add = ["peer", "add", "b", "--identity", &identity, "--fingerprint", &spelled];
    let added = a.json(&[&add[..], &["--address", "b.example:8670", "--may-prepare"]].concat());
    assert_eq!(added["kind"], "pinned");
    assert!(a.refused(&add).contains("already"));
    a.ctl(&["peer", "add", "c", "--address", "[::1]:8670"]);
    assert!(a.refused(&["peer", "add", "d", "--address", "nowhere"]).contains("host:port"));
    assert!(!a.ctl_output(&["peer", "add", "d"]).status.success());
    let peers = a.json(&["peer", "list"]);
    assert_eq!(peers[0]["fingerprint"], fingerprint.as_str());
    assert_eq!((&peers[0]["address"], &peers[0]["may_prepare"]), (&"b.example:8670".into(), &true.into()));
    assert_eq!((&peers[1]["kind"], &peers[1]["fingerprint"]), (&"address".into(), &serde_json::Value::Null));
    assert!(a.ctl(&["peer", "list"]).contains("b.example:8670"));

    there_and_void(&a, &b, dir, &ticket);
    let ticket = prepare(&b, dir, "ticket2", &[]);
    a.ctl(&["migrate", "arm", "guest", "--ticket", &ticket]);
    a.ctl(&["peer", "remove", "b"]);
    assert!(a.refused(&["peer", "remove", "b"]).contains("no peer"));
    assert_refused(&a, &ticket, "not pinned");
    // A damaged ticket of a peer.
    a.ctl(&["peer", "add", "b", "--identity", &identity]);
    let mut bytes = std::fs::read(&ticket).unwrap();
    bytes[40] ^= 1;
    let forged = file(dir, "forged");
    std::fs::write(&forged, bytes).unwrap();
    // Byte 40 is in the UUID, which vtpmctl looks at first; byte 10 is in the migration id.
    assert!(a.refused(&["lock", "guest", "--ticket", &forged]).contains(UUID));
    let mut bytes = std::fs::read(&ticket).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&forged, bytes).unwrap();
    assert_refused(&a, &forged, "not genuine");
    let junk = file(dir, "junk");
    std::fs::write(&junk, "-----BEGIN VTPMD IDENTITY-----\nAAAA\n-----END VTPMD IDENTITY-----\n").unwrap();
    assert!(a.refused(&["peer", "add", "e", "--identity", &junk]).contains("holds no identity"));
}

#[test]
fn trust_outlives_the_daemons() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (mut a, mut b) = (Host::start(dir, "a"), Host::start(dir, "b"));
    a.ctl(&["create", "guest", "--uuid", UUID]);
    a.pin(&b);
    let before = b.json(&["identity", "show"]);
    a.kill();
    b.kill();
    a.run();
    b.run();
    assert_eq!(b.json(&["identity", "show"]), before);
    let ticket = prepare(&b, dir, "ticket", &[]);
    there_and_void(&a, &b, dir, &ticket);
}

struct Subject(Vec<u8>);

impl PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

#[test]
fn a_host_that_an_authority_certified_is_trusted_while_its_certificate_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (a, b) = (Host::start(dir, "a"), Host::start(dir, "b"));
    a.ctl(&["create", "guest", "--uuid", UUID]);

    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "fleet");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = file(dir, "ca.pem");
    let pem =
        |der: &[u8]| pem_rfc7468::encode_string("CERTIFICATE", pem_rfc7468::LineEnding::LF, der).unwrap();
    std::fs::write(&ca, pem(authority.self_signed(&key).unwrap().der())).unwrap();
    let issuer = Issuer::new(authority, key);
    let certify = |host: &Host, name: &str, until: i32| {
        let (label, spki) = {
            let text = host.ctl(&["identity", "export", "--public-key"]);
            let (label, der) = pem_rfc7468::decode_vec(text.as_bytes()).unwrap();
            (label.to_owned(), der)
        };
        assert_eq!((label.as_str(), spki.len()), ("PUBLIC KEY", 91));
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&Subject(spki[26..].to_vec()), &issuer).unwrap();
        let path = file(dir, name);
        std::fs::write(&path, pem(certificate.der())).unwrap();
        path
    };

    a.ctl(&["peer", "add", "fleet", "--authority", &ca]);
    let bare = prepare(&b, dir, "bare", &[]);
    assert_refused(&a, &bare, "without a certificate");
    b.ctl(&["delete", "guest", "--force"]);

    let of_a = certify(&a, "of-a.pem", 2090);
    assert!(b.refused(&["identity", "certify", &of_a]).contains("not of the attestation key"));
    assert!(b.refused(&["identity", "certify", &bare]).contains("no usable X.509"));
    b.ctl(&["identity", "certify", &certify(&b, "expired.pem", 2021)]);
    let expired = prepare(&b, dir, "expired", &[]);
    assert_refused(&a, &expired, "not valid at this time");
    b.ctl(&["delete", "guest", "--force"]);

    b.ctl(&["identity", "certify", &certify(&b, "good.pem", 2090)]);
    assert_eq!(b.json(&["identity", "show"])["certificate"], true);
    let good = prepare(&b, dir, "good", &[]);
    there_and_void(&a, &b, dir, &good);

    let again = prepare(&b, dir, "again", &[]);
    a.ctl(&["peer", "remove", "fleet"]);
    assert_refused(&a, &again, "no authority that is trusted");
    b.ctl(&["identity", "certify", "--remove"]);
    assert_eq!(b.json(&["identity", "show"])["certificate"], false);
}

#[test]
fn hosts_that_share_a_storage_key_need_no_peers_to_migrate() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (a, b, c) = (Host::start(dir, "a"), Host::start(dir, "b"), Host::start(dir, "c"));
    a.ctl(&["create", "guest", "--uuid", UUID]);
    let prepare_fleet = ["migrate", "prepare", "guest", "--uuid", UUID, "--storage-key", "fleet", "--ticket"];
    let unused = file(dir, "none");
    let none = [&prepare_fleet[..], &[&unused]].concat();
    assert!(b.refused(&none).contains("no fleet key"));
    assert!(a.refused(&["fleet-key", "show"]).contains("no fleet key"));

    let made = a.json(&["fleet-key", "create"]);
    assert!(a.refused(&["fleet-key", "create"]).contains("already"));
    let identity = |host: &Host, name: &str| {
        let path = file(dir, name);
        host.ctl(&["identity", "export", "--output", &path]);
        path
    };
    let (of_a, of_b, of_c) = (identity(&a, "a.id"), identity(&b, "b.id"), identity(&c, "c.id"));
    let key = file(dir, "fleet.key");
    let duplicate = ["fleet-key", "duplicate", "--to", &of_b, "--output", &key];
    // Only to a host that is trusted, and only from one.
    assert!(a.refused(&duplicate).contains("not trusted"));
    a.ctl(&["peer", "add", "b", "--identity", &of_b]);
    a.ctl(&duplicate);
    assert!(b.refused(&["fleet-key", "import", &key]).contains("not trusted"));
    for host in [&b, &c] {
        host.ctl(&["peer", "add", "a", "--identity", &of_a]);
    }
    assert!(c.refused(&["fleet-key", "import", &key]).contains("for another host"));
    assert!(b.refused(&["fleet-key", "import", &of_a]).contains("holds no fleet key"));
    let imported = b.json(&["fleet-key", "import", &key]);
    assert_eq!(imported["name"], made["name"]);
    assert!(b.refused(&["fleet-key", "import", &key]).contains("already"));
    assert_eq!(b.json(&["identity", "show"])["keys"][3]["role"], "fleet");

    // No peers any more: S itself vouches for the ticket.
    a.ctl(&["peer", "remove", "b"]);
    b.ctl(&["peer", "remove", "a"]);
    let ticket = prepare(&b, dir, "ticket", &["--storage-key", "fleet"]);
    there_and_void(&a, &b, dir, &ticket);
    let again = prepare(&b, dir, "again", &["--storage-key", "fleet"]);
    // A host that does not have the key takes no such ticket, nor does one that had it.
    c.ctl(&["create", "guest", "--uuid", UUID]);
    assert_refused(&c, &again, "storage key that is not here");
    a.ctl(&["fleet-key", "remove"]);
    assert_refused(&a, &again, "storage key that is not here");

    // It goes on from the second host to a third, and the first gets it back.
    b.ctl(&["peer", "add", "c", "--identity", &of_c]);
    let onward = file(dir, "onward.key");
    b.ctl(&["fleet-key", "duplicate", "--to", &of_c, "--output", &onward]);
    c.ctl(&["peer", "add", "b", "--identity", &of_b]);
    assert_eq!(c.json(&["fleet-key", "import", &onward])["name"], made["name"]);
    c.ctl(&["migrate", "arm", "guest", "--ticket", &again]);
}
