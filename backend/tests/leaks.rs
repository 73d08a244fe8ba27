//! What connections leave behind. A program of its own, because it counts what the whole process has open.

mod common;

use common::{Fixture, wait_for, works};

#[test]
fn a_hundred_connections_leave_no_descriptor_thread_or_mapping_behind() {
    let count = |dir: &str| std::fs::read_dir(dir).unwrap().count();
    let guests = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("(deleted)").count();
    let f = Fixture::new();
    let open = || (count("/proc/self/fd"), count("/proc/self/task"), guests());
    let before = open();
    for _ in 0..100 {
        let (guest, qemu) = f.guest();
        works(&guest, &qemu);
    }
    wait_for("end of the last connection", || !f.door.is_connected());
    wait_for("return to what was open before", || open() == before);
}
