//! Messages between ranks.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::error::{Error, Result};

/// Passes messages between the processes (ranks) that train together.
///
/// The crate has one for threads of a process, [`Group::threads`](super::Group::threads), and with
/// the feature `mpi` one for processes, `Group::mpi`. All calls come from one thread.
pub trait Transport {
    /// Returns this process's number, from 0.
    fn rank(&self) -> usize;

    /// Returns the number of processes.
    fn world(&self) -> usize;

    /// Sends a message to one rank while it receives one from another, or from the same; the
    /// message has the length of `received`. No message is sent or received where the length is 0.
    ///
    /// # Errors
    /// [`Error::Training`] that names the rank when it has failed, has ended, sends a message of
    /// another length, or sends none within the time limit.
    fn exchange(&mut self, to: usize, sent: &[u8], from: usize, received: &mut [u8]) -> Result<()>;

    /// Adds up the values of all ranks in no fixed order, if the transport can do so by itself, and
    /// returns whether it has.
    ///
    /// # Errors
    /// As for [`exchange`](Transport::exchange).
    fn sum_in_any_order(&mut self, values: &mut [f32]) -> Result<bool> {
        let _ = values;
        Ok(false)
    }

    /// Tells all others that this rank has failed, so that none waits for it.
    fn fail(&mut self, message: &str);
}

/// What one thread sends to another: a message, or the reason why none will come.
type Message = Result<Vec<u8>, String>;

/// A transport between threads of one process.
pub(super) struct Threads {
    rank: usize,
    limit: Duration,
    to: Vec<Sender<Message>>,
    from: Vec<Receiver<Message>>,
}

impl Threads {
    /// Makes the transports of `world` ranks. A message has to arrive within the time limit.
    pub(super) fn connect(world: usize, limit: Duration) -> Vec<Threads> {
        let channels = || (0..world).map(|_| channel::<Message>()).unzip::<_, _, Vec<_>, Vec<_>>();
        // `senders[to][from]`, and the receivers in the same order.
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..world).map(|_| channels()).unzip();
        let thread = |(rank, from): (usize, Vec<_>)| {
            let to = senders.iter().map(|of_receiver: &Vec<Sender<Message>>| of_receiver[rank].clone()).collect();
            Threads { rank, limit, to, from }
        };
        receivers.into_iter().enumerate().map(thread).collect()
    }
}

impl Transport for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world(&self) -> usize {
        self.to.len()
    }

    fn exchange(&mut self, to: usize, sent: &[u8], from: usize, received: &mut [u8]) -> Result<()> {
        if !sent.is_empty() && self.to[to].send(Ok(sent.to_vec())).is_err() {
            // It may have told why.
            let reason = self.from[to].try_iter().find_map(Result::err);
            return Err(reason.map_or_else(|| ended(to), |message| failed(to, &message)));
        }
        if received.is_empty() {
            return Ok(());
        }
        let message = self.from[from].recv_timeout(self.limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => silent(&[from], self.limit),
            RecvTimeoutError::Disconnected => ended(from),
        })?;
        let message = message.map_err(|message| failed(from, &message))?;
        if message.len() != received.len() {
            return Err(unfit(from, message.len(), received.len()));
        }
        received.copy_from_slice(&message);
        Ok(())
    }

    fn fail(&mut self, message: &str) {
        for to in &self.to {
            // A rank that has ended waits for nothing.
            let _ = to.send(Err(message.to_string()));
        }
    }
}

fn ended(rank: usize) -> Error {
    Error::Training(format!("rank {rank} has ended"))
}

/// The error for a rank that has told its own.
pub(super) fn failed(rank: usize, message: &str) -> Error {
    Error::Training(format!("rank {rank} has failed: {message}"))
}

/// The error for ranks that have not answered in time.
pub(super) fn silent(ranks: &[usize], limit: Duration) -> Error {
    let text = match ranks {
        [] => format!("all ranks have waited for {limit:?}: they run other programs or options, or a message was lost"),
        [rank] => format!("rank {rank} has sent nothing for {limit:?}: it hangs, or is slower than the time limit allows"),
        _ => {
            let ranks = ranks.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
            format!("the ranks {ranks} have sent nothing for {limit:?}: they hang, or are slower than the time limit allows")
        }
    };
    Error::Training(text)
}

/// The error for a message of the wrong length.
pub(super) fn unfit(rank: usize, length: usize, expected: usize) -> Error {
    Error::Training(format!("rank {rank} has sent {length} bytes where {expected} were expected: it runs another program or other options"))
}
