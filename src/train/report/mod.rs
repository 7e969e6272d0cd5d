//! A report of a run as one HTML file, without scripts and without anything from the network.
//!
//! Charts are SVG, pictures are PNG inside of the file; the colours follow the reader's colour
//! scheme. All texts are escaped, and the file's content security policy forbids scripts.

mod confusion;
mod html;
mod system;
#[cfg(test)]
mod tests;
mod worst;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use html::{escaped, label, pairs, picture};
pub use worst::WorstSamples;

use super::trainer::EpochRecord;
use crate::chart::Chart;
pub use crate::chart::Curve;
use crate::data::Image;
use crate::error::{Error, Result};
use crate::inspect::{kernel_shape, kernel_tiles};
use crate::io::write_file;
use crate::tensor::Tensor;
use crate::train::metrics::ConfusionMatrix;

/// The largest number of kernels that are shown.
const MOST_KERNELS: usize = 128;

/// The largest number of pictures that a section shows.
const MOST_PICTURES: usize = 256;

/// A picture with its true and its predicted class.
#[derive(Clone, Debug)]
pub struct ReportPicture {
    image: Image,
    truth: String,
    predicted: String,
    note: String,
}

impl ReportPicture {
    /// Makes an entry of a picture, as it should be seen: bytes, or `f32` from 0 to 1.
    pub fn new(image: Image, truth: impl Into<String>, predicted: impl Into<String>) -> ReportPicture {
        ReportPicture { image, truth: truth.into(), predicted: predicted.into(), note: String::new() }
    }

    /// Adds a line below the classes, such as the loss or the name of the file.
    #[must_use]
    pub fn note(self, note: impl Into<String>) -> ReportPicture {
        ReportPicture { note: note.into(), ..self }
    }
}

/// A report of a run as one HTML file that opens without a network: curves, the confusion matrix,
/// pictures, kernels, the configuration, the machine and the time.
///
/// Each call adds a section. Class names and all other texts are escaped.
///
/// ```
/// use convnet::Tensor;
/// use convnet::data::Image;
/// use convnet::train::metrics::{ConfusionMatrix, Metric};
/// use convnet::train::{Curve, HtmlReport, ReportPicture};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&dir).unwrap();
/// let logits = Tensor::from_vec(vec![2.0f32, 0.0, 1.0, 0.0], [2, 2])?;
/// let labels = Tensor::from_vec(vec![0i64, 1], [2])?;
/// let confusion = ConfusionMatrix::of(&logits, &labels, 2)?;
///
/// let training = Curve::new("training", [(1.0, 0.9), (2.0, 0.5)]);
/// let validation = Curve::new("validation", [(1.0, 0.8), (2.0, 0.6)]);
/// HtmlReport::new("Cats and dogs")
///     .figures(&[("accuracy", "50 %")])
///     .curves("Loss", "epoch", &[training, validation])
///     .confusion(&confusion, &["cat", "dog"])
///     .pictures("Worst samples", &[ReportPicture::new(Image::new(3, 32, 32)?, "dog", "cat").note("loss 1.31")])
///     .kernels(&Tensor::randn([16, 3, 5, 5]))
///     .configuration(&[("lr", "0.1"), ("batch", "64")])
///     .time(std::time::Duration::from_secs(75))
///     .save("runs/pets/report.html")?;
/// # Ok::<(), convnet::Error>(())
/// ```
#[must_use = "the report is written by `save`"]
pub struct HtmlReport {
    title: String,
    sections: String,
    /// Whether the last section is one of several charts side by side.
    in_charts: bool,
    time: Option<Duration>,
    error: Option<Error>,
}

impl HtmlReport {
    /// Starts a report with this title.
    pub fn new(title: impl Into<String>) -> HtmlReport {
        HtmlReport { title: title.into(), sections: String::new(), in_charts: false, time: None, error: None }
    }

    /// Adds key figures, as names and values.
    pub fn figures<K: AsRef<str>, V: AsRef<str>>(self, figures: &[(K, V)]) -> HtmlReport {
        let mut html = "<div class=\"figures\">".to_string();
        for (name, value) in figures {
            let _ =
                write!(html, "<div><span class=\"quiet\">{}</span><strong>{}</strong></div>", label(name.as_ref()), label(value.as_ref()));
        }
        self.section("Results", &(html + "</div>"))
    }

    /// Adds a chart of curves over a common horizontal axis, with a legend.
    pub fn curves(mut self, title: impl AsRef<str>, x_label: impl AsRef<str>, curves: &[Curve]) -> HtmlReport {
        if !self.in_charts {
            self.sections += "<div class=\"columns\">";
            self.in_charts = true;
        }
        let chart = line_chart(title.as_ref(), x_label.as_ref(), curves);
        let _ = write!(self.sections, "<section><h2>{}</h2>{chart}</section>", label(title.as_ref()));
        self
    }

    /// Adds a chart for each metric of a training run, by epoch: `train/loss` and `valid/loss` are
    /// two curves of one chart.
    pub fn history(mut self, epochs: &[EpochRecord]) -> HtmlReport {
        let mut charts: Vec<(&str, Vec<Curve>)> = Vec::new();
        for record in epochs {
            for (name, &value) in &record.metrics {
                let (part, metric) = name.split_once('/').unwrap_or(("", name));
                let part = match part {
                    "train" => "training",
                    "valid" => "validation",
                    "" => metric,
                    other => other,
                };
                if !charts.iter().any(|(title, _)| *title == metric) {
                    charts.push((metric, Vec::new()));
                }
                let Some((_, curves)) = charts.iter_mut().find(|(title, _)| *title == metric) else { continue };
                // Epochs are counted from 0, and shown from 1.
                let point = (record.epoch as f64 + 1.0, value);
                match curves.iter_mut().find(|curve| curve.name == part) {
                    Some(curve) => curve.points.push(point),
                    None => curves.push(Curve::new(part, [point])),
                }
            }
        }
        for (metric, curves) in charts {
            self = self.curves(metric, "epoch", &curves);
        }
        self
    }

    /// Adds a confusion matrix, the pairs of classes that are confused most, and precision, recall
    /// and F1 of each class. A class without a name has its number.
    pub fn confusion(mut self, matrix: &ConfusionMatrix, classes: &[impl AsRef<str>]) -> HtmlReport {
        let classes: Vec<String> = classes.iter().map(|class| class.as_ref().to_string()).collect();
        let html = self.part(confusion::confusion(matrix, &classes));
        self.section("Confusion matrix", &html)
    }

    /// Adds pictures with their true and predicted classes, such as the worst-classified samples;
    /// at most 256. Large ones are made smaller.
    pub fn pictures(mut self, title: impl AsRef<str>, pictures: &[ReportPicture]) -> HtmlReport {
        let html = self.part(picture_grid(pictures));
        self.section(title.as_ref(), &html)
    }

    /// Adds pictures of a convolution's kernels, `[out, in, kH, kW]`; at most 128. With three input
    /// channels they are colours, otherwise the mean over the input channels is shown, in the
    /// colours of [`inspect::kernels`](crate::inspect::kernels).
    pub fn kernels(mut self, weight: &Tensor) -> HtmlReport {
        let html = self.part(kernel_pictures(weight));
        self.section("Kernels of the first layer", &html)
    }

    /// Adds the configuration of the run, as names and values.
    pub fn configuration<K: AsRef<str>, V: AsRef<str>>(self, entries: &[(K, V)]) -> HtmlReport {
        let html = pairs(entries.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
        self.section("Configuration", &html)
    }

    /// Adds how long the run took, which is shown with the machine.
    pub fn time(self, time: Duration) -> HtmlReport {
        HtmlReport { time: Some(time), ..self }
    }

    /// Adds a paragraph of text under a title.
    pub fn text(self, title: impl AsRef<str>, text: impl AsRef<str>) -> HtmlReport {
        let html = format!("<p style=\"white-space:pre-wrap\">{}</p>", escaped(text.as_ref()));
        self.section(title.as_ref(), &html)
    }

    /// Returns the file's content.
    ///
    /// # Errors
    /// Those of the parts: [`Error::Shape`] for pictures and kernels that cannot be shown.
    pub fn to_html(mut self) -> Result<String> {
        let time = self.time;
        self = self.section("Machine and time", &system::describe(time));
        if let Some(error) = self.error {
            return Err(error);
        }
        let title = escaped(&self.title);
        Ok(format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
             <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n<header><h1>{title}</h1></header>\n\
             <main>\n{}</main>\n<footer>Written by convnet {}.</footer>\n</body>\n</html>\n",
            include_str!("style.css"),
            self.sections,
            env!("CARGO_PKG_VERSION")
        ))
    }

    /// Writes the file, atomically; its folder is created where it is missing.
    ///
    /// # Errors
    /// Those of [`to_html`](Self::to_html), and [`Error::Io`] with advice when the file cannot be
    /// written.
    pub fn save(self, path: impl AsRef<Path>) -> Result<()> {
        write_file(path.as_ref(), "the report cannot be written", self.to_html()?.as_bytes())
    }

    fn section(mut self, title: &str, html: &str) -> HtmlReport {
        if self.in_charts {
            self.sections += "</div>\n";
            self.in_charts = false;
        }
        let _ = writeln!(self.sections, "<section><h2>{}</h2>{html}</section>", label(title));
        self
    }

    /// Returns a part, and keeps the first error for the end.
    fn part(&mut self, part: Result<String>) -> String {
        part.unwrap_or_else(|error| {
            self.error.get_or_insert(error);
            String::new()
        })
    }
}

/// Returns a legend and a chart of curves over a common horizontal axis.
fn line_chart(title: &str, x_label: &str, curves: &[Curve]) -> String {
    let chart = Chart::new(title).x(x_label);
    let chart = curves.iter().fold(chart, |chart, curve| chart.curve(&curve.name, curve.points.iter().copied()));
    let Some(svg) = chart.to_element() else {
        return "<p class=\"quiet\">There are no values to draw.</p>".to_string();
    };
    let mut html = "<ul class=\"legend\">".to_string();
    for (name, sample) in chart.samples() {
        let _ = write!(html, "<li><svg viewBox=\"0 0 28 8\" aria-hidden=\"true\">{sample}</svg>{}</li>", label(name));
    }
    html + "</ul>" + &svg
}

fn picture_grid(pictures: &[ReportPicture]) -> Result<String> {
    if pictures.is_empty() {
        return Ok("<p class=\"quiet\">None.</p>".to_string());
    }
    let mut html = "<div class=\"pictures\">".to_string();
    for ReportPicture { image, truth, predicted, note } in pictures.iter().take(MOST_PICTURES) {
        let picture = picture(image, &format!("{truth}, predicted {predicted}"))?;
        let (truth, predicted) = (label(truth), label(predicted));
        let _ = write!(html, "<figure>{picture}<figcaption><span>True: <b>{truth}</b></span><span>Predicted: <b>{predicted}</b></span>");
        if !note.is_empty() {
            let _ = write!(html, "<span class=\"quiet\">{}</span>", label(note));
        }
        html += "</figcaption></figure>";
    }
    Ok(html + "</div>")
}

fn kernel_pictures(weight: &Tensor) -> Result<String> {
    let [kernels, inputs, height, width] = kernel_shape(weight)?;
    let shown = kernels.min(MOST_KERNELS);
    let mut html = format!("<p class=\"quiet\">{shown} of {kernels} kernels of {height}×{width}");
    let mut weight = weight.detach().narrow(0, 0, shown)?;
    if matches!(inputs, 1 | 3) {
        html += ".</p>";
    } else {
        html += ", the mean over the input channels.</p>";
        weight = weight.mean_keepdim(1)?;
    }
    html += "<div class=\"kernels\">";
    for (i, kernel) in kernel_tiles(&weight)?.iter().enumerate() {
        html += &picture(kernel, &format!("kernel {i}"))?;
    }
    Ok(html + "</div>")
}
