//! Measures what a merge has to know of a whole tensor before it computes the first element.
//!
//! One tensor is measured at a time, by all workers that need it or one after it: each takes the next block of the
//! present pass, whichever worker needs the tensor. So no worker waits while there is something to do, and large tensors
//! are measured by all of them. What a block gives is stored by its number, so the order in which they come makes no
//! difference. Other workers write the windows of earlier tensors meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::merged::{blocks, mask_keys, without_mean};
use super::pieces::Collect;
use super::terms::Run;
use super::{Shared, Worker};
use crate::error::Result;
use crate::format::blocks::BLOCK;
use crate::numeric::methods::Recipe;
use crate::numeric::methods::measure::{Measure, Measured, Partial, Probe};

/// How long a worker waits before it looks whether the job is to stop.
const PATIENCE: Duration = Duration::from_millis(100);

/// What is measured, and by whom.
#[derive(Default)]
pub struct Measuring<'p> {
    state: Mutex<State<'p>>,
    changed: Condvar,
}

#[derive(Default)]
struct State<'p> {
    known: HashMap<usize, Arc<Measured>>,
    current: Option<Current<'p>>,
}

/// The tensor that is being measured.
struct Current<'p> {
    tensor: usize,
    recipe: &'p Recipe,
    measure: Measure,
    probe: Arc<Probe<'p>>,
    /// The blocks of the present pass that no worker has, last first.
    left: Vec<usize>,
}

/// One block for a worker.
struct Task<'p> {
    tensor: usize,
    block: usize,
    probe: Arc<Probe<'p>>,
}

impl<'p> Measuring<'p> {
    /// Takes over what an earlier run measured.
    pub fn recall(&self, measured: &[(u32, Vec<u8>)]) {
        let known =
            measured.iter().filter_map(|(tensor, bytes)| Some((*tensor as usize, Measured::from_bytes(bytes)?.into())));
        self.lock().known.extend(known);
    }

    /// What is known of a tensor.
    pub fn known(&self, tensor: usize) -> Option<Arc<Measured>> {
        self.lock().known.get(&tensor).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State<'p>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measures a tensor, unless it is known or there is nothing to measure.
pub(super) fn ensure<'p>(shared: &Shared<'p, '_>, tensor: usize, worker: &mut Worker<'p>) -> Result<()> {
    let layout = &shared.plan().layout;
    let this = &layout.tensors[tensor];
    let Some(recipe) = layout.recipe(this).filter(|recipe| recipe.is_measured(this.elements)) else { return Ok(()) };
    while let Some(task) = take(shared, tensor, recipe)? {
        let back = GiveBack(shared, task.tensor, task.block);
        let partial = block(shared, &task, worker)?;
        std::mem::forget(back);
        put(shared, &task, partial)?;
    }
    Ok(())
}

/// The next block for a worker that needs a tensor; `None` once that tensor is known.
fn take<'p>(shared: &Shared<'p, '_>, tensor: usize, recipe: &'p Recipe) -> Result<Option<Task<'p>>> {
    let mut state = shared.measuring.lock();
    loop {
        shared.control.check()?;
        if state.known.contains_key(&tensor) {
            return Ok(None);
        }
        if state.current.is_none() {
            state.current = Some(Current::new(shared, tensor, recipe)?);
        }
        if let Some(Current { tensor, probe, left, .. }) = &mut state.current
            && let Some(block) = left.pop()
        {
            return Ok(Some(Task { tensor: *tensor, block, probe: Arc::clone(probe) }));
        }
        state = shared.measuring.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Hands in what a block gave.
fn put<'p>(shared: &Shared<'p, '_>, task: &Task<'p>, partial: Partial) -> Result<()> {
    let mut state = shared.measuring.lock();
    let Some(mut current) = state.current.take() else { return Ok(()) };
    if current.measure.take(current.recipe, task.block, partial) {
        shared.measuring.changed.notify_all();
        if current.measure.pass().is_none() {
            state.known.insert(current.tensor, current.measure.known().into());
            return Ok(());
        }
        current = current.next_pass(shared)?;
    }
    state.current = Some(current);
    Ok(())
}

/// Gives the block of a worker that failed to the others, who must not wait for it.
struct GiveBack<'a, 'p, 's>(&'a Shared<'p, 's>, usize, usize);

impl Drop for GiveBack<'_, '_, '_> {
    fn drop(&mut self) {
        let Self(shared, tensor, block) = *self;
        if let Some(current) = shared.measuring.lock().current.as_mut().filter(|current| current.tensor == tensor) {
            current.left.push(block);
        }
        shared.measuring.changed.notify_all();
    }
}

impl<'p> Current<'p> {
    fn new(shared: &Shared<'p, '_>, tensor: usize, recipe: &'p Recipe) -> Result<Self> {
        let elements = shared.plan().layout.tensors[tensor].elements;
        let blocks = blocks(shared.plan(), tensor);
        let measure = Measure::new(recipe, elements, (blocks.end - blocks.start) as usize);
        let probe = probe(shared, tensor, recipe, &measure)?;
        let left = measure.visits().rev().collect();
        Ok(Self { tensor, recipe, measure, probe, left })
    }

    fn next_pass(self, shared: &Shared<'p, '_>) -> Result<Self> {
        let probe = probe(shared, self.tensor, self.recipe, &self.measure)?;
        let left = self.measure.visits().rev().collect();
        Ok(Self { probe, left, ..self })
    }
}

fn probe<'p>(shared: &Shared<'p, '_>, tensor: usize, recipe: &'p Recipe, measure: &Measure) -> Result<Arc<Probe<'p>>> {
    let plan = shared.plan();
    let probe = measure.probe(recipe, &mask_keys(plan, tensor, recipe));
    probe.map(Arc::new).map_err(|why| without_mean(plan, tensor, why))
}

/// Reads what a tensor has in a block, and does the present pass on it.
fn block<'p>(shared: &Shared<'p, '_>, task: &Task<'p>, worker: &mut Worker<'p>) -> Result<Partial> {
    let Worker { input, made, tools, gather, pieces, terms, .. } = worker;
    gather.clear(None);
    pieces.clear();
    terms.clear();
    let begin = (blocks(shared.plan(), task.tensor).start + task.block as u64) * BLOCK;
    let looked_up = HashMap::new();
    let mut collect =
        Collect { plans: &shared.plans, sources: Some(&shared.sources), gather, pieces, terms, looked_up };
    collect.tensor(0, task.tensor, 0, begin..begin + BLOCK, begin + BLOCK)?;
    let loaded = &gather.load(&shared.sources, input.bytes())?;
    let partial = shared.permits.run(|| {
        let mut partial = Partial::default();
        for piece in &*pieces {
            let mut run = Run::new(shared, piece, terms, loaded, made.bytes(), &mut tools.unpackers)?;
            run.measure(piece, &task.probe, &mut partial);
        }
        Ok(partial)
    })?;
    gather.release(&shared.sources)?;
    Ok(partial)
}
