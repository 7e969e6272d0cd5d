//! The hand-over of regions of tasks to threads of a rayon pool, within a microsecond.
//!
//! A network of small layers is a row of regions a few microseconds apart, each over after about
//! ten. Waking a thread takes longer than such a region. So a thread of the pool that has helped
//! with a region spins for a moment ([`SPIN`]) in case another follows, and then returns to rayon,
//! for which it is one job that ended. A region is published in a place that spinning threads
//! watch: no queue, no allocation, no lock.
//!
//! A region is published in one of a few cells and stays on its caller's stack. Helpers enter it
//! through the cell's count of active threads; its caller works too, then closes the cell and waits
//! until no helper is active. Regions of several callers, and regions inside tasks of others, take
//! a cell each; a caller that finds none free works alone. A caller waits for running tasks only,
//! never for a job that rayon has not started yet, so nothing can lock up, however busy the pool.
//!
//! Each pool has a [`Team`], the watchers of its regions. A region that has too few of them spawns
//! some. A watcher is counted from before it is spawned until it returns to rayon, so that there
//! are never more than the pool has threads beside the caller's.
//!
//! Where the threads outnumber the cores, a thread that spins takes a core from one that works:
//! there, watchers return to rayon at once, no more of them are spawned than there are cores, and a
//! caller sleeps while it waits for its helpers.
//!
//! A forked process has the memory of these threads, with locks and counts as they stood, but not
//! the threads: there, every region runs on its caller alone.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// For how long a watcher spins for the next region before it returns to rayon.
const SPIN: Duration = Duration::from_micros(100);
/// After how long a watcher returns to rayon though regions keep coming: the pool's other jobs,
/// and one that waits further down this thread's stack, are not held up for longer. Spawning
/// another takes some microseconds, a thousandth of this.
const TENURE: Duration = Duration::from_millis(5);
/// How often a caller looks for its helpers to leave before it yields the core between two looks;
/// some hundred microseconds.
const LOOKS: u32 = 1 << 15;
/// As [`LOOKS`], where threads outnumber cores, before the caller sleeps.
const CROWDED_LOOKS: u32 = 100;
/// Regions of a team that can have helpers at the same time.
const CELLS: usize = 8;

/// Set in a process that was forked from one that had called [`notice_forks`].
static FORKED: AtomicBool = AtomicBool::new(false);

/// Watchers of all teams, running or about to.
static WATCHERS: AtomicUsize = AtomicUsize::new(0);

/// The cores that this process may use; without a limit where the system does not say.
pub(crate) static CORES: LazyLock<usize> = LazyLock::new(|| thread::available_parallelism().map_or(usize::MAX, usize::from));

thread_local! {
    /// The team of the pool that this thread belongs to, once it has run or watched a region.
    static TEAM: RefCell<Option<Arc<Team>>> = const { RefCell::new(None) };
}

/// Whether this process was forked from one whose threads had started, which it does not have.
pub(crate) fn is_forked() -> bool {
    FORKED.load(Relaxed)
}

/// From now on, [`is_forked`] is true in child processes.
pub(crate) fn notice_forks() {
    #[cfg(all(unix, not(miri)))]
    {
        extern "C" fn in_child() {
            FORKED.store(true, Relaxed);
        }
        static ONCE: std::sync::Once = std::sync::Once::new();
        // SAFETY: the handler does what a handler after a fork may do: it writes to an atomic, and
        // neither locks nor allocates.
        ONCE.call_once(|| _ = unsafe { libc::pthread_atfork(None, None, Some(in_child)) });
    }
}

/// The regions of a pool and the threads that watch for them.
pub(crate) struct Team {
    /// Teams are numbered as they are made; of two teams of one pool, the older stays.
    id: usize,
    /// Threads of the pool.
    threads: usize,
    cells: [Cell; CELLS],
    /// Grows with each region that is published.
    epoch: AtomicU64,
    /// One bit for each watcher, set while it runs or is about to, and in the last word for those
    /// beyond the pool's size.
    watchers: Box<[AtomicU64]>,
    /// Callers that sleep until their helpers have left; only in a crowded team.
    lock: Mutex<()>,
    left: Condvar,
    /// The number of cores where the threads outnumber them.
    crowded: Option<usize>,
}

/// A place for one region, on cache lines not shared with another.
#[derive(Default)]
#[repr(align(128))]
struct Cell {
    taken: AtomicBool,
    /// The region while it is open.
    region: AtomicPtr<Region>,
    /// Helpers that look at the region, or are about to.
    active: AtomicUsize,
}

/// What a region's threads do: each calls `body` with its number, of which the caller's is 0; it
/// returns when nothing is left to claim.
struct Region {
    /// How many more helpers may enter.
    slots: AtomicUsize,
    body: *const (dyn Fn(usize) + Sync),
    /// The payload of the first helper that panicked.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Team {
    /// A team for a pool with this many threads; none of them watches yet.
    pub(crate) fn new(threads: usize) -> Arc<Team> {
        static TEAMS: AtomicUsize = AtomicUsize::new(0);
        let helpers = threads.saturating_sub(1);
        // Bits beyond the last helper's are set from the start.
        let word = |i: usize| AtomicU64::new(if helpers - 64 * i < 64 { u64::MAX << (helpers - 64 * i) } else { 0 });
        Arc::new(Team {
            id: TEAMS.fetch_add(1, Relaxed),
            threads,
            cells: Default::default(),
            epoch: AtomicU64::new(0),
            watchers: (0..helpers.div_ceil(64)).map(word).collect(),
            lock: Mutex::new(()),
            left: Condvar::new(),
            crowded: Some(*CORES).filter(|&cores| threads > cores),
        })
    }

    /// The team of the rayon pool that this thread belongs to; `None` outside any.
    pub(crate) fn of_this_thread() -> Option<Arc<Team>> {
        rayon::current_thread_index()?;
        let threads = rayon::current_num_threads();
        TEAM.with_borrow_mut(|team| {
            // A thread that was lent to a pool (`use_current_thread`) may come to another.
            if team.as_ref().is_none_or(|team| team.threads != threads) {
                *team = Some(Team::new(threads));
            }
            team.clone()
        })
    }

    /// Makes this the team of the thread, which belongs to its pool.
    ///
    /// Rayon does not say which pool a thread belongs to, so threads that run their first regions
    /// at the same time each make a team. They agree as they watch for each other's regions: the
    /// oldest stays. Until then, each team has watchers, on the pool's threads as all are.
    fn adopt(self: &Arc<Team>) {
        TEAM.with_borrow_mut(|team| {
            if team.as_ref().is_none_or(|team| team.id > self.id || team.threads != self.threads) {
                *team = Some(Arc::clone(self));
            }
        });
    }

    /// Threads of the pool.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `body` here and on up to `helpers` threads of the pool at the same time, each with a
    /// number, here 0; returns when all calls have. `pool` is the team's, or `None` for the pool
    /// that rayon's functions use on this thread.
    ///
    /// # Panics
    /// When one of the calls does, with its payload, after the others have returned.
    pub(crate) fn join(self: &Arc<Team>, pool: Option<&rayon::ThreadPool>, helpers: usize, body: &(dyn Fn(usize) + Sync)) {
        let free = |cell: &&Cell| !cell.taken.load(Relaxed) && !cell.taken.swap(true, Acquire);
        let Some(cell) = self.cells.iter().find(free) else { return body(0) };
        // SAFETY: the pointer's lifetime is forgotten; only active helpers of the cell use it, and
        // `Open::drop` returns when there are none.
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

    /// Shows watchers that a region has been published, and spawns those that are missing.
    fn announce(self: &Arc<Team>, pool: Option<&rayon::ThreadPool>, helpers: usize) {
        self.epoch.fetch_add(1, SeqCst);
        // The caller has one of the cores.
        let wanted = self.crowded.map_or(helpers, |cores| helpers.min(cores.max(2) - 1));
        // A watcher counts itself out before it looks at the epoch for the last time: it is missed
        // here, or it sees the region.
        for _ in self.watching()..wanted {
            let Some(number) = self.reserve() else { break };
            let (team, spawner) = (Arc::clone(self), rayon::current_thread_index());
            // A job that comes back to the thread that spawned it, from that thread's own queue,
            // keeps it from what it has to do: it does not spin there.
            let watch = move || team.watch(number, pool_thread_is_idle(spawner));
            match pool {
                Some(pool) => pool.spawn(watch),
                None => rayon::spawn(watch),
            }
        }
    }

    /// How many watchers run or are about to.
    fn watching(&self) -> usize {
        let free: u32 = self.watchers.iter().map(|word| word.load(SeqCst).count_zeros()).sum();
        self.threads.saturating_sub(1) - free as usize
    }

    /// Counts one more watcher and gives it a number that no other has, 1 or more; `None` when the
    /// pool has no thread for it.
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

    /// Counts out the watcher of this number.
    fn leave(&self, number: usize) {
        WATCHERS.fetch_sub(1, Relaxed);
        self.watchers[(number - 1) / 64].fetch_and(!(1 << ((number - 1) % 64)), SeqCst);
    }

    /// Helps with regions as the watcher of this number until none has come for a moment.
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
        // A region that counted on this watcher has been published before the watcher left.
        if self.epoch.load(SeqCst) != seen {
            self.help(number);
        }
    }

    /// Returns the epoch when it is beyond `seen`, and `None` when it is time to return to rayon.
    fn wait(&self, seen: u64, start: Instant, may_spin: bool) -> Option<u64> {
        let now = Instant::now();
        if now - start > TENURE {
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
            // With several teams, their watchers together can outnumber the cores.
            if !may_spin || self.crowded.is_some() || WATCHERS.load(Relaxed) >= *CORES || now.elapsed() > SPIN {
                return None;
            }
        }
    }

    /// Helps with all regions that are open.
    fn help(&self, number: usize) {
        self.cells.iter().for_each(|cell| self.enter(cell, number));
    }

    /// Helps with the region of a cell, if there is one, as the watcher of this number.
    fn enter(&self, cell: &Cell, number: usize) {
        if cell.region.load(Relaxed).is_null() {
            return;
        }
        cell.active.fetch_add(1, SeqCst);
        let region = cell.region.load(SeqCst);
        // SAFETY: a region that is in its cell after the helper has been counted stays until the
        // helper has left; see `Open::drop`.
        if let Some(region) = unsafe { region.as_ref() } {
            let slot = region.slots.fetch_update(Relaxed, Relaxed, |slots| slots.checked_sub(1));
            if slot.is_ok() {
                // SAFETY: as above; the caller of `join` holds the body for as long as its region.
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

    /// Returns when a closed cell has no active helpers.
    fn sleep_until_left(&self, cell: &Cell) {
        let mut guard = self.lock();
        // A helper notifies with the lock held, after it has counted itself out: it is not seen
        // here, or its notice comes later.
        while cell.active.load(SeqCst) > 0 {
            guard = self.left.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether this thread of a pool, on which a job has just started, had nothing else to do: the job
/// was not spawned by this thread.
fn pool_thread_is_idle(spawner: Option<usize>) -> bool {
    spawner.is_none() || rayon::current_thread_index() != spawner
}

/// A cell whose region is open. Dropped, on unwinding too, it closes the region and waits until no
/// helper is active.
struct Open<'a> {
    team: &'a Team,
    cell: &'a Cell,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.cell.region.store(std::ptr::null_mut(), SeqCst);
        let mut looks = 0u32;
        // A helper has counted itself before it reads the region: it is seen here, or it sees none.
        while self.cell.active.load(SeqCst) > 0 {
            if self.team.crowded.is_some() && looks >= CROWDED_LOOKS {
                self.team.sleep_until_left(self.cell);
                break;
            }
            looks = looks.saturating_add(1);
            // With other busy processes on these cores, the helper may be waiting for this one.
            if looks > LOOKS || looks.is_multiple_of(1024) { thread::yield_now() } else { std::hint::spin_loop() }
        }
        self.cell.taken.store(false, Release);
    }
}

// SAFETY: several threads read a region through shared references: its counters are atomic, the
// panic is behind a lock, and the body is `Sync`.
unsafe impl Sync for Region {}
