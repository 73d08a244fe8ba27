//! By a file that somebody carries.

use std::path::Path;
use std::process::Command;

use crate::site::{NAME, Site, UUID};
use crate::tpm::{Possessions, fill, possessions};

/// Two hosts, the TPM on the first, and its ticket from the second.
fn pair() -> (Site, Site, Possessions, String) {
    let (a, b) = (Site::start("a"), Site::start("b"));
    a.add_peer(&b, &[]);
    a.ctl(&["create", NAME, "--uuid", UUID]);
    fill(&a);
    let kept = possessions(&a);
    let ticket = b.path("ticket");
    b.ctl(&["migrate", "prepare", NAME, "--uuid", UUID, "--ticket", &ticket]);
    (a, b, kept, ticket)
}

fn assert_taken(a: &Site, b: &Site, stream: &str, kept: &Possessions) {
    assert_eq!(a.state(NAME).as_deref(), Some("exported"));
    b.ctl(&["import", NAME, "--input", stream]);
    assert_eq!(possessions(b), *kept);
    let receipt = b.json(&["migrate", "commit", NAME])["receipt"].as_str().unwrap().to_owned();
    a.ctl(&["migrate", "commit", NAME, "--receipt", &receipt]);
    assert_eq!(a.state(NAME), None);
}

#[test]
fn a_file_is_written_in_one_step_or_area_by_area() {
    for (more, portions) in
        [(&[][..], "whole"), (&["--piecewise"], "areas"), (&["--buffer", "4096"], "areas")]
    {
        let (a, b, kept, ticket) = pair();
        let stream = a.path("stream");
        let run = ["migrate", "run", NAME, "--to-file", &stream];
        let machine = std::os::unix::net::UnixStream::connect(a.path(&format!("run/{NAME}/vhost-user.sock")));
        let connected = a.refused(&[&run[..], &["--ticket", &ticket]].concat());
        assert!(connected.contains("a machine is connected"), "{connected}");
        let refuse = |run: &[&str]| a.refused(&[run, &["--connected"]].concat());
        let unlocked = refuse(&run);
        drop(machine.unwrap());
        let arriving = b.refused(&["migrate", "run", NAME, "--to-file", &stream]);
        assert!(arriving.contains("has not come"), "{arriving}");
        assert!(unlocked.contains("--ticket"), "{unlocked}");
        let told = a.json(&[&run[..], &["--ticket", &ticket, "--connected"], more].concat());
        assert_eq!((&told["portions"], &told["source"]), (&portions.into(), &"exported".into()), "{told}");
        assert_eq!(told["bytes"].as_u64().unwrap(), std::fs::metadata(&stream).unwrap().len());
        // Not over it; under another name as often as somebody likes.
        assert!(a.refused(&run).contains("exists"));
        let second = a.path("second");
        a.ctl(&["migrate", "run", NAME, "--to-file", &second]);
        assert_taken(&a, &b, &second, &kept);
    }
}

#[test]
fn a_ticket_of_a_stranger_leaves_neither_a_lock_nor_a_file() {
    let (a, b, kept, ticket) = pair();
    a.forget(&b);
    let stream = a.path("stream");
    let refused = a.refused(&["migrate", "run", NAME, "--to-file", &stream, "--ticket", &ticket]);
    assert!(refused.contains("not pinned"), "{refused}");
    assert_eq!(a.state(NAME).as_deref(), Some("live"));
    let left: Vec<_> = std::fs::read_dir(a.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().contains("stream")), "{left:?}");
    assert_eq!(possessions(&a), kept);
}

#[test]
fn an_export_that_broke_off_is_not_in_the_way_of_the_next() {
    let (a, b, kept, ticket) = pair();
    for command in [&["export", NAME, "--output"][..], &["migrate", "run", NAME, "--to-file"]] {
        let stream = a.path("stream");
        let lock: &[&str] =
            if a.state(NAME).as_deref() == Some("live") { &["--ticket", &ticket] } else { &[] };
        let export = [command, &[&stream], lock].concat();
        // The file may have four blocks of 512 bytes, and whoever writes more is killed.
        let program = a.command(&export);
        let mut limited = Command::new("sh");
        limited
            .args(["-c", "ulimit -f 4; exec \"$0\" \"$@\""])
            .arg(program.get_program())
            .args(program.get_args());
        assert!(!limited.status().unwrap().success());
        assert!(!Path::new(&stream).exists());
        assert_eq!(a.state(NAME).as_deref(), Some("exported"));
        // A full disk, where it is not killed.
        let full = a.refused(&[command, &["/dev/full"]].concat());
        assert!(full.contains("No space left"), "{full}");
        a.ctl(&[command, &[&stream]].concat());
        if command[0] == "migrate" {
            assert_taken(&a, &b, &stream, &kept);
        } else {
            std::fs::remove_file(&stream).unwrap();
        }
    }
}
