//! How stored bytes are decoded to values, if they are not simply the values: the product of an
//! adapter's factors, packed frames, codes with scales.
//!
//! May import `system` and `numeric`. A new way to store a tensor is a new file here, and a variant in `derived`.

pub mod derived;
pub mod joined;
pub mod lora_product;
pub mod packed;
pub mod ranges;
pub mod scaled;
