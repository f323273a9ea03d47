//! Works out in advance what the windows of a job will read from its streamed inputs, so that it is fetched ahead of
//! them.

use crate::control::Control;
use crate::engine::gather::Sources;
use crate::engine::window::{Reads, Window};
use crate::error::Result;
use crate::plan::Plan;
use crate::source::lane::{Lane, Reading};
use crate::source::lanes::Lanes;

/// Opens the inputs that these plans share. `windows` are those that the job will compute, in this order.
pub fn sources<'p: 'a, 'a>(plans: &[&'p Plan], windows: &'a [Window], control: &'a Control) -> Result<Sources<'a>> {
    let plan = plans[0];
    let sources = Sources::open(&plan.inputs, plan.io, control)?;
    let checkpoints = || plan.inputs.list.iter().map(|input| &*input.checkpoint).enumerate();
    if !checkpoints().any(|(_, checkpoint)| checkpoint.place.streams()) {
        return Ok(sources);
    }
    let lane = |input: usize| {
        let mut reads = Reads::of(plans, windows);
        let schedule = move || {
            let Some((window, runs)) = reads.next()? else { return Ok(None) };
            let mine = runs.iter().filter(|run| run.input == input);
            let readings = mine.map(|run| Reading { shard: run.shard, begin: run.begin, end: run.end }).collect();
            Ok(Some((window.block, readings)))
        };
        Lane::new(Box::new(schedule), plan.budget.lane_chunks, control)
    };
    let lanes = checkpoints().map(|(input, this)| this.place.streams().then(|| (lane(input), this)));
    Ok(sources.with(Lanes::new(lanes.collect())))
}
