//! Maps that show which pixels of an input a class depends on.

use std::rc::Rc;

use super::capture::{Mode, Recorder};
use crate::autograd::enable_grad;
use crate::data::Rng;
use crate::error::{Error, Result};
use crate::nn::{Module, ModuleExt, SummaryRow, as_constants, in_evaluation};
use crate::no_grad;
use crate::ops::Interpolation;
use crate::profiling::watch::{self, Watcher};
use crate::tensor::{DType, Tensor};

/// The number of inputs that [`occlusion`] and [`integrated_gradients`] run through the network
/// together.
const BATCH: usize = 16;

/// Computes Grad-CAM (Selvaraju et al., *Grad-CAM: Visual Explanations from Deep Networks via
/// Gradient-Based Localization*, 2017): where in the picture the maps of a layer speak for a class.
///
/// Each map of the layer at `path`, usually the last block of convolutions, is weighted by the mean
/// of the class's gradient over the map; the sum is rectified and resized to the input's size,
/// bilinearly. The model runs in evaluation, and its parameters get no gradients.
///
/// ```
/// use convnet::{Tensor, inspect, models};
///
/// let model = models::create("resnet18", 10)?;
/// let x = Tensor::randn([1, 3, 64, 64]);
/// let heat = inspect::grad_cam(&model, "layer4", &x, 3)?; // or `None`: the class predicted
/// assert_eq!(heat.shape(), [64, 64]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Shape
/// `x` is one picture, `[1, C, H, W]` or `[C, H, W]`, and the model's output `[1, classes]`; the
/// result is `[H, W]`, of `f32`, not negative, and not scaled:
/// [`Image::overlay`](crate::data::Image::overlay) scales it.
///
/// # Errors
/// Those of the model; [`Error::Argument`] when there is no module at the path or no such class;
/// [`Error::Shape`] when `x` is not one picture or the layer's output is not `[1, maps, h, w]`.
pub fn grad_cam<M: Module + ?Sized>(model: &M, path: &str, x: &Tensor, class: impl Into<Option<usize>>) -> Result<Tensor> {
    let mean = |_: &[f32], gradient: &[f32]| gradient.iter().map(|&g| f64::from(g)).sum::<f64>() / gradient.len() as f64;
    activation_map("grad_cam", model.as_module(), path, x, class.into(), &mean)
}

/// Computes Grad-CAM++ (Chattopadhay et al., *Grad-CAM++: Generalized Gradient-Based Visual
/// Explanations for Deep Convolutional Networks*, 2018): [`grad_cam`] with weights that also find
/// several objects of the class.
///
/// The weight of a map `A` with gradient `G` is `Σ α · relu(G)` with `α = G² / (2 G² + G³ Σ A)`:
/// the paper's formula for the score `exp(y)`, without the common factor `exp(y)`.
///
/// # Shape
/// As for [`grad_cam`].
///
/// # Errors
/// As for [`grad_cam`].
pub fn grad_cam_plus_plus<M: Module + ?Sized>(model: &M, path: &str, x: &Tensor, class: impl Into<Option<usize>>) -> Result<Tensor> {
    let weight = |map: &[f32], gradient: &[f32]| {
        let sum: f64 = map.iter().map(|&a| f64::from(a)).sum();
        let terms = gradient.iter().map(|&g| f64::from(g)).filter(|&g| g > 0.0).map(|g| {
            // α with numerator and denominator divided by G².
            let denominator = 2.0 + g * sum;
            if denominator.abs() < 1e-6 { 0.0 } else { g / denominator }
        });
        terms.sum()
    };
    activation_map("grad_cam_plus_plus", model.as_module(), path, x, class.into(), &weight)
}

/// Sums the maps of a layer, each times the weight that `weight` computes from the map and its
/// gradient.
fn activation_map(
    op: &'static str,
    model: &dyn Module,
    path: &str,
    x: &Tensor,
    class: Option<usize>,
    weight: &dyn Fn(&[f32], &[f32]) -> f64,
) -> Result<Tensor> {
    let x = one_picture(op, x)?;
    let recorder = Recorder::new(op, model, [path], Mode::Cut)?;
    let (maps, gradient) = alone(model, || {
        let output = watch::watch(Rc::clone(&recorder) as Rc<dyn Watcher>, || model.forward(&x))?;
        let score = score(op, &output, class)?;
        let (_, maps) = recorder.take(op)?.pop().expect("one output at least for each path");
        let independent = || Error::argument(op, format!("the model's output does not depend on that of the module at path \"{path}\""));
        if !score.requires_grad() {
            return Err(independent());
        }
        let gradient = score.backward()?.remove(&maps).ok_or_else(independent)?;
        Ok::<_, Error>((maps.detach(), gradient))
    })?;
    let &[1, count, height, width] = maps.shape() else {
        let message = format!("expected a layer with an output [1, maps, h, w], got shape {:?} at path \"{path}\"", maps.shape());
        return Err(Error::shape(op, message));
    };
    if count * height * width == 0 {
        return Err(Error::shape(op, format!("the output at path \"{path}\" is empty: {:?}", maps.shape())));
    }
    let [values, slopes] = [&maps, &gradient].map(|tensor| tensor.to_dtype(DType::F32)?.to_vec::<f32>());
    let (values, slopes) = (values?, slopes?);
    let mut sum = vec![0.0f64; height * width];
    for (map, slope) in values.chunks_exact(height * width).zip(slopes.chunks_exact(height * width)) {
        let weight = weight(map, slope);
        sum.iter_mut().zip(map).for_each(|(sum, &a)| *sum += weight * f64::from(a));
    }
    let heat = Tensor::from_vec(sum.into_iter().map(|y| y.max(0.0) as f32).collect(), [1, 1, height, width])?;
    let size = [x.shape()[2], x.shape()[3]];
    no_grad(|| heat.interpolate(size, Interpolation::Bilinear { align_corners: false })?.reshape(size))
}

/// Computes the saliency map (Simonyan, Vedaldi & Zisserman, *Deep Inside Convolutional Networks*,
/// 2013): the absolute gradient of a class with respect to each pixel, the largest over the
/// channels.
///
/// ```
/// use convnet::{Tensor, inspect, nn::{Flatten, Linear, Sequential}};
///
/// let net = Sequential::new().push(Flatten).push(Linear::new(12, 2));
/// assert_eq!(inspect::saliency(&net, &Tensor::randn([1, 3, 2, 2]), 1)?.shape(), [2, 2]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Shape
/// As for [`grad_cam`].
///
/// # Errors
/// Those of the model; [`Error::Argument`] when there is no such class; [`Error::Shape`] when `x`
/// is not one picture.
pub fn saliency<M: Module + ?Sized>(model: &M, x: &Tensor, class: impl Into<Option<usize>>) -> Result<Tensor> {
    let x = one_picture("saliency", x)?;
    let gradient = input_gradient("saliency", model.as_module(), &x, &[class.into()])?;
    largest(&gradient)
}

/// Computes SmoothGrad (Smilkov et al., *SmoothGrad: removing noise by adding noise*, 2017): the
/// [`saliency`] of the mean gradient of `samples` copies of the picture with normal noise of
/// standard deviation `noise` times the picture's range of values. The paper recommends 50 samples
/// and a noise of 0.1 to 0.2. The same seed gives the same noise.
///
/// Without a class, each copy's gradient is that of the class predicted for the picture itself.
///
/// # Shape
/// As for [`grad_cam`].
///
/// # Errors
/// As for [`saliency`]; [`Error::Argument`] also for 0 samples and for noise that is negative or
/// not finite.
pub fn smooth_grad<M: Module + ?Sized>(
    model: &M,
    x: &Tensor,
    class: impl Into<Option<usize>>,
    samples: usize,
    noise: f64,
    seed: u64,
) -> Result<Tensor> {
    const OP: &str = "smooth_grad";
    if samples == 0 || !noise.is_finite() || noise < 0.0 {
        let message = format!("expected at least one sample and noise of 0 or more, got {samples} samples and noise {noise}");
        return Err(Error::argument(OP, message));
    }
    let (model, x) = (model.as_module(), one_picture(OP, x)?);
    let class = predicted(OP, model, &x, class.into())?;
    let values = x.to_dtype(DType::F64)?.to_vec::<f64>()?;
    let range = values.iter().copied().fold(f64::NEG_INFINITY, f64::max) - values.iter().copied().fold(f64::INFINITY, f64::min);
    let mut total: Option<Tensor> = None;
    for sample in 0..samples {
        let mut rng = Rng::for_sample(seed, 0, sample as u64);
        let mut noisy = values.clone();
        for pair in noisy.chunks_mut(2) {
            // Box and Muller's method.
            let (radius, angle) = ((-2.0 * (1.0 - rng.unit()).ln()).sqrt() * noise * range, std::f64::consts::TAU * rng.unit());
            pair.iter_mut().zip([angle.cos(), angle.sin()]).for_each(|(value, direction)| *value += radius * direction);
        }
        let noisy = Tensor::from_vec(noisy, x.shape())?.to_dtype(x.dtype())?;
        let gradient = input_gradient(OP, model, &noisy, &[Some(class)])?;
        total = Some(match total {
            Some(total) => total.add(&gradient)?,
            None => gradient,
        });
    }
    let total = total.expect("at least one sample");
    largest(&no_grad(|| total.try_mul_scalar(1.0 / samples as f64))?)
}

/// Computes integrated gradients (Sundararajan, Taly & Yan, *Axiomatic Attribution for Deep
/// Networks*, 2017): how much each value of the picture adds to the score of a class, compared with
/// a baseline. The attributions sum up to the difference of the two scores, up to the error of the
/// integration, which is by Gauss and Legendre's rule with `steps` points, as in Captum; 50 are its
/// default.
///
/// The baseline is zero when `None`: black, or the mean colour of normalised pictures.
/// [`heat_of`] makes a map of the result.
///
/// ```
/// use convnet::{Tensor, inspect, nn::{Flatten, Linear, Module, Sequential}};
///
/// let net = Sequential::new().push(Flatten).push(Linear::new(4, 2));
/// let x = Tensor::randn([1, 1, 2, 2]);
/// let parts = inspect::integrated_gradients(&net, &x, 0, None, 8)?;
/// let difference = net.forward(&x)?.sub(&net.forward(&Tensor::zeros([1, 1, 2, 2]))?)?.to_vec::<f32>()?[0];
/// assert!((parts.sum(..)?.item::<f32>()? - difference).abs() < 1e-5);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Shape
/// `x` and the baseline are one picture, `[1, C, H, W]` or `[C, H, W]`; the result is
/// `[1, C, H, W]`.
///
/// # Errors
/// As for [`saliency`]; [`Error::Shape`] when the baseline's shape is not that of `x`;
/// [`Error::Argument`] for 0 steps or more than 1,000.
pub fn integrated_gradients<M: Module + ?Sized>(
    model: &M,
    x: &Tensor,
    class: impl Into<Option<usize>>,
    baseline: Option<&Tensor>,
    steps: usize,
) -> Result<Tensor> {
    const OP: &str = "integrated_gradients";
    if !(1..=1000).contains(&steps) {
        return Err(Error::argument(OP, format!("expected 1 to 1,000 steps, got {steps}")));
    }
    let (model, x) = (model.as_module(), one_picture(OP, x)?);
    let baseline = match baseline {
        Some(baseline) => one_picture(OP, baseline)?.to_dtype(x.dtype())?,
        None => no_grad(|| x.try_mul_scalar(0.0))?,
    };
    if baseline.shape() != x.shape() {
        return Err(Error::shape(OP, format!("the baseline's shape is {:?}, the picture's {:?}", baseline.shape(), x.shape())));
    }
    let class = predicted(OP, model, &x, class.into())?;
    no_grad(|| {
        let difference = x.sub(&baseline)?;
        let mut total = difference.try_mul_scalar(0.0)?;
        for points in gauss_legendre(steps).chunks(BATCH) {
            let between = |&(at, _): &(f64, f64)| baseline.add(&difference.try_mul_scalar(at)?);
            let inputs = points.iter().map(between).collect::<Result<Vec<_>>>()?;
            let inputs = Tensor::cat(&inputs.iter().collect::<Vec<_>>(), 0)?;
            let gradients = input_gradient(OP, model, &inputs, &vec![Some(class); points.len()])?;
            for (i, &(_, weight)) in points.iter().enumerate() {
                total = total.add(&gradients.narrow(0, i, 1)?.try_mul_scalar(weight)?)?;
            }
        }
        total.mul(&difference)
    })
}

/// Returns points and weights of Gauss and Legendre's rule on `[0, 1]`. The points are roots of
/// Legendre's polynomial, found by Newton's method.
fn gauss_legendre(count: usize) -> Vec<(f64, f64)> {
    let n = count as f64;
    let point = |i: usize| {
        let mut x = (std::f64::consts::PI * (i as f64 + 0.75) / (n + 0.5)).cos();
        let mut slope = 1.0;
        // Ten times as many rounds as the method needs.
        for _ in 0..50 {
            let (mut before, mut value) = (1.0, x);
            for degree in 2..=count {
                let k = degree as f64;
                (before, value) = (value, ((2.0 * k - 1.0) * x * value - (k - 1.0) * before) / k);
            }
            slope = if count == 1 { 1.0 } else { n * (x * value - before) / (x * x - 1.0) };
            x -= value / slope;
        }
        // The weight on [-1, 1] is 2 / ((1 − x²) slope²).
        ((1.0 + x) / 2.0, 1.0 / ((1.0 - x * x) * slope * slope))
    };
    (0..count).map(point).collect()
}

/// Computes an occlusion map (Zeiler & Fergus, *Visualizing and Understanding Convolutional
/// Networks*, 2014): how much the score of a class falls when a window of the picture is covered by
/// `fill`.
///
/// The window moves by the stride, the last one of a row or column may reach beyond the edge, and a
/// pixel gets the mean of the windows that cover it, as in Captum. The network runs once for each
/// window.
///
/// ```
/// use convnet::{Tensor, inspect, nn::{Flatten, Linear, Sequential}};
///
/// let net = Sequential::new().push(Flatten).push(Linear::new(16, 2));
/// let heat = inspect::occlusion(&net, &Tensor::randn([1, 1, 4, 4]), 0, 2, 2, 0.0)?;
/// assert_eq!(heat.shape(), [4, 4]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Shape
/// As for [`grad_cam`]; the result may be negative, where covering raises the score.
///
/// # Errors
/// As for [`saliency`]; [`Error::Argument`] also for a window or a stride of 0, and for a stride
/// longer than the window, which leaves pixels out.
pub fn occlusion<M: Module + ?Sized>(
    model: &M,
    x: &Tensor,
    class: impl Into<Option<usize>>,
    window: impl Into<crate::Pair>,
    stride: impl Into<crate::Pair>,
    fill: f32,
) -> Result<Tensor> {
    const OP: &str = "occlusion";
    let (model, x) = (model.as_module(), one_picture(OP, x)?);
    let (window, stride) = (window.into().0, stride.into().0);
    let &[_, channels, height, width] = x.shape() else { unreachable!("the shape has been checked") };
    let fits = |axis: usize| stride[axis] > 0 && stride[axis] <= window[axis];
    if !(fits(0) && fits(1)) {
        return Err(Error::argument(OP, format!("expected strides from 1 to the window's size, got window {window:?}, stride {stride:?}")));
    }
    let starts = |size: usize, axis: usize| (0..=size.saturating_sub(window[axis]).div_ceil(stride[axis])).map(move |i| i * stride[axis]);
    let corners: Vec<[usize; 2]> = starts(height, 0).flat_map(|top| starts(width, 1).map(move |left| [top, left])).collect();
    let class = predicted(OP, model, &x, class.into())?;
    let values = x.to_dtype(DType::F32)?.to_vec::<f32>()?;
    let scores = |inputs: Vec<f32>, count: usize| {
        let inputs = Tensor::from_vec(inputs, [count, channels, height, width])?.to_dtype(x.dtype())?;
        let output = in_evaluation(model, || no_grad(|| model.forward(&inputs)))?;
        column(OP, &output, count, class)?.to_dtype(DType::F64)?.to_vec::<f64>()
    };
    let whole = scores(values.clone(), 1)?[0];
    let (mut sums, mut counts) = (vec![0.0f64; height * width], vec![0u32; height * width]);
    for corners in corners.chunks(BATCH) {
        let mut inputs = values.repeat(corners.len());
        let covered = |[top, left]: [usize; 2]| {
            let (bottom, right) = (top.saturating_add(window[0]).min(height), left.saturating_add(window[1]).min(width));
            (top..bottom).map(move |row| row * width + left..row * width + right)
        };
        for (input, &corner) in inputs.chunks_exact_mut(values.len()).zip(corners) {
            for plane in input.chunks_exact_mut(height * width) {
                covered(corner).for_each(|row| plane[row].fill(fill));
            }
        }
        for (score, &corner) in scores(inputs, corners.len())?.into_iter().zip(corners) {
            for at in covered(corner).flatten() {
                sums[at] += whole - score;
                counts[at] += 1;
            }
        }
    }
    let heat = sums.iter().zip(&counts).map(|(sum, &count)| (sum / f64::from(count.max(1))) as f32).collect();
    Tensor::from_vec(heat, [height, width])
}

/// Makes a map `[H, W]` of attributions `[1, C, H, W]`, such as those of [`integrated_gradients`]:
/// the absolute value of the sum over the channels.
///
/// # Errors
/// [`Error::Shape`] unless the tensor is one picture.
pub fn heat_of(attributions: &Tensor) -> Result<Tensor> {
    let x = one_picture("heat_of", attributions)?;
    no_grad(|| x.sum([0, 1])?.abs().to_dtype(DType::F32))
}

/// Returns the path of the last layer or block whose output is a stack of maps, `[N, C, h, w]` with
/// more than one position: the usual one for [`grad_cam`]. Of blocks inside each other with outputs
/// of the same shape, it is the outermost. Only shapes are computed, for an input of this shape.
///
/// ```
/// use convnet::{inspect, models};
///
/// assert_eq!(inspect::last_maps(&models::resnet18(10), [1, 3, 224, 224])?, "layer4");
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Those of [`summary`](crate::nn::ModuleExt::summary); [`Error::Argument`] when no output is a
/// stack of maps.
pub fn last_maps<M: Module + ?Sized>(model: &M, input_shape: impl AsRef<[usize]>) -> Result<String> {
    let rows = model.summary(input_shape)?.rows;
    let maps = |row: &&SummaryRow| !row.path.is_empty() && matches!(row.output.as_deref(), Some(&[_, _, h, w]) if h * w > 1);
    let Some(last) = rows.iter().rev().find(maps) else {
        return Err(Error::argument("last_maps", "no layer of the model gives maps [N, C, h, w]".to_string()));
    };
    let contains = |row: &&SummaryRow| last.path.strip_prefix(&row.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let same = rows.iter().filter(maps).find(|row| contains(row) && row.output == last.output);
    Ok(same.unwrap_or(last).path.clone())
}

/// Returns the picture as `[1, C, H, W]`, without history.
fn one_picture(op: &'static str, x: &Tensor) -> Result<Tensor> {
    x.expect_float(op)?;
    match *x.shape() {
        [1, c, h, w] if c * h * w > 0 => Ok(x.detach()),
        [c, h, w] if c * h * w > 0 => x.detach().reshape([1, c, h, w]),
        _ => Err(Error::shape(op, format!("expected one picture, [1, C, H, W] or [C, H, W], got shape {:?}", x.shape()))),
    }
}

/// Runs `body` with the model in evaluation, with history, and with parameters that get no
/// gradients.
fn alone<R>(model: &dyn Module, body: impl FnOnce() -> R) -> R {
    in_evaluation(model, || as_constants(|| enable_grad(body)))
}

/// Returns the gradient of the sum of each input's score, `[N, C, H, W]`.
fn input_gradient(op: &'static str, model: &dyn Module, x: &Tensor, classes: &[Option<usize>]) -> Result<Tensor> {
    let x = x.with_grad();
    alone(model, || {
        let output = model.forward(&x)?;
        let total = match classes {
            [class] => score(op, &output, *class)?,
            classes => {
                let class = classes.first().copied().flatten().unwrap_or(0);
                column(op, &output, classes.len(), class)?.sum(..)?
            }
        };
        let independent = || Error::argument(op, "the model's output does not depend on its input".to_string());
        if !total.requires_grad() {
            return Err(independent());
        }
        total.backward()?.remove(&x).ok_or_else(independent)
    })
}

/// Returns the scores of a class, `[count, 1]`, from an output `[count, classes]`.
fn column(op: &'static str, output: &Tensor, count: usize, class: usize) -> Result<Tensor> {
    let classes = match *output.shape() {
        [n, classes] if n == count && classes > 0 => classes,
        _ => return Err(Error::shape(op, format!("expected a model whose output is [{count}, classes], got shape {:?}", output.shape()))),
    };
    if class >= classes {
        return Err(Error::argument(op, format!("class {class} does not exist; the model has classes 0 to {}", classes - 1)));
    }
    output.narrow(1, class, 1)
}

/// Returns the score of a class, or of the class of the highest score.
fn score(op: &'static str, output: &Tensor, class: Option<usize>) -> Result<Tensor> {
    let class = match class {
        Some(class) => class,
        None => {
            column(op, output, 1, 0)?;
            output.argmax(..)?.item::<i64>()? as usize
        }
    };
    column(op, output, 1, class)?.sum(..)
}

/// Returns the class, or the one of the highest score for the picture.
fn predicted(op: &'static str, model: &dyn Module, x: &Tensor, class: Option<usize>) -> Result<usize> {
    if let Some(class) = class {
        return Ok(class);
    }
    let output = in_evaluation(model, || no_grad(|| model.forward(x)))?;
    column(op, &output, 1, 0)?;
    Ok(output.argmax(..)?.item::<i64>()? as usize)
}

/// Returns the largest absolute value over the channels, `[H, W]`.
fn largest(gradient: &Tensor) -> Result<Tensor> {
    no_grad(|| gradient.abs().max([0, 1])?.to_dtype(DType::F32))
}
