//! What a manifest says about each tensor. The entries are made while they are written, one at a time.

use serde::ser::{Serialize, Serializer};

use crate::output::effect::{Again, Effect};
use crate::output::manifest::{self, Finished};
use crate::plan::Plan;
use crate::text::Name;

/// The tensors of the output, in the order of the layout.
pub struct Tensors<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The figures.
    pub finished: &'a Finished<'a>,
}

#[derive(serde::Serialize)]
struct Entry<'a> {
    name: &'a Name,
    dtype: &'static str,
    /// `combined`, `converted`, `copied` or `grafted`.
    action: &'static str,
    /// The role of the input that a grafted tensor comes from, or one that a merge copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alpha: Option<Alphas>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requantised: Option<Again>,
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Alphas {
    Short(Vec<f32>),
    /// With the digits that the number has in f64. The manifests of packed vectors have always had them.
    Long(Vec<f64>),
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Figures {
    All(Effect),
    /// Without the figures that no vector has, because only a target's rounding decides them: beside few changes, the
    /// description of many tensors would be long.
    OfVector {
        norm_v: Option<f64>,
        changed: Option<f64>,
        nonfinite_inputs: u64,
        overflowed: u64,
    },
}

impl Serialize for Tensors<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { plan, finished } = *self;
        let (base, packed) = (plan.inputs.base(), plan.layout.packed);
        let merged = plan.inputs.outline.is_some();
        let scaled = plan.inputs.origins.iter().any(|(_, alpha)| alpha.is_some());
        let figures = |effect: Effect| {
            let Effect { norm_v, changed, nonfinite_inputs, overflowed, .. } = effect;
            if packed {
                Figures::OfVector { norm_v, changed, nonfinite_inputs, overflowed }
            } else {
                Figures::All(effect)
            }
        };
        let requantised = finished.requantised.iter().map(Some).chain(std::iter::repeat(None));
        let tensors = plan.layout.tensors.iter().zip(finished.stats).zip(requantised);
        serializer.collect_seq(tensors.map(|((tensor, stats), again)| {
            Entry {
                name: &plan.inputs.outlined(tensor.tensor).name,
                dtype: if tensor.requantised { base.dtype_name(tensor.tensor) } else { tensor.dtype.name() },
                action: match (!tensor.is_combined(), plan.inputs.is_kept(tensor)) {
                    _ if tensor.from.input != 0 && !merged => "grafted",
                    (false, _) => "combined",
                    (true, false) => "converted",
                    (true, true) => "copied",
                },
                from: (if merged { !tensor.is_combined() } else { tensor.from.input != 0 })
                    .then(|| &*plan.inputs.list[tensor.from.input as usize].role),
                alpha: (scaled && !tensor.terms.is_empty()).then(|| {
                    let alphas = tensor.terms.iter().map(|term| term.alpha);
                    if packed { Alphas::Long(alphas.map(f64::from).collect()) } else { Alphas::Short(alphas.collect()) }
                }),
                effect: (stats.elements > 0).then(|| figures(manifest::of_tensor(plan, tensor, stats))),
                requantised: again
                    .filter(|found| found.plain.elements > 0)
                    .map(|found| manifest::of_requantised(plan, tensor, found)),
            }
        }))
    }
}

/// How many exceptions each tensor has.
pub struct ByTensor<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Tensors by their index in the layout.
    pub counts: &'a [(u32, u64)],
}

impl Serialize for ByTensor<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tensors = &self.plan.inputs.base().tensors;
        let name = |place: u32| &tensors[self.plan.layout.tensors[place as usize].tensor as usize].name;
        serializer.collect_map(self.counts.iter().map(|&(place, count)| (name(place), count)))
    }
}
