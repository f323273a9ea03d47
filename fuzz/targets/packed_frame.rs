//! A packed frame, under a checksum that fits. What is accepted unpacks to the same values from any place, and its values
//! survive being packed again.
//!
//! The input is two bytes for the number of elements, one for the kind of tensor, one for how many magnitudes its palette
//! has, the palette, and the frame.

#![no_main]

use libfuzzer_sys::fuzz_target;
use taskvec_core::codec::packed::frame::{Block, Packer};
use taskvec_core::codec::packed::palette::Palette;
use taskvec_core::codec::packed::unpack::Unpacker;
use taskvec_core::codec::packed::{Packed, frame_seed};
use taskvec_core::numeric::dtype::Float;
use taskvec_core::numeric::simd::Isa;
use xxhash_rust::xxh3::xxh3_64_with_seed;

fn unpack(packed: &Packed, stored: [&[u8]; 2], first: u64, end: u64) -> Option<Vec<u8>> {
    let mut out = vec![0xAA; (end - first) as usize * packed.unpacked().size()];
    Unpacker::default().unpack(Isa::detect(), packed, first, stored, &mut out)?;
    Some(out)
}

fuzz_target!(|data: &[u8]| {
    let Some(([low, high, kind, magnitudes], rest)) = data.split_first_chunk() else { return };
    let elements = u64::from(u16::from_le_bytes([*low, *high])) + 1;
    let magnitudes = *magnitudes % 128;
    let Some((palette, frame)) = rest.split_at_checked(2 * usize::from(magnitudes)) else { return };
    let float = if kind & 1 == 0 { Float::Bf16 } else { Float::F32 };
    let wide = float == Float::Bf16 && kind & 2 != 0;
    let mut frame = frame.to_vec();
    frame.extend(xxh3_64_with_seed(&frame, frame_seed(1, palette, 0)).to_le_bytes());
    let (shard, begin, seed) = (0, palette.len() as u64, 1);
    let packed =
        Packed { shard, begin, float, wide, elements, ends: [frame.len() as u64].into(), skip: 0, magnitudes, seed };
    let Some(whole) = unpack(&packed, [palette, &frame], 0, elements) else { return };
    let size = packed.unpacked().size();
    let part = unpack(&packed, [palette, &frame], elements / 3, elements).expect("was accepted");
    assert_eq!(part, whole[elements as usize / 3 * size..]);

    let exact: Vec<u8> = match size {
        4 => whole.clone(),
        _ => whole.as_chunks::<2>().0.iter().flat_map(|&[a, b]| [0, 0, a, b]).collect(),
    };
    let (mut again, own) = (Vec::new(), Palette::default());
    let block = Block { float, exact: &exact };
    Packer::default().pack(Isa::detect(), block, &own, frame_seed(1, &[], 0), &mut again);
    let packed = Packed { begin: 0, ends: [again.len() as u64].into(), magnitudes: 0, ..packed };
    assert_eq!(unpack(&packed, [&[], &again], 0, elements).expect("was just packed"), whole);
});
