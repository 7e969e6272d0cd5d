//! Messages by MPI.

use std::time::{Duration, Instant};

use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::request;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;

use super::transport::{Transport, failed, silent, stuck, unfit};
use crate::error::{Error, Result};

/// The tag of what ranks exchange.
const DATA: i32 = 1;

/// The tag of the message of a rank that has failed.
const FAILED: i32 = 2;

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

    /// Returns the error that another rank has told, if one has.
    fn failure(&self) -> Option<Error> {
        let status = self.world.any_process().immediate_probe_with_tag(FAILED)?;
        let rank = status.source_rank();
        let (text, _) = self.world.process_at_rank(rank).receive_vec_with_tag::<u8>(FAILED);
        Some(failed(rank as usize, &String::from_utf8_lossy(&text)))
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
                Err(Interrupted::Late) => self.abort(&silent(if receive.is_some() { from } else { to }, self.limit)),
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
                Err(Interrupted::Late) => self.abort(&stuck(self.limit)),
            }
        });
    }

    /// Asks again and again whether something has ended, until it has, or another rank tells of its
    /// failure, or the time is up.
    fn poll(&self, has_ended: &mut dyn FnMut() -> bool) -> std::result::Result<(), Interrupted> {
        let start = Instant::now();
        for round in 0u64.. {
            if has_ended() {
                break;
            }
            if round % 64 == 63 {
                if let Some(error) = self.failure() {
                    return Err(Interrupted::Failed(error));
                }
                if start.elapsed() > self.limit {
                    return Err(Interrupted::Late);
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
    /// The time limit has passed.
    Late,
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
        for part in values.chunks_mut(LARGEST / size_of::<f32>()) {
            self.sum_part(part);
        }
        Ok(true)
    }

    fn fail(&mut self, message: &str) {
        let text = &message.as_bytes()[..message.len().min(LONGEST_TEXT)];
        for rank in (0..self.world.size()).filter(|&rank| rank != self.world.rank()) {
            self.world.process_at_rank(rank).send_with_tag(text, FAILED);
        }
    }
}
