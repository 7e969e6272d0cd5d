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

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// For how long a worker watches for the next region before it sleeps.
const WATCH: Duration = Duration::from_micros(100);
/// Regions that can have helpers at the same time.
const SLOTS: usize = 8;

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
    ended: AtomicBool,
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
        let workers = Workers { shared: Arc::default(), count };
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
        let open = Open { slot };
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
        self.shared.ended.store(true, SeqCst);
        self.shared.announce(self.count);
    }
}

/// A slot whose region is open. Dropped, on unwinding too, it closes the region and waits for the guests.
struct Open<'a> {
    slot: &'a Slot,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.slot.region.store(std::ptr::null_mut(), SeqCst);
        let mut looks = 0;
        // A guest has counted itself before it reads the region: it is seen here, or it sees none.
        while self.slot.guests.load(SeqCst) > 0 {
            looks += 1;
            // Where threads outnumber cores, the guest may be waiting for this one.
            if looks % 1024 == 0 { thread::yield_now() } else { std::hint::spin_loop() }
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
            if helpers == 1 { self.wake.notify_one() } else { self.wake.notify_all() }
        }
    }

    /// The life of the worker of this number.
    fn work(&self, number: usize) {
        let mut seen = self.news.load(SeqCst);
        loop {
            self.slots.iter().for_each(|slot| slot.visit(number));
            if self.ended.load(SeqCst) {
                return;
            }
            seen = self.wait(seen);
        }
    }

    /// Returns when there is news beyond `seen`, and how much.
    fn wait(&self, seen: u64) -> u64 {
        let start = Instant::now();
        loop {
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
}

impl Slot {
    /// Helps with the region that is here, if one is, as the worker of this number.
    fn visit(&self, number: usize) {
        if self.region.load(Relaxed).is_null() {
            return;
        }
        self.guests.fetch_add(1, SeqCst);
        let region = self.region.load(SeqCst);
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
        self.guests.fetch_sub(1, SeqCst);
    }
}

// SAFETY: a region is read by several threads through shared references: its counters are atomic, the panic is behind a lock, and the body is `Sync`.
unsafe impl Sync for Region {}
