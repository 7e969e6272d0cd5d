//! Messages by MPI.

use std::time::{Duration, Instant};

use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::request::{self, StaticScope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;

use super::transport::{Transport, failed, silent, unfit};
use crate::error::{Error, Result};

/// The tag of what ranks exchange.
const DATA: i32 = 1;

/// The tag of what a rank says about itself, whose first byte says what it is.
const NOTICE: i32 = 2;

/// A rank has failed; the rest is the text of its error.
const FAILED: u8 = 0;

/// A rank has waited for the whole time limit, and asks which others wait as well.
const ASKED: u8 = 1;

/// The answer of a rank that waits, too: it is another one that hangs.
const WAITING: u8 = 2;

/// The longest time for which answers are awaited; a rank that waits answers within milliseconds.
const GRACE: Duration = Duration::from_secs(5);

/// The longest text of a failure: short messages are sent without waiting for a receiver.
const LONGEST_TEXT: usize = 1000;

/// The number of bytes that one MPI message takes at most; its counts are 32-bit.
const LARGEST: usize = 1 << 28;

/// The processes that `mpirun` started.
pub(super) struct Mpi {
    world: SimpleCommunicator,
    limit: Duration,
    // Dropped last: it ends MPI.
    _universe: Universe,
}

impl Mpi {
    /// Starts MPI on the calling thread, which makes all calls from then on.
    pub(super) fn connect(limit: Duration) -> Result<Mpi> {
        let unavailable = "MPI cannot be started: it is in use already, or was ended; a process has one group at a time, and one in all";
        let universe = mpi::initialize().ok_or_else(|| Error::Training(unavailable.into()))?;
        Ok(Mpi { world: universe.world(), limit, _universe: universe })
    }

    /// Ends all ranks: the messages that are under way can neither be finished nor recalled.
    fn abort(&self, error: &Error) -> ! {
        eprintln!("error on rank {}: {error}", self.rank());
        self.world.abort(1)
    }

    /// Receives what other ranks say about themselves: returns the error of one that has failed,
    /// answers questions, and takes ranks that wait off the list of `silent` ones.
    fn read_notices(&self, silent: &mut Option<Vec<usize>>) -> Option<Error> {
        while let Some(status) = self.world.any_process().immediate_probe_with_tag(NOTICE) {
            let source = status.source_rank();
            let (notice, _) = self.world.process_at_rank(source).receive_vec_with_tag::<u8>(NOTICE);
            match notice.split_first() {
                Some((&ASKED, _)) => self.tell(source, &[WAITING]),
                Some((&WAITING, _)) => silent.iter_mut().for_each(|ranks| ranks.retain(|&rank| rank != source as usize)),
                Some((_, text)) => return Some(failed(source as usize, &String::from_utf8_lossy(text))),
                None => {}
            }
        }
        None
    }

    /// Sends a notice without waiting for its end, since the receiver may hang.
    fn tell(&self, rank: i32, notice: &'static [u8]) {
        std::mem::forget(self.world.process_at_rank(rank).immediate_send_with_tag(StaticScope, notice, NOTICE));
    }

    fn others(&self) -> impl Iterator<Item = i32> + use<> {
        let own = self.world.rank();
        (0..self.world.size()).filter(move |&rank| rank != own)
    }

    fn exchange_part(&self, to: usize, sent: &[u8], from: usize, received: &mut [u8]) -> Result<()> {
        let expected = received.len();
        request::scope(|scope| {
            let mut send = (!sent.is_empty()).then(|| self.world.process_at_rank(to as i32).immediate_send_with_tag(scope, sent, DATA));
            let mut receive = match expected {
                0 => None,
                _ => Some(self.world.process_at_rank(from as i32).immediate_receive_into_with_tag(scope, received, DATA)),
            };
            let mut result = Ok(());
            let ended = self.poll(&mut || {
                send = send.take().and_then(|request| request.test().err());
                receive = receive.take().and_then(|request| match request.test() {
                    Ok(status) => {
                        let length = status.count(u8::equivalent_datatype()) as usize;
                        if length != expected {
                            result = Err(unfit(from, length, expected));
                        }
                        None
                    }
                    Err(request) => Some(request),
                });
                send.is_none() && receive.is_none()
            });
            match ended {
                Ok(()) => result,
                Err(Interrupted::Late(ranks)) => self.abort(&silent(&ranks, self.limit)),
                Err(Interrupted::Failed(error)) if send.is_some() => self.abort(&error),
                Err(Interrupted::Failed(error)) => {
                    if let Some(request) = receive {
                        request.cancel();
                        request.wait_without_status();
                    }
                    Err(error)
                }
            }
        })
    }

    fn sum_part(&self, values: &mut [f32]) {
        let own = values.to_vec();
        request::scope(|scope| {
            let mut sum = Some(self.world.immediate_all_reduce_into(scope, &own[..], values, SystemOperation::sum()));
            let ended = self.poll(&mut || {
                sum = sum.take().and_then(|request| request.test().err());
                sum.is_none()
            });
            match ended {
                Ok(()) => {}
                Err(Interrupted::Failed(error)) => self.abort(&error),
                Err(Interrupted::Late(ranks)) => self.abort(&silent(&ranks, self.limit)),
            }
        });
    }

    /// Polls `has_ended` until it returns true, another rank reports a failure, or the time limit
    /// passes. At the limit it asks all other ranks for an answer: one that waits as well answers,
    /// one that hangs in its computation or is stopped does not, and is reported.
    fn poll(&self, has_ended: &mut dyn FnMut() -> bool) -> std::result::Result<(), Interrupted> {
        let start = Instant::now();
        let mut silent = None;
        for round in 0u64.. {
            if has_ended() {
                break;
            }
            if round % 64 == 63 {
                if let Some(error) = self.read_notices(&mut silent) {
                    return Err(Interrupted::Failed(error));
                }
                let waited = start.elapsed();
                match silent.take() {
                    None if waited > self.limit => {
                        self.others().for_each(|rank| self.tell(rank, &[ASKED]));
                        silent = Some(self.others().map(|rank| rank as usize).collect());
                    }
                    Some(ranks) if ranks.is_empty() || waited > self.limit + GRACE.min(self.limit) => return Err(Interrupted::Late(ranks)),
                    waiting => silent = waiting,
                }
            }
            // Several ranks may share a core.
            match round {
                0..64 => std::hint::spin_loop(),
                64..1024 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(20)),
            }
        }
        Ok(())
    }
}

/// Why messages are waited for no longer.
enum Interrupted {
    /// Another rank has failed.
    Failed(Error),
    /// The time limit has passed; these ranks do not wait as well.
    Late(Vec<usize>),
}

impl Transport for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn world(&self) -> usize {
        self.world.size() as usize
    }

    fn exchange(&mut self, to: usize, sent: &[u8], from: usize, received: &mut [u8]) -> Result<()> {
        let (mut sent, mut received) = (sent, received);
        loop {
            let (now, later) = sent.split_at(sent.len().min(LARGEST));
            let (received_now, received_later) = received.split_at_mut(received.len().min(LARGEST));
            self.exchange_part(to, now, from, received_now)?;
            (sent, received) = (later, received_later);
            if sent.is_empty() && received.is_empty() {
                return Ok(());
            }
        }
    }

    fn sum_in_any_order(&mut self, values: &mut [f32]) -> Result<bool> {
        // Open MPI adds up on one of two ranks and copies the sum back. To exchange halves takes
        // two thirds of the time over a link that works both ways.
        if self.world() == 2 {
            return Ok(false);
        }
        for part in values.chunks_mut(LARGEST / size_of::<f32>()) {
            self.sum_part(part);
        }
        Ok(true)
    }

    fn fail(&mut self, message: &str) {
        let text = &message.as_bytes()[..message.len().min(LONGEST_TEXT)];
        let notice = [&[FAILED], text].concat();
        for rank in self.others() {
            self.world.process_at_rank(rank).send_with_tag(&notice[..], NOTICE);
        }
    }
}
