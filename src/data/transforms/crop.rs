//! The central crop.

use super::Deterministic;
use crate::data::Image;
use crate::error::{Error, Result};

/// Cuts out the middle; where the image is smaller than that, black surrounds it (torchvision's
/// `CenterCrop`).
///
/// ```
/// use convnet::data::{CenterCrop, Image};
///
/// let mut image = Image::new(3, 256, 341)?;
/// image.apply(&CenterCrop::new([224, 224]))?;
/// assert_eq!(image.shape(), [3, 224, 224]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when the size is empty, or more than memory can hold.
#[derive(Clone, Debug)]
pub struct CenterCrop {
    size: [usize; 2],
}

impl CenterCrop {
    /// Makes a crop of this height and width.
    pub fn new(size: [usize; 2]) -> CenterCrop {
        CenterCrop { size }
    }
}

impl Deterministic for CenterCrop {
    fn transform(&self, image: &mut Image) -> Result<()> {
        let ([height, width], [channels, from_height, from_width]) = (self.size, image.shape());
        if height == 0 || width == 0 {
            return Err(Error::argument("center crop", format!("cannot crop to {height}×{width}: height and width must be at least 1")));
        }
        if [height, width] == [from_height, from_width] {
            return Ok(());
        }
        let (top, left) = (Margin::new(from_height, height), Margin::new(from_width, width));
        image.resample(channels, height, width, |old, new| {
            new.fill(0.0);
            let run = left.shared * channels;
            for row in 0..top.shared {
                let from = ((top.from + row) * from_width + left.from) * channels;
                let to = ((top.to + row) * width + left.to) * channels;
                new[to..to + run].copy_from_slice(&old.pixels()[from..from + run]);
            }
        })
    }
}

/// The part of a line that is kept, and its place in the new line.
struct Margin {
    from: usize,
    to: usize,
    shared: usize,
}

impl Margin {
    fn new(from: usize, to: usize) -> Margin {
        if to > from {
            return Margin { from: 0, to: (to - from) / 2, shared: from };
        }
        // Rounds as Python's `round`: half-way to the even number.
        let rest = from - to;
        let half = rest / 2;
        Margin { from: half + (rest % 2) * (half % 2), to: 0, shared: to }
    }
}
