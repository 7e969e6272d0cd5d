//! GoogLeNet (Szegedy et al., *Going Deeper with Convolutions*, 2014).
//!
//! Nine Inception blocks: each applies windows of several sizes to its input in parallel, after 1×1
//! convolutions that reduce the channels, so that width and depth are cheap. In training, two
//! auxiliary heads feed gradients into the middle of the network. This is torchvision's form, which
//! normalises after each convolution, as Ioffe & Szegedy (2015) do, and, like its checkpoints, has
//! 3×3 windows in place of the paper's 5×5.

use super::options::ModelOptions;
use crate::error::Result;
use crate::nn::init::{Init, initialise};
use crate::nn::{BatchNorm2d, Conv2d, Dropout, Linear, Module, block, conv_bn_relu};
use crate::ops::{CrossEntropyOptions, Pool2dOptions};
use crate::tensor::Tensor;
use crate::visit_fields;

/// A convolution without bias, batch normalisation (eps 0.001) and ReLU.
pub struct BasicConv2d {
    /// The convolution.
    pub conv: Conv2d,
    /// The normalisation.
    pub bn: BatchNorm2d,
}

impl BasicConv2d {
    /// Wraps a convolution with this many output channels, and removes its bias.
    pub fn new(conv: Conv2d, channels: usize) -> BasicConv2d {
        BasicConv2d { conv: conv.bias(false), bn: BatchNorm2d::new(channels).eps(1e-3) }
    }
}

impl Module for BasicConv2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || conv_bn_relu(&self.conv, &self.bn, x))
    }

    visit_fields!(conv, bn);
}

/// Creates a convolution from `inputs` to `outputs` channels, with padding that keeps the size.
fn same(inputs: usize, outputs: usize, kernel: usize) -> BasicConv2d {
    BasicConv2d::new(Conv2d::new(inputs, outputs, kernel).padding(kernel / 2), outputs)
}

/// The widths of an [`Inception`] block, in the order of the paper's table 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InceptionWidths {
    /// The 1×1 branch.
    pub one: usize,
    /// The 3×3 branch: its bottleneck and its output.
    pub three: [usize; 2],
    /// The branch that is 5×5 in the paper and 3×3 in torchvision: its bottleneck and its output.
    pub five: [usize; 2],
    /// The 1×1 convolution after pooling.
    pub pool: usize,
}

/// Four parallel branches (Szegedy et al., 2014, fig. 2b), whose outputs are concatenated along the
/// channels.
pub struct Inception {
    /// 1×1.
    pub branch1: BasicConv2d,
    /// 1×1, then 3×3.
    pub branch2: Vec<BasicConv2d>,
    /// 1×1, then 3×3; 5×5 in the paper (torchvision's issue 906 explains the difference).
    pub branch3: Vec<BasicConv2d>,
    /// 3×3 max pooling, then 1×1.
    pub branch4: PoolProjection,
}

/// 3×3 max pooling with stride 1, then a 1×1 convolution: the last branch of [`Inception`].
pub struct PoolProjection {
    /// The convolution; it has index 1 in torchvision, after the pooling.
    pub conv: BasicConv2d,
}

impl Module for PoolProjection {
    /// # Shape
    /// `[N, C, H, W]` to `[N, projected, H, W]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let pooled = x.max_pool2d(3, Pool2dOptions::new().stride(1).padding(1).ceil_mode(true))?;
            self.conv.forward(&pooled)
        })
    }

    visit_fields!(conv => "1");
}

impl Inception {
    /// Creates a block of these widths for this many input channels.
    pub fn new(inputs: usize, widths: InceptionWidths) -> Inception {
        let InceptionWidths { one, three, five, pool } = widths;
        Inception {
            branch1: same(inputs, one, 1),
            branch2: vec![same(inputs, three[0], 1), same(three[0], three[1], 3)],
            branch3: vec![same(inputs, five[0], 1), same(five[0], five[1], 3)],
            branch4: PoolProjection { conv: same(inputs, pool, 1) },
        }
    }
}

impl Module for Inception {
    /// # Shape
    /// `[N, inputs, H, W]` to `[N, one + three[1] + five[1] + pool, H, W]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let branches = [self.branch1.forward(x)?, self.branch2.forward(x)?, self.branch3.forward(x)?, self.branch4.forward(x)?];
            Tensor::cat(&branches.each_ref(), 1)
        })
    }

    visit_fields!(branch1, branch2, branch3, branch4);
}

/// An auxiliary head: pooling to 4×4, a 1×1 convolution, two dense layers.
pub struct InceptionAux {
    /// To 128 channels, 1×1.
    pub conv: BasicConv2d,
    /// 2048→1024.
    pub fc1: Linear,
    /// 1024→classes.
    pub fc2: Linear,
    dropout: Dropout,
}

impl InceptionAux {
    /// Creates a head for this many channels and classes, with dropout 0.7.
    pub fn new(inputs: usize, num_classes: usize) -> InceptionAux {
        InceptionAux {
            conv: same(inputs, 128, 1),
            fc1: Linear::new(128 * 4 * 4, 1024),
            fc2: Linear::new(1024, num_classes),
            dropout: Dropout::new(0.7),
        }
    }
}

impl Module for InceptionAux {
    /// # Shape
    /// `[N, C, H, W]` to logits `[N, num_classes]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let x = x.adaptive_avg_pool2d(4)?; //                    [N, 512 or 528, 4, 4]
            let x = self.conv.forward(&x)?.flatten(1, -1)?; //       [N, 2048]
            let x = self.fc1.forward(&x)?.try_relu()?; //            [N, 1024]
            self.fc2.forward(&self.dropout.forward(&x)?) //          [N, num_classes]
        })
    }

    visit_fields!(conv, fc1, fc2, dropout);
}

/// GoogLeNet; see [`googlenet`].
pub struct GoogLeNet {
    conv1: BasicConv2d,
    conv2: BasicConv2d,
    conv3: BasicConv2d,
    /// Named by [`BLOCKS`].
    inceptions: Vec<Inception>,
    /// The head after block 4a, unless [dropped](GoogLeNet::without_aux).
    pub aux1: Option<InceptionAux>,
    /// The head after block 4d, unless [dropped](GoogLeNet::without_aux).
    pub aux2: Option<InceptionAux>,
    dropout: Dropout,
    /// 1024→classes.
    pub fc: Box<dyn Module>,
    transform_input: bool,
}

/// The result of [`GoogLeNet::forward_with_aux`]: logits `[N, num_classes]` of each head.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GoogLeNetOutput {
    /// The logits of the main head.
    pub logits: Tensor,
    /// The logits of the head after block 4a, if there is one.
    pub aux1: Option<Tensor>,
    /// The logits of the head after block 4d, if there is one.
    pub aux2: Option<Tensor>,
}

impl GoogLeNetOutput {
    /// Computes the paper's training loss: the main head's cross-entropy plus 0.3 of each auxiliary
    /// head's.
    ///
    /// # Errors
    /// Those of [`Tensor::cross_entropy`].
    pub fn loss(&self, labels: &Tensor) -> Result<Tensor> {
        self.loss_with(labels, &CrossEntropyOptions::default())
    }

    /// Computes [`loss`](GoogLeNetOutput::loss) of cross-entropies with options, such as label
    /// smoothing.
    ///
    /// # Errors
    /// Those of [`Tensor::cross_entropy_with`].
    pub fn loss_with(&self, labels: &Tensor, options: &CrossEntropyOptions) -> Result<Tensor> {
        let mut loss = self.logits.cross_entropy_with(labels, options)?;
        for logits in [&self.aux1, &self.aux2].into_iter().flatten() {
            loss = loss.add(&logits.cross_entropy_with(labels, options)?.mul_scalar(0.3))?;
        }
        Ok(loss)
    }
}

/// The blocks of table 1: name, input channels, widths.
const BLOCKS: [(&str, usize, usize, [usize; 2], [usize; 2], usize); 9] = [
    ("inception3a", 192, 64, [96, 128], [16, 32], 32),
    ("inception3b", 256, 128, [128, 192], [32, 96], 64),
    ("inception4a", 480, 192, [96, 208], [16, 48], 64),
    ("inception4b", 512, 160, [112, 224], [24, 64], 64),
    ("inception4c", 512, 128, [128, 256], [24, 64], 64),
    ("inception4d", 512, 112, [144, 288], [32, 64], 64),
    ("inception4e", 528, 256, [160, 320], [32, 128], 128),
    ("inception5a", 832, 256, [160, 320], [32, 128], 128),
    ("inception5b", 832, 384, [192, 384], [48, 128], 128),
];

/// Creates torchvision's GoogLeNet with both auxiliary heads and its initialisation.
///
/// ```
/// use convnet::{models::googlenet, nn::Module};
///
/// assert_eq!(googlenet(1000).num_parameters(), 13_004_888);
/// assert_eq!(googlenet(1000).without_aux().num_parameters(), 6_624_904);
/// ```
pub fn googlenet(options: impl Into<ModelOptions>) -> GoogLeNet {
    let options = options.into();
    let conv1 = Conv2d::new(options.input_channels, 64, 7).stride(2).padding(3);
    let block = |(_, inputs, one, three, five, pool)| Inception::new(inputs, InceptionWidths { one, three, five, pool });
    let model = GoogLeNet {
        conv1: BasicConv2d::new(conv1, 64),
        conv2: same(64, 64, 1),
        conv3: same(64, 192, 3),
        inceptions: BLOCKS.into_iter().map(block).collect(),
        aux1: Some(InceptionAux::new(512, options.num_classes)),
        aux2: Some(InceptionAux::new(528, options.num_classes)),
        dropout: Dropout::new(options.dropout_or(0.2)),
        fc: Box::new(Linear::new(1024, options.num_classes)),
        transform_input: false,
    };
    // torchvision truncates the distribution at ±2, which is two hundred standard deviations.
    initialise(model, |at| match (at.layer, at.name) {
        ("Conv2d" | "Linear", "weight") => Some(Init::Normal(0.01)),
        _ => None,
    })
}

impl GoogLeNet {
    /// Removes the auxiliary heads.
    pub fn without_aux(mut self) -> GoogLeNet {
        (self.aux1, self.aux2) = (None, None);
        self
    }

    /// Sets whether images normalised with ImageNet's mean and deviation are first converted to
    /// [-1, 1], which torchvision's checkpoint expects.
    pub fn transform_input(mut self, transform: bool) -> GoogLeNet {
        self.transform_input = transform;
        self
    }

    /// Computes the logits of all heads.
    ///
    /// # Errors
    /// Those of [`forward`](Module::forward).
    pub fn forward_with_aux(&self, x: &Tensor) -> Result<GoogLeNetOutput> {
        self.run(x, true)
    }

    fn run(&self, x: &Tensor, aux: bool) -> Result<GoogLeNetOutput> {
        // [N, 3, 224, 224]
        let mut x = if self.transform_input { normalise(x)? } else { x.clone() };
        x = pool(&self.conv1.forward(&x)?, 3)?; //       [N, 64, 112, 112], then [N, 64, 56, 56]
        x = self.conv2.forward(&x)?; //                  [N, 64, 56, 56]
        x = pool(&self.conv3.forward(&x)?, 3)?; //       [N, 192, 56, 56], then [N, 192, 28, 28]
        let (mut aux1, mut aux2) = (None, None);
        for ((name, ..), block) in BLOCKS.iter().zip(&self.inceptions) {
            x = block.forward(&x)?;
            match *name {
                "inception3b" => x = pool(&x, 3)?, //    [N, 480, 28, 28], then [N, 480, 14, 14]
                "inception4e" => x = pool(&x, 2)?, //    [N, 832, 14, 14], then [N, 832, 7, 7]
                "inception4a" if aux => aux1 = self.aux1.as_ref().map(|head| head.forward(&x)).transpose()?, // [N, 512, 14, 14]
                "inception4d" if aux => aux2 = self.aux2.as_ref().map(|head| head.forward(&x)).transpose()?, // [N, 528, 14, 14]
                _ => {}
            }
        }
        // [N, 1024, 7, 7]
        let x = x.mean([2, 3])?; //                      [N, 1024]
        let logits = self.fc.forward(&self.dropout.forward(&x)?)?;
        Ok(GoogLeNetOutput { logits, aux1, aux2 })
    }
}

/// Max pooling with stride 2 whose last window may extend past the end.
fn pool(x: &Tensor, kernel: usize) -> Result<Tensor> {
    x.max_pool2d(kernel, Pool2dOptions::new().stride(2).ceil_mode(true))
}

/// Converts from ImageNet's mean and deviation to 0.5 and 0.5.
fn normalise(x: &Tensor) -> Result<Tensor> {
    let constant = |values: [f64; 3]| Tensor::from_vec(values.to_vec(), [1, 3, 1, 1])?.to_dtype(x.dtype());
    let scale = constant([0.229 / 0.5, 0.224 / 0.5, 0.225 / 0.5])?;
    let shift = constant([(0.485 - 0.5) / 0.5, (0.456 - 0.5) / 0.5, (0.406 - 0.5) / 0.5])?;
    x.mul(&scale)?.add(&shift)
}

impl Module for GoogLeNet {
    /// Computes the main head's logits; [`forward_with_aux`](GoogLeNet::forward_with_aux) also
    /// returns the others.
    ///
    /// # Shape
    /// `[N, 3, H, W]` to `[N, num_classes]`; images of at least 15×15.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.run(x, false)?.logits)
    }

    visit_fields!(conv1, conv2, conv3, each inceptions => |i| BLOCKS[i].0, aux1, aux2, dropout, fc, skip transform_input);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ModuleExt;

    #[test]
    fn loss_weighs_the_auxiliary_heads_by_three_tenths() {
        crate::manual_seed(0);
        let mut net = googlenet(4);
        net.eval();
        let (x, labels) = (Tensor::randn([2, 3, 33, 33]), Tensor::from_vec(vec![0i64, 3], [2]).unwrap());
        let out = net.forward_with_aux(&x).unwrap();
        let value = |logits: &Tensor| logits.cross_entropy(&labels).unwrap().item::<f32>().unwrap();
        let (aux1, aux2) = (out.aux1.clone().unwrap(), out.aux2.clone().unwrap());
        assert_eq!((aux1.shape(), aux2.shape()), (&[2, 4][..], &[2, 4][..]));
        let expected = value(&out.logits) + 0.3 * (value(&aux1) + value(&aux2));
        // Tolerance for one or two roundings.
        approx::assert_abs_diff_eq!(out.loss(&labels).unwrap().item::<f32>().unwrap(), expected, epsilon = 1e-5);
        assert_eq!(net.forward(&x).unwrap().to_vec::<f32>().unwrap(), out.logits.to_vec::<f32>().unwrap());
        crate::models::replace_head(&mut net, 7).unwrap();
        let out = net.forward_with_aux(&x).unwrap();
        assert!([&out.logits, &out.aux1.unwrap(), &out.aux2.unwrap()].iter().all(|logits| logits.shape() == [2, 7]));

        let without = net.without_aux().forward_with_aux(&x).unwrap();
        assert!(without.aux1.is_none() && without.aux2.is_none());
    }

    #[test]
    fn transformed_input_equals_another_normalisation_of_the_image() {
        crate::manual_seed(0);
        let net = googlenet(4).without_aux();
        net.eval();
        let picture = Tensor::rand([1, 3, 32, 32]);
        let by = |mean: [f64; 3], std: [f64; 3]| {
            let constant = |v: [f64; 3]| Tensor::from_vec(v.to_vec(), [1, 3, 1, 1]).unwrap().to_dtype(crate::DType::F32).unwrap();
            picture.sub(&constant(mean)).unwrap().div(&constant(std)).unwrap()
        };
        let expected = net.forward(&by([0.5; 3], [0.5; 3])).unwrap();
        let found = net.transform_input(true).forward(&by([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])).unwrap();
        // Tolerance for the roundings of two ways to compute the input, through sixty layers.
        let scale = f64::from(expected.abs().max(..).unwrap().item::<f32>().unwrap());
        let agree = approx::abs_diff_eq!(found, expected, epsilon = 1e-3 * scale);
        assert!(agree, "{:?}", found.worst_difference(&expected));
    }

    #[test]
    fn bottleneck_saves_the_multiplications_reported_in_the_literature() {
        let wide = Conv2d::new(192, 32, 5).padding(2);
        assert_eq!(wide.summary([1, 192, 28, 28]).unwrap().multiply_adds, 120_422_400);
        let narrow = vec![Conv2d::new(192, 16, 1), Conv2d::new(16, 32, 5).padding(2)];
        assert_eq!(narrow.summary([1, 192, 28, 28]).unwrap().multiply_adds, 12_443_648);
    }
}
