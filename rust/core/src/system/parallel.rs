//! A pool of threads whose results are taken over in order, one at a time.
//!
//! ```text
//! each worker:
//!     while there is an item left, and no error or request to stop:
//!         wait until item number < committed + ahead
//!         take the next item, compute its result
//!         put the result among the pending ones
//!         while the result of item number `committed` is pending:
//!             commit it; committed += 1
//! ```
//!
//! A worker commits while it holds the lock. So `commit` is never called twice at the same time, and whichever worker
//! fills a gap also commits the results that were waiting behind it.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::numeric::simd;

struct State<T, C> {
    /// The next item to take.
    next: u64,
    /// How many items are committed; all of them come before the others.
    committed: u64,
    /// Results that wait for those of earlier items.
    pending: BTreeMap<u64, T>,
    commit: C,
    failed: Option<Error>,
    panicked: bool,
}

struct Shared<'a, T, C> {
    state: Mutex<State<T, C>>,
    changed: Condvar,
    control: &'a Control,
    count: u64,
    /// How far workers may be ahead of the first item that is not committed. This limits the results that wait in
    /// memory.
    ahead: u64,
}

/// Runs `work` for the items `0..count` on `workers` threads, and hands each result to `commit`, in order, one at a
/// time.
///
/// Each thread gets its own scratch memory from `scratch`, and the default floating-point environment. After an error
/// or a request to stop, no new items are taken, and the call returns when the items in progress are done.
pub fn ordered<T: Send, S>(
    control: &Control,
    workers: usize,
    count: u64,
    scratch: impl Fn() -> S + Sync,
    work: impl Fn(u64, &mut S) -> Result<T> + Sync,
    commit: impl FnMut(u64, T) -> Result<()> + Send,
) -> Result<()> {
    let state = State { next: 0, committed: 0, pending: BTreeMap::new(), commit, failed: None, panicked: false };
    let ahead = 2 * workers as u64;
    let shared = Shared { state: Mutex::new(state), changed: Condvar::new(), control, count, ahead };
    thread::scope(|scope| {
        for _ in 0..workers.min(usize::try_from(count).unwrap_or(workers)) {
            scope.spawn(|| {
                simd::default_float_environment();
                let watch = PanicWatch(&shared);
                let mut scratch = scratch();
                while let Some(item) = shared.take() {
                    shared.finish(item, work(item, &mut scratch));
                }
                drop(watch);
            });
        }
    });
    let state = shared.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failed.map_or(Ok(()), Err)
}

impl<T, C: FnMut(u64, T) -> Result<()>> Shared<'_, T, C> {
    fn lock(&self) -> MutexGuard<'_, State<T, C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until another item may be taken, and returns its number. `None` if the job is over.
    fn take(&self) -> Option<u64> {
        let mut state = self.lock();
        loop {
            if state.failed.is_none()
                && let Err(stopped) = self.control.check()
            {
                state.failed = Some(stopped);
                self.changed.notify_all();
            }
            if state.failed.is_some() || state.panicked || state.next == self.count {
                return None;
            }
            if state.next < state.committed + self.ahead {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Stores the result of an item, and commits all results that are next in order.
    fn finish(&self, item: u64, result: Result<T>) {
        let mut state = self.lock();
        match result {
            Ok(value) => drop(state.pending.insert(item, value)),
            Err(error) => drop(state.failed.get_or_insert(error)),
        }
        // Finished items are committed even if another item failed, so that a later run can continue from there.
        while let Some(value) = {
            let at = state.committed;
            state.pending.remove(&at)
        } {
            let at = state.committed;
            if let Err(error) = (state.commit)(at, value) {
                state.failed.get_or_insert(error);
                break;
            }
            state.committed += 1;
        }
        self.changed.notify_all();
    }
}

/// Ends the other threads when one panics. The scope then passes the panic on.
struct PanicWatch<'a, 'b, T, C: FnMut(u64, T) -> Result<()>>(&'a Shared<'b, T, C>);

impl<T, C: FnMut(u64, T) -> Result<()>> Drop for PanicWatch<'_, '_, T, C> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().panicked = true;
            self.0.changed.notify_all();
        }
    }
}

/// Limits how many threads compute at the same time. More threads than that may read and write.
#[derive(Debug)]
pub struct Permits {
    free: Mutex<usize>,
    returned: Condvar,
}

impl Permits {
    /// `count` is the number of threads that may compute at the same time.
    pub fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), returned: Condvar::new() }
    }

    /// Runs `compute` once a permit is free.
    pub fn run<R>(&self, compute: impl FnOnce() -> R) -> R {
        struct Returned<'a>(&'a Permits);
        impl Drop for Returned<'_> {
            fn drop(&mut self) {
                *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                self.0.returned.notify_one();
            }
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        drop(free);
        let _returned = Returned(self);
        compute()
    }
}
