//! The image that transforms work on.

use crate::error::{Error, Result};
use crate::kernels::simd::vectorize;
use crate::tensor::create::or_panic;
use crate::tensor::shape::try_numel;
use crate::tensor::{DType, MemoryFormat, Tensor};

/// One image on its way into a batch: `height · width` pixels, row by row, with their channels side by side (`[H, W, C]` in memory).
///
/// Each of the loader's threads reuses one, so that transforms change images without asking for memory.
///
/// An image that was set from bytes remembers it while every value is still a whole 255th: torchvision's transforms round such images
/// ([PIL images and `uint8` tensors](Image::is_bytes)) and not others, and so do these.
#[derive(Clone, Debug, Default)]
pub struct Image {
    channels: usize,
    height: usize,
    width: usize,
    bytes: bool,
    pixels: Vec<f32>,
    spare: Vec<f32>,
}

impl Image {
    /// An image of zeros.
    ///
    /// # Errors
    /// [`Error::Argument`] when it has more elements than memory can hold.
    pub fn new(channels: usize, height: usize, width: usize) -> Result<Image> {
        let mut image = Image::default();
        image.resize(channels, height, width)?;
        Ok(image)
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// `[C, H, W]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// The values in the order of memory, `[H, W, C]`.
    pub fn pixels(&self) -> &[f32] {
        &self.pixels
    }

    /// Whether every value is known to be a whole number of 255ths in `[0, 1]`. Resizing keeps it so, by rounding; cropping and
    /// flipping do too; writing through [`pixels_mut`](Self::pixels_mut) or [`replace`](Self::replace) does not.
    pub fn is_bytes(&self) -> bool {
        self.bytes
    }

    /// The values in the order of memory, for writing.
    pub fn pixels_mut(&mut self) -> &mut [f32] {
        self.bytes = false;
        &mut self.pixels
    }

    /// Gives the image another shape; what its pixels are then is unspecified.
    fn resize(&mut self, channels: usize, height: usize, width: usize) -> Result<()> {
        let too_large = || Error::argument("image", format!("{channels}×{height}×{width} is more than memory can hold"));
        let length = try_numel(&[channels, height, width]).ok_or_else(too_large)?;
        self.pixels.try_reserve(length.saturating_sub(self.pixels.len())).map_err(|_| too_large())?;
        self.pixels.resize(length, 0.0);
        (self.channels, self.height, self.width, self.bytes) = (channels, height, width, false);
        Ok(())
    }

    /// Replaces the image by one of another shape: `draw(old, new)` writes every value of the new one.
    ///
    /// # Errors
    /// [`Error::Argument`] when the new image has more elements than memory can hold.
    pub fn replace(&mut self, channels: usize, height: usize, width: usize, draw: impl FnOnce(&Image, &mut [f32])) -> Result<()> {
        let mut old = std::mem::take(self);
        self.pixels = std::mem::take(&mut old.spare);
        if let Err(error) = self.resize(channels, height, width) {
            *self = old;
            return Err(error);
        }
        draw(&old, &mut self.pixels);
        self.spare = old.pixels;
        Ok(())
    }

    /// As [`replace`](Self::replace), for a `draw` that makes whole 255ths of whole 255ths.
    pub(crate) fn resample(&mut self, channels: usize, height: usize, width: usize, draw: impl FnOnce(&Image, &mut [f32])) -> Result<()> {
        let bytes = self.bytes;
        self.replace(channels, height, width, draw)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Overwrites the image with bytes in the order `[H, W, C]`, each divided by `scale`.
    pub(crate) fn set_bytes(&mut self, [channels, height, width]: [usize; 3], bytes: &[u8], scale: f32) -> Result<()> {
        self.resize(channels, height, width)?;
        if bytes.len() != self.pixels.len() {
            let message = format!("{} bytes do not make a {channels}×{height}×{width} image", bytes.len());
            return Err(Error::shape("image", message));
        }
        let pixels = &mut self.pixels[..];
        vectorize(|| {
            for (pixel, &byte) in pixels.iter_mut().zip(bytes) {
                *pixel = f32::from(byte) / scale;
            }
        });
        self.bytes = scale == 255.0;
        Ok(())
    }

    /// Overwrites the image with a tensor `[C, H, W]`: `f32` as it is, `u8` divided by 255.
    ///
    /// # Errors
    /// [`Error::Shape`] when the tensor does not have three dimensions, [`Error::DType`] when it is neither `f32` nor `u8`.
    pub fn set_tensor(&mut self, tensor: &Tensor) -> Result<()> {
        let &[channels, height, width] = tensor.shape() else {
            return Err(Error::shape("image", format!("expected shape [C, H, W], got {:?}", tensor.shape())));
        };
        match tensor.dtype() {
            DType::F32 => self.set_planes([channels, height, width], tensor.data(), |value: f32| value),
            DType::U8 => self.set_planes([channels, height, width], tensor.data(), |value: u8| f32::from(value) / 255.0),
            got => Err(Error::DType { op: "image", expected: "f32 or u8", got }),
        }?;
        self.bytes = tensor.dtype() == DType::U8;
        Ok(())
    }

    fn set_planes<T: Copy>(&mut self, [channels, height, width]: [usize; 3], planes: &[T], value: impl Fn(T) -> f32) -> Result<()> {
        self.resize(channels, height, width)?;
        for (i, pixel) in self.pixels.chunks_exact_mut(channels.max(1)).enumerate() {
            for (c, out) in pixel.iter_mut().enumerate() {
                *out = value(planes[c * height * width + i]);
            }
        }
        Ok(())
    }

    /// The image as a tensor `[C, H, W]`.
    ///
    /// # Panics
    /// When memory cannot hold it.
    #[track_caller]
    pub fn to_tensor(&self) -> Tensor {
        or_panic(self.try_to_tensor())
    }

    /// As [`to_tensor`](Image::to_tensor), with an error where memory cannot hold it.
    pub(crate) fn try_to_tensor(&self) -> Result<Tensor> {
        let (channels, plane) = (self.channels, self.height * self.width);
        Tensor::build(&self.shape(), MemoryFormat::RowMajor, |out: &mut [f32]| {
            for (i, pixel) in self.pixels.chunks_exact(channels.max(1)).enumerate() {
                for (c, &value) in pixel.iter().enumerate() {
                    out[c * plane + i] = value;
                }
            }
        })
    }
}
