//! Gradient checking: compares a backward pass with central differences.

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// Settings of [`gradcheck`]; the defaults suit smooth functions of values around one.
#[derive(Clone, Copy, Debug)]
pub struct GradCheck {
    /// Half the distance between the two points of a difference.
    pub step: f64,
    /// Allowed deviation, relative to the largest gradient (or to one, if that is smaller).
    pub tolerance: f64,
}

impl Default for GradCheck {
    fn default() -> Self {
        GradCheck { step: 1e-6, tolerance: 1e-6 }
    }
}

/// Compares the gradients of `function` at `inputs` with central differences, in `f64`.
///
/// The output is weighted with numbers that differ from element to element, so that an error in any
/// element shows.
///
/// ```
/// use convnet::{Tensor, DType, autograd::gradcheck};
///
/// let x = Tensor::from_vec(vec![0.3f64, -1.2], [2])?;
/// gradcheck(&[x], Default::default(), |inputs| inputs[0].tanh())?;
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Value`] that names the input, the element and both numbers when they differ by more
/// than the tolerance; [`Error::DType`] when an input or the output is not `f64`; any error of
/// `function`.
pub fn gradcheck(inputs: &[Tensor], settings: GradCheck, function: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    inputs.iter().try_for_each(|input| input.expect_dtype("gradcheck", DType::F64))?;
    let leaves: Vec<Tensor> = inputs.iter().map(Tensor::with_grad).collect();
    let output = function(&leaves)?;
    output.expect_dtype("gradcheck", DType::F64)?;
    let weights = Tensor::from_vec((0..output.numel()).map(weight).collect(), output.shape())?;
    let options = super::BackwardOptions { gradient: Some(weights), retain_graph: false };
    let gradients = output.backward_with(options)?;

    let value = |inputs: &[Tensor]| -> Result<f64> {
        let output = super::no_grad(|| function(inputs))?;
        Ok(output.to_vec::<f64>()?.iter().enumerate().map(|(i, y)| y * weight(i)).sum())
    };
    for (index, input) in inputs.iter().enumerate() {
        let analytic = match gradients.get(&leaves[index]) {
            Some(gradient) if gradient.shape() == input.shape() => gradient.to_vec::<f64>()?,
            Some(gradient) => {
                let (got, wanted) = (gradient.shape(), input.shape());
                return Err(Error::shape("gradcheck", format!("input {index} has shape {wanted:?}, its gradient {got:?}")));
            }
            None => vec![0.0; input.numel()],
        };
        let original = input.to_vec::<f64>()?;
        let numeric = (0..original.len())
            .map(|element| {
                let moved = |by: f64| -> Result<f64> {
                    let mut values = original.clone();
                    values[element] += by;
                    let mut inputs = inputs.to_vec();
                    let moved = Tensor::from_vec(values, input.shape())?;
                    inputs[index] = if input.ndim() == 4 { moved.to_format(input.memory_format())? } else { moved };
                    value(&inputs)
                };
                Ok((moved(settings.step)? - moved(-settings.step)?) / (2.0 * settings.step))
            })
            .collect::<Result<Vec<f64>>>()?;
        let scale = numeric.iter().fold(1.0f64, |scale, x| scale.max(x.abs()));
        for (element, (analytic, numeric)) in analytic.iter().zip(&numeric).enumerate() {
            // Written so that NaN fails.
            let agrees = (analytic - numeric).abs() <= settings.tolerance * scale;
            if !agrees {
                let message = format!("input {index}, element {element}: backward gives {analytic}, differences give {numeric}");
                return Err(Error::value("gradcheck", message));
            }
        }
    }
    Ok(())
}

/// Returns the weight of the output's element `i`: between 0.5 and 1.5, different for neighbours.
fn weight(i: usize) -> f64 {
    0.5 + (i as f64 * 0.618_033_988_749_895).fract()
}
