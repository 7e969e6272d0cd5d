//! The confusion matrix as a table, and what it says about each class.

use std::fmt::Write as _;

use super::html::{escaped, label, picture};
use crate::data::Image;
use crate::error::Result;
use crate::train::metrics::{ClassScore, ConfusionMatrix};

/// The largest number of classes whose counts are written out; the matrix of more is a picture.
const MOST_WRITTEN: usize = 30;

/// The number of pairs of classes that are listed.
const PAIRS: usize = 10;

/// The largest number of classes in the table of scores; the worst ones of more.
const MOST_SCORES: usize = 50;

/// Returns the matrix, the pairs of classes that are confused most, and the scores of the classes.
pub(super) fn confusion(matrix: &ConfusionMatrix, classes: &[String]) -> Result<String> {
    let name = |class: usize| classes.get(class).cloned().unwrap_or_else(|| class.to_string());
    if matrix.samples() == 0 {
        return Ok("<p class=\"quiet\">There are no samples.</p>".to_string());
    }
    let summary = format!(
        "{} samples, {} right. Rows are the true classes, columns the predicted ones.",
        matrix.samples(),
        percent(matrix.accuracy())
    );
    let mut html = format!("<p class=\"quiet\">{summary} The colour is the share of the row.</p>");
    html += &if matrix.classes() <= MOST_WRITTEN { table(matrix, &name) } else { heat_map(matrix)? };
    Ok(format!("{html}<div class=\"columns\"><div>{}</div><div>{}</div></div>", scores(matrix, &name)?, most_confused(matrix, &name)))
}

fn percent(share: f64) -> String {
    if share.is_nan() { "–".to_string() } else { format!("{:.1} %", 100.0 * share) }
}

fn table(matrix: &ConfusionMatrix, name: &dyn Fn(usize) -> String) -> String {
    let mut html =
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Confusion matrix\"><table class=\"matrix\"><thead><tr><td></td>"
            .to_string();
    for class in 0..matrix.classes() {
        let _ = write!(html, "<th scope=\"col\"><span>{}</span></th>", label(&name(class)));
    }
    html += "</tr></thead><tbody>";
    for (class, row) in matrix.rows().enumerate() {
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", label(&name(class)));
        let total: u64 = row.iter().sum();
        for &count in row {
            let share = count as f64 / total.max(1) as f64;
            let class = if share > 0.55 { " class=\"strong\"" } else { "" };
            let text = if count == 0 { String::new() } else { count.to_string() };
            let _ = write!(html, "<td{class} style=\"--share:{share:.3}\">{text}</td>");
        }
        html += "</tr>";
    }
    html + "</tbody></table></div>"
}

/// Returns a matrix of many classes as a picture, a pixel for each pair.
fn heat_map(matrix: &ConfusionMatrix) -> Result<String> {
    let classes = matrix.classes();
    let mut pixels = Vec::with_capacity(4 * classes * classes);
    for row in matrix.rows() {
        let total: u64 = row.iter().sum();
        // The root makes small shares visible; the colour fits both schemes.
        let opacity = |count: u64| (255.0 * (count as f64 / total.max(1) as f64).sqrt()) as u8;
        row.iter().for_each(|&count| pixels.extend([0x3B, 0x82, 0xD6, opacity(count)]));
    }
    let image = Image::from_bytes([4, classes, classes], pixels)?;
    picture(&image, "Confusion matrix; the true class is the row, the predicted class the column")
        .map(|html| format!("<div class=\"heatmap\">{html}</div>"))
}

fn most_confused(matrix: &ConfusionMatrix, name: &dyn Fn(usize) -> String) -> String {
    let mut wrong: Vec<(u64, usize, usize)> = Vec::new();
    for (target, row) in matrix.rows().enumerate() {
        let others = row.iter().enumerate().filter(|&(predicted, &count)| predicted != target && count > 0);
        wrong.extend(others.map(|(predicted, &count)| (count, target, predicted)));
    }
    if wrong.is_empty() {
        return String::new();
    }
    wrong.sort_by(|a, b| b.0.cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut html = "<h3>Most confused</h3><div class=\"scroll\"><table><thead><tr><th>True</th><th>Predicted</th><th class=\"number\">Samples</th></tr></thead><tbody>".to_string();
    for (count, target, predicted) in wrong.into_iter().take(PAIRS) {
        let _ =
            write!(html, "<tr><td>{}</td><td>{}</td><td class=\"number\">{count}</td></tr>", label(&name(target)), label(&name(predicted)));
    }
    html + "</tbody></table></div>"
}

fn scores(matrix: &ConfusionMatrix, name: &dyn Fn(usize) -> String) -> Result<String> {
    let of = |score: fn(usize) -> ClassScore| matrix.score(score(matrix.classes())).map(|score| score.per_class());
    let (precision, recall, f1) = (of(ClassScore::precision)?, of(ClassScore::recall)?, of(ClassScore::f1)?);
    let support = |class: usize| (0..matrix.classes()).map(|predicted| matrix.count(class, predicted)).sum();
    let mut scores: Vec<(usize, [f64; 3], u64)> = Vec::new();
    for class in 0..matrix.classes() {
        scores.push((class, [precision[class], recall[class], f1[class]], support(class)));
    }
    let note = if scores.len() > MOST_SCORES {
        scores.retain(|(.., support)| *support > 0);
        scores.sort_by(|a, b| a.1[2].total_cmp(&b.1[2]).then(a.0.cmp(&b.0)));
        scores.truncate(MOST_SCORES);
        format!(", the {MOST_SCORES} worst")
    } else {
        String::new()
    };
    let head = ["Precision", "Recall", "F1", "Samples"].map(|title| format!("<th class=\"number\">{title}</th>")).concat();
    let mut html = format!("<h3>Classes{note}</h3><div class=\"scroll\"><table><thead><tr><th>Class</th>{head}</tr></thead><tbody>");
    for (class, values, support) in scores {
        let values = values.map(|value| format!("<td class=\"number\">{}</td>", escaped(&percent(value)))).concat();
        let _ = write!(html, "<tr><td>{}</td>{values}<td class=\"number\">{support}</td></tr>", label(&name(class)));
    }
    Ok(html + "</tbody></table></div>")
}
