//! Tables of text.

use std::fmt;

/// Writes rows of cells in aligned columns, those from `right` on aligned right, with a rule before
/// each of the rows `ruled` (the number of rows stands for the end of the table).
pub(crate) fn write<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[String; N]], right: usize, ruled: &[usize]) -> fmt::Result {
    write_cells(f, rows.as_flattened(), [N, right], ruled)
}

fn write_cells(f: &mut fmt::Formatter<'_>, cells: &[String], [columns, right]: [usize; 2], ruled: &[usize]) -> fmt::Result {
    let mut widths = vec![0; columns];
    for (i, cell) in cells.iter().enumerate() {
        widths[i % columns] = cell.chars().count().max(widths[i % columns]);
    }
    let rule = |f: &mut fmt::Formatter<'_>| writeln!(f, "{}", "─".repeat(widths.iter().sum::<usize>() + 2 * (columns - 1)));
    for (i, row) in cells.chunks(columns).enumerate() {
        if ruled.contains(&i) {
            rule(f)?;
        }
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let cell = if column < right { format!("{cell:width$}") } else { format!("{cell:>width$}") };
            line.push_str(if column == 0 { "" } else { "  " });
            line.push_str(&cell);
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    if ruled.contains(&(cells.len() / columns)) { rule(f) } else { Ok(()) }
}

/// Formats a number with commas: `61706` as `61,706`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
