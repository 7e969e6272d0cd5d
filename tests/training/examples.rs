//! Parts of the examples: what a run saves of its options and reads again, what they mean together,
//! which pictures they choose, what becomes of an error in one of several processes.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use convnet::Error;
use convnet::data::{Digits, Image};
use convnet::train::Group;
use toml::Table;

use crate::common::config;
use crate::common::data::DataOptions;
use crate::distributed;
use crate::options::Options;

fn parsed(arguments: &[&str]) -> Result<(Options, Table), String> {
    let given: Vec<OsString> = std::iter::once("train").chain(arguments.iter().copied()).map(OsString::from).collect();
    config::parse_from(&[], &given).map_err(|error| error.to_string())
}

#[test]
fn steps_alone_limit_a_run_unless_epochs_are_given() {
    let of = |arguments: &[&str]| {
        let run = parsed(arguments).unwrap().0.run;
        (run.epochs(), run.total_steps(100))
    };
    assert_eq!(of(&[]), (Some(15), 1500));
    assert_eq!(of(&["--steps", "5000"]), (None, 5000));
    assert_eq!(of(&["--steps", "5000", "--epochs", "3"]), (Some(3), 300));
    assert_eq!(of(&["--steps", "250", "--epochs", "3"]), (Some(3), 250));
}

#[test]
fn saved_options_are_those_that_were_given() {
    let dir = tempfile::tempdir().unwrap();
    let texts = ["--data", "007", "--model", "1e3", "--valid-data", "true", "--monitor", "12.50"];
    let values = ["--lr", "1e-4", "--seed", "007", "--nesterov", "--mean", "0.5", "--milestones", "3,5", "--steps", "9"];
    let (_, first) = parsed(&[&texts[..], &values].concat()).unwrap();
    config::save(dir.path(), &first).unwrap();
    let text = std::fs::read_to_string(dir.path().join(config::CONFIG)).unwrap();
    for line in ["data = \"007\"", "model = \"1e3\"", "valid-data = \"true\"", "monitor = \"12.50\"", "lr = 0.0001", "seed = 7"] {
        assert!(text.lines().any(|written| written == line), "{line} in\n{text}");
    }
    let (again, second) = parsed(&["--out", dir.path().to_str().unwrap(), "--resume"]).unwrap();
    assert_eq!(second, first);
    assert_eq!((again.data.data.as_deref(), again.model.as_str()), (Some(Path::new("007")), "1e3"));
    assert_eq!((again.optimizer.lr, again.data.mean, again.schedule.milestones), (1e-4, vec![0.5], vec![3, 5]));
    assert!(again.optimizer.nesterov && again.run.epochs().is_none());
}

#[test]
fn options_that_would_have_no_effect_are_refused() {
    let refused = |arguments: &[&str], name: &str| {
        let message = parsed(arguments).expect_err(name);
        assert!(message.contains(name), "{message}");
    };
    refused(&["--update-batch-norm"], "--swa-from");
    refused(&["--randaugment", "2,9"], "--policy");
    refused(&["--crop-padding", "4", "--random-resized-crop", "0.3"], "--random-resized-crop");
    refused(&["--ema", "0.99", "--swa-from", "2"], "--swa-from");
    refused(&["--swa-from", "0"], "--swa-from");
    for accepted in [
        &["--update-batch-norm", "--ema", "0.99"][..],
        &["--update-batch-norm=false"],
        &["--swa-from", "1", "--update-batch-norm"],
        &["--policy", "randaugment", "--randaugment", "2,9"],
        &["--resize", "36", "--random-resized-crop", "0.3"],
    ] {
        parsed(accepted).unwrap();
    }
    let another = parsed(&["--policy", "augmix", "--randaugment", "2,9"]).unwrap().0;
    let loaders = |options: &Options| options.data.loaders(&options.data.open()?, [1, 8, 8], &options.augment).map(drop);
    assert!(loaders(&another).unwrap_err().to_string().contains("--policy randaugment"));
    loaders(&parsed(&["--policy", "randaugment"]).unwrap().0).unwrap();
}

#[test]
fn folder_without_a_test_set_is_evaluated_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let class = |root: &str, name: &str, count: usize| {
        let folder = dir.path().join(root).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        (0..count).for_each(|number| Image::new(1, 2, 2).unwrap().save(folder.join(format!("{number}.png"))).unwrap());
    };
    for name in ["cats", "dogs"] {
        class("pictures", name, 10);
        class("others", name, 3);
    }
    let [pictures, others] = ["pictures", "others"].map(|name| dir.path().join(name).to_str().unwrap().to_string());
    let data = |more: &[&str]| -> DataOptions { parsed(&[&["--dataset", "folder", "--data", &pictures], more].concat()).unwrap().0.data };
    let counts = |splits: convnet::Result<crate::common::data::Splits>| {
        let splits = splits.unwrap();
        [splits.train.len(), splits.valid.len()]
    };
    assert_eq!(counts(data(&[]).open()), [18, 2]);
    assert_eq!(counts(data(&[]).open_to_evaluate()), [20, 20]);
    assert_eq!(counts(data(&["--valid-share", "0.3"]).open_to_evaluate()), [14, 6]);
    assert_eq!(counts(data(&["--valid-data", &others]).open_to_evaluate()), [20, 6]);
    let digits = parsed(&[]).unwrap().0.data;
    assert_eq!(counts(digits.open_to_evaluate()), [Digits::train().labels().len(), Digits::test().labels().len()]);
}

#[test]
fn error_of_one_process_before_the_training_ends_the_others() {
    let body = |group: &Group| match group.rank() {
        0 => group.gather(Vec::new()).map(drop),
        _ => Err(Error::msg("data/train: no such directory")),
    };
    let run = |group: Group| std::thread::spawn(move || distributed::together(Some(&group), || body(&group)).unwrap_err().to_string());
    // Without word from the other, the first waits until the limit.
    let groups = Group::threads_within(2, Duration::from_secs(30)).unwrap();
    let threads: Vec<_> = groups.into_iter().map(run).collect();
    let errors: Vec<String> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(errors, ["training: rank 1 has failed: data/train: no such directory", "data/train: no such directory"]);
}
