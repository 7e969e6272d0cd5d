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
    /// picture data stays unnoticed. A TIFF file may be read to its end, where its header can be.
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
        size_in_start(path, |most| read_start(path, most))
    }

    /// Returns the height and width of the picture in a file, as
    /// [`open_upright`](Self::open_upright) would give them. The whole file of a picture is read,
    /// as the orientation may stand at its end, but not decoded.
    ///
    /// # Errors
    /// Those of [`size_of`](Self::size_of).
    pub fn size_of_upright(path: impl AsRef<Path>) -> Result<[usize; 2]> {
        let path = path.as_ref();
        let size = Self::size_of(path)?;
        Ok(upright_size(size, orientation(&read_file(path)?)))
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

/// Returns the height and width that a file's header states. `read` returns the first bytes of the
/// file, at most as many as it is told.
fn size_in_start(path: &Path, mut read: impl FnMut(u64) -> Result<Vec<u8>>) -> Result<[usize; 2]> {
    let mut most = HEADER;
    loop {
        let start = read(most)?;
        match size(&start) {
            Ok(size) => return Ok(size),
            Err(message) if start.len() as u64 == most && may_be_cut(&start, &message) => most = most.saturating_mul(8),
            Err(message) => return Err(Error::format(path, message)),
        }
    }
}

/// Returns whether [`size`] may succeed with more of the file than this start, for which it gave
/// this message.
fn may_be_cut(start: &[u8], message: &str) -> bool {
    match Format::of(start) {
        Ok(Format::Jpeg | Format::Png) => message.starts_with("truncated"),
        // Messages of the crate `image` do not say whether the end of the data is the reason.
        Ok(Format::Other(_)) => cfg!(feature = "image-formats"),
        Err(_) => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks for the size of a picture in a file of a terabyte with this start and then zeros.
    /// Returns how much was read of it, and the size or the message.
    fn read_of_a_large_file(start: &[u8]) -> (u64, Result<[usize; 2]>) {
        let mut last = 0;
        let size = size_in_start(Path::new("large"), |most| {
            assert!(most <= 1 << 24, "{most} bytes are read");
            last = most;
            let mut bytes = start.to_vec();
            bytes.resize(most as usize, 0);
            Ok(bytes)
        });
        (last, size)
    }

    #[test]
    fn no_more_of_a_file_is_read_than_can_hold_its_size() {
        // A video, a JPEG file with an unknown marker, and a PNG file whose first chunk is damaged.
        for start in [&b"\0\0\0\x18ftypmp42"[..], b"\xFF\xD8\xFF\x02", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"] {
            let (read, size) = read_of_a_large_file(start);
            assert_eq!(read, HEADER, "{}", start.escape_ascii());
            assert!(size.unwrap_err().to_string().contains("large"));
        }
        if cfg!(not(feature = "image-formats")) {
            assert_eq!(read_of_a_large_file(b"II\x2a\0").0, HEADER);
        }
    }

    #[test]
    fn a_header_longer_than_the_first_bytes_is_read() {
        // Comments of 64 KiB, then the header of a frame of 4×8 gray pixels.
        let comment = [&[0xFF, 0xFE, 0xFF, 0xFF][..], &[0; 0xFFFD]].concat();
        let frame = [0xFF, 0xC0, 0, 11, 8, 0, 4, 0, 8, 1, 1, 0x11, 0];
        let file = [&[0xFF, 0xD8][..], &comment, &comment, &frame].concat();
        let (read, size) = read_of_a_large_file(&file);
        assert_eq!((read, size.unwrap()), (64 * HEADER, [4, 8]));
    }
}
