//! The trainer: exact resumption, also of a run that is killed at any instant; averages, callbacks,
//! logs, checkpoints, bad input.

mod observing;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{env, fs, thread};

use convnet::autograd::Gradients;
use convnet::data::{Batch, Dataset, Digits, Image, OnError, Rng};
use convnet::optim::{CosineAnnealingLr, ReduceLrOnPlateau, StepLr};
use convnet::prelude::*;
use convnet::train::metrics::{Averaging, ClassScore, Metric};
use convnet::train::{
    Callback, Checkpoint, Checkpoints, CsvLog, EarlyStopping, Ema, Ending, Every, LogValue, Logger, RunState, Step, Swa, TrainReport,
    Trainer, WeightAverage, accuracy, update_batch_norm,
};

/// A small network with all that has state: running statistics, dropout.
fn network() -> Sequential {
    convnet::manual_seed(7);
    Sequential::new()
        .push(Conv2d::new(1, 4, 3).padding(1))
        .push(BatchNorm2d::new(4))
        .push(ReLU)
        .push(MaxPool2d::new(2))
        .push(Flatten)
        .push(Dropout::new(0.3))
        .push(Linear::new(4 * 4 * 4, 10))
}

fn loaders() -> (DataLoader, DataLoader) {
    let noise = |image: &mut Image, rng: &mut Rng| {
        image.pixels_mut().iter_mut().for_each(|x| *x += rng.uniform(-0.1, 0.1) as f32);
        Ok(())
    };
    let train = DataLoader::new(Digits::train(), 64).shuffle(3).workers(1).transform(noise);
    (train, DataLoader::new(Digits::test(), 128))
}

fn classify(model: &Sequential, Batch { images, labels }: &Batch) -> Result<Step> {
    let logits = model.forward(images)?;
    Ok(Step::new(logits.cross_entropy(labels)?).metric("accuracy", accuracy(&logits, labels)?))
}

/// A trainer with everything that a checkpoint has to hold.
fn trainer<'a>(model: &'a Sequential, dir: &Path) -> Trainer<'a, Sequential> {
    Trainer::new(model, Adam::new(model.parameters(), 0.01))
        .schedule(CosineAnnealingLr::new(0.0), Every::Step)
        .epochs(3)
        .accumulate(2)
        .clip_norm(1.0)
        .average(Ema::new(0.9))
        .seed(5)
        .callback(EarlyStopping::on("valid/loss").patience(2))
        .checkpoints(Checkpoints::in_dir(dir).every_steps(1).keep_best("valid/accuracy"))
        .resume(true)
        .progress(false)
}

fn undisturbed() -> (StateDict, TrainReport) {
    let dir = tempfile::tempdir().unwrap();
    let (model, (train, valid)) = (network(), loaders());
    let report = trainer(&model, dir.path()).fit(&train, &valid, classify).unwrap();
    (model.state_dict(), report)
}

/// Stops a run after some steps.
struct StopAt(u64, Arc<AtomicBool>);

impl Callback for StopAt {
    fn after_step(&mut self, run: &mut RunState<'_>) -> Result<()> {
        if run.step == self.0 {
            self.1.store(true, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[test]
fn interrupted_run_goes_on_in_the_middle_of_an_epoch_with_the_same_bits() {
    let (expected, whole) = undisturbed();
    assert_eq!((whole.ending.clone(), whole.steps, whole.epochs.len()), (Ending::Finished, 36, 3));
    // Guessing gives 0.1.
    assert!(whole.last().unwrap()["valid/accuracy"] > 0.8, "{:?}", whole.last());
    let dir = tempfile::tempdir().unwrap();
    for stop in [5, 12, 17, 30, u64::MAX] {
        let (model, (train, valid)) = (network(), loaders());
        let flag = Arc::new(AtomicBool::new(false));
        let run = trainer(&model, dir.path()).stop_flag(Arc::clone(&flag)).callback(StopAt(stop, flag));
        let report = run.fit(&train, &valid, classify).unwrap();
        if stop < u64::MAX {
            assert_eq!((report.ending, report.steps), (Ending::Interrupted, stop));
        } else {
            assert!(model.state_dict().difference(&expected).unwrap().is_empty());
            assert_eq!((&report.ending, &report.epochs), (&Ending::Finished, &whole.epochs));
        }
    }
    // A finished run that is asked to go on gives the same model again.
    let (model, (train, valid)) = (network(), loaders());
    let flag = Arc::new(AtomicBool::new(false));
    let report = trainer(&model, dir.path()).callback(StopAt(0, flag)).fit(&train, &valid, classify).unwrap();
    assert!(report.epochs == whole.epochs && model.state_dict().difference(&expected).unwrap().is_empty());
}

/// Names the directory of the child process's run.
const CHILD: &str = "CONVNET_TEST_RUN";

/// The program that `run_that_is_killed_at_any_instant_ends_with_the_same_bits` kills.
#[test]
fn child_process_trains() {
    let Some(dir) = env::var_os(CHILD) else { return };
    let dir = Path::new(&dir);
    let (model, (train, valid)) = (network(), loaders());
    // Slow enough to be killed on the way.
    let slowly = |model: &Sequential, batch: &Batch| {
        thread::sleep(Duration::from_millis(10));
        classify(model, batch)
    };
    trainer(&model, dir).fit(&train, &valid, slowly).unwrap();
    model.save(dir.join("result.safetensors")).unwrap();
}

#[test]
fn run_that_is_killed_at_any_instant_ends_with_the_same_bits() {
    let (expected, _) = undisturbed();
    let dir = tempfile::tempdir().unwrap();
    let child = || {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["child_process_trains", "--exact"]).env(CHILD, dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let mut rng = Rng::new(11);
    let checkpoints = Checkpoints::in_dir(dir.path());
    let latest = || checkpoints.steps().unwrap().last().copied().unwrap_or(0);
    let mut resumed = 0;
    for kill in 0..20 {
        let (mut process, before) = (child(), latest());
        // Most are killed around the writing of a checkpoint, some while they start or resume.
        while kill % 4 > 0 && latest() == before && process.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(rng.below(20_000) as u64));
        process.kill().unwrap();
        assert!(!process.wait().unwrap().success(), "it finished before kill {kill}, after step {}", latest());
        resumed += usize::from(before > 0);
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                Checkpoint::load(&path).unwrap();
            }
        }
    }
    assert!(resumed >= 15, "{resumed} runs went on from a checkpoint");
    assert!(child().wait().unwrap().success());
    let result = StateDict::load(dir.path().join("result.safetensors")).unwrap();
    assert!(result.difference(&expected).unwrap().is_empty());
}

/// Runs the child process where no file may become longer than `blocks` of 512 bytes, which fails
/// in the middle of a file as a full disk does; returns what it says.
#[cfg(unix)]
fn child_with_short_files(dir: &Path, blocks: usize) -> (bool, String) {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" child_process_trains --exact");
    let output = Command::new("sh").args(["-c", &script]).arg(env::current_exe().unwrap()).env(CHILD, dir).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

#[cfg(unix)]
#[test]
fn run_on_a_full_disk_says_so_and_goes_on_from_its_last_checkpoint_with_the_same_bits() {
    let (expected, _) = undisturbed();
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::in_dir(dir.path());
    // No room even for the first checkpoint, then some, then none.
    for (blocks, stop) in [(4, 0), (1 << 20, 7), (4, 0), (16, 0)] {
        let before = checkpoints.steps().unwrap();
        if stop > 0 {
            let (model, (train, valid)) = (network(), loaders());
            let flag = Arc::new(AtomicBool::new(false));
            let run = trainer(&model, dir.path()).stop_flag(Arc::clone(&flag)).callback(StopAt(stop, flag));
            assert_eq!(run.fit(&train, &valid, classify).unwrap().steps, stop);
            continue;
        }
        let (finished, text) = child_with_short_files(dir.path(), blocks);
        assert!(!finished, "{text}");
        assert!(text.contains("the checkpoint cannot be written; the ones before are whole; free space there"), "{text}");
        assert_eq!(checkpoints.steps().unwrap(), before);
        assert!(before.is_empty() || checkpoints.latest().unwrap().unwrap().count("step").unwrap() == 7);
        let left =
            fs::read_dir(dir.path()).unwrap().filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"));
        assert_eq!(left.count(), 0, "a file that could not be written is removed");
    }
    let (model, (train, valid)) = (network(), loaders());
    trainer(&model, dir.path()).fit(&train, &valid, classify).unwrap();
    assert!(model.state_dict().difference(&expected).unwrap().is_empty());
}

/// Notes in the child's directory that a step was reached, then waits so long.
#[cfg(all(unix, feature = "progress"))]
struct Announce(std::path::PathBuf, Duration);

#[cfg(all(unix, feature = "progress"))]
impl Callback for Announce {
    fn after_step(&mut self, run: &mut RunState<'_>) -> Result<()> {
        if run.step == 5 {
            fs::write(&self.0, "").unwrap();
            thread::sleep(self.1);
        }
        Ok(())
    }
}

/// The program that `ctrl_c_ends_a_run_with_a_checkpoint_from_which_it_goes_on` interrupts.
#[cfg(all(unix, feature = "progress"))]
#[test]
fn child_process_trains_until_ctrl_c() {
    let Some(dir) = env::var_os(CHILD) else { return };
    let dir = Path::new(&dir);
    let wait = env::var("CONVNET_TEST_WAIT").unwrap().parse().unwrap();
    let (model, (train, valid)) = (network(), loaders());
    // No checkpoint is due in the first epoch.
    let trainer = trainer(&model, dir).checkpoints(Checkpoints::in_dir(dir).keep_best("valid/accuracy")).stop_on_ctrl_c();
    let report = trainer.callback(Announce(dir.join("begun"), Duration::from_secs(wait))).fit(&train, &valid, classify).unwrap();
    fs::write(dir.join("ending"), report.ending.to_string()).unwrap();
}

#[cfg(all(unix, feature = "progress"))]
#[test]
fn ctrl_c_ends_a_run_with_a_checkpoint_from_which_it_goes_on() {
    let (expected, _) = undisturbed();
    let interrupt = |process: &std::process::Child| {
        assert!(Command::new("kill").args(["-INT", &process.id().to_string()]).status().unwrap().success());
    };
    let child = |dir: &Path, wait: u64| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["child_process_trains_until_ctrl_c", "--exact"]).env(CHILD, dir).env("CONVNET_TEST_WAIT", wait.to_string());
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while !dir.join("begun").exists() {
            assert!(process.try_wait().unwrap().is_none(), "it ended by itself");
            thread::sleep(Duration::from_millis(1));
        }
        process
    };
    let dir = tempfile::tempdir().unwrap();
    let mut process = child(dir.path(), 1);
    interrupt(&process);
    assert!(process.wait().unwrap().success());
    assert_eq!(fs::read_to_string(dir.path().join("ending")).unwrap(), "interrupted");
    // It waited in step 5 of the 12 of an epoch, of two batches each.
    let left = Checkpoints::in_dir(dir.path()).latest().unwrap().unwrap();
    assert_eq!(["step", "epoch", "batch"].map(|name| left.count(name).unwrap()), [5, 0, 10]);
    let (model, (train, valid)) = (network(), loaders());
    assert_eq!(trainer(&model, dir.path()).fit(&train, &valid, classify).unwrap().ending, Ending::Finished);
    assert!(model.state_dict().difference(&expected).unwrap().is_empty());

    // A second one ends a process that does not come to the end of its step.
    let dir = tempfile::tempdir().unwrap();
    let mut process = child(dir.path(), 60);
    interrupt(&process);
    thread::sleep(Duration::from_millis(200));
    assert!(process.try_wait().unwrap().is_none());
    interrupt(&process);
    assert_eq!(process.wait().unwrap().code(), Some(130));
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<(u64, String, f64)>>>);

impl Logger for Memory {
    fn log(&mut self, step: u64, values: &[(&str, LogValue<'_>)]) -> Result<()> {
        for (name, value) in values {
            if let LogValue::Scalar(value) = value {
                self.0.lock().unwrap().push((step, name.to_string(), *value));
            }
        }
        Ok(())
    }

    fn rewind(&mut self, step: u64) -> Result<()> {
        self.0.lock().unwrap().retain(|(logged, ..)| *logged <= step);
        Ok(())
    }
}

#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    // Batch normalisation and dropout see smaller batches, so the network has neither.
    let net = || {
        convnet::manual_seed(1);
        Sequential::new().push(Flatten).push(Linear::new(64, 10))
    };
    let run = |batch, accumulate| {
        let model = net();
        let train = DataLoader::new(Digits::test(), batch).drop_last(true);
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).accumulate(accumulate).progress(false);
        let report = trainer.fit(&train, None, classify).unwrap();
        (model.state_dict(), report)
    };
    let ((whole, report), (parts, in_parts)) = (run(64, 1), run(16, 4));
    // 22 batches of 16 make 6 steps, the last of them of two.
    assert_eq!((report.steps, in_parts.steps), (5, 6));
    let after_five = |state: &StateDict| state.get("1.weight").unwrap().clone();
    assert!(after_five(&whole).shape() == after_five(&parts).shape());
    let model = net();
    let train = DataLoader::new(Digits::test(), 16).drop_last(true);
    Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).accumulate(4).steps(5).progress(false).fit(&train, None, classify).unwrap();
    let worst = model.state_dict().difference(&whole).unwrap();
    // Sums of the same products in another order.
    for (name, value) in whole.iter() {
        assert!(approx::abs_diff_eq!(model.state_dict().get(name).unwrap(), value, epsilon = 1e-6), "{name} {worst:?}");
    }
}

#[test]
fn schedule_and_callbacks_see_steps_epochs_and_metrics() {
    struct Stop;
    impl Callback for Stop {
        fn after_epoch(&mut self, run: &mut RunState<'_>) -> Result<()> {
            assert!(run.metric("train/loss")? > 0.0 && run.metric("valid/accuracy")? >= 0.0);
            assert!(run.metric("valid/f1").unwrap_err().to_string().contains("there are learning_rate, train/accuracy"));
            if run.epoch == 1 {
                run.stop("enough");
            }
            Ok(())
        }
    }
    let (model, (train, valid)) = (network(), loaders());
    let memory = Memory::default();
    let report = Trainer::new(&model, Sgd::new(model.parameters(), 0.1))
        .schedule(StepLr::new(1).gamma(0.5), Every::Epoch)
        .epochs(5)
        .log(memory.clone())
        .log_every(10)
        .callback(Stop)
        .progress(false)
        .fit(&train, &valid, classify)
        .unwrap();
    assert_eq!((report.ending, report.epochs.len(), report.steps), (Ending::Stopped("enough".into()), 2, 46));
    let rates: Vec<f64> = memory.0.lock().unwrap().iter().filter(|(_, name, _)| name == "learning_rate").map(|(.., rate)| *rate).collect();
    assert_eq!(rates, [0.1, 0.05]);
    let steps: Vec<u64> = memory.0.lock().unwrap().iter().filter(|(_, name, _)| name == "step/loss").map(|(step, ..)| *step).collect();
    assert_eq!(steps, [10, 20, 30, 40]);
    assert!(!model.is_training());
    let plateau = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).schedule(ReduceLrOnPlateau::new(), Every::Epoch);
    let error = plateau.schedule_metric("valid/los").progress(false).fit(&train, &valid, classify).unwrap_err().to_string();
    assert!(error.contains("no metric \"valid/los\""), "{error}");
}

#[test]
fn averaged_weights_are_validated_and_left_in_the_model_with_statistics_of_their_own() {
    let (model, (train, valid)) = (network(), loaders());
    let report = Trainer::new(&model, Sgd::new(model.parameters(), 0.05).momentum(0.9))
        .epochs(3)
        .average(Swa::new())
        .average_every(Every::Epoch, 1)
        .update_batch_norm(true)
        .progress(false)
        .fit(&train, &valid, classify)
        .unwrap();
    // The same by hand.
    let by_hand = network();
    let mut swa = Swa::new();
    for epochs in 1..=3u64 {
        let again = network();
        let trainer = Trainer::new(&again, Sgd::new(again.parameters(), 0.05).momentum(0.9)).epochs(epochs).progress(false);
        trainer.fit(&train, None, classify).unwrap();
        by_hand.load_state_dict(&again.state_dict()).unwrap();
        if epochs > 1 {
            swa.update(&by_hand).unwrap();
        }
    }
    swa.swap(&by_hand).unwrap();
    update_batch_norm(&by_hand, train.epoch(2).map(|batch| batch.map(|batch| batch.images))).unwrap();
    assert!(model.state_dict().difference(&by_hand.state_dict()).unwrap().is_empty());
    let metrics = convnet::train::evaluate(&by_hand, &valid).unwrap();
    // Sums of the same numbers in another order.
    assert!((report.last().unwrap()["valid/accuracy"] - metrics.accuracy()).abs() < 1e-12);
}

#[test]
fn frozen_parts_keep_their_statistics_in_each_epoch() {
    let (model, (train, valid)) = (network(), loaders());
    let statistics = |model: &Sequential| model.try_get("1").unwrap().state_dict();
    let fit = |model: &Sequential, epochs| {
        let trainer = Trainer::new(model, Sgd::new(model.parameters(), 0.05)).epochs(epochs).progress(false);
        let trainer = trainer.average(Swa::new()).update_batch_norm(true);
        let dropout = std::cell::Cell::new(0);
        let step = |model: &Sequential, batch: &Batch| {
            dropout.set(dropout.get() + usize::from(model.try_get("5")?.is_training()));
            classify(model, batch)
        };
        trainer.fit(&train, &valid, step).unwrap();
        dropout.get()
    };
    // By hand: one part is in evaluation mode, the others train.
    model.freeze("1").unwrap();
    model.try_get("1").unwrap().eval();
    let before = statistics(&model);
    assert_eq!(fit(&model, 2), 46);
    assert!(statistics(&model).difference(&before).unwrap().is_empty() && !model.is_training());
    // After a run all is in evaluation mode: what is not frozen trains again.
    assert_eq!(fit(&model, 1), 23);
    assert!(statistics(&model).difference(&before).unwrap().is_empty());
    model.unfreeze("").unwrap();
    // The new statistics of the average take a pass of their own before the validation, which is
    // the last one.
    assert_eq!(fit(&model, 1), 2 * 23);
    assert!(!statistics(&model).difference(&before).unwrap().is_empty());
}

#[test]
fn best_checkpoint_is_kept_and_old_ones_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (model, (train, valid)) = (network(), loaders());
    let checkpoints = || Checkpoints::in_dir(dir.path()).keep_last(2).keep_best("valid/loss");
    let trainer = Trainer::new(&model, Adam::new(model.parameters(), 0.01)).epochs(4).checkpoints(checkpoints()).progress(false);
    let report = trainer.fit(&train, &valid, classify).unwrap();
    assert_eq!(checkpoints().steps().unwrap(), [69, 92]);
    let losses = report.curve("valid/loss");
    let best = (0..4).min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap();
    let kept = checkpoints().best().unwrap().unwrap();
    assert_eq!(kept.count("step").unwrap(), 23 * (best as u64 + 1));
    model.load_state_dict(&kept.section("model").unwrap()).unwrap();
    model.eval();
    assert!((convnet::train::evaluate(&model, &valid).unwrap().loss() - losses[best]).abs() < 1e-9);
}

#[test]
fn run_that_cannot_go_on_says_why_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (model, (train, valid)) = (network(), loaders());
    let run = |model: &Sequential, train: &DataLoader, seed| {
        let trainer = Trainer::new(model, Sgd::new(model.parameters(), 0.1)).checkpoints(Checkpoints::in_dir(dir.path()));
        trainer.seed(seed).resume(true).progress(false).fit(train, &valid, classify)
    };
    run(&model, &train, 0).unwrap();
    let error = |result: Result<TrainReport>| result.unwrap_err().to_string();
    let message = error(run(&model, &train, 1));
    assert!(message.contains("seed was 0 and is 1") && message.contains("choose another directory"), "{message}");
    let message = error(run(&model, &DataLoader::new(Digits::train(), 32), 0));
    assert!(message.contains("batches was 23 and is 45"), "{message}");
    let other = Sequential::new().push(Flatten).push(Linear::new(64, 10));
    let before = other.state_dict();
    let message = error(run(&other, &train, 0));
    assert!(
        message.contains("of another model; build the model of that run") && other.state_dict().difference(&before).unwrap().is_empty(),
        "{message}"
    );

    let path = Checkpoints::in_dir(dir.path()).path(23);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(error(run(&model, &train, 0)).contains("step-0000000023.safetensors"));
    let key = br#"\"version\":1"#;
    let version = whole.windows(key.len()).position(|bytes| bytes == key).unwrap();
    let mut newer = whole.clone();
    newer[version + 12] = b'9';
    fs::write(&path, &newer).unwrap();
    let message = error(run(&model, &train, 0));
    assert!(message.contains("version 9") && message.contains("newer release"), "{message}");
    model.save(&path).unwrap();
    assert!(error(run(&model, &train, 0)).contains("not a checkpoint"));

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).checkpoints(Checkpoints::in_dir(file.join("below")));
    let message = error(trainer.progress(false).fit(&train, &valid, classify));
    assert!(message.contains("directory of checkpoints cannot be made"), "{message}");
    let nan = |model: &Sequential, batch: &Batch| {
        let step = classify(model, batch)?;
        drop(step);
        Ok(Step::new(model.forward(&batch.images)?.mul_scalar(f64::NAN).mean(..)?))
    };
    let message = error(Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).progress(false).fit(&train, None, nan));
    assert!(message.contains("epoch 0, batch 0") && message.contains("the loss is NaN"), "{message}");
    let empty = DataLoader::new(Digits::test(), 1000).drop_last(true);
    let message = error(Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).fit(&empty, None, classify));
    assert!(message.contains("no batches"), "{message}");
}

#[test]
fn failure_of_new_statistics_leaves_the_models_own_weights() {
    let run = |fail_at: usize, averaged: bool| {
        let (model, (train, _)) = (network(), loaders());
        let calls = std::cell::Cell::new(0);
        let step = |model: &Sequential, batch: &Batch| {
            calls.set(calls.get() + 1);
            if calls.get() == fail_at { Err(convnet::Error::msg("the data is gone")) } else { classify(model, batch) }
        };
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.05)).update_batch_norm(true).progress(false);
        let trainer = if averaged { trainer.average(Swa::new()) } else { trainer };
        let report = trainer.fit(&train, None, step);
        (model.state_dict(), report.map(|report| report.steps))
    };
    let (own, _) = run(0, false);
    let (averaged, steps) = run(0, true);
    assert!(steps.unwrap() == 23 && !averaged.difference(&own).unwrap().is_empty());
    // 23 batches of training, then those of the new statistics.
    let (left, error) = run(23 + 5, true);
    assert!(error.unwrap_err().to_string().contains("the data is gone"));
    assert!(left.difference(&own).unwrap().is_empty());
}

#[test]
fn run_that_starts_anew_removes_checkpoints_only_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let run = |checkpoints: Checkpoints, epochs| {
        let (model, (train, valid)) = (network(), loaders());
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).epochs(epochs).checkpoints(checkpoints);
        trainer.log(CsvLog::new(dir.path().join("log.csv"))).progress(false).fit(&train, &valid, classify)
    };
    let checkpoints = || Checkpoints::in_dir(dir.path());
    run(checkpoints().keep_best("valid/loss"), 2).unwrap();
    let files = || ["log.csv", "best.safetensors", "step-0000000046.safetensors"].map(|name| fs::read(dir.path().join(name)).unwrap());
    let before = files();
    let message = run(checkpoints(), 1).unwrap_err().to_string();
    assert!(message.contains("`resume(true)`") && message.contains("`Checkpoints::overwrite(true)`"), "{message}");
    assert!(files() == before);
    for step in checkpoints().steps().unwrap() {
        fs::remove_file(checkpoints().path(step)).unwrap();
    }
    assert!(run(checkpoints(), 1).is_err(), "the best one is there");
    run(checkpoints().overwrite(true), 1).unwrap();
    assert_eq!(checkpoints().steps().unwrap(), [23]);
    assert!(!checkpoints().best_path().exists());
}

#[test]
fn best_checkpoint_gives_the_averaged_weights_that_were_validated() {
    let dir = tempfile::tempdir().unwrap();
    let (model, (train, valid)) = (network(), loaders());
    let checkpoints = || Checkpoints::in_dir(dir.path()).keep_best("valid/loss");
    let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.05)).epochs(2).checkpoints(checkpoints());
    let trainer = trainer.average(Ema::new(0.95)).update_batch_norm(true).progress(false);
    let losses = trainer.fit(&train, &valid, classify).unwrap().curve("valid/loss");
    let best = checkpoints().best().unwrap().unwrap();
    let loss_of = |weights: StateDict| {
        model.load_state_dict(&weights).unwrap();
        convnet::train::evaluate(&model, &valid).unwrap().loss()
    };
    let measured = losses.into_iter().fold(f64::INFINITY, f64::min);
    // The same numbers, added in the same order.
    assert_eq!(loss_of(best.validated_weights().unwrap()), measured);
    assert!((loss_of(best.section("model").unwrap()) - measured).abs() > 1e-3);
    assert!(Checkpoint::new().validated_weights().unwrap_err().to_string().contains("no section `model`"));
}

/// Fails when the values of an epoch are logged for the first time.
struct FailsOnce(Arc<AtomicBool>);

impl Logger for FailsOnce {
    fn log(&mut self, _: u64, values: &[(&str, LogValue<'_>)]) -> Result<()> {
        let of_epoch = values.iter().any(|(name, _)| *name == "train/loss");
        if of_epoch && !self.0.swap(true, Ordering::SeqCst) { Err(convnet::Error::msg("the power failed")) } else { Ok(()) }
    }

    fn rewind(&mut self, _: u64) -> Result<()> {
        Ok(())
    }
}

#[test]
fn epoch_is_logged_once_when_the_run_dies_right_after_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let (memory, failed) = (Memory::default(), Arc::new(AtomicBool::new(false)));
    let run = || {
        let (model, (train, valid)) = (network(), loaders());
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).epochs(2).resume(true).progress(false);
        // An epoch has 23 steps.
        let trainer = trainer.checkpoints(Checkpoints::in_dir(dir.path()).every_steps(23));
        trainer.log(memory.clone()).log(FailsOnce(Arc::clone(&failed))).fit(&train, &valid, classify)
    };
    assert!(run().unwrap_err().to_string().contains("the power failed"));
    assert_eq!(run().unwrap().steps, 46);
    let rows: Vec<u64> = memory.0.lock().unwrap().iter().filter(|(_, name, _)| name == "train/loss").map(|(step, ..)| *step).collect();
    assert_eq!(rows, [23, 46]);
    let steps = Checkpoints::in_dir(dir.path()).steps().unwrap();
    assert_eq!(steps, [23, 46]);
    let first = Checkpoint::load(Checkpoints::in_dir(dir.path()).path(23)).unwrap();
    assert_eq!(["epoch", "batch"].map(|name| first.count(name).unwrap()), [1, 0]);
}

#[test]
fn means_are_those_of_the_samples_that_were_read() {
    /// Class numbers, of which every fifth cannot be read.
    struct Numbers;
    impl Dataset for Numbers {
        type Sample = i64;
        fn len(&self) -> usize {
            12
        }
        fn get(&self, index: usize, _: &mut Rng) -> Result<i64> {
            if index % 5 == 1 { Err(convnet::Error::msg("damaged")) } else { Ok(index as i64) }
        }
    }
    let model = Sequential::new().push(Linear::new(1, 1));
    let loader = DataLoader::new(Numbers, 4).on_error(OnError::Skip);
    let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.0)).progress(false);
    let report = trainer.epochs(3).fit(&loader, &loader.clone(), |model, numbers| {
        let mean = numbers.to_vec::<i64>()?.iter().sum::<i64>() as f64 / numbers.numel() as f64;
        Ok(Step::new(model.forward(&Tensor::ones([1, 1]))?.mean(..)?).metric("number", mean))
    });
    let mut report = report.unwrap();
    let metrics = report.epochs.remove(0).metrics;
    // Without 1, 6 and 11.
    assert_eq!(["train/number", "valid/number"].map(|name| metrics[name]), [(66.0 - 18.0) / 9.0; 2]);
    // Each counts once, in however many epochs it fails.
    let failures: Vec<String> = loader.failures().iter().map(ToString::to_string).collect();
    assert_eq!((report.failures, failures.len()), (3, 3), "{failures:?}");
    assert!(loader.failures().is_empty());
}

#[test]
fn metric_of_the_validation_is_that_of_all_its_outputs() {
    let (model, (train, valid)) = (network(), loaders());
    let f1 = || ClassScore::f1(10).averaging(Averaging::Macro);
    let run = |step: fn(&Sequential, &Batch) -> Result<Step>| {
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.05)).epochs(2).progress(false);
        trainer.metric("f1", f1()).fit(&train, &valid, step)
    };
    let report = run(|model, Batch { images, labels }| {
        let logits = model.forward(images)?;
        Ok(Step::new(logits.cross_entropy(labels)?).outputs(&logits, labels))
    });
    let mut expected = f1();
    for Batch { images, labels } in valid.epoch(0).map(Result::unwrap) {
        expected.update(&no_grad(|| model.forward(&images)).unwrap(), &labels).unwrap();
    }
    assert_eq!(report.unwrap().last().unwrap()["valid/f1"], expected.value());
    let message = run(classify).unwrap_err().to_string();
    assert!(message.contains("add `.outputs(&outputs, &targets)` to the step"), "{message}");
}

/// Notes the epochs and steps that it sees.
struct Seen(Arc<Mutex<Vec<(u64, u64)>>>);

impl Callback for Seen {
    fn after_epoch(&mut self, run: &mut RunState<'_>) -> Result<()> {
        self.0.lock().unwrap().push((run.epoch, run.step));
        Ok(())
    }
}

#[test]
fn run_of_some_steps_ends_within_an_epoch_and_goes_on_there() {
    let run = |dir: &Path, steps: u64| {
        let (model, (train, valid)) = (network(), loaders());
        let (seen, memory) = (Arc::default(), Memory::default());
        let report = Trainer::new(&model, Sgd::new(model.parameters(), 0.05).momentum(0.9))
            .schedule(StepLr::new(1).gamma(0.5), Every::Epoch)
            .average(Swa::new())
            .average_every(Every::Epoch, 0)
            .steps(steps)
            .callback(Seen(Arc::clone(&seen)))
            .checkpoints(Checkpoints::in_dir(dir).keep_best("valid/accuracy"))
            .log(memory.clone())
            .resume(true)
            .progress(false)
            .fit(&train, &valid, classify)
            .unwrap();
        let seen = seen.lock().unwrap().clone();
        let rates: Vec<f64> =
            memory.0.lock().unwrap().iter().filter(|(_, name, _)| name == "learning_rate").map(|(.., rate)| *rate).collect();
        (model.state_dict(), report, seen, rates)
    };
    let [whole, parts] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    // An epoch has 23 steps.
    let (expected, undisturbed, seen, rates) = run(whole.path(), 69);
    assert_eq!((seen.as_slice(), rates.as_slice()), ([(0, 23), (1, 46), (2, 69)].as_slice(), [0.05, 0.025, 0.0125].as_slice()));
    assert!(undisturbed.epochs.len() == 3 && undisturbed.partial.is_none());

    let (_, report, seen, _) = run(parts.path(), 10);
    assert!(report.epochs.is_empty() && seen.is_empty() && report.ending == Ending::Finished);
    assert!(report.last().unwrap()["valid/accuracy"] > 0.1);
    assert_eq!(Checkpoints::in_dir(parts.path()).best().unwrap().unwrap().count("batch").unwrap(), 10);
    let (after_30, report, seen, rates) = run(parts.path(), 30);
    assert_eq!((report.epochs.len(), seen.as_slice(), rates.as_slice()), (1, [(0, 23)].as_slice(), [0.05, 0.025].as_slice()));
    let partial = report.partial.clone().unwrap();
    assert_eq!((partial.epoch, partial.step), (1, 30));
    let latest = Checkpoints::in_dir(parts.path()).latest().unwrap().unwrap();
    assert_eq!(["step", "epoch", "batch"].map(|name| latest.count(name).unwrap()), [30, 1, 7]);
    // Once more: nothing is left to do, and the result is the same.
    let (again, report, seen, _) = run(parts.path(), 30);
    assert!(again.difference(&after_30).unwrap().is_empty() && seen.is_empty() && report.partial == Some(partial));

    let (state, report, seen, _) = run(parts.path(), 69);
    assert!(state.difference(&expected).unwrap().is_empty());
    assert_eq!((report.epochs, report.partial, seen), (undisturbed.epochs, None, vec![(1, 46), (2, 69)]));
}
