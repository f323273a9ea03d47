//! Whole jobs.

mod job;
mod live;
mod lora;
mod merge;
mod sweep;
