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

use super::thread_pool::{Team, is_forked, notice_forks};

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
    notice_forks();
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
            notice_forks();
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
    pub(crate) unsafe fn slice(&self, start: usize, length: usize) -> &mut [T] {
        assert!(start <= self.length && length <= self.length - start, "part outside the slice");
        // SAFETY: in bounds by the assertion, exclusive by this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), length) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::thread_pool::CORES;
    use super::*;

    /// Serialises tests that set the number of threads.
    static SETTING: std::sync::Mutex<()> = std::sync::Mutex::new(());

    #[test]
    fn nested_and_concurrent_regions_end_and_visit_every_task() {
        let _setting = SETTING.lock().unwrap_or_else(PoisonError::into_inner);
        for threads in [1, 2, 5, 0] {
            set_num_threads(threads).unwrap();
            std::thread::scope(|scope| {
                for _ in 0..6 {
                    scope.spawn(|| {
                        for _ in 0..if cfg!(miri) { 2 } else { 200 } {
                            let sum = AtomicUsize::new(0);
                            for_each(7, usize::MAX, |i| {
                                for_each(5, usize::MAX, |j| {
                                    sum.fetch_add(10 * i + j, Ordering::Relaxed);
                                });
                            });
                            assert_eq!(sum.into_inner(), 5 * 10 * 21 + 7 * 10);
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn threads_help_after_sleeping_and_after_their_number_changes() {
        let _setting = SETTING.lock().unwrap_or_else(PoisonError::into_inner);
        for threads in [3, 2, 0, 4] {
            set_num_threads(threads).unwrap();
            for pause in [0, 5] {
                std::thread::sleep(std::time::Duration::from_millis(pause));
                // Each of two tasks waits for the other: with one thread this would never end.
                let barrier = std::sync::Barrier::new(2);
                if num_threads() > 1 {
                    for_each(2, usize::MAX, |_| {
                        barrier.wait();
                    });
                }
            }
        }
    }

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    /// Returns the sum of `0..100`, computed by as many tasks.
    fn sum() -> usize {
        let sum = AtomicUsize::new(0);
        for_each(100, usize::MAX, |i| _ = sum.fetch_add(i, Ordering::Relaxed));
        sum.into_inner()
    }

    #[test]
    fn regions_run_on_pool_of_caller() {
        let (two, three) = (pool(2), pool(3));
        let run_both = |threads: usize| {
            assert_eq!(num_threads(), threads);
            // Each of two tasks waits for the other: with one thread this would never end.
            let barrier = std::sync::Barrier::new(2);
            for_each(2, usize::MAX, |_| {
                barrier.wait();
                assert_eq!(rayon::current_num_threads(), threads);
                assert!(rayon::current_thread_index().is_some() && num_threads() == threads);
            });
        };
        for _ in 0..if cfg!(miri) { 2 } else { 100 } {
            two.install(|| run_both(2));
            std::thread::scope(|scope| {
                scope.spawn(|| two.install(|| run_both(2)));
                scope.spawn(|| three.install(|| run_both(3)));
            });
            two.install(|| three.install(|| run_both(3)));
        }
        assert_eq!(pool(1).install(num_threads), 1);
    }

    #[test]
    fn region_ends_when_no_other_thread_of_its_pool_is_free() {
        let (pool, blocked) = (pool(3), std::sync::Barrier::new(3));
        pool.in_place_scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|_| {
                    blocked.wait();
                    blocked.wait();
                });
            }
            blocked.wait();
            // The third thread is the caller's.
            assert_eq!(pool.install(|| [sum(), sum()]), [4950; 2]);
            blocked.wait();
        });
    }

    #[test]
    fn regions_inside_parallel_iterators_and_joins_end_and_visit_every_task() {
        use rayon::prelude::*;
        for threads in [1, 2, 3, 8] {
            pool(threads).install(|| {
                for _ in 0..if cfg!(miri) { 1 } else { 50 } {
                    assert!((0..20).into_par_iter().map(|_| sum()).all(|sum| sum == 4950));
                    assert_eq!(rayon::join(sum, || rayon::join(sum, sum)), (4950, (4950, 4950)));
                    let sums = AtomicUsize::new(0);
                    for_each(5, usize::MAX, |_| _ = sums.fetch_add(sum(), Ordering::Relaxed));
                    assert_eq!(sums.into_inner(), 5 * 4950);
                }
            });
        }
    }

    #[test]
    fn other_jobs_of_pool_run_while_regions_keep_coming() {
        let (pool, done) = (pool(2), std::sync::atomic::AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pool.install(|| {
                    while !done.load(Ordering::Relaxed) {
                        sum();
                    }
                });
            });
            // By then both threads are most likely busy with regions.
            std::thread::sleep(std::time::Duration::from_millis(5));
            assert_eq!(pool.install(|| 7), 7);
            done.store(true, Ordering::Relaxed);
        });
    }

    #[test]
    fn panic_in_region_reaches_caller_and_pool_stays_usable() {
        use rayon::prelude::*;
        let pool = pool(3);
        for bad in 0..6 {
            let region = || for_each(6, usize::MAX, |task| assert_ne!(task, bad, "on purpose"));
            let caught = |body: &(dyn Fn() + Sync)| std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_err();
            for payload in [caught(&|| pool.install(region)), caught(&|| pool.install(|| (0..4).into_par_iter().for_each(|_| region())))] {
                assert!(payload.downcast_ref::<String>().unwrap().contains("on purpose"));
            }
            assert_eq!(pool.install(sum), 4950);
        }
    }

    #[cfg(not(miri))]
    #[test]
    fn number_of_threads_follows_environment_variable_and_global_pool() {
        const TEST: &str = "kernels::runtime::parallel::tests::number_of_threads_follows_environment_variable_and_global_pool";
        match std::env::var("CONVNET_TEST_ALONE").as_deref() {
            Ok("built") => rayon::ThreadPoolBuilder::new().num_threads(5).build_global().unwrap(),
            Ok(_) => {}
            Err(_) => {
                for (case, variable, threads) in [("built", "3", "5"), ("default", "3", "3"), ("default", "1", "1"), ("default", "all", "")]
                {
                    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
                    alone.args([TEST, "--exact"]).env("CONVNET_TEST_ALONE", case).env("RAYON_NUM_THREADS", variable);
                    let output = alone.env("CONVNET_TEST_THREADS", threads).output().unwrap();
                    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
                }
                return;
            }
        }
        let threads = std::env::var("CONVNET_TEST_THREADS").unwrap().parse().unwrap_or(*CORES);
        assert_eq!((num_threads(), rayon::current_num_threads(), sum()), (threads, threads, 4950));
        for (set, expected) in [(2, 2), (1, 1), (0, threads)] {
            set_num_threads(set).unwrap();
            assert_eq!((num_threads(), sum()), (expected, 4950), "{set}");
        }
    }

    /// Returns the seconds of processor time that this process has used, from `/proc`.
    #[cfg(all(target_os = "linux", not(miri)))]
    fn cpu_seconds() -> f64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // The unit is a hundredth of a second on every Linux that these tests run on.
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    /// Runs the named test again in a process where nothing else runs, and fails if it fails there.
    /// Returns `false` in that process.
    #[cfg(all(target_os = "linux", not(miri)))]
    fn passes_alone(test: &str) -> bool {
        if std::env::var_os("CONVNET_TEST_ALONE").is_some() {
            return false;
        }
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        alone.args([&format!("kernels::runtime::parallel::tests::{test}"), "--exact"]).env("CONVNET_TEST_ALONE", "1");
        let output = alone.output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        true
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn idle_threads_sleep_when_they_outnumber_cores() {
        if passes_alone("idle_threads_sleep_when_they_outnumber_cores") {
            return;
        }
        set_num_threads(*CORES + 6).unwrap();
        let (start, cpu) = (std::time::Instant::now(), cpu_seconds());
        for _ in 0..2000 {
            for_each(8, usize::MAX, |_| ());
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        // Waking threads, and rayon's search for jobs before a thread sleeps, use about half a
        // core; spinning watchers would use all cores.
        let (used, cores) = ((cpu_seconds() - cpu) / start.elapsed().as_secs_f64(), *CORES as f64);
        assert!(used < 0.75 * cores, "{used} of {cores} cores");
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn child_forked_while_threads_compute_runs_on_one_thread() {
        if passes_alone("child_forked_while_threads_compute_runs_on_one_thread") {
            return;
        }
        set_num_threads(4).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    sum();
                }
            });
            let outcomes: Vec<i32> = (0..60)
                .map(|_| {
                    sum();
                    let mut status = 0;
                    // SAFETY: the child computes without allocating, has ten seconds for it, and
                    // exits without running code of the parent's.
                    unsafe {
                        let child = libc::fork();
                        if child == 0 {
                            libc::alarm(10);
                            let right = sum() == 4950 && num_threads() == 1 && set_num_threads(0).is_ok();
                            libc::_exit(if right { 0 } else { 1 });
                        }
                        libc::waitpid(child, &raw mut status, 0);
                    }
                    status
                })
                .collect();
            done.store(true, Ordering::Relaxed);
            assert_eq!(outcomes, [0; 60], "wait statuses; 14 is the alarm's");
        });
        assert_eq!((num_threads(), sum()), (4, 4950), "the parent goes on as before");
    }

    #[test]
    fn panic_in_task_reaches_caller_and_next_region_works() {
        let _setting = SETTING.lock().unwrap_or_else(PoisonError::into_inner);
        set_num_threads(2).unwrap();
        for bad in 0..8 {
            let result = std::panic::catch_unwind(|| for_each(8, usize::MAX, |task| assert_ne!(task, bad, "on purpose")));
            assert!(result.is_err());
        }
        every_element_is_visited_once();
        set_num_threads(0).unwrap();
    }

    #[test]
    fn every_task_runs_once_and_in_requested_order_on_one_thread() {
        let _setting = SETTING.lock().unwrap_or_else(PoisonError::into_inner);
        for threads in [1, 2, 3, 20] {
            set_num_threads(threads).unwrap();
            for tasks in [0, 1, 2, 3, 15, 16, 17, 33, 100] {
                let seen = std::sync::Mutex::new(vec![]);
                for_each(tasks, usize::MAX, |task| seen.lock().unwrap().push(task));
                for_each_backwards(tasks, usize::MAX, |task| seen.lock().unwrap().push(task));
                let mut seen = seen.into_inner().unwrap();
                let [forwards, backwards] = [0, tasks].map(|at| seen[at..at + tasks].to_vec());
                if threads == 1 {
                    assert!(forwards.is_sorted() && backwards.is_sorted_by(|a, b| a > b));
                }
                seen.sort_unstable();
                assert_eq!(seen, (0..tasks).flat_map(|task| [task, task]).collect::<Vec<_>>());
            }
        }
        set_num_threads(0).unwrap();
    }

    #[test]
    fn every_element_is_visited_once() {
        let mut data = vec![0u32; 10_007];
        chunks_mut(&mut data, 100, usize::MAX, |i, chunk| chunk.iter_mut().for_each(|x| *x += 1 + i as u32));
        assert!(data.iter().enumerate().all(|(i, &x)| x == 1 + (i / 100) as u32));
    }
}
