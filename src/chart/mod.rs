//! Charts as SVG: curves, markers, bands, bars, over linear or logarithmic axes.
//!
//! A [`Chart`] is a stand-alone file, with a title, axis labels and a legend, that a browser, a
//! README and a paper show; [`Chart::panels`] puts several into one file. The report of a training
//! run ([`HtmlReport`](crate::train::HtmlReport)) draws its curves by the same code.

mod axis;
mod contours;
mod draw;
mod file;
mod text;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::mem::discriminant;
use std::path::Path;

use draw::{Axes, Frame, Look};
pub use file::Panels;
pub(crate) use text::{clipped, escaped};

use crate::error::Result;

/// A curve of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Its name in the legend, such as `training`.
    pub name: String,
    /// The points, by the horizontal axis: epoch or step, and value. Values that are not finite
    /// leave gaps.
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    /// Makes a curve of these points.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Curve {
        Curve { name: name.into(), points: points.into_iter().collect() }
    }
}

/// A chart with a title, two axes and any number of series.
///
/// Series of the same name share a colour and an entry of the legend, such as a curve and the band
/// of its spread; those with an empty name have no entry. Values that are not finite, and values up
/// to 0 on a logarithmic axis, leave gaps; a chart without values says so. All texts are escaped.
///
/// ```
/// use convnet::chart::Chart;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&dir).unwrap();
/// Chart::new("Loss by epoch")
///     .x("epoch")
///     .y("cross-entropy")
///     .log_y()
///     .band("training", [(1.0, 0.8, 1.0), (2.0, 0.45, 0.55), (3.0, 0.2, 0.4)])
///     .curve("training", [(1.0, 0.9), (2.0, 0.5), (3.0, 0.3)])
///     .points("validation", [(1.0, 0.95), (2.0, 0.7), (3.0, 0.72)])
///     .vertical("best epoch", 2.0)
///     .save("loss.svg")?;
///
/// let accuracy = Chart::new("Accuracy").y("share").bars("", [("none", 0.91), ("dropout", 0.93)]);
/// let seconds = Chart::new("Time").y("seconds").bars("", [("none", 4.1), ("dropout", 4.3)]);
/// Chart::panels(&[accuracy, seconds], 2).save("both.svg")?;
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use = "a chart is written by `save`"]
pub struct Chart {
    title: String,
    x: Scale,
    y: Scale,
    /// Names of the series; the index is their colour.
    names: Vec<String>,
    series: Vec<Series>,
    /// Names below bars, from left to right.
    categories: Vec<String>,
    verticals: Vec<(String, f64)>,
    horizontals: Vec<(String, f64)>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Scale {
    label: String,
    logarithmic: bool,
    range: Option<(f64, f64)>,
}

impl Scale {
    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (value > 0.0 || !self.logarithmic)
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Series {
    colour: usize,
    shape: Shape,
}

#[derive(Clone, Debug, PartialEq)]
enum Shape {
    Line(Vec<(f64, f64)>),
    Points(Vec<(f64, f64)>),
    /// Position, lower and upper end.
    Band(Vec<(f64, f64, f64)>),
    Errors(Vec<(f64, f64, f64)>),
    /// Index of the category, and value.
    Bars(Vec<(usize, f64)>),
}

impl Chart {
    /// Starts a chart with this title.
    pub fn new(title: impl Into<String>) -> Chart {
        Chart { title: title.into(), ..Chart::default() }
    }

    /// Puts several charts into one file, from left to right and from top to bottom, in `columns`
    /// columns.
    pub fn panels(charts: &[Chart], columns: usize) -> Panels {
        Panels::new(charts, columns)
    }

    /// Sets the label of the horizontal axis.
    pub fn x(mut self, label: impl Into<String>) -> Chart {
        self.x.label = label.into();
        self
    }

    /// Sets the label of the vertical axis.
    pub fn y(mut self, label: impl Into<String>) -> Chart {
        self.y.label = label.into();
        self
    }

    /// Makes the horizontal axis logarithmic.
    pub fn log_x(mut self) -> Chart {
        self.x.logarithmic = true;
        self
    }

    /// Makes the vertical axis logarithmic.
    pub fn log_y(mut self) -> Chart {
        self.y.logarithmic = true;
        self
    }

    /// Sets the range of the horizontal axis, by default that of the values; what is outside is
    /// drawn at the edge. A range that is empty, or that the axis cannot show, has no effect.
    pub fn x_range(mut self, low: f64, high: f64) -> Chart {
        self.x.range = Some((low, high));
        self
    }

    /// Sets the range of the vertical axis, by default that of the values; what is outside is drawn
    /// at the edge. A range that is empty, or that the axis cannot show, has no effect.
    pub fn y_range(mut self, low: f64, high: f64) -> Chart {
        self.y.range = Some((low, high));
        self
    }

    /// Adds a line through these points, (x, y) in order.
    pub fn curve(self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Chart {
        self.series(name.into(), Shape::Line(points.into_iter().collect()))
    }

    /// Adds a marker at each of these points, (x, y), without a line.
    pub fn points(self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Chart {
        self.series(name.into(), Shape::Points(points.into_iter().collect()))
    }

    /// Adds the area between two curves, as (x, lower y, upper y) in order.
    pub fn band(self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64, f64)>) -> Chart {
        self.series(name.into(), Shape::Band(points.into_iter().collect()))
    }

    /// Adds error bars, as (x, lower y, upper y). Those of a series of bars have its name, and the
    /// number of the bar, from 0, as x.
    pub fn errors(self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64, f64)>) -> Chart {
        self.series(name.into(), Shape::Errors(points.into_iter().collect()))
    }

    /// Adds bars, as their labels and heights. Bars of several series with the same label stand
    /// side by side. Curves in the same chart have the number of a label, from 0, as x.
    pub fn bars<L: Into<String>>(mut self, name: impl Into<String>, bars: impl IntoIterator<Item = (L, f64)>) -> Chart {
        let mut places: HashMap<String, usize> = self.categories.iter().cloned().zip(0..).collect();
        let mut placed = Vec::new();
        for (label, height) in bars {
            let label = label.into();
            let place = *places.entry(label.clone()).or_insert_with(|| {
                self.categories.push(label);
                self.categories.len() - 1
            });
            placed.push((place, height));
        }
        self.series(name.into(), Shape::Bars(placed))
    }

    /// Marks a position of the horizontal axis by a line with a label.
    pub fn vertical(mut self, label: impl Into<String>, x: f64) -> Chart {
        self.verticals.push((label.into(), x));
        self
    }

    /// Marks a position of the vertical axis by a line with a label, such as the accuracy of a
    /// guess.
    pub fn horizontal(mut self, label: impl Into<String>, y: f64) -> Chart {
        self.horizontals.push((label.into(), y));
        self
    }

    /// Returns the content of an SVG file, 720 wide, on a light background.
    pub fn to_svg(&self) -> String {
        Chart::panels(std::slice::from_ref(self), 1).to_svg()
    }

    /// Writes the chart as an SVG file, atomically; its folder is created where it is missing.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) with advice when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Chart::panels(std::slice::from_ref(self), 1).save(path)
    }

    fn series(mut self, name: String, shape: Shape) -> Chart {
        let known = self.names.iter().position(|known| !name.is_empty() && *known == name);
        let colour = known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        self.series.push(Series { colour, shape });
        self
    }

    fn shows(&self, (x, y): (f64, f64)) -> bool {
        self.x.shows(x) && self.y.shows(y)
    }

    /// Returns the ends of a bar on the horizontal axis.
    fn bar_of(&self, colour: usize, category: usize) -> Option<(f64, f64)> {
        const WIDTH: f64 = 0.76;
        let mut side_by_side: Vec<usize> =
            self.series.iter().filter(|series| matches!(series.shape, Shape::Bars(_))).map(|series| series.colour).collect();
        side_by_side.sort_unstable();
        side_by_side.dedup();
        let place = side_by_side.iter().position(|&other| other == colour)?;
        let width = WIDTH / side_by_side.len() as f64;
        let from = category as f64 - WIDTH / 2.0 + place as f64 * width;
        Some((from, from + width * 0.94))
    }

    fn number_of_bars(&self) -> usize {
        self.series.iter().map(|series| if let Shape::Bars(bars) = &series.shape { bars.len() } else { 0 }).sum()
    }

    /// Returns names, colours and shapes for a legend.
    fn legend(&self) -> impl Iterator<Item = (&str, usize, Vec<&Shape>)> {
        self.names.iter().enumerate().filter(|(_, name)| !name.is_empty()).map(|(colour, name)| {
            // One of each kind: a contour line consists of many.
            let mut shapes: Vec<&Shape> = Vec::new();
            for series in self.series.iter().filter(|series| series.colour == colour) {
                if !shapes.iter().any(|shape| discriminant(*shape) == discriminant(&series.shape)) {
                    shapes.push(&series.shape);
                }
            }
            (name.as_str(), colour, shapes)
        })
    }

    /// Returns the chart as an element of a page, without title and legend, with the page's classes
    /// `chart`, `grid`, `axis`, `curve` and colours `--s0` to `--s5`. `None` without values.
    pub(crate) fn to_element(&self) -> Option<String> {
        const WIDTH: f64 = 360.0;
        const HEIGHT: f64 = 240.0;
        let axes = Axes::of(self, 5, 5)?;
        let frame = Frame { left: 48.0, right: WIDTH - 14.0, top: 10.0, bottom: HEIGHT - 40.0 };
        let title = escaped(&self.title);
        let mut svg = format!("<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
        draw::push_plot(&mut svg, self, &axes, frame, Look::Page);
        let middle = (frame.left + frame.right) / 2.0;
        let _ = write!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", HEIGHT - 6.0, escaped(&self.x.label));
        Some(svg + "</svg>")
    }

    /// Returns the sample line of each name for the legend of a page, 28 by 8.
    pub(crate) fn samples(&self) -> Vec<(&str, String)> {
        self.legend().map(|(name, colour, shapes)| (name, Look::Page.sample(colour, &shapes, 14.0, 4.0))).collect()
    }
}

#[cfg(test)]
mod tests;
