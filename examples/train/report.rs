//! The report of a run as an HTML file.

use std::path::Path;
use std::time::Duration;

use convnet::data::{Batch, DataLoader};
use convnet::nn::{Conv2d, Module, ModuleExt};
use convnet::train::metrics::{ConfusionMatrix, Metric};
use convnet::train::{EpochRecord, HtmlReport, TrainReport, WorstSamples};
use convnet::{Result, no_grad};

use crate::common::data::Splits;
use crate::options::Options;

/// Writes `report.html`: curves, confusion matrix, worst samples, kernels, options.
pub fn write(
    path: &Path,
    (options, table): (&Options, &toml::Table),
    (model, splits, valid): (&dyn Module, &Splits, &DataLoader),
    report: &TrainReport,
) -> Result<()> {
    let target = options.data.target(convnet::models::info(&options.model)?.input)?;
    let mut matrix = ConfusionMatrix::new(splits.classes.len());
    let mut worst = WorstSamples::new(32).normalized(&target.mean, &target.std);
    for batch in valid.epoch(0) {
        let Batch { images, labels } = batch?;
        let logits = no_grad(|| model.forward(&images))?;
        matrix.update(&logits, &labels)?;
        worst.add(&images, &logits, &labels)?;
    }
    let figures = [
        ("accuracy", format!("{:.4}", matrix.accuracy())),
        ("epochs", report.epochs.len().to_string()),
        ("steps", report.steps.to_string()),
        ("ending", report.ending.to_string()),
    ];
    let history: Vec<EpochRecord> = report.epochs.iter().chain(&report.partial).cloned().collect();
    let configuration: Vec<(String, String)> = table.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
    let mut html = HtmlReport::new(format!("{} on {}", options.model, table["dataset"].as_str().unwrap_or_default()))
        .figures(&figures)
        .history(&history)
        .confusion(&matrix, &splits.classes)
        .pictures("Worst-classified samples", &worst.pictures(&splits.classes));
    let first = model.named_modules().into_iter().find_map(|(_, module)| Some(module.downcast_ref::<Conv2d>()?.weight.tensor()));
    if let Some(weight) = first {
        html = html.kernels(&weight.detach());
    }
    html.configuration(&configuration).time(Duration::from_secs_f64(report.seconds)).save(path)
}
