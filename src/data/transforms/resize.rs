//! Scaling with antialiasing, as Pillow does it.

use super::{Deterministic, Geometric, Geometry};
use crate::data::annotations::Mask;
use crate::data::image::{redraw, try_filled, try_reserved};
use crate::data::{Image, Rng};
use crate::error::{Error, Result};
use crate::kernels::runtime::simd::vectorize;
use crate::kernels::scale::{PRECISION, scale_columns, scale_rows};

/// The filter by which [`Resize`] weights pixels; tensors are resized by
/// [`Tensor::interpolate`](crate::Tensor::interpolate).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResizeFilter {
    /// A triangle.
    #[default]
    Bilinear,
    /// Keys' cubic with a = -1/2, which sharpens.
    Bicubic,
}

impl ResizeFilter {
    /// Returns the radius of the filter.
    fn support(self) -> f64 {
        match self {
            ResizeFilter::Bilinear => 1.0,
            ResizeFilter::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            ResizeFilter::Bilinear => (1.0 - x).max(0.0),
            ResizeFilter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            ResizeFilter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            ResizeFilter::Bicubic => 0.0,
        }
    }
}

/// Scales an image with antialiasing: when it becomes smaller, each pixel is a weighted mean of all
/// the pixels it covers (torchvision's `Resize(size, antialias=True)`).
///
/// Values are those of Pillow 13, to the bit: for an [image of bytes](Image::is_bytes) those of its
/// images of bytes, which is what torchvision's transforms give for PIL images; for others those of
/// its images of floats (mode `F`), which are not rounded to bytes. As in Pillow 13, columns are
/// scaled before rows where the height shrinks by more pixels than twice what the width shrinks by;
/// rounding in between makes the order visible.
///
/// ```
/// use convnet::data::{Image, Resize, ResizeFilter};
///
/// let mut image = Image::new(3, 480, 640)?;
/// image.apply(&Resize::shorter(256))?;
/// assert_eq!(image.shape(), [3, 256, 341]);
/// image.apply(&Resize::new([32, 32]).interpolation(ResizeFilter::Bicubic))?;
/// assert_eq!(image.shape(), [3, 32, 32]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when either size, or the image, is empty, or when the
/// shorter side of a very thin image would make the longer one too long.
#[derive(Clone, Debug)]
pub struct Resize {
    size: Size,
    interpolation: ResizeFilter,
}

#[derive(Clone, Copy, Debug)]
enum Size {
    Exact([usize; 2]),
    Shorter(usize),
}

/// The most pixels that a thin image may become: scaled to a given width, an image of one column
/// and sixteen million rows would take gigabytes.
const LARGEST: usize = 1 << 24;

impl Resize {
    /// Makes a resize to this height and width.
    pub fn new(size: [usize; 2]) -> Resize {
        Resize { size: Size::Exact(size), interpolation: ResizeFilter::default() }
    }

    /// Makes a resize of the shorter side to this length, the other in proportion (rounded down):
    /// torchvision's `Resize(256)`.
    pub fn shorter(length: usize) -> Resize {
        Resize { size: Size::Shorter(length), interpolation: ResizeFilter::default() }
    }

    /// Sets how pixels are weighted; bilinear by default.
    pub fn interpolation(mut self, interpolation: ResizeFilter) -> Resize {
        self.interpolation = interpolation;
        self
    }
}

impl Size {
    fn of(self, height: usize, width: usize) -> [usize; 2] {
        match self {
            Size::Exact(size) => size,
            Size::Shorter(length) => {
                let scaled = |long: usize, short: usize| (length as u128 * long as u128 / short.max(1) as u128) as usize;
                if width <= height { [scaled(height, width), length] } else { [length, scaled(width, height)] }
            }
        }
    }
}

impl Geometric for Resize {
    fn draw(&self, [_, height, width]: [usize; 3], _: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
        Ok(Some(Box::new(self.scale([height, width])?)))
    }
}

impl Resize {
    fn scale(&self, from: [usize; 2]) -> Result<ScaleTo> {
        let size = self.size.of(from[0], from[1]);
        // The order of the passes keeps the intermediate image below the larger of both sizes.
        if matches!(self.size, Size::Shorter(_)) && size[0].saturating_mul(size[1]) > LARGEST.max(from[0] * from[1]) {
            return Err(refused(from, size, ": it is too thin"));
        }
        Ok(ScaleTo { size, filter: self.interpolation })
    }
}

impl Deterministic for Resize {
    fn transform(&self, image: &mut Image) -> Result<()> {
        self.scale(image.size())?.image(image)
    }
}

fn refused(from: [usize; 2], to: [usize; 2], why: &str) -> Error {
    let message = format!("cannot scale an image of {}×{} pixels to {}×{}{why}", from[0], from[1], to[0], to[1]);
    Error::argument("resize", message)
}

/// A change to one height and width.
pub(super) struct ScaleTo {
    pub(super) size: [usize; 2],
    pub(super) filter: ResizeFilter,
}

impl Geometry for ScaleTo {
    fn output_size(&self, _: [usize; 2]) -> [usize; 2] {
        self.size
    }

    fn image(&self, image: &mut Image) -> Result<()> {
        let ([channels, from_height, from_width], [height, width]) = (image.shape(), self.size);
        if [height, width, channels, from_height, from_width].contains(&0) {
            return Err(refused(image.size(), self.size, ""));
        }
        if self.size == image.size() {
            return Ok(());
        }
        // Neither pass makes an image larger than the larger one of both.
        drop(try_reserved::<f32>([channels, height, width])?);
        let scale = Scale { channels, from: image.size(), to: self.size, interpolation: self.filter };
        redraw!(image, [channels, height, width], old => scale.apply(old));
        Ok(())
    }

    fn mask(&self, mask: &mut Mask) -> Result<()> {
        let ([from_height, from_width], [height, width]) = (mask.size(), self.size);
        if [height, width, from_height, from_width].contains(&0) {
            return Err(refused(mask.size(), self.size, ""));
        }
        let mut classes = try_filled([1, height, width], 0)?;
        for (y, row) in classes.chunks_exact_mut(width).enumerate() {
            let from = &mask.classes()[nearest(y, from_height, height) * from_width..][..from_width];
            row.iter_mut().enumerate().for_each(|(x, class)| *class = from[nearest(x, from_width, width)]);
        }
        *mask = Mask::new(self.size, classes)?;
        Ok(())
    }

    fn point(&self, [x, y]: [f32; 2], [height, width]: [usize; 2]) -> [f32; 2] {
        [x * self.size[1] as f32 / width as f32, y * self.size[0] as f32 / height as f32]
    }
}

/// Returns the position on the old line whose pixel the position on the new one takes, as Pillow
/// does: at the centre of the new pixel.
fn nearest(position: usize, from: usize, to: usize) -> usize {
    ((position as f64 + 0.5) * (from as f64 / to as f64)) as usize
}

/// A type of numbers that images are scaled in.
trait Sample: Copy + Default {
    type Weight: Copy + 'static;
    fn weight(weight: f64) -> Self::Weight;
    /// Scales `[height, from, channels]` to `[height, to, channels]`.
    fn rows(channels: usize, from: usize, taps: &Taps<Self>, pixels: &[Self], out: &mut [Self]);
    /// Scales `[from, run]` to `[to, run]`.
    fn columns(run: usize, taps: &Taps<Self>, pixels: &[Self], out: &mut [Self]);
}

impl Sample for f32 {
    type Weight = f64;
    fn weight(weight: f64) -> f64 {
        weight
    }
    fn rows(channels: usize, from: usize, taps: &Taps<f32>, pixels: &[f32], out: &mut [f32]) {
        let rows = pixels.chunks_exact(from * channels).zip(out.chunks_exact_mut(taps.ends.len() * channels));
        match channels {
            1 => rows.for_each(|(row, out)| along_row::<1>(taps, row, out)),
            3 => rows.for_each(|(row, out)| along_row::<3>(taps, row, out)),
            _ => rows.for_each(|(row, out)| f32::columns(channels, taps, row, out)),
        }
    }
    fn columns(run: usize, taps: &Taps<f32>, pixels: &[f32], out: &mut [f32]) {
        let mut sums = vec![0.0; run];
        for ((first, weights), out) in taps.iter().zip(out.chunks_exact_mut(run)) {
            vectorize::<f32, _>(|| {
                sums.fill(0.0);
                for (row, &weight) in pixels[first * run..].chunks_exact(run).zip(weights) {
                    sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += weight * f64::from(x));
                }
                out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = sum as f32);
            });
        }
    }
}

impl Sample for u8 {
    type Weight = i32;
    fn weight(weight: f64) -> i32 {
        // Half-way cases round away from zero: a half is added before truncation.
        (weight * f64::from(1 << PRECISION) + 0.5f64.copysign(weight)) as i32
    }
    fn rows(channels: usize, from: usize, taps: &Taps<u8>, pixels: &[u8], out: &mut [u8]) {
        scale_rows(channels, from, taps.iter(), pixels, out);
    }
    fn columns(run: usize, taps: &Taps<u8>, pixels: &[u8], out: &mut [u8]) {
        scale_columns(run, taps.iter(), pixels, out);
    }
}

/// The source pixels and weights of each pixel of a line.
struct Taps<S: Sample> {
    /// The first pixel and the end of each one's weights.
    ends: Vec<(usize, usize)>,
    weights: Vec<S::Weight>,
}

impl<S: Sample> Taps<S> {
    fn new(from: usize, to: usize, filter: ResizeFilter) -> Taps<S> {
        let ratio = from as f64 / to as f64;
        let stretch = ratio.max(1.0);
        let support = filter.support() * stretch;
        let mut taps = Taps { ends: Vec::with_capacity(to), weights: Vec::new() };
        let mut weights: Vec<f64> = Vec::new();
        for i in 0..to {
            let center = (i as f64 + 0.5) * ratio;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            weights.clear();
            weights.extend((first..end).map(|j| filter.weight((j as f64 - center + 0.5) * (1.0 / stretch))));
            let total: f64 = weights.iter().sum();
            taps.weights.extend(weights.iter().map(|weight| S::weight(weight / total)));
            taps.ends.push((first, taps.weights.len()));
        }
        taps
    }

    /// Returns, for each pixel of the result, its first source pixel and its weights.
    fn iter(&self) -> impl Iterator<Item = (usize, &[S::Weight])> + Clone {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(_, end)| end));
        self.ends.iter().zip(starts).map(|(&(first, end), start)| (first, &self.weights[start..end]))
    }
}

struct Scale {
    channels: usize,
    from: [usize; 2],
    to: [usize; 2],
    interpolation: ResizeFilter,
}

impl Scale {
    /// Applies Pillow's rule since version 13: the height shrinks, and by more than twice what the
    /// width does.
    fn columns_first(&self) -> bool {
        let shrinks = |axis: usize| self.from[axis] as i128 - self.to[axis] as i128;
        shrinks(0) > 0 && shrinks(0) > 2 * shrinks(1)
    }

    /// Scales `[from_height, from_width, C]` to `[height, width, C]`.
    fn apply<S: Sample>(&self, pixels: &[S]) -> Vec<S> {
        let ([from_height, from_width], [height, width]) = (self.from, self.to);
        if from_height == height {
            self.rows(pixels)
        } else if from_width == width {
            self.columns(pixels, width)
        } else if self.columns_first() {
            self.rows(&self.columns(pixels, from_width))
        } else {
            self.columns(&self.rows(pixels), width)
        }
    }

    /// Scales `[rows, from_width, C]` to `[rows, width, C]`.
    fn rows<S: Sample>(&self, pixels: &[S]) -> Vec<S> {
        let (from, to) = (self.from[1], self.to[1]);
        let mut scaled = vec![S::default(); pixels.len() / from * to];
        S::rows(self.channels, from, &Taps::new(from, to, self.interpolation), pixels, &mut scaled);
        scaled
    }

    /// Scales `[from_height, width, C]` to `[height, width, C]`.
    fn columns<S: Sample>(&self, pixels: &[S], width: usize) -> Vec<S> {
        let (from, to) = (self.from[0], self.to[0]);
        let mut scaled = vec![S::default(); to * width * self.channels];
        S::columns(width * self.channels, &Taps::new(from, to, self.interpolation), pixels, &mut scaled);
        scaled
    }
}

/// Scales `[from, C]` to `[to, C]` for few channels, which stay in registers.
fn along_row<const C: usize>(taps: &Taps<f32>, row: &[f32], out: &mut [f32]) {
    let (pixels, _) = row.as_chunks::<C>();
    for ((first, weights), out) in taps.iter().zip(out.as_chunks_mut::<C>().0) {
        let mut sums = [0.0; C];
        for (pixel, &weight) in pixels[first..].iter().zip(weights) {
            for (sum, &x) in sums.iter_mut().zip(pixel) {
                *sum += weight * f64::from(x);
            }
        }
        *out = sums.map(|sum| sum as f32);
    }
}
