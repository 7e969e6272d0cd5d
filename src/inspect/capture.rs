//! Outputs of layers and blocks by path, and networks that stop at one.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use super::network::Network;
use crate::autograd::{Gradients, is_recomputing};
use crate::error::{Error, Result, short};
use crate::nn::Module;
use crate::profiling::watch::{self, Watcher};
use crate::tensor::Tensor;

/// Runs `body` and keeps the outputs of the layers and blocks of `model` at these paths.
///
/// The outputs are tensors of the graph that `body` records, so that a backward pass computes their
/// gradients too: [`Captured::gradient`]. Single layers run without fusion while one of them is
/// captured, so that each has an output; the results are those of the fused kernels up to rounding.
/// Only what runs on the calling thread is captured.
///
/// ```
/// use convnet::prelude::*;
/// use convnet::inspect;
///
/// let net = Sequential::new().push_named("conv", Conv2d::new(1, 4, 3)).push(ReLU).push(Flatten).push(Linear::new(16, 2));
/// let x = Tensor::randn([8, 1, 4, 4]);
/// let seen = no_grad(|| inspect::capture(&net, ["conv", "1"], || net.forward(&x)))?;
/// assert_eq!(seen.output("1")?.to_vec::<f32>()?, seen.output("conv")?.relu().to_vec::<f32>()?);
///
/// let error = inspect::capture(&net, ["con"], || net.forward(&x)).unwrap_err().to_string();
/// assert_eq!(error, "capture: there is no module at path \"con\"; near names are conv, 1, 2, 3");
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Those of `body`. [`Error::Argument`] when there is no module at a path, with near names, and
/// when it did not run or does not report its output.
pub fn capture<M, P, T>(model: &M, paths: P, body: impl FnOnce() -> Result<T>) -> Result<Captured<T>>
where
    M: Module + ?Sized,
    P: IntoIterator<Item: AsRef<str>>,
{
    let recorder = Recorder::new("capture", model, paths, Mode::Keep)?;
    let value = watch::watch(Rc::clone(&recorder) as Rc<dyn Watcher>, body)?;
    let calls = recorder.take("capture")?;
    Ok(Captured { value, calls })
}

/// What [`capture`](capture()) has kept.
pub struct Captured<T> {
    /// What the closure returned.
    pub value: T,
    /// Paths and outputs, in the order in which they were computed.
    calls: Vec<(String, Tensor)>,
}

impl<T> Captured<T> {
    /// Returns the output of the layer or block at this path, the last one if it ran several times.
    ///
    /// # Errors
    /// [`Error::Argument`] when this path was not captured.
    pub fn output(&self, path: &str) -> Result<&Tensor> {
        let last = self.outputs(path).last();
        last.ok_or_else(|| {
            let mut captured: Vec<&str> = self.iter().map(|(path, _)| path).collect();
            captured.dedup();
            Error::argument("capture", format!("path \"{}\" was not captured, but {}", short(path), captured.join(", ")))
        })
    }

    /// Returns the outputs of all calls of the layer or block at this path, in order.
    pub fn outputs<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a Tensor> {
        self.iter().filter(move |(captured, _)| *captured == path).map(|(_, output)| output)
    }

    /// Returns all captured outputs with their paths, in the order in which they were computed.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.calls.iter().map(|(path, output)| (path.as_str(), output))
    }

    /// Returns the gradient of the output at this path, of the output's shape, from a backward pass
    /// over a graph that contains it.
    ///
    /// # Errors
    /// [`Error::Argument`] when this path was not captured, or when the output has no gradient:
    /// nothing was recorded, or the result does not depend on it.
    pub fn gradient<'g>(&self, gradients: &'g Gradients, path: &str) -> Result<&'g Tensor> {
        let output = self.output(path)?;
        gradients.get(output).ok_or_else(|| {
            let reason = if output.requires_grad() {
                "the tensor whose backward pass this is does not depend on it"
            } else {
                "it was computed under `no_grad`, or from frozen parameters and an input without `with_grad`"
            };
            Error::argument("capture", format!("the output at path \"{}\" has no gradient: {reason}", short(path)))
        })
    }
}

impl<T> fmt::Debug for Captured<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(path, output)| (path, output.shape()))).finish()
    }
}

/// Runs a network up to the layer or block at `path` and returns the output there: the network
/// truncated at the path, as torchvision's `create_feature_extractor` makes it. What comes after
/// the path is not computed.
///
/// As with [`forward`](Module::forward), a graph is recorded unless the call is under
/// [`no_grad`](crate::no_grad), and layers are in training or in evaluation as they were set.
///
/// ```
/// use convnet::{Tensor, inspect, models::resnet18, nn::Module, no_grad};
///
/// let model = resnet18(1000);
/// model.eval();
/// let x = Tensor::randn([2, 3, 64, 64]);
/// assert_eq!(no_grad(|| inspect::features(&model, "layer3", &x))?.shape(), [2, 256, 4, 4]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Those of the layers before; [`Error::Argument`] when there is no module at the path, with near
/// names, and when it did not run or does not report its output.
pub fn features<M: Module + ?Sized>(model: &M, path: &str, x: &Tensor) -> Result<Tensor> {
    let recorder = Recorder::new("features", model, [path], Mode::Stop)?;
    let result = watch::watch(Rc::clone(&recorder) as Rc<dyn Watcher>, || model.forward(x));
    if recorder.calls.borrow().is_empty() {
        result?;
    }
    Ok(recorder.take("features")?.swap_remove(0).1)
}

/// What happens with an output after it is recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Its gradient is kept in backward passes.
    Keep,
    /// A leaf of the same values takes its place: the graph starts here.
    Cut,
    /// The forward pass ends.
    Stop,
}

/// Records the outputs at some paths.
pub(super) struct Recorder {
    network: Network,
    wanted: Vec<String>,
    mode: Mode,
    calls: RefCell<Vec<(String, Tensor)>>,
}

impl Recorder {
    pub(super) fn new<M, P>(op: &'static str, model: &M, paths: P, mode: Mode) -> Result<Rc<Recorder>>
    where
        M: Module + ?Sized,
        P: IntoIterator<Item: AsRef<str>>,
    {
        let (network, wanted) = (Network::of(model), paths.into_iter().map(|path| path.as_ref().to_string()).collect::<Vec<_>>());
        wanted.iter().try_for_each(|path| network.check(op, path))?;
        Ok(Rc::new(Recorder { network, wanted, mode, calls: RefCell::default() }))
    }

    /// Returns the recorded outputs of what ran.
    pub(super) fn calls(&self) -> Vec<(String, Tensor)> {
        self.calls.take()
    }

    /// Returns the recorded outputs, at least one for each path.
    pub(super) fn take(&self, op: &'static str) -> Result<Vec<(String, Tensor)>> {
        let calls = self.calls.take();
        match self.wanted.iter().find(|&wanted| calls.iter().all(|(path, _)| path != wanted)) {
            None => Ok(calls),
            Some(path) => Err(Error::argument(
                op,
                format!(
                    "the module at path \"{path}\" has no output: it did not run, or it is a block whose `forward` does not run inside `nn::block`"
                ),
            )),
        }
    }
}

impl Watcher for Recorder {
    fn output(&self, path: &str, output: Tensor) -> Result<Tensor> {
        let path = self.network.relative(path).filter(|path| self.wanted.iter().any(|wanted| wanted == path));
        let Some(path) = path.filter(|_| !is_recomputing()) else { return Ok(output) };
        let output = if self.mode == Mode::Cut { output.with_grad() } else { output };
        output.retain_grad();
        self.calls.borrow_mut().push((path.to_string(), output.clone()));
        if self.mode == Mode::Stop {
            return Err(Error::msg("the forward pass stops here"));
        }
        Ok(output)
    }

    fn splits(&self) -> bool {
        self.wanted.iter().any(|path| self.network.layer(path).is_some())
    }
}
