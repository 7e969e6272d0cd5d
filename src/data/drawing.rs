//! Pictures made of others: grids, colour maps, overlays, outlines of boxes.

use super::Image;
use super::image::try_filled;
use crate::error::{Error, Result};
use crate::no_grad;
use crate::ops::Interpolation;
use crate::tensor::{DType, Tensor};

/// A map from numbers between 0 and 1 to colours.
///
/// ```
/// use convnet::{Tensor, data::ColorMap};
///
/// let picture = ColorMap::Viridis.paint(&Tensor::from_vec(vec![0f32, 5.0, 10.0], [1, 3])?)?;
/// assert_eq!(picture.shape(), [3, 1, 3]);
/// assert_eq!(ColorMap::Gray.color(0.5), [128, 128, 128]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ColorMap {
    /// From dark blue over green to yellow, of even contrast and legible in black and white:
    /// Matplotlib's default.
    #[default]
    Viridis,
    /// From dark blue over green and yellow to dark red, a rainbow of even contrast (Mikhailov,
    /// *Turbo, An Improved Rainbow Colormap for Visualization*, 2019).
    Turbo,
    /// From black to white.
    Gray,
}

/// The 256 colours of Viridis, then those of Turbo, as Matplotlib has them; made by
/// `tests/fixtures/color_maps.py`.
static TABLES: &[u8; 2 * 256 * 3] = include_bytes!("color_maps.bin");

impl ColorMap {
    /// Returns red, green and blue for a value, which is limited to 0 to 1; NaN counts as 0.
    /// Viridis and Turbo have 256 colours, chosen as Matplotlib does.
    pub fn color(self, value: f64) -> [u8; 3] {
        let value = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) };
        let entry = |map: usize| {
            let start = 3 * (256 * map + ((value * 256.0) as usize).min(255));
            [TABLES[start], TABLES[start + 1], TABLES[start + 2]]
        };
        match self {
            ColorMap::Viridis => entry(0),
            ColorMap::Turbo => entry(1),
            ColorMap::Gray => [(value * 255.0).round() as u8; 3],
        }
    }

    /// Makes a picture of a map `[H, W]`, from its smallest number to its largest.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the tensor has two dimensions, [`Error::Argument`] when memory
    /// cannot hold the picture.
    pub fn paint(self, map: &Tensor) -> Result<Image> {
        let &[height, width] = map.shape() else {
            return Err(Error::shape("paint", format!("expected a map [H, W], got shape {:?}", map.shape())));
        };
        let mut bytes = try_filled([3, height, width], 0u8)?;
        for (pixel, value) in bytes.chunks_exact_mut(3).zip(between_0_and_1(map)?) {
            pixel.copy_from_slice(&self.color(value));
        }
        Image::from_bytes([3, height, width], bytes)
    }
}

/// Returns the values scaled so that the smallest is 0 and the largest 1; all 0 when they are
/// equal. Values that are not finite do not count, and are limited to 0 and 1.
fn between_0_and_1(map: &Tensor) -> Result<Vec<f64>> {
    let values = map.detach().to_dtype(DType::F64)?.to_vec::<f64>()?;
    let finite = || values.iter().copied().filter(|x| x.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let scaled = |x: f64| if high > low && !x.is_nan() { ((x - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 };
    Ok(values.into_iter().map(scaled).collect())
}

impl Image {
    /// Arranges pictures in rows of `columns`, with `gap` black pixels around each, as
    /// torchvision's `make_grid` does. A picture that is smaller than the largest is at the top
    /// left of its place; gray pictures become coloured when others are.
    ///
    /// ```
    /// use convnet::data::Image;
    ///
    /// let grid = Image::grid(&vec![Image::new(3, 8, 10)?; 5], 3, 2)?;
    /// assert_eq!(grid.shape(), [3, 2 * 8 + 3 * 2, 3 * 10 + 4 * 2]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] when there are no pictures or no columns, when a picture has neither one
    /// nor three channels, and when memory cannot hold the result.
    pub fn grid(images: &[Image], columns: usize, gap: usize) -> Result<Image> {
        const OP: &str = "grid";
        if images.is_empty() || columns == 0 {
            return Err(Error::argument(OP, format!("expected pictures and columns, got {} in {columns} columns", images.len())));
        }
        if let Some(image) = images.iter().find(|image| !matches!(image.channels(), 1 | 3)) {
            return Err(Error::argument(OP, format!("expected pictures of one or three channels, got {}", image.channels())));
        }
        let largest = |size: fn(&Image) -> usize| images.iter().map(size).max().unwrap_or(0);
        let (channels, height, width) = (largest(Image::channels), largest(Image::height), largest(Image::width));
        let columns = columns.min(images.len());
        let total = |count: usize, size: usize| {
            let total = size.checked_add(gap).and_then(|size| size.checked_mul(count)?.checked_add(gap));
            total.ok_or_else(|| Error::argument(OP, "the grid is larger than memory can hold".to_string()))
        };
        let size = [channels, total(images.len().div_ceil(columns), height)?, total(columns, width)?];
        let mut bytes = try_filled(size, 0u8)?;
        for (i, image) in images.iter().enumerate() {
            let (top, left) = (gap + i / columns * (height + gap), gap + i % columns * (width + gap));
            let source = image.to_bytes();
            let pixels = source.bytes().unwrap_or_default();
            for (row, line) in pixels.chunks_exact((image.channels() * image.width()).max(1)).enumerate() {
                let start = ((top + row) * size[2] + left) * channels;
                let target = &mut bytes[start..start + image.width() * channels];
                for (to, from) in target.chunks_exact_mut(channels).zip(line.chunks_exact(image.channels())) {
                    to.iter_mut().zip(from.iter().cycle()).for_each(|(to, &from)| *to = from);
                }
            }
        }
        Image::from_bytes(size, bytes)
    }

    /// Lays a map `[h, w]`, such as that of [`grad_cam`](crate::inspect::grad_cam), over the
    /// picture: in the colours of [`ColorMap::Turbo`], half transparent, resized to the picture
    /// bilinearly.
    ///
    /// ```
    /// use convnet::{Tensor, data::Image};
    ///
    /// let picture = Image::new(3, 30, 40)?;
    /// assert_eq!(picture.overlay(&Tensor::rand([7, 7]))?.shape(), [3, 30, 40]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`overlay_with`](Image::overlay_with).
    pub fn overlay(&self, heat: &Tensor) -> Result<Image> {
        self.overlay_with(heat, ColorMap::Turbo, 0.5)
    }

    /// Lays a map over the picture in these colours, from the map's smallest number to its largest,
    /// with this opacity: 0 leaves the picture, 1 covers it.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the map is `[h, w]` and not empty, [`Error::Argument`] when the
    /// picture has neither one nor three channels or the opacity is not between 0 and 1.
    pub fn overlay_with(&self, heat: &Tensor, colors: ColorMap, opacity: f64) -> Result<Image> {
        const OP: &str = "overlay";
        let (&[h, w], size) = (heat.shape(), self.size()) else {
            return Err(Error::shape(OP, format!("expected a map [h, w], got shape {:?}", heat.shape())));
        };
        if h * w == 0 {
            return Err(Error::shape(OP, format!("the map is empty: {:?}", heat.shape())));
        }
        if !matches!(self.channels(), 1 | 3) || !(0.0..=1.0).contains(&opacity) {
            let message = format!("expected one or three channels and an opacity from 0 to 1, got {} and {opacity}", self.channels());
            return Err(Error::argument(OP, message));
        }
        let heat = Tensor::from_vec(between_0_and_1(heat)?, [1, 1, h, w])?;
        let heat = no_grad(|| heat.interpolate(size, Interpolation::Bilinear { align_corners: false }))?.to_vec::<f64>()?;
        let mut bytes = self.coloured()?;
        for (pixel, value) in bytes.chunks_exact_mut(3).zip(heat) {
            for (byte, color) in pixel.iter_mut().zip(colors.color(value)) {
                *byte = (f64::from(*byte) * (1.0 - opacity) + f64::from(color) * opacity).round() as u8;
            }
        }
        Image::from_bytes([3, size[0], size[1]], bytes)
    }

    /// Draws the outlines of boxes `[N, 4]`, as left, top, right and bottom in pixels, into a
    /// coloured copy of the picture, as torchvision's `draw_bounding_boxes` does: lines of this
    /// width lie inside of the box, and what is outside of the picture is cut.
    ///
    /// ```
    /// use convnet::{Tensor, data::Image};
    ///
    /// let boxes = Tensor::from_vec(vec![2f32, 1.0, 8.0, 5.0], [1, 4])?;
    /// let picture = Image::new(1, 6, 10)?.draw_boxes(&boxes, [255, 220, 0], 1)?;
    /// assert_eq!(picture.shape(), [3, 6, 10]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`] unless the boxes are `[N, 4]`, [`Error::Argument`] when the picture has
    /// neither one nor three channels.
    pub fn draw_boxes(&self, boxes: &Tensor, color: [u8; 3], width: usize) -> Result<Image> {
        const OP: &str = "draw_boxes";
        if !matches!(boxes.shape(), [_, 4]) {
            return Err(Error::shape(OP, format!("expected boxes [N, 4], got shape {:?}", boxes.shape())));
        }
        if !matches!(self.channels(), 1 | 3) {
            return Err(Error::argument(OP, format!("expected a picture of one or three channels, got {}", self.channels())));
        }
        let [rows, columns] = self.size();
        let mut bytes = self.coloured()?;
        for sides in boxes.detach().to_dtype(DType::F64)?.to_vec::<f64>()?.chunks_exact(4) {
            let side = |i: usize, most: usize| (sides[i].round().max(0.0) as usize).min(most);
            let (left, top, right, bottom) = (side(0, columns), side(1, rows), side(2, columns), side(3, rows));
            for y in top..bottom {
                let edge = (y - top).min(bottom - 1 - y) < width;
                let line = &mut bytes[3 * y * columns..3 * (y + 1) * columns];
                for x in (left..right).filter(|x| edge || (x - left).min(right - 1 - x) < width) {
                    line[3 * x..3 * (x + 1)].copy_from_slice(&color);
                }
            }
        }
        Image::from_bytes([3, rows, columns], bytes)
    }

    /// Returns the three bytes of each pixel of a picture of one or three channels.
    fn coloured(&self) -> Result<Vec<u8>> {
        let mut bytes = try_filled([3, self.height(), self.width()], 0u8)?;
        let picture = self.to_bytes();
        let pixels = picture.bytes().unwrap_or_default().chunks_exact(self.channels());
        for (to, from) in bytes.chunks_exact_mut(3).zip(pixels) {
            to.iter_mut().zip(from.iter().cycle()).for_each(|(to, &from)| *to = from);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_matplotlibs() {
        // Entries 0, 128 and 255 of `matplotlib.colormaps`, and the CRC-32 of all 256 as bytes.
        let maps = [
            (ColorMap::Viridis, [[68, 1, 84], [33, 145, 140], [253, 231, 37]], 0xf407_8eb3),
            (ColorMap::Turbo, [[48, 18, 59], [164, 252, 60], [122, 4, 3]], 0xdac3_c2dc),
        ];
        for (map, some, checksum) in maps {
            assert_eq!([0.0, 0.5, 1.0].map(|value| map.color(value)), some, "{map:?}");
            let all: Vec<u8> = (0..256).flat_map(|i| map.color(f64::from(i) / 255.0)).collect();
            let mut crc = flate2::Crc::new();
            crc.update(&all);
            assert_eq!(crc.sum(), checksum, "{map:?}");
            assert_eq!([f64::NAN, -3.0, 9.0].map(|value| map.color(value)), [some[0], some[0], some[2]], "{map:?}");
        }
        assert_eq!([f64::NAN, -3.0, 0.0, 9.0].map(|x| ColorMap::Gray.color(x)[0]), [0, 0, 0, 255]);
    }

    #[test]
    fn maps_are_painted_from_smallest_to_largest_number() {
        let map = Tensor::from_vec(vec![-1f32, 1.0, f32::NAN, f32::INFINITY], [2, 2]).unwrap();
        let image = ColorMap::Gray.paint(&map).unwrap();
        assert_eq!(image.bytes().unwrap().iter().step_by(3).copied().collect::<Vec<_>>(), [0, 255, 0, 255]);
        assert_eq!(ColorMap::Gray.paint(&Tensor::ones([1, 2])).unwrap().bytes().unwrap(), [0; 6]);
        assert!(ColorMap::Gray.paint(&Tensor::ones([2])).is_err());
    }

    #[test]
    fn grid_places_pictures_as_make_grid() {
        let gray = Image::from_bytes([1, 1, 2], vec![10, 20]).unwrap();
        let color = Image::from_bytes([3, 1, 1], vec![1, 2, 3]).unwrap();
        let grid = Image::grid(&[gray.clone(), color, gray.clone()], 2, 1).unwrap();
        assert_eq!(grid.shape(), [3, 5, 7]);
        let pixel = |row: usize, column: usize| grid.bytes().unwrap()[(row * 7 + column) * 3..][..3].to_vec();
        assert_eq!([pixel(1, 1), pixel(1, 2), pixel(1, 4), pixel(3, 1)], [vec![10; 3], vec![20; 3], vec![1, 2, 3], vec![10; 3]]);
        assert_eq!(grid.bytes().unwrap().iter().filter(|&&byte| byte != 0).count(), 3 * 5);
        // torchvision.utils.make_grid(zeros(5, 3, 8, 10), nrow=3, padding=2).shape
        assert_eq!(Image::grid(&vec![Image::new(3, 8, 10).unwrap(); 5], 3, 2).unwrap().shape(), [3, 22, 38]);
        assert!(Image::grid(&[], 2, 1).is_err() && Image::grid(std::slice::from_ref(&gray), 0, 1).is_err());
        assert!(Image::grid(&[gray], 1, usize::MAX).is_err());
        assert!(Image::grid(&[Image::new(2, 1, 1).unwrap()], 1, 0).is_err());
    }

    #[test]
    fn overlay_blends_the_resized_map() {
        let picture = Image::from_bytes([1, 2, 2], vec![0, 100, 200, 255]).unwrap();
        let heat = Tensor::from_vec(vec![3f32, 5.0], [1, 2]).unwrap();
        let image = picture.overlay_with(&heat, ColorMap::Gray, 0.5).unwrap();
        assert_eq!(image.bytes().unwrap().iter().step_by(3).copied().collect::<Vec<_>>(), [0, 178, 100, 255]);
        assert_eq!(picture.overlay_with(&heat, ColorMap::Turbo, 0.0).unwrap().bytes().unwrap()[3..6], [100; 3]);
        assert!(picture.overlay(&Tensor::ones([2])).is_err() && picture.overlay(&Tensor::ones([0, 2])).is_err());
        assert!(picture.overlay_with(&heat, ColorMap::Gray, f64::NAN).is_err());
    }

    #[test]
    fn outlines_of_boxes_lie_inside_and_are_cut_at_the_picture() {
        let picture = Image::from_bytes([1, 4, 6], vec![9; 24]).unwrap();
        let boxes = Tensor::from_vec(vec![1f32, 0.4, 5.0, 4.0, -3.0, 3.0, 1.0, 99.0, 5.0, 1.0, 5.0, f32::NAN], [3, 4]).unwrap();
        let drawn = picture.draw_boxes(&boxes, [200, 1, 2], 1).unwrap();
        assert_eq!(drawn.shape(), [3, 4, 6]);
        let pixels: Vec<&[u8]> = drawn.bytes().unwrap().chunks(3).collect();
        let lines: Vec<String> = pixels.chunks(6).map(|line| line.iter().map(|p| if p[0] == 200 { '#' } else { '.' }).collect()).collect();
        assert_eq!(lines, [".####.", ".#..#.", ".#..#.", "#####."]);
        assert!(pixels.iter().all(|pixel| [[200, 1, 2], [9; 3]].iter().any(|color| color == pixel)));
        let thick = picture.draw_boxes(&boxes.narrow(0, 0, 1).unwrap(), [200, 1, 2], 9).unwrap();
        assert_eq!(thick.bytes().unwrap().chunks(3).filter(|pixel| pixel[0] == 200).count(), 16);
        assert!(picture.draw_boxes(&Tensor::ones([4]), [0; 3], 1).is_err());
        assert!(Image::new(2, 1, 1).unwrap().draw_boxes(&boxes, [0; 3], 1).is_err());
    }
}
