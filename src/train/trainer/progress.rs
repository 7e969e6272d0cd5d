//! The progress of a run on standard error: a bar on a terminal, a line for each epoch elsewhere.

use std::time::Instant;

use super::EpochRecord;
use crate::train::MetricValues;

pub(super) struct Progress {
    shown: bool,
    epochs: Option<u64>,
    started: Instant,
    samples: usize,
    #[cfg(feature = "progress")]
    bar: Option<indicatif::ProgressBar>,
}

impl Progress {
    pub(super) fn new(shown: bool, epochs: Option<u64>) -> Progress {
        Progress {
            shown,
            epochs,
            started: Instant::now(),
            samples: 0,
            #[cfg(feature = "progress")]
            bar: None,
        }
    }

    /// Begins an epoch, or goes on with it, at a batch.
    pub(super) fn begin(&mut self, epoch: u64, batch: usize, batches: usize) {
        (self.started, self.samples) = (Instant::now(), 0);
        #[cfg(feature = "progress")]
        if self.shown && std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            let bar = indicatif::ProgressBar::new(batches as u64).with_position(batch as u64);
            let style = indicatif::ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} {msg} {eta} left");
            bar.set_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()));
            bar.set_prefix(self.title(epoch));
            bar.reset_eta();
            self.bar = Some(bar);
        }
        #[cfg(not(feature = "progress"))]
        let _ = (epoch, batch, batches);
    }

    /// Counts a batch of samples; `means` are those of the epoch so far.
    pub(super) fn batch(&mut self, samples: usize, means: impl FnOnce() -> MetricValues) {
        self.samples += samples;
        #[cfg(feature = "progress")]
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}  {:.0}/s", listed(&means()), self.rate()));
            bar.inc(1);
        }
        #[cfg(not(feature = "progress"))]
        let _ = means;
    }

    /// Ends an epoch's batches; validation follows.
    pub(super) fn end_of_batches(&mut self) {
        #[cfg(feature = "progress")]
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    /// Shows the metrics of an epoch, given the rate of its training; `part` is the share of its
    /// batches that was used.
    pub(super) fn end_of_epoch(&self, record: &EpochRecord, part: f64, rate: f64) {
        if self.shown {
            let part = if part < 1.0 { format!(" ({:.0} % of it)", 100.0 * part) } else { String::new() };
            eprintln!("{}{part}  {}  {rate:.0}/s", self.title(record.epoch), listed(&record.metrics));
        }
    }

    /// Prints how many samples could not be read.
    pub(super) fn end(&self, failures: usize) {
        if self.shown && failures > 0 {
            eprintln!("samples that could not be read: {failures} (`DataLoader::failures` returns their errors)");
        }
    }

    /// Returns the number of samples in a second since the epoch began.
    pub(super) fn rate(&self) -> f64 {
        self.samples as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    fn title(&self, epoch: u64) -> String {
        match self.epochs {
            Some(epochs) => format!("epoch {}/{epochs}", epoch + 1),
            None => format!("epoch {}", epoch + 1),
        }
    }
}

/// Lists metrics in a line.
fn listed(metrics: &MetricValues) -> String {
    let parts: Vec<String> = metrics.iter().map(|(name, value)| format!("{name} {value:.4}")).collect();
    parts.join("  ")
}
