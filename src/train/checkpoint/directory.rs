//! A directory of checkpoints: the last ones and the best.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Checkpoint;
use crate::error::{Error, Result};
use crate::io::atomic_file::remove_leftovers_of;
use crate::io::unwritten;
use crate::train::lower_is_better;

/// The name of the best checkpoint.
const BEST: &str = "best.safetensors";

/// When checkpoints are written, where, and which of them are kept.
///
/// Files are `step-0000000500.safetensors` and, for the best one, `best.safetensors`.
///
/// ```
/// use convnet::train::{Checkpoint, Checkpoints};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&dir).unwrap();
/// let checkpoints = Checkpoints::in_dir("runs/cifar").every_steps(500).keep_last(2);
/// for step in [500, 1000, 1500] {
///     checkpoints.save(step, &Checkpoint::new().note("step", step))?;
/// }
/// assert_eq!(checkpoints.steps()?, [1000, 1500]);
/// assert_eq!(checkpoints.latest()?.expect("two are kept").count("step")?, 1500);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    pub(in crate::train) every_steps: Option<u64>,
    pub(in crate::train) every_epochs: Option<u64>,
    keep_last: usize,
    pub(in crate::train) best_metric: Option<String>,
    pub(in crate::train) minimize: Option<bool>,
    overwrite: bool,
}

impl Checkpoints {
    /// Keeps checkpoints in a directory, which is made when the first one is written: one after
    /// each epoch, the last three are kept.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Checkpoints {
        let dir = dir.into();
        Checkpoints { dir, every_steps: None, every_epochs: None, keep_last: 3, best_metric: None, minimize: None, overwrite: false }
    }

    /// Writes a checkpoint after every `steps` steps of the optimiser.
    #[must_use]
    pub fn every_steps(self, steps: u64) -> Checkpoints {
        Checkpoints { every_steps: Some(steps), ..self }
    }

    /// Writes a checkpoint after every `epochs` epochs.
    #[must_use]
    pub fn every_epochs(self, epochs: u64) -> Checkpoints {
        Checkpoints { every_epochs: Some(epochs), ..self }
    }

    /// Sets how many of the last checkpoints are kept, at least one.
    #[must_use]
    pub fn keep_last(self, count: usize) -> Checkpoints {
        Checkpoints { keep_last: count.max(1), ..self }
    }

    /// Keeps the checkpoint with the best value of this metric as well. Which values are better
    /// follows from its name ([`lower_is_better`]), unless [`minimize`](Checkpoints::minimize) says
    /// otherwise.
    #[must_use]
    pub fn keep_best(self, metric: impl Into<String>) -> Checkpoints {
        Checkpoints { best_metric: Some(metric.into()), ..self }
    }

    /// Sets whether lower values of the metric are better.
    #[must_use]
    pub fn minimize(self, minimize: bool) -> Checkpoints {
        Checkpoints { minimize: Some(minimize), ..self }
    }

    /// Sets whether a run that starts anew removes the checkpoints of another run in the directory;
    /// by default it is an error that there are any.
    #[must_use]
    pub fn overwrite(self, overwrite: bool) -> Checkpoints {
        Checkpoints { overwrite, ..self }
    }

    /// Returns the directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the path of the best checkpoint.
    pub fn best_path(&self) -> PathBuf {
        self.dir.join(BEST)
    }

    /// Returns the path of a step's checkpoint.
    pub fn path(&self, step: u64) -> PathBuf {
        self.dir.join(name_of(step))
    }

    /// Writes a checkpoint of a step, then removes those beyond the number that is kept, and what
    /// processes that were killed while writing have left.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written; older ones are as they were then.
    pub fn save(&self, step: u64, checkpoint: &Checkpoint) -> Result<()> {
        self.write(&self.path(step), checkpoint)?;
        remove_leftovers_of(&self.dir, |name| name == BEST || step_of(name).is_some());
        let steps = self.steps()?;
        // A run that began again from an older step leaves later ones behind: they are not of this
        // run.
        let (earlier, later): (Vec<u64>, Vec<u64>) = steps.into_iter().partition(|&other| other <= step);
        let old = earlier.len().saturating_sub(self.keep_last);
        earlier[..old].iter().chain(&later).try_for_each(|&step| remove(&self.path(step)))
    }

    /// Makes the directory ready for a run that starts anew: without checkpoints.
    ///
    /// # Errors
    /// [`Error::Training`] when there are checkpoints, which are removed only with
    /// [`overwrite`](Checkpoints::overwrite); [`Error::Io`] when they cannot be.
    pub(in crate::train) fn start_anew(&self) -> Result<()> {
        let steps = self.steps().map_err(|error| unwritten("the directory of checkpoints cannot be made", error))?;
        let best = self.best_path();
        if self.overwrite {
            // The best one first, the latest last: what is left after a crash is the run from
            // before.
            return std::iter::once(best).chain(steps.into_iter().map(|step| self.path(step))).try_for_each(|path| remove(&path));
        }
        if steps.is_empty() && !best.exists() {
            return Ok(());
        }
        let message = format!(
            "{} has the checkpoints of a run: `resume(true)` goes on from them, `Checkpoints::overwrite(true)` removes them; or choose \
             another directory",
            self.dir.display()
        );
        Err(Error::Training(message))
    }

    /// Writes a checkpoint as the best one.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written; the best one so far is as it was then.
    pub fn save_best(&self, checkpoint: &Checkpoint) -> Result<()> {
        self.write(&self.best_path(), checkpoint)
    }

    fn write(&self, path: &Path, checkpoint: &Checkpoint) -> Result<()> {
        let made = fs::create_dir_all(&self.dir).map_err(Error::io(&self.dir));
        made.map_err(|error| unwritten("the directory of checkpoints cannot be made", error))?;
        checkpoint.save(path).map_err(|error| unwritten("the checkpoint cannot be written; the ones before are whole", error))
    }

    /// Returns the steps of the checkpoints in the directory, in order.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory cannot be read; one that does not exist has none.
    pub fn steps(&self) -> Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(&self.dir)(error)),
        };
        let mut steps = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io(&self.dir))?.file_name();
            steps.extend(name.to_str().and_then(step_of));
        }
        steps.sort_unstable();
        Ok(steps)
    }

    /// Reads the checkpoint of the latest step; `None` when there is none.
    ///
    /// # Errors
    /// When the directory or the checkpoint cannot be read.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        match self.steps()?.last() {
            Some(&step) => Checkpoint::load(self.path(step)).map(Some),
            None => Ok(None),
        }
    }

    /// Reads the best checkpoint; `None` when there is none. What was best are its
    /// [`validated_weights`](Checkpoint::validated_weights).
    ///
    /// # Errors
    /// When the checkpoint cannot be read.
    pub fn best(&self) -> Result<Option<Checkpoint>> {
        let path = self.best_path();
        if path.exists() { Checkpoint::load(path).map(Some) } else { Ok(None) }
    }

    /// Returns whether a value of the metric is better than another.
    pub(in crate::train) fn is_better(&self, value: f64, best: f64) -> bool {
        let minimize = self.minimize.unwrap_or_else(|| lower_is_better(self.best_metric.as_deref().unwrap_or_default()));
        if minimize { value < best } else { value > best }
    }
}

fn name_of(step: u64) -> String {
    format!("step-{step:010}.safetensors")
}

/// Returns the step of the checkpoint with this name.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()?;
    (name_of(step) == name).then_some(step)
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_steps_and_no_others() {
        assert_eq!(step_of(&name_of(500)), Some(500));
        assert_eq!(step_of(&name_of(u64::MAX)), Some(u64::MAX));
        for other in ["step-500.safetensors", "step-0000000500.tmp", "step-+000000500.safetensors", "best.safetensors"] {
            assert_eq!(step_of(other), None, "{other}");
        }
    }

    #[test]
    fn save_removes_what_killed_processes_left_and_no_file_that_is_being_written() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::in_dir(dir.path());
        let left = |target: &str| format!(".{target}.0123456789abcdef.tmp");
        let gone = [left(&name_of(40)), left(&name_of(50)), left(BEST)];
        let kept = [left("weights.safetensors"), left("step-40.safetensors"), ".step-0000000040.safetensors.tmp".to_string()];
        for name in gone.iter().chain(&kept) {
            fs::write(dir.path().join(name), "half of it").unwrap();
        }
        let writing = dir.path().join(format!(".{}.fedcba9876543210.tmp", name_of(60)));
        let file = fs::File::create(&writing).unwrap();
        file.try_lock().unwrap();
        checkpoints.save(70, &Checkpoint::new().note("step", 70)).unwrap();
        assert!(gone.iter().all(|name| !dir.path().join(name).exists()));
        assert!(kept.iter().all(|name| dir.path().join(name).exists()));
        assert!(writing.exists() && checkpoints.steps().unwrap() == [70]);
        drop(file);
        checkpoints.save(80, &Checkpoint::new().note("step", 80)).unwrap();
        assert!(!writing.exists());
    }
}
