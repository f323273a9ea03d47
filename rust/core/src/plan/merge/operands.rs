//! The merge methods by name, and which inputs each takes.

use crate::error::{Error, Result};
use crate::text::quote;

/// A merge method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are mergekit's own")]
pub enum Method {
    Linear,
    Passthrough,
    TaskArithmetic,
    Slerp,
    ModelStock,
    Ties,
    DareTies,
    DareLinear,
    Della,
    DellaLinear,
    Breadcrumbs,
    BreadcrumbsTies,
    Nearswap,
    Ram,
    RamplusTl,
    Karcher,
    Multislerp,
    Nuslerp,
    Sce,
}

const NAMES: [(&str, Method); 19] = [
    ("linear", Method::Linear),
    ("passthrough", Method::Passthrough),
    ("task_arithmetic", Method::TaskArithmetic),
    ("slerp", Method::Slerp),
    ("model_stock", Method::ModelStock),
    ("ties", Method::Ties),
    ("dare_ties", Method::DareTies),
    ("dare_linear", Method::DareLinear),
    ("della", Method::Della),
    ("della_linear", Method::DellaLinear),
    ("breadcrumbs", Method::Breadcrumbs),
    ("breadcrumbs_ties", Method::BreadcrumbsTies),
    ("nearswap", Method::Nearswap),
    ("ram", Method::Ram),
    ("ramplus_tl", Method::RamplusTl),
    ("karcher", Method::Karcher),
    ("multislerp", Method::Multislerp),
    ("nuslerp", Method::Nuslerp),
    ("sce", Method::Sce),
];

/// What a method does with a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// It needs one.
    Needed,
    /// It computes with differences if there is one.
    Optional,
    /// A base is one more model.
    Model,
}

impl Method {
    /// The method of this name.
    pub(super) fn parse(name: &str) -> Result<Self> {
        if let Some((_, method)) = NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(*method);
        }
        Err(Error::Usage(if name == "arcee_fusion" {
            "arcee_fusion is not offered: it keeps what is above quantiles of a random sample in large tensors, so no second run gives the same; use ties or breadcrumbs".into()
        } else {
            let names = NAMES.map(|(name, _)| name).join(", ");
            format!("there is no merge method {}; there are {names}", quote(name))
        }))
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        NAMES.iter().find(|(_, method)| *method == self).map_or("", |(name, _)| name)
    }

    /// What it does with a base.
    pub(super) const fn base(self) -> Base {
        match self {
            Self::Linear | Self::Passthrough | Self::Karcher => Base::Model,
            Self::Multislerp | Self::Nuslerp => Base::Optional,
            _ => Base::Needed,
        }
    }

    /// The fewest and the most models that it takes, beside a base.
    const fn models(self) -> (usize, usize) {
        match self {
            // Slices may take each layer from another model.
            Self::Linear | Self::Karcher | Self::Multislerp | Self::Passthrough => (1, usize::MAX),
            Self::Slerp | Self::Nearswap => (1, 1),
            Self::Nuslerp => (2, 2),
            Self::ModelStock => (2, usize::MAX),
            _ => (0, usize::MAX),
        }
    }

    /// Refuses inputs that the method cannot take.
    pub(super) fn require(self, inputs: usize, base: Option<usize>) -> Result<()> {
        let name = self.name();
        if self.base() == Base::Needed && base.is_none() {
            return Err(Error::Usage(format!("{name} needs a base model; name one")));
        }
        let models = if self.base() == Base::Model { inputs } else { inputs - usize::from(base.is_some()) };
        let (least, most) = self.models();
        if models < least || models > most {
            let wanted = match (least, most) {
                (least, usize::MAX) => format!("at least {least}"),
                (least, _) => format!("exactly {least}"),
            };
            let beside = if self.base() == Base::Model { "" } else { " beside the base" };
            return Err(Error::Usage(format!("{name} takes {wanted} model(s){beside}, not {models}")));
        }
        Ok(())
    }
}
