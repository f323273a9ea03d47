//! The arithmetic of one piece: loaded bytes are decoded to operands, and the kernels combine these.

use std::ops::Range;

use super::exceptions::Exact;
use super::merged::Merged;
use super::pieces::{Piece, TermSlots, Work};
use super::side::{Side, Sides, tiles};
use super::{Shared, Variant, requantise};
use crate::codec::derived::Encoded;
use crate::codec::packed::unpack::Unpacker;
use crate::engine::gather::{Loaded, Slot};
use crate::error::{Error, Result};
use crate::numeric::add::add;
use crate::numeric::combine::combine;
use crate::numeric::dtype::Float;
use crate::numeric::methods::measure::{Partial, Probe};
use crate::numeric::operand::{Exceptions, Rounding, Term};
use crate::numeric::philox;
use crate::numeric::simd::Isa;
use crate::numeric::stats::Stats;
use crate::plan::Plan;
use crate::plan::inputs::{At, Inputs};
use crate::plan::operands::float;
use crate::plan::options::RoundingMode;
use crate::text::quote;

/// A piece whose operands are decoded, ready to be computed.
pub(super) struct Run<'v> {
    isa: Isa,
    /// The first element that is loaded.
    first: u64,
    /// The type of the output.
    to: Float,
    rounding: Rounding,
    values: Values<'v>,
}

enum Values<'v> {
    Merge(Box<Merged<'v>>),
    Copy(&'v [u8]),
    Sum { target: Side<'v>, terms: Vec<Sides<'v>> },
    Vector { terms: Vec<Sides<'v>> },
}

impl<'v> Run<'v> {
    /// Decodes the operands of a piece. Values that are not simply the loaded bytes are put into `room`. There is an
    /// unpacker for each operand, because each keeps the last frame of one.
    pub fn new(
        shared: &'v Shared,
        piece: &'v Piece,
        terms: &'v [TermSlots],
        loaded: &'v Loaded,
        mut room: &'v mut [u8],
        unpackers: &mut Vec<Unpacker>,
    ) -> Result<Self> {
        let (plan, isa) = (shared.plan(), shared.isa);
        let this = &plan.layout.tensors[piece.tensor];
        let mut number = 0;
        let mut side = |encoded: &'v Encoded<Slot>, at: At| {
            let bytes = encoded.window_room(piece.decoded.end - piece.decoded.start) as usize;
            let (mine, rest) = std::mem::take(&mut room).split_at_mut(bytes);
            room = rest;
            if unpackers.len() <= number {
                unpackers.push(Unpacker::default());
            }
            let unpacker = &mut unpackers[number];
            number += 1;
            let encoded = encoded.map(|&slot| loaded.bytes(slot));
            Side::new(encoded, isa, piece.decoded.start, mine, unpacker).ok_or_else(|| damaged(&plan.inputs, at))
        };
        let target = match &piece.work {
            Work::Combine { own: encoded, .. } => Some(side(encoded, this.from)?),
            _ => None,
        };
        let exact = |&Exact { slots: [index, value], skip }: &Exact| Exceptions {
            index: loaded.bytes(index),
            value: loaded.bytes(value),
            skip,
        };
        let mut term = |term: &'v TermSlots| {
            let subtrahend = term.subtrahend.as_ref();
            Ok(Sides {
                minuend: side(&term.minuend, term.at)?,
                subtrahend: subtrahend.map(|(encoded, at)| side(encoded, *at)).transpose()?,
                exceptions: term.exceptions.iter().map(exact).collect(),
                alpha: term.alpha,
            })
        };
        let mut all = |mine: &Range<usize>| terms[mine.clone()].iter().map(&mut term).collect::<Result<Vec<_>>>();
        let values = match (&piece.work, target) {
            (Work::Copy(own), _) => Values::Copy(loaded.bytes(*own)),
            (Work::Combine { terms, .. }, Some(target)) => match plan.layout.recipe(this) {
                Some(recipe) => {
                    let others = all(terms)?.into_iter().map(|term| term.minuend);
                    let operands = std::iter::once(target).chain(others).collect();
                    Values::Merge(Merged::new(shared, piece, recipe, operands)?.into())
                }
                None => Values::Sum { target, terms: all(terms)? },
            },
            (Work::Add(mine) | Work::Combine { terms: mine, .. }, _) => Values::Vector { terms: all(mine)? },
        };
        let rounding = rounding(plan, piece, plan.options.rounding);
        // What is packed is the exact difference.
        let to = if plan.layout.packed { Float::F32 } else { float(this.dtype) };
        Ok(Self { isa, first: piece.decoded.start, to, rounding, values })
    }

    /// The instruction set that it computes with.
    pub const fn isa(&self) -> Isa {
        self.isa
    }

    /// The factor that turns the recorded request into the requested change: that of one vector.
    pub fn scale_of_request(&self) -> f32 {
        match &self.values {
            Values::Sum { terms, .. } if terms.len() == 1 => terms[0].alpha,
            _ => 1.0,
        }
    }

    /// Values of the elements of some ranges, one range after the other, before they are rounded. Returns how much of the
    /// squared request is noise of the donors' grids.
    pub fn values(&mut self, ranges: &[Range<u64>], to: &mut requantise::Values) -> f64 {
        let requantise::Values { t, r, v, random, bytes } = to;
        [&mut *t, &mut *r, &mut *v].into_iter().for_each(Vec::clear);
        random.clear();
        let (isa, first) = (self.isa, self.first);
        let Values::Sum { target, terms } = &mut self.values else { return 0.0 };
        let mut noise2 = 0.0;
        let floats = |bytes: &[u8], to: &mut Vec<f32>| {
            to.extend(bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)));
        };
        let tiled = ranges.iter().flat_map(|range| tiles(range.start, range.end, true));
        for (from, end) in tiled {
            noise2 += noise(isa, terms, first, from, end);
            let target = target.part(isa, first, from, end);
            let mut part: Vec<Term> = terms.iter_mut().map(|term| term.part(isa, first, from, end)).collect();
            bytes.resize((end - from) as usize * Float::F32.size(), 0);
            floats(target.bytes, t);
            combine(isa, target, &part, from, Float::F32, &Rounding::Nearest, bytes, None);
            floats(bytes, r);
            if let [only] = &mut part[..] {
                only.alpha = 1.0;
            }
            add(isa, &part, from, Float::F32, bytes, &mut Vec::new(), None);
            floats(bytes, v);
            if let Rounding::Stochastic { key } = self.rounding {
                random.extend(philox::words(isa, key, from, (end - from) as usize));
            }
        }
        noise2
    }

    /// Adds the piece to what is measured of its tensor.
    pub fn measure(&mut self, piece: &Piece, probe: &Probe, partial: &mut Partial) {
        if let Values::Merge(merged) = &mut self.values {
            merged.measure(piece, probe, partial);
        }
    }

    /// Takes another factor for every term, and another rounding.
    pub fn vary(&mut self, plan: &Plan, piece: &Piece, variant: Variant) {
        self.rounding = rounding(plan, piece, variant.rounding);
        self.scale(variant.alpha);
    }

    /// Takes another factor for every term.
    pub fn scale(&mut self, alpha: f32) {
        if let Values::Sum { terms, .. } = &mut self.values {
            terms.iter_mut().for_each(|term| term.alpha = alpha);
        }
    }

    /// Computes the piece into the start of `out`. Returns the figures of the elements that begin in its block.
    pub fn compute(&mut self, piece: &Piece, out: &mut [u8], misfits: &mut Vec<(u64, f32)>) -> Option<Stats> {
        if let Values::Copy(bytes) = self.values {
            out[..bytes.len()].copy_from_slice(bytes);
            return None;
        }
        let Piece { first, counted, end, .. } = *piece;
        let size = self.to.size();
        let (cut, rest) = out.split_at_mut((counted - first) as usize * size);
        if !cut.is_empty() {
            // The previous block counts these elements; here only their bytes are needed.
            self.elements(first, counted, cut, &mut Vec::new(), None);
        }
        let mut stats = Stats::default();
        self.elements(counted, end, &mut rest[..(end - counted) as usize * size], misfits, Some(&mut stats));
        Some(stats)
    }

    /// The target's own values of the elements that begin in the piece's block, in the type of the output.
    pub fn own(&mut self, piece: &Piece, out: &mut [u8]) {
        let kept = match &self.values {
            Values::Copy(bytes) => Some(*bytes),
            Values::Sum { target, .. } => target.whole(self.to),
            Values::Vector { .. } | Values::Merge(_) => None,
        };
        match kept {
            Some(bytes) => out.copy_from_slice(&bytes[bytes.len() - out.len()..]),
            None => {
                self.rounding = Rounding::Nearest;
                self.elements(piece.counted, piece.end, out, &mut Vec::new(), None);
            }
        }
    }

    fn elements(
        &mut self,
        from: u64,
        to: u64,
        out: &mut [u8],
        misfits: &mut Vec<(u64, f32)>,
        mut stats: Option<&mut Stats>,
    ) {
        let (isa, first, size) = (self.isa, self.first, self.to.size());
        let in_tiles = match &mut self.values {
            Values::Copy(_) => return,
            Values::Merge(merged) => return merged.elements((from, to), self.to, &self.rounding, out, stats),
            Values::Sum { target, terms } => target.in_tiles() || terms.iter().any(Sides::in_tiles),
            Values::Vector { terms } => terms.iter().any(Sides::in_tiles),
        };
        for (begin, end) in tiles(from, to, in_tiles) {
            let out = &mut out[(begin - from) as usize * size..(end - from) as usize * size];
            let mut stats = stats.as_deref_mut();
            if let (Values::Vector { terms } | Values::Sum { terms, .. }, Some(stats)) = (&mut self.values, &mut stats)
            {
                stats.noise2 += noise(isa, terms, first, begin, end);
            }
            match &mut self.values {
                Values::Copy(_) | Values::Merge(_) => {}
                Values::Vector { terms } => {
                    let terms: Vec<Term> = terms.iter_mut().map(|term| term.part(isa, first, begin, end)).collect();
                    add(isa, &terms, begin, self.to, out, misfits, stats);
                }
                Values::Sum { target, terms } => {
                    let target = target.part(isa, first, begin, end);
                    let terms: Vec<Term> = terms.iter_mut().map(|term| term.part(isa, first, begin, end)).collect();
                    combine(isa, target, &terms, begin, self.to, &self.rounding, out, stats);
                }
            }
        }
    }
}

/// How much of the squared request is noise of the donors' grids, in elements `[from, to)`.
fn noise(isa: Isa, terms: &mut [Sides], first: u64, from: u64, to: u64) -> f64 {
    // The request of one term is its difference; that of several is the sum of theirs, each times its factor.
    let several = terms.len() > 1;
    let each = terms.iter_mut().map(|term| {
        let factor = if several { f64::from(term.alpha) } else { 1.0 };
        factor * factor * term.noise(isa, first, from, to)
    });
    each.sum()
}

/// The error for a tensor whose stored bytes cannot be decoded.
pub fn damaged(inputs: &Inputs, at: At) -> Error {
    let name = quote(&inputs.tensor(at).name);
    let what = format!("the packed values of tensor {name} are damaged; download or extract the vector again");
    Error::corrupt(inputs.path(at), what)
}

fn rounding(plan: &Plan, piece: &Piece, mode: RoundingMode) -> Rounding {
    match mode {
        RoundingMode::Nearest => Rounding::Nearest,
        RoundingMode::Stochastic => {
            let this = &plan.layout.tensors[piece.tensor];
            // A tied head is rounded as the embedding is; a tensor of a merge has a name of its own.
            let merged = plan.inputs.outline.is_some();
            let name =
                if merged { &plan.inputs.outlined(this.tensor).name } else { &plan.inputs.tensor(this.from).name };
            Rounding::Stochastic { key: philox::key(plan.options.seed, name) }
        }
    }
}
