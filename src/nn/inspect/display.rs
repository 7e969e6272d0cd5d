//! The tree of modules as text.

use std::fmt;

use crate::nn::module::Module;
use crate::nn::module::visitor::{Item, Visitor};

/// Prints the tree of modules, as PyTorch does: `(conv1): Conv2d 3→64, k7, s2`.
pub(crate) fn tree(module: &dyn Module, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    struct Line {
        depth: usize,
        name: String,
        text: String,
        opens: bool,
    }
    let (mut lines, mut depth): (Vec<Line>, usize) = (vec![], 0);
    Visitor::walk(module, &mut |path, item| match item {
        Item::Enter { type_name } => {
            if let Some(parent) = lines.iter_mut().rfind(|line| line.depth + 1 == depth) {
                parent.opens = true;
            }
            let name = path.rsplit('.').next().unwrap_or("").to_string();
            lines.push(Line { depth, name, text: type_name.to_string(), opens: false });
            depth += 1;
        }
        Item::Leave => depth -= 1,
        Item::Layer(layer) => {
            if let Some(line) = lines.last_mut() {
                line.text = layer.describe();
            }
        }
        _ => {}
    });
    let mut open = vec![];
    let close = |f: &mut fmt::Formatter<'_>, depth: usize| write!(f, "\n{:1$})", "", 2 * depth);
    for (i, line) in lines.iter().enumerate() {
        while open.last().is_some_and(|&depth| depth >= line.depth) {
            close(f, open.pop().unwrap_or(0))?;
        }
        if i > 0 {
            write!(f, "\n{:1$}({2}): ", "", 2 * line.depth, line.name)?;
        }
        write!(f, "{}{}", line.text, if line.opens { " (" } else { "" })?;
        if line.opens {
            open.push(line.depth);
        }
    }
    while let Some(depth) = open.pop() {
        close(f, depth)?;
    }
    Ok(())
}
