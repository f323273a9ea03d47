//! The effect of a run in figures that a user can read: how much of the requested change is left after rounding.

use serde::{Deserialize, Serialize};

use crate::codec::scaled::encode::Requantised;
use crate::numeric::stats::Stats;
use crate::plan::{NOTHING, Plan};

/// Figures of one tensor or of a whole run, over finite elements. A ratio is null if its denominator is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// ‖v‖; null where several vectors were applied.
    pub norm_v: Option<f64>,
    /// ‖α·v‖, or of the sum of several.
    pub norm_requested: Option<f64>,
    /// ‖e‖ with e = output − target.
    pub norm_effective: Option<f64>,
    /// ⟨e, α·v⟩ / ‖α·v‖²: 1 if rounding lost nothing along v.
    pub gain: Option<f64>,
    /// The cosine between e and α·v.
    pub cosine: Option<f64>,
    /// Fraction of the elements whose output differs from the rounded target.
    pub changed: Option<f64>,
    /// Of the elements with α·v ≠ 0, the fraction whose output differs from the rounded target.
    pub survival: Option<f64>,
    /// Of ‖v‖², or with several vectors of that of their sum, the share that is at most noise of the grids of
    /// quantised donors; null without such donors.
    pub grid_noise: Option<f64>,
    /// Elements with Inf or NaN in an input.
    pub nonfinite_inputs: u64,
    /// Elements that became Inf or NaN from finite inputs.
    pub overflowed: u64,
}

/// Sums over tensors, each scaled by its own factor α.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    stats: Stats,
    requested2: f64,
    noise2: f64,
    product: f64,
    several: bool,
}

impl Sum {
    /// Adds a tensor. `alpha` is its factor if one vector was applied. With several vectors it is `None`, and the
    /// figures are those of their sum.
    pub fn add(&mut self, stats: &Stats, alpha: Option<f32>) {
        self.several |= alpha.is_none();
        let alpha = f64::from(alpha.unwrap_or(1.0));
        self.stats.add(stats);
        self.requested2 += alpha * alpha * stats.v2;
        self.noise2 += alpha * alpha * stats.noise2;
        self.product += alpha * stats.ev;
    }

    /// The figures of an extracted vector. There is no target, so most figures are null.
    pub fn of_vector(&self) -> Effect {
        let Stats { elements, changed, nonfinite_inputs, overflowed, v2, .. } = self.stats;
        let (changed, grid_noise) = (ratio(changed as f64, elements as f64), self.noise());
        Effect { norm_v: Some(v2.sqrt()), changed, grid_noise, nonfinite_inputs, overflowed, ..Effect::default() }
    }

    /// The figures.
    pub fn effect(&self) -> Effect {
        let Stats { elements, changed, requested, survived, nonfinite_inputs, overflowed, v2, e2, .. } = self.stats;
        Effect {
            norm_v: (!self.several).then(|| v2.sqrt()),
            norm_requested: Some(self.requested2.sqrt()),
            norm_effective: Some(e2.sqrt()),
            gain: ratio(self.product, self.requested2),
            cosine: ratio(self.product, (e2.sqrt()) * self.requested2.sqrt()),
            changed: ratio(changed as f64, elements as f64),
            survival: ratio(survived as f64, requested as f64),
            grid_noise: self.noise(),
            nonfinite_inputs,
            overflowed,
        }
    }

    fn noise(&self) -> Option<f64> {
        ratio(self.noise2, self.requested2).filter(|&share| share > 0.0)
    }
}

/// What quantising again did to one tensor or to a whole run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Again {
    /// Fraction of the codes that differ from the target's.
    pub codes_changed: Option<f64>,
    /// Blocks that kept codes and scale, because nothing changed in them.
    pub blocks_copied: u64,
    /// Blocks with changes that kept their scale.
    pub blocks_kept: u64,
    /// Blocks with another scale.
    pub blocks_rescaled: u64,
    /// Elements whose value was too large for the largest code.
    pub saturated: u64,
    /// The figures that bf16 output of the same request would have had.
    pub bf16: Effect,
}

impl Again {
    /// The figures of one tensor, or of several whose factors are in `sum`: that of bf16 output.
    pub fn new(found: &Requantised, sum: &Sum) -> Self {
        Self {
            codes_changed: ratio(found.codes as f64, found.plain.elements as f64),
            blocks_copied: found.copied,
            blocks_kept: found.kept,
            blocks_rescaled: found.rescaled,
            saturated: found.saturated,
            bf16: sum.effect(),
        }
    }

    /// What the user should know, whatever the figures: codes of few bits keep little of a small change.
    pub fn warning(&self, effect: &Effect) -> String {
        let show = |figure: Option<f64>| figure.map_or("none".into(), |figure| format!("{figure:.3}"));
        format!(
            "the output is quantised again: gain {} and cosine {} are left of the vector, where bf16 output (without --requantise) would have kept gain {} and cosine {}",
            show(effect.gain),
            show(effect.cosine),
            show(self.bf16.gain),
            show(self.bf16.cosine)
        )
    }
}

fn ratio(above: f64, below: f64) -> Option<f64> {
    (below > 0.0).then(|| above / below)
}

/// How far the effective gain may differ from 1 before the user is warned.
const GAIN_TOLERANCE: f64 = 0.05;

impl Effect {
    /// What the user should know before trusting the output of a run.
    pub fn warnings(&self, plan: &Plan) -> Vec<String> {
        let mut warnings = plan.warnings.clone();
        // Norms are of finite elements: where some are not, a norm of 0 does not mean that v is 0.
        if plan.counts.combined > 0 && self.nonfinite_inputs == 0 && self.overflowed == 0 {
            match (self.norm_v, self.norm_requested) {
                // Where the plan could tell (both donors are the same file, or the vector says so), it has warned
                // already.
                (Some(0.0), _) if warnings.is_empty() => warnings.push(NOTHING.into()),
                (None, Some(0.0)) if plan.request.document().is_some() => {
                    warnings.push("the merge changes nothing: its result is the base, or the first model".into());
                }
                (None, Some(0.0)) => warnings.push("the vectors add up to 0 everywhere, so nothing changes".into()),
                _ => {}
            }
        }
        // Of values that are quantised again, another warning tells the gain.
        let rounded = plan.options.requantise.is_none();
        if let Some(gain) = self.gain.filter(|gain| rounded && (gain - 1.0).abs() > GAIN_TOLERANCE) {
            warnings.push(format!(
                "because of rounding, the effective gain along the {} is {gain:.3} instead of 1; use --rounding stochastic or --dtype f32 to preserve it",
                if plan.request.document().is_some() { "change that the merge makes" } else { "vector" }
            ));
        }
        if let Some(share) = self.grid_noise {
            warnings.push(format!(
                "donors are quantised: up to {:.0} % of the vector's squared norm is rounding noise of their formats, not something that was learnt; take unquantised donors if there are any",
                share * 100.0
            ));
        }
        if self.nonfinite_inputs > 0 {
            warnings.push(format!(
                "{} element(s) are Inf or NaN in an input; the manifest says in which tensors",
                self.nonfinite_inputs
            ));
        }
        if self.overflowed > 0 {
            warnings.push(format!(
                "{} element(s) overflowed to Inf or NaN; the manifest says in which tensors",
                self.overflowed
            ));
        }
        warnings
    }
}
