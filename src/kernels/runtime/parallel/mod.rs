//! Runs regions of tasks on the threads of a rayon pool and the calling thread.
//!
//! Work is divided by the size of the problem, never by the number of threads, and every task
//! writes a part that no other task touches, so results are bit-identical for any number of
//! threads. Each thread begins with a share of neighbouring tasks, the same from region to region,
//! and helps with the other shares when its own is done. A thread therefore mostly reads in the
//! next layer what it wrote in the previous one, from its own caches, which matters where the
//! caches of two cores are far apart. The caller works on its share instead of sleeping. Work that
//! takes less time than waking a thread stays on the caller.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use super::thread_pool::{Team, is_forked};

/// Below this many elementary operations (some microseconds of one core), a region runs on its
/// caller alone.
const WORTH_WAKING: usize = if cfg!(miri) { 100 } else { 100_000 };

/// The largest number of shares of a region; if there are more threads, several begin with the same
/// share.
const MOST_SHARES: usize = 16;

/// The largest number of threads; more than any machine can use.
const MOST_THREADS: usize = 4096;

/// A rayon pool and the team of its threads that watch for regions.
#[derive(Clone)]
struct Pool {
    team: Arc<Team>,
    /// `None` for the pool that rayon's functions use on the calling thread.
    rayon: Option<Arc<rayon::ThreadPool>>,
}

/// The threads for callers that are not on a thread of a rayon pool.
enum Threads {
    /// Rayon's global pool.
    Global,
    /// The caller alone.
    One,
    /// The pool of [`set_num_threads`].
    Own(Pool),
}

static THREADS: RwLock<Threads> = RwLock::new(Threads::Global);

/// The team of rayon's global pool, which this starts; `None` if its threads cannot be started. In
/// that case, operations run on their callers.
static GLOBAL: LazyLock<Option<Arc<Team>>> = LazyLock::new(|| {
    // Rayon panics if its global pool cannot be started.
    catch_unwind(rayon::current_num_threads).ok().map(Team::new)
});

impl Pool {
    /// Returns the pool that serves this thread: the one it belongs to, or else the pool of
    /// [`set_num_threads`], or else the global pool. `None` for one thread, the caller.
    fn current() -> Option<Pool> {
        if is_forked() {
            return None;
        }
        let global = |team| Pool { team, rayon: None };
        let pool = match Team::of_this_thread() {
            Some(team) => Some(global(team)),
            None => match &*THREADS.read().unwrap_or_else(PoisonError::into_inner) {
                Threads::Global => GLOBAL.clone().map(global),
                Threads::One => None,
                Threads::Own(pool) => Some(pool.clone()),
            },
        };
        pool.filter(|pool| pool.team.threads() > 1)
    }
}

/// Sets the number of threads that operations use if the caller is not on a thread of a rayon pool;
/// 0 returns to rayon's global pool. See [`crate::set_num_threads`].
///
/// # Errors
/// Fails if the system cannot start that many threads, or if `count` is above 1 and this process
/// was forked from one with running threads.
pub fn set_num_threads(count: usize) -> io::Result<()> {
    if is_forked() {
        // In a forked process, the lock below may be held by a thread that does not exist.
        let refused = || io::Error::other(format!("a forked process has one thread for operations, {count} were asked for"));
        return if count > 1 { Err(refused()) } else { Ok(()) };
    }
    if count > MOST_THREADS {
        return Err(io::Error::other(format!("{count} threads are more than the {MOST_THREADS} that make sense")));
    }
    let threads = match count {
        0 => Threads::Global,
        1 => Threads::One,
        _ => {
            // The caller is one of the threads. A thread more than cores would at times be woken on
            // the caller's core, and what helpers keep in their caches would move between cores.
            let builder = rayon::ThreadPoolBuilder::new().num_threads(count - 1).thread_name(|i| format!("convnet-{i}"));
            let pool = builder.build().map_err(io::Error::other)?;
            Threads::Own(Pool { team: Team::of_private_pool(count - 1), rayon: Some(Arc::new(pool)) })
        }
    };
    // The threads of the previous pool end when the last region on them has ended.
    let old = std::mem::replace(&mut *THREADS.write().unwrap_or_else(PoisonError::into_inner), threads);
    drop(old);
    Ok(())
}

/// Returns the number of threads that operations use when called from this thread, the caller
/// included: that of the rayon pool that this thread belongs to, or else of
/// [`set_num_threads`](crate::set_num_threads), or else of rayon's global pool, which this starts.
pub fn num_threads() -> usize {
    Pool::current().map_or(1, |pool| pool.team.threads())
}

/// A body behind a pointer. Behind `dyn Fn` each closure would be compiled twice, because such a
/// pointer can also consume its closure.
trait Body: Sync {
    fn run(&self, task: usize);
}

impl<F: Fn(usize) + Sync> Body for F {
    fn run(&self, task: usize) {
        self(task);
    }
}

/// Like [`Body`], for a part of a slice.
pub(crate) trait ChunkBody<T>: Sync {
    fn run(&self, index: usize, chunk: &mut [T]);
}

impl<T, F: Fn(usize, &mut [T]) + Sync> ChunkBody<T> for F {
    fn run(&self, index: usize, chunk: &mut [T]) {
        self(index, chunk);
    }
}

/// Runs `body(0), …, body(tasks - 1)` in any order, in parallel if `work`, the number of elementary
/// operations of the whole region, is large enough.
pub fn for_each(tasks: usize, work: usize, body: impl Fn(usize) + Sync) {
    run(tasks, work, false, &body);
}

/// Like [`for_each`], but each thread runs its tasks from the last to the first, so that it finds
/// its most recent data in its caches.
pub fn for_each_backwards(tasks: usize, work: usize, body: impl Fn(usize) + Sync) {
    run(tasks, work, true, &body);
}

/// The number of claimed tasks of a share, on a cache line that no other share uses.
#[derive(Default)]
#[repr(align(64))]
struct Claimed(AtomicUsize);

/// Runs [`for_each`]; compiled once for all bodies.
fn run(tasks: usize, work: usize, backwards: bool, body: &dyn Body) {
    let in_order = |task: usize, range: &Range<usize>| if backwards { range.end - 1 - task } else { range.start + task };
    let pool = if tasks < 2 || work < WORTH_WAKING { None } else { Pool::current() };
    let Some(pool) = pool else { return (0..tasks).for_each(|task| body.run(in_order(task, &(0..tasks)))) };
    let threads = pool.team.threads().min(tasks);
    let shares = threads.min(MOST_SHARES);
    let start = |share: usize| tasks / shares * share + share.min(tasks % shares);
    let claimed: [Claimed; MOST_SHARES] = Default::default();
    let from_own_share_on = |thread: usize| {
        for share in (0..shares).map(|i| (thread + i) % shares) {
            let range = start(share)..start(share + 1);
            // Load first: `fetch_add` takes exclusive ownership of the cache line.
            while claimed[share].0.load(Ordering::Relaxed) < range.len() {
                let task = claimed[share].0.fetch_add(1, Ordering::Relaxed);
                if task < range.len() {
                    body.run(in_order(task, &range));
                }
            }
        }
    };
    pool.team.join(pool.rayon.as_deref(), threads - 1, &from_own_share_on);
}

/// Runs `body(i, chunk)` for each run of `length` elements of `data` (the last may be shorter).
pub fn chunks_mut<T: Send>(data: &mut [T], length: usize, work: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    run_chunks(data, length, work, &body);
}

/// Runs [`chunks_mut`]; compiled once for all bodies.
pub(crate) fn run_chunks<T: Send>(data: &mut [T], length: usize, work: usize, body: &dyn ChunkBody<T>) {
    let total = data.len();
    let shared = Disjoint::new(data);
    for_each(total.div_ceil(length.max(1)), work, |i| {
        let start = i * length;
        // SAFETY: only task `i` touches the range `[i * length, (i + 1) * length)`.
        body.run(i, unsafe { shared.slice(start, length.min(total - start)) });
    });
}

/// A mutable slice whose disjoint parts different tasks may write.
pub(crate) struct Disjoint<'a, T> {
    pointer: *mut T,
    length: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `slice`, whose caller guarantees that parts do not overlap.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Disjoint { pointer: data.as_mut_ptr(), length: data.len(), lifetime: PhantomData }
    }

    /// Returns the number of elements.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Returns the part from `start` on, which several tasks may write.
    pub(crate) fn from(&self, start: usize) -> Disjoint<'a, T> {
        let start = start.min(self.length);
        Disjoint { pointer: self.pointer.wrapping_add(start), length: self.length - start, lifetime: PhantomData }
    }

    /// Returns the start of the part `[start, start + length)`, for disjoint writes of interleaved
    /// parts.
    #[inline(always)]
    pub(crate) fn pointer(&self, start: usize, length: usize) -> *mut T {
        assert!(start <= self.length && length <= self.length - start, "part outside the slice");
        // In bounds by the assertion.
        self.pointer.wrapping_add(start)
    }

    /// Returns the part `[start, start + length)`.
    ///
    /// # Safety
    /// No two parts that are alive at the same time may overlap.
    #[allow(clippy::mut_from_ref)] // the point of this type
    #[inline(always)]
    pub(crate) unsafe fn slice(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start <= self.length && length <= self.length - start, "part outside the slice");
        // SAFETY: in bounds by the assertion, exclusive by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), length) }
    }
}

#[cfg(test)]
mod tests;
