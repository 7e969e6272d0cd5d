//! Parameters and buffers: the only mutable state of a network besides training switches.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Error, Result};
use crate::tensor::create::or_panic;
use crate::tensor::guard::with_value;
use crate::tensor::meta::is_meta;
use crate::tensor::{DType, Tensor};

/// A tensor that an optimiser changes; clones share it.
///
/// The current value is a leaf of the graph, the same leaf before and after an update, so that
/// [`Gradients::get`](crate::autograd::Gradients::get) finds its gradient by `parameter.tensor()`.
///
/// ```
/// use convnet::{Tensor, nn::Parameter};
///
/// let w = Parameter::new(Tensor::ones([2]));
/// let grads = w.tensor().mul_scalar(3.0).sum(..)?.backward()?;
/// assert_eq!(grads.get(&w.tensor()).expect("w took part").to_vec::<f32>()?, [3.0, 3.0]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone)]
pub struct Parameter {
    shared: Arc<Shared>,
}

struct Shared {
    shape: Vec<usize>,
    value: RwLock<Value>,
    version: AtomicU64,
    frozen: AtomicBool,
}

thread_local! {
    static CONSTANT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` with the values of all parameters on this thread as tensors that require no
/// gradient, whether they are frozen or not: for gradients of inputs alone.
pub(crate) fn as_constants<R>(body: impl FnOnce() -> R) -> R {
    with_value(&CONSTANT, true, body)
}

/// Returns a number that has not been used before.
fn new_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Called again after it has failed.
type InitFn = Box<dyn Fn() -> Result<Tensor> + Send + Sync>;

enum Value {
    Ready(Tensor),
    /// Not yet computed: a layer whose options are still being set, or whose weights come from a
    /// file, draws no numbers and takes no memory.
    Pending(InitFn),
}

impl Parameter {
    /// Creates a parameter with this initial value.
    pub fn new(value: Tensor) -> Parameter {
        Parameter::with_value(value.shape().to_vec(), Value::Ready(value.with_grad()))
    }

    /// Creates a parameter of this shape whose initial value, `f32`, is computed on first use.
    pub(crate) fn lazy(shape: Vec<usize>, init: impl Fn(&[usize]) -> Result<Tensor> + Send + Sync + 'static) -> Parameter {
        let of = shape.clone();
        Parameter::with_value(shape, Value::Pending(Box::new(move || Ok(init(&of)?.with_grad()))))
    }

    fn with_value(shape: Vec<usize>, value: Value) -> Parameter {
        let (value, version) = (RwLock::new(value), AtomicU64::new(new_version()));
        Parameter { shared: Arc::new(Shared { shape, value, version, frozen: AtomicBool::new(false) }) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Value> {
        self.shared.value.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Value> {
        self.shared.value.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a change. Must be called after the new value is stored and while the lock is still
    /// held, so that a thread that reads the new version also reads the new value.
    fn renew_version(&self) {
        self.shared.version.store(new_version(), Ordering::Release);
    }

    /// Returns the current value: a leaf that requires a gradient, or a plain tensor while the
    /// parameter is frozen.
    ///
    /// # Panics
    /// When the initial value has not been drawn yet and memory cannot hold it;
    /// [`try_tensor`](Parameter::try_tensor) returns an error instead.
    #[track_caller]
    pub fn tensor(&self) -> Tensor {
        or_panic(self.try_tensor())
    }

    /// Returns the current value like [`tensor`](Parameter::tensor), but an error instead of a
    /// panic.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the initial value has not been drawn yet and memory cannot hold
    /// it.
    pub fn try_tensor(&self) -> Result<Tensor> {
        let leaf = self.leaf()?;
        Ok(if self.is_frozen() || CONSTANT.get() { leaf.detach() } else { leaf })
    }

    /// Returns the values of parameters that a layer may lack, such as weight and bias.
    pub(crate) fn values<const N: usize>(of: [&Option<Parameter>; N]) -> Result<[Option<Tensor>; N]> {
        let mut values = [const { None }; N];
        for (value, parameter) in values.iter_mut().zip(of) {
            *value = parameter.as_ref().map(Parameter::try_tensor).transpose()?;
        }
        Ok(values)
    }

    /// Returns the leaf under which gradients are stored, frozen or not.
    pub(crate) fn leaf(&self) -> Result<Tensor> {
        if let Value::Ready(value) = &*self.read() {
            return Ok(value.clone());
        }
        if is_meta() {
            // A meta run needs shapes only, so no initial value is drawn.
            return Ok(Tensor::try_full(self.dims(), 0.0, DType::F32)?.with_grad());
        }
        Ok(self.write().ready()?.clone())
    }

    /// Returns the size of each dimension.
    pub fn shape(&self) -> Vec<usize> {
        self.shared.shape.clone()
    }

    pub(crate) fn dims(&self) -> &[usize] {
        &self.shared.shape
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        match &*self.read() {
            Value::Ready(value) => value.dtype(),
            Value::Pending(_) => DType::F32,
        }
    }

    /// Returns the number of elements.
    pub fn numel(&self) -> usize {
        // A layer may be larger than memory as long as its parameters have not been drawn.
        self.shared.shape.iter().fold(1, |count: usize, &size| count.saturating_mul(size))
    }

    /// Replaces the value and the dtype with those of `value`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shape differs, [`Error::DType`] unless the new value is floating
    /// point.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        value.expect_float("parameter")?;
        self.replace(value)
    }

    /// Replaces the value. Does nothing in a meta run, which computes no values.
    fn replace(&self, value: &Tensor) -> Result<()> {
        if self.dims() != value.shape() {
            return Err(Error::shape("parameter", format!("expected shape {:?}, got {:?}", self.dims(), value.shape())));
        }
        if is_meta() {
            return Ok(());
        }
        let mut current = self.write();
        // A pending initial value need not be computed to be replaced.
        *current = Value::Ready(match &*current {
            Value::Ready(old) => value.detach().with_node(old.node().cloned()),
            Value::Pending(_) => value.with_grad(),
        });
        self.renew_version();
        Ok(())
    }

    /// Sets another initial value, computed on first use, if the value has not been used yet;
    /// otherwise replaces the value at once.
    pub(crate) fn start_with(&self, init: impl Fn(&[usize]) -> Result<Tensor> + Send + Sync + 'static) -> Result<()> {
        let shape = self.shared.shape.clone();
        let mut value = self.write();
        if let Value::Pending(pending) = &mut *value {
            *pending = Box::new(move || Ok(init(&shape)?.with_grad()));
            self.renew_version();
            return Ok(());
        }
        drop(value);
        self.replace(&init(&shape)?)
    }

    /// Calls `change` to replace the value, or to overwrite it in place when the value is not
    /// shared. The leaf stays the same. Does nothing in a meta run.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Tensor) -> Result<()>) -> Result<()> {
        if is_meta() {
            return Ok(());
        }
        let mut guard = self.write();
        let current = guard.ready()?;
        let node = current.node().cloned();
        let result = change(current);
        let value = std::mem::replace(current, Tensor::scalar(0u8));
        *current = value.with_node(node);
        debug_assert_eq!(current.shape(), self.dims());
        self.renew_version();
        result
    }

    /// Returns a number that changes with each change of the value and differs between parameters.
    /// A result derived from the value is valid as long as the version that was read before the
    /// value stays the same.
    pub(crate) fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// Returns whether gradients are switched off for this parameter.
    pub fn is_frozen(&self) -> bool {
        self.shared.frozen.load(Ordering::Relaxed)
    }

    /// Switches gradients off or on.
    pub fn set_frozen(&self, frozen: bool) {
        self.shared.frozen.store(frozen, Ordering::Relaxed);
    }

    /// Returns a key that identifies the parameter: clones have the same key.
    pub(crate) fn key(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }
}

impl Value {
    fn ready(&mut self) -> Result<&mut Tensor> {
        if let Value::Pending(init) = self {
            *self = Value::Ready(init()?);
        }
        match self {
            Value::Ready(value) => Ok(value),
            Value::Pending(_) => unreachable!("made ready above"),
        }
    }
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parameter({:?}{})", self.dims(), if self.is_frozen() { ", frozen" } else { "" })
    }
}

/// A tensor that belongs to a module's state and is saved with it, but is not changed by
/// optimisers, such as running statistics. Clones share it.
#[derive(Clone)]
pub struct Buffer {
    // Always frozen, so that its tensor never requires a gradient.
    inner: Parameter,
}

impl Buffer {
    /// Creates a buffer with this initial value, of any dtype.
    pub fn new(value: Tensor) -> Buffer {
        Buffer::of(Parameter::new(value))
    }

    /// Makes a parameter a buffer.
    pub(crate) fn of(inner: Parameter) -> Buffer {
        inner.set_frozen(true);
        Buffer { inner }
    }

    /// Returns the current value like [`tensor`](Buffer::tensor), but an error instead of a panic.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when memory cannot hold the initial value.
    pub fn try_tensor(&self) -> Result<Tensor> {
        self.inner.try_tensor()
    }

    /// Returns the current value.
    ///
    /// # Panics
    /// When memory cannot hold the initial value.
    #[track_caller]
    pub fn tensor(&self) -> Tensor {
        self.inner.tensor()
    }

    /// Returns the size of each dimension.
    pub fn shape(&self) -> Vec<usize> {
        self.inner.shape()
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shape differs.
    pub fn set(&self, value: &Tensor) -> Result<()> {
        self.inner.replace(value)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Tensor) -> Result<()>) -> Result<()> {
        self.inner.update(change)
    }

    pub(crate) fn key(&self) -> usize {
        self.inner.key()
    }

    pub(crate) fn dims(&self) -> &[usize] {
        self.inner.dims()
    }

    /// Returns a number that changes with each change of the value; see [`Parameter::version`].
    pub(crate) fn version(&self) -> u64 {
        self.inner.version()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({:?})", self.inner.dims())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lazy_value_is_computed_once_and_not_at_all_when_replaced_first() {
        let lazy = || Parameter::lazy(vec![2], |shape| Ok(Tensor::rand(shape)));
        let (a, b) = (lazy(), Parameter::lazy(vec![2], |_| panic!("not asked for")));
        assert_eq!(a.tensor().to_vec::<f32>().unwrap(), a.tensor().to_vec::<f32>().unwrap());
        b.set(&Tensor::ones([2])).unwrap();
        assert_eq!(b.tensor().to_vec::<f32>().unwrap(), [1.0, 1.0]);
        assert!(b.tensor().requires_grad());
    }

    #[test]
    fn update_keeps_the_leaf() {
        let w = Parameter::new(Tensor::ones([2]));
        let loss = w.tensor().sum(..).unwrap();
        w.update(|value| {
            *value = value.mul_scalar(2.0);
            Ok(())
        })
        .unwrap();
        assert!(loss.backward().unwrap().get(&w.tensor()).is_some());
        w.set_frozen(true);
        assert!(!w.tensor().requires_grad() && w.leaf().unwrap().requires_grad());
    }
}
