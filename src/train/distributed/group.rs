//! The group of ranks, and the thread that exchanges their messages.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::collective::{broadcast, gather, sum_by_rank, sum_by_tree};
use super::transport::{Threads, Transport};
use crate::error::{Error, Result};
use crate::nn::JoinSum;

/// The time within which a rank has to send what the others wait for, unless another is set.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// The most ranks that are threads of one process: each pair has a channel.
const MOST_THREADS: usize = 256;

/// The processes that train together, seen from one of them: its rank, and sums, copies and
/// collections over all.
///
/// A separate thread exchanges the messages, one after the other in the order in which they were
/// asked for; all ranks have to ask for the same ones in the same order. See
/// [`Distributed`](super::Distributed) for their use in training.
///
/// ```
/// use convnet::train::Group;
///
/// let ranks = Group::threads(2)?.into_iter().map(|group| {
///     std::thread::spawn(move || group.gather(vec![group.rank() as u8]))
/// });
/// for gathered in ranks.collect::<Vec<_>>() {
///     assert_eq!(gathered.join().expect("no panic")?, [[0], [1]]);
/// }
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct Group {
    rank: usize,
    world: usize,
    jobs: Jobs,
    thread: Option<JoinHandle<()>>,
}

/// Where jobs for the thread are put.
#[derive(Clone)]
struct Jobs {
    // `None` once the group is dropped.
    sender: Arc<Mutex<Option<Sender<Job>>>>,
    counters: Arc<Counters>,
}

/// What a group has exchanged so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// The bytes that this rank has sent.
    pub bytes_sent: u64,
    /// The time that messages took.
    pub communicating: Duration,
    /// The part of it for which the computation had to wait.
    pub waiting: Duration,
}

#[derive(Default)]
struct Counters {
    bytes: AtomicU64,
    communicating: AtomicU64,
    waiting: AtomicU64,
}

/// Numbers to be summed over all ranks.
pub(super) enum Numbers {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

enum Job {
    Sum { numbers: Numbers, by_tree: bool, reply: Sender<Result<Numbers>> },
    Gather { bytes: Vec<u8>, reply: Sender<Result<Vec<Vec<u8>>>> },
    Broadcast { bytes: Vec<u8>, reply: Sender<Result<Vec<u8>>> },
    Fail(String),
}

/// The result of a job that may still be under way.
pub(super) struct Pending<T> {
    reply: Receiver<Result<T>>,
    counters: Arc<Counters>,
}

impl<T> Pending<T> {
    /// Waits for the result.
    pub(super) fn wait(self) -> Result<T> {
        let start = Instant::now();
        let ended = || Error::Training("the thread that exchanges messages between ranks has ended".into());
        let result = self.reply.recv().map_err(|_| ended())?;
        self.counters.waiting.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        result
    }
}

impl Group {
    /// Makes a group from a transport, which is made, used and dropped on a separate thread.
    ///
    /// # Errors
    /// Those of `connect`; [`Error::Training`] when the system gives no thread.
    pub fn new<T: Transport>(connect: impl FnOnce() -> Result<T> + Send + 'static) -> Result<Group> {
        let (jobs, received) = channel();
        let (ready, connected) = channel();
        let counters = Arc::<Counters>::default();
        let of_thread = Arc::clone(&counters);
        let work = move || match connect() {
            Ok(mut transport) => {
                let _ = ready.send(Ok((transport.rank(), transport.world())));
                serve(&mut transport, &received, &of_thread);
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        };
        let no_thread = |error| Error::Training(format!("there is no thread for the messages between ranks: {error}"));
        let thread = std::thread::Builder::new().name("convnet-messages".into()).spawn(work).map_err(no_thread)?;
        let ended = |_| Error::Training("connecting to the other ranks panicked".into());
        let (rank, world) = connected.recv().map_err(ended)??;
        let jobs = Jobs { sender: Arc::new(Mutex::new(Some(jobs))), counters };
        Ok(Group { rank, world, jobs, thread: Some(thread) })
    }

    /// Makes the groups of `world` ranks that are threads of this process, by rank: for tests, and
    /// to see what training on several machines does.
    ///
    /// # Errors
    /// [`Error::Argument`] for no or more than 256 ranks, [`Error::Training`] when the system gives
    /// no threads.
    pub fn threads(world: usize) -> Result<Vec<Group>> {
        Group::threads_within(world, TIME_LIMIT)
    }

    /// Makes groups as [`threads`](Group::threads) does, with a limit of the time for which a rank
    /// waits for another's message.
    ///
    /// # Errors
    /// As for [`threads`](Group::threads).
    pub fn threads_within(world: usize, limit: Duration) -> Result<Vec<Group>> {
        if !(1..=MOST_THREADS).contains(&world) {
            return Err(Error::argument("group", format!("a group of threads has 1 to {MOST_THREADS} ranks, got {world}")));
        }
        Threads::connect(world, limit).into_iter().map(|transport| Group::new(|| Ok(transport))).collect()
    }

    /// Returns the group of a process that trains alone.
    ///
    /// # Errors
    /// [`Error::Training`] when the system gives no thread.
    pub fn alone() -> Result<Group> {
        Ok(Group::threads(1)?.remove(0))
    }

    /// Returns the group of the processes that `mpirun` started, or of one process without it; the
    /// limit of the time for which a rank waits for another's message is five minutes.
    ///
    /// # Errors
    /// [`Error::Training`] when MPI is in use already or does not start.
    #[cfg(feature = "mpi")]
    pub fn mpi() -> Result<Group> {
        Group::mpi_within(TIME_LIMIT)
    }

    /// Returns the group as [`mpi`](Group::mpi) does, with another time limit.
    ///
    /// # Errors
    /// As for [`mpi`](Group::mpi).
    #[cfg(feature = "mpi")]
    pub fn mpi_within(limit: Duration) -> Result<Group> {
        Group::new(move || super::mpi::Mpi::connect(limit))
    }

    /// Returns this process's number, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Returns the number of processes.
    pub fn world(&self) -> usize {
        self.world
    }

    /// Returns whether this is rank 0, the one that writes checkpoints and logs.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Returns what has been exchanged so far.
    pub fn traffic(&self) -> Traffic {
        let nanoseconds = |counter: &AtomicU64| Duration::from_nanos(counter.load(Ordering::Relaxed));
        let counters = &self.jobs.counters;
        let bytes_sent = counters.bytes.load(Ordering::Relaxed);
        Traffic { bytes_sent, communicating: nanoseconds(&counters.communicating), waiting: nanoseconds(&counters.waiting) }
    }

    /// Returns the bytes of every rank, by rank; they may be of different lengths.
    ///
    /// # Errors
    /// [`Error::Training`] that names a rank that has failed, hangs or runs another program.
    pub fn gather(&self, bytes: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        self.jobs.ask(|reply| Job::Gather { bytes, reply }).wait()
    }

    /// Returns the bytes of rank 0; those of other ranks are ignored.
    ///
    /// # Errors
    /// As for [`gather`](Group::gather).
    pub fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.jobs.ask(|reply| Job::Broadcast { bytes, reply }).wait()
    }

    /// Returns the sums of the ranks' values, added as a balanced tree over the ranks where their
    /// number is a power of two, in their order otherwise; all get the same bits.
    ///
    /// # Errors
    /// As for [`gather`](Group::gather).
    pub fn sum(&self, values: Vec<f64>) -> Result<Vec<f64>> {
        self.jobs.sum(values)
    }

    /// Returns a function that does what [`sum`](Group::sum) does, and gives errors once the group
    /// is dropped.
    pub(super) fn joiner(&self) -> JoinSum {
        let jobs = self.jobs.clone();
        Arc::new(move |values| jobs.sum(values))
    }

    /// Tells the other ranks that this one cannot go on, and why: what they wait for becomes an
    /// error with this message.
    pub fn fail(&self, message: impl Into<String>) {
        self.jobs.put(Job::Fail(message.into()));
    }

    /// Starts a sum over all ranks: by a tree over the ranks, or in the order that the transport
    /// prefers.
    pub(super) fn start_sum(&self, numbers: Numbers, by_tree: bool) -> Pending<Numbers> {
        self.jobs.ask(|reply| Job::Sum { numbers, by_tree, reply })
    }
}

impl Jobs {
    fn put(&self, job: Job) {
        if let Some(sender) = &*self.sender.lock().unwrap_or_else(PoisonError::into_inner) {
            // Without the thread the reply's sender is dropped, which `wait` reports.
            let _ = sender.send(job);
        }
    }

    fn ask<T>(&self, job: impl FnOnce(Sender<Result<T>>) -> Job) -> Pending<T> {
        let (reply, pending) = channel();
        self.put(job(reply));
        Pending { reply: pending, counters: Arc::clone(&self.counters) }
    }

    fn sum(&self, values: Vec<f64>) -> Result<Vec<f64>> {
        match self.ask(|reply| Job::Sum { numbers: Numbers::F64(values), by_tree: true, reply }).wait()? {
            Numbers::F64(values) => Ok(values),
            Numbers::F32(_) => unreachable!("a sum has the type of its terms"),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The thread ends when the last sender is dropped.
        self.jobs.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group(rank {} of {})", self.rank, self.world)
    }
}

/// Does jobs until the group is dropped. After a failure, all further jobs fail with its message:
/// the one that failed first may not be the one that is waited for first.
fn serve(transport: &mut dyn Transport, jobs: &Receiver<Job>, counters: &Arc<Counters>) {
    let mut transport = Counting { inner: transport, counters: Arc::clone(counters) };
    let mut failure = None;
    while let Ok(job) = jobs.recv() {
        let start = Instant::now();
        match job {
            Job::Sum { numbers, by_tree, reply } => answer(&reply, &mut failure, || sum(&mut transport, numbers, by_tree)),
            Job::Gather { bytes, reply } => answer(&reply, &mut failure, || gather(&mut transport, bytes)),
            Job::Broadcast { bytes, reply } => answer(&reply, &mut failure, || broadcast(&mut transport, bytes)),
            Job::Fail(message) => transport.fail(&message),
        }
        counters.communicating.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

fn answer<T>(reply: &Sender<Result<T>>, failure: &mut Option<String>, job: impl FnOnce() -> Result<T>) {
    let result = match failure {
        Some(message) => Err(Error::Training(message.clone())),
        None => job(),
    };
    match &result {
        Err(Error::Training(message)) => *failure = Some(message.clone()),
        Err(error) => *failure = Some(error.to_string()),
        Ok(_) => {}
    }
    // The caller may have stopped waiting.
    let _ = reply.send(result);
}

fn sum(transport: &mut dyn Transport, mut numbers: Numbers, by_tree: bool) -> Result<Numbers> {
    if let (Numbers::F32(values), false) = (&mut numbers, by_tree)
        && transport.sum_in_any_order(values)?
    {
        return Ok(numbers);
    }
    match (&mut numbers, transport.world().is_power_of_two()) {
        (Numbers::F32(values), true) => sum_by_tree(transport, values)?,
        (Numbers::F64(values), true) => sum_by_tree(transport, values)?,
        (Numbers::F32(values), false) => sum_by_rank(transport, values)?,
        (Numbers::F64(values), false) => sum_by_rank(transport, values)?,
    }
    Ok(numbers)
}

/// Counts the bytes that are sent.
struct Counting<'t> {
    inner: &'t mut dyn Transport,
    counters: Arc<Counters>,
}

impl Transport for Counting<'_> {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn world(&self) -> usize {
        self.inner.world()
    }

    fn exchange(&mut self, to: usize, sent: &[u8], from: usize, received: &mut [u8]) -> Result<()> {
        self.counters.bytes.fetch_add(sent.len() as u64, Ordering::Relaxed);
        self.inner.exchange(to, sent, from, received)
    }

    fn sum_in_any_order(&mut self, values: &mut [f32]) -> Result<bool> {
        let summed = self.inner.sum_in_any_order(values)?;
        if summed {
            // What a ring or halving and doubling sends.
            let share = 2 * size_of_val(values) * (self.world() - 1) / self.world();
            self.counters.bytes.fetch_add(share as u64, Ordering::Relaxed);
        }
        Ok(summed)
    }

    fn fail(&mut self, message: &str) {
        self.inner.fail(message);
    }
}
