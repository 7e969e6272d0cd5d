//! U-Net (Ronneberger, Fischer & Brox, *U-Net: Convolutional Networks for Biomedical Image
//! Segmentation*, 2015).
//!
//! A contracting side halves the maps and doubles their channels, level by level; an expansive side
//! doubles the maps again and joins at each level those of the contracting side, which know where
//! things are. A last 1×1 convolution gives the scores of the classes of each pixel.
//!
//! Names of parameters are those of [Pytorch-UNet](https://github.com/milesial/Pytorch-UNet), the
//! most used implementation, so that its weights load.

use crate::error::Result;
use crate::nn::init::{Init, initialise};
use crate::nn::{BatchNorm2d, Conv2d, ConvTranspose2d, MaxPool2d, Module, ReLU, Sequential, Upsample, block};
use crate::tensor::Tensor;
use crate::visit_fields;

/// Options of [`unet`]. It takes a plain number of classes, or these:
///
/// ```
/// use convnet::models::{UNetOptions, unet};
///
/// let plain = unet(2);
/// let small = unet(UNetOptions::new(2).input_channels(1).width(16).depth(2).bilinear(true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UNetOptions {
    classes: usize,
    input_channels: usize,
    width: usize,
    depth: usize,
    batch_norm: bool,
    bilinear: bool,
    padded: bool,
}

impl UNetOptions {
    /// Creates options for this many classes, three input channels, 64 channels at the first of
    /// four levels, padded convolutions with batch normalisation and transposed convolutions, as
    /// U-Nets are built today.
    pub fn new(classes: usize) -> UNetOptions {
        UNetOptions { classes, input_channels: 3, width: 64, depth: 4, batch_norm: true, bilinear: false, padded: true }
    }

    /// Creates the options of the paper: one input channel, convolutions without padding or
    /// normalisation.
    pub fn paper(classes: usize) -> UNetOptions {
        UNetOptions::new(classes).input_channels(1).batch_norm(false).padded(false)
    }

    /// Sets the number of input channels.
    pub fn input_channels(mut self, channels: usize) -> UNetOptions {
        self.input_channels = channels;
        self
    }

    /// Sets the number of channels before the first halving; it doubles with each.
    pub fn width(mut self, channels: usize) -> UNetOptions {
        self.width = channels;
        self
    }

    /// Sets how many times the maps are halved.
    pub fn depth(mut self, halvings: usize) -> UNetOptions {
        self.depth = halvings;
        self
    }

    /// Sets whether batch normalisation follows each 3×3 convolution, which then has no bias.
    pub fn batch_norm(mut self, batch_norm: bool) -> UNetOptions {
        self.batch_norm = batch_norm;
        self
    }

    /// Sets whether maps are doubled by bilinear interpolation instead of a transposed convolution,
    /// which also halves the channels of the lowest level.
    pub fn bilinear(mut self, bilinear: bool) -> UNetOptions {
        self.bilinear = bilinear;
        self
    }

    /// Sets whether 3×3 convolutions are padded, so that the result has the input's size. Those of
    /// the paper are not: its result lacks a margin, 92 pixels wide for its four levels.
    pub fn padded(mut self, padded: bool) -> UNetOptions {
        self.padded = padded;
        self
    }

    /// Returns the number of channels of the contracting side after this many halvings.
    fn channels(&self, halvings: usize) -> usize {
        let factor = halvings.try_into().ok().and_then(|halvings| 1usize.checked_shl(halvings)).unwrap_or(usize::MAX);
        self.width.saturating_mul(factor)
    }

    /// Returns the number of channels of the maps that are doubled to those after this many
    /// halvings less one: interpolation does not halve them.
    fn channels_below(&self, halvings: usize) -> usize {
        if self.bilinear && halvings > 0 { self.channels(halvings) / 2 } else { self.channels(halvings) }
    }
}

impl From<usize> for UNetOptions {
    fn from(classes: usize) -> UNetOptions {
        UNetOptions::new(classes)
    }
}

/// Two 3×3 convolutions, each with ReLU, and batch normalisation before it if requested.
///
/// # Shape
/// `[N, inputs, H, W]` to `[N, outputs, H, W]`, or `[N, outputs, H - 4, W - 4]` without padding.
pub struct DoubleConv {
    /// The layers, in order.
    pub double_conv: Sequential,
}

impl DoubleConv {
    /// Creates a block with `between` channels after the first convolution.
    pub fn new([inputs, between, outputs]: [usize; 3], options: &UNetOptions) -> DoubleConv {
        let mut layers = Sequential::new();
        for [from, to] in [[inputs, between], [between, outputs]] {
            let padding = usize::from(options.padded);
            layers = layers.push(Conv2d::new(from, to, 3).padding(padding).bias(!options.batch_norm));
            if options.batch_norm {
                layers = layers.push(BatchNorm2d::new(to));
            }
            layers = layers.push(ReLU);
        }
        DoubleConv { double_conv: layers }
    }
}

impl Module for DoubleConv {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || self.double_conv.forward(x))
    }

    visit_fields!(double_conv);
}

/// A level of the contracting side: 2×2 max pooling and a [`DoubleConv`].
pub struct Down {
    /// Pooling, then the convolutions.
    pub maxpool_conv: Sequential,
}

impl Down {
    /// Creates a level.
    pub fn new(inputs: usize, outputs: usize, options: &UNetOptions) -> Down {
        let conv = DoubleConv::new([inputs, outputs, outputs], options);
        Down { maxpool_conv: Sequential::new().push(MaxPool2d::new(2)).push(conv) }
    }
}

impl Module for Down {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || self.maxpool_conv.forward(x))
    }

    visit_fields!(maxpool_conv);
}

/// A level of the expansive side: doubles the maps, joins those of the contracting side, and runs a
/// [`DoubleConv`] on both.
pub struct Up {
    /// A 2×2 transposed convolution of stride 2 to half the channels, or bilinear interpolation.
    pub up: Box<dyn Module>,
    /// The convolutions after the maps are joined.
    pub conv: DoubleConv,
    /// The channels of the contracting side at this level.
    skip_channels: usize,
}

impl Up {
    /// Creates a level that gets maps with `inputs` channels from below and with `skip_channels`
    /// from the contracting side.
    pub fn new(inputs: usize, skip_channels: usize, outputs: usize, options: &UNetOptions) -> Up {
        let (up, doubled): (Box<dyn Module>, _) = if options.bilinear {
            (Box::new(Upsample::new(2).bilinear(true)), inputs)
        } else {
            (Box::new(ConvTranspose2d::new(inputs, inputs / 2, 2).stride(2)), inputs / 2)
        };
        let joined = skip_channels.saturating_add(doubled);
        let between = if options.bilinear { joined / 2 } else { outputs };
        Up { up, conv: DoubleConv::new([joined, between, outputs], options), skip_channels }
    }

    /// Runs the level on the maps from below and those of the contracting side. Of these the middle
    /// is taken when they are larger because convolutions have no padding. When pooling has left
    /// out an odd row or column, zeros take its place.
    ///
    /// # Shape
    /// `[N, inputs, h, w]` and `[N, skip_channels, H, W]`, with `H ≥ 2h` and `W ≥ 2w`, to
    /// `[N, outputs, H, W]`, or `[N, outputs, 2h - 4, 2w - 4]` without padding.
    ///
    /// # Errors
    /// [`Error::Layer`](crate::Error::Layer) for maps that do not fit.
    pub fn forward_with(&self, x: &Tensor, skip: &Tensor) -> Result<Tensor> {
        block(self, || {
            let x = self.up.forward(x)?;
            let (&[.., h, w], &[.., height, width]) = (x.shape(), skip.shape()) else {
                return Tensor::cat(&[skip, &x], 1);
            };
            let (down, across) = (height.saturating_sub(h), width.saturating_sub(w));
            let joined = match (down, across) {
                (0, 0) => Tensor::cat(&[skip, &x], 1)?,
                (0 | 1, 0 | 1) => Tensor::cat(&[skip, &x.pad([0, across, 0, down], 0.0)?], 1)?,
                _ => {
                    let skip = skip.narrow(2, down / 2, h.min(height))?.narrow(3, across / 2, w.min(width))?;
                    Tensor::cat(&[&skip, &x], 1)?
                }
            };
            self.conv.forward(&joined)
        })
    }
}

impl Module for Up {
    /// Runs the level with zeros in place of the maps of the contracting side.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = self.up.forward(x)?.shape().to_vec();
        if let Some(channels) = shape.get_mut(1) {
            *channels = self.skip_channels;
        }
        self.forward_with(x, &Tensor::try_full(&shape, 0.0, x.dtype())?)
    }

    visit_fields!(up, conv, skip skip_channels);
}

/// A network that gives a score to each class at each pixel, with the paper's initialisation:
/// normal with a variance of 2 / fan-in for convolutions (He et al., 2015), biases 0.
///
/// ```
/// use convnet::models::{UNetOptions, unet};
/// use convnet::nn::{Module, ModuleExt};
///
/// // The paper's figure 1.
/// let net = unet(UNetOptions::paper(2));
/// assert_eq!(net.num_parameters(), 31_030_658);
/// assert_eq!(net.summary([1, 1, 572, 572])?.rows[0].output, Some(vec![1, 2, 388, 388]));
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct UNet {
    /// The first two convolutions.
    pub inc: DoubleConv,
    /// The levels of the contracting side, named `down1`, `down2`, ….
    pub downs: Vec<Down>,
    /// The levels of the expansive side, named `up1`, `up2`, …, the lowest first.
    pub ups: Vec<Up>,
    /// The 1×1 convolution to the classes, named `conv`.
    pub outc: Sequential,
}

/// Creates a U-Net; see [`UNet`]. It is not in the registry, whose networks are classifiers.
pub fn unet(options: impl Into<UNetOptions>) -> UNet {
    UNet::new(options)
}

impl UNet {
    /// Creates a network with new weights.
    pub fn new(options: impl Into<UNetOptions>) -> UNet {
        let options = options.into();
        let (width, depth) = (options.width, options.depth);
        // The lowest level is the first that is doubled.
        let outputs = |level| if level == depth { options.channels_below(level) } else { options.channels(level) };
        let net = UNet {
            inc: DoubleConv::new([options.input_channels, width, width], &options),
            downs: (1..=depth).map(|level| Down::new(options.channels(level - 1), outputs(level), &options)).collect(),
            ups: (0..depth)
                .rev()
                .map(|level| Up::new(options.channels_below(level + 1), options.channels(level), options.channels_below(level), &options))
                .collect(),
            outc: Sequential::new().push_named("conv", Conv2d::new(width, options.classes, 1)),
        };
        initialise(net, |at| match (at.layer, at.name) {
            ("Conv2d" | "ConvTranspose2d", "weight") => Some(Init::kaiming_fan_in(at.shape)),
            ("Conv2d" | "ConvTranspose2d", "bias") => Some(Init::Constant(0.0)),
            _ => None,
        })
    }
}

impl Module for UNet {
    /// # Shape
    /// `[N, input_channels, H, W]` to scores `[N, classes, H, W]`; without padding they lack a
    /// margin (572×572 become 388×388), and sizes have to be even before each halving for all
    /// pixels to count.
    ///
    /// # Errors
    /// [`Error::Layer`](crate::Error::Layer) from the layer that cannot accept its input.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // [N, 1, 572, 572], of the paper's network
        let mut x = self.inc.forward(x)?; // [N, 64, 568, 568]
        let mut skips = vec![];
        for down in &self.downs {
            let below = down.forward(&x)?; // [N, 128, 280, 280], …, [N, 1024, 28, 28]
            skips.push(std::mem::replace(&mut x, below));
        }
        for (up, skip) in self.ups.iter().zip(skips.iter().rev()) {
            x = up.forward_with(&x, skip)?; // [N, 512, 52, 52], …, [N, 64, 388, 388]
        }
        self.outc.forward(&x) // [N, classes, 388, 388]
    }

    visit_fields!(inc, each downs => |i| format!("down{}", i + 1), each ups => |i| format!("up{}", i + 1), outc);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> UNetOptions {
        UNetOptions::new(3).input_channels(2).width(4).depth(2)
    }

    #[test]
    fn the_number_of_parameters_is_that_of_pytorch_unet() {
        // Pytorch-UNet with 3 channels and 2 classes, without and with interpolation.
        assert_eq!(unet(2).num_parameters(), 31_037_698);
        assert_eq!(unet(UNetOptions::new(2).bilinear(true)).num_parameters(), 17_263_042);
    }

    #[test]
    fn padded_networks_keep_any_size_that_is_large_enough() {
        for options in [small(), small().bilinear(true), small().batch_norm(false), small().depth(0)] {
            for [height, width] in [[8, 8], [9, 14], [4, 7]] {
                let y = unet(options).forward(&Tensor::randn([2, 2, height, width])).unwrap();
                assert_eq!(y.shape(), [2, 3, height, width], "{options:?}");
            }
        }
        let error = unet(small()).forward(&Tensor::randn([1, 2, 3, 8])).unwrap_err().to_string();
        assert!(error.contains("down2"), "{error}");
    }

    #[test]
    fn networks_without_padding_lack_a_margin() {
        // 2 · 2 pixels for each pair of convolutions, times the halvings before it.
        let y = unet(small().padded(false)).forward(&Tensor::randn([1, 2, 44, 60])).unwrap();
        assert_eq!(y.shape(), [1, 3, 4, 20]);
    }

    #[test]
    fn a_level_without_its_shortcut_is_one_with_zeros() {
        let (net, x) = (unet(small()), Tensor::randn([1, 16, 3, 2]));
        let alone = net.ups[0].forward(&x).unwrap();
        assert_eq!(alone, net.ups[0].forward_with(&x, &Tensor::zeros([1, 8, 6, 4])).unwrap());
        assert_ne!(alone, net.ups[0].forward_with(&x, &Tensor::ones([1, 8, 6, 4])).unwrap());
    }

    #[test]
    fn a_pixel_changes_those_within_the_receptive_field() {
        // With some weights all rectifiers at the pixel are off.
        crate::manual_seed(0);
        let net = unet(small());
        net.eval();
        let mut values = vec![0f32; 2 * 64 * 64];
        let plain = net.forward(&Tensor::from_slice(&values, [1, 2, 64, 64]).unwrap()).unwrap();
        values[32 * 64 + 32] = 1.0;
        let changed = net.forward(&Tensor::from_slice(&values, [1, 2, 64, 64]).unwrap()).unwrap();
        let difference = changed.sub(&plain).unwrap().abs().sum([0, 1]).unwrap().to_vec::<f32>().unwrap();
        assert!(difference[32 * 64 + 32] > 0.0 && difference[0] == 0.0, "{} {}", difference[32 * 64 + 32], difference[0]);
    }
}
