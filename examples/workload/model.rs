//! A step of a registered model: a forward pass in evaluation, or a training step.

use convnet::nn::Module;
use convnet::optim::{Optimizer, Sgd};
use convnet::{MemoryFormat, Result, Tensor, models, no_grad};

/// A registered model and images for it.
pub struct Subject {
    model: Box<dyn Module>,
    images: Tensor,
    classes: usize,
}

impl Subject {
    /// Makes `batch` images of the model's own size, or of `size` if it takes that; without
    /// `classes`, 10 for grey and 32×32 images, else 1000.
    pub fn new(name: &str, batch: usize, size: Option<usize>, classes: Option<usize>) -> Result<Subject> {
        let [channels, mut height, mut width] = models::info(name)?.input;
        let small = channels == 1 || height == 32;
        if let Some(size) = size.filter(|_| !small) {
            (height, width) = (size, size);
        }
        let classes = classes.unwrap_or(if small { 10 } else { 1000 });
        let images = Tensor::randn([batch, channels, height, width]).to_memory_format(MemoryFormat::ChannelsLast)?;
        Ok(Subject { model: models::create(name, classes)?, images, classes })
    }

    /// A forward pass in evaluation.
    pub fn inference(self) -> impl FnMut() -> Result<()> {
        let Subject { model, images, .. } = self;
        model.eval();
        move || no_grad(|| model.forward(&images)).map(drop)
    }

    /// A forward pass, cross-entropy, the backward pass, and SGD with momentum 0.9 and weight decay
    /// 1e-4.
    pub fn training(self) -> Result<impl FnMut() -> Result<()>> {
        let Subject { model, images, classes } = self;
        model.train();
        let batch = images.shape()[0];
        let labels: Vec<i64> = (0..batch).map(|i| (i * 7919 % classes.max(1)) as i64).collect();
        let labels = Tensor::from_vec(labels, [batch])?;
        let mut optimizer = Sgd::new(model.parameters(), 1e-3).momentum(0.9).weight_decay(1e-4);
        Ok(move || optimizer.step(&model.forward(&images)?.cross_entropy(&labels)?.backward()?))
    }
}
