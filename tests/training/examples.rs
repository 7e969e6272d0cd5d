//! Parts of the examples: what a run saves of its options and reads again, what they mean together,
//! which pictures they choose, what becomes of an error in one of several processes.

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use convnet::data::{Batch, DataLoader, Digits, Image, ImageClassification, ResizeFilter, Rng, Transform as _};
use convnet::nn::{Flatten, Linear, Module, ReLU, Sequential, StateDict};
use convnet::ops::CrossEntropyOptions;
use convnet::optim::{Anneal, CosineWarmRestarts, CyclicLr, CyclicMode, LrSchedule, OneCycleLr, Sgd};
use convnet::train::{Checkpoint, Every, Group, LogValue, Logger, Step, Trainer};
use convnet::{Error, Tensor, inspect, models};
use serde_json::json;
use toml::Table;

use crate::common::augment::Target;
use crate::common::data::DataOptions;
use crate::common::loss::logits_and_loss;
use crate::common::{config, schedule, weights_file};
use crate::distributed;
use crate::options::Options;
use crate::watching::LastBatch;

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
    let loaders =
        |options: &Options| options.data.loaders(&options.data.open()?, &options.data.target("lenet5", None)?, &options.augment).map(drop);
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

/// Describes how pictures are prepared.
fn described(target: &Target) -> serde_json::Value {
    weights_file::note_of(&target.preprocessing)
}

#[test]
fn pictures_are_prepared_as_for_the_weights_unless_options_say_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let weights: StateDict = [("fc.weight".to_string(), Tensor::zeros([2, 2]))].into_iter().collect();
    weights.save(file("published.safetensors")).unwrap();
    let of_run = || Checkpoint::new().with("model", weights.clone()).with("optimizer", [("lr".to_string(), Tensor::scalar(0.1))]);
    let noted = ImageClassification::new(48).resize(60).interpolation(ResizeFilter::Nearest).normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]);
    of_run()
        .note(weights_file::PREPROCESSING, weights_file::note_of(&noted))
        .note("classes", ["a", "b"].map(String::from).to_vec())
        .save(file("noted.safetensors"))
        .unwrap();
    of_run().save(file("silent.safetensors")).unwrap();
    of_run().note(weights_file::PREPROCESSING, "none").save(file("damaged.safetensors")).unwrap();
    let target = |arguments: &[&str], model: &str, name: Option<&str>| {
        let weights = name.map(|name| weights_file::read(&file(name)).unwrap());
        parsed(arguments).unwrap().0.data.target(model, weights.as_ref())
    };
    let of = |arguments: &[&str], model: &str, name: Option<&str>| described(&target(arguments, model, name).unwrap());
    let preset = |model: &str| weights_file::note_of(&models::preprocessing(model).unwrap());

    // Published weights: efficientnet_b2 has a larger picture than in the registry, and a cubic
    // filter.
    for model in ["efficientnet_b2", "xception", "googlenet", "resnet18", "lenet5", "cifar_resnet20"] {
        for dataset in ["folder", "cifar10", "mnist"] {
            assert_eq!(of(&["--dataset", dataset], model, Some("published.safetensors")), preset(model), "{model} on {dataset}");
        }
    }
    let own = of(&["--mean", "0.5", "--std", "0.25", "--filter", "bilinear"], "efficientnet_b2", Some("published.safetensors"));
    assert_eq!(own, json!({"size": 288, "resize": 288, "filter": "bilinear", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}));
    let smaller = of(&["--size", "112"], "resnet18", Some("published.safetensors"));
    assert_eq!((&smaller["size"], &smaller["resize"]), (&json!(112), &json!(128)));

    // A run's own weights: as its checkpoint says; one that says nothing is of the dataset.
    assert_eq!(of(&["--dataset", "cifar10"], "resnet18", Some("noted.safetensors")), weights_file::note_of(&noted));
    let of_dataset = of(&["--dataset", "cifar10"], "resnet18", None);
    assert_eq!(of_dataset["mean"], json!([0.4914, 0.4822, 0.4465]));
    assert_eq!(of(&["--dataset", "cifar10"], "resnet18", Some("silent.safetensors")), of_dataset);
    let noted_weights = weights_file::read(&file("noted.safetensors")).unwrap();
    assert_eq!(
        weights_file::note_of(&weights_file::preprocessing(Some(&noted_weights), "xception").unwrap()),
        weights_file::note_of(&noted)
    );
    assert_eq!(noted_weights.classes, Some(vec!["a".to_string(), "b".to_string()]));
    let silent = weights_file::read(&file("silent.safetensors")).unwrap();
    let silent = weights_file::preprocessing(Some(&silent), "xception").unwrap();
    assert_eq!(weights_file::note_of(&silent), preset("xception"));
    let message = weights_file::read(&file("damaged.safetensors")).err().expect("a text is no preparation").to_string();
    assert!(message.contains("damaged.safetensors") && message.contains("`preprocessing` is damaged"), "{message}");

    // What a run that began with weights saves gives the same without the weights.
    let begun = target(&["--dataset", "folder"], "efficientnet_b2", Some("published.safetensors")).unwrap();
    let (_, mut table) = parsed(&["--dataset", "folder", "--model", "efficientnet_b2"]).unwrap();
    table.extend(begun.options());
    config::save(dir.path(), &table).unwrap();
    let (again, _) = parsed(&["--out", dir.path().to_str().unwrap(), "--resume"]).unwrap();
    assert_eq!(described(&again.data.target(&again.model, None).unwrap()), preset("efficientnet_b2"));
}

#[test]
fn switches_can_be_lines_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let (_, first) = parsed(&["--lr", "0.125"]).unwrap();
    config::save(&out, &first).unwrap();
    let file = dir.path().join("go_on.toml");
    std::fs::write(&file, format!("resume = true\n[run]\nout = {:?}\nepochs = 20\n", out.display().to_string())).unwrap();
    let file = file.to_str().unwrap();
    let (options, _) = parsed(&["--config", file]).unwrap();
    assert!(options.resume);
    assert_eq!((options.optimizer.lr, options.run.epochs()), (0.125, Some(20)), "the options of the run that goes on");
    // The command line wins.
    let (anew, _) = parsed(&["--config", file, "--resume=false"]).unwrap();
    assert!(!anew.resume);
    assert_eq!(anew.optimizer.lr, 0.05);
    assert!(parsed(&["--resume", "--out", out.to_str().unwrap()]).unwrap().0.resume);
}

#[test]
fn list_to_validate_on_has_the_classes_to_train_on() {
    let dir = tempfile::tempdir().unwrap();
    Image::new(1, 2, 2).unwrap().save(dir.path().join("1.png")).unwrap();
    let list = |name: &str, kinds: &[&str]| {
        let path = dir.path().join(name);
        std::fs::write(&path, kinds.iter().map(|kind| format!("1.png,{kind}\n")).collect::<String>()).unwrap();
        path.to_str().unwrap().to_string()
    };
    let (train, valid, other) =
        (list("train.csv", &["cat", "dog", "owl", "cat"]), list("valid.csv", &["owl", "dog"]), list("other.csv", &["owl", "newt"]));
    let open = |valid: &str| parsed(&["--dataset", "csv", "--data", &train, "--valid-data", valid]).unwrap().0.data.open();
    let splits = open(&valid).unwrap();
    assert_eq!((splits.classes.join(" "), splits.valid.classes().join(" ")), ("cat dog owl".into(), "cat dog owl".into()));
    let labels: Vec<i64> = (0..2).map(|index| splits.valid.get(index, &mut Rng::new(0)).unwrap().1).collect();
    assert_eq!(labels, [2, 1]);
    let message = open(&other).err().expect("there is no newt to train on").to_string();
    assert!(message.contains("line 2") && message.contains("newt"), "{message}");
}

#[test]
fn run_without_validation_observes_its_training() {
    let monitor = |arguments: &[&str], validates| parsed(arguments).unwrap().0.run.monitor(validates);
    assert_eq!(monitor(&[], true), "valid/accuracy");
    assert_eq!(monitor(&[], false), "train/accuracy");
    assert_eq!(monitor(&["--monitor", "valid/loss"], false), "valid/loss");
}

#[test]
fn auxiliary_heads_are_trained_and_not_validated() {
    convnet::manual_seed(0);
    let model = models::create("googlenet", 4).unwrap();
    let (images, labels) = (Tensor::randn([2, 3, 33, 33]), Tensor::from_vec(vec![0i64, 3], [2]).unwrap());
    let gradients = |model: &dyn Module| {
        let options = CrossEntropyOptions { label_smoothing: 0.1, ..Default::default() };
        let (logits, loss) = logits_and_loss(model, &images, &labels, &options).unwrap();
        assert_eq!(logits.shape(), [2, 4]);
        (
            loss.backward().unwrap(),
            loss.item::<f32>().unwrap(),
            logits.cross_entropy_with(&labels, &options).unwrap().item::<f32>().unwrap(),
        )
    };
    let (trained, loss, main) = gradients(&model);
    assert!(inspect::without_gradient(&model, &trained).is_empty());
    assert!(loss > 1.2 * main, "{loss} has three tenths of two heads that guess, and {main}");
    model.eval();
    let (validated, loss, main) = gradients(&model);
    assert!(inspect::without_gradient(&model, &validated).iter().all(|name| name.starts_with("aux")));
    assert_eq!(loss, main);
}

#[test]
fn transforms_are_applied_in_the_order_of_their_list() {
    let list = "invert=1,angles=180,affine,perspective,elastic=20:4,blur=3,posterize=3:1,solarize,sharpness,autocontrast,equalize";
    let (options, table) = parsed(&["--transform", list]).unwrap();
    assert_eq!(options.augment.transform.len(), 11);
    let dir = tempfile::tempdir().unwrap();
    config::save(dir.path(), &table).unwrap();
    let (again, _) = parsed(&["--out", dir.path().to_str().unwrap(), "--resume"]).unwrap();
    assert_eq!(again.augment.transform, options.augment.transform);

    let ramp = Image::from_bytes([1, 8, 8], (0..64).map(|i| i * 4).collect()).unwrap();
    let after = |list: &str| {
        let transforms = parsed(&["--transform", list]).unwrap().0.augment.transform;
        let (mut image, mut rng) = (ramp.clone(), Rng::new(3));
        transforms.iter().for_each(|transform| transform.build().apply(&mut image, &mut rng).unwrap());
        image.to_bytes().bytes().unwrap().to_vec()
    };
    let inverted: Vec<u8> = (0..64).map(|i| 255 - i * 4).collect();
    assert_eq!(after("invert=1"), inverted);
    assert_eq!(after("invert=1,angles=180"), inverted.iter().copied().rev().collect::<Vec<_>>());
    // 128 of 255 is the threshold: the brighter half is inverted, then all of it, or the other way.
    let [first, second] = [after("invert=1,solarize=0.5:1"), after("solarize=0.5:1,invert=1")];
    assert_ne!(first, second);
    assert_eq!(after(list).len(), 64);
    let loader = |list: &str| {
        let options = parsed(&["--transform", list, "--size", "8", "--mean", "0", "--std", "1"]).unwrap().0;
        let target = options.data.target("lenet5", None).unwrap();
        let splits = options.data.open().unwrap();
        options.data.loaders(&splits, &target, &options.augment).unwrap().0.epoch(0).next().unwrap().unwrap().images
    };
    let (plain, inverted) = (loader("invert=0"), loader("invert=1"));
    // Bytes in the one, 255 minus bytes in the other.
    assert!(approx::abs_diff_eq!(plain.add(&inverted).unwrap(), Tensor::ones(plain.shape()), epsilon = 1e-6));

    // The defaults in the help are what is typed.
    let help = crate::common::transforms::help();
    let rows: Vec<&str> = help.split("), ").skip(1).collect();
    assert!(rows.len() == 10 && rows[0].starts_with("affine=DEGREES:TRANSLATE:"), "{rows:?}");
    for row in rows {
        let (name, defaults) = (row.split_once('=').unwrap().0, row.split_once('(').unwrap().1.trim_end_matches(')'));
        parsed(&["--transform", &format!("{name}={defaults}")]).unwrap();
    }

    for (wrong, part) in [
        ("mirror", "there are angles, affine"),
        ("invert=0.5:1", "at most 1 values"),
        ("blur=2.5", "kernel is a whole number"),
        ("posterize=-1", "bits is a whole number"),
        ("solarize=x", "\"x\" is not a number"),
        ("invert=NaN", "not a number"),
        ("angles", "the angles are missing"),
    ] {
        let message = parsed(&["--transform", wrong]).unwrap_err();
        assert!(message.contains(part), "{message}");
    }
}

/// Makes a folder with this many pictures of each class.
fn folder_of(dir: &Path, classes: &[(&str, usize)]) {
    for &(name, count) in classes {
        let folder = dir.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        (0..count).for_each(|number| Image::new(1, 2, 2).unwrap().save(folder.join(format!("{number}.png"))).unwrap());
    }
}

#[test]
fn sampler_orders_the_pictures_to_train_on() {
    let dir = tempfile::tempdir().unwrap();
    folder_of(dir.path(), &[("cats", 60), ("dogs", 20)]);
    let path = dir.path().to_str().unwrap();
    let labels = |more: &[&str]| {
        let given = ["--dataset", "folder", "--data", path, "--model", "lenet5", "--batch", "8", "--valid-share", "0", "--workers", "0"];
        let options = parsed(&[&given, more].concat()).unwrap().0;
        let splits = options.data.open().unwrap();
        let target = options.data.target(&options.model, None).unwrap();
        let (train, _) = options.data.loaders(&splits, &target, &options.augment).unwrap();
        train.epoch(0).map(|batch| batch.unwrap().labels.to_vec::<i64>().unwrap()).collect::<Vec<_>>()
    };
    let dogs = |batches: &[Vec<i64>]| batches.iter().map(|batch| batch.iter().sum::<i64>()).collect::<Vec<_>>();
    assert_eq!(dogs(&labels(&["--sampler", "sequential"])), [0, 0, 0, 0, 0, 0, 0, 4, 8, 8]);
    assert_eq!(dogs(&labels(&["--sampler", "stratified"])), [2; 10]);
    let shuffled = dogs(&labels(&["--prefetch", "2"]));
    assert!(shuffled.iter().sum::<i64>() == 20 && shuffled != [2; 10], "{shuffled:?}");
    // 80 draws with probability 1/2: 4 standard deviations are 18.
    let weighted: i64 = dogs(&labels(&["--sampler", "weighted"])).iter().sum();
    assert!((22..=58).contains(&weighted), "{weighted}");
    // The labels of a part are those of its pictures.
    assert_eq!(dogs(&labels(&["--sampler", "stratified", "--limit", "32"])), [2; 4]);
}

#[test]
fn pictures_in_the_cache_are_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    folder_of(dir.path(), &[("cats", 2), ("dogs", 2)]);
    let path = dir.path().to_str().unwrap().to_string();
    let splits = |more: &[&str]| {
        parsed(&[&["--dataset", "folder", "--data", &path, "--valid-share", "0"], more].concat()).unwrap().0.data.open().unwrap()
    };
    let (cached, plain) = (splits(&["--cache", "1"]), splits(&[]));
    let read = |splits: &crate::common::data::Splits| splits.train.get(0, &mut Rng::new(0));
    assert!(read(&cached).is_ok() && read(&plain).is_ok());
    std::fs::remove_file(dir.path().join("cats/0.png")).unwrap();
    assert!(read(&cached).is_ok() && read(&plain).is_err());
}

#[test]
fn columns_of_a_list_are_chosen() {
    let dir = tempfile::tempdir().unwrap();
    folder_of(&dir.path().join("pictures"), &[("all", 2)]);
    let list = dir.path().join("list.csv");
    std::fs::write(&list, "kind;hours;file\nowl;3;0.png\nant;5;1.png\n").unwrap();
    let root = dir.path().join("pictures/all");
    let given = ["--dataset", "csv", "--data", list.to_str().unwrap(), "--valid-share", "0.5", "--csv-root", root.to_str().unwrap()];
    let columns = ["--csv-delimiter", ";", "--csv-path", "file", "--csv-target", "kind", "--csv-header", "true"];
    let splits = parsed(&[&given[..], &columns].concat()).unwrap().0.data.open_to_evaluate();
    assert_eq!(splits.unwrap().classes, ["ant", "owl"]);
    assert!(parsed(&given).unwrap().0.data.open().is_err(), "with commas there is one column");
}

#[test]
fn settings_of_a_schedule_are_those_that_were_given() {
    let of = |arguments: &[&str], momentum| {
        let run = schedule::Run { rates: vec![0.5], momentum, maximize: false };
        parsed(arguments).unwrap().0.schedule.build(100, run)
    };
    let same = |arguments: &[&str], momentum, expected: &dyn LrSchedule| {
        let built = of(arguments, momentum).unwrap();
        for step in 0..100 {
            assert_eq!(built.at(step, 0, 0.5).unwrap(), expected.at(step, 0, 0.5).unwrap(), "{arguments:?}, step {step}");
        }
    };
    let one_cycle = ["--schedule", "one-cycle", "--pct-start", "0.4", "--div-factor", "10", "--final-div-factor", "100"];
    let expected = || OneCycleLr::new(0.5, 100).pct_start(0.4).div_factor(10.0).final_div_factor(100.0);
    same(&one_cycle, true, &expected());
    same(&one_cycle, false, &expected().momentum(None));
    let more = ["--anneal", "linear", "--three-phase", "--cycle-momentum", "0.7,0.8"];
    let linear = expected().anneal(Anneal::Linear).three_phase(true).momentum([0.7, 0.8]);
    same(&[&one_cycle[..], &more].concat(), true, &linear);
    let cyclic = ["--schedule", "cyclic", "--min-lr", "0.1", "--step-size", "7", "--step-size-down", "9"];
    let expected = || CyclicLr::new(0.1, 0.5).step_size(7, 9).momentum(None);
    same(&cyclic, true, &expected());
    same(&[&cyclic[..], &["--cycle-mode", "triangular2"]].concat(), true, &expected().mode(CyclicMode::Triangular2));
    let range = ["--cycle-mode", "exp-range", "--gamma", "0.9", "--cycle-momentum", "0.8,0.9"];
    same(&[&cyclic[..], &range].concat(), true, &expected().mode(CyclicMode::ExpRange(0.9)).momentum([0.8, 0.9]));
    assert!(of(&["--schedule", "cyclic", "--cycle-mode", "exp-range"], true).expect_err("no gamma").to_string().contains("0.999"));
    let restarts = CosineWarmRestarts::new(10).multiplier(2);
    same(&["--schedule", "cosine-restarts", "--restart-factor", "2"], false, &restarts);
    assert!(of(&["--cycle-momentum", "0.8"], true).expect_err("one number").to_string().contains("two numbers"));
    let unit = |arguments: &[&str], usual| parsed(arguments).unwrap().0.run.average_unit(usual);
    assert_eq!(unit(&["--ema", "0.9"], Every::Step), Every::Step);
    assert_eq!(unit(&["--ema", "0.9", "--average-unit", "epoch"], Every::Step), Every::Epoch);
    assert_eq!(unit(&["--swa-from", "2", "--average-unit", "step"], Every::Epoch), Every::Step);
    assert!(parsed(&["--average-unit", "epoch"]).is_err() && parsed(&["--swa-from", "2", "--ema-from", "2"]).is_err());
}

/// Keeps the steps and the names of what is logged.
#[derive(Clone, Default)]
struct Names(Arc<Mutex<Vec<(u64, String)>>>);

impl Logger for Names {
    fn log(&mut self, step: u64, values: &[(&str, LogValue<'_>)]) -> convnet::Result<()> {
        self.0.lock().unwrap().extend(values.iter().map(|(name, _)| (step, name.to_string())));
        Ok(())
    }

    fn rewind(&mut self, _: u64) -> convnet::Result<()> {
        Ok(())
    }
}

#[test]
fn metrics_histograms_and_diagnoses_are_added_to_a_run() {
    convnet::manual_seed(0);
    let model = Sequential::new().push(Flatten).push_named("hidden", Linear::new(64, 16)).push_named("act", ReLU).push(Linear::new(16, 10));
    let scores = ["f1", "precision", "recall", "auc", "average-precision", "top5"];
    let options = parsed(&["--metric", &scores.join(","), "--log-histograms", "10", "--diagnose", "7"]).unwrap().0.watch;
    let (names, batch) = (Names::default(), LastBatch::default());
    let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).log(names.clone()).log_every(0).progress(false);
    let trainer = options.add_to(trainer, 10, &batch, false);
    let (train, valid) = (DataLoader::new(Digits::train(), 64).shuffle(0), DataLoader::new(Digits::test(), 64));
    let report = trainer.fit(&train, &valid, |model, Batch { images, labels }| {
        batch.set(images);
        let logits = model.forward(images)?;
        Ok(Step::new(logits.cross_entropy(labels)?).outputs(&logits.softmax(-1)?, labels))
    });
    let last = report.unwrap().last().unwrap().clone();
    for score in scores {
        let value = last[&format!("valid/{}", score.replace('-', "_"))];
        assert!((0.0..=1.0).contains(&value), "{score}: {value}");
    }
    // The class is among five of ten.
    assert!(last["valid/top5"] > 0.6 && last["valid/auc"] > 0.6, "{last:?}");
    let logged = names.0.lock().unwrap();
    let steps = |wanted: &str| logged.iter().filter(|(_, name)| name == wanted).map(|(step, _)| *step).collect::<Vec<_>>();
    assert_eq!(steps("weights/hidden.weight"), [10, 20]);
    assert_eq!(steps("gradients/hidden.bias"), [10, 20]);
    assert_eq!(steps("update_ratio/hidden.weight"), [7, 14, 21]);
    assert_eq!(steps("dead_relus/act"), [23]);

    assert_eq!(batch.non_finite(&model), None);
    model.parameters()[0].set(&Tensor::full([16, 64], f64::NAN, convnet::DType::F32)).unwrap();
    let found = batch.non_finite(&model).expect("all outputs are NaN");
    assert!(found.starts_with("hidden (Linear") && found.contains("NaN"), "{found}");
}
