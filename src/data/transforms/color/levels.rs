//! Changes of each value by itself, or by the histogram of its channel.

use crate::data::Image;
use crate::data::image::Pixels;
use crate::data::transforms::{Deterministic, deterministic};
use crate::error::{Error, Result};
use crate::kernels::runtime::simd::vectorize;

/// Inverts values: white becomes black (torchvision's `invert`).
///
/// ```
/// use convnet::data::{Image, Invert};
///
/// let mut image = Image::from_bytes([1, 1, 2], vec![0, 200])?;
/// image.apply(&Invert)?;
/// assert_eq!(image.bytes(), Some(&[255, 55][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Invert;

/// Keeps the highest bits of each value (torchvision's `posterize`).
///
/// Values of `f32` are rounded down to multiples of `2⁻ᵇⁱᵗˢ`.
///
/// ```
/// use convnet::data::{Image, Posterize};
///
/// let mut image = Image::from_bytes([1, 1, 2], vec![100, 200])?;
/// image.apply(&Posterize::new(1))?;
/// assert_eq!(image.bytes(), Some(&[0, 128][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for more than 8 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Posterize {
    bits: u32,
}

impl Posterize {
    /// Makes a reduction to this number of bits, 0 to 8.
    pub fn new(bits: u32) -> Posterize {
        Posterize { bits }
    }
}

/// Inverts the values that are not below a threshold (torchvision's `solarize`).
///
/// ```
/// use convnet::data::{Image, Solarize};
///
/// let mut image = Image::from_bytes([1, 1, 2], vec![100, 200])?;
/// image.apply(&Solarize::new(128.0))?;
/// assert_eq!(image.bytes(), Some(&[100, 55][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for a threshold that is not a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solarize {
    threshold: f64,
}

impl Solarize {
    /// Makes an inversion from this value on, in 255ths for images of bytes and of `f32`.
    pub fn new(threshold: f64) -> Solarize {
        Solarize { threshold }
    }
}

/// Stretches each channel so that its darkest value becomes black and its lightest white
/// (torchvision's `autocontrast`). A channel of one value stays as it is.
///
/// ```
/// use convnet::data::{Autocontrast, Image};
///
/// let mut image = Image::from_bytes([1, 1, 3], vec![100, 150, 200])?;
/// image.apply(&Autocontrast)?;
/// assert_eq!(image.bytes(), Some(&[0, 127, 254][..])); // as Pillow rounds
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Autocontrast;

/// Maps the values of each channel so that all are about equally frequent (torchvision's
/// `equalize`).
///
/// An image of `f32` is brought to 256 values for it, as in torchvision.
///
/// ```
/// use convnet::data::{Equalize, Image};
///
/// let mut image = Image::from_bytes([1, 1, 512], (0..512).map(|i| (i / 8) as u8).collect())?;
/// image.apply(&Equalize)?;
/// assert_eq!(image.bytes().unwrap()[504..], [255; 8]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Equalize;

impl Deterministic for Invert {
    fn transform(&self, image: &mut Image) -> Result<()> {
        match &mut image.pixels {
            Pixels::Bytes(bytes) => bytes.iter_mut().for_each(|x| *x = 255 - *x),
            Pixels::Floats(values) => values.iter_mut().for_each(|x| *x = 1.0 - *x),
        }
        Ok(())
    }
}

impl Deterministic for Posterize {
    fn transform(&self, image: &mut Image) -> Result<()> {
        if self.bits > 8 {
            return Err(Error::argument("posterize", format!("values have 8 bits, cannot keep {}", self.bits)));
        }
        match &mut image.pixels {
            Pixels::Bytes(bytes) => {
                let mask = !(0xff_u32 >> self.bits) as u8;
                bytes.iter_mut().for_each(|x| *x &= mask);
            }
            Pixels::Floats(values) => {
                let levels = (1 << self.bits) as f32;
                vectorize!(f32, {
                    for x in values.iter_mut() {
                        *x = (*x * levels).floor().clamp(0.0, levels - 1.0) / levels;
                    }
                });
            }
        }
        Ok(())
    }
}

impl Deterministic for Solarize {
    fn transform(&self, image: &mut Image) -> Result<()> {
        if self.threshold.is_nan() {
            return Err(Error::argument("solarize", "the threshold is not a number; give one from 0 to 255"));
        }
        match &mut image.pixels {
            Pixels::Bytes(bytes) => {
                // The first value that is not below; the conversion limits it to the range of i16.
                let first = self.threshold.ceil() as i16;
                bytes.iter_mut().for_each(|x| *x = if i16::from(*x) < first { *x } else { 255 - *x });
            }
            Pixels::Floats(values) => {
                let threshold = (self.threshold / 255.0) as f32;
                values.iter_mut().for_each(|x| *x = if *x < threshold { *x } else { 1.0 - *x });
            }
        }
        Ok(())
    }
}

impl Deterministic for Autocontrast {
    fn transform(&self, image: &mut Image) -> Result<()> {
        let channels = image.channels().max(1);
        match &mut image.pixels {
            Pixels::Bytes(bytes) => map_channels(bytes, channels, stretching_table),
            Pixels::Floats(values) => {
                let ends = (0..channels).map(|c| {
                    let channel = || values.iter().skip(c).step_by(channels).copied();
                    let (low, high) = (channel().fold(f32::INFINITY, f32::min), channel().fold(f32::NEG_INFINITY, f32::max));
                    let scale = 1.0 / (high - low);
                    if scale.is_finite() { (low, scale) } else { (0.0, 1.0) }
                });
                let ends: Vec<(f32, f32)> = ends.collect();
                for pixel in values.chunks_exact_mut(channels) {
                    for (x, (low, scale)) in pixel.iter_mut().zip(&ends) {
                        *x = ((*x - low) * scale).clamp(0.0, 1.0);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Deterministic for Equalize {
    fn transform(&self, image: &mut Image) -> Result<()> {
        let channels = image.channels().max(1);
        match &mut image.pixels {
            Pixels::Bytes(bytes) => map_channels(bytes, channels, equalizing_table),
            Pixels::Floats(values) => {
                // torchvision's conversion to `uint8`.
                let mut bytes: Vec<u8> = values.iter().map(|x| (x * 255.999) as u8).collect();
                map_channels(&mut bytes, channels, equalizing_table);
                values.iter_mut().zip(bytes).for_each(|(x, byte)| *x = f32::from(byte) / 255.0);
            }
        }
        Ok(())
    }
}

deterministic!(Invert, Posterize, Solarize, Autocontrast, Equalize);

/// How often each value occurs.
type Histogram = [usize; 256];

/// Maps each channel by a table that is made of its histogram.
fn map_channels(bytes: &mut [u8], channels: usize, table: impl Fn(&Histogram) -> [u8; 256]) {
    let mut histograms = vec![[0; 256]; channels];
    for pixel in bytes.chunks_exact(channels) {
        for (histogram, &x) in histograms.iter_mut().zip(pixel) {
            histogram[usize::from(x)] += 1;
        }
    }
    let tables: Vec<[u8; 256]> = histograms.iter().map(table).collect();
    for pixel in bytes.chunks_exact_mut(channels) {
        for (table, x) in tables.iter().zip(pixel) {
            *x = table[usize::from(*x)];
        }
    }
}

/// Returns the table that leaves values as they are.
fn identity() -> [u8; 256] {
    std::array::from_fn(|value| value as u8)
}

/// Returns the table of Pillow's `ImageOps.autocontrast`.
fn stretching_table(histogram: &Histogram) -> [u8; 256] {
    let occurs = |&value: &usize| histogram[value] > 0;
    match ((0..256).find(occurs), (0..256).rfind(occurs)) {
        (Some(low), Some(high)) if low < high => {
            let scale = 255.0 / (high - low) as f64;
            let offset = -(low as f64) * scale;
            // The conversion drops the fraction and limits to the range of bytes.
            std::array::from_fn(|value| (value as f64 * scale + offset) as u8)
        }
        _ => identity(),
    }
}

/// Returns the table of Pillow's `ImageOps.equalize`.
fn equalizing_table(histogram: &Histogram) -> [u8; 256] {
    let highest = histogram.iter().rev().find(|&&count| count > 0).copied().unwrap_or(0);
    let step = (histogram.iter().sum::<usize>() - highest) / 255;
    if step == 0 {
        return identity();
    }
    let mut below = step / 2;
    histogram.map(|count| {
        let mapped = (below / step).min(255) as u8;
        below += count;
        mapped
    })
}
