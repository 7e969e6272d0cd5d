//! What two recordings of one network have in common.
//!
//! A network is recorded twice, with other numbers and with other sizes in the dimensions that may
//! vary. Read from the outputs back, both recordings have to consist of the same operations on the
//! same constants. What differs between them depends on the input: a size that differs is
//! dynamic; a constant that differs was computed from the input outside of recorded operations, and
//! would be wrong in a file.

use crate::profiling::record::{Recording, Step};
use crate::tensor::{MemoryFormat, Tensor, with_dtype};

/// The operations to export. Values are numbers of the first recording.
pub(super) struct Plan {
    pub(super) first: Recording,
    pub(super) second: Recording,
    /// For each value that is needed, its number in the second recording.
    pub(super) twins: Vec<Option<usize>>,
    /// The needed steps, in order, with those of the second recording.
    pub(super) steps: Vec<[usize; 2]>,
    /// The number of needed steps and outputs that read each value.
    pub(super) readers: Vec<usize>,
}

/// A step, and what is wrong with it.
pub(super) struct Refusal {
    pub(super) op: String,
    pub(super) path: String,
    pub(super) why: String,
}

/// Where a value is read.
#[derive(Clone, Copy)]
enum Reader<'a> {
    Step(&'a Step),
    Output,
}

impl Reader<'_> {
    fn refuse(self, why: String) -> Refusal {
        match self {
            Reader::Step(step) => Refusal { op: step.op.to_string(), path: step.path.to_string(), why },
            Reader::Output => Refusal { op: "output".to_string(), path: String::new(), why },
        }
    }
}

/// Returns whether both constants have the same elements.
fn equal(a: &Tensor, b: &Tensor) -> bool {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        return false;
    }
    if a.shares_elements(b) && a.memory_format() == b.memory_format() {
        return true;
    }
    let (Ok(a), Ok(b)) = (a.to_format(MemoryFormat::RowMajor), b.to_format(MemoryFormat::RowMajor)) else { return false };
    // Bytes, so that NaN equals itself.
    with_dtype!(a.dtype(), T => bytemuck::cast_slice::<T, u8>(a.data()) == bytemuck::cast_slice::<T, u8>(b.data()))
}

/// Returns the tensor that both constants repeat along the dimensions in which their sizes differ,
/// such as zeros for each image of a batch; it has size 1 there.
fn repeated(a: &Tensor, b: &Tensor) -> Option<Tensor> {
    let once = |tensor: &Tensor| {
        let mut once = tensor.detach();
        for (axis, (&size, &other)) in a.shape().iter().zip(b.shape()).enumerate() {
            if size != other {
                once = once.narrow(axis, 0, 1).ok()?;
            }
        }
        let same = once.expand(tensor.shape()).is_ok_and(|all| equal(&all, tensor));
        same.then_some(once)
    };
    let (of_a, of_b) = (once(a)?, once(b)?);
    equal(&of_a, &of_b).then_some(of_a)
}

impl Plan {
    /// Finds the steps that the outputs need.
    pub(super) fn new(first: Recording, second: Recording) -> Result<Plan, Refusal> {
        let count = first.values.len();
        let (twins, readers) = (vec![None; count], vec![0; count]);
        let mut plan = Plan { first, second, twins, steps: vec![], readers };
        plan.pair_up()?;
        Ok(plan)
    }

    /// Returns whether a value is a constant of both recordings with the same elements.
    pub(super) fn is_constant(&self, value: usize) -> bool {
        let constant = |twin: usize| self.second.values[twin].constant.as_ref();
        match (&self.first.values[value].constant, self.twins[value].and_then(constant)) {
            (Some(a), Some(b)) => equal(a, b),
            _ => false,
        }
    }

    /// Returns what a constant repeats along the dimensions whose sizes depend on the input.
    pub(super) fn repeated(&self, value: usize) -> Option<Tensor> {
        let constant = |twin: usize| self.second.values[twin].constant.as_ref();
        repeated(self.first.values[value].constant.as_ref()?, self.twins[value].and_then(constant)?)
    }

    /// Returns the shapes of a value in both recordings.
    pub(super) fn shapes(&self, value: usize) -> [&[usize]; 2] {
        let first = &self.first.values[value].shape[..];
        [first, self.twins[value].map_or(first, |twin| &self.second.values[twin].shape[..])]
    }

    fn pair_up(&mut self) -> Result<(), Refusal> {
        let (inputs, outputs) = (self.first.inputs.clone(), self.first.outputs.clone());
        for (a, b) in inputs.into_iter().zip(self.second.inputs.clone()) {
            self.twins[a] = Some(b);
        }
        if outputs.len() != self.second.outputs.len() {
            let why = format!("two runs returned {} and {} tensors", outputs.len(), self.second.outputs.len());
            return Err(Reader::Output.refuse(why));
        }
        for (a, b) in outputs.into_iter().zip(self.second.outputs.clone()) {
            self.meet(a, b, Reader::Output)?;
        }
        // A step reads only values of earlier steps, so its readers are known when it is reached.
        for number in (0..self.first.steps.len()).rev() {
            let step = &self.first.steps[number];
            let needed: Vec<usize> =
                step.outputs.iter().copied().filter(|&value| self.twins[value].is_some() && !self.is_constant(value)).collect();
            let Some(&value) = needed.first() else { continue };
            let twin = self.twins[value].and_then(|twin| self.second.values[twin].producer);
            let same = |other: &Step| {
                let alike = other.op == step.op && other.path == step.path && other.inputs.len() == step.inputs.len();
                alike && other.tensors.len() == step.tensors.len() && other.outputs.len() == step.outputs.len()
            };
            let Some(twin) = twin.filter(|&twin| same(&self.second.steps[twin])) else {
                let found = twin.map_or("none".to_string(), |twin| format!("`{}`", self.second.steps[twin].op));
                let why = format!(
                    "in a second run, with another input, {found} is in its place: the network chooses its operations by its input"
                );
                return Err(Reader::Step(step).refuse(why));
            };
            let reads =
                |step: &Step| -> Vec<usize> { step.inputs.iter().copied().chain(step.tensors.iter().map(|&(_, value)| value)).collect() };
            let pairs: Vec<(usize, usize)> = reads(step).into_iter().zip(reads(&self.second.steps[twin])).collect();
            for (a, b) in pairs {
                // Borrowed anew: `meet` changes the plan, but no step.
                self.meet_at(a, b, number)?;
            }
            self.steps.push([number, twin]);
        }
        self.steps.reverse();
        Ok(())
    }

    fn meet_at(&mut self, a: usize, b: usize, step: usize) -> Result<(), Refusal> {
        let result = self.check(a, b).map_err(|why| Reader::Step(&self.first.steps[step]).refuse(why));
        self.settle(a, b, result)
    }

    fn meet(&mut self, a: usize, b: usize, reader: Reader<'_>) -> Result<(), Refusal> {
        let result = self.check(a, b).map_err(|why| reader.refuse(why));
        self.settle(a, b, result)
    }

    fn settle(&mut self, a: usize, b: usize, checked: Result<(), Refusal>) -> Result<(), Refusal> {
        checked?;
        self.twins[a] = Some(b);
        self.readers[a] += 1;
        Ok(())
    }

    /// Checks that a value of the first recording and one of the second are the same one.
    fn check(&self, a: usize, b: usize) -> Result<(), String> {
        let (left, right) = (&self.first.values[a], &self.second.values[b]);
        if self.twins[a].is_some_and(|twin| twin != b) {
            return Err("it reads other tensors in a second run, with another input".to_string());
        }
        if left.dtype != right.dtype || left.shape.len() != right.shape.len() {
            let (a, b) = ((&left.shape, left.dtype), (&right.shape, right.dtype));
            return Err(format!("in two runs it reads tensors of different kinds: {a:?} and {b:?}"));
        }
        let is_input = |recording: &Recording, value: usize| recording.inputs.contains(&value);
        match (&left.constant, &right.constant) {
            (Some(x), Some(y)) if (left.producer.is_none() || right.producer.is_none()) && !equal(x, y) && repeated(x, y).is_none() => {
                Err(format!(
                    "it reads a tensor {:?} that differs between two runs with different inputs ({:?} in the other): it was computed from the \
                 input, or its size, outside of recorded operations, as by `to_vec` and `from_vec`, or drawn at random; \
                 compute it with operations on tensors",
                    left.shape, right.shape
                ))
            }
            (Some(_), None) | (None, Some(_)) => {
                Err("it reads a tensor that is computed from the input in one of two runs only".to_string())
            }
            (None, None) if is_input(&self.first, a) != is_input(&self.second, b) => {
                Err("it reads an input of the network in one of two runs only".to_string())
            }
            _ => Ok(()),
        }
    }
}
