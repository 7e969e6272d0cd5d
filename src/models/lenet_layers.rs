//! Layers of LeCun's early networks that later ones no longer have: convolutions by a table of
//! connections, trainable subsampling, and an output of distances to fixed codes.

use crate::error::{Error, Result};
use crate::nn::{Buffer, Layer, LayerPath, Module, Parameter, init};
use crate::ops::{Conv2dOptions, Pool2dOptions};
use crate::tensor::Tensor;
use crate::tensor::rng::seeded;
use crate::visit_fields;
use rand::Rng;

/// A convolution whose output channels each read some of the input channels, as a table says:
/// Torch's `SpatialConvolutionMap`. No padding.
///
/// It runs as a dense convolution with zeros at the connections that are not in the table.
///
/// # Shape
/// `[N, inputs, H, W]` to `[N, rows of the table, H', W']`.
///
/// ```
/// use convnet::{Tensor, models::TableConv2d, nn::Module};
///
/// // The first output reads channels 0 and 1, the second reads channel 2.
/// let conv = TableConv2d::new(3, &[&[0, 1], &[2]], 5);
/// assert_eq!(conv.weight.shape(), [3, 5, 5]);
/// assert_eq!(conv.forward(&Tensor::randn([1, 3, 8, 8]))?.shape(), [1, 2, 4, 4]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct TableConv2d {
    /// A kernel for each connection, in the order of the table: `[connections, k, k]`.
    pub weight: Parameter,
    /// `[outputs]`.
    pub bias: Option<Parameter>,
    inputs: usize,
    /// The input channels of each output.
    table: Vec<Vec<usize>>,
    stride: usize,
    path: LayerPath,
}

impl TableConv2d {
    /// Creates a convolution with `kernel`×`kernel` kernels, stride 1 and a bias. The weights are
    /// uniform in ±1/√fan_in for the mean number of connections of an output. Each row of the table
    /// has the input channels of an output; [`forward`](Module::forward) returns an error when one
    /// is not below `inputs`.
    pub fn new(inputs: usize, table: &[&[usize]], kernel: usize) -> TableConv2d {
        let connections = table.iter().map(|row| row.len()).sum::<usize>();
        let fan_in = (connections * kernel * kernel) as f64 / table.len().max(1) as f64;
        let bound = 1.0 / fan_in.max(1.0).sqrt();
        let draw = |shape: &[usize]| Parameter::new(init::uniform(shape, -bound, bound).unwrap_or_else(|_| Tensor::zeros([0])));
        TableConv2d {
            weight: draw(&[connections, kernel, kernel]),
            bias: Some(draw(&[table.len()])),
            inputs,
            table: table.iter().map(|row| row.to_vec()).collect(),
            stride: 1,
            path: LayerPath::new(),
        }
    }

    /// Sets the stride (default: 1).
    pub fn stride(mut self, stride: usize) -> TableConv2d {
        self.stride = stride;
        self
    }

    /// Sets whether the layer has a bias (default: true).
    pub fn bias(mut self, bias: bool) -> TableConv2d {
        if !bias {
            self.bias = None;
        }
        self
    }

    fn connections(&self) -> usize {
        self.table.iter().map(Vec::len).sum()
    }

    /// Returns the weight of the dense convolution, `[outputs, inputs, k, k]`.
    fn dense_weight(&self) -> Result<Tensor> {
        let (outputs, connections) = (self.table.len(), self.connections());
        // Where there is no connection, the kernel behind the last one, which is zero.
        let mut index = vec![connections as i64; outputs * self.inputs];
        for (i, (output, &input)) in (0..).zip(&self.table).flat_map(|(o, row)| row.iter().map(move |i| (o, i))).enumerate() {
            index[output * self.inputs + input] = i as i64;
        }
        let weight = self.weight.try_tensor()?;
        let &[_, kh, kw] = weight.shape() else {
            return Err(Error::shape("table_conv2d", format!("expected a weight [connections, k, k], got shape {:?}", weight.shape())));
        };
        let zero = Tensor::try_full([1, kh, kw], 0.0, weight.dtype())?;
        let index = Tensor::from_vec(index, [outputs * self.inputs])?;
        Tensor::cat(&[&weight, &zero], 0)?.index_select(0, &index)?.reshape([outputs, self.inputs, kh, kw])
    }
}

impl Layer for TableConv2d {
    fn describe(&self) -> String {
        let (outputs, kernel) = (self.table.len(), self.weight.shape().last().copied().unwrap_or(0));
        let stride = if self.stride == 1 { String::new() } else { format!(", s{}", self.stride) };
        format!("TableConv2d {}→{outputs}, k{kernel}{stride}, {} connections", self.inputs, self.connections())
    }

    fn multiply_adds(&self, _input: &[usize], output: &[usize]) -> u64 {
        let pixels: u64 = output.iter().enumerate().filter(|(axis, _)| *axis != 1).map(|(_, &size)| size as u64).product();
        pixels.saturating_mul(self.weight.numel() as u64)
    }
}

impl Module for TableConv2d {
    /// # Errors
    /// [`Error::Layer`] around [`Error::Shape`] when the input has other channels or is smaller
    /// than the kernel, around [`Error::Argument`] when the table names a channel that is not
    /// there.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || {
            if x.ndim() != 4 || x.shape()[1] != self.inputs {
                let message = format!("expected [N, {}, H, W], got shape {:?}", self.inputs, x.shape());
                return Err(Error::shape("table_conv2d", message));
            }
            if let Some(channel) = self.table.iter().flatten().find(|&&channel| channel >= self.inputs) {
                let message = format!("the table names input channel {channel}, there are {}", self.inputs);
                return Err(Error::argument("table_conv2d", message));
            }
            let bias = self.bias.as_ref().map(Parameter::try_tensor).transpose()?;
            x.conv2d(&self.dense_weight()?, bias.as_ref(), Conv2dOptions::new().stride(self.stride))
        })
    }

    visit_fields!(layer path, weight, bias, skip(inputs, table, stride));
}

/// Subsampling with a trainable coefficient and bias for each channel (LeCun et al., 1998, §II.B):
/// the sum of each 2×2 window, times the coefficient, plus the bias.
///
/// # Shape
/// `[N, C, H, W]` to `[N, C, H / 2, W / 2]`.
pub struct Subsampling {
    /// The coefficients, `[C]`.
    pub weight: Parameter,
    /// `[C]`.
    pub bias: Parameter,
    path: LayerPath,
}

impl Subsampling {
    /// Creates the layer with coefficients of 1/4, with which it takes the mean, and without
    /// offset.
    pub fn new(channels: usize) -> Subsampling {
        let filled = |value| Parameter::new(init::constant([channels], value).unwrap_or_else(|_| Tensor::zeros([0])));
        Subsampling { weight: filled(0.25), bias: filled(0.0), path: LayerPath::new() }
    }
}

impl Layer for Subsampling {
    fn describe(&self) -> String {
        format!("Subsampling {}", self.weight.numel())
    }
}

impl Module for Subsampling {
    /// # Errors
    /// [`Error::Layer`] around [`Error::Shape`] when the input has other channels or is smaller
    /// than the window.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || {
            let channels = self.weight.numel();
            if x.ndim() != 4 || x.shape()[1] != channels {
                return Err(Error::shape("subsampling", format!("expected [N, {channels}, H, W], got shape {:?}", x.shape())));
            }
            let [weight, bias] = [&self.weight, &self.bias].map(|p| p.try_tensor()?.reshape([channels, 1, 1]));
            x.avg_pool2d(2, Pool2dOptions::new())?.mul(&weight?.mul_scalar(4.0))?.add(&bias?)
        })
    }

    visit_fields!(layer path, weight, bias);
}

/// The width and height of the bitmap of a character.
const BITMAP: [usize; 2] = [7, 12];

/// The digits as bitmaps, in the manner of the paper's figure 3: similar digits have similar codes.
const DIGITS: [&str; BITMAP[1]] = [
    "....... ....... ....... ....... ....... ....... ....... ....... ....... .......",
    "..###.. ...#... .#####. .#####. .....#. ####### ..####. ####### .#####. .#####.",
    ".#...#. ..##... #.....# #.....# ....##. #...... .#..... ......# #.....# #.....#",
    "#.....# .#.#... ......# ......# ...#.#. #...... #...... .....#. #.....# #.....#",
    "#.....# ...#... ......# ......# ..#..#. #...... #...... .....#. #.....# #.....#",
    "#.....# ...#... .....#. ..####. .#...#. ######. #.####. ....#.. .#####. #....##",
    "#.....# ...#... ....#.. ......# #....#. ......# ##....# ....#.. #.....# .####.#",
    "#.....# ...#... ...#... ......# ####### ......# #.....# ...#... #.....# ......#",
    "#.....# ...#... ..#.... ......# .....#. ......# #.....# ...#... #.....# ......#",
    ".#...#. ...#... .#..... #.....# .....#. #.....# #.....# ..#.... #.....# .....#.",
    "..###.. .#####. ####### .#####. .....#. .#####. .#####. ..#.... .#####. .####..",
    "....... ....... ....... ....... ....... ....... ....... ....... ....... .......",
];

/// An output of Euclidean radial basis functions (LeCun et al., 1998, §II.B, eq. 7): the distance
/// of the input to a fixed code of each class, whose 84 elements are −1 or 1.
///
/// The codes of the first ten classes are bitmaps of the digits, 7 pixels wide and 12 high, drawn
/// after the paper's figure 3; those of further classes are random, which the paper names as a
/// possibility. They are a buffer: no optimiser changes them.
///
/// # Shape
/// `[N, 84]` to logits `[N, num_classes]`: the squared distances with a minus sign, so that the
/// largest is the class.
pub struct RbfOutput {
    /// The codes, `[num_classes, 84]`.
    pub weight: Buffer,
    path: LayerPath,
}

impl RbfOutput {
    /// The number of elements of a code.
    pub const INPUTS: usize = BITMAP[0] * BITMAP[1];

    /// Creates the output for this many classes.
    pub fn new(num_classes: usize) -> RbfOutput {
        let mut codes: Vec<f32> = vec![];
        // An output that memory cannot hold has no codes; `forward` reports it.
        let numel = num_classes.checked_mul(Self::INPUTS).filter(|&numel| codes.try_reserve_exact(numel).is_ok()).unwrap_or(0);
        (0..numel / Self::INPUTS).for_each(|class| extend_by_code(&mut codes, class));
        let weight = Tensor::from_vec(codes, [numel / Self::INPUTS, Self::INPUTS]).expect("as many values as the shape has");
        RbfOutput { weight: Buffer::new(weight), path: LayerPath::new() }
    }
}

fn extend_by_code(codes: &mut Vec<f32>, class: usize) {
    let sign = |positive: bool| if positive { 1.0 } else { -1.0 };
    if class < 10 {
        let pixels = DIGITS.iter().flat_map(|row| row.bytes().skip(class * (BITMAP[0] + 1)).take(BITMAP[0]));
        codes.extend(pixels.map(|pixel| sign(pixel == b'#')));
    } else {
        let mut generator = seeded(class as u64);
        codes.extend((0..RbfOutput::INPUTS).map(|_| sign(generator.next_u32() % 2 == 1)));
    }
}

impl Layer for RbfOutput {
    fn describe(&self) -> String {
        format!("RbfOutput {}→{}", Self::INPUTS, self.weight.shape().first().copied().unwrap_or(0))
    }

    fn multiply_adds(&self, _input: &[usize], output: &[usize]) -> u64 {
        output.iter().fold(Self::INPUTS as u64, |product, &size| product.saturating_mul(size as u64))
    }
}

impl Module for RbfOutput {
    /// # Errors
    /// [`Error::Layer`] around [`Error::Shape`] when the input is not `[N, 84]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || {
            if x.ndim() != 2 || x.shape()[1] != Self::INPUTS {
                return Err(Error::shape("rbf_output", format!("expected [N, {}], got shape {:?}", Self::INPUTS, x.shape())));
            }
            let codes = self.weight.tensor();
            if codes.numel() == 0 {
                return Err(Error::argument("rbf_output", "there are no codes: no classes, or more than memory can hold"));
            }
            Ok(x.unsqueeze(1)?.sub(&codes)?.square()?.sum(-1)?.neg())
        })
    }

    visit_fields!(layer path, weight);
}

/// Returns LeCun's squashing function `1.7159 · tanh(2x / 3)`, which maps ±1 to ±1 (LeCun et al.,
/// 1998, eq. 6 and appendix A).
pub(super) fn squash(x: &Tensor) -> Result<Tensor> {
    Ok(x.mul_scalar(2.0 / 3.0).tanh()?.mul_scalar(1.7159))
}

/// Returns the paper's loss for distances as logits; see [`LeNet1998::loss`](super::LeNet1998).
pub(super) fn discriminative_loss(logits: &Tensor, labels: &Tensor, j: f64) -> Result<Tensor> {
    let [n, _] = *logits.shape() else {
        return Err(Error::shape("lenet5_1998 loss", format!("expected logits [N, classes], got shape {:?}", logits.shape())));
    };
    let rubbish = Tensor::try_full([n, 1], -j, logits.dtype())?;
    Tensor::cat(&[logits, &rubbish], 1)?.cross_entropy(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    #[test]
    fn table_convolution_is_a_dense_one_with_zeros() {
        crate::manual_seed(3);
        let conv = TableConv2d::new(3, &[&[2, 0], &[1]], 3).stride(2);
        let x = Tensor::randn([2, 3, 7, 7]);
        let weight = conv.weight.tensor();
        let kernel = |i: usize| weight.narrow(0, i, 1).unwrap();
        let zero = Tensor::zeros([1, 3, 3]);
        let rows = [Tensor::cat(&[&kernel(1), &zero, &kernel(0)], 0).unwrap(), Tensor::cat(&[&zero, &kernel(2), &zero], 0).unwrap()];
        let dense = Tensor::stack(&[&rows[0], &rows[1]], 0).unwrap();
        let bias = conv.bias.as_ref().unwrap().tensor();
        let expected = x.conv2d(&dense, Some(&bias), Conv2dOptions::new().stride(2)).unwrap();
        assert_eq!(conv.forward(&x).unwrap(), expected);
        assert_eq!(conv.multiply_adds(&[2, 3, 7, 7], &[2, 2, 3, 3]), 2 * 9 * 27);
        let gradients = conv.forward(&x).unwrap().square().unwrap().mean(..).unwrap().backward().unwrap();
        assert_eq!(gradients.get(&conv.weight.tensor()).unwrap().shape(), [3, 3, 3]);
    }

    #[test]
    fn wrong_tables_and_inputs_are_named() {
        let message = |inputs: usize, shape: &[usize]| {
            let conv = TableConv2d::new(inputs, &[&[0, 3]], 3);
            conv.forward(&Tensor::zeros(shape)).unwrap_err().to_string()
        };
        assert!(message(3, &[1, 3, 5, 5]).contains("names input channel 3, there are 3"), "{}", message(3, &[1, 3, 5, 5]));
        assert!(message(4, &[1, 3, 5, 5]).contains("expected [N, 4, H, W], got shape [1, 3, 5, 5]"));
        let error = Subsampling::new(4).forward(&Tensor::zeros([1, 3, 4, 4])).unwrap_err().to_string();
        assert!(error.contains("expected [N, 4, H, W]"), "{error}");
        let error = RbfOutput::new(3).forward(&Tensor::zeros([1, 3])).unwrap_err().to_string();
        assert!(error.contains("expected [N, 84]"), "{error}");
        assert!(RbfOutput::new(usize::MAX).forward(&Tensor::zeros([1, 84])).unwrap_err().to_string().contains("no codes"));
    }

    #[test]
    fn subsampling_weighs_the_sum_of_a_window() {
        let layer = Subsampling::new(2);
        layer.weight.set(&Tensor::from_vec(vec![0.5f32, 2.0], [2]).unwrap()).unwrap();
        layer.bias.set(&Tensor::from_vec(vec![1f32, -1.0], [2]).unwrap()).unwrap();
        let x = Tensor::from_vec(vec![1f32, 2.0, 3.0, 4.0, 0.0, 0.0, 1.0, 0.0], [1, 2, 2, 2]).unwrap();
        assert_eq!(layer.forward(&x).unwrap().to_vec::<f32>().unwrap(), [6.0, 1.0]);
    }

    #[test]
    fn codes_are_nearest_to_themselves_and_no_two_are_equal() {
        let output = RbfOutput::new(12);
        let y = output.forward(&output.weight.tensor()).unwrap();
        let classes = y.argmax(1).unwrap().to_vec::<i64>().unwrap();
        assert_eq!(classes, (0..12).collect::<Vec<i64>>());
        let y = y.to_vec::<f32>().unwrap();
        for (i, distance) in y.iter().enumerate() {
            assert!(if i % 13 == 0 { *distance == 0.0 } else { *distance <= -4.0 * 6.0 }, "{i}: {distance}");
        }
    }

    #[test]
    fn loss_is_that_of_equation_9() {
        let distances = [[0.5f64, 3.0], [2.0, 1.0]];
        let logits = Tensor::from_vec(distances.concat().iter().map(|y| -y).collect(), [2, 2]).unwrap();
        let labels = Tensor::from_vec(vec![0i64, 0], [2]).unwrap();
        let j = 0.1f64;
        let expected: f64 =
            distances.iter().map(|y| y[0] + ((-j).exp() + y.iter().map(|y| (-y).exp()).sum::<f64>()).ln()).sum::<f64>() / 2.0;
        let found = discriminative_loss(&logits, &labels, j).unwrap().item::<f64>().unwrap();
        approx::assert_abs_diff_eq!(found, expected, epsilon = 1e-12);
        assert!(discriminative_loss(&labels, &labels, j).is_err());
    }

    #[test]
    fn squashing_keeps_one() {
        let y = squash(&Tensor::from_vec(vec![-1f64, 0.0, 1.0], [3]).unwrap()).unwrap().to_vec::<f64>().unwrap();
        // The paper rounds the factor to five digits.
        y.iter().zip([-1.0, 0.0, 1.0]).for_each(|(y, x)| approx::assert_abs_diff_eq!(*y, x, epsilon = 1e-4));
    }

    #[test]
    fn layers_keep_the_dtype_of_their_parameters() {
        let conv = TableConv2d::new(1, &[&[0]], 1);
        conv.to_dtype(DType::F64).unwrap();
        assert_eq!(conv.forward(&Tensor::full([1, 1, 2, 2], 1.0, DType::F64)).unwrap().dtype(), DType::F64);
    }
}
