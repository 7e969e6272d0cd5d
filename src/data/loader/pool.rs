//! Worker threads that make batches ahead of their use.
//!
//! Workers claim batch numbers from a counter, make whole batches, and put them where the consumer
//! takes them in order. A worker waits when it is too far ahead of the consumer.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::builder::{BatchBuilder, Made, message_of};
use crate::data::Collate;
use crate::error::{Error, Result};

/// Worker threads; dropping it stops and joins them.
pub(super) struct Pool<B> {
    shared: Arc<Shared<B>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<B> {
    state: Mutex<State<B>>,
    /// A batch is ready.
    ready: Condvar,
    /// A batch may be claimed, or it is time to stop.
    room: Condvar,
    window: usize,
    /// Batches from this number on are not wanted: the epoch was dropped (0), or one has failed.
    end: AtomicUsize,
}

struct State<B> {
    /// `None` for a batch none of whose samples could be read.
    batches: BTreeMap<usize, Result<Option<Made<B>>>>,
    claimed: usize,
    taken: usize,
}

impl<B: Send + 'static> Pool<B> {
    /// Starts workers. When the system gives fewer threads than asked for, the started ones do the
    /// work; without any, the caller does.
    pub(super) fn start<S: Collate<Batch = B>>(
        builder: &Arc<BatchBuilder<S>>,
        workers: usize,
        window: usize,
        first: usize,
    ) -> Option<Pool<B>> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { batches: BTreeMap::new(), claimed: first, taken: first }),
            ready: Condvar::new(),
            room: Condvar::new(),
            window,
            end: AtomicUsize::new(builder.len()),
        });
        let start = |i| {
            let (shared, builder) = (Arc::clone(&shared), Arc::clone(builder));
            thread::Builder::new().name(format!("convnet-data-{i}")).spawn(move || shared.work(&builder)).ok()
        };
        let threads: Vec<JoinHandle<()>> = (0..workers).map_while(start).collect();
        (!threads.is_empty()).then_some(Pool { shared, threads })
    }
}

impl<B> Pool<B> {
    /// Waits for a batch and returns it.
    pub(super) fn take(&self, number: usize) -> Result<Option<Made<B>>> {
        self.shared.take(number)
    }
}

impl<B> Drop for Pool<B> {
    fn drop(&mut self) {
        self.shared.end_at(0);
        for thread in self.threads.drain(..) {
            // Workers do not panic: `BatchBuilder::sample` catches panics of users' code.
            let _ = thread.join();
        }
    }
}

impl<B> Shared<B> {
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work<S: Collate<Batch = B>>(&self, builder: &BatchBuilder<S>) {
        while let Some(number) = self.claim() {
            let wanted = || number < self.end.load(Ordering::Relaxed);
            // A panic must become a batch too, or the consumer would wait for ever.
            let batch = panic::catch_unwind(AssertUnwindSafe(|| builder.make(number, wanted)))
                .unwrap_or_else(|panic| Err(Error::value("data loader", format!("batch {number}: {}", message_of(&*panic)))));
            if !wanted() {
                return;
            }
            let failed = batch.is_err();
            self.lock().batches.insert(number, batch);
            self.ready.notify_all();
            if failed {
                // The epoch ends with the first error; batches before this one are still wanted.
                self.end_at(number);
            }
        }
    }

    /// Stops the work on batches from this number on.
    fn end_at(&self, number: usize) {
        // The lock is held, so that no worker is between reading the end and going to sleep.
        let _state = self.lock();
        self.end.fetch_min(number, Ordering::Relaxed);
        self.room.notify_all();
    }

    /// Returns the number of the next batch to make, once it is within the window; `None` at the
    /// end.
    fn claim(&self) -> Option<usize> {
        let mut state = self.lock();
        loop {
            if state.claimed >= self.end.load(Ordering::Relaxed) {
                return None;
            }
            if state.claimed - state.taken < self.window {
                state.claimed += 1;
                return Some(state.claimed - 1);
            }
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn take(&self, number: usize) -> Result<Option<Made<B>>> {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.batches.remove(&number) {
                state.taken = number + 1;
                drop(state);
                self.room.notify_all();
                return batch;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
