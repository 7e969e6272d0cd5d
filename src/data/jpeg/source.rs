//! Bytes of entropy-coded data and the markers between them, with libjpeg's recovery from lost
//! markers.

use super::Parsed;

/// Entropy-coded data up to a marker, which is passed on request only.
pub(super) struct Source<'a> {
    data: &'a [u8],
    at: usize,
    /// The number of the next restart marker, modulo 8.
    next_restart: u8,
}

impl<'a> Source<'a> {
    pub(super) fn new(data: &'a [u8]) -> Source<'a> {
        Source { data, at: 0, next_restart: 0 }
    }

    /// Returns the next byte; `None` at a marker and at the end of the file.
    #[inline]
    pub(super) fn byte(&mut self) -> Option<u8> {
        match self.data.get(self.at) {
            Some(&0xFF) => self.escaped(),
            Some(&byte) => {
                self.at += 1;
                Some(byte)
            }
            None => None,
        }
    }

    /// A run of FF bytes and a zero stand for FF.
    #[cold]
    fn escaped(&mut self) -> Option<u8> {
        let length = self.data[self.at..].iter().take_while(|&&byte| byte == 0xFF).count();
        match self.data.get(self.at + length) {
            Some(0) => {
                self.at += length + 1;
                Some(0xFF)
            }
            Some(_) => {
                self.at += length - 1;
                None
            }
            None => {
                self.at = self.data.len();
                None
            }
        }
    }

    /// Appends the bytes up to the next marker, or to the end of the file, to `bytes`.
    pub(super) fn read_to_marker(&mut self, bytes: &mut Vec<u8>) {
        loop {
            let rest = &self.data[self.at..];
            let plain = plain_length(rest);
            bytes.extend_from_slice(&rest[..plain]);
            self.at += plain;
            match self.byte() {
                Some(byte) => bytes.push(byte),
                None => return,
            }
        }
    }

    /// Returns whether the end of the file, not a marker, ended the data.
    pub(super) fn truncated(&self) -> bool {
        self.at >= self.data.len()
    }

    /// Returns where the data ended: at a marker or at the end of the file.
    pub(super) fn end(&self) -> usize {
        self.at
    }

    /// Moves to the next marker and returns it.
    fn next_marker(&mut self) -> Parsed<u8> {
        while self.byte().is_some() {}
        self.data.get(self.at + 1).copied().ok_or_else(|| TRUNCATED.to_string())
    }

    /// Passes the next restart marker, or decides by libjpeg's rules (`jpeg_resync_to_restart`)
    /// what a wrong one means: data to discard, or a place that is still to come. Returns whether
    /// data follows.
    pub(super) fn restart(&mut self) -> Parsed<bool> {
        let expected = self.next_restart;
        self.next_restart = (expected + 1) % 8;
        loop {
            let marker = self.next_marker()?;
            // The number of markers ahead of the expected one, modulo 8.
            let ahead = marker.wrapping_sub(0xD0).wrapping_sub(expected) % 8;
            match (marker, ahead) {
                (0xD0..=0xD7, 1 | 2) => return Ok(false),
                (0xD0..=0xD7, 6 | 7) | (..0xC0, _) => self.at += 2,
                (0xD0..=0xD7, _) => {
                    self.at += 2;
                    return Ok(true);
                }
                _ => return Ok(false),
            }
        }
    }
}

/// Returns the number of bytes before the first FF.
fn plain_length(bytes: &[u8]) -> usize {
    // Without an early exit from a chunk, the compiler compares its bytes at once.
    let is_plain = |chunk: &&[u8; 32]| chunk.iter().fold(true, |plain, &byte| plain & (byte != 0xFF));
    let plain = 32 * bytes.as_chunks::<32>().0.iter().take_while(is_plain).count();
    plain + bytes[plain..].iter().take_while(|&&byte| byte != 0xFF).count()
}

pub(super) const TRUNCATED: &str = "truncated: picture data ends too early";
