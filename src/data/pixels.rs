//! The result of all decoders of picture files, and the limit on its size.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A decoded picture, pixel by pixel.
pub(crate) struct Pixels {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// 1: gray; 3: red, green, blue; 4: inverted cyan, magenta, yellow, black.
    pub(crate) channels: usize,
    pub(crate) bytes: Vec<u8>,
}

/// Pillow's limit, beyond which `Image.open` refuses a file as a decompression bomb.
static MAX_PIXELS: AtomicUsize = AtomicUsize::new(178_956_970);

/// Sets how many pixels a picture may have that [`Image::open`](super::Image::open) and
/// [`Image::decode`](super::Image::decode) read, for the whole process. Larger ones are errors.
/// 178,956,970 by default, which is Pillow's limit.
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

/// Returns how many pixels a picture may have; see [`set_max_pixels`].
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

/// Returns an empty vector with room for `length` elements.
pub(crate) fn reserved<T>(length: usize) -> Result<Vec<T>, String> {
    let mut vector = Vec::new();
    let bytes = length.saturating_mul(size_of::<T>());
    vector.try_reserve_exact(length).map_err(|_| format!("oversized: {bytes} bytes are more than memory can hold"))?;
    Ok(vector)
}

/// Returns a vector of zeros. Whether memory suffices is tried first, on another vector: only one
/// that is made of zeros at once costs nothing before it is written to.
pub(crate) fn zeroed<T: Clone>(length: usize, zero: T) -> Result<Vec<T>, String> {
    drop(reserved::<T>(length)?);
    Ok(vec![zero; length])
}
