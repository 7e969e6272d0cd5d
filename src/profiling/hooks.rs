//! Hooks that observe running operations, for [`profile`](super::profile()) and
//! [`explain`](super::explain()).
//!
//! An operation starts with [`operation`] and is timed until it returns; the operations that it
//! calls count as parts of it. A layer or block runs [`within`] its path: the operations inside are
//! counted under that path, and their nodes store it as their [`Origin`], so that the backward pass
//! is counted there too. [`convolution`] also records what a convolution computes, for
//! [`explain`](super::explain()). All state belongs to one thread: two threads that profile do not
//! see each other's operations. When no observer is active, a hook costs one thread-local check.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::record::{self, Details};
use crate::kernels::conv::{ConvAlgorithm, ConvGeometry, ConvPass};
use crate::kernels::runtime::allocator;
use crate::kernels::runtime::arrays::sort_by;
use crate::tensor::meta::is_meta;
use crate::tensor::node::{Node, Origin};
use crate::tensor::{DType, Tensor};

/// The number of events that a log keeps individually; all events are counted.
const EVENTS: usize = 200_000;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventKind {
    /// A call of an operation.
    Forward,
    /// The backward pass of an operation.
    Backward,
    /// A layer or block, with all the operations inside.
    Module,
}

/// A timed call.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// The operation's name; empty for a module.
    pub(crate) op: &'static str,
    pub(crate) path: Arc<str>,
    pub(crate) kind: EventKind,
    pub(crate) start: Instant,
    pub(crate) time: Duration,
    pub(crate) bytes: u64,
    pub(crate) multiply_adds: u64,
}

/// A pass of a convolution, with everything that the choice of its algorithm depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Convolution {
    /// The geometry that the kernel computes; for a transposed convolution, that of the convolution
    /// whose input gradient it is.
    pub(crate) geometry: ConvGeometry,
    pub(crate) pass: ConvPass,
    /// Whether the weights are laid out once for many calls.
    pub(crate) kept: bool,
    pub(crate) transposed: bool,
    pub(crate) dtype: DType,
    pub(crate) asked: ConvAlgorithm,
}

/// The key by which equal calls are counted: path, operation, convolution.
type ConvolutionKey = (Arc<str>, &'static str, Convolution);

/// The accumulated cost of a set of calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cost {
    /// The number of calls. In the backward pass, an operation that is made of separately recorded
    /// ones has one call for each of them.
    pub calls: u64,
    /// The total time of the calls.
    pub time: Duration,
    /// The number of bytes of memory that the calling thread requested, whether freed or not.
    pub bytes: u64,
    /// The number of multiply-adds in convolutions and matrix products.
    pub multiply_adds: u64,
}

impl Cost {
    /// Returns billions of floating-point operations per second, where a multiply-add counts as
    /// two; `None` when no multiply-adds were counted.
    pub fn gflops(&self) -> Option<f64> {
        let seconds = self.time.as_secs_f64();
        (self.multiply_adds > 0 && seconds > 0.0).then(|| 2e-9 * self.multiply_adds as f64 / seconds)
    }

    pub(crate) fn add(&mut self, other: &Cost) {
        self.calls += other.calls;
        self.time += other.time;
        self.bytes += other.bytes;
        self.multiply_adds = self.multiply_adds.saturating_add(other.multiply_adds);
    }
}

/// The record of one observer.
#[derive(Default)]
pub(crate) struct Log {
    /// The first [`EVENTS`] events, in the order in which they ended.
    pub(crate) events: Vec<Event>,
    /// The number of further events.
    pub(crate) left_out: u64,
    /// The totals by path, operation and kind, without modules.
    pub(crate) totals: HashMap<(Arc<str>, &'static str, EventKind), Cost>,
    /// For each key, the number of keys that were called before it, and the number of its calls.
    convolutions: HashMap<ConvolutionKey, (usize, u64)>,
}

impl Log {
    fn keep(&mut self, event: Event) {
        if self.events.len() < EVENTS {
            self.events.push(event);
        } else {
            self.left_out += 1;
        }
    }

    fn add(&mut self, event: Event) {
        if event.kind != EventKind::Module {
            let Event { op, kind, time, bytes, multiply_adds, .. } = event;
            let total = self.totals.entry((Arc::clone(&event.path), op, kind)).or_default();
            total.add(&Cost { calls: 1, time, bytes, multiply_adds });
        }
        self.keep(event);
    }

    fn count(&mut self, key: ConvolutionKey, calls: u64) {
        let place = self.convolutions.len();
        self.convolutions.entry(key).or_insert((place, 0)).1 += calls;
    }

    /// Returns the convolutions that ran, with the number of calls, in the order of their first
    /// calls.
    pub(crate) fn convolutions(&self) -> Vec<(&ConvolutionKey, u64)> {
        let mut all: Vec<_> = self.convolutions.iter().collect();
        sort_by(&mut all, |(_, (a, _)), (_, (b, _))| a.cmp(b));
        all.into_iter().map(|(key, (_, calls))| (key, *calls)).collect()
    }

    /// Adds the log of an observer inside this one.
    fn absorb(&mut self, inner: &Log) {
        inner.events.iter().for_each(|event| self.keep(event.clone()));
        self.left_out += inner.left_out;
        for (key, total) in &inner.totals {
            self.totals.entry(key.clone()).or_default().add(total);
        }
        inner.convolutions().into_iter().for_each(|(key, calls)| self.count(key.clone(), calls));
    }
}

/// A running operation.
struct Frame {
    /// The number of operations that run as parts of it.
    parts: usize,
    op: &'static str,
    path: Arc<str>,
    kind: EventKind,
    start: Instant,
    requested: u64,
    multiply_adds: u64,
}

struct State {
    /// The logs of the active observers, the innermost last; only the innermost is written to.
    logs: Vec<Log>,
    /// The outermost running operation.
    open: Option<Frame>,
    /// The paths of the running layers and blocks, the innermost last.
    paths: Vec<Arc<str>>,
}

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static STATE: RefCell<State> = const { RefCell::new(State { logs: vec![], open: None, paths: vec![] }) };
}

/// Returns whether an observer is active on this thread.
#[inline]
pub(crate) fn is_on() -> bool {
    ON.get()
}

/// Runs `body` and returns its value and the log of what it did on this thread. Observers nest: the
/// outer log includes the inner one.
pub(crate) fn observe<R>(body: impl FnOnce() -> R) -> (R, Log) {
    /// Removes the observer, on unwinding too.
    struct Observer {
        /// The operation that was running when the observer started.
        outer: Option<Frame>,
        ended: bool,
    }
    impl Observer {
        fn end(&mut self) -> Log {
            self.ended = true;
            STATE.with_borrow_mut(|state| {
                let log = state.logs.pop().unwrap_or_default();
                if let Some(outer) = state.logs.last_mut() {
                    outer.absorb(&log);
                }
                state.open = self.outer.take();
                ON.set(!state.logs.is_empty());
                log
            })
        }
    }
    impl Drop for Observer {
        fn drop(&mut self) {
            if !self.ended {
                self.end();
            }
        }
    }
    let outer = STATE.with_borrow_mut(|state| {
        state.logs.push(Log::default());
        state.open.take()
    });
    ON.set(true);
    let mut observer = Observer { outer, ended: false };
    let value = body();
    (value, observer.end())
}

/// How an operation is observed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Unobserved,
    Outermost,
    /// It runs as a part of another one.
    Part,
}

/// Ends an observed operation when it goes out of scope.
#[must_use = "the operation ends when this is dropped"]
pub(crate) struct Operation {
    level: Level,
}

impl Operation {
    /// Passes on the options of an operation, and tensors that it reads besides its inputs, to a
    /// [recorder](record), before the operation's result.
    #[inline]
    pub(crate) fn details(&self, details: impl FnOnce() -> Details) {
        if self.level == Level::Outermost && record::is_on() {
            record::describe(details());
        }
    }

    /// Passes on the result of an operation that records no gradient itself, or consists of
    /// operations.
    #[inline]
    pub(crate) fn result(&self, inputs: &[&Tensor], outputs: &[&Tensor]) {
        if self.level == Level::Outermost {
            whole(inputs, outputs, false);
        }
    }

    /// Passes on the result of an operation that a user defined.
    #[inline]
    pub(crate) fn custom_result(&self, inputs: &[&Tensor], outputs: &[&Tensor]) {
        if self.level == Level::Outermost {
            whole(inputs, outputs, true);
        }
    }
}

#[cold]
fn whole(inputs: &[&Tensor], outputs: &[&Tensor], custom: bool) {
    if !record::is_on() {
        return;
    }
    let running = STATE.with_borrow(|state| state.open.as_ref().map(|frame| (frame.op, Arc::clone(&frame.path))));
    if let Some((op, path)) = running {
        record::step(op, custom, path, inputs, outputs);
    }
}

/// Returns the path of the running operation, if it has this name and none of its parts runs; the
/// path of the running layer outside of operations.
pub(super) fn outermost(op: &'static str) -> Option<Arc<str>> {
    STATE.with_borrow(|state| match &state.open {
        Some(frame) => (frame.op == op && frame.parts == 0).then(|| Arc::clone(&frame.path)),
        None => Some(state.path()),
    })
}

impl Drop for Operation {
    #[inline]
    fn drop(&mut self) {
        if self.level != Level::Unobserved {
            end(self.level);
        }
    }
}

/// Starts an operation, which ends when the returned guard is dropped; this is the first line of
/// every operation. Inside another operation it counts as a part of that one.
#[inline]
pub(crate) fn operation(op: &'static str) -> Operation {
    Operation { level: if is_on() { begin(op, None, EventKind::Forward) } else { Level::Unobserved } }
}

/// Starts the backward pass of the operation that recorded this node.
#[inline]
pub(crate) fn backward(node: &Node) -> Operation {
    let here = || match &node.origin {
        Some(origin) => begin(origin.op, Some(Arc::clone(&origin.path)), EventKind::Backward),
        // Recorded while no observer was active.
        None => begin(node.op, Some("".into()), EventKind::Backward),
    };
    Operation { level: if is_on() { here() } else { Level::Unobserved } }
}

/// Adds to the number of multiply-adds of the running operation.
#[inline]
pub(crate) fn multiply_adds(count: impl FnOnce() -> u64) {
    if is_on() {
        STATE.with_borrow_mut(|state| {
            if let Some(frame) = &mut state.open {
                frame.multiply_adds = frame.multiply_adds.saturating_add(count());
            }
        });
    }
}

/// Records that the running operation computes a pass of a convolution, and its number of
/// multiply-adds.
#[inline]
pub(crate) fn convolution(of: impl FnOnce() -> (Convolution, u64)) {
    if is_on() {
        let (convolution, count) = of();
        multiply_adds(|| count);
        note(convolution);
    }
}

#[cold]
fn note(convolution: Convolution) {
    if is_meta() {
        return;
    }
    STATE.with_borrow_mut(|state| {
        if let (Some(Frame { op, path, .. }), Some(log)) = (&state.open, state.logs.last_mut()) {
            log.count((Arc::clone(path), op, convolution), 1);
        }
    });
}

#[cold]
fn begin(op: &'static str, path: Option<Arc<str>>, kind: EventKind) -> Level {
    STATE.with_borrow_mut(|state| {
        if let Some(frame) = &mut state.open {
            frame.parts += 1;
            return Level::Part;
        }
        let path = path.unwrap_or_else(|| state.path());
        if record::is_on() {
            // An operation that failed may have left some behind.
            record::describe(Details::new());
        }
        state.open = Some(Frame { parts: 0, op, path, kind, start: Instant::now(), requested: allocator::requested(), multiply_adds: 0 });
        Level::Outermost
    })
}

#[cold]
fn end(level: Level) {
    STATE.with_borrow_mut(|state| {
        if level == Level::Part {
            if let Some(frame) = &mut state.open {
                frame.parts -= 1;
            }
            return;
        }
        let (Some(frame), Some(log)) = (state.open.take(), state.logs.last_mut()) else { return };
        let Frame { parts: _, op, path, kind, start, requested, multiply_adds } = frame;
        let bytes = allocator::requested().wrapping_sub(requested);
        log.add(Event { op, path, kind, start, time: start.elapsed(), bytes, multiply_adds });
    });
}

impl State {
    fn path(&self) -> Arc<str> {
        self.paths.last().cloned().unwrap_or_else(|| "".into())
    }
}

/// Leaves a path when it is dropped.
pub(crate) struct Leave(Instant);

impl Drop for Leave {
    fn drop(&mut self) {
        STATE.with_borrow_mut(|state| {
            if let (Some(path), Some(log)) = (state.paths.pop(), state.logs.last_mut()) {
                let (start, time) = (self.0, self.0.elapsed());
                log.add(Event { op: "", path, kind: EventKind::Module, start, time, bytes: 0, multiply_adds: 0 });
            }
        });
    }
}

/// Enters the layer or block at `path`, unless it is already the innermost one: a parent may have
/// entered it for the child. Called only while an observer is active.
pub(crate) fn enter(path: Arc<str>) -> Option<Leave> {
    let is_innermost = STATE.with_borrow_mut(|state| {
        let is_innermost = state.paths.last() == Some(&path);
        if !is_innermost {
            state.paths.push(path);
        }
        is_innermost
    });
    (!is_innermost).then(|| Leave(Instant::now()))
}

/// Returns the running operation and its path, for a new node; `None` when no observer is active or
/// no operation is running.
pub(crate) fn origin() -> Option<Box<Origin>> {
    if !is_on() {
        return None;
    }
    STATE.with_borrow(|state| {
        let frame = state.open.as_ref()?;
        Some(Box::new(Origin { op: frame.op, path: Arc::clone(&frame.path) }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within<R>(path: Arc<str>, body: impl FnOnce() -> R) -> R {
        let _leave = enter(path);
        body()
    }

    #[test]
    fn operation_made_of_others_counts_as_one() {
        let ((), log) = observe(|| {
            let _outer = operation("outer");
            drop(operation("inner"));
            multiply_adds(|| 7);
        });
        let totals: Vec<_> = log.totals.iter().map(|((path, op, kind), total)| (&**path, *op, *kind, total.calls)).collect();
        assert_eq!(totals, [("", "outer", EventKind::Forward, 1)]);
        assert_eq!((log.events.len(), log.events[0].multiply_adds), (1, 7));
    }

    #[test]
    fn outer_log_includes_inner_log() {
        let ((inner, value), outer) = observe(|| {
            drop(operation("before"));
            let (value, inner) = observe(|| within("here".into(), || drop(operation("inside"))));
            drop(operation("after"));
            (inner, value)
        });
        assert_eq!(value, ());
        let names = |log: &Log| log.events.iter().map(|event| event.op).collect::<Vec<_>>();
        assert_eq!((names(&inner), names(&outer)), (vec!["inside", ""], vec!["before", "inside", "", "after"]));
        assert!(!is_on());
    }

    #[test]
    fn panic_leaves_no_state_behind() {
        let panics = || {
            observe(|| {
                within("layer".into(), || {
                    let _op = operation("op");
                    panic!("as the test wants");
                })
            })
        };
        let outer = observe(|| assert!(std::panic::catch_unwind(panics).is_err())).1;
        assert_eq!(outer.events.iter().map(|event| event.op).collect::<Vec<_>>(), ["op", ""]);
        assert!(!is_on());
        STATE.with_borrow(|state| assert!(state.logs.is_empty() && state.open.is_none() && state.paths.is_empty()));
    }

    #[test]
    fn log_keeps_limited_number_of_events_and_counts_the_rest() {
        let ((), log) = observe(|| (0..EVENTS + 5).for_each(|_| drop(operation("op"))));
        assert_eq!((log.events.len(), log.left_out), (EVENTS, 5));
        assert_eq!(log.totals.values().map(|total| total.calls).sum::<u64>(), EVENTS as u64 + 5);
    }

    #[test]
    fn graph_recorded_before_observer_starts_is_logged_without_path() {
        let x = Tensor::ones([2]).with_grad();
        let y = x.relu().sum(..).unwrap();
        let (_, log) = observe(|| y.backward().unwrap());
        let mut names: Vec<_> = log.totals.keys().map(|(path, op, kind)| (&**path, *op, *kind)).collect();
        names.sort_by_key(|&(_, op, _)| op);
        assert_eq!(names, [("", "relu", EventKind::Backward), ("", "sum", EventKind::Backward)]);
    }
}
