//! From parameters to the recipe of a tensor.

use super::Document;
use super::operands::{Base, Method};
use super::parameters::Setting;
use crate::error::{Error, Result};
use crate::numeric::methods::{Boost, Family, Formula, Member, Recipe, Sparse};

/// What is done for a tensor. Operands are places among the inputs.
#[derive(Clone, Debug)]
pub(super) enum Treatment {
    /// One input's values are taken as they are.
    Copy(usize),
    /// The operands, in the order of the recipe.
    Merge(Vec<usize>, Recipe),
    /// These inputs cannot be merged. The text completes "tensor …: …".
    Refuse(String),
}

/// What the recipe depends on, beside the parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Case {
    pub settings: usize,
    /// The inputs that take part.
    pub present: Vec<usize>,
    /// The length of the last axis.
    pub row: u64,
}

impl Document {
    /// What is done in a case.
    ///
    /// # Errors
    /// Parameters with values that they cannot have.
    pub(super) fn treatment(&self, case: &Case) -> Result<Treatment> {
        let setting = &self.settings[case.settings];
        let method = self.method;
        let based = match method.base() {
            Base::Model => false,
            Base::Needed => true,
            Base::Optional => self.base.is_some(),
        };
        let base = self.base.filter(|_| based);
        let models: Vec<usize> = case.present.iter().copied().filter(|&input| Some(input) != base).collect();
        let Some(&only) = case.present.first() else {
            return Ok(Treatment::Refuse("no input takes part in it".into()));
        };
        if let Some(base) = base.filter(|base| !case.present.contains(base)) {
            let single = matches!(method, Method::Slerp) && models.len() == 1;
            if single {
                return Ok(Treatment::Copy(only));
            }
            return Ok(Treatment::Refuse(format!("the {} lacks it, but {} needs it", self.role(base), method.name())));
        }
        // Nothing to add to the base.
        if models.is_empty() {
            return Ok(Treatment::Copy(only));
        }
        let formula = match method {
            Method::Linear => Formula::Linear {
                weights: models
                    .iter()
                    .map(|&model| setting.narrow("weight", setting.weight(model)?))
                    .collect::<Result<_>>()?,
                normalize: setting.flag("normalize", true)?,
            },
            Method::Passthrough if models.len() > 1 => {
                return Ok(Treatment::Refuse("passthrough takes it from one model, but several have it".into()));
            }
            Method::Passthrough => match setting.of(only, "scale")? {
                Some(scale) => Formula::Scaled(setting.narrow("scale", scale)?),
                None => return Ok(Treatment::Copy(only)),
            },
            Method::Slerp => Formula::Slerp { t: setting.narrow("t", setting.required("t")?)? },
            Method::Nearswap => Formula::Nearswap { t: setting.narrow("t", setting.required("t")?)? },
            Method::ModelStock if models.len() < 2 => {
                return Ok(Treatment::Refuse("only one model has it, and model_stock needs two".into()));
            }
            Method::ModelStock => Formula::ModelStock,
            Method::Ram | Method::RamplusTl => ram(setting, method)?,
            Method::Karcher => karcher(setting)?,
            Method::Multislerp => multislerp(setting, &models, based)?,
            Method::Nuslerp if models.len() == 1 && !based => return Ok(Treatment::Copy(only)),
            Method::Nuslerp if models.len() == 1 => {
                return Ok(Treatment::Refuse("only one model has it, and nuslerp needs two".into()));
            }
            Method::Nuslerp => nuslerp(setting, &models, based)?,
            Method::Sce => Formula::Sce { share: setting.narrow("select_topk", setting.number("select_topk", 1.0)?)? },
            _ => Formula::Family(family(setting, method, &models)?),
        };
        if let Formula::Linear { weights, normalize: true } = &formula
            && weights.iter().fold(0.0, |sum, weight| sum + weight) == 0.0
        {
            let what = "the weights of the inputs that have it add up to 0, so they cannot be normalised; change them, or set normalize to false";
            return Ok(Treatment::Refuse(what.into()));
        }
        let by_row = match &formula {
            Formula::Family(family) => {
                family.members.iter().any(|member| matches!(member.sparse, Sparse::DrawnByRank { .. }))
            }
            Formula::ModelStock => setting.flag("filter_wise", false)?,
            Formula::Nuslerp { .. } => !setting.flag("nuslerp_flatten", true)?,
            _ => false,
        };
        if by_row && case.row == 1 && matches!(formula, Formula::Family(_)) {
            let what = format!(
                "its rows have one element, and {} has no rank in a row of one; set density to 1 for it",
                method.name()
            );
            return Ok(Treatment::Refuse(what));
        }
        let operands: Vec<usize> = base.into_iter().chain(models).collect();
        let row = by_row.then_some(case.row);
        Ok(Treatment::Merge(operands.clone(), Recipe { formula, operands: operands.len(), row }))
    }
}

fn ram(setting: &Setting, method: Method) -> Result<Formula> {
    let epsilon = setting.number("epsilon", 1e-5)?;
    let boost = if method == Method::RamplusTl {
        Some(Boost { r: setting.number("r", 0.1)?, alpha: setting.number("alpha", 0.2)?, epsilon })
    } else {
        None
    };
    if epsilon < 0.0 || boost.is_some_and(|boost| boost.alpha < 0.0) {
        return Err(setting.usage("epsilon and alpha cannot be negative"));
    }
    Ok(Formula::Ram { epsilon: setting.narrow("epsilon", epsilon)?, boost })
}

fn karcher(setting: &Setting) -> Result<Formula> {
    let (steps, tolerance) = (setting.number("max_iter", 10.0)?, setting.number("tol", 1e-5)?);
    if steps.fract() != 0.0 || !(0.0..=1e6).contains(&steps) || tolerance < 0.0 {
        return Err(setting.usage("max_iter is a whole number from 0 to 1,000,000, and tol is not negative"));
    }
    Ok(Formula::Karcher { steps: steps as u32, tolerance })
}

fn multislerp(setting: &Setting, models: &[usize], base: bool) -> Result<Formula> {
    let mut weights = models.iter().map(|&model| setting.weight(model)).collect::<Result<Vec<_>>>()?;
    if setting.flag("normalize_weights", true)? {
        let sum = weights.iter().fold(0.0, |sum, weight| sum + weight);
        if sum == 0.0 {
            return Err(setting.usage("the weights add up to 0, so they cannot be normalised"));
        }
        weights.iter_mut().for_each(|weight| *weight /= sum);
    }
    let epsilon = setting.number("eps", 1e-8)?;
    if epsilon < 0.0 {
        return Err(setting.usage("eps cannot be negative"));
    }
    Ok(Formula::Multislerp { base, weights, epsilon })
}

fn nuslerp(setting: &Setting, models: &[usize], base: bool) -> Result<Formula> {
    let (first, second) = (setting.weight(models[0])?, setting.weight(models[1])?);
    if !setting.flag("nuslerp_flatten", true)? && setting.flag("nuslerp_row_wise", false)? {
        return Err(Error::Usage(
            "nuslerp_row_wise takes the columns of a matrix for its vectors, which would have to be read whole at once; leave it out (then vectors are rows), or leave nuslerp_flatten at true".into(),
        ));
    }
    let sum = first + second;
    Ok(Formula::Nuslerp { base, t: if sum.abs() < 1e-6 { 0.5 } else { second / sum } })
}

fn family(setting: &Setting, method: Method, models: &[usize]) -> Result<Family> {
    let normalize = matches!(method, Method::Ties | Method::Della);
    let rescale = matches!(method, Method::DareTies | Method::DareLinear | Method::Della | Method::DellaLinear);
    let election = matches!(method, Method::Ties | Method::DareTies | Method::Della | Method::BreadcrumbsTies);
    let member = |&model: &usize| {
        let density = setting.of(model, "density")?.unwrap_or(1.0);
        let weight = setting.narrow("weight", setting.weight(model)?)?;
        Ok(Member { weight, sparse: sparse(setting, method, model, density)? })
    };
    Ok(Family {
        members: models.iter().map(member).collect::<Result<_>>()?,
        election,
        normalize: setting.flag("normalize", normalize)?,
        rescale: setting.flag("rescale", rescale)?,
        lambda: setting.narrow("lambda", setting.number("lambda", 1.0)?)?,
    })
}

/// Which elements of a model's difference are kept. A density of 1 or more keeps all, whatever else is set.
fn sparse(setting: &Setting, method: Method, model: usize, density: f64) -> Result<Sparse> {
    if density >= 1.0 {
        return Ok(Sparse::All);
    }
    if density <= 0.0 {
        return Ok(Sparse::Nothing);
    }
    Ok(match method {
        Method::Ties => Sparse::Largest { density },
        Method::DareTies | Method::DareLinear => Sparse::Drawn { density: density as f32 },
        Method::Breadcrumbs | Method::BreadcrumbsTies => {
            let gamma = setting.of(model, "gamma")?.unwrap_or(0.01);
            if !(0.0..=1.0).contains(&gamma) {
                return Err(setting.usage(&format!("gamma has to be from 0 to 1, not {gamma}")));
            }
            Sparse::Band { density, gamma }
        }
        Method::Della | Method::DellaLinear => {
            let epsilon = setting.of(model, "epsilon")?.unwrap_or(0.15);
            if epsilon < 0.0 || density - epsilon <= 0.0 || density + epsilon >= 1.0 {
                return Err(setting.usage(&format!(
                    "epsilon cannot be negative, density − epsilon has to be above 0 and density + epsilon below 1, but density is {density} and epsilon {epsilon}"
                )));
            }
            Sparse::DrawnByRank { density, epsilon }
        }
        _ => Sparse::All,
    })
}
