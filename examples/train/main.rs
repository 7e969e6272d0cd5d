//! Trains a registered model on CIFAR, MNIST, a folder of pictures, a CSV file of them, or the
//! digits that come with the crate.
//!
//! ```sh
//! cargo run --release --example train                                        # the embedded digits, in seconds
//! cargo run --release --example train -- --dataset cifar10 --data data/cifar10 --model cifar_resnet20 \
//!     --optimizer sgd --lr 0.1 --weight-decay 1e-4 --batch 128 --epochs 30 --crop-padding 4 --flip 0.5 --out runs/cifar
//! cargo run --release --example train -- --out runs/cifar --resume            # goes on where that run ended
//! ```
//!
//! Every option can be a line of a TOML file: `--config cifar.toml`. Ctrl-C ends the run after the
//! present step, with a checkpoint.

#[path = "../common/mod.rs"]
mod common;
mod distributed;
mod options;
mod report;
mod watching;

use std::process::ExitCode;

use common::loss::step_of;
use common::program::say;
use common::{config, schedule, weights_file};
use convnet::autograd::is_grad_enabled;
use convnet::data::Batch;
use convnet::nn::Module;
use convnet::ops::CrossEntropyOptions;
use convnet::train::{
    Checkpoint, Checkpoints, CsvLog, EarlyStopping, Ema, Ending, Every, Group, JsonLines, Swa, TensorBoard, Trainer, lower_is_better,
};
use convnet::{Context as _, Error, Result, models};
use options::Options;
use watching::LastBatch;

fn main() -> ExitCode {
    let (options, table) = config::parse::<Options>();
    common::run(|| {
        let group = if options.run.distributed { Some(distributed::group()?) } else { None };
        distributed::together(group.as_ref(), || train(&options, &table, group.as_ref()))
    })
}

fn train(options: &Options, table: &toml::Table, group: Option<&Group>) -> Result<()> {
    convnet::set_num_threads(options.threads)?;
    convnet::manual_seed(options.data.seed);
    let first = group.is_none_or(|group| group.is_first());
    // Only rank 0 prints and writes files.
    let say = |line: std::fmt::Arguments<'_>| {
        if first {
            say(line)
        }
    };
    let splits = options.data.open()?;
    let monitor = options.run.monitor(!splits.valid.is_empty());
    let checkpoints = checkpoints(options, &monitor)?;
    let weights = options.weights.as_deref().map(weights_file::read).transpose()?;
    let target = options.data.target(&options.model, weights.as_ref())?;
    let (train, valid) = options.data.loaders(&splits, &target, &options.augment)?;
    let model = models::create(&options.model, splits.classes.len())?;
    let mut table = table.clone();
    if let Some(weights) = &weights {
        weights.load_into(&model)?;
        // The run goes on without that file.
        table.extend(target.options());
    }
    let table = &table;
    if !options.run.freeze.is_empty() {
        options.run.freeze.iter().try_for_each(|prefix| model.freeze(prefix).map(|_| ()))?;
        // Frozen parts stay in evaluation mode.
        model.eval();
    }
    say(format_args!(
        "{}: {} parameters; {} pictures of {} classes to train on, {} to validate on",
        options.model,
        model.num_parameters(),
        splits.train.len(),
        splits.classes.len(),
        splits.valid.len()
    ));

    let (run, optimizer) = (&options.run, options.optimizer.build(&model)?);
    let maximize = !lower_is_better(&monitor);
    let steps_of_epoch = train.len().div_ceil(run.accumulate.max(1)).max(1) as u64;
    let steps = run.total_steps(steps_of_epoch);
    let total = if options.schedule.every() == Every::Step { steps } else { steps.div_ceil(steps_of_epoch) };
    let schedule = options.schedule.build(total, schedule::Run::of(&optimizer, maximize))?;
    let mut trainer = Trainer::new(&model, optimizer)
        .schedule(schedule, options.schedule.every())
        .accumulate(run.accumulate)
        .update_batch_norm(run.update_batch_norm)
        .log_every(run.log_every)
        .seed(options.data.seed)
        .note(weights_file::PREPROCESSING, weights_file::note_of(&target.preprocessing))
        .note(weights_file::CLASSES, splits.classes.clone())
        .resume(options.resume)
        .stop_on_ctrl_c();
    if options.schedule.schedule == schedule::Shape::Plateau {
        trainer = trainer.schedule_metric(&monitor);
    }
    if let Some(epochs) = run.epochs() {
        trainer = trainer.epochs(epochs);
    }
    if let Some(steps) = run.steps {
        trainer = trainer.steps(steps);
    }
    if let Some(limit) = run.clip_norm {
        trainer = trainer.clip_norm(limit);
    }
    if let Some(limit) = run.clip_value {
        trainer = trainer.clip_value(limit);
    }
    if let Some(decay) = run.ema {
        trainer = trainer.average(Ema::new(decay).warmup());
        trainer = trainer.average_every(run.average_unit(Every::Step), run.ema_from.unwrap_or(1) - 1);
    }
    if let Some(epoch) = run.swa_from {
        trainer = trainer.average(Swa::new()).average_every(run.average_unit(Every::Epoch), epoch - 1);
    }
    if let Some(patience) = run.patience {
        trainer = trainer.callback(EarlyStopping::on(&monitor).patience(patience));
    }
    let last_batch = LastBatch::default();
    trainer = options.watch.add_to(trainer, splits.classes.len(), &last_batch, first);
    if let Some(group) = group {
        trainer = trainer.distributed(distributed::settings(group, &options.run));
    }
    if let Some(checkpoints) = &checkpoints {
        trainer = trainer.checkpoints(checkpoints.clone());
    }
    if let (Some(dir), true) = (&options.out, first) {
        if options.resume {
            trainer = trainer.callback(config::SaveOnce(Some((dir, table))));
        } else {
            config::save(dir, table)?;
        }
        let mut board = TensorBoard::in_dir(dir);
        board.graph(&model, [1, target.channels, target.size(), target.size()])?;
        trainer = trainer.log(board).log(CsvLog::new(dir.join("log.csv")));
        if run.json_lines {
            trainer = trainer.log(JsonLines::new(dir.join("log.jsonl")));
        }
    }
    let loss = CrossEntropyOptions { label_smoothing: run.label_smoothing, ..Default::default() };
    let validation = (!splits.valid.is_empty()).then_some(&valid);
    let report = trainer.fit(&train, validation, |model, batch: &Batch| {
        if options.watch.diagnose.is_some() && is_grad_enabled() {
            last_batch.set(&batch.images);
        }
        let (step, logits, classes) = step_of(model.as_module(), batch, &loss)?;
        let measures = !options.watch.metric.is_empty() && !is_grad_enabled();
        // Probabilities can be compared between pictures, for the area under a curve.
        if measures { Ok(step.outputs(&logits.softmax(-1)?, &classes)) } else { Ok(step) }
    });
    let report = report.map_err(|error| match last_batch.non_finite(&model) {
        Some(place) => Error::msg(format!("{error}\n{place}")),
        None => error,
    })?;

    if let (Some(dir), true) = (&options.out, first) {
        let path = dir.join("report.html");
        report::write(&path, (options, table, &target), (&*model, &splits, &valid), &report)?;
        say(format_args!("report: {}", path.display()));
    }
    for failure in train.failures().iter().chain(&valid.failures()) {
        say(format_args!("left out: {failure}"));
    }
    let images = splits.train.len() as f64 * report.steps as f64 / steps_of_epoch as f64;
    say(format_args!("{}: {} steps in {:.1} s, {:.0} pictures/s", report.ending, report.steps, report.seconds, images / report.seconds));
    if let (Ending::Interrupted, Some(dir)) = (&report.ending, &options.out) {
        say(format_args!("`--out {} --resume` goes on from here", dir.display()));
    }
    if let Some(best) =
        checkpoints.as_ref().filter(|_| run.keep_best).map(|checkpoints| checkpoints.best_path()).filter(|path| path.exists())
    {
        let value = Checkpoint::load(&best)?.section("best")?.get("value").map(|value| value.item::<f64>()).transpose()?;
        say(format_args!("best {monitor}: {:.4} in {}", value.unwrap_or(f64::NAN), best.display()));
    }
    if let Some(group) = group {
        say(format_args!("{}", distributed::summary(group)));
    }
    let last = report.last().and_then(|metrics| metrics.get("valid/accuracy").or(metrics.get("train/accuracy")));
    say(format_args!("accuracy: {:.4}", last.copied().unwrap_or(f64::NAN)));
    Ok(())
}

/// Returns where checkpoints are kept. A run does not begin in the directory of another.
fn checkpoints(options: &Options, monitor: &str) -> Result<Option<Checkpoints>> {
    let (run, Some(dir)) = (&options.run, &options.out) else {
        return if options.resume { Err(Error::msg("--resume wants --out, the directory of the run")) } else { Ok(None) };
    };
    let mut checkpoints = Checkpoints::in_dir(dir.join("checkpoints")).keep_last(run.keep_last);
    if let Some(steps) = run.checkpoint_steps {
        checkpoints = checkpoints.every_steps(steps);
    }
    if let Some(epochs) = run.checkpoint_epochs {
        checkpoints = checkpoints.every_epochs(epochs);
    }
    if run.keep_best {
        checkpoints = checkpoints.keep_best(monitor);
    }
    if !options.resume && !checkpoints.steps().context(config::UNWRITABLE)?.is_empty() {
        let message = format!("{} has the checkpoints of a run: --resume goes on from them, another --out begins anew", dir.display());
        return Err(Error::msg(message));
    }
    Ok(Some(checkpoints))
}
