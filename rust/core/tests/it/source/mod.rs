//! Bytes that come in streams, or from elsewhere.

mod arrivals;
mod remote;
mod stream;
