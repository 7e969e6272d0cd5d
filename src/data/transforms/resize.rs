use super::Transform;
use crate::data::{Image, Random};
use crate::error::{Error, Result};

/// Scales to `[height, width]`, bilinear; when it makes images smaller, each pixel is a weighted mean of all that it covers
/// (torchvision's `Resize(size, antialias=True)`).
///
/// # Errors
/// Applying it gives [`Error::Argument`] when either size, or the image, is empty.
#[derive(Clone, Debug)]
pub struct Resize {
    size: [usize; 2],
}

impl Resize {
    /// To this height and width.
    pub fn new(size: [usize; 2]) -> Resize {
        Resize { size }
    }
}

impl Transform for Resize {
    fn apply(&self, image: &mut Image, _: &mut Random) -> Result<()> {
        let ([height, width], [channels, from_height, from_width]) = (self.size, image.shape());
        if [height, width, channels, from_height, from_width].contains(&0) {
            let message = format!("cannot scale an image of {from_height}×{from_width} pixels, {channels} channels, to {height}×{width}");
            return Err(Error::argument("resize", message));
        }
        if from_width != width {
            image.replace(channels, from_height, width, |old, new| {
                for (row, out) in old.pixels().chunks_exact(from_width * channels).zip(new.chunks_exact_mut(width * channels)) {
                    scale(row, out, channels, from_width, width);
                }
            })?;
        }
        if from_height != height {
            // A row is what a pixel is along the other side: a run of values that are scaled alike.
            image.replace(channels, height, width, |old, new| scale(old.pixels(), new, width * channels, from_height, height))?;
        }
        Ok(())
    }
}

/// `[from, run] -> [to, run]` along the first dimension, by a triangular filter as wide as the coarser of the two grids.
fn scale(input: &[f32], out: &mut [f32], run: usize, from: usize, to: usize) {
    let ratio = from as f64 / to as f64;
    let support = ratio.max(1.0);
    for (i, out) in out.chunks_exact_mut(run).enumerate() {
        let center = (i as f64 + 0.5) * ratio;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(from);
        let weight = |j: usize| (1.0 - ((j as f64 + 0.5 - center) / support).abs()).max(0.0);
        let total: f64 = (first..end).map(weight).sum();
        out.fill(0.0);
        for j in first..end {
            let weight = (weight(j) / total) as f32;
            out.iter_mut().zip(&input[j * run..]).for_each(|(y, &x)| *y += weight * x);
        }
    }
}
