//! Borders around images.

use super::crop::{Crop, refuse_empty};
use super::fill::Fill;
use super::geometry::Chain;
use super::{Geometric, Geometry};
use crate::data::annotations::Mask;
use crate::data::{Image, Rng};
use crate::error::{Error, Result};
use crate::tensor::Pair;

/// What surrounds an image (torchvision's `padding_mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PaddingMode {
    /// One colour, the [`Fill`].
    #[default]
    Constant,
    /// The outermost pixel again and again: `aaa|abcd|ddd`.
    Edge,
    /// The mirror image, without the outermost pixel: `dcb|abcd|cba`.
    Reflect,
    /// The mirror image, with the outermost pixel: `cba|abcd|dcb`.
    Symmetric,
}

impl PaddingMode {
    /// Returns an error when there are no pixels to repeat.
    pub(super) fn check(self, [height, width]: [usize; 2]) -> Result<()> {
        if height > 0 && width > 0 {
            return Ok(());
        }
        let message = format!("an image of {height}×{width} has no pixels to continue with; use PaddingMode::Constant");
        Err(Error::argument("pad", message))
    }

    /// Returns the position on a line, which is not empty, whose pixel is at this position before,
    /// on or after the line.
    pub(super) fn position(self, position: isize, line: usize) -> usize {
        let last = line as isize - 1;
        match self {
            PaddingMode::Constant | PaddingMode::Edge => position.clamp(0, last) as usize,
            PaddingMode::Reflect if last == 0 => 0,
            PaddingMode::Reflect => {
                let position = position.rem_euclid(2 * last);
                position.min(2 * last - position) as usize
            }
            PaddingMode::Symmetric => {
                let position = position.rem_euclid(2 * last + 2);
                position.min(2 * last + 1 - position) as usize
            }
        }
    }
}

/// The widths of a border in torchvision's order: one number for all sides, `[left and right, top
/// and bottom]`, or `[left, top, right, bottom]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Padding([usize; 4]);

impl From<usize> for Padding {
    fn from(width: usize) -> Padding {
        Padding([width; 4])
    }
}

impl From<[usize; 2]> for Padding {
    fn from([sides, ends]: [usize; 2]) -> Padding {
        Padding([sides, ends, sides, ends])
    }
}

impl From<[usize; 4]> for Padding {
    fn from(widths: [usize; 4]) -> Padding {
        Padding(widths)
    }
}

impl Padding {
    /// Returns the size with the border.
    fn around(self, [height, width]: [usize; 2]) -> [usize; 2] {
        let [left, top, right, bottom] = self.0;
        [height.saturating_add(top).saturating_add(bottom), width.saturating_add(left).saturating_add(right)]
    }

    /// Returns the widths above and left as coordinates.
    fn before(self) -> Result<[isize; 2]> {
        let [left, top, ..] = self.0;
        match (isize::try_from(top), isize::try_from(left)) {
            (Ok(top), Ok(left)) => Ok([top, left]),
            _ => Err(Error::argument("pad", format!("a border of {:?} pixels is more than memory can hold", self.0))),
        }
    }
}

/// Surrounds an image with a border (torchvision's `Pad`).
///
/// ```
/// use convnet::data::{Image, Pad, PaddingMode};
///
/// let mut image = Image::from_bytes([1, 1, 3], vec![1, 2, 3])?;
/// image.apply(&Pad::new([2, 0]).mode(PaddingMode::Reflect))?;
/// assert_eq!(image.bytes(), Some(&[3, 2, 1, 2, 3, 2, 1][..]));
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when the result is more than memory can hold, the fill
/// does not fit the channels, or there is nothing to repeat in an image without pixels.
#[derive(Clone, Debug)]
pub struct Pad {
    padding: Padding,
    fill: Fill,
    mode: PaddingMode,
}

impl Pad {
    /// Makes a border of these widths: `4`, `[sides, ends]` or `[left, top, right, bottom]`.
    pub fn new(padding: impl Into<Padding>) -> Pad {
        Pad { padding: padding.into(), fill: Fill::default(), mode: PaddingMode::Constant }
    }

    /// Sets the values of a constant border; black by default.
    pub fn fill(mut self, fill: impl Into<Fill>) -> Pad {
        self.fill = fill.into();
        self
    }

    /// Sets what the border consists of; the constant fill by default.
    pub fn mode(mut self, mode: PaddingMode) -> Pad {
        self.mode = mode;
        self
    }

    fn window(&self, size: [usize; 2]) -> Result<Crop> {
        let [top, left] = self.padding.before()?;
        Ok(Crop::new(-top, -left, self.padding.around(size)).fill(self.fill.clone()).padding_mode(self.mode))
    }
}

impl Geometry for Pad {
    fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        self.padding.around(size)
    }

    fn image(&self, image: &mut Image) -> Result<()> {
        self.window(image.size())?.image(image)
    }

    fn mask(&self, mask: &mut Mask) -> Result<()> {
        self.window(mask.size())?.mask(mask)
    }

    fn point(&self, [x, y]: [f32; 2], _: [usize; 2]) -> [f32; 2] {
        let [left, top, ..] = self.padding.0;
        [x + left as f32, y + top as f32]
    }
}

/// Cuts out a window at a random place, after surrounding the image with a border if wanted
/// (torchvision's `RandomCrop`).
///
/// ```
/// use convnet::data::{DataLoader, Digits, RandomCrop, RandomHorizontalFlip};
///
/// let augment = (RandomCrop::new(8).padding(1), RandomHorizontalFlip::new(0.5));
/// let loader = DataLoader::new(Digits::train(), 32).transform(augment);
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when the window is empty or larger than the image with its
/// border, and the errors of [`Pad`].
#[derive(Clone, Debug)]
pub struct RandomCrop {
    size: [usize; 2],
    padding: Padding,
    pad_if_needed: bool,
    fill: Fill,
    mode: PaddingMode,
}

impl RandomCrop {
    /// Makes a crop of this height and width.
    pub fn new(size: impl Into<Pair>) -> RandomCrop {
        RandomCrop {
            size: size.into().0,
            padding: Padding::default(),
            pad_if_needed: false,
            fill: Fill::default(),
            mode: PaddingMode::Constant,
        }
    }

    /// Sets the border: `4`, `[sides, ends]` or `[left, top, right, bottom]`; none by default.
    pub fn padding(mut self, padding: impl Into<Padding>) -> RandomCrop {
        self.padding = padding.into();
        self
    }

    /// Adds a border, equal on both sides, to images that are smaller than the window.
    pub fn pad_if_needed(mut self, pad: bool) -> RandomCrop {
        self.pad_if_needed = pad;
        self
    }

    /// Sets the values of a constant border; black by default.
    pub fn fill(mut self, fill: impl Into<Fill>) -> RandomCrop {
        self.fill = fill.into();
        self
    }

    /// Sets what the border consists of; the constant fill by default.
    pub fn padding_mode(mut self, mode: PaddingMode) -> RandomCrop {
        self.mode = mode;
        self
    }
}

impl Geometric for RandomCrop {
    fn draw(&self, [_, height, width]: [usize; 3], rng: &mut Rng) -> Result<Option<Box<dyn Geometry>>> {
        let size = refuse_empty("random crop", self.size)?;
        let with_border = self.padding.around([height, width]);
        let lacking = |axis: usize| if self.pad_if_needed { size[axis].saturating_sub(with_border[axis]) } else { 0 };
        let needed = Padding::from([lacking(1), lacking(0)]);
        let [height, width] = needed.around(with_border);
        if height < size[0] || width < size[1] {
            let message = format!(
                "a window of {}×{} is larger than the image of {height}×{width}; add padding, pad_if_needed(true), or resize first",
                size[0], size[1]
            );
            return Err(Error::argument("random crop", message));
        }
        let (y, x) = (rng.below((height - size[0]).saturating_add(1)), rng.below((width - size[1]).saturating_add(1)));
        let window = |top, left| Crop::new(top, left, size).fill(self.fill.clone()).padding_mode(self.mode);
        let ([top, left], [top_needed, left_needed]) = (self.padding.before()?, needed.before()?);
        // A mirror image of an image with a mirrored border is not the mirror image of the image.
        let twice = self.padding != Padding::default() && needed != Padding::default();
        if twice && matches!(self.mode, PaddingMode::Reflect | PaddingMode::Symmetric) {
            let pad = |padding: Padding| Pad { padding, fill: self.fill.clone(), mode: self.mode };
            return Ok(Some(Box::new(Chain(vec![
                Box::new(pad(self.padding)),
                Box::new(pad(needed)),
                Box::new(window(y as isize, x as isize)),
            ]))));
        }
        let place = |drawn: usize, border: isize, needed: isize| (drawn as isize).saturating_sub(border).saturating_sub(needed);
        Ok(Some(Box::new(window(place(y, top, top_needed), place(x, left, left_needed)))))
    }
}
