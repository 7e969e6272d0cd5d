//! Threads: regions of tasks, on workers and the calling thread.
//!
//! Work is cut by the size of the problem, never by the number of threads, and every task writes a place of its own, so results are the
//! same bits whatever the number of threads. Each thread begins with a share of neighbouring tasks, the same from region to region, and helps
//! with the others' when it is done: what a thread wrote in one layer it mostly reads in the next, from its own caches, which matters where those
//! of two cores are far apart. The caller takes its share instead of sleeping. Work that takes less time than waking a thread stays on the caller.

use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread::available_parallelism;

use super::workers::{Workers, is_forked};

/// Below this many elementary operations (some microseconds of one core) a region is not worth another thread's attention.
const WORTH_WAKING: usize = if cfg!(miri) { 100 } else { 100_000 };

/// Shares of a region at most; more threads begin with the same.
const MOST_SHARES: usize = 16;

/// More than any machine has use for.
const MOST_THREADS: usize = 4096;

enum Threads {
    /// As many as [`default_count`] says; not started yet.
    Default,
    /// The caller alone.
    One,
    /// The caller and these.
    More(Arc<Workers>),
}

static THREADS: RwLock<Threads> = RwLock::new(Threads::Default);

fn set(threads: Threads) {
    // The old ones end when the last region on them has.
    let old = std::mem::replace(&mut *THREADS.write().unwrap_or_else(PoisonError::into_inner), threads);
    drop(old);
}

/// The number of threads where nobody has set one; asked of the system once.
fn default_count() -> usize {
    // Miri counts one core, and has to see threads.
    if cfg!(miri) {
        return 2;
    }
    static COUNT: OnceLock<usize> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let variable = std::env::var("RAYON_NUM_THREADS").ok();
        // A machine that does not tell gets no threads that it may not have.
        asked_for(variable.as_deref()).unwrap_or_else(|| available_parallelism().map_or(1, usize::from)).min(MOST_THREADS)
    })
}

/// The number in the variable, read as rayon reads it, so that one variable sets both in a program that uses both: what is no number, and 0, ask
/// for nothing.
fn asked_for(variable: Option<&str>) -> Option<usize> {
    variable?.parse().ok().filter(|&count| count > 0)
}

/// The caller and so many others that they are `count`.
fn threads(count: usize) -> io::Result<Threads> {
    if count > MOST_THREADS {
        return Err(io::Error::other(format!("{count} threads are more than the {MOST_THREADS} that make sense")));
    }
    Ok(if count <= 1 { Threads::One } else { Threads::More(Arc::new(Workers::start(count - 1)?)) })
}

/// Sets the number of threads that operations use, the caller's included; 0 returns to the default: the cores that this
/// process may use, unless `RAYON_NUM_THREADS` says otherwise.
///
/// Several processes on one machine should share its cores: each takes all of them by default, and between two layers its threads watch for
/// work for a moment, which slows the others down. Give each process its part, by this function or the variable. Threads that outnumber the
/// cores of their process do not watch; they gain nothing either.
///
/// A process that is forked after the threads have started (by the first larger operation) computes on the calling thread alone, since a fork
/// copies one thread only. Fork while no other thread computes: what it was doing, such as taking memory, is never finished in the child, which
/// may then wait for it for ever. Forking before the first operation, and starting programs (`std::process::Command`), have neither limit.
///
/// # Errors
/// When the system cannot start that many threads, or this process was forked from one whose threads had started and `count` is above 1.
pub fn set_num_threads(count: usize) -> io::Result<()> {
    if is_forked() {
        // The lock below may be held by a thread that is not there.
        let refused = || io::Error::other(format!("a forked process has one thread for operations, {count} were asked for"));
        return if count > 1 { Err(refused()) } else { Ok(()) };
    }
    set(if count == 0 { Threads::Default } else { threads(count)? });
    Ok(())
}

/// The number of threads that operations use, the caller's included.
pub fn num_threads() -> usize {
    if is_forked() {
        return 1;
    }
    match &*THREADS.read().unwrap_or_else(PoisonError::into_inner) {
        Threads::Default => default_count(),
        Threads::One => 1,
        Threads::More(workers) => workers.count() + 1,
    }
}

/// The threads beside the caller, if there are any; started if need be.
fn workers() -> Option<Arc<Workers>> {
    if is_forked() {
        return None;
    }
    match &*THREADS.read().unwrap_or_else(PoisonError::into_inner) {
        Threads::Default => {}
        Threads::One => return None,
        Threads::More(workers) => return Some(Arc::clone(workers)),
    }
    // Where no thread can be started, the caller alone does it.
    let new = threads(default_count()).unwrap_or(Threads::One);
    let mut threads = THREADS.write().unwrap_or_else(PoisonError::into_inner);
    if let Threads::Default = *threads {
        *threads = new;
    }
    match &*threads {
        Threads::More(workers) => Some(Arc::clone(workers)),
        _ => None,
    }
}

/// Runs `body(0), …, body(tasks - 1)`, in any order and at the same time when `work`, the whole region's elementary operations, is worth it.
pub fn for_each(tasks: usize, work: usize, body: impl Fn(usize) + Sync) {
    run(tasks, work, false, &body);
}

/// As [`for_each`], each thread going through its tasks from the last to the first: it finds in its caches what it left last.
pub fn for_each_backwards(tasks: usize, work: usize, body: impl Fn(usize) + Sync) {
    run(tasks, work, true, &body);
}

/// How many tasks of a share have been claimed, on a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Claimed(AtomicUsize);

/// As [`for_each`], compiled once for all bodies.
fn run(tasks: usize, work: usize, backwards: bool, body: &(dyn Fn(usize) + Sync)) {
    let in_order = |task: usize, range: &Range<usize>| if backwards { range.end - 1 - task } else { range.start + task };
    let workers = if tasks < 2 || work < WORTH_WAKING { None } else { workers() };
    let Some(workers) = workers else { return (0..tasks).for_each(|task| body(in_order(task, &(0..tasks)))) };
    let shares = (workers.count() + 1).min(tasks).min(MOST_SHARES);
    let start = |share: usize| tasks / shares * share + share.min(tasks % shares);
    let claimed: [Claimed; MOST_SHARES] = Default::default();
    let from_own_share_on = |thread: usize| {
        for share in (0..shares).map(|turn| (thread + turn) % shares) {
            let range = start(share)..start(share + 1);
            // Looked at first: claiming takes the line from whoever has it.
            while claimed[share].0.load(Ordering::Relaxed) < range.len() {
                let task = claimed[share].0.fetch_add(1, Ordering::Relaxed);
                if task < range.len() {
                    body(in_order(task, &range));
                }
            }
        }
    };
    workers.join(workers.count().min(tasks - 1), &from_own_share_on);
}

/// Runs `body(i, chunk)` for each run of `length` elements of `data` (the last may be shorter).
pub fn chunks_mut<T: Send>(data: &mut [T], length: usize, work: usize, body: impl Fn(usize, &mut [T]) + Sync) {
    let total = data.len();
    let shared = Disjoint::new(data);
    for_each(total.div_ceil(length.max(1)), work, |i| {
        let start = i * length;
        // SAFETY: task `i` alone touches the range `[i * length, (i + 1) * length)`.
        body(i, unsafe { shared.slice(start, length.min(total - start)) });
    });
}

/// A mutable slice whose disjoint parts different tasks may write.
pub(crate) struct Disjoint<'a, T> {
    pointer: *mut T,
    length: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `slice`, whose caller promises that parts do not overlap.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Disjoint { pointer: data.as_mut_ptr(), length: data.len(), lifetime: PhantomData }
    }

    /// Elements in all.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The part from `start` on, still to be written by several.
    pub(crate) fn from(&self, start: usize) -> Disjoint<'a, T> {
        let start = start.min(self.length);
        Disjoint { pointer: self.pointer.wrapping_add(start), length: self.length - start, lifetime: PhantomData }
    }

    /// Where the part `[start, start + length)` begins, for writes that are disjoint though the parts are interleaved.
    pub(crate) fn pointer(&self, start: usize, length: usize) -> *mut T {
        assert!(start <= self.length && length <= self.length - start, "part outside the slice");
        // In bounds by the assertion.
        self.pointer.wrapping_add(start)
    }

    /// The part `[start, start + length)`.
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
    use super::*;

    /// Tests that set the number of threads.
    static SETTING: std::sync::Mutex<()> = std::sync::Mutex::new(());

    #[test]
    fn regions_inside_tasks_and_of_many_callers_at_once_all_end_and_visit_everything() {
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
    fn other_threads_take_part_after_they_have_slept_and_after_their_number_has_changed() {
        let _setting = SETTING.lock().unwrap_or_else(PoisonError::into_inner);
        for threads in [3, 2, 0, 4] {
            set_num_threads(threads).unwrap();
            for pause in [0, 5] {
                std::thread::sleep(std::time::Duration::from_millis(pause));
                // Each of two tasks waits for the other: one thread would never end.
                let met = std::sync::Barrier::new(2);
                if num_threads() > 1 {
                    for_each(2, usize::MAX, |_| {
                        met.wait();
                    });
                }
            }
        }
    }

    /// Seconds of processor time that this process has used, from `/proc`.
    #[cfg(all(target_os = "linux", not(miri)))]
    fn cpu_seconds() -> f64 {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // In hundredths, on every Linux that this is tried on.
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
    }

    /// Runs the named test once more, in a process where nothing else runs, and fails when it does. Returns `false` in that process.
    #[cfg(all(target_os = "linux", not(miri)))]
    fn passes_alone(test: &str) -> bool {
        if std::env::var_os("CONVNET_TEST_ALONE").is_some() {
            return false;
        }
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        alone.args([&format!("kernels::parallel::tests::{test}"), "--exact"]).env("CONVNET_TEST_ALONE", "1");
        let output = alone.output().unwrap();
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        true
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn threads_that_outnumber_the_cores_sleep_while_there_is_nothing_to_do() {
        if passes_alone("threads_that_outnumber_the_cores_sleep_while_there_is_nothing_to_do") {
            return;
        }
        set_num_threads(available_parallelism().unwrap().get() + 6).unwrap();
        let (start, cpu) = (std::time::Instant::now(), cpu_seconds());
        for _ in 0..2000 {
            for_each(8, usize::MAX, |_| ());
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        // Some 0.3 of a core, for waking; were the threads to watch meanwhile, all cores.
        let cores = (cpu_seconds() - cpu) / start.elapsed().as_secs_f64();
        assert!(cores < 0.8, "{cores} cores");
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn a_child_forked_while_threads_compute_computes_alone() {
        if passes_alone("a_child_forked_while_threads_compute_computes_alone") {
            return;
        }
        let sum = || {
            let sum = AtomicUsize::new(0);
            for_each(100, usize::MAX, |i| _ = sum.fetch_add(i, Ordering::Relaxed));
            sum.into_inner()
        };
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
                    // SAFETY: the child computes without allocating, has ten seconds for it, and ends without running anything of the parent's.
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
    fn a_panic_in_a_task_reaches_the_caller_and_the_next_region_works() {
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
    fn the_variable_asks_for_a_number_of_threads_or_for_nothing() {
        assert_eq!(asked_for(Some("3")), Some(3));
        for nothing in [None, Some("0"), Some(""), Some("all"), Some("-1"), Some("99999999999999999999999")] {
            assert_eq!(asked_for(nothing), None, "{nothing:?}");
        }
        assert!((1..=MOST_THREADS).contains(&default_count()));
    }

    #[test]
    fn every_task_runs_once_however_many_there_are_and_alone_in_the_order_asked_for() {
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
