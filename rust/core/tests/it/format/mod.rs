//! Parsers of what strangers wrote.

mod header;
mod header_oracle;
mod index;
