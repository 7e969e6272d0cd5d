//! Rotations, affine changes and perspectives.

use super::fill::{Fill, mask_pixel};
use super::sample::{Sampled, Source};
use super::{Geometry, ResizeFilter};
use crate::data::Image;
use crate::data::annotations::Mask;
use crate::data::image::{Pixel, resample};
use crate::error::{Error, Result};

/// How pixels outside of the image and between its pixels are made.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) fill: Fill,
    pub(super) filter: ResizeFilter,
}

impl Look {
    pub(super) fn new(filter: ResizeFilter) -> Look {
        Look { fill: Fill::default(), filter }
    }
}

/// A change with all numbers for one size of image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Plan {
    /// Turns counter-clockwise by this multiple of 90°.
    Turn(u8),
    /// The position in the image of a position in the result, `(a·x + b·y + c, d·x + e·y + f)`, and
    /// the result's size.
    Affine([f64; 6], [usize; 2]),
    /// The same divided by `g·x + h·y + 1`; the size stays.
    Perspective([f64; 8]),
}

impl Plan {
    fn output_size(self, [height, width]: [usize; 2]) -> [usize; 2] {
        match self {
            Plan::Turn(1 | 3) => [width, height],
            Plan::Turn(_) | Plan::Perspective(_) => [height, width],
            Plan::Affine(_, size) => size,
        }
    }

    fn draw<T: Sampled>(self, values: &[T], size: [usize; 2], fill: &[T], filter: ResizeFilter) -> Result<Vec<T>> {
        let (source, to) = (Source { values, size, fill }, self.output_size(size));
        match self {
            Plan::Turn(quarters) => Ok(turned(values, size, fill.len(), quarters)),
            Plan::Affine(matrix, _) if filter == ResizeFilter::Nearest => source.nearest_affine(to, matrix),
            Plan::Affine([a, b, c, d, e, f], _) => source.draw(to, filter, |row, column| {
                let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
                [a * x + b * y + c, d * x + e * y + f]
            }),
            Plan::Perspective([a, b, c, d, e, f, g, h]) => source.draw(to, filter, |row, column| {
                let (x, y) = (column as f64 + 0.5, row as f64 + 0.5);
                let depth = g * x + h * y + 1.0;
                [(a * x + b * y + c) / depth, (d * x + e * y + f) / depth]
            }),
        }
    }

    /// Returns where a point of the image goes.
    fn point(self, [x, y]: [f32; 2], [height, width]: [usize; 2]) -> [f32; 2] {
        let ([x, y], [height, width]) = ([x, y].map(f64::from), [height as f64, width as f64]);
        let [x, y] = match self {
            Plan::Turn(1) => [y, width - x],
            Plan::Turn(2) => [width - x, height - y],
            Plan::Turn(3) => [height - y, x],
            Plan::Turn(_) => [x, y],
            Plan::Affine([a, b, c, d, e, f], _) => inverse([a, b, c, d, e, f, 0.0, 0.0], x, y),
            Plan::Perspective(coefficients) => inverse(coefficients, x, y),
        };
        [x as f32, y as f32]
    }
}

/// Returns the position that a perspective brings to this one, by the adjugate of its matrix.
fn inverse([a, b, c, d, e, f, g, h]: [f64; 8], x: f64, y: f64) -> [f64; 2] {
    let depth = (d * h - e * g) * x + (b * g - a * h) * y + (a * e - b * d);
    [((e - f * h) * x + (c * h - b) * y + (b * f - c * e)) / depth, ((f * g - d) * x + (a - c * g) * y + (c * d - a * f)) / depth]
}

fn turned<T: Pixel>(values: &[T], [height, width]: [usize; 2], channels: usize, quarters: u8) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    let mut push = |row: usize, column: usize| out.extend_from_slice(&values[(row * width + column) * channels..][..channels]);
    match quarters {
        1 => (0..width).rev().for_each(|column| (0..height).for_each(|row| push(row, column))),
        2 => (0..height).rev().for_each(|row| (0..width).rev().for_each(|column| push(row, column))),
        3 => (0..width).for_each(|column| (0..height).rev().for_each(|row| push(row, column))),
        _ => out.extend_from_slice(values),
    }
    out
}

/// A change whose numbers depend on the size of the image.
pub(super) trait Planned: Send + Sync {
    fn plan(&self, size: [usize; 2]) -> Result<Plan>;
    fn look(&self) -> &Look;
}

impl<P: Planned> Geometry for P {
    fn output_size(&self, size: [usize; 2]) -> [usize; 2] {
        self.plan(size).map_or(size, |plan| plan.output_size(size))
    }

    fn image(&self, image: &mut Image) -> Result<()> {
        let (plan, size, channels, look) = (self.plan(image.size())?, image.size(), image.channels(), self.look());
        let [height, width] = plan.output_size(size);
        resample!(image, [channels, height, width], old => plan.draw(old, size, &look.fill.pixel(channels)?, look.filter)?);
        Ok(())
    }

    fn mask(&self, mask: &mut Mask) -> Result<()> {
        let (plan, size) = (self.plan(mask.size())?, mask.size());
        let classes = plan.draw(mask.classes(), size, &mask_pixel(), ResizeFilter::Nearest)?;
        *mask = Mask::new(plan.output_size(size), classes)?;
        Ok(())
    }

    fn point(&self, point: [f32; 2], size: [usize; 2]) -> [f32; 2] {
        self.plan(size).map_or(point, |plan| plan.point(point, size))
    }
}

/// Gives a transform the methods that set its look.
macro_rules! look_methods {
    ($($name:ident),+) => {
        $(impl $name {
            /// Sets the values outside of the image; black by default.
            pub fn fill(mut self, fill: impl Into<Fill>) -> $name {
                self.look.fill = fill.into();
                self
            }

            /// Sets how values between pixels are made.
            pub fn interpolation(mut self, interpolation: ResizeFilter) -> $name {
                self.look.filter = interpolation;
                self
            }
        })+
    };
}
pub(super) use look_methods;
look_methods!(Rotate, Affine, Perspective);

/// Rotates by an angle, counter-clockwise (torchvision's `rotate`).
///
/// Multiples of 90° are exact where the result has the size of the turned image: for squares, or
/// with [`expand`](Rotate::expand). Other angles take the nearest pixel unless
/// [`interpolation`](Rotate::interpolation) says otherwise.
///
/// ```
/// use convnet::data::{Image, ResizeFilter, Rotate};
///
/// let mut image = Image::from_bytes([1, 1, 2], vec![1, 2])?;
/// image.apply(&Rotate::by(90.0).expand(true))?;
/// assert_eq!((image.size(), image.bytes()), ([2, 1], Some(&[2, 1][..])));
/// image.apply(&Rotate::by(30.0).interpolation(ResizeFilter::Bilinear).fill(128.0))?;
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for numbers that are not finite, a result that is more
/// than memory can hold, and a fill that does not fit the channels.
#[derive(Clone, Debug)]
pub struct Rotate {
    degrees: f64,
    expand: bool,
    center: Option<[f64; 2]>,
    look: Look,
}

impl Rotate {
    /// Makes a rotation about the centre of the image.
    pub fn by(degrees: f64) -> Rotate {
        Rotate { degrees, expand: false, center: None, look: Look::new(ResizeFilter::Nearest) }
    }

    /// Makes the result large enough for the whole rotated image.
    pub fn expand(mut self, expand: bool) -> Rotate {
        self.expand = expand;
        self
    }

    /// Sets the point `[x, y]` that stays in place, in pixels from the top left corner.
    pub fn center(mut self, center: [f64; 2]) -> Rotate {
        self.center = Some(center);
        self
    }
}

impl Planned for Rotate {
    fn plan(&self, size: [usize; 2]) -> Result<Plan> {
        finite("rotate", &[self.degrees])?;
        finite("rotate", &self.center.unwrap_or_default())?;
        let degrees = self.degrees.rem_euclid(360.0);
        let quarters = degrees / 90.0;
        let exact = self.center.is_none() && quarters.fract() == 0.0;
        if exact && (self.expand || quarters % 2.0 == 0.0 || size[0] == size[1]) {
            return Ok(Plan::Turn(quarters as u8 % 4));
        }
        let [h, w] = size.map(|length| length as f64);
        let [x, y] = self.center.unwrap_or([w / 2.0, h / 2.0]);
        let (sin, cos) = (-degrees).to_radians().sin_cos();
        let (a, b, d, e) = (rounded(cos), rounded(sin), rounded(-sin), rounded(cos));
        let at = |x: f64, y: f64, [c, f]: [f64; 2]| [a * x + b * y + c, d * x + e * y + f];
        let [c, f] = at(-x, -y, [0.0, 0.0]);
        let mut shift = [c + x, f + y];
        let mut to = size;
        if self.expand {
            let corners = [[0.0, 0.0], [w, 0.0], [w, h], [0.0, h]].map(|[x, y]| at(x, y, shift));
            let extent = |axis: usize| {
                let all = corners.iter().map(|corner| corner[axis]);
                all.clone().fold(f64::MIN, f64::max).ceil() - all.fold(f64::MAX, f64::min).floor()
            };
            let (new_w, new_h) = (extent(0), extent(1));
            shift = at(-(new_w - w) / 2.0, -(new_h - h) / 2.0, shift);
            to = [new_h as usize, new_w as usize];
        }
        Ok(Plan::Affine([a, b, shift[0], d, e, shift[1]], to))
    }

    fn look(&self) -> &Look {
        &self.look
    }
}

/// Rounds to fifteen decimals, so that the cosine of 90° is 0.
fn rounded(value: f64) -> f64 {
    format!("{value:.15}").parse().expect("a formatted number is one")
}

fn finite(what: &'static str, values: &[f64]) -> Result<()> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::argument(what, format!("takes finite numbers, got {value}"))),
        None => Ok(()),
    }
}

/// Shears, scales, rotates and moves an image about its centre (torchvision's `affine`). As there,
/// the angle is clockwise, unlike that of [`Rotate`].
///
/// ```
/// use convnet::data::{Affine, Image};
///
/// let mut image = Image::new(3, 20, 30)?;
/// image.apply(&Affine::new().rotate(25.0).translate([3.0, -2.0]).scale(0.8).shear([10.0, 0.0]))?;
/// assert_eq!(image.shape(), [3, 20, 30]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for numbers that are not finite, a scale that is not
/// positive, and a fill that does not fit the channels.
#[derive(Clone, Debug)]
pub struct Affine {
    degrees: f64,
    translate: [f64; 2],
    scale: f64,
    shear: [f64; 2],
    center: Option<[f64; 2]>,
    look: Look,
}

impl Default for Affine {
    fn default() -> Affine {
        Affine { degrees: 0.0, translate: [0.0; 2], scale: 1.0, shear: [0.0; 2], center: None, look: Look::new(ResizeFilter::Nearest) }
    }
}

impl Affine {
    /// Makes a change that leaves images as they are, taking the nearest pixel.
    pub fn new() -> Affine {
        Affine::default()
    }

    /// Sets the angle in degrees, clockwise.
    pub fn rotate(mut self, degrees: f64) -> Affine {
        self.degrees = degrees;
        self
    }

    /// Sets the pixels by which the image moves right and down at the end.
    pub fn translate(mut self, pixels: [f64; 2]) -> Affine {
        self.translate = pixels;
        self
    }

    /// Sets the factor of enlargement.
    pub fn scale(mut self, factor: f64) -> Affine {
        self.scale = factor;
        self
    }

    /// Sets the angles in degrees of the shears along x and along y.
    pub fn shear(mut self, degrees: [f64; 2]) -> Affine {
        self.shear = degrees;
        self
    }

    /// Sets the point `[x, y]` that only [`translate`](Affine::translate) moves, in pixels from the
    /// top left corner; the centre by default.
    pub fn center(mut self, center: [f64; 2]) -> Affine {
        self.center = Some(center);
        self
    }
}

impl Planned for Affine {
    fn plan(&self, size: [usize; 2]) -> Result<Plan> {
        let [[tx, ty], [x, y]] = [self.translate, self.center.unwrap_or([size[1] as f64 * 0.5, size[0] as f64 * 0.5])];
        finite("affine", &[self.degrees, tx, ty, self.shear[0], self.shear[1], x, y])?;
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return Err(Error::argument("affine", format!("a scale is positive, got {}", self.scale)));
        }
        let (angle, [sx, sy]) = (self.degrees.to_radians(), self.shear.map(f64::to_radians));
        let a = (angle - sy).cos() / sy.cos();
        let b = -(angle - sy).cos() * sx.tan() / sy.cos() - angle.sin();
        let c = (angle - sy).sin() / sy.cos();
        let d = -(angle - sy).sin() * sx.tan() / sy.cos() + angle.cos();
        let [a, b, c, d] = [d, -b, -c, a].map(|value| value / self.scale);
        let shift = [a * (-x - tx) + b * (-y - ty) + x, c * (-x - tx) + d * (-y - ty) + y];
        Ok(Plan::Affine([a, b, shift[0], c, d, shift[1]], size))
    }

    fn look(&self) -> &Look {
        &self.look
    }
}

/// Brings four points of an image to four other places (torchvision's `perspective`), bilinear
/// unless [`interpolation`](Perspective::interpolation) says otherwise.
///
/// ```
/// use convnet::data::{Image, Perspective};
///
/// let mut image = Image::new(3, 20, 30)?;
/// let corners = [[0.0, 0.0], [29.0, 0.0], [29.0, 19.0], [0.0, 19.0]];
/// image.apply(&Perspective::new(corners, [[3.0, 2.0], [25.0, 0.0], [29.0, 19.0], [0.0, 15.0]]))?;
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] when three of the points are on a line or a number is not
/// finite, and for a fill that does not fit the channels.
#[derive(Clone, Debug)]
pub struct Perspective {
    start: [[f64; 2]; 4],
    end: [[f64; 2]; 4],
    look: Look,
}

impl Perspective {
    /// Makes a change that brings the points `start` to `end`, `[x, y]` each.
    pub fn new(start: [[f64; 2]; 4], end: [[f64; 2]; 4]) -> Perspective {
        Perspective { start, end, look: Look::new(ResizeFilter::Bilinear) }
    }
}

impl Planned for Perspective {
    fn plan(&self, _: [usize; 2]) -> Result<Plan> {
        finite("perspective", self.start.as_flattened())?;
        finite("perspective", self.end.as_flattened())?;
        let mut rows = Vec::with_capacity(8);
        for ([x, y], [to_x, to_y]) in self.end.into_iter().zip(self.start) {
            rows.push([x, y, 1.0, 0.0, 0.0, 0.0, -to_x * x, -to_x * y, to_x]);
            rows.push([0.0, 0.0, 0.0, x, y, 1.0, -to_y * x, -to_y * y, to_y]);
        }
        let solution = solve(rows).ok_or_else(|| {
            let message = format!("no perspective brings {:?} to {:?}; no three of four points may be on a line", self.start, self.end);
            Error::argument("perspective", message)
        })?;
        // torchvision passes the coefficients on in `f32`.
        Ok(Plan::Perspective(solution.map(|value| f64::from(value as f32))))
    }

    fn look(&self) -> &Look {
        &self.look
    }
}

/// Solves eight equations, the last column being the right side, by elimination.
fn solve(mut rows: Vec<[f64; 9]>) -> Option<[f64; 8]> {
    let largest = rows.as_flattened().iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    for i in 0..8 {
        let pivot = (i..8).max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs()))?;
        rows.swap(i, pivot);
        let pivot = rows[i];
        // A pivot at the size of rounding errors is a zero.
        if pivot[i].abs() <= largest * 1e-13 {
            return None;
        }
        for row in rows.iter_mut().enumerate().filter(|&(j, _)| j != i).map(|(_, row)| row) {
            let factor = row[i] / pivot[i];
            row.iter_mut().zip(pivot).for_each(|(value, of_pivot)| *value -= factor * of_pivot);
        }
    }
    Some(std::array::from_fn(|i| rows[i][8] / rows[i][i]))
}
