//! Keeps a truncated or failing mapped input from killing the process.
//!
//! Reading a mapped page that the file no longer has raises SIGBUS, which ends the interpreter. While a job holds
//! mappings, a signal handler handles faults inside *our* ranges only: it maps a page of zeros in place of the lost
//! page, and sets the range's flag, which the job turns into an error. Every other fault goes to the previous handler
//! (such as Python's faulthandler). When no range is watched any more, the previous handler is restored.

#![allow(unsafe_code, reason = "signal handlers exist only as raw system calls")]

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{io, mem, ptr};

struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    hit: AtomicBool,
}

/// The most mapped files, more than any checkpoint has shards. The table is fixed, because a signal handler may neither
/// lock nor allocate.
const SLOTS: usize = 4096;
static TABLE: [Slot; SLOTS] =
    [const { Slot { start: AtomicUsize::new(0), end: AtomicUsize::new(0), hit: AtomicBool::new(false) } }; SLOTS];
/// How many ranges are watched, and the handler to restore when none is left.
static WATCHED: Mutex<(usize, Option<libc::sigaction>)> = Mutex::new((0, None));
/// A copy of the previous handler, which our signal handler can read without a lock.
static OLD_HANDLER: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);
static OLD_FLAGS: AtomicI32 = AtomicI32::new(0);
static PAGE: AtomicUsize = AtomicUsize::new(4096);

/// A mapped range that is watched until this is dropped. Drop it before the mapping itself.
#[derive(Debug)]
pub struct Watch(usize);

impl Watch {
    /// Watches `len` bytes from `start`, the address of a mapping; installs the handler if this is the first range.
    pub fn new(start: usize, len: usize) -> io::Result<Self> {
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        let free = TABLE.iter().position(|slot| slot.start.load(Ordering::Relaxed) == 0);
        let place = free.ok_or_else(|| io::Error::other("too many files are mapped at once; use --io pread"))?;
        if watched.0 == 0 {
            watched.1 = install()?.or(watched.1);
        }
        watched.0 += 1;
        let slot = &TABLE[place];
        slot.hit.store(false, Ordering::Relaxed);
        // The last page of a mapping is watched completely: a fault anywhere in it is ours.
        slot.end.store(start + len.next_multiple_of(PAGE.load(Ordering::Relaxed)), Ordering::Relaxed);
        slot.start.store(start, Ordering::Release);
        Ok(Self(place))
    }

    /// Whether a page of this range was lost since the watch began.
    pub fn hit(&self) -> bool {
        TABLE[self.0].hit.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &TABLE[self.0];
        slot.start.store(0, Ordering::Release);
        slot.end.store(0, Ordering::Release);
        watched.0 -= 1;
        if watched.0 == 0
            && let Some(old) = watched.1
        {
            restore(&old);
        }
    }
}

/// Installs the handler, and returns the one that it replaced; `None` if ours was still installed.
fn install() -> io::Result<Option<libc::sigaction>> {
    // SAFETY: plain system calls on zero-initialised structs, which are valid values of these C types.
    unsafe {
        let page = libc::sysconf(libc::_SC_PAGESIZE);
        PAGE.store(usize::try_from(page).unwrap_or(4096), Ordering::Relaxed);
        let mut old: libc::sigaction = mem::zeroed();
        if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut old) != 0 {
            return Err(io::Error::last_os_error());
        }
        // Ours may still be installed, if somebody's later handler kept it from being removed after a job. It must not
        // become its own previous handler.
        if old.sa_sigaction == on_sigbus as *const () as usize {
            return Ok(None);
        }
        OLD_HANDLER.store(old.sa_sigaction, Ordering::Relaxed);
        OLD_FLAGS.store(old.sa_flags, Ordering::Relaxed);
        let mut new: libc::sigaction = mem::zeroed();
        new.sa_sigaction = on_sigbus as *const () as usize;
        new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        if libc::sigaction(libc::SIGBUS, &raw const new, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Some(old))
    }
}

/// Restores the previous handler. If somebody installed another handler after ours, ours stays, because theirs may call
/// it.
fn restore(old: &libc::sigaction) {
    // SAFETY: as in `install`; `old` is what the system gave us there.
    unsafe {
        let mut current: libc::sigaction = mem::zeroed();
        if libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut current) == 0
            && current.sa_sigaction == on_sigbus as *const () as usize
        {
            libc::sigaction(libc::SIGBUS, old, ptr::null_mut());
        }
    }
}

/// The signal handler. It uses only atomics and system calls, because a handler may call nothing that locks or
/// allocates.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the system calls us with a valid `info`. A page is replaced only inside a range that a live `Watch`
    // names, which its owner keeps mapped for that long. The old handler is called with the arguments its flags promise
    // it.
    unsafe {
        let address = (*info).si_addr() as usize;
        let page = PAGE.load(Ordering::Relaxed);
        for slot in &TABLE {
            let start = slot.start.load(Ordering::Acquire);
            if start == 0 || address < start || address >= slot.end.load(Ordering::Acquire) {
                continue;
            }
            let lost = (address & !(page - 1)) as *mut libc::c_void;
            let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            if libc::mmap(lost, page, libc::PROT_READ, flags, -1, 0) == libc::MAP_FAILED {
                break;
            }
            slot.hit.store(true, Ordering::Release);
            return;
        }
        let old = OLD_HANDLER.load(Ordering::Relaxed);
        if old == libc::SIG_DFL || old == libc::SIG_IGN {
            // Restore the default and return: the instruction faults again, and the process ends as it would without
            // us.
            libc::signal(signal, libc::SIG_DFL);
        } else if OLD_FLAGS.load(Ordering::Relaxed) & libc::SA_SIGINFO != 0 {
            let call: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = mem::transmute(old);
            call(signal, info, context);
        } else {
            let call: extern "C" fn(libc::c_int) = mem::transmute(old);
            call(signal);
        }
    }
}
