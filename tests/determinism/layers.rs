//! The convolutions of all registered networks, each kind once and at a size that takes
//! milliseconds.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use convnet::ConvAlgorithm::{Auto, Depthwise, Direct, Im2col, Naive, Winograd2, Winograd4};
use convnet::nn::ModuleExt;
use convnet::ops::Conv2dOptions;
use convnet::{ConvAlgorithm, Tensor, models, with_algorithm};

/// What the work of a pass is reduced to, and that of the sixteenth part of layers that are left
/// larger.
const SMALL: usize = 2 << 20;
const LARGE: usize = 24 << 20;

/// A convolution's kind and the size of its output. Padding is what keeps the size at stride 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layer {
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    dilation: [usize; 2],
    groups: usize,
    output: [usize; 2],
}

/// `3` or `3×5`.
fn pair(text: &str) -> Option<[usize; 2]> {
    let (height, width) = text.split_once('×').unwrap_or((text, text));
    Some([height.parse().ok()?, width.parse().ok()?])
}

impl Layer {
    /// From a row of a summary, as `Conv2d 64→128, k3, s2, g4`.
    fn parse(description: &str, output: &[usize]) -> Option<Layer> {
        let mut parts = description.strip_prefix("Conv2d ")?.split(", ");
        let (inputs, outputs) = parts.next()?.split_once('→')?;
        let channels = [inputs.parse().ok()?, outputs.parse().ok()?];
        let mut layer = Layer { channels, kernel: [0; 2], stride: [1; 2], dilation: [1; 2], groups: 1, output: [output[2], output[3]] };
        for part in parts {
            let (letter, size) = part.split_at(1);
            match letter {
                "k" => layer.kernel = pair(size)?,
                "s" => layer.stride = pair(size)?,
                "d" => layer.dilation = pair(size)?,
                "g" => layer.groups = size.parse().ok()?,
                _ => return None,
            }
        }
        Some(layer)
    }

    /// All kinds.
    pub fn of_the_zoo() -> Vec<Layer> {
        let mut layers = BTreeSet::new();
        for model in models::all() {
            let [channels, height, width] = model.input;
            let net = models::create(model.name, model.classes).expect("a registered name");
            for row in net.summary([1, channels, height, width]).expect("a summary").rows {
                if let (true, Some(output)) = (row.layer.starts_with("Conv2d"), row.output) {
                    layers.insert(Layer::parse(&row.layer, &output).unwrap_or_else(|| panic!("{} is not understood", row.layer)));
                }
            }
        }
        let cut: BTreeSet<Layer> =
            layers.into_iter().enumerate().map(|(i, layer)| layer.within(if i % 16 == 0 { LARGE } else { SMALL })).collect();
        cut.into_iter().collect()
    }

    fn multiply_adds(&self) -> usize {
        self.weights() * self.output[0] * self.output[1]
    }

    fn weights(&self) -> usize {
        self.channels[0] / self.groups * self.channels[1] * self.kernel[0] * self.kernel[1]
    }

    fn input(&self) -> [usize; 2] {
        [0, 1].map(|axis| (self.output[axis] - 1) * self.stride[axis] + self.extent(axis) - 2 * self.padding(axis))
    }

    /// The extent of the kernel, from its first tap to its last.
    fn extent(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    fn padding(&self, axis: usize) -> usize {
        (self.extent(axis) - 1) / 2
    }

    /// The same on a map as large as this much work allows, but no smaller than the kernel's
    /// extent.
    fn within(mut self, work: usize) -> Layer {
        // Reading an element takes as long as some multiplications.
        let cost = |layer: &Layer| layer.multiply_adds() + 8 * layer.channels[0] * layer.input()[0] * layer.input()[1];
        while cost(&self) > work && self.output[0].min(self.output[1]) > 3 {
            self.output = self.output.map(|size| (size * 3 / 4).max(3));
        }
        self
    }

    /// Whether an algorithm differs from its fallback.
    fn takes(&self, algorithm: ConvAlgorithm) -> bool {
        match algorithm {
            Winograd2 | Winograd4 => {
                let taps = [0, 1].map(|axis| self.kernel[axis].div_ceil(self.stride[axis]));
                let most = if algorithm == Winograd2 { 3 } else { 5 };
                (3..=most).contains(&taps[0]) && taps[0] == taps[1] && (self.dilation, self.groups) == ([1; 2], 1)
            }
            Depthwise => self.channels[0].min(self.channels[1]) / self.groups <= 64,
            // The naive algorithm uses no threads and is slow.
            Naive => self.multiply_adds() < 100_000,
            _ => true,
        }
    }

    /// Each algorithm, and a number that depends on all bits of its results.
    pub fn runs(&self) -> Vec<(Layer, ConvAlgorithm, u64)> {
        let Layer { channels: [inputs, outputs], kernel, stride, dilation, groups, output } = *self;
        let (input, padding) = (self.input(), [0, 1].map(|axis| self.padding(axis)));
        let x = numbers(0, [1, inputs, input[0], input[1]]).with_grad();
        let w = numbers(1, [outputs, inputs / groups, kernel[0], kernel[1]]).with_grad();
        let upstream = numbers(2, [1, outputs, output[0], output[1]]);
        let options = Conv2dOptions { stride, padding, dilation, groups };
        let algorithms = [Auto, Im2col, Direct, Winograd2, Winograd4, Depthwise, Naive].into_iter();
        let run = |algorithm| {
            with_algorithm(algorithm, || -> convnet::Result<u64> {
                let y = x.conv2d(&w, None, options)?;
                let gradients = y.mul(&upstream)?.sum(..)?.backward()?;
                let [dx, dw] = [&x, &w].map(|leaf| gradients.get(leaf).expect("both took part"));
                [&y, dx, dw].into_iter().try_fold(0, digest)
            })
            .expect("a convolution")
        };
        algorithms.filter(|&algorithm| self.takes(algorithm)).map(|algorithm| (*self, algorithm, run(algorithm))).collect()
    }
}

/// Numbers in `[-1, 1)`, others for each `part`.
fn numbers<const N: usize>(part: usize, shape: [usize; N]) -> Tensor {
    static NUMBERS: LazyLock<Vec<f32>> = LazyLock::new(|| {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..10 << 20).map(|_| next()).collect()
    });
    let length = shape.iter().product::<usize>();
    let values = NUMBERS[part * 1_000_003..][..length].to_vec();
    Tensor::from_vec(values, shape).expect("as many numbers as the shape has")
}

fn digest(seed: u64, tensor: &Tensor) -> convnet::Result<u64> {
    let mix = |digest: u64, x: &f32| (digest.rotate_left(5) ^ u64::from(x.to_bits())).wrapping_mul(0x517c_c1b7_2722_0a95);
    Ok(tensor.to_vec()?.iter().fold(seed, mix))
}
