//! Pictures from files: JPEG and PNG, by content.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::data::{Image, jpeg, png};
use crate::error::{Error, Result};
use crate::nn::state::safetensors::read_file;

/// A decoded picture, pixel by pixel.
pub(crate) struct Pixels {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 1: gray; 3: red, green, blue; 4: inverted cyan, magenta, yellow, black.
    pub(crate) channels: usize,
    pub(crate) bytes: Vec<u8>,
}

/// Pillow's limit: what `Image.open` refuses as a decompression bomb.
static MAX_PIXELS: AtomicUsize = AtomicUsize::new(178_956_970);

/// Sets how many pixels a picture may have that [`Image::open`] and [`Image::decode`] read, for the
/// whole process. Larger ones are errors. 178,956,970 by default, which is Pillow's limit.
///
/// Below the limit, memory still grows with what a file's data can fill and not with what its
/// header promises.
///
/// ```
/// use convnet::data::{self, Image};
///
/// # std::env::set_current_dir("tests/fixtures/images").unwrap();
/// data::set_max_pixels(1000);
/// let error = Image::open("rgb.png").unwrap_err();
/// assert!(error.to_string().contains("oversized: 53×37 pixels, the limit is 1000 (data::set_max_pixels)"));
/// ```
pub fn set_max_pixels(pixels: usize) {
    MAX_PIXELS.store(pixels, Ordering::Relaxed);
}

/// How many pixels a picture may have; see [`set_max_pixels`].
pub fn max_pixels() -> usize {
    MAX_PIXELS.load(Ordering::Relaxed)
}

/// Checks that a picture is neither empty nor larger than the limit.
pub(crate) fn check_size(width: usize, height: usize) -> Result<(), String> {
    let limit = max_pixels();
    if width == 0 || height == 0 {
        return Err(format!("it has no pixels: {width}×{height}"));
    }
    if width.checked_mul(height).is_none_or(|pixels| pixels > limit) {
        return Err(format!("oversized: {width}×{height} pixels, the limit is {limit} (data::set_max_pixels)"));
    }
    Ok(())
}

/// An empty vector with room for `length` elements.
pub(crate) fn reserved<T>(length: usize) -> Result<Vec<T>, String> {
    let mut vector = Vec::new();
    let bytes = length.saturating_mul(size_of::<T>());
    vector.try_reserve_exact(length).map_err(|_| format!("oversized: {bytes} bytes are more than memory can hold"))?;
    Ok(vector)
}

/// A vector of zeros. Whether there is memory for it is tried first, since only a vector that is made
/// of zeros at once costs nothing before it is written to.
pub(crate) fn zeroed<T: Clone>(length: usize, zero: T) -> Result<Vec<T>, String> {
    drop(reserved::<T>(length)?);
    Ok(vec![zero; length])
}

impl Image {
    /// Reads a JPEG or PNG file as red, green and blue: `[3, H, W]`, an [image of bytes](Image::is_bytes).
    ///
    /// Pixels are those that `Image.open(path).convert("RGB")` has in Pillow 13, to the bit: gray is
    /// repeated, transparency is left out, and a camera's note of how it was held is not heeded.
    /// Damaged files that Pillow opens open here. Of 16 bits in PNG files the upper 8 count, but gray
    /// without transparency is clipped at 255, as in Pillow: scale such files beforehand.
    ///
    /// ```
    /// use convnet::data::Image;
    ///
    /// # std::env::set_current_dir("tests/fixtures/images").unwrap();
    /// let tensor = Image::open("rgb.jpg")?.to_tensor(); // in [0, 1]
    /// assert_eq!(tensor.shape(), [3, 37, 53]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is of another kind,
    /// damaged, truncated, has more pixels than [`set_max_pixels`] allows, or promises more than its
    /// data can fill.
    pub fn open(path: impl AsRef<Path>) -> Result<Image> {
        let mut image = Image::default();
        image.read(path.as_ref())?;
        Ok(image)
    }

    /// As [`open`](Self::open), from a file's content.
    ///
    /// # Errors
    /// [`Error::Value`] where `open` has [`Error::Format`].
    pub fn decode(bytes: &[u8]) -> Result<Image> {
        let mut image = Image::default();
        image.set_encoded(bytes).map_err(|message| Error::value("image", message))?;
        Ok(image)
    }

    /// Overwrites the image with a file's.
    pub(crate) fn read(&mut self, path: &Path) -> Result<()> {
        self.set_encoded(&read_file(path)?).map_err(|message| Error::format(path, message))
    }

    fn set_encoded(&mut self, bytes: &[u8]) -> Result<(), String> {
        let pixels = match bytes {
            [0xFF, 0xD8, ..] => jpeg::decode(bytes)?,
            [0x89, b'P', b'N', b'G', ..] => png::decode(bytes)?,
            [] => return Err("an empty file".to_string()),
            _ => return Err("neither a JPEG nor a PNG file".to_string()),
        };
        let colours = match pixels.channels {
            1 => expanded(&pixels.bytes, |&[gray]| [gray; 3])?,
            4 => expanded(&pixels.bytes, without_black)?,
            _ => pixels.bytes,
        };
        self.set_bytes([3, pixels.height, pixels.width], &colours, 255.0).map_err(|error| error.to_string())
    }
}

fn expanded<const N: usize>(bytes: &[u8], colour: impl Fn(&[u8; N]) -> [u8; 3]) -> Result<Vec<u8>, String> {
    let (pixels, _) = bytes.as_chunks::<N>();
    let mut colours = reserved(3 * pixels.len())?;
    colours.extend(pixels.iter().flat_map(colour));
    Ok(colours)
}

/// Inks to light, as Pillow does it; files have inks inverted, as Adobe's programs write them.
fn without_black(&[c, m, y, k]: &[u8; 4]) -> [u8; 3] {
    let white = u32::from(k);
    [c, m, y].map(|value| {
        // The product in 255ths, rounded.
        let product = u32::from(255 - value) * white + 128;
        white.saturating_sub((product + (product >> 8)) >> 8) as u8
    })
}
