//! Tests of training on several ranks, which are threads here.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::{DataParallel, Distributed, Group};
use crate::data::{Batch, DataLoader, Dataset, Digits, Image, OnError, Rng, Subset};
use crate::error::{Error, Result};
use crate::nn::{BatchNorm2d, Conv2d, Dropout, Flatten, Linear, Module, ModuleExt, ReLU, Sequential, StateDict};
use crate::optim::{Optimizer, Sgd};
use crate::train::metrics::ClassScore;
use crate::train::{Checkpoints, Ending, Step, TrainReport, Trainer, accuracy};

/// Runs `body` on as many ranks, with one rayon thread each, and returns what they return.
fn on_ranks<R: Send>(world: usize, body: impl Fn(&Group) -> R + Sync) -> Vec<R> {
    let groups = Group::threads_within(world, Duration::from_secs(60)).unwrap();
    thread::scope(|scope| {
        let ranks: Vec<_> = groups.into_iter().map(|group| scope.spawn(|| body(&{ group }))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// A network with what could depend on how a batch is cut: normalisation and dropout.
fn network() -> Sequential {
    crate::manual_seed(3);
    let maps = Sequential::new().push(Conv2d::new(1, 4, 3)).push(BatchNorm2d::new(4)).push(ReLU).push(Flatten);
    maps.push(Dropout::new(0.2)).push(Linear::new(4 * 36, 10))
}

fn digits(count: usize) -> DataLoader {
    DataLoader::new(Subset::new(Digits::train(), 0..count).unwrap(), 32).shuffle(1)
}

fn step(model: &Sequential, Batch { images, labels }: &Batch) -> Result<Step> {
    let logits = model.forward(images)?;
    Ok(Step::new(logits.cross_entropy(labels)?).metric("accuracy", accuracy(&logits, labels)?).outputs(&logits, labels))
}

/// Trains for an epoch of 200 digits, the last batch of which has 8, and returns the report and the
/// state of the model.
fn trained(group: &Group, change: impl Fn(Trainer<'_, Sequential>) -> Trainer<'_, Sequential>) -> Result<(TrainReport, StateDict)> {
    trained_by(Distributed::new(group), change)
}

fn trained_by(
    distributed: Distributed<'_>,
    change: impl Fn(Trainer<'_, Sequential>) -> Trainer<'_, Sequential>,
) -> Result<(TrainReport, StateDict)> {
    let model = network();
    let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1).momentum(0.9)).progress(false);
    let trainer = trainer.distributed(distributed).metric("f1", ClassScore::f1(10));
    let report = change(trainer).fit(&digits(200), &digits(50), step)?;
    Ok((report, model.state_dict()))
}

fn bits(state: &StateDict) -> Vec<Vec<u8>> {
    let values = state.iter().map(|(_, tensor)| tensor.to_dtype(crate::DType::F64).unwrap().to_vec::<f64>().unwrap());
    values.map(|values| values.iter().flat_map(|value| value.to_bits().to_le_bytes()).collect()).collect()
}

#[test]
fn any_number_of_ranks_gives_the_same_bits_and_metrics() {
    let run = |world| on_ranks(world, |group| trained(group, |trainer| trainer.epochs(2)).unwrap());
    let alone = run(1).remove(0);
    assert!(alone.0.epochs[1].metrics["train/loss"] < alone.0.epochs[0].metrics["train/loss"]);
    assert!(alone.0.epochs[1].metrics["valid/f1"] > 0.0);
    for world in [2, 4, 8] {
        for (report, state) in run(world) {
            assert_eq!(report.epochs, alone.0.epochs, "{world} ranks");
            assert_eq!(bits(&state), bits(&alone.1), "{world} ranks");
        }
    }
}

#[test]
fn run_resumes_on_another_number_of_ranks_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let whole = on_ranks(2, |group| trained(group, |trainer| trainer.epochs(3)).unwrap()).remove(0);
    let run = |world, steps: Option<u64>| {
        on_ranks(world, |group| {
            // Only rank 0 has the checkpoints.
            let own = dir.path().join(group.rank().to_string());
            let checkpoints = Checkpoints::in_dir(own).every_steps(2);
            trained(group, |trainer| {
                let trainer = trainer.checkpoints(checkpoints.clone()).epochs(3).resume(true);
                match steps {
                    Some(steps) => trainer.callback(StopAt(steps)),
                    None => trainer,
                }
            })
        })
    };
    for ended in run(4, Some(9)) {
        assert!(ended.unwrap_err().to_string().contains("this is step 9"));
    }
    assert!(!dir.path().join("1").exists());
    for ended in run(8, None) {
        let (report, state) = ended.unwrap();
        assert_eq!(report.epochs, whole.0.epochs);
        assert_eq!(bits(&state), bits(&whole.1));
    }
}

/// Fails at a step.
struct StopAt(u64);

impl crate::train::Callback for StopAt {
    fn after_step(&mut self, state: &mut crate::train::RunState<'_>) -> Result<()> {
        if state.step == self.0 { Err(Error::msg(format!("this is step {}", self.0))) } else { Ok(()) }
    }
}

#[test]
fn gradients_of_a_loop_by_hand_are_the_mean_over_the_batch() {
    let of_batch = |loader: &DataLoader| {
        let Batch { images, labels } = loader.epoch(0).next().unwrap().unwrap();
        let model = Sequential::new().push(Flatten).push(Linear::new(64, 10));
        (model.forward(&images).unwrap().cross_entropy(&labels).unwrap(), model)
    };
    crate::manual_seed(0);
    let (loss, model) = of_batch(&digits(100));
    let expected = loss.backward().unwrap();
    let expected: Vec<Vec<f32>> = expected.iter().map(|gradient| gradient.to_vec().unwrap()).collect();
    let weights = model.state_dict();
    for world in [1, 2, 3] {
        let found = on_ranks(world, |group| {
            let model = Sequential::new().push(Flatten).push(Linear::new(64, 10));
            if group.is_first() {
                model.load_state_dict(&weights).unwrap();
            }
            let distributed = Distributed::new(group).bucket_bytes(100);
            let distributed = if world == 3 { distributed.in_any_order() } else { distributed };
            let mut parallel = DataParallel::new(&model, distributed).unwrap();
            let mut epoch = parallel.epoch(&digits(100), 0);
            let next = epoch.next_gradients(|model, Batch { images, labels }| model.forward(images)?.cross_entropy(labels));
            next.unwrap().unwrap().iter().map(|gradient| gradient.to_vec::<f32>().unwrap()).collect::<Vec<_>>()
        });
        for gradients in found {
            for (found, expected) in gradients.iter().zip(&expected) {
                // Sums of 32 terms in another order.
                approx::assert_abs_diff_eq!(found[..], expected[..], epsilon = 1e-6);
            }
        }
    }
}

/// The first digits, some of which cannot be read.
struct Damaged(Digits, usize, &'static [usize]);

impl Dataset for Damaged {
    type Sample = (Image, i64);

    fn len(&self) -> usize {
        self.1
    }

    fn get(&self, index: usize, rng: &mut Rng) -> Result<(Image, i64)> {
        if self.2.contains(&index) { Err(Error::msg("damaged")) } else { self.0.get(index, rng) }
    }
}

#[test]
fn samples_that_are_skipped_do_not_count() {
    // The third of eight shards, one sample of the first, and all of the second batch.
    const DAMAGED: &[usize] = &[2, 8, 9, 10, 11, 32, 33, 34, 35];
    let loader = || DataLoader::new(Damaged(Digits::train(), 36, DAMAGED), 32).on_error(OnError::Skip);
    let network = || {
        crate::manual_seed(5);
        Sequential::new().push(Flatten).push(Linear::new(64, 10))
    };
    let whole = network();
    let expected = step(&whole, &loader().epoch(0).next().unwrap().unwrap()).unwrap();
    let loss = expected.loss().item::<f32>().unwrap();
    Sgd::new(whole.parameters(), 0.1).step(&expected.loss().backward().unwrap()).unwrap();
    let weights = |model: &Sequential| model.state_dict().get("1.weight").unwrap().to_vec::<f32>().unwrap();
    let run = |group: Option<&Group>| {
        let model = network();
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).progress(false);
        let trainer = group.into_iter().fold(trainer, |trainer, group| trainer.distributed(Distributed::new(group)));
        let report = trainer.fit(&loader(), &loader(), step).unwrap();
        assert_eq!(report.steps, 1);
        // Sums of 27 terms in another order.
        approx::assert_abs_diff_eq!(report.last().unwrap()["train/loss"], f64::from(loss), epsilon = 1e-6);
        approx::assert_abs_diff_eq!(weights(&model)[..], weights(&whole)[..], epsilon = 1e-6);
        (bits(&model.state_dict()), report.epochs)
    };
    run(None);
    let alone = on_ranks(1, |group| run(Some(group))).remove(0);
    for world in [2, 4, 8] {
        assert!(on_ranks(world, |group| run(Some(group))).into_iter().all(|ended| ended == alone), "{world} ranks");
    }
}

#[test]
fn ranks_that_step_alone_make_the_same_steps_when_samples_are_skipped() {
    let ended = on_ranks(2, |group| {
        let model = network();
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).progress(false);
        // All samples of rank 1 in the second batch.
        let loader = DataLoader::new(Damaged(Digits::train(), 12, &[6, 7]), 4).on_error(OnError::Skip);
        let report = trainer.distributed(Distributed::new(group).average_every(2)).fit(&loader, None, step).unwrap();
        // The counters of normalisations are each rank's own.
        let parameters: StateDict = model.named_parameters().into_iter().map(|(name, parameter)| (name, parameter.tensor())).collect();
        (report.steps, bits(&parameters))
    });
    assert!(ended[0].0 == 3 && ended[0] == ended[1]);
}

#[test]
fn synchronised_normalisation_gives_the_gradients_of_the_whole_batch() {
    let network = || {
        crate::manual_seed(5);
        let maps = Sequential::new().push(Conv2d::new(1, 4, 3)).push(BatchNorm2d::new(4)).push(ReLU);
        maps.push(Flatten).push(Linear::new(4 * 36, 10))
    };
    let found = |world: usize, synchronize: bool| {
        on_ranks(world, |group| {
            let model = network();
            let distributed = Distributed::new(group).shards(world);
            let distributed = if synchronize { distributed.synchronize_batch_norm() } else { distributed };
            let mut parallel = DataParallel::new(&model, distributed).unwrap();
            let mut epoch = parallel.epoch(&digits(100), 0);
            let next = epoch.next_gradients(|model, Batch { images, labels }| model.forward(images)?.cross_entropy(labels));
            let gradients: Vec<Vec<f32>> = next.unwrap().unwrap().iter().map(|gradient| gradient.to_vec().unwrap()).collect();
            let running = model.buffers()[1].tensor().to_vec::<f32>().unwrap();
            (gradients, running)
        })
        .remove(0)
    };
    let whole = found(1, false);
    let worst = |other: &(Vec<Vec<f32>>, Vec<f32>)| {
        let pairs = whole.0.iter().flatten().zip(other.0.iter().flatten()).chain(whole.1.iter().zip(&other.1));
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    for world in [1, 2, 4] {
        // Sums of 32 pictures in another order.
        assert!(worst(&found(world, true)) < 2e-6, "{world} ranks: {}", worst(&found(world, true)));
    }
    assert!(worst(&found(4, false)) > 1e-3, "statistics of 8 pictures are others than of 32");
}

#[test]
fn averaging_parameters_every_few_steps_leaves_equal_parameters_that_have_learned() {
    let states = on_ranks(4, |group| trained_by(Distributed::new(group).average_every(3), |trainer| trainer.epochs(3)).unwrap());
    for (report, state) in &states {
        assert_eq!(bits(state), bits(&states[0].1));
        assert_eq!(report.epochs, states[0].0.epochs);
    }
    let epochs = &states[0].0.epochs;
    // Without learning the loss would stay where it is; it falls to 0.07 of it.
    assert!(epochs[2].metrics["train/loss"] < 0.8 * epochs[0].metrics["train/loss"]);
}

/// Wants to stop after a step.
struct Interrupt(u64, Arc<AtomicBool>);

impl crate::train::Callback for Interrupt {
    fn after_step(&mut self, state: &mut crate::train::RunState<'_>) -> Result<()> {
        self.1.fetch_or(state.step == self.0, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn ranks_that_step_alone_stop_together_and_go_on_with_the_same_bits_and_means() {
    let dir = tempfile::tempdir().unwrap();
    // An epoch has 7 steps. The optimiser has no state, which would be each rank's own.
    let run = |dir: Option<&Path>, stop: u64| {
        on_ranks(2, |group| {
            let model = network();
            let flag = Arc::new(AtomicBool::new(false));
            let mut trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).epochs(2).progress(false);
            trainer = trainer.distributed(Distributed::new(group).average_every(2)).stop_flag(Arc::clone(&flag));
            if let Some(dir) = dir {
                trainer = trainer.checkpoints(Checkpoints::in_dir(dir.join(group.rank().to_string()))).resume(true);
            }
            if !group.is_first() {
                trainer = trainer.callback(Interrupt(stop, flag));
            }
            let report = trainer.fit(&digits(200), &digits(50), step).unwrap();
            (report, bits(&model.state_dict()))
        })
    };
    let whole = run(None, 0);
    assert_eq!(whole[0].1, whole[1].1);
    for (report, _) in run(Some(dir.path()), 3) {
        assert_eq!((report.ending, report.steps), (Ending::Interrupted, 4));
    }
    for (report, bits) in run(Some(dir.path()), 0) {
        assert_eq!(bits, whole[0].1);
        assert_eq!((report.ending, report.epochs.len()), (Ending::Finished, 2));
        for (found, expected) in report.epochs.iter().zip(&whole[0].0.epochs) {
            for (name, value) in &expected.metrics {
                // Sums of the same numbers in another order.
                approx::assert_relative_eq!(found.metrics[name], *value, max_relative = 1e-12);
            }
        }
    }
}

#[test]
fn rank_that_fails_ends_all_with_its_message() {
    let ended =
        on_ranks(4, |group| trained(group, |trainer| if group.rank() == 2 { trainer.callback(StopAt(3)) } else { trainer }).map(drop));
    for (rank, ended) in ended.into_iter().enumerate() {
        let error = ended.unwrap_err().to_string();
        assert!(error.contains("this is step 3") && (rank == 2 || error.contains("rank 2 has failed")), "rank {rank}: {error}");
    }
}

#[test]
fn rank_without_batches_ends_all_at_once() {
    let ended = on_ranks(2, |group| {
        let model = network();
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).progress(false).distributed(Distributed::new(group));
        let loader = if group.is_first() { digits(200) } else { DataLoader::new(Digits::test(), 1000).drop_last(true) };
        trainer.fit(&loader, None, step).map(drop).unwrap_err().to_string()
    });
    for error in &ended {
        assert!(error.contains("the loader has no batches"), "{error}");
    }
    assert!(ended[0].contains("rank 1 has failed"), "{}", ended[0]);
}

/// Stops from a step on.
struct StopFrom(u64);

impl crate::train::Callback for StopFrom {
    fn after_step(&mut self, state: &mut crate::train::RunState<'_>) -> Result<()> {
        if state.step >= self.0 {
            state.stop(format!("step {} is enough", self.0));
        }
        Ok(())
    }
}

#[test]
fn callback_that_stops_one_of_the_ranks_that_step_alone_stops_all_together() {
    // An epoch has 7 steps. The first average after the stop is that of step 4, or at the end of
    // the epoch.
    for (every, steps) in [(2, 4), (4, 4), (7, 7), (10, 7)] {
        let ended = on_ranks(2, |group| {
            trained_by(Distributed::new(group).average_every(every), |trainer| {
                let trainer = trainer.epochs(2);
                if group.is_first() { trainer } else { trainer.callback(StopFrom(3)) }
            })
            .unwrap()
        });
        for (report, state) in &ended {
            assert_eq!(
                (&report.ending, report.steps),
                (&Ending::Stopped("step 3 is enough".into()), steps),
                "averages every {every} steps"
            );
            assert_eq!(bits(state), bits(&ended[0].1));
            assert_eq!(report.epochs, ended[0].0.epochs);
        }
    }
}

#[test]
fn rank_that_disagrees_or_hangs_is_named() {
    let ended = on_ranks(2, |group| trained(group, |trainer| trainer.epochs(1 + group.rank() as u64)).map(drop));
    for ended in ended {
        let error = ended.unwrap_err().to_string();
        assert!(error.contains("rank 1 disagrees with rank 0 about the settings"), "{error}");
    }
    let groups = Group::threads_within(2, Duration::from_millis(50)).unwrap();
    let error = groups[0].gather(vec![1]).unwrap_err().to_string();
    assert!(error.contains("rank 1 has sent nothing for 50ms"), "{error}");
    let error = on_ranks(3, |group| trained(group, |trainer| trainer).map(drop)).remove(0).unwrap_err().to_string();
    assert!(error.contains("3 ranks cannot share 8 shards"), "{error}");
    for world in [0, 257, usize::MAX] {
        assert!(Group::threads(world).unwrap_err().to_string().contains("1 to 256 ranks"));
    }
}

#[test]
fn metrics_that_change_their_names_are_an_error() {
    let ended = on_ranks(2, |group| {
        let model = network();
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).progress(false).distributed(Distributed::new(group));
        let mut steps = 0;
        let step = |model: &Sequential, Batch { images, labels }: &Batch| {
            steps += 1;
            Ok(Step::new(model.forward(images)?.cross_entropy(labels)?).metric(if steps == 1 { "a" } else { "b" }, 1.0))
        };
        trainer.fit(&digits(200), &digits(50), step).map(drop)
    });
    let error = ended.into_iter().next().unwrap().unwrap_err().to_string();
    assert!(error.contains(r#"a step has the metrics ["b"], the first one had ["a"]"#), "{error}");
}

#[test]
fn gathering_broadcasting_and_adding_work_on_any_number_of_ranks() {
    for world in 1..=5 {
        let found = on_ranks(world, |group| {
            let rank = group.rank();
            let gathered = group.gather(vec![rank as u8; rank]).unwrap();
            let copied = group.broadcast(vec![7; if rank == 0 { 5 } else { 0 }]).unwrap();
            // Lengths that do not divide evenly, and an empty one.
            let sums = [0, 1, 3, 10].map(|length| group.sum((0..length).map(|i| f64::from(i) * (rank + 1) as f64).collect()).unwrap());
            (gathered, copied, sums)
        });
        let factor = (world * (world + 1) / 2) as f64;
        for (gathered, copied, sums) in found {
            assert_eq!(gathered, (0..world).map(|rank| vec![rank as u8; rank]).collect::<Vec<_>>());
            assert_eq!(copied, [7; 5]);
            for (sums, length) in sums.into_iter().zip([0, 1, 3, 10]) {
                assert_eq!(sums, (0..length).map(|i| f64::from(i) * factor).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn gradients_are_complete_before_the_pass_ends() {
    let model = network();
    let loss = model.forward(&crate::Tensor::ones([2, 1, 8, 8])).unwrap().mean(..).unwrap();
    let expected = loss.backward_with(crate::autograd::BackwardOptions { retain_graph: true, ..Default::default() }).unwrap();
    let mut order = Vec::new();
    loss.backward_by_leaf(1.0, &mut |leaf, gradient| {
        order.push((leaf, gradient));
        Ok(())
    })
    .unwrap();
    let leaf = |index: usize| model.parameters()[index].leaf().unwrap();
    // The last layer's bias and weight come first, the first convolution's last.
    let first: Vec<u64> = order[..2].iter().map(|(leaf, _)| *leaf).collect();
    assert!(first.contains(&leaf(4).node().unwrap().number) && first.contains(&leaf(5).node().unwrap().number));
    assert_eq!(order.len(), expected.len());
    for index in 0..6 {
        let found = order.iter().find(|(number, _)| *number == leaf(index).node().unwrap().number).map(|(_, gradient)| gradient);
        assert_eq!(found.unwrap().to_vec::<f32>().unwrap(), expected.get(&leaf(index)).unwrap().to_vec::<f32>().unwrap());
    }
    let mut optimizer = Sgd::new(model.parameters(), 0.1);
    optimizer.step(&expected).unwrap();
}
