//! Training by several processes, which `mpirun` starts.

use convnet::Result;
use convnet::train::{Distributed, Group};

use crate::options::RunOptions;

/// Returns the group of this process.
#[cfg(feature = "mpi")]
pub fn group() -> Result<Group> {
    Group::mpi()
}

/// Says what is missing.
#[cfg(not(feature = "mpi"))]
pub fn group() -> Result<Group> {
    Err(convnet::Error::msg("--distributed wants a program that was built with MPI: `cargo run --release --features mpi --example train`"))
}

/// Runs `body`, and tells the other processes of its error: data that one machine lacks end the run
/// on all, which would wait for that one.
pub fn together(group: Option<&Group>, body: impl FnOnce() -> Result<()>) -> Result<()> {
    body().inspect_err(|error| {
        if let Some(group) = group {
            group.fail(error.to_string());
        }
    })
}

/// Returns how the processes train together.
pub fn settings<'g>(group: &'g Group, options: &RunOptions) -> Distributed<'g> {
    let mut distributed = Distributed::new(group).shards(options.shards);
    if options.any_order {
        distributed = distributed.in_any_order();
    }
    if options.sync_batch_norm {
        distributed = distributed.synchronize_batch_norm();
    }
    match options.average_every {
        Some(steps) => distributed.average_every(steps),
        None => distributed,
    }
}

/// Describes what was exchanged.
pub fn summary(group: &Group) -> String {
    let traffic = group.traffic();
    let seconds = traffic.communicating.as_secs_f64();
    let hidden = 1.0 - (traffic.waiting.as_secs_f64() / seconds.max(1e-9)).min(1.0);
    let megabytes = traffic.bytes_sent as f64 / 1e6;
    format!(
        "{} processes: {megabytes:.1} MB sent by each, {seconds:.1} s of messages, {:.0} % of it while computing",
        group.world(),
        100.0 * hidden
    )
}
