//! The exceptions of a stored vector, looked up for one window.

use std::ops::Range;

use crate::codec::joined::List;
use crate::engine::gather::{Gather, Slot, Sources};
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::plan::inputs::At;
use crate::plan::terms::TermPlan;

/// Exceptions that will be loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exact {
    /// Indices and values.
    pub slots: [Slot; 2],
    /// The index of the tensor's first element.
    pub skip: i64,
}

/// The exceptions that one list has for a tensor in a window.
pub(super) struct LookedUp {
    /// The tensor that holds the indices.
    pub at: At,
    pub exact: Exact,
    /// The first element that the indices may name.
    pub start: u64,
    /// One past the last element that they may name.
    pub stop: u64,
}

/// The exceptions of some elements of a term.
pub(super) fn look_up(
    gather: &mut Gather,
    plan: &Plan,
    sources: &Sources,
    term: &TermPlan,
    wanted: Range<u64>,
) -> Result<Vec<LookedUp>> {
    let Some(exceptions) = term.exceptions else { return Ok(Vec::new()) };
    let elements = plan.inputs.tensor(term.minuend).elements();
    let lists = plan.inputs.lists(exceptions, elements);
    let reached = |list: &&List| list.elements.start < wanted.end && wanted.start < list.elements.end;
    lists.iter().filter(reached).map(|list| in_list(gather, plan, sources, exceptions.0.input, list, &wanted)).collect()
}

/// The exceptions of some elements in one list, found by binary search, because indices are in ascending order.
///
/// A file with unordered indices would give wrong numbers, so every window checks its share of them. Every search covers
/// the whole list. So neighbouring windows agree on where one share ends and the next begins, even if the indices are
/// unordered, and no index is left unchecked.
fn in_list(
    gather: &mut Gather,
    plan: &Plan,
    sources: &Sources,
    input: u32,
    list: &List,
    wanted: &Range<u64>,
) -> Result<LookedUp> {
    let inputs = &plan.inputs;
    let [at, value] = [list.index, list.value].map(|tensor| At { input, tensor });
    let count = inputs.tensor(at).elements();
    // As the list counts them.
    let counted = |element: u64| element.saturating_add_signed(list.skip);
    let start = counted(wanted.start.max(list.elements.start));
    let stop = counted(wanted.end.min(list.elements.end));
    let first_from = |wanted: u64| -> Result<u64> {
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low + (high - low) / 2;
            let bytes = gather.word(inputs, sources, at, middle * 8)?;
            if i128::from(i64::from_le_bytes(bytes)) < i128::from(wanted) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    };
    let (low, high) = (first_from(start)?, first_from(stop)?);
    let leftover = (start == 0 && low > 0) || (stop >= list.whole && high < count);
    if leftover || high - low > stop - start {
        return Err(disordered(plan, at));
    }
    let slots =
        [gather.tensor(inputs, at, low * 8, (high - low) * 8), gather.tensor(inputs, value, low * 4, (high - low) * 4)];
    Ok(LookedUp { at, exact: Exact { slots, skip: list.skip }, start, stop })
}

/// The error for exception indices that are not in order.
pub(super) fn disordered(plan: &Plan, at: At) -> Error {
    let name = plan.inputs.tensor(at).name.strip_suffix(".index").unwrap_or_default();
    let what = format!(
        "the exception indices of tensor `{name}` are not in ascending order within the tensor; extract the vector again"
    );
    Error::corrupt(plan.inputs.path(at), what)
}
