//! Data-parallel training: settings, and the steps of an epoch.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::gradients::{GradientSum, TreeSum};
use super::group::Group;
use crate::autograd::Gradients;
use crate::data::rng::Purpose;
use crate::data::samplers::Share;
use crate::data::{Collate, DataLoader, Epoch, Rng};
use crate::error::{Context as _, Error, Result};
use crate::nn::{Buffer, JoinSum, Module, ModuleExt, Parameter, synchronized};
use crate::tensor::{DType, Tensor};
use crate::train::{Checkpoint, Mean, Step, number_of};

/// The number of shards of a batch unless another is set.
const SHARDS: usize = 8;

/// How the ranks of a group train together; for
/// [`Trainer::distributed`](crate::train::Trainer::distributed) and [`DataParallel`].
///
/// ```no_run
/// # #[cfg(feature = "mpi")]
/// # fn main() -> convnet::Result<()> {
/// use convnet::data::{Batch, Digits};
/// use convnet::prelude::*;
/// use convnet::train::{Distributed, Group, Step, Trainer};
///
/// let group = Group::mpi()?; // started by `mpirun -n 4 program`
/// let model = Sequential::new().push(Flatten).push(Linear::new(64, 10));
/// Trainer::new(&model, Sgd::new(model.parameters(), 0.5))
///     .distributed(Distributed::new(&group))
///     .fit(&DataLoader::new(Digits::train(), 64).shuffle(0), None, |model, Batch { images, labels }| {
///         Ok(Step::new(model.forward(images)?.cross_entropy(labels)?))
///     })?;
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "mpi"))]
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Distributed<'g> {
    group: &'g Group,
    shards: usize,
    by_tree: bool,
    average_every: Option<u64>,
    bucket_bytes: Option<usize>,
    synchronize: bool,
}

impl<'g> Distributed<'g> {
    /// Makes the settings: 8 shards, sums in a fixed order, a sum in each step.
    pub fn new(group: &'g Group) -> Distributed<'g> {
        Distributed { group, shards: SHARDS, by_tree: true, average_every: None, bucket_bytes: None, synchronize: false }
    }

    /// Sets the number of shards into which each batch is cut, a power of two. Ranks that divide it
    /// give the same bits; batch normalisation and dropout see one shard at a time.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Distributed<'g> {
        self.shards = shards;
        self
    }

    /// Gives up equal bits at different numbers of ranks: each rank computes its part of a batch at
    /// once, and the transport adds in the order that it prefers (`MPI_Iallreduce` from three
    /// ranks on). Any number of ranks may take part.
    #[must_use]
    pub fn in_any_order(mut self) -> Distributed<'g> {
        self.by_tree = false;
        self
    }

    /// Averages parameters after every `steps` steps instead of gradients in each step, for slow
    /// networks (local SGD; Stich, 2019). Each rank steps alone in between, with its own state of
    /// the optimiser, so a resumed run goes on from the state of rank 0. An interrupted run ends
    /// after the next average, where all ranks have the same parameters.
    #[must_use]
    pub fn average_every(mut self, steps: u64) -> Distributed<'g> {
        self.average_every = Some(steps.max(1));
        self
    }

    /// Sets the size of the messages of gradients, by default an eighth of them all, but at least
    /// 256 KiB and at most 4 MiB: small ones are sent earlier, large ones cost less.
    #[must_use]
    pub fn bucket_bytes(mut self, bytes: usize) -> Distributed<'g> {
        self.bucket_bytes = Some(bytes);
        self
    }

    /// Lets batch normalisations take the statistics of the whole batch, by messages in each layer
    /// (PyTorch's `SyncBatchNorm`), for batches of which a rank has few samples. Each rank computes
    /// its part at once: there are as many shards as ranks, or sums are
    /// [`in_any_order`](Distributed::in_any_order).
    #[must_use]
    pub fn synchronize_batch_norm(mut self) -> Distributed<'g> {
        self.synchronize = true;
        self
    }

    /// Returns the group.
    pub fn group(&self) -> &'g Group {
        self.group
    }

    /// Returns whether ranks step alone between averages.
    pub(crate) fn is_local(&self) -> bool {
        self.average_every.is_some()
    }

    /// Returns the number of parts of a batch: shards, or one for each rank.
    fn parts(&self) -> usize {
        if self.by_tree && !self.is_local() { self.shards } else { self.group.world() }
    }

    fn share(&self) -> Share {
        let world = self.group.world();
        Share { rank: self.group.rank(), world, run: self.parts() / world }
    }

    fn check(&self) -> Result<()> {
        let (shards, world) = (self.shards, self.group.world());
        if self.by_tree && !self.is_local() && !(shards.is_power_of_two() && shards.is_multiple_of(world)) {
            let message = format!(
                "{world} ranks cannot share {shards} shards: the number of shards is a power of two that the number of ranks divides \
                 (`in_any_order` takes any number of ranks)"
            );
            return Err(Error::argument("distributed", message));
        }
        if self.synchronize && (self.parts() != world || self.is_local()) {
            let message = format!(
                "synchronised batch normalisation needs one part of the batch for each of the {world} ranks, got {}: use `shards({world})` \
                 or `in_any_order`, and a sum in each step",
                self.parts()
            );
            return Err(Error::argument("distributed", message));
        }
        Ok(())
    }

    /// Returns how normalisations are synchronised.
    fn join(&self) -> Option<JoinSum> {
        self.synchronize.then(|| self.group.joiner())
    }

    /// Checks that all ranks run the same program with the same settings.
    fn agree(&self, model: &dyn Module, more: &Value) -> Result<()> {
        let shapes: Vec<Value> = model.named_parameters().iter().map(|(name, parameter)| json!([name, parameter.shape()])).collect();
        let own = json!({
            "version of convnet": env!("CARGO_PKG_VERSION"),
            "shards": self.parts(),
            "order of sums": if self.by_tree { "a tree" } else { "any" },
            "steps between averages": self.average_every,
            "size of buckets": self.bucket_bytes,
            "synchronised normalisation": self.synchronize,
            "parameters": shapes,
            "settings": more,
        });
        let all = self.group.gather(own.to_string().into_bytes())?;
        let of_rank = |rank: usize| serde_json::from_slice::<Value>(&all[rank]).unwrap_or(Value::Null);
        let first = of_rank(0);
        for rank in 1..all.len() {
            let other = of_rank(rank);
            let keys = first.as_object().into_iter().flat_map(|object| object.keys());
            if let Some(key) = keys.into_iter().find(|key| first[*key] != other[*key]) {
                let [here, there] = [&first[key], &other[key]].map(|value| shortened(&value.to_string()));
                return Err(Error::Training(format!("rank {rank} disagrees with rank 0 about the {key}: {there}, not {here}")));
            }
        }
        Ok(())
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(160).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// What the ranks have computed from a batch.
pub(crate) struct Joined {
    pub(crate) gradients: Gradients,
    /// The means of loss and metrics over the batch, by name; the loss comes first.
    pub(crate) values: Vec<(String, f64)>,
    pub(crate) samples: usize,
    /// Whether any rank wants to stop.
    pub(crate) stop: bool,
}

/// Data-parallel training in a loop by hand: parameters and buffers that start equal, and gradients
/// that are averaged over the ranks.
///
/// ```
/// use convnet::data::{Batch, Digits};
/// use convnet::prelude::*;
/// use convnet::train::{DataParallel, Distributed, Group};
///
/// let group = Group::alone()?; // or `Group::mpi()?`, in a program that `mpirun` starts
/// let model = Sequential::new().push(Flatten).push(Linear::new(64, 10));
/// let mut optimizer = Sgd::new(model.parameters(), 0.5);
/// let mut parallel = DataParallel::new(&model, Distributed::new(&group))?;
/// let train = DataLoader::new(Digits::train(), 64).shuffle(0);
/// let mut epoch = parallel.epoch(&train, 0);
/// while let Some(gradients) = epoch.next_gradients(|model, Batch { images, labels }| {
///     model.forward(images)?.cross_entropy(labels)
/// })? {
///     optimizer.step(&gradients)?;
/// }
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct DataParallel<'a, M: Module> {
    model: &'a M,
    distributed: Distributed<'a>,
    /// The names of the metrics, once a step of any rank has given them.
    names: Option<Vec<String>>,
}

impl<'a, M: Module> DataParallel<'a, M> {
    /// Checks that the ranks agree, and gives all of them the parameters and buffers of rank 0.
    ///
    /// # Errors
    /// [`Error::Argument`] for a number of shards that does not fit the ranks; [`Error::Training`]
    /// that names the rank that disagrees about the model, the settings or the version, has failed
    /// or hangs.
    pub fn new(model: &'a M, distributed: Distributed<'a>) -> Result<DataParallel<'a, M>> {
        DataParallel::with_settings(model, distributed, &Value::Null)
    }

    /// As [`new`](DataParallel::new), with settings that all ranks have to share.
    pub(crate) fn with_settings(model: &'a M, distributed: Distributed<'a>, settings: &Value) -> Result<DataParallel<'a, M>> {
        distributed.check()?;
        distributed.agree(model.as_module(), settings)?;
        let parallel = DataParallel { model, distributed, names: None };
        if let Some(state) = parallel.of_first(Some(Checkpoint::new().with("model", model.state_dict())))? {
            model.load_state_dict(&state.section("model")?)?;
        }
        Ok(parallel)
    }

    /// Returns the checkpoint of rank 0, if it has one; that of other ranks is ignored.
    pub(crate) fn of_first(&self, checkpoint: Option<Checkpoint>) -> Result<Option<Checkpoint>> {
        let bytes = checkpoint.map(|checkpoint| checkpoint.to_bytes()).transpose()?.unwrap_or_default();
        let bytes = self.distributed.group.broadcast(bytes)?;
        let read = || Checkpoint::from_bytes(&bytes).context("the state that rank 0 has sent");
        (!bytes.is_empty()).then(read).transpose()
    }

    /// Returns whether this is rank 0.
    pub(crate) fn is_first(&self) -> bool {
        self.distributed.group.is_first()
    }

    /// Returns the share of whole batches that this rank takes, for validation.
    pub(crate) fn share_of_batches(&self) -> Share {
        let group = self.distributed.group;
        Share { rank: group.rank(), world: group.world(), run: 1 }
    }

    /// Returns the settings.
    pub fn distributed(&self) -> &Distributed<'a> {
        &self.distributed
    }

    /// Returns the steps of an epoch. Every rank gives a loader of the same dataset with the same
    /// settings.
    pub fn epoch<'p, S: Collate>(&'p mut self, loader: &DataLoader<S>, epoch: u64) -> ParallelEpoch<'p, 'a, M, S> {
        self.epoch_from(loader, epoch, 0, 0)
    }

    /// Returns the steps of an epoch from a batch in the middle. `seed` decides what dropout draws.
    pub(crate) fn epoch_from<'p, S: Collate>(
        &'p mut self,
        loader: &DataLoader<S>,
        epoch: u64,
        batch: usize,
        seed: u64,
    ) -> ParallelEpoch<'p, 'a, M, S> {
        let (share, parts) = (self.distributed.share(), self.distributed.parts());
        let batches = loader.share_from(epoch, batch * share.run, parts, share);
        ParallelEpoch { parallel: self, batches, share, parts, epoch, seed, batch }
    }

    /// Averages the model's parameters and floating-point buffers over the ranks, if they step
    /// alone and an average is due. `step` is the number of steps so far: an average is due after
    /// every `average_every` of them and, with `at_end`, for the steps since the last average.
    /// Returns which of the `flags` are set on any rank: ranks that step alone exchange them with
    /// the averages only, and between these all flags are false.
    pub(crate) fn average<const N: usize>(&self, step: u64, flags: [bool; N], at_end: bool) -> Result<[bool; N]> {
        let Some(every) = self.distributed.average_every else { return Ok(flags) };
        let is_complete = step.is_multiple_of(every);
        let is_due = if at_end { !is_complete } else { is_complete };
        if !is_due {
            return Ok([false; N]);
        }
        let share = 1.0 / self.distributed.group.world() as f64;
        let parameters = self.model.parameters();
        let buffers = self.model.buffers();
        let values = parameters.iter().map(Parameter::tensor).chain(buffers.iter().map(Buffer::tensor));
        let values: Vec<Tensor> = values.collect();
        let mut flat = Vec::new();
        for value in values.iter().filter(|value| value.dtype().is_float()) {
            flat.extend(value.to_dtype(DType::F64)?.to_vec::<f64>()?);
        }
        flat.extend(flags.map(|flag| f64::from(u8::from(flag))));
        let mut sums = self.distributed.group.sum(flat)?.into_iter();
        let mut next = |value: &Tensor| -> Result<Tensor> {
            let mean = sums.by_ref().take(value.numel()).map(|sum| sum * share).collect();
            Tensor::from_vec(mean, value.shape())?.to_dtype(value.dtype())
        };
        for (parameter, value) in parameters.iter().zip(&values) {
            parameter.set(&next(value)?)?;
        }
        for (buffer, value) in buffers.iter().zip(&values[parameters.len()..]).filter(|(_, value)| value.dtype().is_float()) {
            buffer.set(&next(value)?)?;
        }
        Ok(flags.map(|_| sums.next().is_some_and(|ranks| ranks > 0.0)))
    }

    /// Returns what all ranks have found in batches (number, samples and values by name), by
    /// number.
    pub(crate) fn gathered(&self, own: Vec<OfBatch>) -> Result<Vec<OfBatch>> {
        // As bits, since JSON has no NaN.
        let bits = |values: Vec<(String, f64)>| values.into_iter().map(|(name, value)| (name, value.to_bits())).collect::<Vec<_>>();
        let own: Vec<Value> = own.into_iter().map(|(number, samples, values)| json!([number, samples, bits(values)])).collect();
        let mut all = Vec::new();
        for (rank, bytes) in self.distributed.group.gather(Value::from(own).to_string().into_bytes())?.into_iter().enumerate() {
            let unreadable = |error| Error::Training(format!("what rank {rank} has sent are no values of batches: {error}"));
            let of_rank: Vec<(usize, usize, Vec<(String, u64)>)> = serde_json::from_slice(&bytes).map_err(unreadable)?;
            all.extend(of_rank);
        }
        all.sort_by_key(|(number, ..)| *number);
        let values = |bits: Vec<(String, u64)>| bits.into_iter().map(|(name, bits)| (name, f64::from_bits(bits))).collect();
        Ok(all.into_iter().map(|(number, samples, bits)| (number, samples, values(bits))).collect())
    }

    /// Returns the outputs and targets of all ranks' batches, by number.
    pub(crate) fn gathered_outputs(&self, own: Vec<OutputsOfBatch>) -> Result<Vec<OutputsOfBatch>> {
        let numbers: Vec<usize> = own.iter().map(|(number, ..)| *number).collect();
        let mut message = Checkpoint::new().note("numbers", numbers);
        for (number, outputs, targets) in own {
            message = message.with(&number.to_string(), [("outputs".to_string(), outputs), ("targets".to_string(), targets)]);
        }
        let mut all = Vec::new();
        for (rank, bytes) in self.distributed.group.gather(message.to_bytes()?)?.into_iter().enumerate() {
            let message = Checkpoint::from_bytes(&bytes).with_context(|| format!("the outputs that rank {rank} has sent"))?;
            let numbers = message.get("numbers").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_u64);
            for number in numbers {
                let of_batch = message.section(&number.to_string())?;
                all.push((number as usize, of_batch.try_get("outputs")?.clone(), of_batch.try_get("targets")?.clone()));
            }
        }
        all.sort_by_key(|(number, ..)| *number);
        Ok(all)
    }

    /// Returns why the run stops, on all ranks, where ranks step alone and one may have a reason
    /// that the others have not.
    pub(crate) fn joined_reason(&self, reason: Option<String>) -> Result<Option<String>> {
        if !self.distributed.is_local() {
            return Ok(reason);
        }
        let reasons = self.distributed.group.gather(reason.unwrap_or_default().into_bytes())?;
        let first = reasons.into_iter().find(|reason| !reason.is_empty());
        Ok(first.map(|reason| String::from_utf8_lossy(&reason).into_owned()))
    }

    /// Returns the means of an epoch over all ranks, where each rank has its own so far.
    pub(crate) fn joined_means(&self, means: BTreeMap<String, Mean>) -> Result<BTreeMap<String, Mean>> {
        if !self.distributed.is_local() {
            return Ok(means);
        }
        let sums = self.distributed.group.sum(means.values().flat_map(|mean| [mean.sum(), mean.weight()]).collect())?;
        Ok(means.into_keys().zip(sums.as_chunks().0).map(|(name, &[sum, weight])| (name, Mean::from_parts(sum, weight))).collect())
    }
}

/// The number of a batch, its samples, and values by name.
type OfBatch = (usize, usize, Vec<(String, f64)>);

/// The number of a batch, its outputs and its targets.
type OutputsOfBatch = (usize, Tensor, Tensor);

/// The steps of an epoch, see [`DataParallel`].
pub struct ParallelEpoch<'p, 'a, M: Module, S: Collate> {
    parallel: &'p mut DataParallel<'a, M>,
    batches: Epoch<S>,
    share: Share,
    parts: usize,
    epoch: u64,
    seed: u64,
    batch: usize,
}

impl<M: Module, S: Collate> ParallelEpoch<'_, '_, M, S> {
    /// See [`DataParallel::average`].
    pub(crate) fn average<const N: usize>(&self, step: u64, flags: [bool; N]) -> Result<[bool; N]> {
        self.parallel.average(step, flags, false)
    }

    /// Returns the number of batches of the epoch that have been used.
    pub(crate) fn position(&self) -> usize {
        self.batch
    }

    /// Returns whether ranks step alone between averages.
    pub(crate) fn is_local(&self) -> bool {
        self.parallel.distributed.is_local()
    }

    /// Returns whether all batches have been used.
    pub(crate) fn is_finished(&self) -> bool {
        self.batches.is_finished()
    }

    /// Computes the next batch's gradients, averaged over its samples and all ranks; `None` at the
    /// end of the epoch. `loss` gives the mean loss of a part of the batch.
    ///
    /// # Errors
    /// Those of the loader and of `loss`, and [`Error::Training`] that names a rank that has
    /// failed, hangs or runs another program. The other ranks get this rank's errors.
    pub fn next_gradients(&mut self, mut loss: impl FnMut(&M, &S::Batch) -> Result<Tensor>) -> Result<Option<Gradients>> {
        let group = self.parallel.distributed.group;
        let joined = self.next_step(false, |model, batch| loss(model, batch).map(Step::new));
        let joined = joined.inspect_err(|error| group.fail(error.to_string()))?;
        Ok(joined.map(|joined| joined.gradients))
    }

    /// Computes the next batch; `stop` asks all ranks to stop after it.
    ///
    /// Passes over batches none of whose samples could be read. A rank that steps alone gets
    /// gradients of zero there instead, so that all ranks make the same number of steps.
    pub(crate) fn next_step(&mut self, stop: bool, mut step_of: impl FnMut(&M, &S::Batch) -> Result<Step>) -> Result<Option<Joined>> {
        let mut any_stop = stop;
        loop {
            let Some(mut joined) = self.step_of_next_batch(any_stop, &mut step_of)? else { return Ok(None) };
            any_stop |= joined.stop;
            joined.stop = any_stop;
            if joined.samples > 0 || self.parallel.distributed.is_local() {
                return Ok(Some(joined));
            }
        }
    }

    fn step_of_next_batch(&mut self, stop: bool, step_of: &mut impl FnMut(&M, &S::Batch) -> Result<Step>) -> Result<Option<Joined>> {
        let DataParallel { model, distributed, names } = &mut *self.parallel;
        let (model, run) = (*model, self.share.run);
        if self.batches.is_finished() {
            return Ok(None);
        }
        // All ranks know the sizes of all parts of the batch, but not how many samples are skipped:
        // the sums are corrected for these in the end.
        let size = |part: usize| self.batches.indices_of_number(self.batch * self.parts + part).len();
        let first = self.share.rank * run;
        let expected: usize = if distributed.is_local() { size(first) } else { (0..self.parts).map(size).sum() };

        let group = Some(distributed.group).filter(|group| group.world() > 1 && !distributed.is_local());
        let parameters: Vec<Parameter> = model.parameters().into_iter().filter(|parameter| !parameter.is_frozen()).collect();
        let count = parameters.len();
        let mut gradients = GradientSum::new(group, distributed.by_tree, parameters, run, distributed.bucket_bytes);
        let buffers = model.buffers();
        let start: Vec<Tensor> = buffers.iter().map(Buffer::tensor).collect();
        // Means of loss, metrics and buffers, the number of samples, and how many parts have a
        // gradient of each parameter.
        let mut values = TreeSum::new();
        let mut own_names = names.clone();
        for part in 0..run {
            let Some(batch) = self.batches.take_next().transpose()?.flatten() else {
                gradients.add(None)?;
                values.push(None)?;
                continue;
            };
            let samples = self.batches.samples() as f64;
            let scale = samples / expected as f64;
            // Every part starts from the statistics that the batch before left.
            buffers.iter().zip(&start).try_for_each(|(buffer, value)| buffer.set(value))?;
            let number = (self.batch * self.parts + first + part) as u64;
            let compute = || {
                let step = step_of(model, &batch)?;
                let found = || step.metrics().iter().map(|(name, _)| name);
                let names = own_names.get_or_insert_with(|| found().cloned().collect());
                if !found().eq(names.iter()) {
                    let found: Vec<&String> = found().collect();
                    return Err(Error::Training(format!("a step has the metrics {found:?}, the first one had {names:?}")));
                }
                let mut of_part = values_of_part(&step, &buffers, scale)?;
                of_part.push(samples);
                let given = gradients.add(Some((step.loss(), scale)))?;
                of_part.extend(given.into_iter().map(|given| f64::from(u8::from(given))));
                values.push(Some(of_part))
            };
            synchronized(distributed.join(), || Rng::lend(Purpose::Steps, self.seed, self.epoch, number, compute))?;
        }
        if names.is_none() {
            *names = first_known(distributed.group, own_names)?;
        }
        let names = names.as_deref().unwrap_or_default();
        let numbers: usize = start.iter().map(Tensor::numel).sum();
        let mut values = values.take().unwrap_or_else(|| vec![0.0; 1 + names.len() + numbers + 1 + count]);
        values.push(f64::from(u8::from(stop)));
        if let Some(group) = group {
            values = group.sum(values)?;
        }
        let (means, rest) = values.split_at_mut(1 + names.len());
        let (statistics, rest) = rest.split_at_mut(numbers);
        let (samples, rest) = (rest[0], &rest[1..]);
        let mut gradients = gradients.finish(|index| rest[index] > 0.0)?;
        if samples == 0.0 {
            for parameter in model.parameters().iter().filter(|parameter| !parameter.is_frozen()) {
                gradients.insert(&parameter.leaf()?, parameter.try_tensor()?.detach().try_full_like(0.0)?);
            }
            buffers.iter().zip(&start).try_for_each(|(buffer, value)| buffer.set(value))?;
        } else {
            let correction = expected as f64 / samples;
            if correction != 1.0 {
                gradients.scale(correction);
                means.iter_mut().chain(&mut *statistics).for_each(|value| *value *= correction);
            }
            set_means(&buffers, &start, statistics)?;
        }
        self.batch += 1;
        let names = std::iter::once("loss".to_string()).chain(names.iter().cloned());
        let values = names.zip(means.iter().copied()).collect();
        Ok(Some(Joined { gradients, values, samples: samples as usize, stop: rest[count] > 0.0 }))
    }
}

/// Returns the loss, the metrics and the buffers after a part of a batch, each times `scale`.
fn values_of_part(step: &Step, buffers: &[Buffer], scale: f64) -> Result<Vec<f64>> {
    let mut values = vec![number_of(step.loss())?];
    values.extend(step.metrics().iter().map(|(_, value)| value));
    for buffer in buffers {
        values.extend(buffer.tensor().to_dtype(DType::F64)?.to_vec::<f64>()?);
    }
    values.iter_mut().for_each(|value| *value *= scale);
    Ok(values)
}

/// Sets buffers, whose values at the start of the step were `start`, to the means over all parts.
fn set_means(buffers: &[Buffer], start: &[Tensor], mut means: &[f64]) -> Result<()> {
    for (buffer, value) in buffers.iter().zip(start) {
        let mean = means.split_off(..value.numel()).unwrap_or_default();
        // Counters are the same in all parts; a conversion to integers would cut off 2.9999….
        let mean = Tensor::from_vec(mean.to_vec(), value.shape())?;
        let mean = if value.dtype().is_float() { mean } else { mean.round()? };
        buffer.set(&mean.to_dtype(value.dtype())?)?;
    }
    Ok(())
}

/// Returns the names of metrics that the first rank has which has any; a rank whose samples were
/// all skipped has none.
fn first_known(group: &Group, own: Option<Vec<String>>) -> Result<Option<Vec<String>>> {
    for (rank, bytes) in group.gather(json!(own).to_string().into_bytes())?.into_iter().enumerate() {
        let unreadable = |error| Error::Training(format!("what rank {rank} has sent are no names of metrics: {error}"));
        let names: Option<Vec<String>> = serde_json::from_slice(&bytes).map_err(unreadable)?;
        if names.is_some() {
            return Ok(names);
        }
    }
    Ok(None)
}
