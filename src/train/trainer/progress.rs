//! The progress of a run on standard error: a bar on a terminal, a line for each epoch elsewhere.

use std::time::{Duration, Instant};

use super::EpochRecord;
use crate::train::MetricValues;

pub(super) struct Progress {
    shown: bool,
    epochs: Option<u64>,
    started: Instant,
    samples: usize,
    pace: Pace,
    #[cfg(feature = "progress")]
    bar: Option<indicatif::ProgressBar>,
}

/// How fast a run goes on, in batches.
struct Pace {
    /// The number of batches in the whole run.
    total: u64,
    /// The number of batches that are done, those before a resumption too.
    done: u64,
    /// The number of batches that were done before this process, and when it began; validations
    /// take a part of the time since.
    start: Option<(u64, Instant)>,
}

impl Pace {
    /// Returns the time that the rest of the run takes if it goes on as it did so far; `None` until
    /// a batch is done.
    fn left(&self, now: Instant) -> Option<Duration> {
        let (before, began) = self.start?;
        let done = self.done.checked_sub(before).filter(|&done| done > 0)?;
        let left = self.total.saturating_sub(self.done);
        Duration::try_from_secs_f64((now - began).as_secs_f64() * left as f64 / done as f64).ok()
    }
}

/// Writes a time as `1h 05m`, `5m 09s` or `9s`.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m {seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h {minutes:02}m"),
    }
}

impl Progress {
    /// Makes the progress of a run of this many batches.
    pub(super) fn new(shown: bool, epochs: Option<u64>, total: u64) -> Progress {
        Progress {
            shown,
            epochs,
            started: Instant::now(),
            samples: 0,
            pace: Pace { total, done: 0, start: None },
            #[cfg(feature = "progress")]
            bar: None,
        }
    }

    /// Begins an epoch, or goes on with it, at a batch.
    pub(super) fn begin(&mut self, epoch: u64, batch: usize, batches: usize) {
        (self.started, self.samples) = (Instant::now(), 0);
        self.pace.done = epoch.saturating_mul(batches as u64).saturating_add(batch as u64);
        self.pace.start.get_or_insert((self.pace.done, self.started));
        #[cfg(feature = "progress")]
        if self.shown && std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            let bar = indicatif::ProgressBar::new(batches as u64).with_position(batch as u64);
            let style = indicatif::ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} {msg}");
            bar.set_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()));
            bar.set_prefix(self.title(epoch));
            self.bar = Some(bar);
        }
    }

    /// Counts a batch of samples; `means` are those of the epoch so far.
    pub(super) fn batch(&mut self, samples: usize, means: impl FnOnce() -> MetricValues) {
        self.samples += samples;
        self.pace.done += 1;
        #[cfg(feature = "progress")]
        if let Some(bar) = &self.bar {
            let left = self.pace.left(Instant::now()).map(|left| format!("  {} left", clock(left))).unwrap_or_default();
            bar.set_message(format!("{}  {:.0}/s{left}", listed(&means()), self.rate()));
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
            let left = self.pace.left(Instant::now()).filter(|left| !left.is_zero());
            let left = left.map(|left| format!("  {} left", clock(left))).unwrap_or_default();
            eprintln!("{}{part}  {}  {rate:.0}/s{left}", self.title(record.epoch), listed(&record.metrics));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_that_of_the_run_at_the_pace_since_it_was_resumed() {
        // Three epochs of ten batches, resumed in the second.
        let mut progress = Progress::new(false, Some(3), 30);
        assert_eq!(progress.pace.left(Instant::now()), None);
        progress.begin(1, 4, 10);
        let began = progress.pace.start.unwrap().1;
        let after = |progress: &Progress, seconds| progress.pace.left(began + Duration::from_secs(seconds));
        assert_eq!(after(&progress, 5), None, "nothing is known before the first batch");
        (0..6).for_each(|_| progress.batch(8, MetricValues::new));
        // 6 batches in 12 seconds; 10 are left.
        assert_eq!(after(&progress, 12), Some(Duration::from_secs(20)));
        progress.begin(2, 0, 10);
        (0..2).for_each(|_| progress.batch(8, MetricValues::new));
        // A validation took some of the time.
        assert_eq!(after(&progress, 24), Some(Duration::from_secs(24)));
        (0..8).for_each(|_| progress.batch(8, MetricValues::new));
        assert_eq!(after(&progress, 32), Some(Duration::ZERO));
    }

    #[test]
    fn times_are_written_in_two_units_at_most() {
        let texts = [0, 59, 309, 3_900, 360_000].map(|seconds| clock(Duration::from_secs(seconds)));
        assert_eq!(texts, ["0s", "59s", "5m 09s", "1h 05m", "100h 00m"]);
    }
}
