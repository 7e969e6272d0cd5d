//! The report of a run as an HTML file.

use std::path::Path;
use std::time::Duration;

use convnet::data::{Batch, DataLoader};
use convnet::nn::{Conv2d, Module, ModuleExt};
use convnet::train::metrics::{ConfusionMatrix, Metric};
use convnet::train::{EpochRecord, HtmlReport, TrainReport, WorstSamples};
use convnet::{Result, no_grad};

use crate::common::augment::Target;
use crate::common::data::Splits;
use crate::options::Options;

/// Writes `report.html`: curves, confusion matrix, worst samples, kernels, options.
pub fn write(
    path: &Path,
    (options, table, target): (&Options, &toml::Table, &Target),
    (model, splits, valid): (&dyn Module, &Splits, &DataLoader),
    report: &TrainReport,
) -> Result<()> {
    let mut matrix = ConfusionMatrix::new(splits.classes.len());
    let mut worst = WorstSamples::new(32).normalized(target.preprocessing.mean(), target.preprocessing.std());
    for batch in valid.epoch(0) {
        let Batch { images, labels } = batch?;
        let logits = no_grad(|| model.forward(&images))?;
        matrix.update(&logits, &labels)?;
        worst.add(&images, &logits, &labels)?;
    }
    let validates = matrix.samples() > 0;
    let last = |name: &str| report.last().and_then(|metrics| metrics.get(name)).copied().unwrap_or(f64::NAN);
    let accuracy = if validates { matrix.accuracy() } else { last("train/accuracy") };
    let figures = [
        (if validates { "accuracy" } else { "training accuracy" }, format!("{accuracy:.4}")),
        ("epochs", report.epochs.len().to_string()),
        ("steps", report.steps.to_string()),
        ("ending", report.ending.to_string()),
    ];
    let history: Vec<EpochRecord> = report.epochs.iter().chain(&report.partial).cloned().collect();
    let configuration: Vec<(String, String)> = table.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
    let mut html = HtmlReport::new(format!("{} on {}", options.model, table["dataset"].as_str().unwrap_or_default()))
        .figures(&figures)
        .history(&history);
    if validates {
        html = html.confusion(&matrix, &splits.classes).pictures("Worst-classified samples", &worst.pictures(&splits.classes));
    }
    let first = model.named_modules().into_iter().find_map(|(_, module)| Some(module.downcast_ref::<Conv2d>()?.weight.tensor()));
    if let Some(weight) = first {
        html = html.kernels(&weight.detach());
    }
    html.configuration(&configuration).time(Duration::from_secs_f64(report.seconds)).save(path)
}
