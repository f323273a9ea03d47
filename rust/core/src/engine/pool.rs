//! Opens a job's inputs, and works on its windows with as many workers as the budget allows.

use crate::control::Control;
use crate::engine::window::packing::Palettes;
use crate::engine::window::{Measuring, Shared, Window, Worker};
use crate::engine::{schedule, tied_heads};
use crate::error::Result;
use crate::numeric::simd::Isa;
use crate::plan::Plan;
use crate::system::parallel::{Permits, ordered};

/// Opens the inputs for these windows, and compares the tensors that the plans take for equal. The plans share their
/// inputs and windows.
///
/// # Errors
/// An input that cannot be opened, or tensors that differ.
pub fn open<'p: 'a, 'a>(
    plans: &[&'p Plan],
    windows: &'a [Window],
    isa: Isa,
    control: &'a Control,
) -> Result<Shared<'p, 'a>> {
    let plan = plans[0];
    let sources = schedule::sources(plans, windows, control)?;
    tied_heads::compare(plan, &sources, isa, control)?;
    let (permits, palettes) = (Permits::new(plan.budget.threads), Palettes::new(plan));
    let measuring = Measuring::default();
    Ok(Shared { plans: plans.to_vec(), sources, isa, permits, palettes, measuring, control })
}

/// Does `work` on every window, several at a time, and hands the outcomes to `commit` in the order of the windows.
///
/// # Errors
/// The first error of either, or the wish to stop.
pub fn run<'p, T: Send>(
    shared: &Shared<'p, '_>,
    windows: &[Window],
    control: &Control,
    work: impl Fn(Window, &mut Worker<'p>) -> Result<T> + Sync,
    mut commit: impl FnMut(T) -> Result<()> + Send,
) -> Result<()> {
    let budget = &shared.plan().budget;
    let count = windows.len() as u64;
    let item = |item: u64, worker: &mut Worker<'p>| work(windows[item as usize], worker);
    shared
        .sources
        .serve(|| ordered(control, budget.workers, count, || Worker::new(budget), item, |_, outcome| commit(outcome)))
}
