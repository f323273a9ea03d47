//! Several α in one read (`--alphas`): a plan for each. They share the opened inputs and the windows, and differ in the
//! factor alone.

use std::path::Path;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::numeric::stats::Stats;
use crate::plan::inputs::Request;
use crate::plan::layout::TensorPlan;
use crate::plan::options::{Alpha, Options};
use crate::plan::{Beside, Plan};

/// Bytes in memory that each further α takes for every tensor: its part of the plan and of the statistics.
const PER_TENSOR: usize = size_of::<TensorPlan>() + size_of::<Stats>();

/// How the names of a sweep's folders begin.
pub const SWEEP_FOLDER: &str = "alpha-";

impl Plan {
    /// The plans of a request for each of these factors, in their order. The request has one vector; its own factor does
    /// not count. Each plan is that of a run with this factor alone, but for the memory: every worker has an output
    /// buffer for each.
    ///
    /// # Errors
    /// As [`Plan::new`], and if the list of factors is empty or has one of them twice.
    pub fn sweep(request: &Request, alphas: &[Alpha], options: &Options, control: &Control) -> Result<Vec<Self>> {
        check(alphas)?;
        if let Request::Apply { vectors, .. } = request
            && vectors.len() > 1
        {
            return Err(Error::Usage(
                "--alphas works with one vector only; for several, run the command once for each α".into(),
            ));
        }
        let inputs = Self::open(request, options, control)?;
        let beside = Beside { outputs: alphas.len(), tensor: ((alphas.len() - 1) * PER_TENSOR) as u64, block: 0 };
        let plan = |alpha| Self::build(request.with_alpha(alpha), options.clone(), inputs.with_alpha(alpha), beside);
        // The smaller α is, the more tensors may get a factor of 0, and with it fewer bytes to read. So the memory for
        // the largest is enough for all.
        let largest = alphas.iter().max_by(|a, b| a.size().total_cmp(&b.size()));
        let budget = largest.map(plan).transpose()?.map(|plan| plan.budget);
        let shared = |plan: Self| Self { budget: budget.unwrap_or(plan.budget), ..plan };
        alphas.iter().map(|alpha| plan(alpha).map(shared)).collect()
    }

    /// The folder of this plan's output among those of a sweep. It has the factor as the user wrote it.
    pub fn sweep_folder(&self) -> String {
        let alpha = self.inputs.origins.iter().find_map(|(_, alpha)| alpha.as_ref());
        format!("{SWEEP_FOLDER}{}", alpha.map_or("", |alpha| &alpha.text))
    }
}

/// What a sweep would do, as [`Plan::to_json`] says it: with the figures of the plan that has the most to read.
///
/// # Errors
/// As [`Plan::to_json`], and if there is no plan.
pub fn to_json(plans: &[Plan], out: Option<&Path>) -> Result<String> {
    let widest = plans.iter().max_by_key(|plan| plan.read_bytes);
    widest.ok_or_else(|| Error::Usage("there is no plan to show".into()))?.to_json(out)
}

/// Refuses a list without a factor, and one that has a factor twice.
fn check(alphas: &[Alpha]) -> Result<()> {
    if alphas.is_empty() {
        return Err(Error::Usage("the list of alphas is empty; write it as 0.5,1".into()));
    }
    for (place, alpha) in alphas.iter().enumerate() {
        let same = |earlier: &&Alpha| earlier.value == alpha.value;
        if let Some(earlier) = alphas[..place].iter().find(same) {
            return Err(Error::Usage(format!(
                "alphas {} and {} are the same number in f32, in which the arithmetic is done; leave one of them out",
                earlier.text, alpha.text
            )));
        }
    }
    Ok(())
}
