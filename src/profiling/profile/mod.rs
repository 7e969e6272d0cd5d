//! Measures where the time of a network goes.
//!
//! The hooks are in `profiling/hooks.rs`: operations are timed there, under the paths of layers and
//! blocks. This module turns the log into a table and a trace file.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

pub use super::hooks::Cost;
use super::hooks::{Event, EventKind, observe};
use crate::error::Result;
use crate::io::atomic_file::write_atomically;
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::arrays::sort_by;

/// Runs `body` and returns its value and where its time was spent: by operation and by the path of
/// the layer or block that called it, forward and backward.
///
/// The backward pass of an operation is counted under the operation and the path that recorded it.
/// Layers that run in one kernel are counted under the convolution's path. Paths are set by the
/// first traversal from the root, as `parameters()`, `eval()` or `train()` do; blocks made with
/// [`nn::block`](crate::nn::block) derive theirs from the layers inside.
///
/// A profile covers the calling thread and the threads that compute for it; other threads may
/// profile at the same time. Profiles nest: the outer one includes all that the inner ones
/// recorded. When no profile is active, the cost is one thread-local check for each operation.
///
/// ```
/// use convnet::nn::{Conv2d, Flatten, Linear, Module, ReLU, Sequential};
/// use convnet::Tensor;
///
/// let net = Sequential::new().push_named("conv", Conv2d::new(1, 8, 3)).push(ReLU).push(Flatten).push_named("fc", Linear::new(8 * 36, 10));
/// let (loss, profile) = convnet::profile(|| -> convnet::Result<f32> {
///     let loss = net.forward(&Tensor::randn([16, 1, 8, 8]))?.cross_entropy(&Tensor::from_vec(vec![3i64; 16], [16])?)?;
///     loss.backward()?;
///     loss.item()
/// });
/// let conv = profile.get("conv", "conv2d").expect("it ran");
/// assert_eq!((conv.forward.calls, conv.backward.calls), (1, 1));
/// assert_eq!(conv.forward.multiply_adds, 16 * 8 * 6 * 6 * 9);
/// println!("{profile}");
/// profile.save_trace(std::env::temp_dir().join("convnet-trace.json"))?;
/// # loss?;
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn profile<R>(body: impl FnOnce() -> R) -> (R, Profile) {
    let start = Instant::now();
    let (value, log) = observe(body);
    let elapsed = start.elapsed();
    let mut rows: HashMap<(Arc<str>, &'static str), ProfileRow> = HashMap::new();
    for ((path, operation, kind), total) in log.totals {
        let fresh = || ProfileRow { path: path.to_string(), operation, forward: Cost::default(), backward: Cost::default() };
        let row = rows.entry((Arc::clone(&path), operation)).or_insert_with(fresh);
        match kind {
            EventKind::Forward => row.forward = total,
            EventKind::Backward => row.backward = total,
            EventKind::Module => {}
        }
    }
    let mut rows: Vec<ProfileRow> = rows.into_values().collect();
    sort_by(&mut rows, |a, b| b.time().cmp(&a.time()).then_with(|| (&a.path, a.operation).cmp(&(&b.path, b.operation))));
    (value, Profile { rows, elapsed, start, events: log.events, left_out: log.left_out })
}

/// One operation at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProfileRow {
    /// The path of the layer or block; empty outside of all layers, and in sums over paths.
    pub path: String,
    /// The operation's name, such as `conv2d`; for the steps of an optimiser, the optimiser's name.
    pub operation: &'static str,
    /// The cost of the forward pass.
    pub forward: Cost,
    /// The cost of the backward pass.
    pub backward: Cost,
}

impl ProfileRow {
    /// Returns the time of forward and backward together.
    pub fn time(&self) -> Duration {
        self.forward.time + self.backward.time
    }
}

/// The result of [`profile`]; prints as a table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Profile {
    /// The rows by path and operation, the longest time first.
    pub rows: Vec<ProfileRow>,
    /// The time from beginning to end. What is missing from the rows was spent outside of
    /// operations.
    pub elapsed: Duration,
    start: Instant,
    events: Vec<Event>,
    left_out: u64,
}

impl Profile {
    /// Returns the row of an operation at a path.
    pub fn get(&self, path: &str, operation: &str) -> Option<&ProfileRow> {
        self.rows.iter().find(|row| row.path == path && row.operation == operation)
    }

    /// Returns the sums over all paths for each operation, the longest time first.
    pub fn by_operation(&self) -> Vec<ProfileRow> {
        let mut rows: Vec<ProfileRow> = vec![];
        for row in &self.rows {
            match rows.iter_mut().find(|sum| sum.operation == row.operation) {
                Some(sum) => {
                    sum.forward.add(&row.forward);
                    sum.backward.add(&row.backward);
                }
                None => rows.push(ProfileRow { path: String::new(), ..row.clone() }),
            }
        }
        sort_by(&mut rows, |a, b| b.time().cmp(&a.time()));
        rows
    }

    /// Returns the time of all operations together.
    pub fn time(&self) -> Duration {
        self.rows.iter().map(ProfileRow::time).sum()
    }

    /// Writes every operation, and the layers and blocks around them, to a file for
    /// `chrome://tracing` or <https://ui.perfetto.dev> (the trace event format, JSON). The file
    /// holds the first 200,000 events; `left_out` in its `otherData` is the number of further ones.
    ///
    /// The file is written beside its target and renamed, so that a crash leaves either the old
    /// file or the new one.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), with the path, when the file cannot be written.
    pub fn save_trace(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomically(path.as_ref(), |out| self.write_trace(out))
    }

    fn write_trace(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{{\"displayTimeUnit\":\"ms\",\"otherData\":{{\"left_out\":{}}},\"traceEvents\":[", self.left_out)?;
        for (i, event) in self.events.iter().enumerate() {
            let Event { op, path, kind, start, time, bytes, multiply_adds } = event;
            let (name, category) = match kind {
                EventKind::Forward => (*op, "forward"),
                EventKind::Backward => (*op, "backward"),
                EventKind::Module => (if path.is_empty() { "network" } else { &**path }, "module"),
            };
            let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
            let args = match kind {
                EventKind::Module => json!({ "path": **path }),
                _ => json!({ "path": **path, "bytes": bytes, "multiply_adds": multiply_adds }),
            };
            let (ts, dur) = (micros(start.duration_since(self.start)), micros(*time));
            let event = json!({ "name": name, "cat": category, "ph": "X", "pid": 1, "tid": 1, "ts": ts, "dur": dur, "args": args });
            write!(out, "{}\n{event}", if i == 0 { "" } else { "," })?;
        }
        write!(out, "\n]}}")
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["path", "operation", "calls", "forward ms", "backward ms", "share", "MiB", "GFLOP/s", "backward GFLOP/s"];
        let millis = |cost: &Cost| if cost.calls == 0 { "-".to_string() } else { format!("{:.3}", cost.time.as_secs_f64() * 1e3) };
        let rate = |cost: &Cost| cost.gflops().map_or("-".to_string(), |rate| format!("{rate:.1}"));
        let share = |time: Duration| format!("{:.1} %", 100.0 * time.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-12));
        let cells = |row: &ProfileRow, path: &str| {
            let bytes = (row.forward.bytes + row.backward.bytes) as f64 / f64::from(1 << 20);
            let calls = row.forward.calls.max(row.backward.calls).to_string();
            let [path, operation] = [path, row.operation].map_each(str::to_string);
            let [forward, backward] = [millis(&row.forward), millis(&row.backward)];
            let (share, bytes) = (share(row.time()), format!("{bytes:.2}"));
            [path, operation, calls, forward, backward, share, bytes, rate(&row.forward), rate(&row.backward)]
        };
        let mut table = vec![heads.map_each(String::from)];
        table.extend(self.rows.iter().map(|row| cells(row, if row.path.is_empty() { "-" } else { &row.path })));
        let head = table.len();
        table.extend(self.by_operation().iter().map(|row| cells(row, "(everywhere)")));
        let mut all = ProfileRow { path: String::new(), operation: "(all)", forward: Cost::default(), backward: Cost::default() };
        for row in &self.rows {
            all.forward.add(&row.forward);
            all.backward.add(&row.backward);
        }
        table.push(cells(&all, "(everywhere)"));
        crate::io::text_table::write(f, &table, 2, &[1, head, table.len() - 1])?;
        let outside = self.elapsed.saturating_sub(self.time());
        let [elapsed, rest] = [self.elapsed, outside].map_each(|time| time.as_secs_f64() * 1e3);
        write!(f, "{elapsed:.3} ms, of which {rest:.3} ms ({}) outside of operations", share(outside))
    }
}

#[cfg(test)]
mod tests;
