//! Fine-tuning: a registered model gets a new head, and only the head is trained.
//!
//! The body keeps its weights, here random ones, since the example downloads nothing; with
//! published weights it is the same program with one more line. Even features of random weights
//! separate most digits.
//!
//! ```sh
//! cargo run --release --example finetune
//! ```

use convnet::data::{Digits, Resize};
use convnet::models;
use convnet::prelude::*;

fn main() -> Result<()> {
    convnet::manual_seed(0);
    let mut model = new_model()?;

    // The body stays as it is: no gradients, and its normalisation uses its running statistics.
    model.freeze("")?;
    model.unfreeze("fc")?;
    model.eval();
    model.try_get("fc")?.train();

    let train = DataLoader::new(Digits::train(), 64).shuffle(0).transform(Resize::new([32, 32]));
    let mut optimizer = Adam::new(model.parameters(), 0.003);
    for epoch in 0..3 {
        let mut last = f32::NAN;
        for batch in train.epoch(epoch).take(10) {
            let Batch { images, labels } = batch?;
            let loss = three_channels(&images)?.apply(&model)?.cross_entropy(&labels)?;
            optimizer.step(&loss.backward()?)?;
            last = loss.item()?;
        }
        println!("epoch {epoch}: loss {last:.3}");
    }

    // What was saved loads into a model with the same head.
    let path = std::env::temp_dir().join(format!("finetuned-{}.safetensors", std::process::id()));
    model.save(&path)?;
    let restored = new_model()?;
    restored.load(&path)?;
    println!("saved and loaded: {}", model.difference(&restored)?);
    std::fs::remove_file(&path).map_err(|source| Error::Io { path, source })?;

    model = restored;
    model.eval();
    let test = DataLoader::new(Digits::test(), 120).transform(Resize::new([32, 32]));
    let (mut right, mut seen) = (0, 0);
    for batch in test.epoch(0) {
        let Batch { images, labels } = batch?;
        let answers: Vec<i64> = no_grad(|| three_channels(&images)?.apply(&model)?.argmax(1)?.to_vec())?;
        right += answers.iter().zip(labels.to_vec::<i64>()?).filter(|&(&answer, label)| answer == label).count();
        seen += answers.len();
    }
    println!("{right} of {seen} test digits right");
    Ok(())
}

/// resnet18 as it is published for ImageNet's thousand classes, with a new head for ten.
fn new_model() -> Result<Box<dyn Module>> {
    let mut model = models::create("resnet18", 1000)?;
    // model.load_state_dict(&convnet::weights::load("resnet18-f37072fd.pth")?)?;
    model.replace("fc", Sequential::new().push(Dropout::new(0.1)).push(Linear::new(512, 10)))?;
    Ok(model)
}

/// `[N, 1, H, W]` to `[N, 3, H, W]`, which the model was made for.
fn three_channels(x: &Tensor) -> Result<Tensor> {
    Tensor::cat(&[x, x, x], 1)
}
