//! An entry of the table of packed tensors. What passes is written the same way, and has a length for each frame.

#![no_main]

use libfuzzer_sys::fuzz_target;
use taskvec_core::codec::packed::Packed;
use taskvec_core::format::packed_table::Entry;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(entry) = Entry::parse(text) else { return };
    assert_eq!(entry.to_text(), text);
    let elements: u64 = entry.shape.iter().product();
    assert_eq!(elements.div_ceil(Packed::frame_elements(entry.float)), entry.lengths.len() as u64);
    let packed = entry.clone().packed("name", 0, 100);
    assert_eq!(packed.begin + packed.ends.last().copied().unwrap_or(0), 100 + entry.bytes());
});
