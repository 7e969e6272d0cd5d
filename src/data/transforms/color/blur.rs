//! Gaussian blur.

use crate::data::image::{Pixels, try_reserved};
use crate::data::transforms::{Deterministic, Transform, deterministic};
use crate::data::{Image, Rng};
use crate::error::{Error, Result};
use crate::kernels::runtime::simd::{Real, vectorize};
use crate::tensor::Pair;

/// Blurs with a Gaussian bell of fixed width (torchvision's `gaussian_blur`).
///
/// Beyond its border the image is continued by its mirror image. Bytes are rounded; since
/// torchvision adds products in another order, they may differ from its bytes by 1.
///
/// ```
/// use convnet::data::{Blur, Image};
///
/// let mut image = Image::new(1, 1, 5)?;
/// image.pixels_mut()[2] = 1.0;
/// image.apply(&Blur::new([1, 3], 1.0))?;
/// assert!((image.pixels()[1] - 0.27407).abs() < 1e-5);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when a side of the kernel is even or reaches beyond the
/// mirror image, or the width of the bell is not positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blur {
    kernel: [usize; 2],
    sigma: f64,
}

impl Blur {
    /// Makes a blur with a kernel of this size (one number for both sides, or height and width),
    /// odd, and a bell of standard deviation `sigma`, in pixels.
    pub fn new(kernel_size: impl Into<Pair>, sigma: f64) -> Blur {
        Blur { kernel: kernel_size.into().0, sigma }
    }
}

impl Deterministic for Blur {
    fn transform(&self, image: &mut Image) -> Result<()> {
        let ([vertical, horizontal], sigma) = (self.kernel, self.sigma);
        if vertical % 2 == 0 || horizontal % 2 == 0 {
            return Err(Error::argument("gaussian blur", format!("the sides of a kernel must be odd, got {vertical}×{horizontal}")));
        }
        if !(sigma > 0.0 && sigma.is_finite()) {
            return Err(Error::argument("gaussian blur", format!("sigma must be positive and finite, got {sigma}")));
        }
        let [channels, height, width] = image.shape();
        if image.shape().contains(&0) {
            return Ok(());
        }
        if vertical / 2 >= height || horizontal / 2 >= width {
            let message = format!("a kernel of {vertical}×{horizontal} is too large for the mirror image of {height}×{width} pixels");
            return Err(Error::argument("gaussian blur", message));
        }
        let mut rows = try_reserved([channels, height, width])?;
        match &image.pixels {
            Pixels::Bytes(bytes) => rows.extend(bytes.iter().map(|&x| f32::from(x))),
            Pixels::Floats(values) => rows.extend_from_slice(values),
        }
        blur_rows(&mut rows, channels, width, &bell(horizontal, sigma));
        let weights = bell(vertical, sigma);
        let row = channels * width;
        let sum_of = |y: usize, sum: &mut [f32]| {
            sum.fill(0.0);
            for (k, &weight) in weights.iter().enumerate() {
                let source = mirrored((y + k) as isize - (weights.len() / 2) as isize, height);
                sum.iter_mut().zip(&rows[source * row..]).for_each(|(sum, x)| *sum += weight * x);
            }
        };
        match &mut image.pixels {
            Pixels::Floats(values) => vectorize!(f32, {
                values.chunks_exact_mut(row).enumerate().for_each(|(y, out)| sum_of(y, out));
            }),
            Pixels::Bytes(bytes) => {
                let mut sum = vec![0.0; row];
                vectorize!(f32, {
                    for (y, out) in bytes.chunks_exact_mut(row).enumerate() {
                        sum_of(y, &mut sum);
                        out.iter_mut().zip(&sum).for_each(|(out, sum)| *out = sum.clamp(0.0, 255.0).to_byte());
                    }
                });
            }
        }
        Ok(())
    }
}

deterministic!(Blur);

/// Blurs with a Gaussian bell of random width (torchvision's `GaussianBlur`).
///
/// ```
/// use convnet::data::{GaussianBlur, Image, Rng, Transform};
///
/// let mut image = Image::new(3, 32, 32)?;
/// GaussianBlur::new(5).sigma([0.5, 1.5]).apply(&mut image, &mut Rng::new(0))?;
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when a side of the kernel is even or reaches beyond the
/// mirror image, or the range of widths is empty or not positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaussianBlur {
    kernel: Pair,
    sigma: [f64; 2],
}

impl GaussianBlur {
    /// Makes a blur with a kernel of this size (one number for both sides, or height and width),
    /// odd, and standard deviations from 0.1 to 2 pixels.
    pub fn new(kernel_size: impl Into<Pair>) -> GaussianBlur {
        GaussianBlur { kernel: kernel_size.into(), sigma: [0.1, 2.0] }
    }

    /// Sets the least and the greatest standard deviation, in pixels.
    pub fn sigma(mut self, range: [f64; 2]) -> GaussianBlur {
        self.sigma = range;
        self
    }
}

impl Transform for GaussianBlur {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        let [low, high] = self.sigma;
        if !(0.0 < low && low <= high && high.is_finite()) {
            return Err(Error::argument("gaussian blur", format!("sigma must be a range of positive numbers, got {low} to {high}")));
        }
        Blur::new(self.kernel, rng.uniform(low, high)).transform(image)
    }
}

/// Returns the weights of a Gaussian bell, whose sum is 1.
fn bell(length: usize, sigma: f64) -> Vec<f32> {
    let weights = (0..length).map(|i| (-0.5 * ((i as f64 - (length / 2) as f64) / sigma).powi(2)).exp());
    let sum: f64 = weights.clone().sum();
    weights.map(|weight| (weight / sum) as f32).collect()
}

/// Returns the place in a line that stands for one less than a line away from it.
fn mirrored(place: isize, length: usize) -> usize {
    let last = length as isize - 1;
    (last - (last - place.abs()).abs()) as usize
}

/// Replaces each row by its correlation with the weights.
fn blur_rows(values: &mut [f32], channels: usize, width: usize, weights: &[f32]) {
    let reach = weights.len() / 2;
    let mut padded = vec![0.0; (width + 2 * reach) * channels];
    vectorize!(f32, {
        for row in values.chunks_exact_mut(width * channels) {
            for (x, out) in padded.chunks_exact_mut(channels).enumerate() {
                out.copy_from_slice(&row[mirrored(x as isize - reach as isize, width) * channels..][..channels]);
            }
            row.fill(0.0);
            for (k, &weight) in weights.iter().enumerate() {
                row.iter_mut().zip(&padded[k * channels..]).for_each(|(sum, x)| *sum += weight * x);
            }
        }
    });
}
