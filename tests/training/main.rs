//! Training from the data to the accuracy.

// Parts of the examples, of which not all is used here.
#[cfg(feature = "image")]
#[path = "../../examples/common/mod.rs"]
mod common;
#[cfg(feature = "image")]
#[path = "../../examples/train/distributed.rs"]
#[allow(dead_code)]
mod distributed;
#[cfg(feature = "image")]
mod examples;
mod lenet_cifar;
mod metrics;
#[cfg(feature = "image")]
#[path = "../../examples/train/options.rs"]
#[allow(dead_code)]
mod options;
#[cfg(feature = "image")]
#[path = "../../examples/train/watching.rs"]
#[allow(dead_code)]
mod watching;

use convnet::data::{Batch, DataLoader, Digits, Normalize, Resize};
use convnet::models::{CondenseNet, CondenseNetConfig, ModelOptions, lenet5};
use convnet::nn::{Module, ModuleExt, StateDict};
use convnet::optim::{LrSchedule, OneCycleLr, Optimizer, Sgd};
use convnet::train::metrics::{ClassScore, ConfusionMatrix};
use convnet::train::{
    EarlyStopping, Ema, LrRangeTest, Mean, Metric, Metrics, Swa, WeightAverage, evaluate, update_batch_norm, with_average,
};
use convnet::{Error, Result, Tensor, no_grad};

fn digits(set: Digits) -> DataLoader {
    DataLoader::new(set, 64).transform(Resize::new([28, 28])).transform(Normalize::new([0.3], [0.35]))
}

/// Trains a LeNet on the digits and returns its accuracy on the test digits.
fn train(lr: f64, epochs: u64) -> Result<f64> {
    convnet::manual_seed(1);
    let (train, model) = (digits(Digits::train()).shuffle(1).workers(1), lenet5(10));
    let mut optimizer = Sgd::new(model.parameters(), lr).momentum(0.9);
    let mut schedule = OneCycleLr::new(lr, epochs * train.len() as u64).attach(&mut optimizer)?;
    for epoch in 0..epochs {
        let mut metrics = Metrics::default();
        for batch in train.epoch(epoch) {
            let Batch { images, labels } = batch?;
            let logits = model.forward(&images)?;
            let loss = logits.cross_entropy(&labels)?;
            metrics.add(&loss, &logits, &labels)?;
            optimizer.step(&loss.backward()?)?;
            schedule.step(&mut optimizer)?;
        }
    }
    Ok(evaluate(&model, &digits(Digits::test()))?.accuracy())
}

#[test]
fn lenet_learns_the_digits_in_twelve_epochs() {
    // Guessing gives 0.1.
    let accuracy = train(0.07, 12).unwrap();
    assert!(accuracy >= 0.9, "{accuracy}");
}

#[test]
fn pieces_of_a_trainer_work_in_a_loop_written_by_hand_on_a_boxed_model() -> Result<()> {
    convnet::manual_seed(2);
    let model = convnet::models::create("cifar_resnet20", 10)?;
    let loader = || DataLoader::new(Digits::train(), 16).shuffle(3).transform(Resize::new([8, 8])).transform(Normalize::new([0.3], [0.35]));
    // Pictures of one channel, for a network of three.
    let images = |batch: Batch| batch.images.expand([batch.labels.shape()[0], 3, 8, 8]);
    let batches = || loader().epoch(0).take(8).map(|batch| batch.and_then(|batch| Ok((batch.labels.clone(), images(batch)?))));
    let loss = |model: &dyn Module, (labels, images): (Tensor, Tensor)| model.forward(&images)?.cross_entropy(&labels);
    let mut optimizer = Sgd::new(model.parameters(), 0.05).momentum(0.9);
    let untrained = model.state_dict();
    let range = LrRangeTest::new(1e-3, 10.0, 8).run(&*model, &mut optimizer, batches(), loss)?;
    assert!(range.rates().len() > 1 && model.state_dict().difference(&untrained)?.is_empty());

    let (mut ema, mut swa) = (Ema::new(0.9).warmup(), Swa::new());
    let mut stopping = EarlyStopping::on("train/loss").patience(2);
    let (mut mean, mut matrix) = (Mean::default(), ConfusionMatrix::new(10));
    for batch in batches() {
        let (labels, images) = batch?;
        let logits = model.forward(&images)?;
        let loss = logits.cross_entropy(&labels)?;
        optimizer.step(&loss.backward()?)?;
        ema.update(&model)?;
        swa.update(&model)?;
        mean.update(loss.item::<f32>()?.into(), labels.numel());
        matrix.update(&logits, &labels)?;
    }
    assert!(!stopping.update(mean.value()) && mean.weight() == 128.0 && matrix.samples() == 128);
    assert!(matrix.score(ClassScore::f1(10))?.value().is_finite());
    let trained = model.state_dict();
    for average in [&mut ema as &mut dyn WeightAverage, &mut swa] {
        let inside = with_average(average, &model, || {
            update_batch_norm(&model, batches().map(|batch| Ok(batch?.1)))?;
            Ok(model.state_dict())
        })?;
        assert!(!inside.difference(&trained)?.is_empty());
        assert!(model.state_dict().difference(&trained)?.is_empty());
        // The statistics of the averaged weights stay with the average.
        assert!(average.state_dict()?.difference(&inside)?.changed.is_empty());
    }
    Ok(())
}

#[test]
fn a_learning_rate_that_is_too_high_ends_in_an_error_that_says_so() {
    let error = train(1e6, 2).unwrap_err();
    assert!(matches!(error, Error::Training(_)), "{error}");
    let message = error.to_string();
    assert!(message.contains("loss of batch") && message.contains("learning rate"), "{message}");
}

#[test]
fn a_trained_model_is_the_same_after_saving_and_loading() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lenet.safetensors");
    let (saved, loaded) = (lenet5(10), lenet5(10));
    saved.save(&path).unwrap();
    loaded.load(&path).unwrap();
    let x = convnet::Tensor::randn([2, 1, 28, 28]);
    let (a, b) = (saved.forward(&x).unwrap(), loaded.forward(&x).unwrap());
    assert_eq!(a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());

    let error = saved.save(dir.path()).unwrap_err().to_string();
    assert!(error.contains(&*dir.path().to_string_lossy()), "{error}");
}

/// The share of inputs that the groups of each learned group convolution use.
fn shares(model: &CondenseNet) -> Vec<f64> {
    let share = |mask: &Tensor| mask.mean(..).unwrap().item::<f32>().unwrap();
    model.learned_convs().map(|conv| f64::from(share(&conv.mask.tensor()))).collect()
}

#[test]
fn a_condensenet_trains_through_its_stages_and_keeps_its_logits_when_it_is_converted() {
    convnet::manual_seed(1);
    let config = CondenseNetConfig { blocks: &[(3, 8), (3, 16)], bottleneck: 4, groups: 4, condense_factor: 4, stride: 1 };
    let options = ModelOptions::new(10).input_channels(1);
    let mut model = CondenseNet::new(&config, options);
    let load = |set| DataLoader::new(set, 64).transform(Normalize::new([0.3], [0.35]));
    let (train, test) = (load(Digits::train()).shuffle(1), load(Digits::test()));
    let (lr, epochs) = (0.1, 12);
    let mut optimizer = Sgd::new(model.parameters(), lr).momentum(0.9).weight_decay(1e-4);
    let mut schedule = OneCycleLr::new(lr, epochs * train.len() as u64).attach(&mut optimizer).unwrap();
    let mut seen = vec![];
    for epoch in 0..epochs {
        model.set_progress(epoch as f64 / epochs as f64).unwrap();
        let stage = model.learned_convs().next().unwrap().current_stage().unwrap();
        assert_eq!(shares(&model), [1.0 - stage as f64 / 4.0; 6], "epoch {epoch}");
        seen.push(stage);
        for batch in train.epoch(epoch) {
            let Batch { images, labels } = batch.unwrap();
            let loss = model.forward(&images).unwrap().cross_entropy(&labels).unwrap();
            let loss = loss.add(&model.group_lasso().unwrap().mul_scalar(1e-4)).unwrap();
            optimizer.step(&loss.backward().unwrap()).unwrap();
            schedule.step(&mut optimizer).unwrap();
        }
    }
    assert_eq!(seen, [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3]);
    let accuracy = evaluate(&model, &test).unwrap().accuracy();
    assert!(accuracy >= 0.95, "{accuracy}");

    model.eval();
    let images = test.epoch(0).next().unwrap().unwrap().images;
    let logits = |model: &CondenseNet| no_grad(|| model.forward(&images)).unwrap().to_vec::<f32>().unwrap();
    let (learned, parameters) = (logits(&model), model.num_parameters());
    let candidates: usize = model.learned_convs().map(|conv| conv.conv.weight.numel()).sum();
    model.convert().unwrap();
    let condensed = logits(&model);
    let largest = learned.iter().fold(0f32, |m, x| m.max(x.abs()));
    let difference = learned.iter().zip(&condensed).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    // Sums without the zeros, so in another order: some roundings, over seven layers.
    assert!(difference <= 1e-5 * largest, "logits up to {largest} differ by {difference}");
    assert_eq!(evaluate(&model, &test).unwrap().accuracy(), accuracy);
    // Each output has a quarter of its inputs left.
    assert_eq!(model.num_parameters(), parameters - candidates / 4 * 3);
    println!("accuracy {accuracy}, {} of {parameters} parameters, logits within {}", model.num_parameters(), difference / largest);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("condensed.safetensors");
    model.save(&path).unwrap();
    let loaded = CondenseNet::condensed(&config, options);
    loaded.load_state_dict(&StateDict::load(&path).unwrap()).unwrap();
    loaded.eval();
    assert_eq!(logits(&loaded), condensed);
}
