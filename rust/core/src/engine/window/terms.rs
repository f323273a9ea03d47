//! The arithmetic of one piece: loaded bytes are decoded to operands, and the kernels combine these.

use std::ops::Range;

use super::pieces::{Piece, TermSlots, Work};
use super::{Shared, Variant, requantise};
use crate::codec::derived::Encoded;
use crate::codec::packed::unpack::Unpacker;
use crate::engine::gather::{Loaded, Slot};
use crate::error::{Error, Result};
use crate::numeric::add::add;
use crate::numeric::combine::combine;
use crate::numeric::dtype::Float;
use crate::numeric::operand::{Exceptions, Operand, Rounding, Term};
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
    first: u64,
    /// The type of the output.
    to: Float,
    rounding: Rounding,
    values: Values<'v>,
}

enum Values<'v> {
    Copy(&'v [u8]),
    Sum { target: Operand<'v>, terms: Vec<Term<'v>> },
    Vector { terms: Vec<Term<'v>> },
}

impl<'v> Run<'v> {
    /// Decodes the operands of a piece. Values that are not simply the loaded bytes are put into `room`. There is an
    /// unpacker for each operand, because each keeps the last frame of one.
    pub fn new(
        shared: &Shared,
        piece: &Piece,
        terms: &[TermSlots],
        loaded: &'v Loaded,
        mut room: &'v mut [u8],
        unpackers: &mut Vec<Unpacker>,
    ) -> Result<Self> {
        let (plan, isa) = (shared.plan(), shared.isa);
        let this = &plan.layout.tensors[piece.tensor];
        let own = At { input: 0, tensor: this.base };
        let mut number = 0;
        let mut decoded = |encoded: &Encoded<Slot>, at: At| {
            let bytes = encoded.room(piece.decoded.end - piece.decoded.start) as usize;
            let (mine, rest) = std::mem::take(&mut room).split_at_mut(bytes);
            room = rest;
            if unpackers.len() <= number {
                unpackers.push(Unpacker::default());
            }
            let unpacker = &mut unpackers[number];
            number += 1;
            let operand = encoded.map(|&slot| loaded.bytes(slot)).decode(isa, piece.decoded.start, mine, unpacker);
            operand.ok_or_else(|| damaged(&plan.inputs, at))
        };
        let target = match &piece.work {
            Work::Combine { own: encoded, .. } => Some(decoded(encoded, own)?),
            _ => None,
        };
        let mut term = |term: &TermSlots| {
            let subtrahend = term.subtrahend.as_ref();
            Ok(Term {
                minuend: decoded(&term.minuend, term.at)?,
                subtrahend: subtrahend.map(|(encoded, at)| decoded(encoded, *at)).transpose()?,
                exceptions: term.exceptions.map_or(Exceptions::NONE, |[index, value]| Exceptions {
                    index: loaded.bytes(index),
                    value: loaded.bytes(value),
                }),
                alpha: term.alpha,
            })
        };
        let mut all = |mine: &Range<usize>| terms[mine.clone()].iter().map(&mut term).collect::<Result<_>>();
        let values = match (&piece.work, target) {
            (Work::Copy(own), _) => Values::Copy(loaded.bytes(*own)),
            (Work::Combine { terms, .. }, Some(target)) => Values::Sum { target, terms: all(terms)? },
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

    /// Values of the elements of some ranges, one range after the other, before they are rounded.
    pub fn values(&self, ranges: &[Range<u64>], to: &mut requantise::Values) {
        let requantise::Values { t, r, v, random, bytes } = to;
        [&mut *t, &mut *r, &mut *v].into_iter().for_each(Vec::clear);
        random.clear();
        let Values::Sum { target, terms } = &self.values else { return };
        for range in ranges {
            let (begin, end) = ((range.start - self.first) as usize, (range.end - self.first) as usize);
            let target = target.part(begin, end);
            let mut part: Vec<Term> = terms.iter().map(|term| part(term, begin, end)).collect();
            bytes.resize((end - begin) * Float::F32.size(), 0);
            let floats = |bytes: &[u8], to: &mut Vec<f32>| {
                to.extend(bytes.as_chunks().0.iter().map(|&x| f32::from_le_bytes(x)));
            };
            floats(target.bytes, t);
            combine(self.isa, target, &part, range.start, Float::F32, &Rounding::Nearest, bytes, None);
            floats(bytes, r);
            if let [only] = &mut part[..] {
                only.alpha = 1.0;
            }
            add(self.isa, &part, range.start, Float::F32, bytes, &mut Vec::new(), None);
            floats(bytes, v);
            if let Rounding::Stochastic { key } = self.rounding {
                random.extend(philox::words(self.isa, key, range.start, end - begin));
            }
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
    pub fn compute(&self, piece: &Piece, out: &mut [u8], misfits: &mut Vec<(u64, f32)>) -> Option<Stats> {
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
        match self.values {
            Values::Copy(bytes) => out.copy_from_slice(&bytes[bytes.len() - out.len()..]),
            Values::Sum { target: Operand { float, bytes }, .. } if float == self.to => {
                out.copy_from_slice(&bytes[bytes.len() - out.len()..]);
            }
            _ => {
                self.rounding = Rounding::Nearest;
                self.elements(piece.counted, piece.end, out, &mut Vec::new(), None);
            }
        }
    }

    fn elements(&self, from: u64, to: u64, out: &mut [u8], misfits: &mut Vec<(u64, f32)>, stats: Option<&mut Stats>) {
        let (begin, end) = ((from - self.first) as usize, (to - self.first) as usize);
        let part = |term: &Term<'v>| part(term, begin, end);
        match &self.values {
            Values::Copy(_) => {}
            Values::Vector { terms } => {
                let terms: Vec<Term> = terms.iter().map(part).collect();
                add(self.isa, &terms, from, self.to, out, misfits, stats);
            }
            Values::Sum { target, terms } => {
                let terms: Vec<Term> = terms.iter().map(part).collect();
                combine(self.isa, target.part(begin, end), &terms, from, self.to, &self.rounding, out, stats);
            }
        }
    }
}

/// Elements `[begin, end)` of a term.
fn part<'v>(term: &Term<'v>, begin: usize, end: usize) -> Term<'v> {
    Term {
        minuend: term.minuend.part(begin, end),
        subtrahend: term.subtrahend.map(|subtrahend| subtrahend.part(begin, end)),
        ..*term
    }
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
            let base = plan.layout.tensors[piece.tensor].base;
            let name = &plan.inputs.base().tensors[base as usize].name;
            Rounding::Stochastic { key: philox::key(plan.options.seed, name) }
        }
    }
}
