//! The header of a safetensors file: the input as a whole file, and as the JSON text of a header.
//!
//! What passes is one layout without overlap or gap, is accepted by the `safetensors` crate, and can be written again.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use safetensors::SafeTensors;
use serde_json::Value;
use taskvec_core::format::header::Header;
use taskvec_core::numeric::dtype::Dtype;
use taskvec_fuzz::check_error;

/// The largest data section that is made for the other reader.
const MOST_DATA: u64 = 1 << 16;

fn check(header: &Header, file_len: u64) {
    let mut at = 0;
    for tensor in &header.tensors {
        assert_eq!(tensor.begin, at);
        assert!(tensor.end >= tensor.begin && !tensor.name.is_empty());
        let elements: u64 = tensor.shape.iter().product();
        assert_eq!(elements * tensor.dtype.bits(), (tensor.end - tensor.begin) * 8);
        at = tensor.end;
    }
    assert_eq!(header.data_start + at, file_len);

    let tensors: Vec<(&str, Dtype, &[u64])> =
        header.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.dtype, tensor.shape.as_slice())).collect();
    let written = Header::write(&tensors, &header.metadata);
    let again = Header::parse(&written[8..], written.len() as u64 + at, Path::new("again")).expect("is sound");
    assert_eq!((again.tensors.len(), &again.metadata), (header.tensors.len(), &header.metadata));
}

/// The length of the data section that the text promises, as a lenient reader sees it.
fn promised(json: &[u8]) -> u64 {
    let Ok(Value::Object(members)) = serde_json::from_slice(json) else { return 0 };
    let end = |entry: &Value| entry.get("data_offsets")?.get(1)?.as_u64();
    members.values().filter_map(end).max().unwrap_or(0)
}

fuzz_target!(|data: &[u8]| {
    let path = Path::new("model.safetensors");
    let file_len = data.len() as u64;
    let read = Header::read_parts(file_len, path, 64, |range, bytes| {
        bytes.extend_from_slice(&data[range.start as usize..range.end as usize]);
        Ok(())
    });
    match read {
        Ok((header, _)) => {
            check(&header, file_len);
            SafeTensors::read_metadata(data).expect("what passes here passes there");
        }
        Err(error) => check_error(&error),
    }

    let data_len = promised(data);
    let Some(file_len) = data_len.checked_add(8 + data.len() as u64) else { return };
    match Header::parse(data, file_len, path) {
        Ok(header) => {
            check(&header, file_len);
            if data_len <= MOST_DATA {
                let mut file = (data.len() as u64).to_le_bytes().to_vec();
                file.extend_from_slice(data);
                file.resize(file_len as usize, 0);
                SafeTensors::read_metadata(&file).expect("what passes here passes there");
            }
        }
        Err(error) => check_error(&error),
    }
});
