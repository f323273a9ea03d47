//! The order in which downloads begin: that in which a job will read, so that it can work on what came first while the
//! rest is on its way.

use std::collections::HashSet;

use crate::engine::window::{Reads, Window};
use crate::error::Result;
use crate::plan::Plan;
use crate::plan::inputs::{Inputs, Origin};
use crate::plan::matching::SameBytes;

/// Begins the downloads of every shard that the comparison before these windows, and then they, will read.
pub fn begin(plan: &Plan, windows: &[Window]) -> Result<()> {
    let mut wanted = Wanted::of(&plan.inputs);
    for at in plan.same.iter().flat_map(|&SameBytes { head, embedding }| [head, embedding]) {
        wanted.add(at.input as usize, plan.inputs.tensor(at).shard as usize)?;
    }
    // Which exceptions a window needs is looked up in the file itself.
    for (origin, _) in &plan.inputs.origins {
        if let &Origin::Vector { exceptions: Some(input), .. } = origin {
            let shards = plan.inputs.list[input as usize].checkpoint.shards.len();
            (0..shards).try_for_each(|shard| wanted.add(input as usize, shard))?;
        }
    }
    let mut reads = Reads::of(plan, windows);
    while wanted.left > 0
        && let Some((_, runs)) = reads.next()?
    {
        for run in runs {
            wanted.add(run.input, run.shard)?;
        }
    }
    Ok(())
}

/// Shards asked for so far; each is once.
pub struct Wanted<'a> {
    inputs: &'a Inputs,
    /// Shards that could still be asked for: when none is left, nobody needs to look further.
    left: usize,
    seen: HashSet<(usize, usize)>,
}

impl<'a> Wanted<'a> {
    /// None of the shards of these inputs yet.
    pub fn of(inputs: &'a Inputs) -> Self {
        let remote = inputs.list.iter().filter(|input| input.checkpoint.place.remote.is_some());
        let left = remote.map(|input| input.checkpoint.shards.len()).sum();
        Self { inputs, left, seen: HashSet::new() }
    }

    /// Begins to download a shard of an input, unless it is here, streamed, or asked for already.
    pub fn add(&mut self, input: usize, shard: usize) -> Result<()> {
        let checkpoint = &self.inputs.list[input].checkpoint;
        if checkpoint.place.remote.is_none() || !self.seen.insert((input, shard)) {
            return Ok(());
        }
        self.left -= 1;
        checkpoint.shards[shard].want()
    }
}
