//! From the shapes of codes and scales to a format. A shape that fits no reading is refused, and so is one that fits
//! several which mean different things.

use super::claim::Claim;
use crate::codec::scaled::{Codes, Format, Global, ScaleType};
use crate::numeric::dtype::Dtype;

/// The element types and shapes of a quantised weight's parts.
pub struct Parts<'a> {
    /// The format of its codes.
    pub codes: Codes,
    /// The type in which they are stored.
    pub stored: Dtype,
    /// The dimensions of its codes, one element for each code.
    pub shape: &'a [u64],
    /// Codes of a row as it is stored.
    pub stride: u64,
    /// The type of its scales.
    pub scale: Dtype,
    /// The dimensions of its scales.
    pub scale_shape: &'a [u64],
    /// How its second scale is applied, if it has one.
    pub global: Option<Global>,
}

/// One way to read a shape of scales.
#[derive(Clone, Copy)]
struct Reading {
    /// Rows of one matrix.
    rows: u64,
    /// Rows and columns of a block.
    block: [u64; 2],
    /// Whether the config claims it.
    claimed: bool,
    /// Whether the scale is that of the tensor as such.
    whole: bool,
}

/// Finds the format of a weight. The error says in words what does not fit.
pub fn format(parts: &Parts, claim: &Claim) -> Result<Format, String> {
    let Some((&columns, above)) = parts.shape.split_last() else { return Err("its codes have no dimensions".into()) };
    let (rows, lead) = above.split_last().map_or((1, above), |(rows, lead)| (*rows, lead));
    let scale = ScaleType::of(parts.scale).filter(|&scale| supported(parts.codes, scale, parts.global));
    let Some(scale) = scale else {
        return Err(format!(
            "{} codes with {} scales are a format that taskvec does not read",
            parts.stored, parts.scale
        ));
    };
    if columns == 0 || rows == 0 || lead.contains(&0) {
        return Err("its codes are empty".into());
    }
    let readings = readings(lead, rows, columns, scale, claim);
    let fitting: Vec<Reading> =
        readings.into_iter().filter(|(shape, _)| *shape == parts.scale_shape).map(|(_, reading)| reading).collect();
    // Blocks that are larger than the matrix mean the same.
    let effect = |reading: &Reading| [reading.block[0].min(reading.rows), reading.block[1].min(columns)];
    let chosen = match &fitting[..] {
        [] => {
            return Err(format!(
                "its scales have shape {:?}, which fits no block size of codes of shape {:?}",
                parts.scale_shape, parts.shape
            ));
        }
        [first, rest @ ..] if rest.iter().all(|other| effect(other) == effect(first)) => {
            *fitting.iter().find(|reading| reading.claimed).unwrap_or(first)
        }
        several => match &several.iter().filter(|reading| reading.claimed).collect::<Vec<_>>()[..] {
            [first, rest @ ..] if rest.iter().all(|other| effect(other) == effect(first)) => **first,
            _ => {
                return Err(format!(
                    "its scales have shape {:?}, which fits more than one block size of codes of shape {:?}, and the config does not say which",
                    parts.scale_shape, parts.shape
                ));
            }
        },
    };
    let (stride, global) = (parts.stride, parts.global);
    let Reading { rows, block, whole, .. } = chosen;
    Ok(Format { codes: parts.codes, scale, global, rows, columns, stride, block, whole, transposed: false })
}

/// Every known shape of scales, with what it means.
fn readings(lead: &[u64], rows: u64, columns: u64, scale: ScaleType, claim: &Claim) -> Vec<(Vec<u64>, Reading)> {
    let shape = |ends: &[u64]| [lead, ends].concat();
    let of = |block: [u64; 2], claimed: bool| Reading { rows, block, claimed, whole: false };
    let all = lead.iter().product::<u64>() * rows;
    let grid = |block: [u64; 2]| shape(&[rows.div_ceil(block[0]), columns.div_ceil(block[1])]);
    let mut found = Vec::new();
    match scale {
        ScaleType::E4m3 => found.push((grid([1, 16]), of([1, 16], true))),
        ScaleType::E8m0 => found.push((grid([1, 32]), of([1, 32], claim.blocks.is_empty()))),
        ScaleType::F32 | ScaleType::Bf16 | ScaleType::F16 => {
            let whole = Reading { rows: all, block: [all, columns], claimed: false, whole: true };
            found.extend([vec![], vec![1]].map(|shape| (shape, whole)));
            // Where there should be blocks, a single scale in two dimensions is that of a single block.
            if claim.blocks.is_empty() {
                found.push((vec![1; lead.len() + 2], whole));
            }
            found.extend([shape(&[rows]), shape(&[rows, 1])].map(|shape| (shape, of([1, columns], claim.rows))));
            found.extend(claim.groups.iter().map(|&size| (grid([1, size]), of([1, size], true))));
        }
    }
    if scale != ScaleType::E4m3 {
        found.extend(claim.blocks.iter().map(|&block| (grid(block), of(block, true))));
    }
    found
}

const fn supported(codes: Codes, scale: ScaleType, global: Option<Global>) -> bool {
    match (codes, scale) {
        // Without its second scale, or with one too many, a weight is read wrongly.
        (Codes::E2m1, ScaleType::E4m3) => global.is_some(),
        (Codes::E4m3, ScaleType::E4m3) | (Codes::Int4, ScaleType::E4m3 | ScaleType::E8m0) => false,
        (Codes::E2m1, ScaleType::E8m0) | (Codes::E4m3, _) | (Codes::Int4, _) => global.is_none(),
        (Codes::E2m1, _) => false,
    }
}
