//! What each of a list of α would do after rounding, in one read of the inputs; nothing is written.

use serde::Serialize;
use serde_json::Value;

use crate::control::{Control, Phase};
use crate::engine::window::{self, Variant, Window, Worker};
use crate::engine::{arrivals, pool};
use crate::error::{Error, Result};
use crate::numeric::dtype::Float;
use crate::numeric::simd::Isa;
use crate::numeric::stats::Stats;
use crate::output::effect::{Effect, Sum};
use crate::plan::inputs::Request;
use crate::plan::layout::TensorPlan;
use crate::plan::options::{Alpha, Options, RoundingMode};
use crate::plan::{Plan, document};

/// The answer (`taskvec/advice/1`); `python/taskvec/advice.py` reads it.
#[derive(Serialize)]
struct Advice<'a> {
    schema: &'static str,
    inputs: Vec<Input<'a>>,
    dtype: Option<&'static str>,
    /// Of the stochastic rounding.
    seed: u64,
    variants: Vec<Entry<'a>>,
    notes: &'a [String],
    warnings: &'a [String],
}

/// A folder that was read.
#[derive(Serialize)]
struct Input<'a> {
    role: &'a str,
    name: &'a str,
}

/// One α with one rounding.
#[derive(Serialize)]
struct Entry<'a> {
    alpha: &'a str,
    rounding: &'static str,
    /// Of all tensors: the figures that the manifest of such a run would have.
    effect: Effect,
    groups: Vec<Group>,
}

/// The part of a model that some tensors belong to.
#[derive(Serialize)]
struct Group {
    name: &'static str,
    tensors: usize,
    effect: Effect,
}

/// Computes the figures of every α, rounded to nearest and stochastically. The request has one vector, with α = 1.
///
/// # Errors
/// Inputs that do not fit together, an α of 0, whatever stops the reading.
pub fn run(request: Request, options: Options, alphas: &[Alpha], control: &Control) -> Result<Value> {
    if let Some(alpha) = alphas.iter().find(|alpha| alpha.value == 0.0) {
        return Err(Error::Usage(format!("alpha {} changes nothing; leave it out of the list", alpha.text)));
    }
    // Each α may be tried with both roundings.
    let plan = Plan::survey(request, options, 2 * alphas.len(), control)?;
    plan.require_fit()?;
    advise(&plan, alphas, control)
}

fn advise<'a>(plan: &'a Plan, alphas: &'a [Alpha], control: &Control) -> Result<Value> {
    let rounded =
        plan.layout.tensors.iter().any(|tensor| !tensor.terms.is_empty() && tensor.dtype != Float::F32.dtype());
    let modes = [Some(RoundingMode::Nearest), rounded.then_some(RoundingMode::Stochastic)];
    let variants: Vec<(&'a Alpha, Variant)> = alphas
        .iter()
        .flat_map(|alpha| modes.into_iter().flatten().map(move |rounding| (alpha, rounding)))
        .map(|(alpha, rounding)| (alpha, Variant { alpha: alpha.value, rounding }))
        .collect();
    let figures = survey(plan, &variants.iter().map(|(_, variant)| *variant).collect::<Vec<_>>(), control)?;
    let entry = |(at, &(alpha, variant)): (usize, &(&'a Alpha, Variant))| {
        let effect = |tensors: &[usize]| {
            let mut sum = Sum::default();
            for &tensor in tensors {
                // A tensor without a term only changes its type.
                let alpha = if plan.layout.tensors[tensor].terms.is_empty() { 1.0 } else { variant.alpha };
                sum.add(&figures[tensor][at], Some(alpha));
            }
            sum.effect()
        };
        let counted: Vec<usize> = (0..figures.len()).filter(|&tensor| figures[tensor][at].elements > 0).collect();
        let group = |name: &&'static str| {
            let members: Vec<usize> = counted.iter().copied().filter(|&at| group(plan, at) == *name).collect();
            (!members.is_empty()).then(|| Group { name, tensors: members.len(), effect: effect(&members) })
        };
        let rounding = if variant.rounding == RoundingMode::Nearest { "nearest" } else { "stochastic" };
        Entry {
            alpha: &alpha.text,
            rounding,
            effect: effect(&counted),
            groups: GROUPS.iter().filter_map(group).collect(),
        }
    };
    let advice = Advice {
        schema: "taskvec/advice/1",
        inputs: plan
            .inputs
            .list
            .iter()
            .map(|input| Input { role: &input.role, name: &input.checkpoint.label })
            .collect(),
        dtype: plan.options.dtype.map(|float| float.dtype().name()),
        seed: plan.options.seed,
        variants: variants.iter().enumerate().map(entry).collect(),
        notes: &plan.notes,
        warnings: &plan.warnings,
    };
    document::to_value(&advice)
}

/// Figures by tensor of the layout and by variant.
fn survey<'p>(plan: &'p Plan, variants: &[Variant], control: &Control) -> Result<Vec<Vec<Stats>>> {
    let tensors = &plan.layout.tensors;
    let touched =
        |tensor: &TensorPlan| !tensor.terms.is_empty() || tensor.dtype != plan.inputs.tensor(tensor.from).dtype;
    let range = |window: &Window| window.range(&plan.layout.files[window.file]);
    let needed = |window: &Window| {
        let (begin, end) = range(window);
        plan.layout.overlapping(&plan.layout.files[window.file], begin, end).any(|place| touched(&tensors[place]))
    };
    let windows: Vec<Window> = Window::all(plan).into_iter().filter(needed).collect();
    arrivals::begin(&[plan], &windows)?;
    let shared = pool::open(&[plan], &windows, Isa::from_env()?, control)?;
    let size = |window: &Window| range(window).1 - range(window).0;
    control.begin(Phase::Reading, windows.iter().map(size).sum());
    let work = |window: Window, worker: &mut Worker<'p>| {
        let found = window::survey(&shared, window, worker, variants)?;
        control.add(size(&window));
        Ok(found)
    };
    let mut figures = vec![vec![Stats::default(); variants.len()]; tensors.len()];
    let commit = |found: Vec<(u32, Vec<Stats>)>| {
        for (tensor, more) in found {
            figures[tensor as usize].iter_mut().zip(&more).for_each(|(sum, more)| sum.add(more));
        }
        Ok(())
    };
    pool::run(&shared, &windows, control, work, commit)?;
    for input in &plan.inputs.list {
        input.checkpoint.unchanged()?;
    }
    Ok(figures)
}

const GROUPS: [&str; 6] = ["embedding", "attention", "mlp", "norm", "head", "other"];

/// The group of a tensor, by what its name says.
fn group(plan: &Plan, tensor: usize) -> &'static str {
    const SIGNS: [(&str, &[&str]); 5] = [
        ("norm", &["norm", ".ln_"]),
        ("attention", &["attn", "attention"]),
        ("mlp", &["mlp", "experts", "feed_forward", "ffn"]),
        ("embedding", &["embed", "wte", "wpe"]),
        ("head", &["lm_head", "output.weight", "score."]),
    ];
    let place = plan.layout.tensors[tensor].tensor as usize;
    let name = plan.inputs.base().tensors[place].name.to_lowercase();
    SIGNS.iter().find(|(_, signs)| signs.iter().any(|sign| name.contains(sign))).map_or("other", |(group, _)| group)
}
