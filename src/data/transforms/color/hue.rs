//! Rotation of hues.

use super::{BLOCK, Blocks, Plane, expect_gray_or_rgb, for_each_block};
use crate::data::Image;
use crate::data::image::Pixels;
use crate::data::transforms::{Deterministic, deterministic};
use crate::error::{Error, Result};
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::simd::{Real, vectorize};

/// Rotates the hues (torchvision's `adjust_hue`).
///
/// The shift is a part of the whole circle of hues, from -0.5 to 0.5, both of which give the
/// complementary colours; 0 changes nothing but what the way through bytes of hue, saturation and
/// value loses, as in Pillow. An image of one channel stays as it is.
///
/// ```
/// use convnet::data::{Hue, Image};
///
/// let mut red = Image::from_floats([3, 1, 1], vec![1.0, 0.0, 0.0])?;
/// red.apply(&Hue::new(0.5))?;
/// assert_eq!(red.pixels()[..], [0.0, 1.0, 1.0]); // cyan
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for a shift outside of -0.5 to 0.5, or an image that has
/// neither 1 nor 3 channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hue {
    shift: f64,
}

impl Hue {
    /// Makes a rotation by this part of the circle, -0.5 to 0.5.
    pub fn new(shift: f64) -> Hue {
        Hue { shift }
    }
}

impl Deterministic for Hue {
    fn transform(&self, image: &mut Image) -> Result<()> {
        if !(-0.5..=0.5).contains(&self.shift) {
            return Err(Error::argument("hue", format!("a shift is a part of the circle from -0.5 to 0.5, got {}", self.shift)));
        }
        expect_gray_or_rgb("hue", image)?;
        if image.channels() == 1 {
            return Ok(());
        }
        match &mut image.pixels {
            Pixels::Bytes(bytes) => {
                let shift = (self.shift * 255.0) as i32 as u8;
                for_each_block(bytes, &mut Rotation { shift });
            }
            Pixels::Floats(values) => {
                let shift = self.shift as f32;
                vectorize!(f32, values.as_chunks_mut().0.iter_mut().for_each(|pixel| *pixel = rotated(*pixel, shift)));
            }
        }
        Ok(())
    }
}

deterministic!(Hue);

/// A rotation of bytes of hue.
struct Rotation {
    shift: u8,
}

impl Blocks for Rotation {
    #[inline(always)]
    fn block(&mut self, planes: &mut [Plane; 3]) {
        rotate_bytes(planes, self.shift);
    }
}

/// Rotates the hues of a block by way of bytes of hue, saturation and value, with the results of
/// Pillow's conversions (`rgb2hsv`, `hsv2rgb`).
///
/// Pillow computes in a mixture of `f32` and `f64`. Where `f32` or a product in place of a quotient
/// gives the same bytes for all values, it is used here.
#[inline(always)]
fn rotate_bytes([red, green, blue]: &mut [Plane; 3], shift: u8) {
    let mut hue = [0.0f32; BLOCK];
    let mut saturation = [0.0f32; BLOCK];
    let mut value = [0.0f32; BLOCK];
    for i in 0..BLOCK {
        let (r, g, b) = (red[i], green[i], blue[i]);
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        let range = f32::from(max - min);
        let divisor = if max == min { 1.0 } else { range };
        let [from_r, from_g, from_b] = [r, g, b].map_each(|x| f32::from(max - x));
        let (r_max, g_max) = (r == max, g == max);
        // Grey comes to (0 + 0) - 0.
        let plus = if r_max {
            from_b
        } else if g_max {
            from_r
        } else {
            from_g
        };
        let minus = if r_max {
            from_g
        } else if g_max {
            from_b
        } else {
            from_r
        };
        let sector: f32 = if r_max {
            0.0
        } else if g_max {
            2.0
        } else {
            4.0
        };
        let sixths = (f64::from(sector) + f64::from(plus / divisor)) - f64::from(minus / divisor);
        let turns = f64::from(sixths as f32) * (1.0 / 6.0) + 1.0;
        hue[i] = ((turns - turns.floor()) as f32 * 255.0).floor();
        saturation[i] = (range / f32::from(max.max(1)) * 255.0).floor() / 255.0;
        value[i] = f32::from(max);
    }
    for i in 0..BLOCK {
        let shifted = u16::from(hue[i].to_byte().wrapping_add(shift)) * 6;
        let sector = shifted / 255;
        let fraction = f32::from(shifted - sector * 255) / 255.0;
        let (s, v) = (saturation[i], f64::from(value[i]));
        let rounded = |part: f64| ((v * part + 0.5).floor() as f32).to_byte();
        let low = rounded(1.0 - f64::from(s));
        let falling = rounded(1.0 - f64::from(s * fraction));
        let rising = rounded(1.0 - f64::from(s) * (1.0 - f64::from(fraction)));
        let high = value[i].to_byte();
        [red[i], green[i], blue[i]] = placed(sector, [high, low, rising, falling]);
    }
}

/// Returns the colour of a sixth of the circle of hues; the sixth sixth is the zeroth again.
#[inline(always)]
fn placed<T: Copy>(sector: u16, [high, low, rising, falling]: [T; 4]) -> [T; 3] {
    let select = |sectors: [T; 6]| {
        let mut chosen = sectors[0];
        for (number, &value) in sectors.iter().enumerate().skip(1) {
            chosen = if sector == number as u16 { value } else { chosen };
        }
        chosen
    };
    [
        select([high, falling, low, low, rising, high]),
        select([rising, high, high, falling, low, low]),
        select([low, low, rising, high, high, falling]),
    ]
}

/// Rotates the hue of a colour in `[0, 1]`, as torchvision does for tensors.
#[inline(always)]
fn rotated([r, g, b]: [f32; 3], shift: f32) -> [f32; 3] {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let range = max - min;
    let (divisor, whole) = if max == min { (1.0, 1.0) } else { (range, max) };
    let saturation = range / whole;
    let [from_r, from_g, from_b] = [r, g, b].map_each(|x| (max - x) / divisor);
    let of_blue = 4.0 + from_g - from_r;
    let of_green = 2.0 + from_r - from_b;
    let sixths = if max == r {
        from_b - from_g
    } else if max == g {
        of_green
    } else {
        of_blue
    };
    let turns = sixths / 6.0 + 1.0;
    let hue = turns - turns.floor() + shift;
    let sixths = (hue - hue.floor()) * 6.0;
    let sector = sixths.floor();
    let fraction = sixths - sector;
    let [low, falling, rising] =
        [saturation, saturation * fraction, saturation * (1.0 - fraction)].map_each(|part| (max * (1.0 - part)).clamp(0.0, 1.0));
    placed(u16::from(sector.to_byte()), [max, low, rising, falling])
}
