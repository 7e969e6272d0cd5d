//! Diagnoses of training that fails: numbers that are not finite, parameters without gradients,
//! dead rectifiers, steps of the wrong size.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use super::network::Network;
use crate::autograd::{Gradients, is_recomputing};
use crate::error::{Error, Result};
use crate::nn::Module;
use crate::profiling::watch::{self, Watcher};
use crate::tensor::{DType, Tensor};

/// The first output of a network that contains NaN or infinity; see [`first_non_finite`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct NonFinite {
    /// The path of the layer or block.
    pub path: String,
    /// The layer's description, as in `Conv2d 64→64, k3`; empty for a block.
    pub layer: String,
    /// The number of elements that are NaN.
    pub nan: usize,
    /// The number of elements that are infinite.
    pub infinite: usize,
    /// The number of elements of the output.
    pub numel: usize,
    /// Those parameters and buffers of the network that are not finite themselves.
    pub parameters: Vec<String>,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = if self.layer.is_empty() { String::new() } else { format!(" ({})", self.layer) };
        write!(f, "{}{layer}: {} NaN and {} infinite of {} elements", self.path, self.nan, self.infinite, self.numel)?;
        if !self.parameters.is_empty() {
            write!(f, "; not finite themselves: {}", self.parameters.join(", "))?;
        }
        Ok(())
    }
}

/// Runs `body` and returns the layer or block of `model` that first gives NaN or infinity, `None`
/// when all outputs are finite. `body` ends there.
///
/// A layer that is listed got finite numbers from all layers before it, unless the input of the
/// network was not finite itself.
///
/// ```
/// use convnet::prelude::*;
/// use convnet::inspect;
///
/// let net = Sequential::new().push(Linear::new(2, 3)).push_named("fc", Linear::new(3, 1));
/// let Some(weight) = net.parameters().into_iter().nth(2) else { unreachable!() };
/// weight.set(&Tensor::full([1, 3], f64::INFINITY, DType::F32))?;
/// let found = inspect::first_non_finite(&net, || net.forward(&Tensor::ones([4, 2])))?.expect("an infinite weight");
/// assert_eq!((found.path.as_str(), found.parameters), ("fc", vec!["fc.weight".to_string()]));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Those of `body`, when it fails before an output is not finite.
pub fn first_non_finite<M: Module + ?Sized, T>(model: &M, body: impl FnOnce() -> Result<T>) -> Result<Option<NonFinite>> {
    struct Search {
        network: Network,
        found: RefCell<Option<NonFinite>>,
    }
    impl Watcher for Search {
        fn output(&self, path: &str, output: Tensor) -> Result<Tensor> {
            let is_found = self.found.borrow().is_some();
            let Some(path) = self.network.relative(path).filter(|_| !is_found) else { return Ok(output) };
            let [nan, infinite] = non_finite(&output)?;
            if nan + infinite == 0 {
                return Ok(output);
            }
            let layer = self.network.layer(path).unwrap_or("").to_string();
            let numel = output.numel();
            *self.found.borrow_mut() = Some(NonFinite { path: path.to_string(), layer, nan, infinite, numel, parameters: vec![] });
            Err(Error::msg("an output is not finite"))
        }

        fn splits(&self) -> bool {
            true
        }
    }
    let search = Rc::new(Search { network: Network::of(model), found: RefCell::default() });
    let result = watch::watch(Rc::clone(&search) as Rc<dyn Watcher>, body);
    let Some(mut found) = search.found.take() else { return result.map(|_| None) };
    let parameters = model.named_parameters().into_iter().map(|(path, parameter)| Ok::<_, Error>((path, parameter.try_tensor()?)));
    for named in parameters.chain(model.named_buffers().into_iter().map(|(path, buffer)| Ok((path, buffer.tensor())))) {
        let (path, value): (String, Tensor) = named?;
        if non_finite(&value)? != [0, 0] {
            found.parameters.push(path);
        }
    }
    Ok(Some(found))
}

/// Returns the numbers of NaN and of infinities.
fn non_finite(tensor: &Tensor) -> Result<[usize; 2]> {
    if !tensor.dtype().is_float() {
        return Ok([0, 0]);
    }
    let values = tensor.detach().to_dtype(DType::F64)?.to_vec::<f64>()?;
    Ok([values.iter().filter(|x| x.is_nan()).count(), values.iter().filter(|x| x.is_infinite()).count()])
}

/// Returns the paths of the parameters that are not frozen and got no gradient in a backward pass:
/// they did not take part, and no step changes them.
///
/// ```
/// use convnet::prelude::*;
/// use convnet::inspect;
///
/// let net = Sequential::new().push(Linear::new(2, 3)).push(Linear::new(3, 1));
/// let gradients = net.child(0).expect("two children").forward(&Tensor::ones([4, 2]))?.sum(..)?.backward()?;
/// assert_eq!(inspect::without_gradient(&net, &gradients), ["1.weight", "1.bias"]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn without_gradient<M: Module + ?Sized>(model: &M, gradients: &Gradients) -> Vec<String> {
    let reached: Vec<String> = model.named_gradients(gradients).into_iter().map(|(path, _)| path).collect();
    let trained = model.named_parameters().into_iter().filter(|(_, parameter)| !parameter.is_frozen());
    trained.map(|(path, _)| path).filter(|path| !reached.contains(path)).collect()
}

/// The channels of a rectifier's output that are 0 for every sample and at every position; see
/// [`dead_relus`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadReLUs {
    /// The path of the layer, or of the block whose `forward` applied the rectifier; in a block,
    /// with the number of the call: `layer1.0#2`.
    pub path: String,
    /// The number of channels: the size of dimension 1, or of the last one for outputs of one
    /// dimension.
    pub channels: usize,
    /// The number of channels that are dead.
    pub dead: usize,
}

impl DeadReLUs {
    /// Returns the share of the channels that are dead.
    pub fn share(&self) -> f64 {
        self.dead as f64 / self.channels.max(1) as f64
    }
}

/// Runs `body` and returns the dead channels of each rectifier (ReLU and ReLU6) of `model`, in
/// execution order. Run it on a batch that is large and varied: a channel that is 0 for all of it
/// gets no gradient.
///
/// ```
/// use convnet::prelude::*;
/// use convnet::inspect;
///
/// let net = Sequential::new().push(Linear::new(2, 4)).push(ReLU);
/// net.parameters()[1].set(&Tensor::from_vec(vec![-100f32, 100.0, -100.0, 100.0], [4])?)?;
/// let rectifiers = inspect::dead_relus(&net, || net.forward(&Tensor::rand([8, 2])))?;
/// assert_eq!((rectifiers[0].path.as_str(), rectifiers[0].share()), ("1", 0.5));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Those of `body`.
pub fn dead_relus<M: Module + ?Sized, T>(model: &M, body: impl FnOnce() -> Result<T>) -> Result<Vec<DeadReLUs>> {
    struct Counter {
        network: Network,
        found: RefCell<Vec<(String, Tensor)>>,
    }
    impl Watcher for Counter {
        fn output(&self, _path: &str, output: Tensor) -> Result<Tensor> {
            Ok(output)
        }

        fn splits(&self) -> bool {
            true
        }

        fn rectified(&self, path: &str, output: &Tensor) {
            if let Some(path) = self.network.relative(path).filter(|_| !is_recomputing()) {
                self.found.borrow_mut().push((path.to_string(), output.detach()));
            }
        }
    }
    let counter = Rc::new(Counter { network: Network::of(model), found: RefCell::default() });
    watch::watch(Rc::clone(&counter) as Rc<dyn Watcher>, body)?;
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    let count = |(path, output): (String, Tensor)| {
        let call = calls.entry(path.clone()).or_default();
        *call += 1;
        let name = if counter.network.layer(&path).is_some() { path } else { format!("{path}#{call}") };
        let shape = output.shape();
        let (channels, inner) = match shape {
            [] => (1, 1),
            [channels] => (*channels, 1),
            [_, channels, inner @ ..] => (*channels, inner.iter().product::<usize>()),
        };
        let mut alive = vec![false; channels];
        for (i, plane) in output.to_dtype(DType::F64)?.to_vec::<f64>()?.chunks(inner.max(1)).enumerate() {
            alive[i % channels] |= plane.iter().any(|&y| y != 0.0);
        }
        Ok(DeadReLUs { path: name, channels, dead: alive.iter().filter(|&&alive| !alive).count() })
    };
    counter.found.take().into_iter().map(count).collect()
}

/// The parameters before a step of an optimiser, to compare them with those after it.
///
/// ```
/// use convnet::prelude::*;
/// use convnet::inspect::UpdateRatios;
///
/// let net = Linear::new(3, 2);
/// let mut optimizer = Sgd::new(net.parameters(), 0.1);
/// let gradients = net.forward(&Tensor::ones([4, 3]))?.mean(..)?.backward()?;
/// let before = UpdateRatios::before(&net)?;
/// optimizer.step(&gradients)?;
/// for (path, ratio) in before.after(&net)? {
///     println!("{path}: {ratio:.1e}"); // about 1e-3 is usual
/// }
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct UpdateRatios {
    before: Vec<(String, Vec<f64>)>,
}

impl UpdateRatios {
    /// Keeps a copy of the parameters of a model.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when memory cannot hold it.
    pub fn before<M: Module + ?Sized>(model: &M) -> Result<UpdateRatios> {
        Ok(UpdateRatios { before: parameters(model)? })
    }

    /// Returns, for each parameter, the Euclidean norm of its change divided by its norm before the
    /// step, by path; infinite for a parameter that was 0 and has changed, 0 for one that has not
    /// changed.
    ///
    /// # Errors
    /// [`Error::Argument`] when the model has other parameters than the one before.
    pub fn after<M: Module + ?Sized>(&self, model: &M) -> Result<Vec<(String, f64)>> {
        let after = parameters(model)?;
        let same = |a: &(String, Vec<f64>), b: &(String, Vec<f64>)| a.0 == b.0 && a.1.len() == b.1.len();
        if after.len() != self.before.len() || !after.iter().zip(&self.before).all(|(a, b)| same(a, b)) {
            return Err(Error::argument("update_ratios", "the model has other parameters than the one before the step".to_string()));
        }
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let ratio = |((path, after), (_, before)): ((String, Vec<f64>), &(String, Vec<f64>))| {
            let change = norm(&mut after.iter().zip(before).map(|(a, b)| a - b));
            (path, if change == 0.0 { 0.0 } else { change / norm(&mut before.iter().copied()) })
        };
        Ok(after.into_iter().zip(&self.before).map(ratio).collect())
    }
}

fn parameters<M: Module + ?Sized>(model: &M) -> Result<Vec<(String, Vec<f64>)>> {
    let named = model.named_parameters().into_iter();
    named.map(|(path, parameter)| Ok((path, parameter.try_tensor()?.detach().to_dtype(DType::F64)?.to_vec::<f64>()?))).collect()
}
