//! A network learns: the whole way from the data to the accuracy.

use convnet::data::{Batch, DataLoader, Digits, Normalize, Resize};
use convnet::models::lenet5;
use convnet::nn::Module;
use convnet::optim::{OneCycleLr, Optimizer, Schedule, Sgd};
use convnet::train::{Metrics, evaluate};
use convnet::{Error, Result};

fn digits(set: Digits) -> DataLoader {
    DataLoader::new(set, 64).transform(Resize::new([28, 28])).transform(Normalize::new([0.3], [0.35]))
}

/// Trains a LeNet on the digits and returns its accuracy on those it has not seen.
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
fn a_learning_rate_beyond_reason_ends_in_an_error_that_says_so() {
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
