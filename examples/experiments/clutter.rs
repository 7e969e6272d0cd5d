//! Digits among pieces of other digits: the pictures of `segmentation` and `attention`.

use convnet::data::Rng;
use convnet::{Result, Tensor};

use super::lab::Glyph;

/// A pixel at least this bright belongs to a stroke.
pub const BRIGHT: f32 = 0.3;

/// How scenes are made.
#[derive(Clone, Copy)]
pub struct Clutter {
    /// Height and width of a digit.
    pub digit: usize,
    /// Height and width of a scene.
    pub side: usize,
    /// The number of pieces of other digits, each half as wide as a digit.
    pub pieces: usize,
}

/// Scenes with one whole digit each.
pub struct Scenes {
    /// `[N, 1, S, S]`, 0 to 1.
    pub images: Tensor,
    /// 1 where a stroke of the digit is, `[N, S, S]`.
    pub masks: Tensor,
    /// 1 in the square around the digit, `[N, 1, S, S]`.
    pub squares: Tensor,
    /// The classes of the digits, `[N]`.
    pub labels: Tensor,
}

impl Clutter {
    /// Makes scenes of these digits.
    pub fn scenes(self, digits: &[Glyph], count: usize, seed: u64) -> Result<Scenes> {
        let Clutter { digit, side, .. } = self;
        let pixels = count * side * side;
        let (mut images, mut squares) = (Vec::with_capacity(pixels), Vec::with_capacity(pixels));
        let (mut masks, mut labels) = (Vec::with_capacity(pixels), Vec::with_capacity(count));
        for scene in 0..count {
            let mut rng = Rng::for_sample(seed, 0, scene as u64);
            let [mut image, mut mask, mut square] = [(); 3].map(|()| vec![0.0; side * side]);
            for _ in 0..self.pieces {
                let (other, _) = &digits[rng.below(digits.len())];
                let piece = digit / 2;
                let [from, to] = [digit, side].map(|most| [(); 2].map(|()| rng.below(most - piece + 1)));
                self.paste(&mut image, other, from, to, piece);
            }
            let (glyph, label) = &digits[rng.below(digits.len())];
            let at = [(); 2].map(|()| rng.below(side - digit + 1));
            for (canvas, glyph) in [(&mut image, glyph), (&mut mask, glyph), (&mut square, &vec![1.0; digit * digit])] {
                self.paste(canvas, glyph, [0; 2], at, digit);
            }
            masks.extend(mask.iter().map(|&x| i64::from(x >= BRIGHT)));
            labels.push(*label);
            images.extend(image);
            squares.extend(square);
        }
        Ok(Scenes {
            images: Tensor::from_vec(images, [count, 1, side, side])?,
            masks: Tensor::from_vec(masks, [count, side, side])?,
            squares: Tensor::from_vec(squares, [count, 1, side, side])?,
            labels: Tensor::from_vec(labels, [count])?,
        })
    }

    /// Draws a square part of a digit into a scene.
    fn paste(self, canvas: &mut [f32], glyph: &[f32], from: [usize; 2], to: [usize; 2], part: usize) {
        for (row, column) in (0..part).flat_map(|row| (0..part).map(move |column| (row, column))) {
            let place = &mut canvas[(to[0] + row) * self.side + to[1] + column];
            *place = place.max(glyph[(from[0] + row) * self.digit + from[1] + column]);
        }
    }
}
