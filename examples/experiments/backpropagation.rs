//! Back-propagation by hand, line by line, beside autograd.
//!
//! The error δ of a layer is the derivative of the loss by the layer's sums z, before the
//! activation (Rumelhart, Hinton and Williams, 1986). In a dense network δ goes back through the
//! transposed weights, δ₁ = W₂ᵀδ₂ ∘ σ'(z₁), and a weight's gradient is δ times what the weight was
//! multiplied with. A convolution is the same with shared weights: its gradient adds δ times the
//! picture over all places, which is a correlation of the picture with δ, and δ reaches the picture
//! through the flipped kernel. Mean pooling hands every pixel of a window its share, maximum
//! pooling hands all of it to the winner.
//!
//! The functions below use loops over plain numbers and nothing of the crate. Each derivative is
//! compared with autograd's, in double precision; the largest difference has to be below 1e-12.
//! Look at the picture: the picture, then δ after pooling, at the convolution, at the picture, with
//! maximum pooling above and mean pooling below.

use convnet::autograd::Gradients;
use convnet::data::{Image, Rng};
use convnet::ops::{Conv2dOptions, Pool2dOptions};
use convnet::{Error, Result, Tensor};

use super::lab::{Experiment, Lab, ensure, signed, table};

pub const EXPERIMENT: Experiment =
    Experiment { name: "backpropagation", claim: "δ worked out by hand, layer by layer, is what autograd computes", run };

fn run(lab: &Lab) -> Result<String> {
    let mut rows = vec![["derivative", "largest value", "largest difference"].map(String::from)];
    let mut worst = 0f64;
    let mut compare = |name: &str, by_hand: &[f64], tensor: &Tensor| -> Result<()> {
        let values = tensor.to_vec::<f64>()?;
        ensure(values.len() == by_hand.len(), format_args!("{name}: {} values by hand, {} by autograd", by_hand.len(), values.len()))?;
        let difference = values.iter().zip(by_hand).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let largest = by_hand.iter().map(|value| value.abs()).fold(0.0, f64::max);
        rows.push([name.to_string(), format!("{largest:.3e}"), format!("{difference:.1e}")]);
        worst = worst.max(difference);
        ensure(largest > 1e-6, format_args!("{name}: all derivatives are 0, which shows nothing"))
    };

    dense(&mut Rng::new(lab.seed), &mut compare)?;
    let mut pictures = Vec::new();
    for pooling in [Pooling::Max, Pooling::Mean] {
        // The same picture and weights for both.
        pictures.extend(convolution(&mut Rng::new(lab.seed), pooling, &mut compare)?);
    }
    let count = rows.len() - 1;
    table(&rows);
    lab.save("backpropagation.png", &Image::grid(&pictures, 4, 6)?)?;
    ensure(worst < 1e-12, format_args!("a derivative differs by {worst:.1e}"))?;
    Ok(format!("{count} derivatives by hand and by autograd differ by at most {worst:.1e}"))
}

type Compare<'a> = dyn FnMut(&str, &[f64], &Tensor) -> Result<()> + 'a;

fn gradient<'a>(gradients: &'a Gradients, tensor: &Tensor) -> Result<&'a Tensor> {
    gradients.get(tensor).ok_or_else(|| Error::msg("autograd has no gradient"))
}

fn numbers(rng: &mut Rng, count: usize) -> Vec<f64> {
    (0..count).map(|_| rng.uniform(-1.0, 1.0)).collect()
}

/// Multiplies a matrix of rows of `x.len()` numbers with `x`.
fn product(w: &[f64], x: &[f64]) -> Vec<f64> {
    w.chunks(x.len()).map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum()).collect()
}

/// Multiplies the transposed matrix with `delta`.
fn transposed_product(w: &[f64], delta: &[f64]) -> Vec<f64> {
    let inputs = w.len() / delta.len();
    (0..inputs).map(|i| delta.iter().enumerate().map(|(o, delta)| w[o * inputs + i] * delta).sum()).collect()
}

/// Returns δ of each row times each input.
fn outer(delta: &[f64], x: &[f64]) -> Vec<f64> {
    delta.iter().flat_map(|delta| x.iter().map(move |x| delta * x)).collect()
}

/// A network 4 → 5 → 3 with sigmoids and the loss ½‖a − t‖².
fn dense(rng: &mut Rng, compare: &mut Compare) -> Result<()> {
    let (x, target) = (numbers(rng, 4), numbers(rng, 3));
    let (w1, b1, w2, b2) = (numbers(rng, 20), numbers(rng, 5), numbers(rng, 15), numbers(rng, 3));

    // Forward.
    let sigmoid = |z: &f64| 1.0 / (1.0 + (-z).exp());
    let z1: Vec<f64> = product(&w1, &x).iter().zip(&b1).map(|(z, b)| z + b).collect();
    let a1: Vec<f64> = z1.iter().map(sigmoid).collect();
    let z2: Vec<f64> = product(&w2, &a1).iter().zip(&b2).map(|(z, b)| z + b).collect();
    let a2: Vec<f64> = z2.iter().map(sigmoid).collect();
    // Backward: the derivative of σ is σ(1 − σ).
    let delta2: Vec<f64> = a2.iter().zip(&target).map(|(a, t)| (a - t) * a * (1.0 - a)).collect();
    let delta1: Vec<f64> = transposed_product(&w2, &delta2).iter().zip(&a1).map(|(back, a)| back * a * (1.0 - a)).collect();

    let leaf = |values: &[f64], shape: &[usize]| Ok::<_, Error>(Tensor::from_vec(values.to_vec(), shape)?.with_grad());
    let (tx, tw1, tb1) = (leaf(&x, &[4, 1])?, leaf(&w1, &[5, 4])?, leaf(&b1, &[5, 1])?);
    let (tw2, tb2) = (leaf(&w2, &[3, 5])?, leaf(&b2, &[3, 1])?);
    let a2 = tw2.matmul(&tw1.matmul(&tx)?.add(&tb1)?.sigmoid()?)?.add(&tb2)?.sigmoid()?;
    let error = a2.sub(&Tensor::from_vec(target, [3, 1])?)?;
    let gradients = (error.mul(&error)?.sum(..)? * 0.5).backward()?;
    // The derivative by a bias is δ.
    for (name, by_hand, tensor) in [
        ("dense: δ₂ = (a₂ − t) ∘ σ'(z₂)", delta2.clone(), &tb2),
        ("dense: ∂W₂ = δ₂a₁ᵀ", outer(&delta2, &a1), &tw2),
        ("dense: δ₁ = W₂ᵀδ₂ ∘ σ'(z₁)", delta1.clone(), &tb1),
        ("dense: ∂W₁ = δ₁xᵀ", outer(&delta1, &x), &tw1),
        ("dense: ∂x = W₁ᵀδ₁", transposed_product(&w1, &delta1), &tx),
    ] {
        compare(name, &by_hand, gradient(&gradients, tensor)?)?;
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Pooling {
    Max,
    Mean,
}

/// Side of the picture, of the kernel, of the convolution's output, and of the pooled one.
const SIDE: usize = 10;
const KERNEL: usize = 3;
const OUT: usize = SIDE - KERNEL + 1;
const POOLED: usize = OUT / 2;
const CLASSES: usize = 3;

/// A convolution, ReLU, pooling of 2×2, a dense layer and the cross-entropy of class 0. Returns
/// heat maps of the picture and of δ.
fn convolution(rng: &mut Rng, pooling: Pooling, compare: &mut Compare) -> Result<Vec<Image>> {
    let x: Vec<f64> = (0..SIDE * SIDE).map(|i| f64::from(i / SIDE % 5 > 1) - 0.3 + rng.uniform(-0.3, 0.3)).collect();
    let (w, bias, v) = (numbers(rng, KERNEL * KERNEL), rng.uniform(0.0, 0.2), numbers(rng, CLASSES * POOLED * POOLED));

    // Forward.
    let z: Vec<f64> =
        places(OUT).map(|(r, c)| bias + places(KERNEL).map(|(i, j)| w[i * KERNEL + j] * x[(r + i) * SIDE + c + j]).sum::<f64>()).collect();
    let a: Vec<f64> = z.iter().map(|z| z.max(0.0)).collect();
    let window = |r: usize, c: usize| [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| (2 * r + i) * OUT + 2 * c + j);
    let winner = |r, c| window(r, c).into_iter().reduce(|best, at| if a[at] > a[best] { at } else { best }).unwrap_or(0);
    let pooled: Vec<f64> = places(POOLED)
        .map(|(r, c)| match pooling {
            Pooling::Max => a[winner(r, c)],
            Pooling::Mean => window(r, c).iter().map(|&at| a[at] / 4.0).sum(),
        })
        .collect();
    let logits = product(&v, &pooled);
    let sum: f64 = logits.iter().map(|y| y.exp()).sum();

    // Backward: softmax and cross-entropy together give probability − target.
    let delta_logits: Vec<f64> = logits.iter().enumerate().map(|(class, y)| y.exp() / sum - f64::from(u8::from(class == 0))).collect();
    let delta_pooled = transposed_product(&v, &delta_logits);
    let mut delta = vec![0.0; OUT * OUT];
    for ((r, c), back) in places(POOLED).zip(&delta_pooled) {
        match pooling {
            Pooling::Max => delta[winner(r, c)] += back,
            Pooling::Mean => window(r, c).iter().for_each(|&at| delta[at] += back / 4.0),
        }
    }
    // Through ReLU: only where its input was above 0.
    delta.iter_mut().zip(&z).filter(|(_, z)| **z <= 0.0).for_each(|(delta, _)| *delta = 0.0);
    // Each weight met a pixel at every place: the correlation of the picture with δ.
    let weight: Vec<f64> =
        places(KERNEL).map(|(i, j)| places(OUT).map(|(r, c)| delta[r * OUT + c] * x[(r + i) * SIDE + c + j]).sum()).collect();
    // Each pixel went to the places around it: δ with a border of zeros, with the kernel flipped.
    let picture: Vec<f64> = places(SIDE)
        .map(|(r, c)| {
            let inside = places(KERNEL).filter(|&(i, j)| r >= i && c >= j && r - i < OUT && c - j < OUT);
            inside.map(|(i, j)| w[i * KERNEL + j] * delta[(r - i) * OUT + c - j]).sum()
        })
        .collect();

    let leaf = |values: &[f64], shape: &[usize]| Ok::<_, Error>(Tensor::from_vec(values.to_vec(), shape)?.with_grad());
    let (tx, tw, tb) = (leaf(&x, &[1, 1, SIDE, SIDE])?, leaf(&w, &[1, 1, KERNEL, KERNEL])?, leaf(&[bias], &[1])?);
    let tv = leaf(&v, &[CLASSES, POOLED * POOLED])?;
    let sums = tx.conv2d(&tw, Some(&tb), Conv2dOptions::default())?;
    sums.retain_grad();
    let maps = match pooling {
        Pooling::Max => sums.relu().max_pool2d(2, Pool2dOptions::default())?,
        Pooling::Mean => sums.relu().avg_pool2d(2, Pool2dOptions::default())?,
    };
    maps.retain_grad();
    let loss = maps.flatten(1, -1)?.matmul(&tv.transpose(0, 1)?)?.cross_entropy(&Tensor::from_vec(vec![0i64], [1])?)?;
    let gradients = loss.backward()?;
    for (part, by_hand, tensor) in [
        ("∂V = (p − t)aᵀ", &outer(&delta_logits, &pooled), &tv),
        ("δ of the pooled maps", &delta_pooled, &maps),
        ("δ of the convolution", &delta, &sums),
        ("∂w = x ⋆ δ", &weight, &tw),
        ("∂b = Σδ", &vec![delta.iter().sum()], &tb),
        ("∂x = δ ∗ flipped w", &picture, &tx),
    ] {
        compare(&format!("{pooling:?} pooling: {part}"), by_hand, gradient(&gradients, tensor)?)?;
    }
    [(&x, SIDE), (&delta_pooled, POOLED), (&delta, OUT), (&picture, SIDE)]
        .into_iter()
        .map(|(values, side)| signed(values, side, 160))
        .collect()
}

/// Returns all rows and columns of a square.
fn places(side: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..side * side).map(move |i| (i / side, i % side))
}
