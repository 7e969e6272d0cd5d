//! Network in Network (Lin, Chen & Yan, 2013).
//!
//! Two 1×1 convolutions follow each convolution: together they apply a small dense network at every
//! position of the image, in place of a linear filter ("mlpconv"). The last one has one map for
//! each class; the means of these maps are the logits, in place of dense layers. This is the
//! authors' network for ImageNet. [`nin_maxout`] has maxout units (Goodfellow et al., *Maxout
//! Networks*, 2013) of two pieces in place of each ReLU.

use super::options::ModelOptions;
use crate::error::Result;
use crate::nn::init::{Init, initialise};
use crate::nn::{Conv2d, Dropout, MaxPool2d, Maxout, Module, ReLU, Sequential, Visitor, block};
use crate::nn::{Copier, Parts, PartsMut};
use crate::tensor::Tensor;
use crate::visit_fields;

/// Network in Network; see [`nin`] and [`nin_maxout`].
pub struct Nin {
    /// Four mlpconv blocks; the output has one map for each class.
    pub features: Sequential,
}

/// A convolution and two 1×1 convolutions, each with its activation (Lin et al., 2013, fig. 1b):
/// maxout of `pieces` pieces, or ReLU when `pieces` is 1.
///
/// # Shape
/// `[N, inputs, H, W]` to `[N, widths[2], H', W']`, with the size of the first convolution's
/// output.
pub struct MlpConv {
    layers: Sequential,
}

impl MlpConv {
    /// Creates a block. `spatial` creates its first convolution for a number of output channels;
    /// `widths` are those after the activations.
    pub fn new(spatial: impl Fn(usize) -> Conv2d, widths: [usize; 3], pieces: usize) -> MlpConv {
        let [first, second, third] = widths;
        let maps = |width: usize| width.saturating_mul(pieces);
        let layers = Sequential::new();
        let layers = with_nonlinearity(layers.push(spatial(maps(first))), pieces);
        let layers = with_nonlinearity(layers.push(Conv2d::new(first, maps(second), 1)), pieces);
        MlpConv { layers: with_nonlinearity(layers.push(Conv2d::new(second, maps(third), 1)), pieces) }
    }
}

fn with_nonlinearity(layers: Sequential, pieces: usize) -> Sequential {
    if pieces == 1 { layers.push(ReLU) } else { layers.push(Maxout::new(pieces)) }
}

impl Module for MlpConv {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || self.layers.forward(x))
    }

    // State-dict keys contain the names of the layers but no name for the block.
    fn visit(&self, v: &mut Visitor<'_>) {
        let MlpConv { layers } = self;
        layers.visit(v);
    }

    fn parts<'m>(&'m self, parts: &mut Parts<'m>) {
        self.layers.parts(parts);
    }

    fn parts_mut<'m>(&'m mut self, parts: &mut PartsMut<'m>) {
        self.layers.parts_mut(parts);
    }

    fn copy_with(&self, copier: &mut Copier) -> Result<Box<dyn Module>> {
        Ok(Box::new(MlpConv { layers: copier.field(&self.layers)? }))
    }
}

/// Creates the authors' Network in Network for ImageNet, with their initialisation: standard
/// deviation 0.01 for the first and last block's convolutions, 0.05 for the others, and biases of
/// 0.
///
/// ```
/// use convnet::{models::nin, nn::Module};
///
/// // An eighth of AlexNet's.
/// assert_eq!(nin(1000).num_parameters(), 7_595_176);
/// ```
pub fn nin(options: impl Into<ModelOptions>) -> Nin {
    build(1, options.into())
}

/// Creates [`nin`] with maxout units of two pieces in place of ReLUs: each convolution has twice
/// the maps, and the larger of each two is the output.
pub fn nin_maxout(options: impl Into<ModelOptions>) -> Nin {
    build(2, options.into())
}

fn build(pieces: usize, options: ModelOptions) -> Nin {
    let block = |spatial: &dyn Fn(usize) -> Conv2d, widths| MlpConv::new(spatial, widths, pieces);
    let pool = || MaxPool2d::new(3).stride(2).ceil_mode(true);
    let features = Sequential::new() //                                                                  [N, 3, 224, 224]
        .push(block(&|maps| Conv2d::new(options.input_channels, maps, 11).stride(4), [96, 96, 96])) //   [N, 96, 54, 54]
        .push(pool()) //                                                                                 [N, 96, 27, 27]
        .push(block(&|maps| Conv2d::new(96, maps, 5).padding(2), [256, 256, 256])) //                    [N, 256, 27, 27]
        .push(pool()) //                                                                                 [N, 256, 13, 13]
        .push(block(&|maps| Conv2d::new(256, maps, 3).padding(1), [384, 384, 384])) //                   [N, 384, 13, 13]
        .push(pool()) //                                                                                 [N, 384, 6, 6]
        .push(Dropout::new(options.dropout_or(0.5)))
        .push(block(&|maps| Conv2d::new(384, maps, 3).padding(1), [1024, 1024, options.num_classes])); // [N, num_classes, 6, 6]
    initialise(Nin { features }, |at| match (at.name, at.path) {
        ("bias", _) => Some(Init::Constant(0.0)),
        (_, "features.0.0.weight" | "features.7.4.weight") => Some(Init::Normal(0.01)),
        _ => Some(Init::Normal(0.05)),
    })
}

impl Module for Nin {
    /// # Shape
    /// `[N, 3, H, W]` to logits `[N, num_classes]`; images of at least 39×39.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.features.forward(x)?.mean([2, 3])
    }

    visit_fields!(features);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maxout_doubles_the_maps_but_not_the_outputs() {
        let net = nin_maxout(ModelOptions::new(5).input_channels(1));
        assert_eq!(nin_maxout(5).num_parameters() - net.num_parameters(), 2 * 192 * 11 * 11);
        let logits = net.forward(&Tensor::randn([2, 1, 39, 39])).unwrap();
        assert_eq!(logits.shape(), [2, 5]);
        assert!(net.forward(&Tensor::randn([2, 1, 38, 38])).is_err());
    }
}
