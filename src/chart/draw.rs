//! What is inside the frame of a chart: grid, ticks, curves, markers, bars.

use std::collections::HashSet;
use std::fmt::Write as _;

use super::axis::{Axis, short};
use super::text::{escaped, width};
use super::{Chart, Series, Shape};

/// The number of intervals along the horizontal axis in which only the smallest and the largest
/// value of a curve are drawn.
const COLUMNS: usize = 400;

/// The colours of a file; those of a page are in its style sheet, in the same number.
const COLOURS: [&str; 6] = ["#2563ab", "#c2570c", "#1a7f4b", "#8a3ffc", "#b3246b", "#6b5d00"];

/// Dashes of the curves, so that they differ without colours as well.
const DASHES: [&str; 4] = ["", "6 4", "2 4", "10 4 2 4"];

/// The most bars whose values are written above them.
const MOST_WRITTEN_BARS: usize = 30;

/// Room above bars for their values, as a factor.
const HEADROOM: f64 = 1.08;

/// The largest number of names below bars.
const MOST_CATEGORIES: usize = 40;

/// Where colours come from.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Look {
    /// The style sheet of the page, by variables, which follow the reader's light or dark mode.
    Page,
    /// The file itself.
    File,
}

impl Look {
    fn colour(self, i: usize) -> String {
        match self {
            Look::Page => format!("var(--s{})", i % COLOURS.len()),
            Look::File => COLOURS[i % COLOURS.len()].to_string(),
        }
    }

    /// Returns the attributes of the line of curve `i`.
    pub(super) fn stroke(self, i: usize) -> String {
        let dash = DASHES[i % DASHES.len()];
        let dash = if dash.is_empty() { "none" } else { dash };
        format!("style=\"stroke:{}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"", self.colour(i))
    }

    fn fill(self, i: usize) -> String {
        format!("style=\"fill:{}\"", self.colour(i))
    }

    /// Returns the sample of a series in a legend, around a place and 26 wide.
    pub(super) fn sample(self, i: usize, shapes: &[&Shape], x: f64, y: f64) -> String {
        let mut svg = String::new();
        for shape in shapes {
            match shape {
                Shape::Band(_) => {
                    let _ = write!(
                        svg,
                        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"26\" height=\"10\" {} opacity=\"0.2\"/>",
                        x - 13.0,
                        y - 5.0,
                        self.fill(i)
                    );
                }
                Shape::Bars(_) => {
                    let _ = write!(svg, "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"10\" {}/>", x - 1.0, y - 5.0, self.fill(i));
                }
                Shape::Line(_) => {
                    let _ =
                        write!(svg, "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" {}/>", x - 13.0, x + 13.0, self.stroke(i));
                }
                Shape::Points(_) => self.push_marker(&mut svg, i, x, y),
                Shape::Errors(_) => {}
            }
        }
        svg
    }

    /// Draws the marker of series `i`: circles, squares, triangles, diamonds by turns.
    fn push_marker(self, svg: &mut String, i: usize, x: f64, y: f64) {
        let fill = self.fill(i);
        let _ = match i % 4 {
            0 => write!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" {fill}/>"),
            1 => write!(svg, "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"5.4\" height=\"5.4\" {fill}/>", x - 2.7, y - 2.7),
            2 => write!(svg, "<path d=\"M{x:.1} {:.1}l3.6 6.2h-7.2z\" {fill}/>", y - 3.8),
            _ => write!(svg, "<path d=\"M{x:.1} {:.1}l3.8 3.8l-3.8 3.8l-3.8 -3.8z\" {fill}/>", y - 3.8),
        };
    }
}

/// The edges of the plotted area.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// The axes of a chart.
pub(super) struct Axes {
    pub(super) x: Axis,
    pub(super) y: Axis,
}

impl Axes {
    /// Returns the axes with about this many ticks; `None` for a chart without values.
    pub(super) fn of(chart: &Chart, x_ticks: usize, y_ticks: usize) -> Option<Axes> {
        let mut extent: Vec<(f64, f64)> = Vec::new();
        for Series { shape, .. } in &chart.series {
            match shape {
                Shape::Line(points) | Shape::Points(points) => extent.extend(points),
                Shape::Band(points) | Shape::Errors(points) => {
                    extent.extend(points.iter().flat_map(|&(x, low, high)| [(x, low), (x, high)]));
                }
                Shape::Bars(bars) => extent.extend(bars.iter().map(|&(category, value)| (category as f64, value * HEADROOM))),
            }
        }
        extent.retain(|&point| chart.shows(point));
        if extent.is_empty() {
            return None;
        }
        let (mut xs, mut ys): (Vec<f64>, Vec<f64>) = extent.into_iter().unzip();
        if !chart.categories.is_empty() {
            xs.extend([-0.5, chart.categories.len() as f64 - 0.5]);
            ys.extend((!chart.y.logarithmic).then_some(0.0));
        }
        xs.extend(chart.verticals.iter().map(|(_, x)| *x).filter(|&x| chart.x.shows(x)));
        ys.extend(chart.horizontals.iter().map(|(_, y)| *y).filter(|&y| chart.y.shows(y)));
        let axis = |scale: &super::Scale, values: &[f64], ticks: usize, widened: bool| {
            let range = scale.range.filter(|&(low, high)| low < high && scale.shows(low) && scale.shows(high));
            let ends = range.map(|(low, high)| [low, high]);
            let values = ends.as_ref().map_or(values, |ends| ends.as_slice()).iter().copied();
            let axis = if scale.logarithmic { Axis::logarithmic_over(values, ticks) } else { Axis::over(values, ticks) };
            if widened && range.is_none() { axis.widened() } else { axis }
        };
        Some(Axes { x: axis(&chart.x, &xs, x_ticks, false), y: axis(&chart.y, &ys, y_ticks, chart.categories.is_empty()) })
    }

    /// Returns the width of the texts of the vertical axis.
    pub(super) fn y_text_width(&self, size: f64) -> f64 {
        self.y.ticks().into_iter().map(|tick| width(&self.y.text(tick), size)).fold(0.0, f64::max)
    }
}

/// Returns how much height names below bars take, and whether they are turned.
pub(super) fn category_height(chart: &Chart, frame_width: f64, size: f64) -> (f64, bool) {
    let widest = chart.categories.iter().map(|name| width(name, size)).fold(0.0, f64::max);
    let turned = widest > frame_width / chart.categories.len().clamp(1, MOST_CATEGORIES) as f64 - 4.0;
    // Turned by 35 degrees.
    (if turned { 6.0 + 0.57 * widest.min(150.0) } else { 0.0 }, turned)
}

/// Draws everything inside of the frame, and the texts of the ticks.
pub(super) fn push_plot(svg: &mut String, chart: &Chart, axes: &Axes, frame: Frame, look: Look) {
    let Frame { left, right, top, bottom } = frame;
    let Axes { x, y } = axes;
    for tick in y.ticks() {
        let at = y.place(tick, [bottom, top]);
        let _ = write!(svg, "<line class=\"grid\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", left - 7.0, at + 4.0, y.text(tick));
    }
    if chart.categories.is_empty() {
        for tick in x.ticks() {
            let at = x.place(tick, [left, right]);
            let _ = write!(svg, "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{}\"/>", bottom + 4.0);
            let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 17.0, x.text(tick));
        }
    } else {
        push_categories(svg, chart, x, frame);
    }
    let _ = write!(svg, "<line class=\"axis\" x1=\"{left}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>");
    // Areas first, so that nothing is hidden by them.
    let order = |shape: &Shape| match shape {
        Shape::Band(_) => 0,
        Shape::Bars(_) => 1,
        Shape::Line(_) => 2,
        Shape::Points(_) | Shape::Errors(_) => 3,
    };
    for layer in 0..4 {
        for series in chart.series.iter().filter(|series| order(&series.shape) == layer) {
            push_series(svg, chart, series, axes, frame, look);
        }
    }
    let marked = |value: f64, axis: &Axis, shown: bool| shown && axis.contains(value);
    for (label, value) in chart.verticals.iter().filter(|(_, value)| marked(*value, x, chart.x.shows(*value))) {
        let at = x.place(*value, [left, right]);
        let (anchor, beside) = if at > (left + right) / 2.0 { ("end", at - 5.0) } else { ("start", at + 5.0) };
        let _ = write!(svg, "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>");
        let _ = write!(svg, "<text x=\"{beside:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>", top + 12.0, escaped(label));
    }
    for (label, value) in chart.horizontals.iter().filter(|(_, value)| marked(*value, y, chart.y.shows(*value))) {
        let at = y.place(*value, [bottom, top]);
        let _ = write!(svg, "<line class=\"mark\" x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", right - 4.0, at - 5.0, escaped(label));
    }
}

fn push_categories(svg: &mut String, chart: &Chart, x: &Axis, frame: Frame) {
    let every = chart.categories.len().div_ceil(MOST_CATEGORIES);
    let (_, turned) = category_height(chart, frame.right - frame.left, 12.0);
    for (i, name) in chart.categories.iter().enumerate().step_by(every) {
        let at = x.place(i as f64, [frame.left, frame.right]);
        let y = frame.bottom + 17.0;
        let name = super::text::fitted(name, 12.0, if turned { 150.0 } else { f64::INFINITY });
        let _ = match turned {
            true => write!(
                svg,
                "<text x=\"{0:.1}\" y=\"{1:.1}\" text-anchor=\"end\" transform=\"rotate(-35 {0:.1} {1:.1})\">{name}</text>",
                at + 4.0,
                y - 3.0
            ),
            false => write!(svg, "<text x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{name}</text>"),
        };
    }
}

fn push_series(svg: &mut String, chart: &Chart, series: &Series, axes: &Axes, frame: Frame, look: Look) {
    let Frame { left, right, top, bottom } = frame;
    let place = |(a, b): (f64, f64)| [axes.x.place(a, [left, right]), axes.y.place(b, [bottom, top])];
    let colour = series.colour;
    match &series.shape {
        // Values that cannot be shown leave gaps.
        Shape::Line(points) => {
            for run in points.split(|&point| !chart.shows(point)).filter(|run| !run.is_empty()) {
                let points: Vec<[f64; 2]> = run.iter().map(|&point| place(point)).collect();
                if let [[a, b]] = points[..] {
                    look.push_marker(svg, colour, a, b);
                    continue;
                }
                let _ = write!(svg, "<path class=\"curve\" {} d=\"{}\"/>", look.stroke(colour), path(thinned(points)));
            }
        }
        Shape::Points(points) => {
            // Markers that hide each other are drawn once.
            let mut drawn = HashSet::new();
            for [a, b] in points.iter().filter(|&&point| chart.shows(point)).map(|&point| place(point)) {
                if drawn.insert((a.round() as i32, b.round() as i32)) {
                    look.push_marker(svg, colour, a, b);
                }
            }
        }
        Shape::Band(points) => {
            let shown = |&(x, low, high): &(f64, f64, f64)| chart.shows((x, low)) && chart.shows((x, high));
            for run in points.split(|point| !shown(point)).filter(|run| !run.is_empty()) {
                let mut outline = thinned(run.iter().map(|&(x, _, high)| place((x, high))).collect());
                let mut lower = thinned(run.iter().map(|&(x, low, _)| place((x, low))).collect());
                lower.reverse();
                outline.append(&mut lower);
                let _ = write!(svg, "<path {} opacity=\"0.2\" d=\"{}Z\"/>", look.fill(colour), path(outline));
            }
        }
        Shape::Errors(points) => {
            for &(x, low, high) in points.iter().filter(|&&(x, low, high)| chart.shows((x, low)) && chart.shows((x, high))) {
                let x = chart.bar_of(colour, x as usize).filter(|_| !chart.categories.is_empty()).map_or(x, |(from, to)| (from + to) / 2.0);
                let ([at, y1], [_, y2]) = (place((x, low)), place((x, high)));
                let _ =
                    write!(svg, "<path class=\"error\" d=\"M{0:.1} {y1:.1}h8M{1:.1} {y1:.1}V{y2:.1}M{0:.1} {y2:.1}h8\"/>", at - 4.0, at);
            }
        }
        Shape::Bars(bars) => {
            let base = axes.y.place(if chart.y.logarithmic { f64::MIN_POSITIVE } else { 0.0 }, [bottom, top]);
            let errors = chart.series.iter().any(|series| matches!(series.shape, Shape::Errors(_)));
            let written = chart.number_of_bars() <= MOST_WRITTEN_BARS && !errors && look == Look::File;
            let room = (right - left) / chart.categories.len() as f64;
            let fits = |value: f64| width(&short(value), 12.0) < 5.0 + chart.bar_of(colour, 0).map_or(0.0, |(from, to)| (to - from) * room);
            let written = written && bars.iter().all(|&(_, value)| fits(value));
            for &(category, value) in bars.iter().filter(|&&(category, value)| chart.shows((category as f64, value))) {
                let Some((from, to)) = chart.bar_of(colour, category) else { continue };
                let ([x1, y], [x2, _]) = (place((from, value)), place((to, value)));
                let _ = write!(
                    svg,
                    "<rect x=\"{x1:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" {}/>",
                    y.min(base),
                    (x2 - x1).max(0.5),
                    (y - base).abs(),
                    look.fill(colour)
                );
                if written {
                    let above = if value < 0.0 { y + 14.0 } else { y - 4.0 };
                    let _ =
                        write!(svg, "<text x=\"{:.1}\" y=\"{above:.1}\" text-anchor=\"middle\">{}</text>", (x1 + x2) / 2.0, short(value));
                }
            }
        }
    }
}

fn path(points: Vec<[f64; 2]>) -> String {
    let mut path = String::new();
    for (i, [a, b]) in points.into_iter().enumerate() {
        let _ = write!(path, "{}{a:.1} {b:.1}", if i == 0 { 'M' } else { 'L' });
    }
    path
}

/// Leaves out points of a curve with more of them than a chart can show: of each column the lowest
/// and the highest one stay, in order.
fn thinned(points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    if points.len() <= 2 * COLUMNS {
        return points;
    }
    let mut kept = Vec::with_capacity(2 * COLUMNS);
    for column in points.chunks(points.len().div_ceil(COLUMNS)) {
        let by_height = |&a: &usize, &b: &usize| column[a][1].total_cmp(&column[b][1]);
        let (lowest, highest) = ((0..column.len()).min_by(by_height), (0..column.len()).max_by(by_height));
        let (Some(lowest), Some(highest)) = (lowest, highest) else { continue };
        kept.push(column[lowest.min(highest)]);
        if lowest != highest {
            kept.push(column[lowest.max(highest)]);
        }
    }
    kept
}
