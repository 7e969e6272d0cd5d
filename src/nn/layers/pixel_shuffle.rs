//! Layers that exchange channels for positions and for one another.

use crate::nn::module::layer::LayerPath;
use crate::nn::module::macros::stateless;

/// [`Tensor::pixel_shuffle`](crate::Tensor::pixel_shuffle) as a layer: the last step of sub-pixel
/// convolution (Shi et al., 2016).
///
/// ```
/// use convnet::nn::PixelShuffle;
/// use convnet::prelude::*;
///
/// let upscale = Sequential::new().push(Conv2d::new(64, 3 * 4, 3).padding(1)).push(PixelShuffle::new(2));
/// assert_eq!(upscale.forward(&Tensor::zeros([1, 64, 10, 10]))?.shape(), [1, 3, 20, 20]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Debug)]
pub struct PixelShuffle {
    factor: usize,
    path: LayerPath,
}

impl PixelShuffle {
    /// Creates the layer that makes height and width `factor` times larger.
    pub fn new(factor: usize) -> PixelShuffle {
        PixelShuffle { factor, path: LayerPath::new() }
    }
}

/// [`Tensor::pixel_unshuffle`](crate::Tensor::pixel_unshuffle) as a layer, the inverse of
/// [`PixelShuffle`].
#[derive(Debug)]
pub struct PixelUnshuffle {
    factor: usize,
    path: LayerPath,
}

impl PixelUnshuffle {
    /// Creates the layer that makes height and width `factor` times smaller.
    pub fn new(factor: usize) -> PixelUnshuffle {
        PixelUnshuffle { factor, path: LayerPath::new() }
    }
}

/// [`Tensor::channel_shuffle`](crate::Tensor::channel_shuffle) as a layer, which mixes the groups
/// of a grouped convolution (Zhang et al., *ShuffleNet*, 2017).
#[derive(Debug)]
pub struct ChannelShuffle {
    groups: usize,
    path: LayerPath,
}

impl ChannelShuffle {
    /// Creates the layer for this many groups of channels.
    pub fn new(groups: usize) -> ChannelShuffle {
        ChannelShuffle { groups, path: LayerPath::new() }
    }
}

stateless! {
    ChannelShuffle { groups }, |layer| format!("ChannelShuffle {}", layer.groups), |x| x.channel_shuffle(layer.groups);
    PixelShuffle { factor }, |layer| format!("PixelShuffle {}", layer.factor), |x| x.pixel_shuffle(layer.factor);
    PixelUnshuffle { factor }, |layer| format!("PixelUnshuffle {}", layer.factor), |x| x.pixel_unshuffle(layer.factor);
}
