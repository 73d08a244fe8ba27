//! The few steps of an episode that lead to a difference.

use crate::run::{Config, Finding, episode};
use crate::world::Common;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to look.
const PATIENCE: Duration = Duration::from_secs(20);

/// Leaves out steps as long as the same difference is found without them, and keeps the log of the shortest episode.
pub fn shrink(config: &Config, common: &Arc<Common>, finding: &mut Finding) {
    let deadline = Instant::now() + PATIENCE;
    let last = finding.difference.step;
    let mut steps: Vec<usize> = (0..last).collect();
    let (wanted, number) = (finding.difference.clone(), finding.episode);
    let try_with = |steps: &[usize]| {
        let w = episode(config, common, number, steps).ok()?;
        let d = w.differences.iter().find(|d| d.resembles(&wanted))?;
        let log = w.log[..d.at].to_vec();
        Some((d.clone(), log))
    };
    let mut size = steps.len() / 2;
    while size >= 1 {
        let mut at = 0;
        while at < steps.len().saturating_sub(1) {
            if Instant::now() > deadline {
                return;
            }
            let end = (at + size).min(steps.len() - 1);
            let fewer = [&steps[..at], &steps[end..]].concat();
            if let Some((difference, log)) = try_with(&fewer) {
                steps = fewer;
                finding.difference = difference;
                finding.log = log;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
}
