//! The networks that can be found: four inverted residual blocks, each with its choices.

use convnet::models::{ConvNormActivation, MBConv, MBConvOptions, NormOptions};
use convnet::nn::Activation;
use convnet::prelude::*;

pub const BLOCKS: usize = 4;
/// The choices for each block.
const KERNELS: [usize; 2] = [3, 5];
const EXPANSIONS: [usize; 3] = [1, 3, 6];
const WIDTHS: [usize; 4] = [8, 16, 24, 32];
pub const CHOICES: [usize; 4] = [KERNELS.len(), EXPANSIONS.len(), WIDTHS.len(), 2];

/// The index of each choice: kernel, expansion, width, squeeze-and-excitation, block by block.
pub type Genome = [usize; CHOICES.len() * BLOCKS];

/// Returns the options of an inverted residual block.
pub fn block(inputs: usize, outputs: usize, kernel: usize, expansion: usize, stride: usize, squeeze: bool) -> MBConvOptions {
    let squeeze = squeeze.then_some(((inputs / 4).max(2), Activation::Relu, Activation::Sigmoid));
    let (expanded, activation, norm) = (inputs * expansion, Activation::Relu, NormOptions::DEFAULT);
    MBConvOptions { inputs, expanded, outputs, kernel, stride, activation, squeeze, norm, stochastic_depth: 0.0 }
}

/// Returns the blocks of a genome; the size is halved in the first (of a large picture) and the
/// third.
pub fn blocks(genome: &Genome, size: usize) -> Vec<MBConvOptions> {
    let mut inputs = 8;
    let of = |(i, genes): (usize, &[usize])| {
        let stride = if i == 2 || (i == 0 && size > 8) { 2 } else { 1 };
        let options = block(inputs, WIDTHS[genes[2]], KERNELS[genes[0]], EXPANSIONS[genes[1]], stride, genes[3] == 1);
        inputs = options.outputs;
        options
    };
    genome.chunks(CHOICES.len()).enumerate().map(of).collect()
}

/// Builds a network of these blocks.
pub fn build(blocks: &[MBConvOptions]) -> Sequential {
    let (stem, last) = (blocks.first().map_or(8, |block| block.inputs), blocks.last().map_or(8, |block| block.outputs));
    let network = Sequential::new().push(ConvNormActivation::new(1, stem, 3, 1, Activation::Relu, NormOptions::DEFAULT));
    let network = blocks.iter().fold(network, |network, options| network.push(MBConv::new(options)));
    network.push(AdaptiveAvgPool2d::new(1)).push(Flatten).push(Linear::new(last, 10))
}
