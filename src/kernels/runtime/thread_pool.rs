//! Hands regions of tasks to threads of a rayon pool within a microsecond.
//!
//! A network of small layers is a sequence of regions a few microseconds apart, each of which takes
//! about ten microseconds. Waking a thread takes longer than such a region. A pool thread that has
//! helped with a region therefore spins for a moment ([`SPIN`]) in case another region follows, and
//! then returns to rayon, for which it is one job that ended. A region is published in memory that
//! the spinning threads poll, without a queue, an allocation or a lock.
//!
//! A region is published in one of a few cells and stays on its caller's stack. Helpers enter it
//! through the cell's count of active threads. The caller works too, then closes the cell and waits
//! until no helper is active. Regions of several callers, and regions inside tasks of other
//! regions, take one cell each; a caller that finds no free cell works alone. A caller waits only
//! for tasks that are running, never for a job that rayon has not started yet, so there is no
//! deadlock, however busy the pool is.
//!
//! Each pool has a [`Team`], the set of watchers of its regions. A region with too few watchers
//! spawns more. A watcher is counted from before it is spawned until it returns to rayon, so there
//! are never more watchers than the pool has threads besides the caller's.
//!
//! Where threads outnumber cores, a spinning thread takes a core from a working one. In that case
//! watchers return to rayon at once, no more watchers are spawned than there are cores, and a
//! caller sleeps while it waits for its helpers.
//!
//! A forked process has a copy of the memory of these threads, with locks and counts as they were
//! at the fork, but not the threads. There, every region runs on its caller alone.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The time a watcher spins for the next region before it returns to rayon.
const SPIN: Duration = Duration::from_micros(100);
/// The time after which a watcher returns to rayon even if regions keep coming, so that it delays
/// the pool's other jobs, and a job that waits further down this thread's stack, for no longer than
/// this. Spawning another watcher takes some microseconds, a thousandth of this time.
const TENURE: Duration = Duration::from_millis(5);
/// The number of checks for active helpers that a caller makes before it yields the core between
/// two checks; some hundred microseconds.
const LOOKS: u32 = 1 << 15;
/// Like [`LOOKS`], where threads outnumber cores: the number of checks before the caller sleeps.
const CROWDED_LOOKS: u32 = 100;
/// The number of regions of a team that can have helpers at the same time.
const CELLS: usize = 8;

/// Whether this process was forked from one that had called [`notice_forks`].
static FORKED: AtomicBool = AtomicBool::new(false);

/// The number of watchers of all teams, running or about to run.
static WATCHERS: AtomicUsize = AtomicUsize::new(0);

/// The number of cores this process may use; `usize::MAX` if the system does not report it.
pub(crate) static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(usize::MAX, usize::from));

thread_local! {
    /// The team of this thread's pool; `None` until the thread has run or watched a region.
    static TEAM: RefCell<Option<Arc<Team>>> = const { RefCell::new(None) };
}

/// Returns whether this process was forked from one with running threads, which do not exist here.
pub(crate) fn is_forked() -> bool {
    FORKED.load(Relaxed)
}

/// Makes [`is_forked`] return true in child processes from now on.
fn notice_forks() {
    #[cfg(all(unix, not(miri)))]
    {
        extern "C" fn in_child() {
            FORKED.store(true, Relaxed);
        }
        static ONCE: std::sync::Once = std::sync::Once::new();
        // SAFETY: the handler does only what is allowed after a fork: it writes to an atomic, and
        // neither locks nor allocates.
        ONCE.call_once(|| _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) });
    }
}

/// The regions of a pool and the threads that watch for them.
pub(crate) struct Team {
    /// The number of this team, in order of creation; of two teams of one pool, the older is kept.
    id: usize,
    /// The number of threads that a region may have, the caller included.
    threads: usize,
    /// The number of threads of the pool: as many, or one fewer if no thread of the pool ever is
    /// the caller of an outermost region.
    pool_threads: usize,
    /// For how long a watcher may stay; see [`TENURE`].
    tenure: Duration,
    cells: [Cell; CELLS],
    /// The number of regions published so far.
    epoch: AtomicU64,
    /// One bit for each watcher, set while it runs or is about to run. Bits of the last word beyond
    /// the pool's size are always set.
    watchers: Box<[AtomicU64]>,
    /// The lock of callers that sleep until their helpers have left; used only in a crowded team.
    lock: Mutex<()>,
    left: Condvar,
    /// The number of cores, if the threads outnumber them.
    crowded: Option<usize>,
}

/// A slot for one region, on cache lines that no other slot shares.
#[derive(Default)]
#[repr(align(128))]
struct Cell {
    taken: AtomicBool,
    /// The region while it is open, else null.
    region: AtomicPtr<Region>,
    /// The number of helpers that read the region or are about to.
    active: AtomicUsize,
}

/// The work of a region. Each of its threads calls `body` with its number, 0 for the caller; `body`
/// returns when no task is left to claim.
struct Region {
    /// The number of helpers that may still enter.
    slots: AtomicUsize,
    body: *const (dyn Fn(usize) + Sync),
    /// The payload of the first helper that panicked.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Team {
    /// Creates a team, without watchers, for a pool with this many threads.
    pub(crate) fn new(threads: usize) -> Arc<Team> {
        Team::with(threads, threads, TENURE)
    }

    /// Creates a team, without watchers, for a pool that serves one caller outside of it and runs
    /// nothing else: regions may have one thread more than the pool.
    pub(crate) fn of_private_pool(pool_threads: usize) -> Arc<Team> {
        Team::with(pool_threads + 1, pool_threads, Duration::MAX)
    }

    fn with(threads: usize, pool_threads: usize, tenure: Duration) -> Arc<Team> {
        static TEAMS: AtomicUsize = AtomicUsize::new(0);
        // Before any region, also for callers that only run on threads of pools of their own.
        notice_forks();
        let helpers = threads.saturating_sub(1);
        // Bits beyond the last helper's are set from the start.
        let word = |i: usize| AtomicU64::new(if helpers - 64 * i < 64 { u64::MAX << (helpers - 64 * i) } else { 0 });
        Arc::new(Team {
            id: TEAMS.fetch_add(1, Relaxed),
            threads,
            pool_threads,
            tenure,
            cells: Default::default(),
            epoch: AtomicU64::new(0),
            watchers: (0..helpers.div_ceil(64)).map(word).collect(),
            lock: Mutex::new(()),
            left: Condvar::new(),
            crowded: Some(*CORES).filter(|&cores| threads > cores),
        })
    }

    /// Returns the team of the rayon pool that this thread belongs to; `None` outside any pool.
    pub(crate) fn of_this_thread() -> Option<Arc<Team>> {
        rayon::current_thread_index()?;
        let threads = rayon::current_num_threads();
        TEAM.with_borrow_mut(|team| {
            // A thread that was lent to a pool (`use_current_thread`) may move to another.
            if team.as_ref().is_none_or(|team| team.pool_threads != threads) {
                *team = Some(Team::new(threads));
            }
            team.clone()
        })
    }

    /// Makes this the team of the current thread, which belongs to the team's pool.
    ///
    /// Rayon does not report which pool a thread belongs to, so threads that run their first
    /// regions at the same time each make a team. As they watch for each other's regions, they
    /// agree on the oldest. Until then each team has its own watchers, all of them on the pool's
    /// threads.
    fn adopt(self: &Arc<Team>) {
        TEAM.with_borrow_mut(|team| {
            if team.as_ref().is_none_or(|team| team.id > self.id || team.pool_threads != self.pool_threads) {
                *team = Some(Arc::clone(self));
            }
        });
    }

    /// Returns the number of threads that a region may have, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `body` on this thread, with number 0, and on up to `helpers` threads of the pool at
    /// the same time, each with its number; returns when all calls have returned. `pool` is the
    /// team's pool, or `None` for the pool that rayon's functions use on this thread.
    ///
    /// # Panics
    /// Panics if one of the calls panics, with its payload, after the others have returned.
    pub(crate) fn join(self: &Arc<Team>, pool: Option<&rayon::ThreadPool>, helpers: usize, body: &(dyn Fn(usize) + Sync)) {
        let free = |cell: &&Cell| !cell.taken.load(Relaxed) && !cell.taken.swap(true, Acquire);
        let Some(cell) = self.cells.iter().find(free) else { return body(0) };
        // SAFETY: the transmute erases the pointer's lifetime; only active helpers of the cell use
        // the pointer, and `Open::drop` returns only when there are none.
        let body_pointer = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync), *const (dyn Fn(usize) + Sync)>(body) };
        let region = Region { slots: AtomicUsize::new(helpers), body: body_pointer, panic: Mutex::new(None) };
        let open = Open { team: self, cell };
        cell.region.store((&raw const region).cast_mut(), SeqCst);
        self.announce(pool, helpers);
        body(0);
        drop(open);
        if let Some(payload) = region.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(payload);
        }
    }

    /// Signals watchers that a region has been published, and spawns the missing ones.
    fn announce(self: &Arc<Team>, pool: Option<&rayon::ThreadPool>, helpers: usize) {
        self.epoch.fetch_add(1, SeqCst);
        // The caller occupies one of the cores.
        let wanted = self.crowded.map_or(helpers, |cores| helpers.min(cores.max(2) - 1));
        // A watcher clears its bit before it reads the epoch for the last time: either it is
        // counted as missing here, or it sees the region.
        for _ in self.watching()..wanted {
            let Some(number) = self.reserve() else { break };
            let (team, spawner) = (Arc::clone(self), rayon::current_thread_index());
            // A job that rayon returns to the thread that spawned it, from that thread's own queue,
            // keeps the thread from its other work: such a watcher does not spin.
            let watch = move || team.watch(number, pool_thread_is_idle(spawner));
            match pool {
                Some(pool) => pool.spawn(watch),
                None => rayon::spawn(watch),
            }
        }
    }

    /// Returns the number of watchers that run or are about to run.
    fn watching(&self) -> usize {
        let free: u32 = self.watchers.iter().map(|word| word.load(SeqCst).count_zeros()).sum();
        self.threads.saturating_sub(1) - free as usize
    }

    /// Counts one more watcher and returns its number, 1 or more and unique; `None` if the pool has
    /// no thread left for it.
    fn reserve(&self) -> Option<usize> {
        for (i, word) in self.watchers.iter().enumerate() {
            let mut bits = word.load(Relaxed);
            while bits != u64::MAX {
                let bit = bits.trailing_ones() as usize;
                bits = word.fetch_or(1 << bit, SeqCst);
                if bits & (1 << bit) == 0 {
                    WATCHERS.fetch_add(1, Relaxed);
                    return Some(64 * i + bit + 1);
                }
            }
        }
        None
    }

    /// Removes the watcher with this number from the count.
    fn leave(&self, number: usize) {
        WATCHERS.fetch_sub(1, Relaxed);
        self.watchers[(number - 1) / 64].fetch_and(!(1 << ((number - 1) % 64)), SeqCst);
    }

    /// Helps with regions, as the watcher with this number, until none has come for a moment.
    fn watch(self: &Arc<Team>, number: usize, may_spin: bool) {
        self.adopt();
        let start = Instant::now();
        let mut seen = self.epoch.load(SeqCst);
        loop {
            self.help(number);
            match self.wait(seen, start, may_spin) {
                Some(epoch) => seen = epoch,
                None => break,
            }
        }
        self.leave(number);
        // A region that counted this watcher was published before the watcher left.
        if self.epoch.load(SeqCst) != seen {
            self.help(number);
        }
    }

    /// Waits until the epoch is beyond `seen` and returns it; `None` if it is time to return to
    /// rayon.
    fn wait(&self, seen: u64, start: Instant, may_spin: bool) -> Option<u64> {
        let now = Instant::now();
        if now - start > self.tenure {
            return None;
        }
        loop {
            for _ in 0..64 {
                let epoch = self.epoch.load(SeqCst);
                if epoch != seen {
                    return Some(epoch);
                }
                std::hint::spin_loop();
            }
            // The watchers of several teams together can outnumber the cores.
            if !may_spin || self.crowded.is_some() || WATCHERS.load(Relaxed) >= *CORES || now.elapsed() > SPIN {
                return None;
            }
        }
    }

    /// Helps with all open regions.
    fn help(&self, number: usize) {
        self.cells.iter().for_each(|cell| self.enter(cell, number));
    }

    /// Helps with the region of a cell, if there is one, as the watcher with this number.
    fn enter(&self, cell: &Cell, number: usize) {
        if cell.region.load(Relaxed).is_null() {
            return;
        }
        cell.active.fetch_add(1, SeqCst);
        let region = cell.region.load(SeqCst);
        // SAFETY: a region that is in its cell after the helper has been counted stays there until
        // the helper has left; see `Open::drop`.
        if let Some(region) = unsafe { region.as_ref() } {
            let slot = region.slots.fetch_update(Relaxed, Relaxed, |slots| slots.checked_sub(1));
            if slot.is_ok() {
                // SAFETY: as above; the caller of `join` keeps the body alive for as long as its
                // region.
                let body = unsafe { &*region.body };
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| body(number))) {
                    region.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
                }
            }
        }
        let others = cell.active.fetch_sub(1, SeqCst) - 1;
        if others == 0 && self.crowded.is_some() {
            let _guard = self.lock();
            self.left.notify_all();
        }
    }

    /// Sleeps until a closed cell has no active helpers.
    fn sleep_until_left(&self, cell: &Cell) {
        let mut guard = self.lock();
        // A helper notifies with the lock held, after it has left the count: either the count is 0
        // here, or the notification comes later.
        while cell.active.load(SeqCst) > 0 {
            guard = self.left.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether this pool thread, on which a job has just started, had no other work: the job
/// was not spawned by this thread.
fn pool_thread_is_idle(spawner: Option<usize>) -> bool {
    spawner.is_none() || rayon::current_thread_index() != spawner
}

/// A cell whose region is open. Dropping it, also during unwinding, closes the region and waits
/// until no helper is active.
struct Open<'a> {
    team: &'a Team,
    cell: &'a Cell,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.cell.region.store(std::ptr::null_mut(), SeqCst);
        let mut looks = 0u32;
        // A helper counts itself before it reads the region: either it is seen here, or it finds no
        // region.
        while self.cell.active.load(SeqCst) > 0 {
            if self.team.crowded.is_some() && looks >= CROWDED_LOOKS {
                self.team.sleep_until_left(self.cell);
                break;
            }
            looks = looks.saturating_add(1);
            // If other busy processes share these cores, the helper may be waiting for this one.
            if looks > LOOKS || looks.is_multiple_of(1024) { thread::yield_now() } else { std::hint::spin_loop() }
        }
        self.cell.taken.store(false, Release);
    }
}

// SAFETY: several threads read a region through shared references: its counters are atomic, the
// panic payload is behind a lock, and the body is `Sync`.
unsafe impl Sync for Region {}
