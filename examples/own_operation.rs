//! An operation that the crate does not have, with its own forward and backward pass.
//!
//! The complex product of two numbers, given as two tensors each: four inputs and two outputs. Its
//! backward pass is written by hand, compared with central differences, and then used to find, by
//! gradient descent, the complex number that rotates and scales a set of points as wanted.
//!
//! ```sh
//! cargo run --release --example own_operation
//! ```
//!
//! It prints the loss at every tenth step, and last the number found, 0.6 + 0.8i.

use convnet::autograd::{CustomOp, gradcheck};
use convnet::{Result, Tensor};

/// Computes the real and the imaginary part of `(a + ib)·(c + id)`; the four parts broadcast
/// against each other.
fn complex_mul([a, b]: [&Tensor; 2], [c, d]: [&Tensor; 2]) -> Result<[Tensor; 2]> {
    let outputs = CustomOp::new("complex_mul").pointwise().apply_many(&[a, b, c, d], |inputs| {
        // The inputs come without history, so the backward pass may keep them.
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| inputs[i].clone());
        let real = a.mul(&c)?.sub(&b.mul(&d)?)?;
        let imaginary = a.mul(&d)?.add(&b.mul(&c)?)?;
        let shape = real.shape().to_vec();

        let backward = move |grads: &[Option<Tensor>], wanted: &[bool]| {
            // An output that the loss does not depend on has no gradient.
            let grad = |output: usize| grads[output].clone().unwrap_or_else(|| Tensor::zeros(&shape));
            let (real, imaginary) = (grad(0), grad(1));
            // Only wanted gradients are computed. Where an input was broadcast, the engine sums.
            let gradient = |input: usize| -> Result<Option<Tensor>> {
                if !wanted[input] {
                    return Ok(None);
                }
                Ok(Some(match input {
                    0 => real.mul(&c)?.add(&imaginary.mul(&d)?)?,
                    1 => imaginary.mul(&c)?.sub(&real.mul(&d)?)?,
                    2 => real.mul(&a)?.add(&imaginary.mul(&b)?)?,
                    _ => imaginary.mul(&a)?.sub(&real.mul(&b)?)?,
                }))
            };
            (0..4).map(gradient).collect()
        };
        Ok((vec![real, imaginary], backward))
    })?;
    Ok(outputs.try_into().expect("two outputs"))
}

fn main() -> Result<()> {
    // Backward against central differences, in f64; the last two inputs are broadcast.
    let parts = [vec![0.3, -1.2, 2.0], vec![0.7, 0.4, -0.9], vec![1.1], vec![-0.6]];
    let inputs = parts.into_iter().map(|part: Vec<f64>| Tensor::from_vec(part.clone(), [part.len()])).collect::<Result<Vec<_>>>()?;
    gradcheck(&inputs, Default::default(), |x| {
        let [real, imaginary] = complex_mul([&x[0], &x[1]], [&x[2], &x[3]])?;
        real.square()?.add(&imaginary)
    })?;
    println!("backward agrees with central differences");

    // The number z with z·point = target for all points.
    let points = [Tensor::from_vec(vec![1.0f32, 0.0, -0.5], [3])?, Tensor::from_vec(vec![0.0f32, 1.0, 0.5], [3])?];
    let answer = [Tensor::full([1], 0.6, points[0].dtype()), Tensor::full([1], 0.8, points[0].dtype())];
    let target = complex_mul([&points[0], &points[1]], [&answer[0], &answer[1]])?;
    let mut z = [Tensor::ones([1]), Tensor::zeros([1])];
    for step in 0..50 {
        let leaves = [z[0].with_grad(), z[1].with_grad()];
        let [real, imaginary] = complex_mul([&points[0], &points[1]], [&leaves[0], &leaves[1]])?;
        let loss = real.sub(&target[0])?.square()?.add(&imaginary.sub(&target[1])?.square()?)?.mean(..)?;
        let gradients = loss.backward()?;
        for (part, leaf) in z.iter_mut().zip(&leaves) {
            *part = part.sub(&gradients.get(leaf).expect("both parts take part").mul_scalar(0.3))?;
        }
        if step % 10 == 0 {
            println!("step {step:2}: loss {:.6}", loss.item::<f32>()?);
        }
    }
    println!("z = {:.3} + {:.3}i", z[0].item::<f32>()?, z[1].item::<f32>()?);
    Ok(())
}
