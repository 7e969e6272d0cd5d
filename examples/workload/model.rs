//! A step of a registered model, or of the network in an ONNX file: a forward pass in evaluation,
//! or a training step.

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
    ///
    /// The name of an ONNX file stands for its network; images have the size that the file wants,
    /// or `size`, or 224.
    pub fn new(name: &str, batch: usize, size: Option<usize>, classes: Option<usize>) -> Result<Subject> {
        #[cfg(feature = "onnx")]
        if name.ends_with(".onnx") {
            return Subject::from_file(name, batch, size);
        }
        let [channels, mut height, mut width] = models::info(name)?.input;
        let small = channels == 1 || height == 32;
        if let Some(size) = size.filter(|_| !small) {
            (height, width) = (size, size);
        }
        let classes = classes.unwrap_or(if small { 10 } else { 1000 });
        let images = Tensor::randn([batch, channels, height, width]).to_memory_format(MemoryFormat::ChannelsLast)?;
        Ok(Subject { model: models::create(name, classes)?, images, classes })
    }

    #[cfg(feature = "onnx")]
    fn from_file(name: &str, batch: usize, size: Option<usize>) -> Result<Subject> {
        let network = convnet::onnx::import(name)?;
        let shape = network.inputs().next().and_then(|input| input.shape.clone()).unwrap_or_default();
        let &[_, channels, height, width] = shape.as_slice() else {
            return Err(convnet::Error::other(format!("{name}: expected an input of images [N, C, H, W], got {shape:?}")));
        };
        let side = |fixed: Option<usize>| fixed.or(size).unwrap_or(224);
        let images =
            Tensor::randn([batch, channels.unwrap_or(3), side(height), side(width)]).to_memory_format(MemoryFormat::ChannelsLast)?;
        // From what it computes, since a file need not say it.
        let classes = no_grad(|| network.forward(&images))?.shape().get(1).copied().unwrap_or(1);
        Ok(Subject { model: Box::new(network), images, classes })
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
