//! Further metrics of the validation, histograms and diagnoses of a run.

use std::sync::{Arc, Mutex, PoisonError};

use clap::{ArgAction, Args, ValueEnum};
use convnet::autograd::Gradients;
use convnet::inspect::{self, UpdateRatios};
use convnet::nn::Module;
use convnet::train::metrics::{Accuracy, ClassScore, RankingScore};
use convnet::train::{Callback, LogValue, RunState, Trainer};
use convnet::{Result, Tensor, no_grad};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Score {
    /// Mean of the classes' F1
    F1,
    Precision,
    Recall,
    /// Area under the ROC curve, each class against all others
    Auc,
    /// Mean of the classes' average precision
    AveragePrecision,
    /// The class is among the five most probable ones
    Top5,
}

/// What is measured beside loss and accuracy.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Measuring")]
pub struct WatchOptions {
    /// Further metrics of the validation, `valid/f1` and so on; means over the classes
    #[arg(long, value_enum, action = ArgAction::Set, value_delimiter = ',')]
    pub metric: Vec<Score>,
    /// Log histograms of all weights and gradients after this many steps, for TensorBoard
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub log_histograms: Option<u64>,
    /// Look for what goes wrong: name parameters without gradient and the layer that first gives
    /// NaN or infinity; log the share of dead ReLUs after each epoch, and after this many steps the
    /// ratio of each parameter's update to itself
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub diagnose: Option<u64>,
}

impl WatchOptions {
    /// Adds the metrics and the callbacks; of several processes, the first one prints.
    pub fn add_to<'a, M: Module>(&self, mut trainer: Trainer<'a, M>, classes: usize, batch: &LastBatch, prints: bool) -> Trainer<'a, M> {
        for &score in &self.metric {
            trainer = match score {
                Score::F1 => trainer.metric("f1", ClassScore::f1(classes)),
                Score::Precision => trainer.metric("precision", ClassScore::precision(classes)),
                Score::Recall => trainer.metric("recall", ClassScore::recall(classes)),
                Score::Auc => trainer.metric("auc", RankingScore::roc_auc()),
                Score::AveragePrecision => trainer.metric("average_precision", RankingScore::average_precision()),
                Score::Top5 => trainer.metric("top5", Accuracy::top_k(5)),
            };
        }
        if let Some(every) = self.log_histograms {
            trainer = trainer.callback(Histograms { every });
        }
        if let Some(every) = self.diagnose {
            trainer = trainer.callback(Diagnosis { every, prints, before: None, seen: false, batch: batch.clone() });
        }
        trainer
    }
}

/// The pictures of the last training batch.
#[derive(Clone, Default)]
pub struct LastBatch(Arc<Mutex<Option<Tensor>>>);

impl LastBatch {
    pub fn set(&self, images: &Tensor) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(images.clone());
    }

    fn get(&self) -> Option<Tensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Describes the first output of a layer that is not finite, if there is one.
    pub fn non_finite(&self, model: &dyn Module) -> Option<String> {
        let images = self.get()?;
        let found = inspect::first_non_finite(model, || no_grad(|| model.forward(&images)));
        found.ok().flatten().map(|found| found.to_string())
    }
}

/// Logs histograms of weights and gradients.
struct Histograms {
    every: u64,
}

impl Callback for Histograms {
    fn before_step(&mut self, run: &mut RunState<'_>, gradients: &mut Gradients) -> Result<()> {
        if !(run.step + 1).is_multiple_of(self.every) {
            return Ok(());
        }
        for (name, parameter) in run.model.named_parameters() {
            run.log(&[(&format!("weights/{name}"), LogValue::Histogram(&parameter.tensor()))])?;
            if let Some(gradient) = gradients.get(&parameter.tensor()) {
                run.log(&[(&format!("gradients/{name}"), LogValue::Histogram(gradient))])?;
            }
        }
        Ok(())
    }
}

/// Looks for what goes wrong.
struct Diagnosis {
    every: u64,
    prints: bool,
    /// The parameters before a step whose updates are measured.
    before: Option<UpdateRatios>,
    /// Whether gradients have been looked at.
    seen: bool,
    batch: LastBatch,
}

impl Callback for Diagnosis {
    fn before_step(&mut self, run: &mut RunState<'_>, gradients: &mut Gradients) -> Result<()> {
        let missing = if self.seen { Vec::new() } else { inspect::without_gradient(run.model, gradients) };
        if self.prints && !missing.is_empty() {
            eprintln!("without gradient: {}", missing.join(", "));
        }
        self.seen = true;
        if (run.step + 1).is_multiple_of(self.every) {
            self.before = Some(UpdateRatios::before(run.model)?);
        }
        Ok(())
    }

    fn after_step(&mut self, run: &mut RunState<'_>) -> Result<()> {
        let Some(before) = self.before.take() else { return Ok(()) };
        let ratios = before.after(run.model)?;
        log_scalars(run, ratios.into_iter().map(|(name, ratio)| (format!("update_ratio/{name}"), ratio)))
    }

    fn after_epoch(&mut self, run: &mut RunState<'_>) -> Result<()> {
        let Some(images) = self.batch.get() else { return Ok(()) };
        let rectifiers = inspect::dead_relus(run.model, || no_grad(|| run.model.forward(&images)))?;
        log_scalars(run, rectifiers.into_iter().map(|found| (format!("dead_relus/{}", found.path), found.share())))
    }
}

/// Logs numbers in one row.
fn log_scalars(run: &mut RunState<'_>, values: impl Iterator<Item = (String, f64)>) -> Result<()> {
    let values: Vec<(String, f64)> = values.collect();
    let row: Vec<(&str, LogValue<'_>)> = values.iter().map(|(name, value)| (name.as_str(), LogValue::Scalar(*value))).collect();
    run.log(&row)
}
