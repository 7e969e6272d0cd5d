//! Texts in a picture: escaped, and of limited width.

/// The mean width of a character of a sans-serif font, as a share of the font's size.
const CHARACTER: f64 = 0.56;

/// Escapes a text for an element or an attribute in quotes. Control characters are replaced.
pub(crate) fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            '\n' | '\t' => html.push(c),
            c if c.is_control() => html.push(char::REPLACEMENT_CHARACTER),
            c => html.push(c),
        }
    }
    html
}

/// Returns a text of at most `longest` characters and an ellipsis.
pub(crate) fn clipped(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Estimates how wide a text is, since nothing here knows the reader's font.
pub(super) fn width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * CHARACTER * size
}

/// Returns the escaped text, cut where it is wider than there is room.
pub(super) fn fitted(text: &str, size: f64, room: f64) -> String {
    escaped(&clipped(text, (room / (CHARACTER * size)).max(1.0) as usize))
}
