//! How two checkpoints differ, tensor by tensor.

use serde_json::{Map, Value, json};

use crate::checkpoint::open;
use crate::control::{Control, Phase};
use crate::engine::arrivals::Wanted;
use crate::engine::gather::Sources;
use crate::engine::reader::{PART, Reader};
use crate::error::{Error, Result};
use crate::numeric::compare::compare;
use crate::numeric::simd::Isa;
use crate::numeric::stats::Comparison;
use crate::plan::budget::PER_WORKER;
use crate::plan::inputs::{At, Input, Inputs};
use crate::plan::options::Options;
use crate::plan::output::Output;
use crate::storage::place::Place;
use crate::system::parallel::ordered;
use crate::text::Name;

/// Compares two folders and returns the findings as JSON (`taskvec/diff/1`).
pub fn diff(a: &Place, b: &Place, options: &Options, control: &Control) -> Result<Value> {
    let isa = Isa::from_env()?;
    let input = |role: &str, place: &Place| {
        Ok::<_, Error>(Input { role: role.into(), checkpoint: open::weights(place, control)?.into(), vector: None })
    };
    let inputs = Inputs {
        list: vec![input("a", a)?, input("b", b)?],
        origins: Vec::new(),
        output: Output::default(),
        grafts: Vec::new(),
        outline: None,
    };
    let pairs = Pairs::new(&inputs);
    let (io, _) = options.io.resolve(&[&inputs.list[0].checkpoint, &inputs.list[1].checkpoint]);
    let mut wanted = Wanted::of(&inputs);
    for at in pairs.matched.iter().flat_map(|&(a, b)| [a, b]) {
        wanted.add(at.input as usize, inputs.tensor(at).shard as usize)?;
    }
    let sources = Sources::open(&inputs, io, control)?;
    let mut parts = Vec::new();
    for (place, &(at, _)) in pairs.matched.iter().enumerate() {
        parts.extend((0..inputs.tensor(at).elements()).step_by(PART as usize).map(|first| (place, first)));
    }
    let bits = |&(a, b): &(At, At)| inputs.tensor(a).dtype.bits() + inputs.tensor(b).dtype.bits();
    let both = |pair: &(At, At)| inputs.tensor(pair.0).elements() * bits(pair) / 8;
    control.begin(Phase::Reading, pairs.matched.iter().map(both).sum());
    let affordable = (options.budget() / (2 * Reader::BYTES + PER_WORKER)).max(1) as usize;
    let mut found = vec![Comparison::default(); pairs.matched.len()];
    let from = (&inputs, &sources, isa);
    let work = |item: u64, [left, right]: &mut [Reader; 2]| {
        let (place, first) = parts[item as usize];
        let (a, b) = pairs.matched[place];
        let end = inputs.tensor(a).elements().min(first + PART);
        let mut part = Comparison::default();
        left.read(from, a, (first, end), |left| {
            right.read(from, b, (first, end), |right| {
                let [x, y] = [a, b].map(|at| inputs.tensor(at).dtype.float());
                if x.is_some() && y.is_some() {
                    compare(isa, left, right, &mut part);
                } else {
                    // Without arithmetic on this type, the only finding is whether the bytes of each element are equal.
                    let size = (inputs.tensor(a).dtype.bits() / 8) as usize;
                    part.elements = end - first;
                    let pairs = left.bytes.chunks(size).zip(right.bytes.chunks(size));
                    part.changed = pairs.filter(|(x, y)| x != y).count() as u64;
                }
                control.add((end - first) * bits(&(a, b)) / 8);
                Ok(())
            })
        })?;
        Ok(part)
    };
    let workers = (2 * options.threads()?).min(affordable);
    ordered(
        control,
        workers,
        parts.len() as u64,
        || [Reader::new(), Reader::new()],
        work,
        |item, part| {
            found[parts[item as usize].0].add(&part);
            Ok(())
        },
    )?;
    for input in &inputs.list {
        input.checkpoint.unchanged()?;
    }
    Ok(report(&inputs, &pairs, &found))
}

/// The tensors of both folders, matched by name.
struct Pairs {
    matched: Vec<(At, At)>,
    only: [Vec<Name>; 2],
    not_compared: Vec<Value>,
}

impl Pairs {
    fn new(inputs: &Inputs) -> Self {
        let (a, b) = (&inputs.list[0].checkpoint, &inputs.list[1].checkpoint);
        let mut pairs = Self { matched: Vec::new(), only: [Vec::new(), Vec::new()], not_compared: Vec::new() };
        for (tensor, left) in (0u32..).zip(&a.tensors) {
            let Some(other) = b.find(&left.name) else {
                pairs.only[0].push(left.name.clone());
                continue;
            };
            let right = &b.tensors[other as usize];
            let floats = left.dtype.float().is_some() && right.dtype.float().is_some();
            let reason = if left.shape != right.shape {
                Some(format!("shapes {:?} and {:?}", left.shape, right.shape))
            } else if left.dtype != right.dtype && !floats {
                Some(format!("types {} and {}", left.dtype, right.dtype))
            } else if left.dtype.bits() % 8 != 0 {
                Some(format!("elements of {} bits", left.dtype.bits()))
            } else {
                None
            };
            match reason {
                Some(reason) => pairs.not_compared.push(json!({"name": left.name, "reason": reason})),
                None => pairs.matched.push((At { input: 0, tensor }, At { input: 1, tensor: other })),
            }
        }
        pairs.only[1] = b.tensors.iter().filter(|t| a.find(&t.name).is_none()).map(|t| t.name.clone()).collect();
        pairs
    }
}

fn report(inputs: &Inputs, pairs: &Pairs, found: &[Comparison]) -> Value {
    let mut total = Comparison::default();
    let mut tensors = Vec::with_capacity(found.len());
    for (&(a, b), part) in pairs.matched.iter().zip(found) {
        total.add(part);
        let left = inputs.tensor(a);
        let mut entry = Map::from_iter([("name".to_owned(), json!(left.name))]);
        let stored = [a, b].map(|at| inputs.list[at.input as usize].checkpoint.dtype_name(at.tensor));
        let dtype = if stored[0] == stored[1] { stored[0].into() } else { stored.join("/") };
        entry.insert("dtype".into(), dtype.into());
        entry.extend(figures(part, left.dtype.float().is_some()));
        tensors.push(Value::Object(entry));
    }
    let whole = pairs.only.iter().all(Vec::is_empty) && pairs.not_compared.is_empty();
    let same_types = pairs.matched.iter().all(|&(a, b)| inputs.own_dtype(a) == inputs.own_dtype(b));
    json!({
        "schema": "taskvec/diff/1",
        "a": inputs.list[0].checkpoint.label,
        "b": inputs.list[1].checkpoint.label,
        "identical": whole && same_types && total.changed == 0,
        "total": figures(&total, true),
        "tensors": tensors,
        "only_a": pairs.only[0],
        "only_b": pairs.only[1],
        "not_compared": pairs.not_compared,
    })
}

/// `changed` is a fraction of all elements. `norm` is ‖b − a‖ and `cosine` is the cosine between a and b, both over the
/// finite elements.
fn figures(found: &Comparison, arithmetic: bool) -> Map<String, Value> {
    let share = |count: u64| if found.elements == 0 { 0.0 } else { count as f64 / found.elements as f64 };
    let length = (found.a2 * found.b2).sqrt();
    let mut ulps = Map::new();
    for (bucket, &count) in found.ulps.iter().enumerate().filter(|(_, count)| **count > 0) {
        // Bucket k > 1 counts distances from 2^(k-1) to 2^k − 1. The last bucket counts NaN on one side only.
        let name = match bucket {
            0 | 1 => bucket.to_string(),
            _ if bucket == found.ulps.len() - 1 => "nan".to_owned(),
            _ => format!("{}-{}", 1_u64 << (bucket - 1), (1_u64 << bucket) - 1),
        };
        ulps.insert(name, count.into());
    }
    Map::from_iter([
        ("elements".to_owned(), found.elements.into()),
        ("changed".to_owned(), share(found.changed).into()),
        ("norm".to_owned(), if arithmetic { json!(found.d2.sqrt()) } else { Value::Null }),
        ("cosine".to_owned(), if arithmetic && length > 0.0 { json!(found.ab / length) } else { Value::Null }),
        ("nonfinite".to_owned(), found.nonfinite.into()),
        ("ulps".to_owned(), Value::Object(ulps)),
    ])
}
