//! Charts as separate files: titles, labels and legends around the plots.

use std::fmt::Write as _;
use std::path::Path;

use super::Chart;
use super::draw::{Axes, Frame, Look, category_height, push_plot};
use super::text::{escaped, fitted, width};
use crate::error::Result;
use crate::io::write_file;

/// The width of a file; more than three columns are wider.
const WIDTH: f64 = 720.0;
const NARROWEST: f64 = 240.0;

/// Sizes of fonts.
const TITLE: f64 = 16.0;
const TEXT: f64 = 12.0;

/// The height of a row of a legend.
const ROW: f64 = 18.0;

/// What a sample takes in a legend, with the space around it.
const SAMPLE: f64 = 34.0;
const GAP: f64 = 18.0;

const STYLE: &str = "\
.chart{background:#ffffff}\
.chart text{fill:#3d444d;font:12px system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}\
.chart .title{fill:#1c2128;font-size:16px;font-weight:600}\
.chart .grid{stroke:#d8dee4;stroke-width:1}\
.chart .axis{stroke:#57606a;stroke-width:1}\
.chart .mark{stroke:#57606a;stroke-width:1;stroke-dasharray:5 4}\
.chart .curve{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\
.chart .error{fill:none;stroke:#1c2128;stroke-width:1.3}";

/// Several charts in one file; [`Chart::panels`] makes them.
#[derive(Clone, Debug, PartialEq)]
#[must_use = "panels are written by `save`"]
pub struct Panels {
    title: String,
    charts: Vec<Chart>,
    columns: usize,
}

impl Panels {
    pub(super) fn new(charts: &[Chart], columns: usize) -> Panels {
        Panels { title: String::new(), charts: charts.to_vec(), columns: columns.clamp(1, charts.len().max(1)) }
    }

    /// Sets a title above all of them.
    pub fn title(self, title: impl Into<String>) -> Panels {
        Panels { title: title.into(), ..self }
    }

    /// Returns the content of an SVG file, 720 wide up to three columns, on a light background.
    pub fn to_svg(&self) -> String {
        let panel = (WIDTH / self.columns as f64).max(NARROWEST);
        let width = panel * self.columns as f64;
        let mut body = String::new();
        let mut y = 0.0;
        if !self.title.is_empty() {
            y = 30.0;
            let title = fitted(&self.title, TITLE, width - 24.0);
            let _ = write!(body, "<text class=\"title\" x=\"{}\" y=\"22\" text-anchor=\"middle\">{title}</text>", width / 2.0);
        }
        for row in self.charts.chunks(self.columns) {
            let layouts: Vec<Layout> = row.iter().map(|chart| Layout::of(chart, panel)).collect();
            // Plots of a row begin and end at the same height.
            let head = layouts.iter().map(|layout| layout.head).fold(0.0, f64::max);
            let foot = layouts.iter().map(|layout| layout.foot).fold(0.0, f64::max);
            let plot = if self.columns == 1 { 290.0 } else { (panel * 0.6).clamp(150.0, 290.0) };
            for (i, (chart, layout)) in row.iter().zip(&layouts).enumerate() {
                layout.push(&mut body, chart, [i as f64 * panel, y], [head, plot]);
            }
            y += head + plot + foot;
        }
        let title = self.charts.first().map_or("", |chart| if self.title.is_empty() { &chart.title } else { &self.title });
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" width=\"{width}\" height=\"{y:.0}\" viewBox=\"0 0 {width} {y:.0}\" \
             role=\"img\" aria-label=\"{}\">\n<style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n",
            escaped(title)
        )
    }

    /// Writes the charts as one SVG file, atomically; its folder is created where it is missing.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) with advice when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_file(path.as_ref(), "the chart cannot be written", self.to_svg().as_bytes())
    }
}

impl From<Chart> for Panels {
    fn from(chart: Chart) -> Panels {
        Panels { title: String::new(), charts: vec![chart], columns: 1 }
    }
}

/// What surrounds the plot of a chart.
struct Layout {
    width: f64,
    left: f64,
    right: f64,
    /// Heights above and below the plot.
    head: f64,
    foot: f64,
    axes: Option<Axes>,
}

impl Layout {
    fn of(chart: &Chart, panel: f64) -> Layout {
        let axes = Axes::of(chart, if panel < 300.0 { 3 } else { (panel / 80.0) as usize }, 5);
        let label = if chart.y.label.is_empty() { 10.0 } else { 28.0 };
        let left = label + axes.as_ref().map_or(0.0, |axes| axes.y_text_width(TEXT)) + 8.0;
        let right = panel - 16.0;
        let mut head = if chart.title.is_empty() { 16.0 } else { 40.0 };
        head += ROW * legend_rows(chart, right - left).len() as f64;
        let names = if chart.categories.is_empty() { 0.0 } else { category_height(chart, right - left, TEXT).0 };
        let foot = 28.0 + names + if chart.x.label.is_empty() { 0.0 } else { 18.0 };
        Layout { width: panel, left, right, head, foot, axes }
    }

    fn push(&self, svg: &mut String, chart: &Chart, [x, y]: [f64; 2], [head, plot]: [f64; 2]) {
        let _ = writeln!(svg, "<g transform=\"translate({x:.1} {y:.1})\">");
        let middle = (self.left + self.right) / 2.0;
        if !chart.title.is_empty() {
            let size = if self.width < 300.0 { 14.0 } else { TITLE };
            let title = fitted(&chart.title, size * 1.05, self.width - 20.0);
            let _ = write!(
                svg,
                "<text class=\"title\" x=\"{:.1}\" y=\"24\" text-anchor=\"middle\" style=\"font-size:{size}px\">{title}</text>",
                self.width / 2.0
            );
        }
        let frame = Frame { left: self.left, right: self.right, top: head, bottom: head + plot };
        let Some(axes) = &self.axes else {
            let _ = writeln!(
                svg,
                "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">There are no values to draw.</text></g>",
                head + plot / 2.0
            );
            return;
        };
        let rows = legend_rows(chart, self.right - self.left);
        for (row, entries) in rows.iter().enumerate() {
            let y = head - 8.0 - ROW * (rows.len() - row) as f64 + ROW / 2.0;
            for &(at, room, (name, colour, ref shapes)) in entries {
                svg.push_str(&Look::File.sample(colour, shapes, self.left + at + 13.0, y));
                let _ = write!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    self.left + at + SAMPLE - 2.0,
                    y + 4.0,
                    fitted(name, TEXT, room)
                );
            }
        }
        push_plot(svg, chart, axes, frame, Look::File);
        if !chart.x.label.is_empty() {
            let y = frame.bottom + self.foot - 10.0;
            let label = fitted(&chart.x.label, TEXT, self.width - 20.0);
            let _ = write!(svg, "<text x=\"{middle:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}</text>");
        }
        if !chart.y.label.is_empty() {
            let y = (frame.top + frame.bottom) / 2.0;
            let label = fitted(&chart.y.label, TEXT, plot + 40.0);
            let _ = write!(svg, "<text x=\"18\" y=\"{y:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 18 {y:.1})\">{label}</text>");
        }
        svg.push_str("</g>\n");
    }
}

/// Where an entry of a legend begins in its row, the room for its text, and the entry.
type Entry<'a> = (f64, f64, (&'a str, usize, Vec<&'a super::Shape>));

/// Distributes the entries of a legend over rows.
fn legend_rows(chart: &Chart, room: f64) -> Vec<Vec<Entry<'_>>> {
    let mut rows: Vec<Vec<Entry<'_>>> = Vec::new();
    let mut at = f64::INFINITY;
    for entry in chart.legend() {
        let text = width(entry.0, TEXT).min(room - SAMPLE);
        if at + SAMPLE + text > room {
            rows.push(Vec::new());
            at = 0.0;
        }
        if let Some(row) = rows.last_mut() {
            row.push((at, room - SAMPLE - at, entry));
        }
        at += SAMPLE + text + GAP;
    }
    rows
}
