//! Pictures from files, recognised by their content: JPEG and PNG, by a feature others too.

use std::path::Path;

#[cfg(feature = "image-formats")]
use super::formats;
use super::orientation::{orientation, upright, upright_size};
use super::pixels::reserved;
use super::{Image, Mask, jpeg, png};
use crate::error::{Error, Result};
use crate::io::{read_file, read_start};

impl Image {
    /// Reads a JPEG or PNG file as red, green and blue: `[3, H, W]`, an [image of
    /// bytes](Image::is_bytes). With the feature `image-formats`, BMP, GIF, TIFF and WebP files are
    /// read too. The content decides, not the name.
    ///
    /// Pixels are those of `Image.open(path).convert("RGB")` in Pillow 13, to the bit: gray is
    /// repeated, transparency is dropped, and the orientation tag of cameras (EXIF) is ignored.
    /// Damaged files that Pillow opens are opened too. Of 16 bits in PNG files the upper 8 count,
    /// but gray without transparency is clipped at 255, as in Pillow: scale such files beforehand.
    ///
    /// Of animations the first picture is read, transparent pixels of GIF files are black, and TIFF
    /// samples of more than 8 bits are scaled to 8.
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
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is of another format,
    /// damaged, truncated, has more pixels than [`set_max_pixels`](super::set_max_pixels) allows,
    /// or promises more than its data can fill.
    pub fn open(path: impl AsRef<Path>) -> Result<Image> {
        let path = path.as_ref();
        decode(&read_file(path)?).map_err(|message| Error::format(path, message))
    }

    /// Reads a file as [`open`](Self::open) does, turned or mirrored as its orientation tag (EXIF)
    /// says: Pillow's `ImageOps.exif_transpose`. Cameras that are held upright write such tags.
    ///
    /// # Errors
    /// Those of [`open`](Self::open). A damaged tag counts as none.
    pub fn open_upright(path: impl AsRef<Path>) -> Result<Image> {
        let path = path.as_ref();
        let bytes = read_file(path)?;
        decode(&bytes).and_then(|image| upright(image, orientation(&bytes))).map_err(|message| Error::format(path, message))
    }

    /// Returns the height and width of the picture in a file, as [`open`](Self::open) would give
    /// them, from its header: only the start of the file is read, and nothing is decoded. Damaged
    /// picture data stays unnoticed.
    ///
    /// ```
    /// use convnet::data::Image;
    ///
    /// # std::env::set_current_dir("tests/fixtures/images").unwrap();
    /// assert_eq!(Image::size_of("rgb.jpg")?, [37, 53]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`open`](Self::open) that the header shows.
    pub fn size_of(path: impl AsRef<Path>) -> Result<[usize; 2]> {
        let path = path.as_ref();
        let mut most = HEADER;
        loop {
            let start = read_start(path, most)?;
            match size(&start) {
                Ok(size) => return Ok(size),
                // The header may be longer than what was read.
                Err(_) if start.len() as u64 == most => most = most.saturating_mul(8),
                Err(message) => return Err(Error::format(path, message)),
            }
        }
    }

    /// Returns the height and width of the picture in a file, as
    /// [`open_upright`](Self::open_upright) would give them. The whole file is read, as the
    /// orientation may stand at its end, but not decoded.
    ///
    /// # Errors
    /// Those of [`size_of`](Self::size_of).
    pub fn size_of_upright(path: impl AsRef<Path>) -> Result<[usize; 2]> {
        let path = path.as_ref();
        let bytes = read_file(path)?;
        let size = size(&bytes).map_err(|message| Error::format(path, message))?;
        Ok(upright_size(size, orientation(&bytes)))
    }

    /// Decodes a file's content as [`open`](Self::open) does.
    ///
    /// # Errors
    /// [`Error::Value`] when the content is of another format, damaged, truncated, has more pixels
    /// than [`set_max_pixels`](super::set_max_pixels) allows, or promises more than its data can
    /// fill.
    pub fn decode(bytes: &[u8]) -> Result<Image> {
        decode(bytes).map_err(|message| Error::value("image", message))
    }
}

impl Mask {
    /// Reads a PNG file as classes: the indices of its palette, or its gray samples as they are
    /// stored. Masks of Pascal VOC have a palette, those of Cityscapes and ADE20K are gray.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is no PNG file, has
    /// colours or samples of 16 bits, or for the reasons of [`Image::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Mask> {
        let path = path.as_ref();
        let pixels = png::decode_classes(&read_file(path)?).map_err(|message| Error::format(path, message))?;
        Mask::new([pixels.height, pixels.width], pixels.bytes)
    }
}

/// The bytes of a file in which its header is searched for first.
const HEADER: u64 = 1 << 14;

/// What a file's first bytes say about its format.
enum Format {
    Jpeg,
    Png,
    /// One that the crate `image` reads.
    Other(&'static str),
}

impl Format {
    fn of(bytes: &[u8]) -> Result<Format, String> {
        Ok(match bytes {
            [0xFF, 0xD8, ..] => Format::Jpeg,
            [0x89, b'P', b'N', b'G', ..] => Format::Png,
            [] => return Err("an empty file".to_string()),
            [b'B', b'M', ..] => Format::Other("BMP"),
            [b'G', b'I', b'F', b'8', ..] => Format::Other("GIF"),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Format::Other("WebP"),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Format::Other("TIFF"),
            _ => return Err("neither a JPEG nor a PNG file".to_string()),
        })
    }
}

/// Returns the height and width that a file's header states.
fn size(bytes: &[u8]) -> Result<[usize; 2], String> {
    let [width, height] = match Format::of(bytes)? {
        Format::Jpeg => jpeg::size(bytes)?,
        Format::Png => png::size(bytes)?,
        Format::Other(name) => formats::size(bytes, name)?,
    };
    Ok([height, width])
}

fn decode(bytes: &[u8]) -> Result<Image, String> {
    let pixels = match Format::of(bytes)? {
        Format::Jpeg => jpeg::decode(bytes)?,
        Format::Png => png::decode(bytes)?,
        Format::Other(name) => formats::decode(bytes, name)?,
    };
    let colours = match pixels.channels {
        1 => expanded(&pixels.bytes, |&[gray]| [gray; 3])?,
        4 => expanded(&pixels.bytes, without_black)?,
        _ => pixels.bytes,
    };
    Image::from_bytes([3, pixels.height, pixels.width], colours).map_err(|error| error.to_string())
}

/// Refuses the formats that the crate `image` reads.
#[cfg(not(feature = "image-formats"))]
mod formats {
    use crate::data::pixels::Pixels;

    pub fn decode(_: &[u8], name: &str) -> Result<Pixels, String> {
        Err(format!("a {name} file, which is read with the crate's feature `image-formats`"))
    }

    pub fn size(bytes: &[u8], name: &str) -> Result<[usize; 2], String> {
        decode(bytes, name).map(|pixels| [pixels.width, pixels.height])
    }
}

fn expanded<const N: usize>(bytes: &[u8], colour: impl Fn(&[u8; N]) -> [u8; 3]) -> Result<Vec<u8>, String> {
    let (pixels, _) = bytes.as_chunks::<N>();
    let mut colours = reserved(3 * pixels.len())?;
    colours.extend(pixels.iter().flat_map(colour));
    Ok(colours)
}

/// Converts inks to light as Pillow does; files have inks inverted, as Adobe's programs write them.
fn without_black(&[c, m, y, k]: &[u8; 4]) -> [u8; 3] {
    let white = u32::from(k);
    [c, m, y].map(|value| {
        // The product in 255ths, rounded.
        let product = u32::from(255 - value) * white + 128;
        white.saturating_sub((product + (product >> 8)) >> 8) as u8
    })
}
