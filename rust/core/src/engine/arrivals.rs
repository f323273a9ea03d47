//! Starts downloads in the order in which the job will read the files. So it can work on the first files while the
//! others are still being downloaded.

use std::collections::HashSet;

use crate::engine::window::{Reads, Window};
use crate::error::Result;
use crate::plan::Plan;
use crate::plan::inputs::{Inputs, Origin};
use crate::plan::matching::SameBytes;

/// Starts to download every shard that the job will read: first for the comparison of tied heads, then for these
/// windows.
pub fn begin(plans: &[&Plan], windows: &[Window]) -> Result<()> {
    let plan = plans[0];
    let mut wanted = Wanted::of(&plan.inputs);
    for at in plan.same.iter().flat_map(|&SameBytes { head, embedding }| [head, embedding]) {
        wanted.add(at.input as usize, plan.inputs.tensor(at).shard as usize)?;
    }
    // Which exceptions a window needs is known only from the exceptions file itself, so all of it is downloaded.
    for (origin, _) in &plan.inputs.origins {
        if let &Origin::Vector { exceptions: Some(input), .. } = origin {
            let shards = plan.inputs.list[input as usize].checkpoint.shards.len();
            (0..shards).try_for_each(|shard| wanted.add(input as usize, shard))?;
        }
    }
    let mut reads = Reads::of(plans, windows);
    while wanted.left > 0
        && let Some((_, runs)) = reads.next()?
    {
        for run in runs {
            wanted.add(run.input, run.shard)?;
        }
    }
    Ok(())
}

/// The shards requested so far. Each is requested once.
pub struct Wanted<'a> {
    inputs: &'a Inputs,
    /// How many shards are not requested yet. At 0 the remaining windows need not be looked at.
    left: usize,
    seen: HashSet<(usize, usize)>,
}

impl<'a> Wanted<'a> {
    /// Starts with no shard requested.
    pub fn of(inputs: &'a Inputs) -> Self {
        let remote = inputs.list.iter().filter(|input| input.checkpoint.place.remote.is_some());
        let left = remote.map(|input| input.checkpoint.shards.len()).sum();
        Self { inputs, left, seen: HashSet::new() }
    }

    /// Starts to download a shard of an input, unless it is local, streamed, or requested already.
    pub fn add(&mut self, input: usize, shard: usize) -> Result<()> {
        let checkpoint = &self.inputs.list[input].checkpoint;
        if checkpoint.place.remote.is_none() || !self.seen.insert((input, shard)) {
            return Ok(());
        }
        self.left -= 1;
        checkpoint.shards[shard].want()
    }
}
