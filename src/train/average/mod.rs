//! Averages of a model's weights over training: exponential ([`Ema`]) and equal ([`Swa`]).

use std::collections::HashMap;
use std::fmt;

use crate::error::{Error, Result, short};
use crate::kernels::optim::{Blend, update};
use crate::nn::{Buffer, Module, Parameter, StateDict};
use crate::tensor::{DType, Tensor, with_float};

/// An average of a model's parameters that is updated during training and takes the parameters'
/// place for validation.
///
/// ```
/// use convnet::prelude::*;
/// use convnet::train::{Ema, WeightAverage};
///
/// let model = Linear::new(4, 2);
/// let mut optimizer = Sgd::new(model.parameters(), 0.1);
/// let mut ema = Ema::new(0.9);
/// for _ in 0..3 {
///     let loss = model.forward(&Tensor::ones([8, 4]))?.mean(..)?;
///     optimizer.step(&loss.backward()?)?;
///     ema.update(&model)?;
/// }
/// ema.swap(&model)?; // the model has the average: validate or save it
/// let averaged = model.state_dict();
/// ema.swap(&model)?; // and its own parameters again: go on training
/// assert_eq!(averaged.get("weight"), ema.state_dict()?.get("weight"));
/// # Ok::<(), convnet::Error>(())
/// ```
pub trait WeightAverage: Send {
    /// Returns the name of the kind of average: `ema`, `swa`.
    fn name(&self) -> &'static str;

    /// Adds the model's present parameters to the average; call it after the optimiser's step. The
    /// first update copies them.
    ///
    /// # Errors
    /// [`Error::StateDict`] when the model has other parameters than at the first update;
    /// [`Error::Argument`] while the average is in the model ([`swap`](WeightAverage::swap)), and
    /// for settings out of range.
    fn update(&mut self, model: &dyn Module) -> Result<()>;

    /// Returns the number of updates so far.
    fn updates(&self) -> u64;

    /// Exchanges the model's parameters (and buffers) with the average. Optimisers keep their
    /// state, and gradients are found under the same leaves. A second call exchanges them back.
    ///
    /// # Errors
    /// [`Error::Argument`] before the first update; [`Error::StateDict`] when the model has other
    /// parameters than at the first update.
    fn swap(&mut self, model: &dyn Module) -> Result<()>;

    /// Returns whether the average is in the model at present.
    fn is_swapped(&self) -> bool;

    /// Returns the average by the paths of the model's state dict, for
    /// [`load_state_dict`](crate::nn::ModuleExt::load_state_dict) of another model or for a file.
    ///
    /// # Errors
    /// [`Error::Argument`] while the average is in the model, whose own state dict it is then.
    fn state_dict(&self) -> Result<StateDict>;

    /// Returns a snapshot for a checkpoint: the number of updates and the average.
    ///
    /// # Errors
    /// [`Error::Argument`] while the average is in the model.
    fn state(&self) -> Result<StateDict> {
        let mut state = StateDict::new();
        state.insert("updates", Tensor::scalar(i64::try_from(self.updates()).unwrap_or(i64::MAX)));
        for (name, value) in self.state_dict()? {
            state.insert(format!("average.{name}"), value);
        }
        Ok(state)
    }

    /// Restores a snapshot, so that further updates give the same bits.
    ///
    /// # Errors
    /// [`Error::StateDict`] when it is not a snapshot of an average, or one of another model; then
    /// nothing has changed. [`Error::Argument`] while the average is in the model.
    fn load_state(&mut self, state: &StateDict) -> Result<()>;
}

/// The exponential moving average `average ← decay · average + (1 - decay) · parameter`; PyTorch's
/// `AveragedModel` with `get_ema_multi_avg_fn(decay)`, timm's `ModelEmaV3`.
pub type Ema = Averaged<EmaRule>;

/// The equal average of the parameters at all updates, for stochastic weight averaging (Izmailov et
/// al., 2018); PyTorch's `AveragedModel`. [`update_batch_norm`](crate::train::update_batch_norm)
/// gives the averaged model running statistics of the activations that the averaged weights give.
///
/// ```
/// use convnet::prelude::*;
/// use convnet::train::{Swa, WeightAverage, update_batch_norm};
///
/// let model = Sequential::new().push(Conv2d::new(1, 4, 3)).push(BatchNorm2d::new(4));
/// let mut swa = Swa::new();
/// swa.update(&model)?; // after each of the last epochs
/// swa.swap(&model)?;
/// let inputs = (0..10).map(|_| Ok(Tensor::randn([8, 1, 6, 6])));
/// update_batch_norm(&model, inputs)?;
/// # Ok::<(), convnet::Error>(())
/// ```
pub type Swa = Averaged<SwaRule>;

/// The weight of a new value in an average.
pub trait AverageRule: Clone + fmt::Debug + Send + 'static {
    /// The name of the average in messages.
    const NAME: &'static str;

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings out of range.
    fn check(&self) -> Result<()>;

    /// Returns the weight of the next value, after this many updates (at least one).
    fn share(&self, updates: u64) -> f64;
}

/// The settings of [`Ema`].
#[derive(Clone, Debug, PartialEq)]
pub struct EmaRule {
    decay: f64,
    warmup: Option<[f64; 2]>,
}

/// The settings of [`Swa`]: none.
#[derive(Clone, Debug, PartialEq)]
pub struct SwaRule;

impl AverageRule for EmaRule {
    const NAME: &'static str = "ema";

    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.decay) {
            return Err(Error::argument("ema", format!("the decay must be in [0, 1], got {}", self.decay)));
        }
        match self.warmup {
            Some([gamma, power]) if !(gamma > 0.0 && power > 0.0) => {
                Err(Error::argument("ema", format!("gamma and power of the warm-up must be positive, got {gamma} and {power}")))
            }
            _ => Ok(()),
        }
    }

    fn share(&self, updates: u64) -> f64 {
        let decay = match self.warmup {
            Some([gamma, power]) => self.decay.min(1.0 - (1.0 + updates as f64 / gamma).powf(-power)),
            None => self.decay,
        };
        1.0 - decay
    }
}

impl AverageRule for SwaRule {
    const NAME: &'static str = "swa";

    fn check(&self) -> Result<()> {
        Ok(())
    }

    fn share(&self, updates: u64) -> f64 {
        1.0 / (updates as f64 + 1.0)
    }
}

/// An average with the rule `R`; see [`Ema`] and [`Swa`]. Its methods are those of
/// [`WeightAverage`].
///
/// The average has the parameters' dtypes. Buffers, such as running statistics, are those of the
/// model at the last update, unless [`average_buffers`](Averaged::average_buffers) is set.
#[derive(Clone, Debug)]
pub struct Averaged<R> {
    rule: R,
    average_buffers: bool,
    updates: u64,
    swapped: bool,
    /// The average; while it is in the model, the model's own values.
    values: Vec<(String, Tensor)>,
}

impl Ema {
    /// Makes an average that keeps the share `decay` of itself at each update, in `[0, 1]`.
    pub fn new(decay: f64) -> Ema {
        Averaged::with_rule(EmaRule { decay, warmup: None })
    }

    /// Lets the decay rise as `1 - (1 + n)^(-2/3)` with the number `n` of updates until it reaches
    /// its full value (timm's `use_warmup`), so that the average does not remember the initial
    /// weights for long.
    #[must_use]
    pub fn warmup(self) -> Ema {
        self.warmup_curve(1.0, 2.0 / 3.0)
    }

    /// Lets the decay rise as `1 - (1 + n / gamma)^(-power)`; see [`warmup`](Ema::warmup).
    #[must_use]
    pub fn warmup_curve(mut self, gamma: f64, power: f64) -> Ema {
        self.rule.warmup = Some([gamma, power]);
        self
    }
}

impl Swa {
    /// Makes an equal average.
    pub fn new() -> Swa {
        Averaged::with_rule(SwaRule)
    }
}

impl Default for Swa {
    fn default() -> Swa {
        Swa::new()
    }
}

impl<R: AverageRule> Averaged<R> {
    /// Makes an average with a rule.
    pub fn with_rule(rule: R) -> Averaged<R> {
        Averaged { rule, average_buffers: false, updates: 0, swapped: false, values: vec![] }
    }

    /// Sets whether floating-point buffers, such as running statistics, are averaged like
    /// parameters (default: false, they are copied); PyTorch's `use_buffers`.
    #[must_use]
    pub fn average_buffers(mut self, average: bool) -> Averaged<R> {
        self.average_buffers = average;
        self
    }

    fn check_not_swapped(&self) -> Result<()> {
        if self.swapped {
            return Err(Error::argument(R::NAME, "the average is in the model; `swap` it back first"));
        }
        Ok(())
    }

    /// Checks that the model has the names and shapes of the average, and brings the average into
    /// the model's order: a snapshot from a file has another one.
    fn check_model(&mut self, entries: &[(String, Entry)]) -> Result<()> {
        let places: HashMap<&str, usize> = entries.iter().enumerate().map(|(place, (name, _))| (name.as_str(), place)).collect();
        self.values.sort_by_key(|(name, _)| places.get(name.as_str()).copied());
        for ((name, entry), (known, value)) in entries.iter().zip(&self.values) {
            if name != known || entry.shape() != value.shape() {
                let (known, is) = (short(known), value.shape());
                let message =
                    format!("the average has {known} {is:?} where the model has {name} {:?}; it is of another model", entry.shape());
                return Err(Error::StateDict(message));
            }
        }
        if entries.len() != self.values.len() {
            let (model, average) = (entries.len(), self.values.len());
            return Err(Error::StateDict(format!("the average has {average} tensors, the model {model}; it is of another model")));
        }
        Ok(())
    }
}

impl<R: AverageRule> WeightAverage for Averaged<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn update(&mut self, model: &dyn Module) -> Result<()> {
        self.rule.check()?;
        self.check_not_swapped()?;
        let entries = entries(model);
        if self.updates == 0 {
            self.values = entries.into_iter().map(|(name, entry)| Ok((name, entry.value()?))).collect::<Result<_>>()?;
            self.updates = 1;
            return Ok(());
        }
        self.check_model(&entries)?;
        let share = self.rule.share(self.updates);
        for ((_, entry), (_, average)) in entries.iter().zip(&mut self.values) {
            let value = entry.value()?;
            let averaged = matches!(entry, Entry::Parameter(_)) || self.average_buffers && value.dtype().is_float();
            if averaged { blend(average, &value, share)? } else { *average = value }
        }
        self.updates += 1;
        Ok(())
    }

    fn updates(&self) -> u64 {
        self.updates
    }

    fn swap(&mut self, model: &dyn Module) -> Result<()> {
        if self.updates == 0 {
            return Err(Error::argument(R::NAME, "there is no average before the first `update`"));
        }
        let entries = entries(model);
        self.check_model(&entries)?;
        let own = entries.iter().map(|(_, entry)| entry.value()).collect::<Result<Vec<Tensor>>>()?;
        for ((_, entry), (_, value)) in entries.iter().zip(&self.values) {
            entry.set(value)?;
        }
        for ((_, value), own) in self.values.iter_mut().zip(own) {
            *value = own;
        }
        self.swapped = !self.swapped;
        Ok(())
    }

    fn is_swapped(&self) -> bool {
        self.swapped
    }

    fn state_dict(&self) -> Result<StateDict> {
        self.check_not_swapped()?;
        Ok(self.values.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn load_state(&mut self, state: &StateDict) -> Result<()> {
        self.check_not_swapped()?;
        let count = state.try_get("updates")?;
        let updates = (count.dtype() == DType::I64 && count.numel() == 1).then(|| count.data::<i64>()[0]);
        let Some(updates) = updates.and_then(|count| u64::try_from(count).ok()) else {
            return Err(Error::StateDict(format!("updates should be one i64 that is not negative, got {count:?}")));
        };
        let mut values = vec![];
        for (name, value) in state.iter().filter(|(name, _)| *name != "updates") {
            let Some(path) = name.strip_prefix("average.") else {
                return Err(Error::StateDict(format!("unexpected {} in the snapshot of an average", short(name))));
            };
            values.push((path.to_string(), value.clone()));
        }
        if updates > 0 && self.updates > 0 {
            let same = |(name, new): &(String, Tensor)| self.values.iter().any(|(known, old)| known == name && old.shape() == new.shape());
            if values.len() != self.values.len() || !values.iter().all(same) {
                return Err(Error::StateDict("the snapshot of the average is of another model".into()));
            }
        }
        (self.updates, self.values) = (updates, values);
        Ok(())
    }
}

/// Runs `body` while the average is in the model, and exchanges them back afterwards, also when
/// `body` fails or panics: for validation and for saving.
///
/// ```
/// use convnet::prelude::*;
/// use convnet::train::{Ema, WeightAverage, with_average};
///
/// let model = Linear::new(4, 2);
/// let mut ema = Ema::new(0.99);
/// ema.update(&model)?; // after each step
/// let outputs = with_average(&mut ema, &model, || no_grad(|| model.forward(&Tensor::ones([1, 4]))))?;
/// assert!(outputs.shape() == [1, 2] && !ema.is_swapped());
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Those of `body` and of [`swap`](WeightAverage::swap); [`Error::Argument`] when the average is in
/// the model already.
pub fn with_average<A: WeightAverage + ?Sized, T>(average: &mut A, model: &dyn Module, body: impl FnOnce() -> Result<T>) -> Result<T> {
    struct SwapBack<'a, A: WeightAverage + ?Sized>(&'a mut A, &'a dyn Module);
    impl<A: WeightAverage + ?Sized> Drop for SwapBack<'_, A> {
        fn drop(&mut self) {
            if self.0.is_swapped() {
                // Only after a panic, which is reported already.
                let _ = self.0.swap(self.1);
            }
        }
    }
    if average.is_swapped() {
        return Err(Error::argument(average.name(), "the average is in the model already"));
    }
    average.swap(model)?;
    let swapped = SwapBack(average, model);
    let result = body();
    swapped.0.swap(model)?;
    result
}

/// A parameter or buffer of a model.
enum Entry {
    Parameter(Parameter),
    Buffer(Buffer),
}

impl Entry {
    fn value(&self) -> Result<Tensor> {
        Ok(match self {
            Entry::Parameter(parameter) => parameter.try_tensor()?.detach(),
            Entry::Buffer(buffer) => buffer.tensor(),
        })
    }

    fn shape(&self) -> Vec<usize> {
        match self {
            Entry::Parameter(parameter) => parameter.shape(),
            Entry::Buffer(buffer) => buffer.shape(),
        }
    }

    fn set(&self, value: &Tensor) -> Result<()> {
        match self {
            Entry::Parameter(parameter) => parameter.set(value),
            Entry::Buffer(buffer) => buffer.set(value),
        }
    }
}

fn entries(model: &dyn Module) -> Vec<(String, Entry)> {
    let parameters = model.named_parameters().into_iter().map(|(name, parameter)| (name, Entry::Parameter(parameter)));
    let buffers = model.named_buffers().into_iter().map(|(name, buffer)| (name, Entry::Buffer(buffer)));
    parameters.chain(buffers).collect()
}

/// Computes `average += share · (value - average)`, in place.
fn blend(average: &mut Tensor, value: &Tensor, share: f64) -> Result<()> {
    // As of a frozen parameter: the same memory has the same values.
    if average.shares_elements(value) {
        return Ok(());
    }
    with_float!(value.dtype(), "average", T => {
        let format = value.memory_format();
        if average.dtype() != value.dtype() || average.memory_format() != format {
            *average = average.to_format(format)?.cast(value.dtype())?;
        }
        update(Blend { share }, average.make_mut::<T>()?, value.data(), []);
        Ok(())
    })
}

#[cfg(test)]
mod tests;
