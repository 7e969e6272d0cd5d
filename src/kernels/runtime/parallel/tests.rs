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
            for (case, variable, threads) in [("built", "3", "5"), ("default", "3", "3"), ("default", "1", "1"), ("default", "all", "")] {
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

/// Forks, and returns the wait status of the child: 0 when it computes on one thread.
#[cfg(all(target_os = "linux", not(miri)))]
fn status_of_child() -> i32 {
    let mut status = 0;
    // SAFETY: the child computes without allocating, has ten seconds for it, and exits without
    // running code of the parent's.
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
                status_of_child()
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        assert_eq!(outcomes, [0; 60], "wait statuses; 14 is the alarm's");
    });
    assert_eq!((num_threads(), sum()), (4, 4950), "the parent goes on as before");
}

#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn child_forked_on_thread_of_pool_runs_on_one_thread() {
    if passes_alone("child_forked_on_thread_of_pool_runs_on_one_thread") {
        return;
    }
    // No operation has run outside of this pool.
    let status = pool(2).install(|| {
        sum();
        status_of_child()
    });
    assert_eq!(status, 0, "a wait status; 14 is the alarm's");
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
