//! What the allocator keeps of memory that is free.

#![allow(unsafe_code, reason = "the allocator's own function, which no safe crate offers")]

/// Gives free memory back to the system. Names that inputs turn out to have in common leave holes between those that
/// stay, and an index was parsed by another thread, whose free memory is of no use to this one. Without this, both would
/// be held for the rest of the job, beside its buffers.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it has no preconditions, and any thread may call it at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
