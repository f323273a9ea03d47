//! The values that `apply` and `transfer` would write, handed window by window to a consumer in memory.
//!
//! Plan, windows, arithmetic and figures are the same as in a job that writes files; only the destination differs.
//! Windows are delivered as they are finished, not in order, so the consumer has to put each where it belongs.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::control::Control;
use crate::engine::window::{self, Window};
pub use crate::engine::window::{Packet, Part};
use crate::engine::{arrivals, pool};
use crate::error::{Error, Result};
use crate::numeric::simd::Isa;
use crate::numeric::stats::Stats;
use crate::output::effect::Effect;
use crate::output::manifest;
use crate::plan::{Plan, layout};

/// The tensors of a plan in the order of the layout, as JSON: what a consumer needs to know about each.
pub fn tensors(plan: &Plan) -> Value {
    let base = plan.inputs.base();
    let entry = |tensor: &layout::TensorPlan| {
        let this = &base.tensors[tensor.tensor as usize];
        json!({
            "name": this.name,
            "dtype": tensor.dtype.name(),
            "shape": this.shape,
            // For a tied output head this is the embedding, whose bytes the head repeats.
            "base": plan.inputs.tensor(tensor.from).name,
            "combined": !tensor.terms.is_empty(),
        })
    };
    plan.layout.tensors.iter().map(entry).collect()
}

/// What [`Stream::next`] found.
#[derive(Debug)]
pub enum Next {
    /// A window; its packet goes back with [`Stream::give_back`].
    Window(Packet),
    /// No window was finished in the given time.
    Waiting,
    /// All windows were delivered, and the inputs did not change meanwhile. Holds the report, as JSON.
    End(Value),
}

/// A running job that delivers to one consumer. Dropping it stops the job.
#[derive(Debug)]
pub struct Stream {
    control: Arc<Control>,
    ends: Option<(Receiver<Packet>, Sender<Packet>)>,
    job: Option<JoinHandle<Result<Value>>>,
}

impl Stream {
    /// Starts a job. `wanted` says for each tensor of the layout whether its values are delivered.
    ///
    /// # Errors
    /// Inputs that do not fit together.
    pub fn start(plan: Plan, wanted: &[bool]) -> Result<Self> {
        plan.require_fit()?;
        if wanted.len() != plan.layout.tensors.len() {
            return Err(Error::Usage("`wanted` needs one flag for each tensor".into()));
        }
        let wanted: Arc<[bool]> = wanted.into();
        let control = Arc::new(Control::default());
        let (fill, filled) = mpsc::channel();
        let (free, empty) = mpsc::channel();
        for _ in 0..plan.budget.workers {
            // The receiver still exists, so sending cannot fail.
            let _ = free.send(Packet::new(Arc::clone(&wanted), plan.budget.window_blocks));
        }
        let job = {
            let control = Arc::clone(&control);
            thread::spawn(move || Job { plan: &plan, wanted: &wanted, control: &control }.run(empty, &fill))
        };
        Ok(Self { control, ends: Some((filled, free)), job: Some(job) })
    }

    /// The next window. Waits for it no longer than `patience`.
    ///
    /// # Errors
    /// Whatever stopped the job. The values that were delivered before must then not be used.
    pub fn next(&mut self, patience: Duration) -> Result<Next> {
        let Some((filled, _)) = &self.ends else { return Err(Error::Cancelled) };
        match filled.recv_timeout(patience) {
            Ok(packet) => Ok(Next::Window(packet)),
            Err(RecvTimeoutError::Timeout) => Ok(Next::Waiting),
            Err(RecvTimeoutError::Disconnected) => self.end().unwrap_or(Err(Error::Cancelled)).map(Next::End),
        }
    }

    /// Lets the job use a packet again.
    pub fn give_back(&self, packet: Packet) {
        if let Some((_, free)) = &self.ends {
            // Sending fails only if the job has ended, and then it does not need the packet.
            let _ = free.send(packet);
        }
    }

    /// Closes the channels, because the job may be waiting on them, and then waits for the job to end.
    fn end(&mut self) -> Option<Result<Value>> {
        self.control.stop();
        self.ends = None;
        match self.job.take()?.join() {
            Ok(outcome) => Some(outcome),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The outcome is dropped, because nobody is left to receive it. A panic has already been printed.
        self.control.stop();
        self.ends = None;
        if let Some(job) = self.job.take() {
            drop(job.join());
        }
    }
}

struct Job<'a> {
    plan: &'a Plan,
    wanted: &'a [bool],
    control: &'a Control,
}

impl<'p> Job<'p> {
    fn run(&self, empty: Receiver<Packet>, fill: &Sender<Packet>) -> Result<Value> {
        let Self { plan, control, .. } = *self;
        let windows: Vec<Window> = Window::all(plan).into_iter().filter(|&window| self.needs(window)).collect();
        arrivals::begin(&[plan], &windows)?;
        let shared = pool::open(&[plan], &windows, Isa::from_env()?, control)?;
        let empty = Mutex::new(empty);
        let mut stats = vec![Stats::default(); plan.layout.tensors.len()];
        let commit = |outcomes: Vec<window::Outcome>| {
            let blocks = outcomes.iter().flat_map(|outcome| &outcome.blocks);
            for (tensor, figures) in blocks.flat_map(|block| &block.stats) {
                stats[*tensor as usize].add(figures);
            }
            Ok(())
        };
        let work = |window, worker: &mut window::Worker<'p>| {
            // Fails if the consumer is gone; then the job ends.
            let packet = empty.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let mut packet = packet.map_err(|_| Error::Cancelled)?;
            let outcomes = window::compute(&shared, window, worker, &[0], Some(&mut packet))?;
            fill.send(packet).map_err(|_| Error::Cancelled)?;
            Ok(outcomes)
        };
        pool::run(&shared, &windows, control, work, commit)?;
        for input in &plan.inputs.list {
            input.checkpoint.unchanged()?;
        }
        Ok(report(plan, &stats))
    }

    /// Whether a window has values that are wanted, or values that count in the figures.
    fn needs(&self, window: Window) -> bool {
        let layout = &self.plan.layout;
        let file = &layout.files[window.file];
        let (begin, end) = window.range(file);
        layout.overlapping(file, begin, end).any(|place| self.wanted[place] || !layout.tensors[place].terms.is_empty())
    }
}

#[derive(Serialize)]
struct TensorEntry<'a> {
    name: &'a str,
    dtype: &'static str,
    alpha: Vec<f64>,
    #[serde(flatten)]
    effect: Effect,
}

/// The shortest decimal number that reads back as this f32, as in the manifest: 0.3, not 0.30000001192092896.
fn shortest(alpha: f32) -> f64 {
    alpha.to_string().parse().unwrap_or(f64::from(alpha))
}

fn report(plan: &Plan, stats: &[Stats]) -> Value {
    let base = plan.inputs.base();
    let combined = plan.layout.tensors.iter().zip(stats).filter(|(tensor, _)| !tensor.terms.is_empty());
    let tensors: Vec<TensorEntry> = combined
        .map(|(tensor, stats)| TensorEntry {
            name: &base.tensors[tensor.tensor as usize].name,
            dtype: tensor.dtype.name(),
            alpha: tensor.terms.iter().map(|term| shortest(term.alpha)).collect(),
            effect: manifest::of_tensor(plan, tensor, stats),
        })
        .collect();
    let effect = manifest::total(plan, stats);
    let mut warnings = effect.warnings(plan);
    if tensors.is_empty() {
        warnings.push("no tensor was combined: the model is the target without any vector".into());
    }
    json!({
        "schema": "taskvec/applied/1",
        "verb": plan.request.verb(),
        "effect": effect,
        "tensors": tensors,
        "notes": plan.notes,
        "warnings": warnings,
    })
}
