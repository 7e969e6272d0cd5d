//! Worker threads that are there within a microsecond.
//!
//! A network of small layers is a row of regions a few microseconds apart, each over in some ten. Threads that sleep between them come too
//! late: waking one takes longer than the region. So a worker that runs out of work watches for more for a moment ([`WATCH`]) before it goes to
//! sleep, and a region is nothing but a place that watchers see: no queue, no allocation, no lock unless somebody sleeps.
//!
//! A region is published in one of a few slots and lives on its caller's stack. Workers that find it enter through the slot's count of guests;
//! its caller works too, then closes the slot and waits until the guests have left. Regions of several callers, and regions inside
//! tasks of others, each take a slot; who finds none free works alone. Nobody waits for anything but tasks that are running, so that nothing can
//! lock up.
//!
//! Where the threads outnumber the cores, a thread that watches takes a core from one that works: workers sleep at once, no more of them are
//! woken than there are cores, and a caller sleeps while it waits for its guests.
//!
//! A forked process has the memory of these threads, with locks and counts as they stood, but not the threads: there, every region is the
//! caller's alone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// For how long a worker watches for the next region before it sleeps.
const WATCH: Duration = Duration::from_micros(100);
/// How often a caller looks for its guests to leave before it lets others have the core between two looks; some hundred microseconds.
const LOOKS: u32 = 1 << 15;
/// As [`LOOKS`], where threads outnumber cores, before the caller sleeps.
const CROWDED_LOOKS: u32 = 100;
/// Regions that can have helpers at the same time.
const SLOTS: usize = 8;

/// Set in a process that was forked from one with workers.
static FORKED: AtomicBool = AtomicBool::new(false);

/// Whether this process was forked from one with workers, which it does not have.
pub(super) fn is_forked() -> bool {
    FORKED.load(Relaxed)
}

/// From now on, [`is_forked`] is true in child processes.
fn notice_forks() {
    #[cfg(all(unix, not(miri)))]
    {
        extern "C" fn in_child() {
            FORKED.store(true, Relaxed);
        }
        static ONCE: std::sync::Once = std::sync::Once::new();
        // SAFETY: the handler does what a handler after a fork may do: it writes to an atomic, and neither locks nor allocates.
        ONCE.call_once(|| _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) });
    }
}

/// Threads that help with regions. Dropped, they end.
pub(super) struct Workers {
    shared: Arc<Shared>,
    count: usize,
}

#[derive(Default)]
struct Shared {
    slots: [Slot; SLOTS],
    /// Grows with each region that is published, and when the threads are to end.
    news: AtomicU64,
    /// Workers that sleep, or are about to: they look at `news` once more, with the lock held.
    sleepers: AtomicUsize,
    lock: Mutex<()>,
    wake: Condvar,
    /// The last guest has left a slot; only where threads outnumber cores.
    left: Condvar,
    ended: AtomicBool,
    /// The number of cores where the threads, the caller's included, outnumber them.
    crowded: Option<usize>,
}

/// A place for one region, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct Slot {
    taken: AtomicBool,
    /// The region while it is open.
    region: AtomicPtr<Region>,
    /// Workers that look at the region, or are about to.
    guests: AtomicUsize,
}

/// What a region's threads do: each calls `body` with its number, of which the caller's is 0; it returns when nothing is left to claim.
struct Region {
    /// How many more helpers may come.
    seats: AtomicUsize,
    body: *const (dyn Fn(usize) + Sync),
    /// What a helper's call panicked with, of the first that did.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Workers {
    /// Starts this many threads.
    pub(super) fn start(count: usize) -> std::io::Result<Workers> {
        notice_forks();
        let crowded = thread::available_parallelism().ok().map(usize::from).filter(|&cores| count >= cores);
        let workers = Workers { shared: Arc::new(Shared { crowded, ..Shared::default() }), count };
        for i in 0..count {
            let shared = Arc::clone(&workers.shared);
            // Should one fail to start, dropping `workers` ends the others.
            thread::Builder::new().name(format!("convnet-{i}")).spawn(move || shared.work(i + 1))?;
        }
        Ok(workers)
    }

    /// How many threads there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Calls `body` here and on up to `helpers` workers at the same time, each with its number, here 0; returns when all calls have.
    ///
    /// # Panics
    /// When one of the calls does, with what it panicked with, after the others have returned.
    pub(super) fn join(&self, helpers: usize, body: &(dyn Fn(usize) + Sync)) {
        let free = |slot: &&Slot| !slot.taken.load(Relaxed) && !slot.taken.swap(true, Acquire);
        let Some(slot) = self.shared.slots.iter().find(free) else { return body(0) };
        // SAFETY: the pointer's lifetime is forgotten; it is used by guests of the slot alone, and `Open::drop` returns when there are none.
        let body_pointer = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(body) };
        let region = Region { seats: AtomicUsize::new(helpers), body: body_pointer, panic: Mutex::new(None) };
        let open = Open { shared: &self.shared, slot };
        slot.region.store((&raw const region).cast_mut(), SeqCst);
        self.shared.announce(helpers);
        body(0);
        drop(open);
        if let Some(payload) = region.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if !is_forked() {
            self.shared.ended.store(true, SeqCst);
            self.shared.announce(usize::MAX);
        }
    }
}

/// A slot whose region is open. Dropped, on unwinding too, it closes the region and waits for the guests.
struct Open<'a> {
    shared: &'a Shared,
    slot: &'a Slot,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.slot.region.store(std::ptr::null_mut(), SeqCst);
        let mut looks = 0u32;
        // A guest has counted itself before it reads the region: it is seen here, or it sees none.
        while self.slot.guests.load(SeqCst) > 0 {
            if self.shared.crowded.is_some() && looks >= CROWDED_LOOKS {
                self.shared.sleep_until_left(self.slot);
                break;
            }
            looks = looks.saturating_add(1);
            // With other busy processes on these cores, the guest may be waiting for this one.
            if looks > LOOKS || looks.is_multiple_of(1024) { thread::yield_now() } else { std::hint::spin_loop() }
        }
        self.slot.taken.store(false, Release);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells watchers that there is something new, and wakes as many sleepers as there is use for.
    fn announce(&self, helpers: usize) {
        self.news.fetch_add(1, SeqCst);
        // A worker has counted itself as a sleeper before it looks at the news for the last time: it is seen here, or it sees them.
        if self.sleepers.load(SeqCst) > 0 {
            let _guard = self.lock();
            match self.crowded {
                // The caller has one of the cores.
                Some(cores) if helpers >= cores && helpers < usize::MAX => (0..cores.max(2) - 1).for_each(|_| self.wake.notify_one()),
                _ if helpers == 1 => self.wake.notify_one(),
                _ => self.wake.notify_all(),
            }
        }
    }

    /// Returns when a closed slot has no guests.
    fn sleep_until_left(&self, slot: &Slot) {
        let mut guard = self.lock();
        // A guest notifies with the lock held, after it has counted itself out: it is not seen here, or its notice comes later.
        while slot.guests.load(SeqCst) > 0 {
            guard = self.left.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The life of the worker of this number.
    fn work(&self, number: usize) {
        let mut seen = self.news.load(SeqCst);
        loop {
            self.slots.iter().for_each(|slot| self.visit(slot, number));
            if self.ended.load(SeqCst) {
                return;
            }
            seen = self.wait(seen);
        }
    }

    /// Returns when there is news beyond `seen`, and how much.
    fn wait(&self, seen: u64) -> u64 {
        let start = Instant::now();
        while self.crowded.is_none() {
            for _ in 0..64 {
                let news = self.news.load(SeqCst);
                if news != seen {
                    return news;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > WATCH {
                break;
            }
        }
        let mut guard = self.lock();
        self.sleepers.fetch_add(1, SeqCst);
        while self.news.load(SeqCst) == seen {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, SeqCst);
        self.news.load(SeqCst)
    }

    /// Helps with the region of a slot, if there is one, as the worker of this number.
    fn visit(&self, slot: &Slot, number: usize) {
        if slot.region.load(Relaxed).is_null() {
            return;
        }
        slot.guests.fetch_add(1, SeqCst);
        let region = slot.region.load(SeqCst);
        // SAFETY: a region that is in its slot after the guest has been counted stays until the guest has left; see `Open::drop`.
        if let Some(region) = unsafe { region.as_ref() } {
            let seat = region.seats.fetch_update(Relaxed, Relaxed, |seats| seats.checked_sub(1));
            if seat.is_ok() {
                // SAFETY: as above; the caller of `join` holds the body for as long as its region.
                let body = unsafe { &*region.body };
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| body(number))) {
                    region.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
                }
            }
        }
        let others = slot.guests.fetch_sub(1, SeqCst) - 1;
        if others == 0 && self.crowded.is_some() {
            let _guard = self.lock();
            self.left.notify_all();
        }
    }
}

// SAFETY: a region is read by several threads through shared references: its counters are atomic, the panic is behind a lock, and the body is `Sync`.
unsafe impl Sync for Region {}
