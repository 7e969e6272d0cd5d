//! The orientation tag that cameras write into picture files (EXIF 2.3, tag 0x0112).

use super::Image;
use super::pixels::reserved;

/// Returns the orientation that a file states, 1 to 8; 1, upright, where it states none.
pub(super) fn orientation(file: &[u8]) -> u8 {
    let tags = match file {
        [0xFF, 0xD8, rest @ ..] => in_jpeg(rest),
        [0x89, b'P', b'N', b'G', _, _, _, _, rest @ ..] => in_png(rest),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', rest @ ..] => in_webp(rest),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Some(file),
        _ => None,
    };
    tags.and_then(in_tags).unwrap_or(1)
}

fn without_name(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"Exif\0\0").unwrap_or(body)
}

fn in_jpeg(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (&[0xFF, marker, high, low], after) = rest.split_first_chunk::<4>()? else { return None };
        match marker {
            0xFF => {
                rest = &rest[1..];
                continue;
            }
            // The compressed data begins.
            0xDA | 0xD9 => return None,
            _ => {}
        }
        let (body, after) = after.split_at_checked(usize::from(u16::from_be_bytes([high, low])).checked_sub(2)?)?;
        if marker == 0xE1 && body.starts_with(b"Exif\0\0") {
            return Some(without_name(body));
        }
        rest = after;
    }
}

fn in_png(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (name, after) = after.split_first_chunk::<4>()?;
        let (body, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        if name == b"eXIf" {
            return Some(without_name(body));
        }
        rest = after.get(4..)?;
    }
}

fn in_webp(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let (name, after) = rest.split_first_chunk::<4>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        if name == b"EXIF" {
            return after.get(..length).map(without_name);
        }
        rest = after.get(length.checked_next_multiple_of(2)?..)?;
    }
}

/// Finds the tag in the first directory of a TIFF structure.
fn in_tags(tags: &[u8]) -> Option<u8> {
    let little = tags.starts_with(b"II");
    let short = |at: usize| {
        let bytes = *tags.get(at..)?.first_chunk::<2>()?;
        Some(if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let bytes = *tags.get(4..)?.first_chunk::<4>()?;
    let directory = if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) } as usize;
    let first = directory.checked_add(2)?;
    let mut entries = (0..usize::from(short(directory)?)).map_while(|i| first.checked_add(12 * i));
    let entry = entries.find(|&entry| short(entry) == Some(0x0112))?;
    let value = short(entry.checked_add(8)?)?;
    u8::try_from(value).ok().filter(|value| (1..=8).contains(value))
}

/// Returns the height and width that a picture has when it is turned so that it is upright.
pub(super) fn upright_size([height, width]: [usize; 2], orientation: u8) -> [usize; 2] {
    if orientation >= 5 { [width, height] } else { [height, width] }
}

/// Returns an image of bytes turned so that it is upright.
pub(super) fn upright(image: Image, orientation: u8) -> Result<Image, String> {
    if orientation < 2 {
        return Ok(image);
    }
    let [channels, height, width] = image.shape();
    let Some(bytes) = image.bytes() else { return Ok(image) };
    let [new_height, new_width] = upright_size([height, width], orientation);
    let mut turned = reserved(bytes.len())?;
    for y in 0..new_height {
        for x in 0..new_width {
            let [row, column] = match orientation {
                2 => [y, width - 1 - x],
                3 => [height - 1 - y, width - 1 - x],
                4 => [height - 1 - y, x],
                5 => [x, y],
                6 => [height - 1 - x, y],
                7 => [height - 1 - x, width - 1 - y],
                _ => [x, width - 1 - y],
            };
            turned.extend_from_slice(&bytes[(row * width + column) * channels..][..channels]);
        }
    }
    Image::from_bytes([channels, new_height, new_width], turned).map_err(|error| error.to_string())
}
