//! A step of a registered model, or of the network in an ONNX file: a forward pass in evaluation,
//! or a training step.

use convnet::nn::Module;
use convnet::optim::{Optimizer, Sgd};
use convnet::{Error, MemoryFormat, Result, Tensor, models, no_grad};

/// A registered model, or the network in an ONNX file, and the images that it takes.
pub struct Network {
    pub model: Box<dyn Module>,
    pub channels: usize,
    /// Height and width.
    pub size: [usize; 2],
    /// Whether images of other sizes are not for it.
    pub fixed: bool,
    /// The classes, if the model says how many there are.
    classes: Option<usize>,
}

impl Network {
    /// Makes a model of `classes`, by default 10 for grey and 32×32 images, else 1000. A name that
    /// ends with `.onnx` is that of a file.
    pub fn new(name: &str, classes: Option<usize>) -> Result<Network> {
        #[cfg(feature = "onnx")]
        if name.ends_with(".onnx") {
            return Network::from_file(name);
        }
        let [channels, height, width] = models::info(name)?.input;
        let fixed = channels == 1 || height == 32;
        let classes = classes.unwrap_or(if fixed { 10 } else { 1000 });
        let model = models::create(name, classes)?;
        Ok(Network { model, channels, size: [height, width], fixed, classes: Some(classes) })
    }

    #[cfg(feature = "onnx")]
    fn from_file(name: &str) -> Result<Network> {
        let network = convnet::onnx::import(name)?;
        let shape = network.inputs().next().and_then(|input| input.shape.clone()).unwrap_or_default();
        let &[_, channels, height, width] = shape.as_slice() else {
            return Err(Error::other(format!("{name}: expected an input of images [N, C, H, W], got {shape:?}")));
        };
        let size = [height, width].map(|side| side.unwrap_or(224));
        Ok(Network {
            model: Box::new(network),
            channels: channels.unwrap_or(3),
            size,
            fixed: height.is_some() || width.is_some(),
            classes: None,
        })
    }
}

/// A network and images for it.
pub struct Subject {
    model: Box<dyn Module>,
    images: Tensor,
    classes: usize,
}

impl Subject {
    /// Makes `batch` images of the network's own size, or of `size` if it takes that.
    pub fn new(name: &str, batch: usize, size: Option<usize>, classes: Option<usize>) -> Result<Subject> {
        let Network { model, channels, size: own, fixed, classes } = Network::new(name, classes)?;
        if fixed && size.is_some() {
            return Err(Error::msg(format_args!("{name} takes {}×{} only: leave --size out", own[0], own[1])));
        }
        let [height, width] = size.map_or(own, |size| [size, size]);
        let images = Tensor::randn([batch, channels, height, width]).to_memory_format(MemoryFormat::ChannelsLast)?;
        let classes = match classes {
            Some(classes) => classes,
            // A file need not say it.
            None => no_grad(|| model.forward(&images))?.shape().get(1).copied().unwrap_or(1),
        };
        Ok(Subject { model, images, classes })
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
        let (model, images, labels) = self.into_parts()?;
        model.train();
        let mut optimizer = Sgd::new(model.parameters(), 1e-3).momentum(0.9).weight_decay(1e-4);
        Ok(move || optimizer.step(&model.forward(&images)?.cross_entropy(&labels)?.backward()?))
    }

    /// The model, the images and a class for each.
    pub fn into_parts(self) -> Result<(Box<dyn Module>, Tensor, Tensor)> {
        let batch = self.images.shape()[0];
        let labels: Vec<i64> = (0..batch).map(|i| (i * 7919 % self.classes.max(1)) as i64).collect();
        Ok((self.model, self.images, Tensor::from_vec(labels, [batch])?))
    }
}
