//! Pieces of HTML: escaped texts, pictures inside of the file, tables.

use std::fmt::Write as _;

use crate::chart::clipped;
pub(super) use crate::chart::escaped;
use crate::data::{Image, Resize};
use crate::error::Result;

/// The longest label, in characters; longer ones are cut.
const LONGEST_LABEL: usize = 80;

/// The longer side of pictures, in pixels; larger ones are made smaller.
const LARGEST_SIDE: usize = 320;

/// Returns an escaped text of limited length, whose direction of writing does not change the text
/// around it.
pub(super) fn label(text: &str) -> String {
    format!("<bdi>{}</bdi>", escaped(&clipped(text, LONGEST_LABEL)))
}

/// Returns a table of names and values.
pub(super) fn pairs<'a>(rows: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut html = "<table class=\"pairs\"><tbody>".to_string();
    for (name, value) in rows {
        let _ = write!(html, "<tr><th scope=\"row\"><bdi>{}</bdi></th><td><bdi>{}</bdi></td></tr>", escaped(name), escaped(value));
    }
    html + "</tbody></table>"
}

/// Returns an element with the picture inside, as PNG.
pub(super) fn picture(image: &Image, alt: &str) -> Result<String> {
    let [height, width] = image.size();
    let (longer, shorter) = (height.max(width), height.min(width));
    let reduced;
    let (image, class) = if longer > LARGEST_SIDE {
        let mut smaller = image.clone();
        smaller.apply(&Resize::shorter((shorter * LARGEST_SIDE / longer).max(1)))?;
        reduced = smaller;
        (&reduced, " class=\"large\"")
    } else {
        (image, if longer > 128 { " class=\"large\"" } else { "" })
    };
    let [height, width] = image.size();
    Ok(format!(
        "<img{class} alt=\"{}\" width=\"{width}\" height=\"{height}\" src=\"data:image/png;base64,{}\">",
        escaped(&clipped(alt, LONGEST_LABEL)),
        base64(&image.encode_png()?)
    ))
}

/// Encodes bytes as base 64 (RFC 4648).
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = if i <= chunk.len() { DIGITS[(group >> (18 - 6 * i)) as usize & 63] } else { b'=' };
            text.push(char::from(digit));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_64_has_the_test_vectors_of_rfc_4648() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        cases.iter().for_each(|(text, encoded)| assert_eq!(base64(text.as_bytes()), *encoded));
        assert_eq!(base64(&[0xFB, 0xFF, 0xFE]), "+//+");
    }

    #[test]
    fn texts_cannot_leave_their_element_or_attribute() {
        assert_eq!(escaped("<script>\"&'\u{1b}\u{0}"), "&lt;script&gt;&quot;&amp;&#39;\u{fffd}\u{fffd}");
        assert_eq!(clipped(&"ä".repeat(200), LONGEST_LABEL).chars().count(), LONGEST_LABEL + 1);
    }
}
