//! MobileNets: networks for mobile phones, made of depthwise convolutions.
//!
//! A depthwise convolution combines neighbouring pixels within each channel, a 1×1 convolution
//! mixes the channels: together they need about an eighth of the computation of a full 3×3
//! convolution. Each version has a file: [`v1`], [`v2`], [`v3`].

mod v1;
mod v2;
mod v3;

pub use v1::{DepthwiseSeparable, MobileNetV1, mobilenet_v1};
pub use v2::{InvertedResidual, MobileNetV2, mobilenet_v2};
pub use v3::{MobileNetV3, mobilenet_v3_large, mobilenet_v3_small};

use crate::nn::init::{Init, ParamInfo};

/// Returns torchvision's initialisation of mobile networks.
fn torchvision_start(at: ParamInfo<'_>) -> Option<Init> {
    match (at.layer, at.name) {
        ("Conv2d", "weight") => Some(Init::kaiming_fan_out(at.shape)),
        ("Linear", "weight") => Some(Init::Normal(0.01)),
        ("Conv2d" | "Linear", "bias") => Some(Init::Constant(0.0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::ModelOptions;
    use crate::nn::{Module, ModuleExt};
    use crate::tensor::Tensor;

    #[test]
    fn widths_are_scaled_and_the_scaled_networks_run() {
        let x = Tensor::randn([2, 1, 32, 32]);
        let options = ModelOptions::new(3).input_channels(1);
        let v1 = MobileNetV1::with_width(0.25, options);
        let v2 = MobileNetV2::with_width(0.5, options);
        let v3 = MobileNetV3::small(0.5, options);
        assert!(v1.num_parameters() < mobilenet_v1(options).num_parameters() / 8);
        for net in [&v1 as &dyn Module, &v2, &v3] {
            assert_eq!(net.forward(&x).unwrap().shape(), [2, 3]);
        }
    }

    #[test]
    fn weights_have_the_deviation_of_kaiming_initialisation() {
        let state = mobilenet_v2(10).state_dict();
        let weights = state.get("features.18.0.weight").unwrap().to_vec::<f32>().unwrap();
        let std = (weights.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() / weights.len() as f64).sqrt();
        // For 409,600 weights, the standard error of the deviation is 1 / √(2n), 0.1 %.
        approx::assert_relative_eq!(std, (2.0f64 / 1280.0).sqrt(), max_relative = 0.01);
    }
}
