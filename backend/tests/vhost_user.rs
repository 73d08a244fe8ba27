//! The whole front door, spoken to by the front end of the `vhost` crate.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test stops where something is not as it should be"
)]

mod common;

use std::sync::Arc;

use common::{Guest, Qemu, Toy, command, toy_response};
use vtpm_backend::vhost::{FrontDoor, Options};

fn door(toy: &Arc<Toy>) -> (tempfile::TempDir, std::path::PathBuf, FrontDoor) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("vtpm.sock");
    let door = FrontDoor::bind(&socket, toy.clone(), Options::new("test")).unwrap();
    (dir, socket, door)
}

#[test]
fn executes_commands_in_order() {
    let toy = Toy::new();
    let (_dir, socket, _door) = door(&toy);
    let (guest, mut qemu) = (Guest::new(), Qemu::connect(&socket));
    qemu.start(&guest, 0);
    for n in 0..40 {
        let command = command(12 + usize::from(n), n);
        assert_eq!(qemu.run(&guest, &command), toy_response(&command));
    }
    let slots: Vec<u16> = toy.with(|s| s.executed.iter().map(|e| e.0.unwrap()).collect());
    assert_eq!(slots, (0..40).collect::<Vec<_>>());
    assert_eq!(toy.with(|s| s.completed.clone()), slots);
}
