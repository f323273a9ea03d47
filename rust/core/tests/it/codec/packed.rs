//! Packed frames: what was packed comes back, from any place of the tensor, and strange bytes are refused.

use proptest::prelude::*;
use taskvec_core::codec::packed::frame::{Block, Packer};
use taskvec_core::codec::packed::palette::Palette;
use taskvec_core::codec::packed::unpack::Unpacker;
use taskvec_core::codec::packed::{Packed, frame_seed};
use taskvec_core::numeric::dtype::Float;
use taskvec_core::numeric::philox::block;
use taskvec_core::numeric::simd::Isa;
use xxhash_rust::xxh3::xxh3_64_with_seed;

const FRAME: usize = 1 << 20;
const SEED: u64 = 11;

/// The exact values of a tensor, as bits of float32, and the type of its dense form.
#[derive(Clone)]
struct Tensor {
    float: Float,
    exact: Vec<u32>,
}

/// Of 1,000 elements so many are not zero; of 1,000 of these so many are not bfloat16; there are so many magnitudes.
#[derive(Clone, Copy, Debug)]
struct Mix {
    changed: u32,
    wide: u32,
    kinds: u32,
}

impl Tensor {
    fn new(float: Float, elements: usize, mix: Mix, stream: u32) -> Self {
        let exact = (0..elements).map(|i| {
            let random = block([i as u32, 0, 0, 0], [stream, 7]);
            if random[0] % 1000 >= mix.changed {
                return 0;
            }
            let high = (random[1] % mix.kinds) << 16 | (random[2] & 1) << 31;
            let low = if random[3] % 1000 < mix.wide { random[2] >> 16 | 1 } else { 0 };
            high | low
        });
        Self { float, exact: exact.collect() }
    }

    /// The exact values of a frame.
    fn block(&self, frame: usize) -> Vec<u8> {
        let each = FRAME / self.float.size();
        let exact = &self.exact[frame * each..self.exact.len().min((frame + 1) * each)];
        exact.iter().flat_map(|bits| bits.to_le_bytes()).collect()
    }

    fn pack(&self, isa: Isa, palette: &Palette) -> (Packed, Vec<u8>) {
        let each = FRAME / self.float.size();
        let (mut packer, mut out, mut ends) = (Packer::default(), Vec::new(), Vec::new());
        for frame in 0..self.exact.len().div_ceil(each) {
            let exact = self.block(frame);
            let block = Block { float: self.float, exact: &exact };
            let seed = frame_seed(SEED, &palette.to_bytes(), frame as u64);
            let wide = packer.pack(isa, block, palette, seed, &mut out);
            assert_eq!(wide, exact.as_chunks::<4>().0.iter().filter(|x| x[..2] != [0, 0]).count() as u64);
            ends.push(out.len() as u64);
        }
        let wide = self.float == Float::Bf16 && self.exact.iter().any(|bits| bits & 0xFFFF != 0);
        let elements = self.exact.len() as u64;
        let before = palette.to_bytes();
        let magnitudes = palette.ranks() / 2;
        let begin = before.len() as u64;
        let packed = Packed {
            shard: 0,
            begin,
            float: self.float,
            wide,
            elements,
            ends: ends.into(),
            skip: 0,
            magnitudes,
            seed: SEED,
        };
        (packed, [before, out].concat())
    }

    /// The bytes of elements as they are unpacked.
    fn expected(&self, packed: &Packed, first: usize, end: usize) -> Vec<u8> {
        let exact = self.exact[first..end].iter();
        match packed.unpacked() {
            Float::F32 => exact.flat_map(|bits| bits.to_le_bytes()).collect(),
            _ => exact.flat_map(|bits| ((bits >> 16) as u16).to_le_bytes()).collect(),
        }
    }

    fn palette(&self) -> Palette {
        Packer::default().palette(Isa::Scalar, Block { float: self.float, exact: &self.block(0) })
    }
}

fn unpack(
    unpacker: &mut Unpacker,
    isa: Isa,
    packed: &Packed,
    bytes: &[u8],
    first: usize,
    end: usize,
) -> Option<Vec<u8>> {
    let mut out = vec![0xAA; (end - first) * packed.unpacked().size()];
    let reads = packed.reads(first as u64, end as u64);
    let stored = reads.map(|read| &bytes[read.begin as usize..(read.begin + read.len) as usize]);
    unpacker.unpack(isa, packed, first as u64, stored, &mut out)?;
    Some(out)
}

/// Where changes are rare, common, everywhere; values alike and all different; exceptions none, some, everywhere.
const MIXES: [Mix; 9] = [
    Mix { changed: 0, wide: 0, kinds: 1 },
    Mix { changed: 1, wide: 0, kinds: 40 },
    Mix { changed: 20, wide: 3, kinds: 100 },
    Mix { changed: 140, wide: 0, kinds: 300 },
    Mix { changed: 200, wide: 900, kinds: 100 },
    Mix { changed: 500, wide: 1, kinds: 30_000 },
    Mix { changed: 999, wide: 100, kinds: 200 },
    Mix { changed: 1000, wide: 0, kinds: 60 },
    Mix { changed: 1000, wide: 1000, kinds: 0x7FFF },
];

#[test]
fn what_was_packed_comes_back_from_any_place() {
    for (number, mix) in MIXES.into_iter().enumerate() {
        for float in [Float::Bf16, Float::F32] {
            let each = FRAME / float.size();
            let elements = 2 * each + 12_345;
            let tensor = Tensor::new(float, elements, mix, number as u32);
            let palettes = [Palette::default(), tensor.palette()];
            for palette in palettes {
                let (packed, bytes) = tensor.pack(Isa::Scalar, &palette);
                for isa in Isa::available() {
                    assert!(tensor.pack(isa, &palette).1 == bytes, "{} packs as scalar does", isa.name());
                    let mut unpacker = Unpacker::default();
                    for (first, end) in [(0, elements), (1, 70), (elements / 3, elements - 1), (each - 3, each + 3)] {
                        let found = unpack(&mut unpacker, isa, &packed, &bytes, first, end).unwrap();
                        assert!(found == tensor.expected(&packed, first, end), "{mix:?} {float:?}");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_tensor_comes_back(
        float in prop_oneof![Just(Float::Bf16), Just(Float::F32)],
        elements in 1usize..3000,
        changed in 0u32..1001,
        wide in prop_oneof![Just(0u32), 0u32..1001],
        kinds in 1u32..0x7FFF,
        stream in any::<u32>(),
        cut in any::<[prop::sample::Index; 2]>(),
    ) {
        let tensor = Tensor::new(float, elements, Mix { changed, wide, kinds }, stream);
        let (packed, bytes) = tensor.pack(Isa::detect(), &tensor.palette());
        let mut cut = cut.map(|index| index.index(elements + 1));
        cut.sort_unstable();
        let [first, end] = cut;
        prop_assume!(first < end);
        for isa in Isa::available() {
            let found = unpack(&mut Unpacker::default(), isa, &packed, &bytes, first, end).unwrap();
            prop_assert!(found == tensor.expected(&packed, first, end));
        }
    }

    /// A stranger can make a checksum that fits, so everything behind it is met with doubt as well.
    #[test]
    fn strange_bytes_are_refused_or_unpack_to_something(
        mix in 0..MIXES.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        narrow in any::<bool>(),
    ) {
        let tensor = Tensor::new(Float::Bf16, 5000, MIXES[mix], 1);
        let (mut packed, mut bytes) = tensor.pack(Isa::detect(), &Palette::default());
        prop_assume!(bytes.len() > 8);
        bytes.truncate(bytes.len() - 8);
        for (index, value) in flips {
            let at = index.index(bytes.len());
            bytes[at] ^= value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        bytes.extend(xxh3_64_with_seed(&bytes, frame_seed(SEED, &[], 0)).to_le_bytes());
        packed.ends = [bytes.len() as u64].into();
        packed.wide &= !narrow;
        let _ = unpack(&mut Unpacker::default(), Isa::detect(), &packed, &bytes, 0, 5000);
    }
}

#[test]
fn every_flipped_byte_and_every_cut_is_found() {
    for (number, mix) in MIXES.into_iter().enumerate().skip(1) {
        let tensor = Tensor::new(Float::Bf16, 700, mix, number as u32);
        let (packed, bytes) = tensor.pack(Isa::detect(), &Palette::default());
        let whole =
            |packed: &Packed, bytes: &[u8]| unpack(&mut Unpacker::default(), Isa::detect(), packed, bytes, 0, 700);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x10;
            assert!(whole(&packed, &flipped).is_none(), "byte {at} of {mix:?}");
            if at > 0 {
                let cut = Packed { ends: [at as u64].into(), ..packed.clone() };
                assert!(whole(&cut, &bytes[..at]).is_none(), "{at} bytes of {mix:?}");
            }
        }
    }
}

#[test]
fn frames_do_not_change_places() {
    let tensor = Tensor::new(Float::Bf16, FRAME, MIXES[2], 3);
    let (packed, bytes) = tensor.pack(Isa::detect(), &Palette::default());
    let (first, second) = bytes.split_at(packed.ends[0] as usize);
    let swapped = [second, first].concat();
    let ends = vec![second.len() as u64, bytes.len() as u64];
    let packed = Packed { ends: ends.into(), ..packed };
    assert!(unpack(&mut Unpacker::default(), Isa::detect(), &packed, &swapped, 0, FRAME).is_none());
}

#[test]
fn nothing_takes_nothing_and_a_block_is_never_much_longer_than_its_dense_form() {
    for (number, mix) in MIXES.into_iter().enumerate() {
        for float in [Float::Bf16, Float::F32] {
            let elements = FRAME / float.size();
            let (_, bytes) = Tensor::new(float, elements, mix, number as u32).pack(Isa::detect(), &Palette::default());
            let exact_size = if mix.wide > 0 { 4 } else { 2 };
            assert!(bytes.len() <= elements * exact_size + 9, "{mix:?}");
            assert_eq!(bytes.is_empty(), mix.changed == 0);
        }
    }
}

#[test]
fn a_palette_is_what_it_may_be() {
    let bytes = |list: &[u16]| list.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    let many: Vec<u16> = (0..127).collect();
    let palette = Palette::from_bytes(&bytes(&many)).unwrap();
    assert_eq!((palette.ranks(), palette.to_bytes()), (254, bytes(&many)));
    let too_many: Vec<u16> = (0..128).collect();
    for bad in [bytes(&too_many), bytes(&[5, 6, 5]), bytes(&[0x8001]), vec![1, 2, 3]] {
        assert_eq!(Palette::from_bytes(&bad), None);
    }
}
