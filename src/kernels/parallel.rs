//! Threads: one region of tasks at a time, on rayon's workers and the calling thread.
//!
//! Work is cut by the size of the problem, never by the number of threads, and every task writes a place of its own, so results are the
//! same bits whatever the number of threads. Tasks are claimed from a counter; the caller takes its share instead of sleeping. Work that
//! takes less time than waking a thread stays on the caller.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Below this many elementary operations (about 20 µs of one core) a region does not wake other threads.
const WORTH_WAKING: usize = 200_000;

enum Threads {
    Rayon,
    One,
    Own(Arc<ThreadPool>),
}

static THREADS: RwLock<Threads> = RwLock::new(Threads::Rayon);

/// Sets the number of threads that operations use, the caller's included; 0 returns to rayon's global pool.
///
/// # Errors
/// When the system cannot start that many threads.
pub fn set_num_threads(count: usize) -> Result<(), ThreadPoolBuildError> {
    let threads = match count {
        0 => Threads::Rayon,
        1 => Threads::One,
        // The caller works too, so the pool has one thread less.
        _ => Threads::Own(Arc::new(ThreadPoolBuilder::new().num_threads(count - 1).thread_name(|i| format!("convnet-{i}")).build()?)),
    };
    *THREADS.write().unwrap_or_else(PoisonError::into_inner) = threads;
    Ok(())
}

/// The number of threads that operations use, the caller's included.
pub fn num_threads() -> usize {
    match &*THREADS.read().unwrap_or_else(PoisonError::into_inner) {
        Threads::Rayon => rayon::current_num_threads(),
        Threads::One => 1,
        Threads::Own(pool) => pool.current_num_threads() + 1,
    }
}

/// Runs `body(0), …, body(tasks - 1)`, in any order and at the same time when `work`, the whole region's elementary operations, is worth it.
pub fn for_each(tasks: usize, work: usize, body: impl Fn(usize) + Sync) {
    run(tasks, work, &body);
}

/// As [`for_each`], compiled once for all bodies.
fn run(tasks: usize, work: usize, body: &(dyn Fn(usize) + Sync)) {
    let helpers = if tasks < 2 || work < WORTH_WAKING { 0 } else { num_threads().min(tasks) - 1 };
    if helpers == 0 {
        return (0..tasks).for_each(body);
    }
    let next = AtomicUsize::new(0);
    let claim = || {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            body(task);
        }
    };
    let own = match &*THREADS.read().unwrap_or_else(PoisonError::into_inner) {
        Threads::Own(pool) => Some(Arc::clone(pool)),
        _ => None,
    };
    match own {
        Some(pool) => pool.in_place_scope(|scope| spawn_and_join(scope, helpers, &claim)),
        None => rayon::in_place_scope(|scope| spawn_and_join(scope, helpers, &claim)),
    }
}

fn spawn_and_join<'scope>(scope: &rayon::Scope<'scope>, helpers: usize, claim: &'scope (dyn Fn() + Sync)) {
    for _ in 0..helpers {
        scope.spawn(move |_| claim());
    }
    claim();
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

    #[test]
    fn every_element_is_visited_once() {
        let mut data = vec![0u32; 10_007];
        chunks_mut(&mut data, 100, usize::MAX, |i, chunk| chunk.iter_mut().for_each(|x| *x += 1 + i as u32));
        assert!(data.iter().enumerate().all(|(i, &x)| x == 1 + (i / 100) as u32));
    }
}
