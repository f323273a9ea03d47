//! The parameters of a method: which it knows, their defaults, and what values they may have.

use serde_json::{Map, Value};

use super::operands::{Base, Method};
use crate::error::{Error, Result};
use crate::text::quote;

/// One set of parameters.
#[derive(Debug)]
pub(super) struct Setting {
    shared: Map<String, Value>,
    each: Vec<Map<String, Value>>,
    method: Method,
}

/// The parameters that a method shares among its inputs, and those that each input has.
const fn known(method: Method) -> (&'static [&'static str], &'static [&'static str]) {
    match method {
        Method::Linear => (&["normalize"], &["weight"]),
        Method::Passthrough => (&[], &["scale"]),
        Method::TaskArithmetic => (&["normalize", "lambda"], &["weight"]),
        Method::Slerp | Method::Nearswap => (&["t"], &[]),
        Method::ModelStock => (&["filter_wise"], &[]),
        Method::Ties | Method::DareTies | Method::DareLinear => {
            (&["normalize", "rescale", "lambda"], &["weight", "density"])
        }
        Method::Della | Method::DellaLinear => (&["normalize", "rescale", "lambda"], &["weight", "density", "epsilon"]),
        Method::Breadcrumbs | Method::BreadcrumbsTies => {
            (&["normalize", "rescale", "lambda"], &["weight", "density", "gamma"])
        }
        Method::Ram => (&["epsilon"], &[]),
        Method::RamplusTl => (&["epsilon", "r", "alpha"], &[]),
        Method::Karcher => (&["max_iter", "tol"], &[]),
        Method::Multislerp => (&["normalize_weights", "eps"], &["weight"]),
        Method::Nuslerp => (&["nuslerp_flatten", "nuslerp_row_wise"], &["weight"]),
        Method::Sce => (&["select_topk"], &[]),
    }
}

impl Setting {
    /// Takes the parameters over, once all of them are known to the method. What is given for a base that has none is
    /// ignored.
    pub fn new(
        method: Method,
        base: Option<usize>,
        shared: &Map<String, Value>,
        each: &[Option<Map<String, Value>>],
    ) -> Result<Self> {
        let (of_all, of_each) = known(method);
        let name = method.name();
        let check =
            |given: &Map<String, Value>, known: &[&str]| match given.keys().find(|key| !known.contains(&&***key)) {
                Some(key) => Err(Error::Usage(format!("{name} has no parameter {} here", quote(key)))),
                None => Ok(()),
            };
        check(shared, of_all)?;
        let one = |(input, given): (usize, &Option<Map<String, Value>>)| {
            if base == Some(input) && method.base() != Base::Model {
                return Ok(Map::new());
            }
            let given = given.clone().unwrap_or_default();
            check(&given, of_each)?;
            Ok(given)
        };
        let each = each.iter().enumerate().map(one).collect::<Result<_>>()?;
        Ok(Self { shared: shared.clone(), each, method })
    }

    fn number_in(&self, given: &Map<String, Value>, name: &str) -> Result<Option<f64>> {
        match given.get(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.usage(&format!("{name} has to be a number, not {value}"))),
            },
        }
    }

    /// A number that all inputs share.
    pub fn number(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.number_in(&self.shared, name)?.unwrap_or(default))
    }

    /// A number that all inputs share, and that has no default.
    pub fn required(&self, name: &str) -> Result<f64> {
        self.number_in(&self.shared, name)?.ok_or_else(|| self.missing(name))
    }

    /// A flag that all inputs share.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.shared.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.usage(&format!("{name} has to be true or false, not {other}"))),
        }
    }

    /// A number of an input.
    pub fn of(&self, input: usize, name: &str) -> Result<Option<f64>> {
        self.number_in(&self.each[input], name)
    }

    /// The weight of an input, which has no default.
    pub fn weight(&self, input: usize) -> Result<f64> {
        self.of(input, "weight")?.ok_or_else(|| self.missing("weight"))
    }

    fn missing(&self, name: &str) -> Error {
        self.usage(&format!("{name} is missing"))
    }

    /// An error about the parameters.
    pub fn usage(&self, what: &str) -> Error {
        Error::Usage(format!("{}: {what}", self.method.name()))
    }

    /// A parameter as it is used: rounded to f32.
    pub fn narrow(&self, name: &str, value: f64) -> Result<f32> {
        let narrow = value as f32;
        if narrow.is_finite() { Ok(narrow) } else { Err(self.usage(&format!("{name} {value} is too large"))) }
    }
}
