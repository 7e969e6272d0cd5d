//! Line charts as SVG.

use std::fmt::Write as _;

use super::Curve;
use super::html::{escaped, label};

/// The size of a chart, in the units of its texts.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 240.0;

/// The edges of the plotted area: left, right, top, bottom.
const LEFT: f64 = 48.0;
const RIGHT: f64 = WIDTH - 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = HEIGHT - 40.0;

/// The number of intervals along the horizontal axis in which only the smallest and the largest
/// value of a curve are drawn.
const COLUMNS: usize = 400;

/// The number of colours of the style sheet.
const COLOURS: usize = 6;

/// Dashes of the curves, so that they differ without colours as well.
const DASHES: [&str; 4] = ["", "6 4", "2 4", "10 4 2 4"];

/// Returns a legend and a chart of curves over a common horizontal axis.
pub(super) fn line_chart(title: &str, x_label: &str, curves: &[Curve]) -> String {
    let finite = || curves.iter().flat_map(|curve| &curve.points).filter(|(x, y)| x.is_finite() && y.is_finite());
    if finite().next().is_none() {
        return "<p class=\"quiet\">There are no finite values.</p>".to_string();
    }
    let x = Axis::over(finite().map(|point| point.0), 5);
    let y = Axis::over(finite().map(|point| point.1), 5).widened();
    let mut svg = legend(curves);
    let _ = write!(svg, "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escaped(title));
    for tick in y.ticks() {
        let at = y.place(tick, [BOTTOM, TOP]);
        let _ = write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let _ = write!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 7.0, at + 4.0, y.text(tick));
    }
    for tick in x.ticks() {
        let at = x.place(tick, [LEFT, RIGHT]);
        let _ = write!(svg, "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{BOTTOM}\" y2=\"{}\"/>", BOTTOM + 4.0);
        let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>", BOTTOM + 17.0, x.text(tick));
    }
    let _ = write!(svg, "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{BOTTOM}\" y2=\"{BOTTOM}\"/>");
    let middle = (LEFT + RIGHT) / 2.0;
    let _ = write!(svg, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", HEIGHT - 6.0, escaped(x_label));
    for (i, curve) in curves.iter().enumerate() {
        push_curve(&mut svg, i, curve, &x, &y);
    }
    svg + "</svg>"
}

fn legend(curves: &[Curve]) -> String {
    let mut html = "<ul class=\"legend\">".to_string();
    for (i, curve) in curves.iter().enumerate() {
        let line = format!("<line x1=\"1\" x2=\"27\" y1=\"4\" y2=\"4\" {}/>", stroke(i));
        let _ = write!(html, "<li><svg viewBox=\"0 0 28 8\" aria-hidden=\"true\">{line}</svg>{}</li>", label(&curve.name));
    }
    html + "</ul>"
}

/// Returns the attributes of the line of curve `i`.
fn stroke(i: usize) -> String {
    let dash = DASHES[i % DASHES.len()];
    format!(
        "style=\"stroke:var(--s{})\" stroke-width=\"2\" stroke-dasharray=\"{}\"",
        i % COLOURS,
        if dash.is_empty() { "none" } else { dash }
    )
}

fn push_curve(svg: &mut String, i: usize, curve: &Curve, x: &Axis, y: &Axis) {
    // Values that are not finite leave gaps.
    for run in curve.points.split(|(x, y)| !x.is_finite() || !y.is_finite()).filter(|run| !run.is_empty()) {
        let points: Vec<[f64; 2]> = run.iter().map(|&(a, b)| [x.place(a, [LEFT, RIGHT]), y.place(b, [BOTTOM, TOP])]).collect();
        if let [[a, b]] = points[..] {
            let _ = write!(svg, "<circle cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"3\" style=\"fill:var(--s{})\"/>", i % COLOURS);
            continue;
        }
        let _ = write!(svg, "<path class=\"curve\" {} d=\"", stroke(i));
        for (i, [a, b]) in thinned(points).into_iter().enumerate() {
            let _ = write!(svg, "{}{a:.1} {b:.1}", if i == 0 { 'M' } else { 'L' });
        }
        svg.push_str("\"/>");
    }
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

/// A linear axis with round ticks.
struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// Makes the axis that contains these values and has about `count` ticks.
    fn over(values: impl Iterator<Item = f64>, count: usize) -> Axis {
        // Beyond this, differences of values are not finite.
        const LARGEST: f64 = 1e300;
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            let value = value.clamp(-LARGEST, LARGEST);
            (low.min(value), high.max(value))
        });
        // Values that are all equal are in the middle.
        let margin = if high - low > 1e-12 * low.abs().max(high.abs()) { 0.0 } else { (low.abs() / 2.0).max(1e-6) };
        let (low, high) = (low - margin, high + margin);
        let rough = (high - low) / count as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|digit| digit * power).find(|step| *step >= rough * 0.999).unwrap_or(10.0 * power);
        Axis { low, high, step }
    }

    /// Extends the range to the next ticks, so that no curve touches an edge.
    fn widened(self) -> Axis {
        let (low, high) = ((self.low / self.step + 1e-9).floor() * self.step, (self.high / self.step - 1e-9).ceil() * self.step);
        Axis { low: low.min(self.low), high: high.max(self.high), ..self }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let first = (self.low / self.step - 1e-9).ceil();
        let last = (self.high / self.step + 1e-9).floor();
        let step = self.step;
        (0..=(last - first).clamp(0.0, 20.0) as usize).map(move |i| (first + i as f64) * step)
    }

    fn place(&self, value: f64, [from, to]: [f64; 2]) -> f64 {
        from + (to - from) * ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// Returns the text of a tick, with the digits that its distance to the next one needs.
    fn text(&self, tick: f64) -> String {
        let largest = self.low.abs().max(self.high.abs());
        // Zero without a sign.
        let tick = if tick.abs() < self.step * 1e-6 { 0.0 } else { tick };
        if largest >= 1e7 || (largest < 1e-3 && largest > 0.0) {
            return if tick == 0.0 { "0".to_string() } else { format!("{:.1e}", tick) };
        }
        if largest >= 1e4 {
            let decimals = decimals_of(self.step / 1e3);
            return if tick == 0.0 { "0".to_string() } else { format!("{:.decimals$}k", tick / 1e3) };
        }
        format!("{tick:.*}", decimals_of(self.step))
    }
}

/// Returns the number of decimals that multiples of a step have.
fn decimals_of(step: f64) -> usize {
    (-(step.log10() + 1e-9).floor()).clamp(0.0, 8.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        let axis = Axis::over([low, high].into_iter(), 5);
        axis.ticks().map(|tick| axis.text(tick)).collect()
    }

    #[test]
    fn ticks_are_round_numbers_inside_the_range() {
        assert_eq!(labels(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(1.0, 30.0), ["10", "20", "30"]);
        assert_eq!(labels(0.0, 62_500.0), ["0", "20k", "40k", "60k"]);
        assert_eq!(labels(-0.3, 0.31), ["-0.2", "0.0", "0.2"]);
        assert_eq!(labels(1e-5, 5e-5), ["1.0e-5", "2.0e-5", "3.0e-5", "4.0e-5", "5.0e-5"]);
    }

    #[test]
    fn equal_and_extreme_values_have_an_axis() {
        for (low, high) in [(0.0, 0.0), (2.5, 2.5), (-1e308, 1e308), (1e-308, 2e-308), (1e15, 1e15 + 1.0)] {
            let axis = Axis::over([low, high].into_iter(), 5);
            assert!(axis.low < axis.high && axis.step > 0.0, "{low} {high}");
            assert!(axis.ticks().count() <= 21);
            assert!((0.0..=100.0).contains(&axis.place(low, [0.0, 100.0])), "{low} {high}");
        }
    }

    #[test]
    fn long_curves_keep_their_peaks_and_gaps_stay_gaps() {
        let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
        points[54_321].1 = 9.0;
        let html = line_chart("loss", "step", &[Curve::new("training", points)]);
        assert!(html.len() < 20_000, "{}", html.len());
        // The axis ends at 10.
        let peak = BOTTOM - (BOTTOM - TOP) * (9.0 - 0.0) / (10.0 - 0.0);
        assert!(html.contains(&format!(" {peak:.1}L")), "{peak}");
        let gap = line_chart("loss", "step", &[Curve::new("a", [(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0)])]);
        assert_eq!((gap.matches("<path").count(), gap.matches("<circle").count()), (1, 1));
        assert!(line_chart("loss", "step", &[Curve::new("a", [(0.0, f64::NAN)])]).contains("no finite values"));
    }
}
