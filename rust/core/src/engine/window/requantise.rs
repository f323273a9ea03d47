//! The codes of a tensor that is quantised again.
//!
//! ```text
//! for each part (some blocks side by side) with elements in the window:
//!     t, r, v = the target's values, the results, the request     (of the whole part, so that both of two
//!                                                                  neighbouring windows decide the same)
//!     for each block: choose its scale, encode its values
//!     write the codes that are in the window
//!     if the part begins in the window: count it, and tell its new scales
//! ```

use std::ops::Range;

use super::outcome::{Outcome, Rescaled};
use super::pieces::Piece;
use super::terms::Run;
use crate::codec::scaled::encode::{Block, Encoded, Requantised, Scales, Unfit};
use crate::codec::scaled::{Codes, Format};
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::numeric::dtype::Float;
use crate::numeric::simd::{self, Isa};
use crate::numeric::stats::{Stats, of_values};
use crate::plan::Plan;
use crate::text::quote;

/// What is loaded of a tensor: codes and scales of the elements that are decoded.
pub(super) struct Stored<'a> {
    pub codes: &'a [u8],
    pub scales: &'a [u8],
}

/// Elements of a part, row by row.
#[derive(Default)]
pub(super) struct Values {
    /// The target's values.
    pub t: Vec<f32>,
    /// The results.
    pub r: Vec<f32>,
    /// The request: see [`Stats`].
    pub v: Vec<f32>,
    /// Random bits, if rounding is stochastic.
    pub random: Vec<u32>,
    /// Scratch for results as bytes.
    pub bytes: Vec<u8>,
}

/// What a worker keeps for this.
#[derive(Default)]
pub(super) struct Tools {
    part: Values,
    block: Values,
    /// The target's codes of the block, one a byte, and the new ones.
    codes: [Vec<u8>; 2],
    /// The values of the new codes.
    o: Vec<f32>,
    plain: [Vec<f32>; 2],
}

/// Rows and columns of a matrix that are worked on together.
struct Part {
    /// The first element.
    first: u64,
    rows: u64,
    columns: u64,
}

/// The parts that have elements in a piece and begin before its end.
fn parts(format: &Format, piece: &Piece) -> Vec<Part> {
    let [height, width] = format.part();
    let mut found = Vec::new();
    let mut at = piece.decoded.start;
    while at < piece.decoded.end {
        let (row, column) = (at / format.columns, at % format.columns);
        let rows = height.min(format.rows - row % format.rows);
        let columns = width.min(format.columns - column);
        let last = at + (rows - 1) * format.columns + columns;
        if at < piece.end && last > piece.first {
            found.push(Part { first: at, rows, columns });
        }
        // To the next columns of these rows, and after the last ones to the rows below.
        at += columns;
        if column + columns == format.columns {
            at += (rows - 1) * format.columns;
        }
    }
    found
}

/// Quantises a piece again: `out` gets its codes, `outcome` the figures and the scales that change.
///
/// # Errors
/// A block that cannot be quantised, by the name of its tensor.
pub(super) fn requantise(
    plan: &Plan,
    piece: &Piece,
    run: &mut Run,
    stored: &Stored,
    tools: &mut Tools,
    out: &mut [u8],
    outcome: &mut Outcome,
) -> Result<()> {
    let Some(into) = piece.into else { return Ok(()) };
    let (format, isa) = (&*into.format, run.isa());
    let scales = plan.options.requantise.unwrap_or_default();
    for part in parts(format, piece) {
        let noise2 = run.values(&part.rows_of(format), &mut tools.part);
        let counted = part.first >= piece.first;
        let mut figures = Requantised::default();
        tools.o.resize(tools.part.t.len(), 0.0);
        let mut left = 0;
        while left < part.columns {
            let width =
                (format.block[1] - (part.first + left) % format.columns % format.block[1]).min(part.columns - left);
            let job = Job { isa, format, piece, stored, part: &part, columns: left..left + width };
            let found = job.block(scales, tools, out).map_err(|why| unfit(plan, piece, why))?;
            if let Some((index, bytes)) = found.scale.filter(|_| counted) {
                outcome.rescaled.push(Rescaled { tensor: piece.tensor as u32, index, bytes });
            }
            figures.add(&found.figures);
            left += width;
        }
        if !counted {
            continue;
        }
        let Tools { part: Values { t, r, v, random, bytes }, o, plain: [wide, base], .. } = tools;
        let mut as_bf16 = |values: &[f32], out: &mut Vec<f32>| {
            bytes.resize(values.len() * Float::Bf16.size(), 0);
            out.resize(values.len(), 0.0);
            if random.is_empty() {
                simd::narrow(isa, Float::Bf16, values, bytes);
            } else {
                simd::narrow_stochastic(isa, Float::Bf16, values, random, bytes);
            }
            simd::widen(isa, Float::Bf16, bytes, out);
        };
        as_bf16(r, wide);
        as_bf16(t, base);
        figures.plain = of_values(isa, t, base, v, wide, run.scale_of_request());
        let mut stats = of_values(isa, t, t, v, o, run.scale_of_request());
        (stats.noise2, figures.plain.noise2) = (noise2, noise2);
        let offset = piece.at + (part.first - piece.first) * format.codes.bits() / 8;
        let record = &mut outcome.blocks[piece.block + (offset / BLOCK - piece.at / BLOCK) as usize];
        add(&mut record.stats, piece.tensor, stats, Stats::add);
        add(&mut record.requantised, piece.tensor, figures, Requantised::add);
    }
    Ok(())
}

/// Adds the figures of a part to those of its tensor in its block.
fn add<T: Default>(list: &mut Vec<(u32, T)>, tensor: usize, figures: T, add: impl Fn(&mut T, &T)) {
    match list.last_mut().filter(|(last, _)| *last == tensor as u32) {
        Some((_, sum)) => add(sum, &figures),
        None => list.push((tensor as u32, figures)),
    }
}

impl Part {
    /// The elements of its rows.
    fn rows_of(&self, format: &Format) -> Vec<Range<u64>> {
        let row = |row: u64| self.first + row * format.columns;
        (0..self.rows).map(|at| row(at)..row(at) + self.columns).collect()
    }
}

/// One block of a part: some of its columns.
struct Job<'a> {
    isa: Isa,
    format: &'a Format,
    piece: &'a Piece<'a>,
    stored: &'a Stored<'a>,
    part: &'a Part,
    columns: Range<u64>,
}

struct Found {
    /// The number of the scale and its bytes, if it changes.
    scale: Option<(u64, [u8; 4])>,
    figures: Requantised,
}

impl Job<'_> {
    /// The element of a row and a column of the part.
    fn element(&self, row: u64, column: u64) -> u64 {
        self.part.first + row * self.format.columns + column
    }

    /// Copies the block's elements, row by row.
    fn gather<T: Copy>(&self, part: &[T], block: &mut Vec<T>) {
        block.clear();
        for row in 0..self.part.rows {
            let at = |column: u64| (row * self.part.columns + column) as usize;
            block.extend_from_slice(&part[at(self.columns.start)..at(self.columns.end)]);
        }
    }

    fn block(&self, scales: Scales, tools: &mut Tools, out: &mut [u8]) -> std::result::Result<Found, Unfit> {
        let Tools { part, block, codes: [old, new], o, .. } = tools;
        self.gather(&part.t, &mut block.t);
        self.gather(&part.r, &mut block.r);
        self.gather(&part.v, &mut block.v);
        block.random.clear();
        if !part.random.is_empty() {
            self.gather(&part.random, &mut block.random);
        }
        self.read_codes(old);
        new.resize(old.len(), 0);
        let index = self.format.scale_of(self.element(0, self.columns.start));
        let loaded = index - self.format.first_scale(self.piece.decoded.start);
        let size = self.format.scale.size() as usize;
        let scale = self.format.read_scale(&self.stored.scales[loaded as usize * size..]);
        let input = Block { old: &block.t, new: &block.r, asked: &block.v, codes: old, random: &block.random };
        let found = self.format.encode(self.isa, &input, scale, scales, new)?;
        self.write(new, out);
        let Encoded { codes, saturated, .. } = found;
        let mut figures = Requantised { codes, saturated, ..Requantised::default() };
        *match (found.touched, found.stored) {
            (false, _) => &mut figures.copied,
            (true, None) => &mut figures.kept,
            (true, Some(_)) => &mut figures.rescaled,
        } = 1;
        let width = (self.columns.end - self.columns.start) as usize;
        for (row, codes) in (0..self.part.rows).zip(new.chunks(width)) {
            let at = (row * self.part.columns + self.columns.start) as usize;
            simd::decode(self.isa, self.format.codes, codes, found.scale, &mut o[at..at + width]);
        }
        Ok(Found { scale: found.stored.map(|bytes| (index, bytes)), figures })
    }

    /// The target's codes of the block, one a byte.
    fn read_codes(&self, codes: &mut Vec<u8>) {
        codes.clear();
        for row in 0..self.part.rows {
            let from = (self.element(row, self.columns.start) - self.piece.decoded.start) as usize;
            let n = (self.columns.end - self.columns.start) as usize;
            match self.format.codes {
                Codes::E4m3 => codes.extend_from_slice(&self.stored.codes[from..from + n]),
                Codes::E2m1 | Codes::Int4 => {
                    codes.extend((from..from + n).map(|at| self.stored.codes[at / 2] >> (4 * (at % 2)) & 15));
                }
            }
        }
    }

    /// Writes the codes that are in the piece.
    fn write(&self, codes: &[u8], out: &mut [u8]) {
        let width = (self.columns.end - self.columns.start) as usize;
        for (row, codes) in (0..).zip(codes.chunks(width)) {
            let first = self.element(row, self.columns.start);
            let (from, to) = (first.max(self.piece.first), (first + width as u64).min(self.piece.end));
            if from >= to {
                continue;
            }
            let codes = &codes[(from - first) as usize..(to - first) as usize];
            let place = (from - self.piece.first) as usize;
            match self.format.codes {
                Codes::E4m3 => out[place..place + codes.len()].copy_from_slice(codes),
                Codes::E2m1 | Codes::Int4 => in_halves(codes, place, out),
            }
        }
    }
}

/// Writes codes of four bits: an even one is the lower half of a byte and comes first.
fn in_halves(codes: &[u8], place: usize, out: &mut [u8]) {
    for (place, &code) in (place..).zip(codes) {
        if place.is_multiple_of(2) {
            out[place / 2] = code;
        } else {
            out[place / 2] |= code << 4;
        }
    }
}

fn unfit(plan: &Plan, piece: &Piece, why: Unfit) -> Error {
    let at = plan.layout.tensors[piece.tensor].from;
    let (path, name) = (plan.inputs.path(at), quote(&plan.inputs.tensor(at).name));
    let leave = "exclude it (--exclude), or leave --requantise out";
    match why {
        Unfit::Scale => {
            Error::corrupt(path, format!("tensor {name}: a scale of a block that changes is Inf or NaN; {leave}"))
        }
        Unfit::Overflow => Error::Mismatch(format!(
            "{}: tensor {name}: its values need scales that their type cannot hold; {leave}",
            path.display()
        )),
        Unfit::NaN => Error::Mismatch(format!(
            "{}: tensor {name}: a value becomes NaN, which its codes cannot hold; {leave}",
            path.display()
        )),
    }
}
