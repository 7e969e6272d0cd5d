//! What a convolution layer computes: cross-correlation, by hand and by the crate.

use convnet::ops::Conv2dOptions;
use convnet::{Result, Tensor};

use super::lab::{Experiment, Lab, ensure, table};

pub const EXPERIMENT: Experiment =
    Experiment { name: "correlation", claim: "a convolution layer is a cross-correlation: the worked 2×2 example starts with 19", run };

fn run(_lab: &Lab) -> Result<String> {
    let x = Tensor::from_vec((0..9).map(|i| i as f32).collect(), [1, 1, 3, 3])?;
    let kernel = Tensor::from_vec(vec![0f32, 1.0, 2.0, 3.0], [1, 1, 2, 2])?;
    let y = x.conv2d(&kernel, None, Conv2dOptions::default())?.to_vec::<f32>()?;
    table(&[["row".to_string(), "values".to_string()], ["0".to_string(), format!("{:?}", &y[..2])]]);
    ensure(y[0] == 19.0, format_args!("the first value is {}, not 19", y[0]))?;
    Ok(format!("first value {}", y[0]))
}
