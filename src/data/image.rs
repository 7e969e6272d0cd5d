//! Images between a dataset and a batch.

use super::Deterministic;
use crate::error::{Error, Result};
use crate::kernels::runtime::simd::vectorize;
use crate::tensor::create::or_panic;
use crate::tensor::shape::try_numel;
use crate::tensor::{DType, MemoryFormat, Tensor};

/// One image on its way into a batch: `height · width` pixels, row by row, with their channels side
/// by side (`[H, W, C]` in memory).
///
/// An image that was made from bytes [keeps a mark](Image::is_bytes) while every value is still a
/// whole 255th: torchvision's transforms round such images (PIL images and `uint8` tensors) and no
/// others, and so do those of this crate.
#[derive(Clone, Debug, Default)]
pub struct Image {
    channels: usize,
    height: usize,
    width: usize,
    bytes: bool,
    pixels: Vec<f32>,
}

impl Image {
    /// Makes an image of zeros.
    ///
    /// # Errors
    /// [`Error::Argument`] when it has more elements than memory can hold.
    pub fn new(channels: usize, height: usize, width: usize) -> Result<Image> {
        let too_large = || Error::argument("image", format!("{channels}×{height}×{width} is more than memory can hold"));
        let length = try_numel(&[channels, height, width]).ok_or_else(too_large)?;
        let mut pixels = Vec::new();
        pixels.try_reserve_exact(length).map_err(|_| too_large())?;
        pixels.resize(length, 0.0);
        Ok(Image { channels, height, width, bytes: false, pixels })
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

    /// Returns `[C, H, W]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Returns the values in the order of memory, `[H, W, C]`.
    pub fn pixels(&self) -> &[f32] {
        &self.pixels
    }

    /// Returns whether every value is known to be a whole number of 255ths in `[0, 1]`. Resizing
    /// keeps this, by rounding, and so do cropping and flipping; writing through
    /// [`pixels_mut`](Self::pixels_mut) or [`replace`](Self::replace) does not.
    pub fn is_bytes(&self) -> bool {
        self.bytes
    }

    /// Returns the values in the order of memory, for writing.
    pub fn pixels_mut(&mut self) -> &mut [f32] {
        self.bytes = false;
        &mut self.pixels
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

    /// Replaces the image by one of another shape: `draw(old, new)` writes every value of the new
    /// one, which starts with zeros.
    ///
    /// # Errors
    /// [`Error::Argument`] when the new image has more elements than memory can hold.
    pub fn replace(&mut self, channels: usize, height: usize, width: usize, draw: impl FnOnce(&Image, &mut [f32])) -> Result<()> {
        let mut new = Image::new(channels, height, width)?;
        draw(self, &mut new.pixels);
        *self = new;
        Ok(())
    }

    /// Replaces the image as [`replace`](Self::replace) does, by a `draw` that makes whole 255ths
    /// of whole 255ths.
    pub(crate) fn resample(&mut self, channels: usize, height: usize, width: usize, draw: impl FnOnce(&Image, &mut [f32])) -> Result<()> {
        let bytes = self.bytes;
        self.replace(channels, height, width, draw)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Makes an image of bytes in the order `[H, W, C]`, each divided by `scale`.
    pub(crate) fn from_bytes([channels, height, width]: [usize; 3], bytes: &[u8], scale: f32) -> Result<Image> {
        let mut image = Image::new(channels, height, width)?;
        if bytes.len() != image.pixels.len() {
            let message = format!("{} bytes do not make a {channels}×{height}×{width} image", bytes.len());
            return Err(Error::shape("image", message));
        }
        let pixels = &mut image.pixels[..];
        vectorize::<f32, _>(|| {
            for (pixel, &byte) in pixels.iter_mut().zip(bytes) {
                *pixel = f32::from(byte) / scale;
            }
        });
        image.bytes = scale == 255.0;
        Ok(image)
    }

    /// Makes an image of a tensor `[C, H, W]`: `f32` as it is, `u8` divided by 255.
    ///
    /// # Errors
    /// [`Error::Shape`] when the tensor does not have three dimensions, [`Error::DType`] when it is
    /// neither `f32` nor `u8`.
    pub fn from_tensor(tensor: &Tensor) -> Result<Image> {
        let &[channels, height, width] = tensor.shape() else {
            return Err(Error::shape("image", format!("expected shape [C, H, W], got {:?}", tensor.shape())));
        };
        let mut image = Image::new(channels, height, width)?;
        match tensor.dtype() {
            DType::F32 => image.set_planes(tensor.data(), |value: f32| value),
            DType::U8 => image.set_planes(tensor.data(), |value: u8| f32::from(value) / 255.0),
            got => return Err(Error::DType { op: "image", expected: "f32 or u8", got }),
        }
        image.bytes = tensor.dtype() == DType::U8;
        Ok(image)
    }

    fn set_planes<T: Copy>(&mut self, planes: &[T], value: impl Fn(T) -> f32) {
        let plane = self.height * self.width;
        for (i, pixel) in self.pixels.chunks_exact_mut(self.channels.max(1)).enumerate() {
            for (c, out) in pixel.iter_mut().enumerate() {
                *out = value(planes[c * plane + i]);
            }
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
        Tensor::build(&self.shape(), MemoryFormat::RowMajor, |out: &mut [f32]| {
            for (i, pixel) in self.pixels.chunks_exact(channels.max(1)).enumerate() {
                for (c, &value) in pixel.iter().enumerate() {
                    out[c * plane + i] = value;
                }
            }
        })
    }
}
