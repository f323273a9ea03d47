//! What tests of several wings share.

pub mod elsewhere;
pub mod folder;
pub mod seeded;
