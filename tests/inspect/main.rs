//! Inspection of networks: outputs and gradients by path, maps of what a class depends on.

mod attribution;
mod capture;
mod diagnoses;

use convnet::Tensor;

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec::<f32>().unwrap()
}

/// Compares with a tolerance for the rounding errors of sums of a few thousand products.
fn assert_close(found: &Tensor, expected: &Tensor) {
    convnet::assert_close!(found, expected, epsilon = 1e-4, max_relative = 1e-4);
}
