//! Where every byte of the output is placed: files, tensors, blocks. The layout is complete before any byte is
//! computed.

use std::ops::Range;

use crate::checkpoint::vector::Encoding;
use crate::codec::packed::FRAME;
use crate::codec::scaled::{Codes, Scaled};
use crate::error::{Error, Result};
use crate::format::blocks::BLOCK;
use crate::format::header::Header;
use crate::numeric::dtype::{Dtype, Float};
use crate::numeric::methods::Recipe;
use crate::plan::inputs::{At, Inputs};
use crate::plan::matching::{Match, vector_dtype};
use crate::plan::options::Options;
use crate::plan::output::Output;
use crate::plan::terms::Terms;

/// The most bytes of tensors in a file whose weights are no longer quantised. The Hub asks for less than 20 GB.
const MOST: u64 = 16 << 30;

const _: () = assert!(FRAME == BLOCK, "a block is packed to a frame");

/// Where the header of an output file comes from.
#[derive(Clone, Debug)]
pub enum HeaderSource {
    /// Copied from this shard of the first input.
    Shard(u32),
    /// New bytes, because tensors have another type, or some are missing. They are kept only if they are many: few are
    /// made again when they are written, because the headers of all files together may take more than the plan itself.
    New(Option<Vec<u8>>),
    /// Written at the end: the file is packed, and only then it is known how long its tensors are.
    Last,
}

/// One safetensors file of the output.
#[derive(Clone, Debug)]
pub struct OutFile {
    /// Its name in the output folder.
    pub name: String,
    /// Its length in bytes; of a packed file, that of the grid of its blocks.
    pub len: u64,
    /// Where its header comes from.
    pub header: HeaderSource,
    /// Where the tensors begin.
    pub data_start: u64,
    /// Its tensors in [`Layout::tensors`], first and one past the last, in file order.
    pub tensors: (usize, usize),
    /// The number of its first block, counted over all files.
    pub first_block: u64,
}

impl OutFile {
    /// How many blocks it has.
    pub fn blocks(&self) -> u64 {
        self.len.div_ceil(BLOCK)
    }
}

/// One tensor of the output.
#[derive(Clone, Debug)]
pub struct TensorPlan {
    /// Its index among the first input's tensors, which gives its name and shape.
    pub tensor: u32,
    /// The tensor whose values it starts from: itself, the embedding that a tied head repeats, or a donor's that is
    /// grafted.
    pub from: At,
    /// Its type in the output.
    pub dtype: Dtype,
    /// The number of its elements, as they are stored in the output.
    pub elements: u64,
    /// Whether it has codes, as in the first input: its values are quantised again.
    pub requantised: bool,
    /// Where it begins in its file. In a packed file every tensor begins with a block of its own.
    pub begin: u64,
    /// The summands; empty if the tensor is only copied or converted. In a merge, all operands but the first.
    pub terms: Terms,
    /// How it is merged, as an index in [`Layout::recipes`].
    pub recipe: Option<u32>,
}

/// What is done to a span of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bytes are copied.
    Copy,
    /// Values are rounded to another type.
    Convert,
    /// Terms are added (or, for a vector, subtracted).
    Combine,
}

/// Elements `[begin, end)` of a tensor that get the same treatment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first element.
    pub begin: u64,
    /// One past the last.
    pub end: u64,
    /// What is done to them.
    pub action: Action,
}

impl TensorPlan {
    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        // A header was accepted, so elements × bits is a whole number of bytes and does not overflow.
        self.elements * self.dtype.bits() / 8
    }

    /// How many blocks it has in a packed file, which are its frames.
    pub fn frames(&self) -> u64 {
        self.bytes().div_ceil(BLOCK)
    }

    /// Whether it gets arithmetic.
    pub fn is_combined(&self) -> bool {
        self.recipe.is_some() || !self.terms.is_empty()
    }

    /// The elements that get arithmetic: those of the longest term.
    pub fn combined(&self) -> u64 {
        if self.recipe.is_some() {
            return self.elements;
        }
        self.terms.iter().map(|term| term.elements).max().unwrap_or(0)
    }

    /// The spans of elements that get the same treatment, in order.
    ///
    /// With several vectors over different vocabularies, a span ends where one of the vectors ends.
    pub fn spans(&self, inputs: &Inputs) -> Vec<Span> {
        if self.requantised {
            let action = if self.terms.is_empty() { Action::Copy } else { Action::Combine };
            return vec![Span { begin: 0, end: self.elements, action }];
        }
        if self.recipe.is_some() {
            return vec![Span { begin: 0, end: self.elements, action: Action::Combine }];
        }
        let mut ends: Vec<u64> = self.terms.iter().map(|term| term.elements).collect();
        ends.sort_unstable();
        ends.dedup();
        let mut begin = 0;
        let mut spans = Vec::with_capacity(ends.len() + 1);
        for end in ends {
            spans.push(Span { begin, end, action: Action::Combine });
            begin = end;
        }
        if begin < self.elements {
            let kept = inputs.output == Output::Checkpoint && inputs.is_kept(self);
            let action = if kept { Action::Copy } else { Action::Convert };
            spans.push(Span { begin, end: self.elements, action });
        }
        spans
    }
}

/// The whole output.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Files in order of their names.
    pub files: Vec<OutFile>,
    /// Tensors in order of file, then of their offset in it.
    pub tensors: Vec<TensorPlan>,
    /// Whether any tensor's type differs from the first input's. Then headers, index and config are written anew.
    pub converted: bool,
    /// Whether the first input is quantised and the output is not.
    pub unquantised: bool,
    /// Whether each block is packed to a frame. Then offsets in files are those of the dense form.
    pub packed: bool,
    /// How tensors of a merge are merged.
    pub recipes: Vec<Recipe>,
}

impl Layout {
    /// Lays out the matched tensors as in the first input: the same shards, order and names.
    pub fn new(inputs: &Inputs, matches: Vec<Match>, options: &Options) -> Result<Self> {
        let base = inputs.base();
        let mut tensors = Vec::with_capacity(matches.len());
        for found in matches {
            let source = inputs.tensor(found.from);
            let dtype = out_dtype(inputs, &found, options)?;
            let elements = match inputs.output {
                Output::Checkpoint => source.elements(),
                Output::Vector => found.terms[0].elements,
            };
            let Match { tensor, from, terms } = found;
            let scaled = options.requantise.and_then(|_| inputs.scaled(from));
            let (dtype, elements) = match scaled {
                Some(Scaled { format, .. }) if format.codes == Codes::E4m3 => (Dtype::F8_E4M3, elements),
                Some(Scaled { format, .. }) => (Dtype::U8, elements / format.columns * format.stride / 2),
                None => (dtype, elements),
            };
            let requantised = scaled.is_some();
            tensors.push(TensorPlan { tensor, from, dtype, elements, requantised, begin: 0, terms, recipe: None });
        }
        let converted = tensors.iter().any(|plan: &TensorPlan| !inputs.is_kept(plan));
        let unquantised = base.is_quantised() && options.requantise.is_none();
        let packed = inputs.output == Output::Vector && options.encoding == Encoding::Packed;
        let recipes = Vec::new();
        let mut layout = Self { files: Vec::new(), tensors, converted, unquantised, packed, recipes };
        layout.place(inputs, converted || inputs.output == Output::Vector);
        Ok(layout)
    }

    /// Gives every tensor its place and every file its header.
    pub(super) fn place(&mut self, inputs: &Inputs, new_headers: bool) {
        let (output, base) = (inputs.output, inputs.base());
        let mut start = 0;
        let mut first_block = 0;
        let shard = |plan: &TensorPlan| inputs.outlined(plan.tensor).shard;
        // Weights that are no longer quantised grow, as do shards of a merge whose layers are repeated, and some files would
        // become too long to share.
        let most = if self.unquantised || inputs.outline.is_some() { MOST } else { u64::MAX };
        let cuts = cuts(&self.tensors, base.shards.len() as u32, shard, most);
        let renamed = cuts.len() > base.shards.len();
        for (number, end) in cuts {
            let shard = &base.shards[number as usize];
            // Neither a vector nor a checkpoint with new headers gets a file without tensors.
            if start == end && new_headers {
                continue;
            }
            let plans = &mut self.tensors[start..end];
            let (header, data_start) = if self.packed {
                (HeaderSource::Last, 0)
            } else if new_headers {
                let bytes = new_header(inputs, plans);
                let len = bytes.len() as u64;
                (HeaderSource::New((len > BLOCK).then_some(bytes)), len)
            } else {
                (HeaderSource::Shard(number), shard.data_start)
            };
            let mut at = data_start;
            for plan in plans {
                if self.packed {
                    at = at.next_multiple_of(BLOCK);
                }
                plan.begin = at;
                at += plan.bytes();
            }
            let name = shard.name.clone();
            self.files.push(OutFile { name, len: at, header, data_start, tensors: (start, end), first_block });
            first_block += at.div_ceil(BLOCK);
            start = end;
        }
        let count = self.files.len();
        for (place, file) in self.files.iter_mut().enumerate() {
            file.name = if renamed {
                format!("model-{:05}-of-{count:05}.safetensors", place + 1)
            } else {
                output.file_name(&file.name, place, count)
            };
        }
    }

    /// The number of blocks in all files.
    pub fn blocks(&self) -> u64 {
        self.files.last().map_or(0, |file| file.first_block + file.blocks())
    }

    /// The number of the first block of a file; with one past the last file, the number of all blocks.
    pub fn first_block(&self, file: usize) -> u64 {
        self.files.get(file).map_or_else(|| self.blocks(), |file| file.first_block)
    }

    /// The number of bytes in all files.
    pub fn bytes(&self) -> u64 {
        self.bytes_of(0..self.files.len())
    }

    /// The number of bytes in some of the files.
    pub fn bytes_of(&self, files: Range<usize>) -> u64 {
        self.files[files].iter().map(|file| file.len).sum()
    }

    /// The tensors of some of the files, as indices in [`Layout::tensors`].
    pub fn tensors_of(&self, files: Range<usize>) -> Range<usize> {
        let (begin, end) = self.files[files]
            .iter()
            .fold((usize::MAX, 0), |(begin, end), file| (begin.min(file.tensors.0), end.max(file.tensors.1)));
        begin.min(end)..end
    }

    /// The new header of a file.
    pub fn new_header(&self, file: &OutFile, inputs: &Inputs) -> Vec<u8> {
        new_header(inputs, &self.tensors[file.tensors.0..file.tensors.1])
    }

    /// Bytes of the headers that are held in memory, because they are not copied from a file.
    pub fn new_headers(&self) -> u64 {
        let header = |file: &OutFile| match &file.header {
            HeaderSource::New(Some(bytes)) => bytes.len() as u64,
            _ => 0,
        };
        self.files.iter().map(header).sum()
    }

    /// The most bytes of a header that is made again when it is written.
    pub fn made_again(&self) -> u64 {
        let again = |file: &&OutFile| matches!(file.header, HeaderSource::New(None));
        self.files.iter().filter(again).map(|file| file.data_start).max().unwrap_or(0)
    }

    /// The number of bytes of all tensors in their dense form.
    pub fn dense_bytes(&self) -> u64 {
        self.tensors.iter().map(TensorPlan::bytes).sum()
    }

    /// The index of the file that a block belongs to.
    pub fn file_of(&self, block: u64) -> usize {
        self.files.partition_point(|file| file.first_block + file.blocks() <= block)
    }

    /// The tensors of a file that have bytes in `[begin, end)`, as indices in [`Layout::tensors`].
    pub fn overlapping(&self, file: &OutFile, begin: u64, end: u64) -> Range<usize> {
        let (first, last) = file.tensors;
        let plans = &self.tensors[first..last];
        let from = plans.partition_point(|plan| plan.begin + plan.bytes() <= begin);
        let to = plans.partition_point(|plan| plan.begin < end);
        first + from..first + to.max(from)
    }
}

/// The header of a file with these tensors, and with what the first input's header says beside its own.
fn new_header(inputs: &Inputs, plans: &[TensorPlan]) -> Vec<u8> {
    let base = inputs.base();
    let tensor = |plan: &TensorPlan| inputs.outlined(plan.tensor);
    let shapes: Vec<_> = plans.iter().map(|plan| inputs.output.shape(tensor(plan), plan.elements)).collect();
    let entry = |(plan, shape)| -> (&str, Dtype, &[u64]) { (&tensor(plan).name, plan.dtype, shape) };
    let entries: Vec<_> = plans.iter().zip(shapes.iter().map(Vec::as_slice)).map(entry).collect();
    Header::write(&entries, plans.first().map_or(&[], |plan| &base.shard(tensor(plan)).metadata))
}

/// For each file of the output, the shard of the first input that its tensors come from, and one past its last tensor.
/// A shard is cut where it would have more than `most` bytes.
fn cuts(tensors: &[TensorPlan], shards: u32, shard: impl Fn(&TensorPlan) -> u32, most: u64) -> Vec<(u32, usize)> {
    let mut cuts = Vec::new();
    let mut at = 0;
    for number in 0..shards {
        let mut bytes = 0;
        while let Some(plan) = tensors.get(at).filter(|plan| shard(plan) == number) {
            if bytes > 0 && bytes + plan.bytes() > most {
                cuts.push((number, at));
                bytes = 0;
            }
            bytes += plan.bytes();
            at += 1;
        }
        cuts.push((number, at));
    }
    cuts
}

fn out_dtype(inputs: &Inputs, found: &Match, options: &Options) -> Result<Dtype> {
    let base = inputs.tensor(found.from);
    if inputs.output == Output::Vector {
        let float = |at| inputs.tensor(at).dtype.float().unwrap_or(Float::F32);
        let operands = found.terms.iter().flat_map(|term| [Some(term.minuend), term.subtrahend]).flatten();
        return Ok(vector_dtype(operands.map(float)).dtype());
    }
    match (options.dtype, base.dtype.float()) {
        (None, _) => Ok(inputs.own_dtype(found.from)),
        (Some(float), Some(_)) => Ok(float.dtype()),
        (Some(_), None) if base.dtype == Dtype::F64 => Err(Error::Mismatch(format!(
            "{}: tensor `{}` is F64, which --dtype does not convert; leave --dtype out or convert the checkpoint first",
            inputs.path(found.from).display(),
            base.name
        ))),
        (Some(_), None) => Ok(base.dtype),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_cut_only_where_they_are_too_long() {
        let plan = |tensor, elements| {
            let (dtype, terms) = (Dtype::BF16, Terms::default());
            let from = At { input: 0, tensor };
            TensorPlan { tensor, from, dtype, elements, requantised: false, begin: 0, terms, recipe: None }
        };
        // Of 20, 20, 60 and 20 bytes; the third alone is longer than 50.
        let tensors = [plan(0, 10), plan(1, 10), plan(2, 30), plan(3, 10)];
        let shard = |plan: &TensorPlan| u32::from(plan.tensor > 2);
        assert_eq!(cuts(&tensors, 2, shard, u64::MAX), [(0, 3), (1, 4)]);
        assert_eq!(cuts(&tensors, 2, shard, 50), [(0, 2), (0, 3), (1, 4)]);
        assert_eq!(cuts(&tensors, 2, shard, 1), [(0, 1), (0, 2), (0, 3), (1, 4)]);
        assert_eq!(cuts(&tensors, 3, shard, 50), [(0, 2), (0, 3), (1, 4), (2, 4)]);
    }
}
