//! Progress: from every world that can be reached, one can be reached in which all is settled, if everybody does his part from there
//! on. `eventually` of the checker asks that every path gets there, also those in which the network loses all messages for ever.

use std::collections::HashMap;
use std::sync::Arc;

use stateright::Model;

use super::{Protocol, World};

/// What came of looking for progress.
pub(super) struct Progress {
    pub(super) worlds: usize,
    pub(super) steps: usize,
    /// How many worlds meet the goal themselves.
    pub(super) settled: usize,
    /// A world from which the goal is out of reach.
    pub(super) stuck: Option<World>,
}

/// Builds the graph of all worlds, and goes back in it from those that meet the goal.
pub(super) fn progress(model: &Protocol, goal: impl Fn(&World) -> bool) -> Progress {
    let mut numbers: HashMap<Arc<World>, u32> = HashMap::new();
    let mut worlds: Vec<Arc<World>> = Vec::new();
    let mut back: Vec<(u32, u32)> = Vec::new();
    let mut number_of = |world: World, worlds: &mut Vec<Arc<World>>| {
        if let Some(&number) = numbers.get(&world) {
            return number;
        }
        let (number, world) = (u32::try_from(worlds.len()).unwrap(), Arc::new(world));
        numbers.insert(world.clone(), number);
        worlds.push(world);
        number
    };
    for world in model.init_states() {
        number_of(world, &mut worlds);
    }
    let (mut at, mut steps, mut actions) = (0, 0, Vec::new());
    while at < worlds.len() {
        let world = worlds[at].clone();
        model.actions(&world, &mut actions);
        for action in actions.drain(..) {
            if let Some(next) = model.next_state(&world, action) {
                steps += 1;
                let next = number_of(next, &mut worlds);
                if Protocol::is_fair(&action) {
                    back.push((next, u32::try_from(at).unwrap()));
                }
            }
        }
        at += 1;
    }
    back.sort_unstable();
    let mut reaches = vec![false; worlds.len()];
    let mut queue = Vec::new();
    for (number, world) in worlds.iter().enumerate() {
        if goal(world) {
            reaches[number] = true;
            queue.push(u32::try_from(number).unwrap());
        }
    }
    let settled = queue.len();
    while let Some(to) = queue.pop() {
        let start = back.partition_point(|&(t, _)| t < to);
        for &(_, from) in back[start..].iter().take_while(|&&(t, _)| t == to) {
            let from_at = usize::try_from(from).unwrap();
            if !reaches[from_at] {
                reaches[from_at] = true;
                queue.push(from);
            }
        }
    }
    let stuck = reaches.iter().position(|reached| !reached).map(|at| (*worlds[at]).clone());
    Progress { worlds: worlds.len(), steps, settled, stuck }
}
