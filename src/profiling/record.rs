//! A recorder of the operations of one run, for export: what each operation is called, which
//! tensors it reads and returns, its options, and the path of its layer.
//!
//! [`record`] runs a network with every layer by itself, without fusion. The differentiable
//! operations of `ops/` reach the recorder through the place where they record their gradients
//! (`autograd`); those whose parts are operations themselves, or that have no gradient, report
//! their result with [`Operation::result`](super::hooks::Operation::result). Of nested operations
//! only the outermost is recorded. [`Operation::details`](super::hooks::Operation::details) adds
//! options; its closure runs only while something is recorded.
//!
//! Tensors are identified by their memory, shape and format: an unchanged tensor stays the same
//! value wherever it is passed. The recorder holds a weak handle of each, so that the memory's
//! address stays its own and nothing is overwritten in place. A tensor that no recorded operation
//! returned is a constant.

// Only the export uses what is recorded.
#![cfg_attr(not(feature = "onnx"), allow(dead_code))]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use super::hooks;
use super::watch::{Watcher, watch};
use crate::error::Result;
use crate::tensor::shape::formats_agree;
use crate::tensor::storage::Storage;
use crate::tensor::{DType, MemoryFormat, Tensor};

/// An option of an operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Detail {
    Int(i64),
    Ints(Vec<i64>),
    Float(f64),
    Text(&'static str),
}

/// The options of an operation, and further tensors that it reads, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Details {
    pub(crate) options: Vec<(&'static str, Detail)>,
    pub(crate) tensors: Vec<(&'static str, Tensor)>,
}

impl Details {
    pub(crate) fn new() -> Details {
        Details::default()
    }

    fn with(mut self, name: &'static str, detail: Detail) -> Details {
        self.options.push((name, detail));
        self
    }

    pub(crate) fn int(self, name: &'static str, value: usize) -> Details {
        self.with(name, Detail::Int(value as i64))
    }

    pub(crate) fn flag(self, name: &'static str, value: bool) -> Details {
        self.with(name, Detail::Int(i64::from(value)))
    }

    pub(crate) fn ints(self, name: &'static str, values: &[usize]) -> Details {
        self.with(name, Detail::Ints(values.iter().map(|&value| value as i64).collect()))
    }

    pub(crate) fn signed(self, name: &'static str, values: &[isize]) -> Details {
        self.with(name, Detail::Ints(values.iter().map(|&value| value as i64).collect()))
    }

    pub(crate) fn float(self, name: &'static str, value: f64) -> Details {
        self.with(name, Detail::Float(value))
    }

    pub(crate) fn text(self, name: &'static str, value: &'static str) -> Details {
        self.with(name, Detail::Text(value))
    }

    pub(crate) fn tensor(mut self, name: &'static str, tensor: &Tensor) -> Details {
        self.tensors.push((name, tensor.detach()));
        self
    }
}

/// A tensor of the run.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: DType,
    /// The number of the step that returned it; `None` for inputs and for tensors from outside.
    pub(crate) producer: Option<usize>,
    /// The elements, if they do not depend on an input.
    pub(crate) constant: Option<Tensor>,
}

/// A recorded operation; tensors are numbers of [`Recording::values`].
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) op: &'static str,
    /// Whether a user defined it.
    pub(crate) custom: bool,
    /// The path of the layer or block that ran it.
    pub(crate) path: Arc<str>,
    /// An input that an operation does without is a scalar of u8.
    pub(crate) inputs: Vec<usize>,
    pub(crate) tensors: Vec<(&'static str, usize)>,
    pub(crate) options: Vec<(&'static str, Detail)>,
    pub(crate) outputs: Vec<usize>,
}

/// The operations of one run.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    pub(crate) values: Vec<Value>,
    pub(crate) steps: Vec<Step>,
    pub(crate) inputs: Vec<usize>,
    pub(crate) outputs: Vec<usize>,
}

/// The address of the elements, the shape, and whether they are channels-last.
type Key = (usize, Vec<usize>, bool);

#[derive(Default)]
struct Recorder {
    recording: Recording,
    numbers: HashMap<Key, usize>,
    /// Keep the addresses of the elements from being used again.
    held: Vec<Weak<Storage>>,
    /// The details of the running operation.
    details: Details,
}

impl Recorder {
    fn key(tensor: &Tensor) -> (Key, Weak<Storage>) {
        let storage = tensor.storage_handle();
        let last = tensor.memory_format() == MemoryFormat::ChannelsLast && !formats_agree(tensor.shape());
        ((storage.as_ptr().addr(), tensor.shape().to_vec(), last), storage)
    }

    /// Adds a value.
    fn add(&mut self, tensor: &Tensor, producer: Option<usize>, is_constant: bool) -> usize {
        let (key, storage) = Recorder::key(tensor);
        let number = self.recording.values.len();
        self.held.push(storage);
        self.numbers.insert(key, number);
        let constant = is_constant.then(|| tensor.detach());
        self.recording.values.push(Value { shape: tensor.shape().to_vec(), dtype: tensor.dtype(), producer, constant });
        number
    }

    /// Returns the number of a tensor, which is a constant if it is new.
    fn number(&mut self, tensor: &Tensor) -> usize {
        match self.numbers.get(&Recorder::key(tensor).0) {
            Some(&number) => number,
            None => self.add(tensor, None, true),
        }
    }

    fn step(&mut self, op: &'static str, custom: bool, path: Arc<str>, inputs: &[&Tensor], outputs: &[&Tensor]) {
        let Details { options, tensors } = std::mem::take(&mut self.details);
        let inputs: Vec<usize> = inputs.iter().map(|input| self.number(input)).collect();
        let tensors: Vec<(&'static str, usize)> = tensors.iter().map(|(name, tensor)| (*name, self.number(tensor))).collect();
        let mut reads = inputs.iter().copied().chain(tensors.iter().map(|&(_, number)| number));
        let is_constant = reads.all(|number| self.recording.values[number].constant.is_some());
        // A result with the memory, shape and format of a known value is that value, as after a
        // conversion to the format that it has.
        if outputs.iter().all(|output| self.numbers.contains_key(&Recorder::key(output).0)) {
            return;
        }
        let number = self.recording.steps.len();
        let outputs = outputs.iter().map(|output| self.add(output, Some(number), is_constant)).collect();
        self.recording.steps.push(Step { op, custom, path, inputs, tensors, options, outputs });
    }
}

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Returns whether this thread records.
#[inline]
pub(crate) fn is_on() -> bool {
    ON.get()
}

/// Makes layers run one by one.
struct Apart;

impl Watcher for Apart {
    fn output(&self, _path: &str, output: Tensor) -> Result<Tensor> {
        Ok(output)
    }

    fn splits(&self) -> bool {
        true
    }
}

/// Runs `body`, which maps the inputs to the outputs, and returns the operations that it ran on
/// this thread. A recording inside another one is not part of it.
///
/// # Errors
/// Those of `body`.
pub(crate) fn record(inputs: &[Tensor], body: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>) -> Result<Recording> {
    /// Restores the enclosing recorder, on unwinding too.
    struct Restore(Option<Recorder>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ON.set(self.0.is_some());
            RECORDER.set(self.0.take());
        }
    }
    let mut recorder = Recorder::default();
    recorder.recording.inputs = inputs.iter().map(|input| recorder.add(input, None, false)).collect();
    let restore = Restore(RECORDER.replace(Some(recorder)));
    ON.set(true);
    let (outputs, _) = hooks::observe(|| watch(Rc::new(Apart), || body(inputs)));
    let mut recorder = RECORDER.take().unwrap_or_default();
    drop(restore);
    recorder.recording.outputs = outputs?.iter().map(|output| recorder.number(output)).collect();
    Ok(recorder.recording)
}

/// Keeps the details of the running operation for its step.
#[cold]
pub(super) fn describe(details: Details) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            recorder.details = details;
        }
    });
}

/// Records a step, which [`hooks`] has found to be the outermost operation.
#[cold]
pub(super) fn step(op: &'static str, custom: bool, path: Arc<str>, inputs: &[&Tensor], outputs: &[&Tensor]) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            recorder.step(op, custom, path, inputs, outputs);
        }
    });
}

/// Records the result of an operation with a gradient, if it is the outermost running one. Called
/// only while an observer is active.
#[cold]
pub(crate) fn differentiable(op: &'static str, inputs: &[&Tensor], output: &Tensor) {
    if is_on()
        && let Some(path) = hooks::outermost(op)
    {
        step(op, false, path, inputs, &[output]);
    }
}
