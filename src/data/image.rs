//! Images between a dataset and a batch.

use std::borrow::Cow;

use super::Deterministic;
use crate::error::{Error, Result};
use crate::kernels::runtime::simd::vectorize;
use crate::tensor::create::or_panic;
use crate::tensor::shape::try_numel;
use crate::tensor::{DType, MemoryFormat, Tensor};

/// One image on its way into a batch: `height · width` pixels, row by row, with their channels side
/// by side (`[H, W, C]` in memory).
///
/// The values are bytes, as a file has them, or `f32`. Transforms keep bytes as long as they can
/// and round as torchvision's do on PIL images and `uint8` tensors;
/// [`Normalize`](super::Normalize), or writing through [`pixels_mut`](Image::pixels_mut), makes
/// `f32` of them. Read as numbers, bytes are 255ths: white is 1.
///
/// ```
/// use convnet::data::Image;
///
/// let mut image = Image::from_bytes([1, 1, 2], vec![0, 255])?;
/// assert_eq!(image.pixels()[..], [0.0, 1.0]);
/// image.pixels_mut()[0] = 0.1;
/// assert!(!image.is_bytes());
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Image {
    channels: usize,
    height: usize,
    width: usize,
    pub(super) pixels: Pixels,
}

/// The values of an image.
#[derive(Clone, Debug)]
pub(super) enum Pixels {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl Default for Pixels {
    fn default() -> Pixels {
        Pixels::Floats(Vec::new())
    }
}

/// A type of values of an image.
pub(super) trait Pixel: Copy + Default + Send + Sync + 'static {
    /// Wraps values of this type.
    fn wrap(values: Vec<Self>) -> Pixels;
}

impl Pixel for u8 {
    fn wrap(values: Vec<u8>) -> Pixels {
        Pixels::Bytes(values)
    }
}

impl Pixel for f32 {
    fn wrap(values: Vec<f32>) -> Pixels {
        Pixels::Floats(values)
    }
}

/// Replaces an image by one with new values, computed from the old ones by an expression that
/// compiles for both pixel types: `resample!(image, [channels, height, width], old => new)`, with
/// `old: &[T]` and `new: Vec<T>` in the order `[H, W, C]`.
macro_rules! resample {
    ($image:expr, $shape:expr, $old:ident => $new:expr) => {
        *$image = match &$image.pixels {
            $crate::data::image::Pixels::Bytes($old) => $crate::data::Image::from_values($shape, $new)?,
            $crate::data::image::Pixels::Floats($old) => $crate::data::Image::from_values($shape, $new)?,
        }
    };
}
pub(super) use resample;

/// Returns a vector with room for the values of an image, or an error when memory cannot hold them.
pub(super) fn try_reserved<T>(shape: [usize; 3]) -> Result<Vec<T>> {
    let [channels, height, width] = shape;
    let too_large = || Error::argument("image", format!("{channels}×{height}×{width} is more than memory can hold"));
    let length = try_numel(&shape).ok_or_else(too_large)?;
    let mut values = Vec::new();
    values.try_reserve_exact(length).map_err(|_| too_large())?;
    Ok(values)
}

/// Returns the values of an image of one value, or an error when memory cannot hold them.
pub(super) fn try_filled<T: Clone>(shape: [usize; 3], value: T) -> Result<Vec<T>> {
    let mut values = try_reserved(shape)?;
    values.resize(shape.iter().product(), value);
    Ok(values)
}

impl Image {
    /// Makes an image of zeros, as `f32`.
    ///
    /// # Errors
    /// [`Error::Argument`] when it has more elements than memory can hold.
    pub fn new(channels: usize, height: usize, width: usize) -> Result<Image> {
        Image::from_floats([channels, height, width], try_filled([channels, height, width], 0.0)?)
    }

    /// Makes an image of shape `[C, H, W]` of bytes in the order `[H, W, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of bytes is not that of the shape.
    pub fn from_bytes(shape: [usize; 3], bytes: Vec<u8>) -> Result<Image> {
        Image::from_values(shape, bytes)
    }

    /// Makes an image of shape `[C, H, W]` of numbers in the order `[H, W, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of values is not that of the shape.
    pub fn from_floats(shape: [usize; 3], values: Vec<f32>) -> Result<Image> {
        Image::from_values(shape, values)
    }

    pub(super) fn from_values<T: Pixel>([channels, height, width]: [usize; 3], values: Vec<T>) -> Result<Image> {
        if try_numel(&[channels, height, width]) != Some(values.len()) {
            let message = format!("{} values do not make a {channels}×{height}×{width} image", values.len());
            return Err(Error::shape("image", message));
        }
        Ok(Image { channels, height, width, pixels: T::wrap(values) })
    }

    /// Returns the number of channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Returns the number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Returns the number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns `[H, W]`.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Returns `[C, H, W]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Returns the values in the order of memory, `[H, W, C]`; bytes as 255ths.
    pub fn pixels(&self) -> Cow<'_, [f32]> {
        match &self.pixels {
            Pixels::Floats(values) => Cow::Borrowed(values),
            Pixels::Bytes(bytes) => Cow::Owned(floats_of(bytes)),
        }
    }

    /// Returns the bytes in the order of memory, `[H, W, C]`; `None` for an image of `f32`.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.pixels {
            Pixels::Bytes(bytes) => Some(bytes),
            Pixels::Floats(_) => None,
        }
    }

    /// Returns the bytes in the order of memory, for writing; `None` for an image of `f32`.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.pixels {
            Pixels::Bytes(bytes) => Some(bytes),
            Pixels::Floats(_) => None,
        }
    }

    /// Returns whether the values are bytes.
    pub fn is_bytes(&self) -> bool {
        matches!(self.pixels, Pixels::Bytes(_))
    }

    /// Returns the values in the order of memory, for writing. An image of bytes becomes one of
    /// `f32` by this.
    pub fn pixels_mut(&mut self) -> &mut [f32] {
        if let Pixels::Bytes(bytes) = &self.pixels {
            self.pixels = Pixels::Floats(floats_of(bytes));
        }
        match &mut self.pixels {
            Pixels::Floats(values) => values,
            Pixels::Bytes(_) => unreachable!("bytes have just been converted"),
        }
    }

    /// Makes an image of bytes of this one: values are limited to `[0, 1]` and rounded to 255ths.
    pub fn to_bytes(&self) -> Image {
        let bytes = match &self.pixels {
            Pixels::Bytes(bytes) => bytes.clone(),
            Pixels::Floats(values) => values.iter().map(|x| (x * 255.0).round() as u8).collect(),
        };
        Image { pixels: Pixels::Bytes(bytes), ..*self }
    }

    /// Applies a transform that needs no generator; returns the image, for the next one.
    ///
    /// ```
    /// use convnet::data::{CenterCrop, Image, Resize};
    ///
    /// let mut image = Image::new(3, 375, 500)?;
    /// image.apply(&Resize::shorter(256))?.apply(&CenterCrop::new([224, 224]))?;
    /// assert_eq!(image.shape(), [3, 224, 224]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the transform's arguments make no sense, or do not fit the image.
    pub fn apply(&mut self, transform: &(impl Deterministic + ?Sized)) -> Result<&mut Image> {
        transform.transform(self)?;
        Ok(self)
    }

    /// Makes an image of a tensor `[C, H, W]`: `f32` as it is, `u8` as bytes.
    ///
    /// # Errors
    /// [`Error::Shape`] when the tensor does not have three dimensions, [`Error::DType`] when it is
    /// neither `f32` nor `u8`.
    pub fn from_tensor(tensor: &Tensor) -> Result<Image> {
        let &[channels, height, width] = tensor.shape() else {
            return Err(Error::shape("image", format!("expected shape [C, H, W], got {:?}", tensor.shape())));
        };
        let shape = [channels, height, width];
        match tensor.dtype() {
            DType::F32 => Image::from_floats(shape, interleaved::<f32>(shape, tensor.data())?),
            DType::U8 => Image::from_bytes(shape, interleaved::<u8>(shape, tensor.data())?),
            got => Err(Error::DType { op: "image", expected: "f32 or u8", got }),
        }
    }

    /// Returns the image as a tensor `[C, H, W]`.
    ///
    /// # Panics
    /// When memory cannot hold it.
    #[track_caller]
    pub fn to_tensor(&self) -> Tensor {
        or_panic(self.try_to_tensor())
    }

    /// Returns the image as [`to_tensor`](Image::to_tensor) does, with an error where memory cannot
    /// hold it.
    pub(crate) fn try_to_tensor(&self) -> Result<Tensor> {
        let (channels, plane) = (self.channels, self.height * self.width);
        let pixels = self.pixels();
        Tensor::build(&self.shape(), MemoryFormat::RowMajor, |out: &mut [f32]| {
            for (i, pixel) in pixels.chunks_exact(channels.max(1)).enumerate() {
                for (c, &value) in pixel.iter().enumerate() {
                    out[c * plane + i] = value;
                }
            }
        })
    }

    /// Returns the bytes of memory that the values take.
    pub(super) fn bytes_in_memory(&self) -> usize {
        match &self.pixels {
            Pixels::Bytes(bytes) => bytes.len(),
            Pixels::Floats(values) => size_of_val(&values[..]),
        }
    }

    /// Writes the values in the order `[H, W, C]`, bytes as 255ths.
    pub(super) fn write_to(&self, out: &mut [f32]) {
        match &self.pixels {
            Pixels::Floats(values) => out.copy_from_slice(values),
            Pixels::Bytes(bytes) => convert(bytes, out),
        }
    }
}

fn floats_of(bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len()];
    convert(bytes, &mut values);
    values
}

fn convert(bytes: &[u8], out: &mut [f32]) {
    vectorize!(f32, {
        for (out, &byte) in out.iter_mut().zip(bytes) {
            *out = f32::from(byte) / 255.0;
        }
    });
}

/// Brings `[C, H, W]` into the order `[H, W, C]`.
fn interleaved<T: Pixel>([channels, height, width]: [usize; 3], planes: &[T]) -> Result<Vec<T>> {
    let plane = height * width;
    let mut values = try_filled([channels, height, width], T::default())?;
    for (i, pixel) in values.chunks_exact_mut(channels.max(1)).enumerate() {
        for (c, out) in pixel.iter_mut().enumerate() {
            *out = planes[c * plane + i];
        }
    }
    Ok(values)
}
