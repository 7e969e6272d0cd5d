//! LeCun's convolutional networks of 1989 and 1998 as they were published;
//! [`lenet5`](super::lenet5) is today's form of the second.
//!
//! - LeCun, Boser, Denker, Henderson, Howard, Hubbard & Jackel, *Backpropagation Applied to
//!   Handwritten Zip Code Recognition*, 1989: strides instead of pooling, a bias for each unit,
//!   tanh.
//! - LeCun, Bottou, Bengio & Haffner, *Gradient-Based Learning Applied to Document Recognition*,
//!   1998: trainable subsampling, a table of connections, distances to bitmaps as output.

use super::lenet_layers::{RbfOutput, Subsampling, TableConv2d, discriminative_loss, squash};
use crate::error::Result;
use crate::nn::init::{Init, initialise};
use crate::nn::{Conv2d, Linear, Module, Parameter};
use crate::ops::PadMode;
use crate::tensor::Tensor;
use crate::visit_fields;

/// The value of pixels around the image of 1989, the background of images in [-1, 1].
const BACKGROUND: f64 = -1.0;

/// The network of 1989; see [`lenet_1989`].
pub struct LeNet1989 {
    /// 1→12 maps, 5×5, stride 2, without bias.
    pub h1: Conv2d,
    /// The bias of each unit, `[12, 8, 8]`.
    pub h1_bias: Parameter,
    /// 12→12 maps, 5×5, stride 2; each reads eight maps.
    pub h2: TableConv2d,
    /// The bias of each unit, `[12, 4, 4]`.
    pub h2_bias: Parameter,
    /// 192→30.
    pub h3: Linear,
    /// 30→classes.
    pub output: Linear,
}

/// Creates the network of 1989 for grey 16×16 images with values in [-1, 1]: 9760 parameters for
/// ten classes.
///
/// A kernel is shared by the units of a map, a bias is not. The paper says that a map of H2 reads
/// eight maps of H1 and not which; here three groups of four maps read maps 0 to 7, 4 to 11, and
/// the other eight, as in the reference (A. Karpathy, *lecun1989-repro*, 2022). From there are also
/// the plain tanh and a padding with the background. Weights are uniform in ±2.4/√fan_in, as there:
/// of the paper's ±2.4/fan_in no signal is left behind three layers. Biases start at 0, those of
/// the output at the target of a wrong class, −1.
///
/// The loss is the mean squared error to 1 for the class and −1 for the others.
///
/// # Shape
/// `[N, 1, 16, 16]` to `[N, num_classes]`, in ±1.
///
/// ```
/// use convnet::{Tensor, models::lenet_1989, nn::Module};
///
/// let model = lenet_1989(10);
/// assert_eq!(model.num_parameters(), 9760);
/// assert_eq!(model.forward(&Tensor::randn([2, 1, 16, 16]))?.shape(), [2, 10]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn lenet_1989(num_classes: usize) -> LeNet1989 {
    let table: [&[usize]; 3] = [&[0, 1, 2, 3, 4, 5, 6, 7], &[4, 5, 6, 7, 8, 9, 10, 11], &[0, 1, 2, 3, 8, 9, 10, 11]];
    let table: Vec<&[usize]> = (0..12).map(|map| table[map / 4]).collect();
    let net = LeNet1989 {
        h1: Conv2d::new(1, 12, 5).stride(2).padding(2).padding_mode(PadMode::Constant(BACKGROUND)).bias(false),
        h1_bias: Parameter::new(Tensor::zeros([12, 8, 8])),
        h2: TableConv2d::new(12, &table, 5).stride(2).bias(false),
        h2_bias: Parameter::new(Tensor::zeros([12, 4, 4])),
        h3: Linear::new(12 * 4 * 4, 30),
        output: Linear::new(30, num_classes),
    };
    initialise(net, |at| {
        let start = |fan_in: f64| Init::Uniform(2.4 / fan_in.sqrt());
        Some(match at.path {
            "h1.weight" => start(25.0),
            "h2.weight" => start(200.0),
            "h3.weight" => start(192.0),
            "output.weight" => start(30.0),
            "output.bias" => Init::Constant(-1.0),
            _ => Init::Constant(0.0),
        })
    })
}

impl Module for LeNet1989 {
    /// # Shape
    /// `[N, 1, 16, 16]` to `[N, num_classes]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // [N, 1, 16, 16]
        let x = self.h1.forward(x)?.add(&self.h1_bias.try_tensor()?)?.tanh()?; //  [N, 12, 8, 8]
        let x = x.pad([2, 2, 2, 2], BACKGROUND)?; //                               [N, 12, 12, 12]
        let x = self.h2.forward(&x)?.add(&self.h2_bias.try_tensor()?)?.tanh()?; // [N, 12, 4, 4]
        let x = self.h3.forward(&x.flatten(1, -1)?)?.tanh()?; //                   [N, 30]
        self.output.forward(&x)?.tanh() //                                         [N, num_classes]
    }

    visit_fields!(h1_bias, h2_bias, h1, h2, h3, output);
}

/// The maps of S2 that each map of C3 reads: the paper's table I.
const TABLE: [&[usize]; 16] = [
    &[0, 1, 2],
    &[1, 2, 3],
    &[2, 3, 4],
    &[3, 4, 5],
    &[0, 4, 5],
    &[0, 1, 5],
    &[0, 1, 2, 3],
    &[1, 2, 3, 4],
    &[2, 3, 4, 5],
    &[0, 3, 4, 5],
    &[0, 1, 4, 5],
    &[0, 1, 2, 5],
    &[0, 1, 3, 4],
    &[1, 2, 4, 5],
    &[0, 2, 3, 5],
    &[0, 1, 2, 3, 4, 5],
];

/// LeNet-5 as published in 1998; see [`lenet5_1998`].
pub struct LeNet1998 {
    /// 1→6 maps, 5×5.
    pub c1: Conv2d,
    /// Halves height and width.
    pub s2: Subsampling,
    /// 6→16 maps, 5×5, by the paper's table I.
    pub c3: TableConv2d,
    /// Halves height and width.
    pub s4: Subsampling,
    /// 16→120 maps, 5×5, of one pixel each.
    pub c5: Conv2d,
    /// 120→84.
    pub f6: Linear,
    /// Distances to the classes' bitmaps.
    pub output: Box<dyn Module>,
}

/// Creates LeNet-5 as published in 1998, for grey 28×28 images whose background is −0.1 and whose
/// ink is 1.175: 60,000 trainable parameters.
///
/// [`preprocessing`](super::preprocessing) gives images these values; the network puts two pixels
/// of background around them, for the paper's 32×32. Every layer up to F6 ends with the squashing
/// function 1.7159 · tanh(2x / 3). Weights and biases are uniform in ±2.4/fan_in as in the paper;
/// the mean fan-in of C3, whose maps have different ones.
///
/// # Shape
/// `[N, 1, 28, 28]` to logits `[N, num_classes]`: the squared distances to the classes' bitmaps
/// ([`RbfOutput`]) with a minus sign.
///
/// ```
/// use convnet::{Tensor, models::lenet5_1998, nn::Module};
///
/// let model = lenet5_1998(10);
/// assert_eq!(model.num_parameters(), 60_000);
/// assert_eq!(model.forward(&Tensor::randn([2, 1, 28, 28]))?.shape(), [2, 10]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn lenet5_1998(num_classes: usize) -> LeNet1998 {
    let net = LeNet1998 {
        c1: Conv2d::new(1, 6, 5),
        s2: Subsampling::new(6),
        c3: TableConv2d::new(6, &TABLE, 5),
        s4: Subsampling::new(16),
        c5: Conv2d::new(16, 120, 5),
        f6: Linear::new(120, RbfOutput::INPUTS),
        output: Box::new(RbfOutput::new(num_classes)),
    };
    initialise(net, |at| {
        let fan_in = match at.path.split('.').next()? {
            "c1" => 25.0,
            "s2" | "s4" => 4.0,
            "c3" => 25.0 * 60.0 / 16.0,
            "c5" => 400.0,
            "f6" => 120.0,
            _ => return None,
        };
        Some(Init::Uniform(2.4 / fan_in))
    })
}

impl LeNet1998 {
    /// Computes the paper's loss (eq. 9), the mean over a batch of `y_D + ln(e^-j + Σ e^-yᵢ)` for
    /// distances y, of which `logits` are the negative, and the correct class D: cross-entropy with
    /// one more class, at distance `j`, for what is none of the others. It also keeps the distance
    /// to the correct class small; the paper gives no `j`, 0.1 works.
    ///
    /// # Errors
    /// Those of [`cross_entropy`](Tensor::cross_entropy).
    pub fn loss(logits: &Tensor, labels: &Tensor, j: f64) -> Result<Tensor> {
        discriminative_loss(logits, labels, j)
    }
}

impl Module for LeNet1998 {
    /// # Shape
    /// `[N, 1, 28, 28]` to logits `[N, num_classes]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.pad([2, 2, 2, 2], -0.1)?; //                [N, 1, 32, 32]
        let x = squash(&self.c1.forward(&x)?)?; //            [N, 6, 28, 28]
        let x = squash(&self.s2.forward(&x)?)?; //            [N, 6, 14, 14]
        let x = squash(&self.c3.forward(&x)?)?; //            [N, 16, 10, 10]
        let x = squash(&self.s4.forward(&x)?)?; //            [N, 16, 5, 5]
        let x = squash(&self.c5.forward(&x)?)?; //            [N, 120, 1, 1]
        let x = self.f6.forward(&x.flatten(1, -1)?)?; //      [N, 84]
        self.output.forward(&squash(&x)?) //                  [N, num_classes]
    }

    visit_fields!(c1, s2, c3, s4, c5, f6, output);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ModuleExt;

    #[test]
    fn layers_have_the_numbers_of_parameters_of_the_papers() {
        let count = |model: &dyn Module| -> Vec<usize> {
            let mut counts: Vec<(String, usize)> = vec![];
            for (name, parameter) in model.named_parameters() {
                let layer = name.split(['.', '_']).next().unwrap().to_string();
                match counts.iter_mut().find(|(known, _)| *known == layer) {
                    Some((_, count)) => *count += parameter.numel(),
                    None => counts.push((layer, parameter.numel())),
                }
            }
            counts.into_iter().map(|(_, count)| count).collect()
        };
        // H1, H2, H3, output; C1, S2, C3, S4, C5, F6.
        assert_eq!(count(&lenet_1989(10)), [1068, 2592, 5790, 310]);
        assert_eq!(count(&lenet5_1998(10)), [156, 12, 1516, 32, 48_120, 10_164]);
    }

    #[test]
    fn connections_of_the_convolutions_are_those_of_the_papers() {
        let multiply_adds = |model: &dyn Module, input: [usize; 4], path: &str| {
            let summary = model.summary(input).unwrap();
            summary.rows.iter().find(|row| row.path == path).unwrap().multiply_adds
        };
        // The papers also count a bias for each unit: 19,968 and 38,592; 122,304 and 151,600.
        assert_eq!(multiply_adds(&lenet_1989(10), [1, 1, 16, 16], "h1") + 768, 19_968);
        assert_eq!(multiply_adds(&lenet_1989(10), [1, 1, 16, 16], "h2") + 192, 38_592);
        assert_eq!(multiply_adds(&lenet5_1998(10), [1, 1, 28, 28], "c1") + 6 * 784, 122_304);
        assert_eq!(multiply_adds(&lenet5_1998(10), [1, 1, 28, 28], "c3") + 16 * 100, 151_600);
    }
}
