//! A plan in parts, for several machines: which files of the output each part writes.
//!
//! A part is a run of whole files. So every tensor is in one part, and its figures are summed there as in a single run.

pub mod identity;

use std::ops::Range;

use crate::error::{Error, Result};
use crate::plan::Plan;

/// Cuts the files of a plan's output into `parts` runs. The longest run, in bytes, is as short as it can be.
///
/// # Errors
/// There are fewer runs than that, or the output cannot be written in parts.
pub fn cut(plan: &Plan, parts: usize) -> Result<Vec<Range<usize>>> {
    let runs = inseparable(plan);
    if parts == 0 {
        return Err(Error::Usage("--parts is 0; a job has at least one part".into()));
    }
    if parts > runs.len() {
        let (files, most) = (plan.layout.files.len(), runs.len());
        let why = if most < files { ", and some of them hold weights whose scales are in others" } else { "" };
        return Err(Error::Usage(format!(
            "the output has {files} file(s){why}, so more than {most} part(s) would be of no use; use --parts {most}"
        )));
    }
    let sizes: Vec<u64> = runs.iter().map(|files| plan.layout.bytes_of(files.clone())).collect();
    let cuts = balanced(&sizes, parts);
    Ok(cuts.into_iter().map(|run| runs[run.start].start..runs[run.end - 1].end).collect())
}

/// The shortest runs of files that one part has to write. Most are of one file; but where a weight is quantised again,
/// its scales are known only to the part that computes it.
fn inseparable(plan: &Plan) -> Vec<Range<usize>> {
    let files = &plan.layout.files;
    // One past the last file that each has to be together with.
    let mut ends: Vec<usize> = (1..=files.len()).collect();
    for (number, file) in files.iter().enumerate() {
        for tensor in &plan.layout.tensors[file.tensors.0..file.tensors.1] {
            if !tensor.requantised || tensor.terms.is_empty() {
                continue;
            }
            // Where weights stay quantised, the output has the target's files.
            let Some(scales) = plan.inputs.scaled(tensor.from).map(|scaled| scaled.scales.shard as usize) else {
                continue;
            };
            let (low, high) = (number.min(scales), number.max(scales));
            ends[low] = ends[low].max(high + 1);
        }
    }
    joined(&ends)
}

/// Runs that no file's `ends` cross.
fn joined(ends: &[usize]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let (mut begin, mut end) = (0, 0);
    for (file, &reach) in ends.iter().enumerate() {
        if file == end && file > begin {
            runs.push(begin..end);
            begin = file;
        }
        end = end.max(reach);
    }
    if end > begin {
        runs.push(begin..end);
    }
    runs
}

/// Cuts a list into `parts` runs, none of them empty, whose largest sum is as small as possible.
fn balanced(sizes: &[u64], parts: usize) -> Vec<Range<usize>> {
    let fits = |most: u64| {
        let (mut runs, mut sum) = (1, 0);
        for &size in sizes {
            if sum > 0 && sum + size > most {
                (runs, sum) = (runs + 1, 0);
            }
            sum += size;
        }
        runs <= parts
    };
    let (mut low, mut high) = (sizes.iter().copied().max().unwrap_or(0), sizes.iter().sum());
    while low < high {
        let middle = low + (high - low) / 2;
        if fits(middle) { high = middle } else { low = middle + 1 }
    }
    let mut cuts = Vec::with_capacity(parts);
    let (mut begin, mut sum) = (0, 0);
    for (at, &size) in sizes.iter().enumerate() {
        // As many must be left as there are parts to come.
        let few = sizes.len() - at < parts - cuts.len();
        if at > begin && (sum + size > low || few) {
            cuts.push(begin..at);
            (begin, sum) = (at, 0);
        }
        sum += size;
    }
    cuts.push(begin..sizes.len());
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_as_even_as_they_can_be() {
        let lengths =
            |sizes: &[u64], parts| -> Vec<usize> { balanced(sizes, parts).into_iter().map(|run| run.len()).collect() };
        assert_eq!(lengths(&[5, 5, 5, 5], 2), [2, 2]);
        assert_eq!(lengths(&[9, 1, 1, 1], 2), [1, 3]);
        assert_eq!(lengths(&[1, 1, 1, 9], 3), [2, 1, 1]);
        assert_eq!(lengths(&[0, 0, 0], 3), [1, 1, 1]);
        assert_eq!(lengths(&[7], 1), [1]);
    }

    #[test]
    fn no_other_cut_is_better() {
        // Every way to cut eight sizes, by the bits of a number.
        let sizes = [3, 14, 15, 9, 2, 6, 53, 5];
        for parts in 1..=sizes.len() {
            let sum = |run: &Range<usize>| sizes[run.clone()].iter().sum::<u64>();
            let cuts = balanced(&sizes, parts);
            assert_eq!(cuts.len(), parts);
            assert!(cuts.windows(2).all(|pair| pair[0].end == pair[1].start) && cuts.iter().all(|run| !run.is_empty()));
            let best =
                (0_u32..1 << (sizes.len() - 1)).filter(|bits| bits.count_ones() as usize == parts - 1).map(|bits| {
                    let ends = (1..sizes.len()).filter(|at| bits >> (at - 1) & 1 == 1).chain([sizes.len()]);
                    let mut begin = 0;
                    ends.map(|end| sum(&(std::mem::replace(&mut begin, end)..end))).max()
                });
            assert_eq!(cuts.iter().map(sum).max(), best.min().flatten(), "{parts} parts");
        }
    }

    #[test]
    fn files_that_belong_together_are_not_separated() {
        assert_eq!(joined(&[1, 2, 3]), [0..1, 1..2, 2..3]);
        assert_eq!(joined(&[1, 4, 3, 4, 5]), [0..1, 1..4, 4..5]);
        assert_eq!(joined(&[2, 3, 3, 4]), [0..3, 3..4]);
        assert!(joined(&[]).is_empty());
    }
}
