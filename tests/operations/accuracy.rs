//! How far every convolution algorithm in f32 is from f64, over the sizes of real layers.

use convnet::ConvAlgorithm::{Depthwise, Direct, Im2col, Naive, Winograd2, Winograd4};
use convnet::ops::Conv2dOptions;
use convnet::{ConvAlgorithm, DType, Tensor, with_algorithm};

/// A convolution of `batch` square maps, padded so that stride 1 keeps their size.
struct Layer {
    batch: usize,
    channels: [usize; 2],
    size: usize,
    kernel: usize,
    stride: usize,
    groups: usize,
}

const fn layer(batch: usize, channels: [usize; 2], size: usize, kernel: usize, stride: usize, groups: usize) -> Layer {
    Layer { batch, channels, size, kernel, stride, groups }
}

/// Stems, stages, squeezes and classifiers of the classic networks. Sums have up to 4608 products
/// forward and backward, and up to 50,176 (the maps of a batch of 16 at 56×56) in the weights'
/// gradients.
const LAYERS: &[Layer] = &[
    layer(2, [1, 6], 28, 5, 1, 1),
    layer(1, [3, 64], 64, 7, 2, 1),
    layer(1, [3, 32], 64, 3, 1, 1),
    layer(16, [8, 8], 56, 3, 1, 1),
    layer(1, [64, 64], 56, 3, 1, 1),
    layer(1, [128, 128], 28, 3, 1, 1),
    layer(1, [256, 256], 14, 3, 1, 1),
    layer(1, [512, 512], 7, 3, 1, 1),
    layer(1, [512, 16], 7, 3, 1, 1),
    layer(1, [16, 512], 7, 3, 1, 1),
    layer(1, [256, 512], 14, 3, 2, 1),
    layer(1, [64, 184], 27, 5, 1, 1),
    layer(1, [256, 64], 56, 1, 1, 1),
    layer(1, [2048, 512], 7, 1, 1, 1),
    layer(1, [4096, 1000], 1, 1, 1, 1),
    layer(2, [256, 256], 14, 3, 1, 32),
    layer(4, [96, 96], 56, 3, 1, 96),
    layer(2, [240, 240], 28, 5, 2, 240),
];

const PASSES: [&str; 3] = ["forward", "input gradient", "weight gradient"];

impl Layer {
    /// How many products are summed up for an element of a pass's result, away from the edges.
    fn terms(&self, pass: usize) -> usize {
        let [group_in, group_out] = self.channels.map(|channels| channels / self.groups);
        let met = self.kernel.div_ceil(self.stride);
        [group_in * self.kernel.pow(2), group_out * met.pow(2), self.batch * self.output().pow(2)][pass]
    }

    /// Whether an algorithm computes this pass itself instead of falling back to another.
    fn takes(&self, algorithm: ConvAlgorithm, pass: usize) -> bool {
        match algorithm {
            Winograd2 | Winograd4 => {
                let most = if algorithm == Winograd2 { 3 } else { 5 };
                // There is no such form of an input gradient for strides above 1.
                self.groups == 1 && (3..=most).contains(&self.kernel.div_ceil(self.stride)) && (self.stride == 1 || pass != 1)
            }
            // Few channels in a group of the map that it reads.
            Depthwise => self.channels[usize::from(pass == 1)] / self.groups <= 64,
            // The naive algorithm takes 100 times as long as others.
            Naive => self.multiply_adds() < 30_000_000,
            _ => true,
        }
    }

    fn output(&self) -> usize {
        (self.size - 1) / self.stride + 1
    }

    fn multiply_adds(&self) -> usize {
        let [inputs, outputs] = self.channels;
        self.batch * self.output().pow(2) * self.kernel.pow(2) * inputs * outputs / self.groups
    }

    /// The results of the three passes, on these operands.
    fn run(&self, operands: &[Tensor; 3], dtype: DType, algorithm: ConvAlgorithm) -> [Vec<f64>; 3] {
        let [x, w, upstream] = operands.each_ref().map(|tensor| tensor.to_dtype(dtype).expect("numbers convert"));
        let (x, w) = (x.with_grad(), w.with_grad());
        let options =
            Conv2dOptions { stride: [self.stride; 2], padding: [self.kernel / 2; 2], groups: self.groups, ..Conv2dOptions::default() };
        with_algorithm(algorithm, || {
            let y = x.conv2d(&w, None, options).expect("a convolution");
            let grads = y.mul(&upstream).and_then(|y| y.sum(..)).and_then(|sum| sum.backward()).expect("gradients");
            let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64).and_then(|tensor| tensor.to_vec()).expect("numbers");
            [wide(&y), wide(grads.get(&x).expect("of the input")), wide(grads.get(&w).expect("of the weight"))]
        })
    }
}

/// The largest error and its root mean square, both as parts of the largest magnitude that the
/// exact result has.
fn errors(found: &[f64], exact: &[f64]) -> [f64; 2] {
    assert_eq!(found.len(), exact.len());
    let scale = exact.iter().fold(0.0, |scale: f64, x| scale.max(x.abs()));
    let error = |(found, exact): (&f64, &f64)| (found - exact) / scale;
    let largest = found.iter().zip(exact).map(error).fold(0.0, |largest: f64, e| if e.abs() <= largest { largest } else { e.abs() });
    let squares: f64 = found.iter().zip(exact).map(error).map(|e| e * e).sum();
    [largest, (squares / exact.len() as f64).sqrt()]
}

/// The largest error allowed, for sums of `terms` products. Transforms of six points multiply by
/// numbers up to 8, and the products cancel.
///
/// The error of sums longer than a network's layers have, such as a depthwise weight gradient's
/// over all pixels of a batch, may grow with the root of their length.
fn bound(algorithm: ConvAlgorithm, terms: usize) -> f64 {
    match algorithm {
        Naive => 1e-7, // in f64, and rounded once
        Winograd4 => 2e-5,
        _ => 2e-6 * (terms as f64 / 4608.0).sqrt().max(1.0),
    }
}

/// The root mean square of the errors is below this, whatever the length.
fn bound_of_rms(algorithm: ConvAlgorithm) -> f64 {
    bound(algorithm, 1) / 3.0
}

#[test]
fn every_algorithm_is_as_close_to_f64_as_it_claims() {
    convnet::manual_seed(11);
    println!(
        "Errors of f32: largest and root mean square, as parts of the largest magnitude of the exact result; over sums of the given number of products"
    );
    println!("{:28} {:9} {:>24} {:>24} {:>24}", "", "", PASSES[0], PASSES[1], PASSES[2]);
    let mut failures = vec![];
    for layer in LAYERS {
        let &Layer { batch, channels: [inputs, outputs], size, kernel, stride, groups } = layer;
        let operands = [
            Tensor::randn([batch, inputs, size, size]),
            Tensor::randn([outputs, inputs / groups, kernel, kernel]),
            Tensor::randn([batch, outputs, layer.output(), layer.output()]),
        ];
        let exact = layer.run(&operands, DType::F64, Direct);
        let name = format!("{inputs}→{outputs}@{size} k{kernel} s{stride} g{groups} n{batch}");
        for algorithm in [Naive, Im2col, Direct, Winograd2, Winograd4, Depthwise] {
            let takes = [0, 1, 2].map(|pass| layer.takes(algorithm, pass));
            if takes == [false; 3] {
                continue;
            }
            let found = layer.run(&operands, DType::F32, algorithm);
            let cells = [0, 1, 2].map(|pass| {
                if !takes[pass] {
                    return String::new();
                }
                let [largest, rms] = errors(&found[pass], &exact[pass]);
                if largest > bound(algorithm, layer.terms(pass)) || rms > bound_of_rms(algorithm) {
                    failures.push(format!("{name} {algorithm:?} {}: {largest:.1e} {rms:.1e}", PASSES[pass]));
                }
                format!("{:6}: {largest:.1e} {rms:.1e}", layer.terms(pass))
            });
            println!("{name:28} {:9} {:>24} {:>24} {:>24}", format!("{algorithm:?}"), cells[0], cells[1], cells[2]);
        }
    }
    assert!(failures.is_empty(), "errors larger than claimed:\n{}", failures.join("\n"));
}
