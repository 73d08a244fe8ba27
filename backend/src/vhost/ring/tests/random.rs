//! Rings full of random descriptors.

use proptest::prelude::*;

use super::*;

/// An address, a length, flags and a next, each more often at an edge than anywhere.
fn descriptor() -> impl Strategy<Value = (u64, u32, u16, u16)> {
    let address = prop_oneof![
        4 => Just(IN),
        4 => Just(OUT),
        2 => Just(TABLE),
        1 => Just(USED),
        1 => Just(AVAIL),
        1 => Just(MEMORY as u64 - 4),
        1 => Just(u64::MAX - 4),
        1 => any::<u64>(),
    ];
    let len = prop_oneof![
        4 => 0u32..64,
        2 => Just(16u32 * u32::from(SIZE)),
        2 => Just(4096),
        1 => Just(4097),
        1 => any::<u32>(),
    ];
    let flags = prop_oneof![8 => 0u16..8, 1 => any::<u16>()];
    let next = prop_oneof![8 => 0..SIZE, 1 => any::<u16>()];
    (address, len, flags, next)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn every_chain_comes_back_used_or_the_ring_is_broken(
        table in prop::collection::vec(descriptor(), usize::from(SIZE)),
        heads in prop::collection::vec(prop_oneof![20 => 0..SIZE, 1 => any::<u16>()], 0..=usize::from(SIZE)),
        ahead in prop_oneof![20 => Just(0u16), 1 => any::<u16>()],
    ) {
        let memory = memory();
        let bench = Bench::new(&memory);
        for (index, (address, len, flags, next)) in (0..).zip(table) {
            let len = usize::try_from(len).unwrap();
            bench.descriptor(index, address, len, flags, next);
        }
        for head in &heads {
            bench.make_available(*head);
        }
        let available = bench.avail.idx().load().wrapping_add(ahead);
        bench.avail.idx().store(available);
        bench.queue.serve();

        // A response may have been written over the rings themselves; then the guest alone knows what it wants.
        let broken = bench.error.read().is_ok();
        let state = lock(&bench.parrot.state);
        let overwrote = bench.avail.idx().load() != available;
        if !broken && !overwrote {
            prop_assert_eq!(state.completed.len(), usize::from(available));
        }
        for (_, command) in &state.executed {
            prop_assert!((chain::HEADER_SIZE..=MAX_COMMAND_SIZE).contains(&command.len()));
        }
    }
}
