//! Elastic deformations: each pixel comes from a place nearby.

use super::fill::{Fill, mask_pixel};
use super::pad::PaddingMode;
use super::sample::{Sampled, Source};
use super::warp::{Look, look_methods};
use super::{Geometric, Geometry, ResizeFilter};
use crate::data::annotations::Mask;
use crate::data::image::{resample, try_filled};
use crate::data::{Image, Rng};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Takes each pixel from where a field of displacements says (torchvision's `elastic_transform`).
///
/// As there, what is outside of the image counts as 0 before the fill is mixed in by the part of a
/// pixel that is outside, and bytes are rounded to the nearest; positions are computed in `f64` and
/// cubic results that leave the range of bytes are limited to it.
///
/// ```
/// use convnet::Tensor;
/// use convnet::data::{Elastic, Image};
///
/// // A displacement of 1 is half of the image's width: each pixel comes from two columns to the right.
/// let field = Tensor::from_vec(vec![1.0f32, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0], [1, 4, 2])?;
/// let mut image = Image::from_bytes([1, 1, 4], vec![1, 2, 3, 4])?;
/// image.apply(&Elastic::new(&field)?)?;
/// assert_eq!(image.bytes(), Some(&[3, 4, 0, 0][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for an image of another size than the field's, and a fill
/// that does not fit the channels.
#[derive(Clone, Debug)]
pub struct Elastic {
    /// Displacements along x and y, as parts of half the width and half the height.
    field: Vec<[f32; 2]>,
    size: [usize; 2],
    look: Look,
}

look_methods!(Elastic, ElasticTransform);

impl Elastic {
    /// Makes a change of a field `[H, W, 2]` of displacements along x and y, in halves of the width
    /// and of the height; bilinear.
    ///
    /// # Errors
    /// [`Error::Shape`] for a tensor of another shape, [`Error::DType`] when it is not `f32`.
    pub fn new(displacement: &Tensor) -> Result<Elastic> {
        let &[height, width, 2] = displacement.shape() else {
            let message = format!("a field of displacements has shape [H, W, 2], got {:?}", displacement.shape());
            return Err(Error::shape("elastic", message));
        };
        let values: Vec<f32> = displacement.to_vec()?;
        Ok(Elastic { field: values.as_chunks().0.to_vec(), size: [height, width], look: Look::new(ResizeFilter::Bilinear) })
    }

    fn check(&self, size: [usize; 2]) -> Result<()> {
        if size == self.size {
            return Ok(());
        }
        let ([height, width], [h, w]) = (self.size, size);
        Err(Error::argument("elastic", format!("displacements for an image of {height}×{width} do not fit one of {h}×{w}")))
    }

    fn draw<T: Sampled>(&self, values: &[T], fill: &[T], filter: ResizeFilter) -> Result<Vec<T>> {
        let ([height, width], channels) = (self.size, fill.len());
        let source = Source { values, size: self.size, fill };
        let mut out = try_filled([channels, height, width], T::default())?;
        let mut sums = vec![0.0; channels];
        for (i, &[dx, dy]) in self.field.iter().enumerate() {
            let (x, y) =
                ((i % width) as f64 + f64::from(dx) * width as f64 / 2.0, (i / width) as f64 + f64::from(dy) * height as f64 / 2.0);
            let (columns, rows) = (taps(x, width, filter), taps(y, height, filter));
            let mut inside = 0.0;
            sums.fill(0.0);
            for (row, row_weight) in rows.into_iter().flatten() {
                for (column, weight) in columns.into_iter().flatten() {
                    let weight = row_weight * weight;
                    inside += weight;
                    sums.iter_mut().zip(source.pixel(channels, row, column)).for_each(|(sum, &value)| *sum += weight * value.wide());
                }
            }
            for ((out, sum), outside) in out[i * channels..].iter_mut().zip(&sums).zip(fill) {
                *out = T::rounded(sum * inside + (1.0 - inside) * outside.wide());
            }
        }
        Ok(out)
    }

    /// Returns the displacement at a position, in pixels, between those of pixels.
    fn at(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [height, width] = self.size;
        let clamped = |position: f64, length: usize| (position - 0.5).clamp(0.0, (length - 1) as f64);
        let (columns, rows) =
            (taps(clamped(x, width), width, ResizeFilter::Bilinear), taps(clamped(y, height), height, ResizeFilter::Bilinear));
        let mut sum = [0.0; 2];
        for (row, row_weight) in rows.into_iter().flatten() {
            for (column, weight) in columns.into_iter().flatten() {
                let displacement = self.field[row * width + column];
                sum.iter_mut().zip(displacement).for_each(|(sum, d)| *sum += row_weight * weight * f64::from(d));
            }
        }
        [sum[0] * width as f64 / 2.0, sum[1] * height as f64 / 2.0]
    }
}

/// Returns the pixels of a line, and their weights, that a position between pixels is made of; the
/// first pixel is at 0, and those outside of the line are left out.
fn taps(position: f64, length: usize, filter: ResizeFilter) -> [Option<(usize, f64)>; 4] {
    let on_line = |index: f64, weight: f64| (index >= 0.0 && index < length as f64).then_some((index as usize, weight));
    let first = position.floor();
    let d = position - first;
    match filter {
        ResizeFilter::Nearest => [on_line(position.round_ties_even(), 1.0), None, None, None],
        ResizeFilter::Bilinear => [on_line(first, 1.0 - d), on_line(first + 1.0, d), None, None],
        ResizeFilter::Bicubic => {
            // Keys' cubic with a = -3/4, as in PyTorch's grid_sample.
            let near = |x: f64| (1.25 * x - 2.25) * x * x + 1.0;
            let far = |x: f64| ((-0.75 * x + 3.75) * x - 6.0) * x + 3.0;
            let weights = [far(d + 1.0), near(d), near(1.0 - d), far(2.0 - d)];
            std::array::from_fn(|i| on_line(first + i as f64 - 1.0, weights[i]))
        }
    }
}

impl Geometry for Elastic {
    fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        size
    }

    fn image(&self, image: &mut Image) -> Result<()> {
        self.check(image.size())?;
        resample!(image, image.shape(), old => self.draw(old, &self.look.fill.pixel(image.channels())?, self.look.filter)?);
        Ok(())
    }

    fn mask(&self, mask: &mut Mask) -> Result<()> {
        self.check(mask.size())?;
        let classes = self.draw(mask.classes(), &mask_pixel(), ResizeFilter::Nearest)?;
        *mask = Mask::new(self.size, classes)?;
        Ok(())
    }

    fn point(&self, point: [f32; 2], _: [usize; 2]) -> [f32; 2] {
        if self.field.is_empty() {
            return point;
        }
        // The place whose displacement leads to the point, by iteration: displacements are smooth.
        let point = point.map(f64::from);
        let found = (0..8).fold(point, |place, _| {
            let [dx, dy] = self.at(place);
            [point[0] - dx, point[1] - dy]
        });
        found.map(|value| value as f32)
    }
}

/// Deforms an image smoothly at random (Simard et al., 2003; torchvision's `ElasticTransform`).
///
/// ```
/// use convnet::data::{DataLoader, Digits, ElasticTransform};
///
/// let loader = DataLoader::new(Digits::train(), 32).transform(ElasticTransform::new().alpha([4.0; 2]).sigma([1.0; 2]));
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when alpha is not finite, or sigma is not between 0 and
/// 1000, and for a fill that does not fit the channels.
#[derive(Clone, Debug)]
pub struct ElasticTransform {
    alpha: [f64; 2],
    sigma: [f64; 2],
    look: Look,
}

impl Default for ElasticTransform {
    fn default() -> ElasticTransform {
        ElasticTransform { alpha: [50.0; 2], sigma: [5.0; 2], look: Look::new(ResizeFilter::Bilinear) }
    }
}

impl ElasticTransform {
    /// Makes a deformation with torchvision's strength, alpha 50 and sigma 5; bilinear.
    pub fn new() -> ElasticTransform {
        ElasticTransform::default()
    }

    /// Sets the strength of displacements along x and y.
    pub fn alpha(mut self, alpha: [f64; 2]) -> ElasticTransform {
        self.alpha = alpha;
        self
    }

    /// Sets how smooth displacements are along x and y: the deviation, in pixels, of the Gaussian
    /// that blurs them.
    pub fn sigma(mut self, sigma: [f64; 2]) -> ElasticTransform {
        self.sigma = sigma;
        self
    }
}

impl Geometric for ElasticTransform {
    fn draw(&self, [_, height, width]: [usize; 3], rng: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
        if let Some(alpha) = self.alpha.iter().find(|alpha| !alpha.is_finite()) {
            return Err(Error::argument("elastic transform", format!("alpha must be finite, got {alpha}")));
        }
        if let Some(sigma) = self.sigma.iter().find(|sigma| !(0.0..=1000.0).contains(*sigma)) {
            return Err(Error::argument("elastic transform", format!("sigma is between 0 and 1000 pixels, got {sigma}")));
        }
        if height == 0 || width == 0 {
            return Ok(None);
        }
        let mut field = vec![[0.0; 2]; height * width];
        for axis in 0..2 {
            let mut values = try_filled([1, height, width], 0.0)?;
            values.iter_mut().for_each(|value| *value = rng.uniform(-1.0, 1.0) as f32);
            if self.sigma[axis] > 0.0 {
                // An odd number of weights, of which as many are on both sides.
                let radius = ((8.0 * self.sigma[axis] + 1.0) as usize) / 2;
                values = blurred(&values, [height, width], [1, width], &gaussian(self.sigma[0], radius))?;
                values = blurred(&values, [width, height], [width, 1], &gaussian(self.sigma[1], radius))?;
            }
            // As in torchvision, displacements along x are divided by the height.
            let factor = (self.alpha[axis] / [height, width][axis] as f64) as f32;
            field.iter_mut().zip(values).for_each(|(displacement, value)| displacement[axis] = value * factor);
        }
        Ok(Some(Box::new(Elastic { field, size: [height, width], look: self.look.clone() })))
    }
}

/// Returns the weights of a Gaussian up to this distance on both sides; of the middle alone for a
/// deviation of 0.
fn gaussian(sigma: f64, radius: usize) -> Vec<f32> {
    if sigma == 0.0 {
        return vec![1.0];
    }
    let weights: Vec<f64> = (0..=2 * radius).map(|i| (-0.5 * ((i as f64 - radius as f64) / sigma).powi(2)).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| (weight / total) as f32).collect()
}

/// Blurs along lines, mirrored at their ends: `[lines, length]` whose values are `steps[0]` apart
/// on a line, and whose lines are `steps[1]` apart.
fn blurred(values: &[f32], [lines, length]: [usize; 2], steps: [usize; 2], weights: &[f32]) -> Result<Vec<f32>> {
    let radius = weights.len() / 2;
    let mut out = try_filled([1, lines, length], 0.0)?;
    let mut line = vec![0.0; length + 2 * radius];
    for start in (0..lines).map(|i| i * steps[1]) {
        for (i, value) in line.iter_mut().enumerate() {
            *value = values[start + PaddingMode::Reflect.position(i as isize - radius as isize, length) * steps[0]];
        }
        for i in 0..length {
            out[start + i * steps[0]] = line[i..].iter().zip(weights).map(|(value, weight)| value * weight).sum();
        }
    }
    Ok(out)
}
