//! Folders, opened.

mod beside;
mod folders;
