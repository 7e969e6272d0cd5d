//! What a network consists of and what it costs, as a table.

use std::collections::HashMap;
use std::fmt;

use super::module::Module;
use super::site::{Call, trace};
use super::visitor::{Item, Visitor};
use crate::autograd::no_grad;
use crate::error::{Error, Result};
use crate::tensor::shape::try_numel;
use crate::tensor::{DType, Tensor};

/// One call of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SummaryRow {
    /// The layer's path, empty for a network that is a single layer.
    pub path: String,
    /// What the layer is, as in `Conv2d 64→64, k3`.
    pub layer: String,
    /// The shape of what it returned.
    pub output: Vec<usize>,
    /// The parameters it has; 0 in its second and further calls, and where they were counted under another path.
    pub parameters: usize,
    /// Multiplications, each with its addition.
    pub multiply_adds: u64,
}

/// What [`Module::summary`] finds; prints as a table.
///
/// ```
/// use convnet::nn::{Linear, Module, ReLU, Sequential};
///
/// let net = Sequential::new().push(Linear::new(784, 100)).push(ReLU).push(Linear::new(100, 10));
/// let summary = net.summary([1, 784])?;
/// assert_eq!((summary.parameters, summary.multiply_adds), (79_510, 79_400));
/// println!("{summary}");
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The layers in the order in which they ran.
    pub rows: Vec<SummaryRow>,
    /// The shape of the input.
    pub input: Vec<usize>,
    /// The number of elements in all parameters, including those that belong to no row.
    pub parameters: usize,
    /// Those of them that are not frozen.
    pub trainable: usize,
    /// Multiplications, each with its addition, for the whole input.
    pub multiply_adds: u64,
    /// Bytes of the input.
    pub input_bytes: usize,
    /// Bytes of all layers' outputs together.
    pub activation_bytes: usize,
    /// Bytes of parameters and buffers.
    pub state_bytes: usize,
}

pub(super) fn of<M: Module + ?Sized>(module: &M, input: &[usize]) -> Result<Summary> {
    if try_numel(input).is_none() {
        return Err(Error::shape("summary", format!("shape {input:?} has more elements than memory can hold")));
    }
    let parameters = module.named_parameters();
    let dtype = parameters.first().map_or(DType::F32, |(_, parameter)| parameter.dtype());
    let x = Tensor::full(input, 0.0, dtype);
    let (result, calls) = in_evaluation(module, || no_grad(|| trace(|| module.forward(&x))));
    result?;
    let mut by_layer: HashMap<&str, usize> = HashMap::new();
    for (path, parameter) in &parameters {
        *by_layer.entry(path.rsplit_once('.').map_or("", |(layer, _)| layer)).or_default() += parameter.numel();
    }
    let parameter_bytes: usize = parameters.iter().map(|(_, parameter)| parameter.numel() * parameter.dtype().size()).sum();
    let buffer_bytes: usize = module.buffers().iter().map(|buffer| buffer.tensor()).map(|b| b.numel() * b.dtype().size()).sum();
    Ok(Summary {
        input: input.to_vec(),
        parameters: parameters.iter().map(|(_, parameter)| parameter.numel()).sum(),
        trainable: parameters.iter().filter(|(_, parameter)| !parameter.is_frozen()).map(|(_, parameter)| parameter.numel()).sum(),
        multiply_adds: calls.iter().fold(0, |sum: u64, call| sum.saturating_add(call.multiply_adds)),
        input_bytes: x.numel() * dtype.size(),
        activation_bytes: calls.iter().map(|call| call.output_bytes).sum(),
        state_bytes: parameter_bytes + buffer_bytes,
        rows: calls.into_iter().map(|call| row(call, &mut by_layer)).collect(),
    })
}

fn row(call: Call, parameters: &mut HashMap<&str, usize>) -> SummaryRow {
    let Call { path, layer, output, multiply_adds, .. } = call;
    SummaryRow { parameters: parameters.remove(path.as_str()).unwrap_or(0), path, layer, output, multiply_adds }
}

/// Runs `body` with everything inside `module` switched to evaluation, then puts the switches back.
fn in_evaluation<M: Module + ?Sized, R>(module: &M, body: impl FnOnce() -> R) -> R {
    struct Restore<'a, M: Module + ?Sized>(&'a M, Vec<bool>);
    impl<M: Module + ?Sized> Drop for Restore<'_, M> {
        fn drop(&mut self) {
            let mut before = self.1.iter();
            Visitor::walk(self.0, &mut |_, item| {
                if let Item::Mode(mode) = item
                    && let Some(&training) = before.next()
                {
                    mode.set_training(training);
                }
            });
        }
    }
    let mut modes = vec![];
    Visitor::walk(module, &mut |_, item| {
        if let Item::Mode(mode) = item {
            modes.push(mode.is_training());
        }
    });
    let _restore = Restore(module, modes);
    module.eval();
    body()
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cells = vec![["layer", "", "output shape", "parameters", "multiply-adds"].map(String::from)];
        for row in &self.rows {
            let count = |n: u64| if n == 0 { "-".to_string() } else { grouped(n) };
            let output = format!("{:?}", row.output);
            cells.push([row.path.clone(), row.layer.clone(), output, count(row.parameters as u64), count(row.multiply_adds)]);
        }
        let widths: [usize; 5] = std::array::from_fn(|column| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
        let rule = "─".repeat(widths.iter().sum::<usize>() + 8);
        for (i, [path, layer, output, parameters, multiply_adds]) in cells.iter().enumerate() {
            let [a, b, c, d, e] = widths;
            writeln!(f, "{path:a$}  {layer:b$}  {output:c$}  {parameters:>d$}  {multiply_adds:>e$}")?;
            if i == 0 {
                writeln!(f, "{rule}")?;
            }
        }
        writeln!(f, "{rule}")?;
        let frozen = self.parameters - self.trainable;
        let frozen = if frozen == 0 { String::new() } else { format!(" ({} of them frozen)", grouped(frozen as u64)) };
        writeln!(f, "parameters     {}{frozen}", grouped(self.parameters as u64))?;
        writeln!(f, "multiply-adds  {} for input {:?}", grouped(self.multiply_adds), self.input)?;
        let [input, activations, state] = [self.input_bytes, self.activation_bytes, self.state_bytes].map(mebibytes);
        write!(f, "memory         input {input}, activations {activations}, parameters and buffers {state}")
    }
}

/// `61706` as `61,706`.
fn grouped(n: u64) -> String {
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

fn mebibytes(bytes: usize) -> String {
    format!("{:.2} MiB", bytes as f64 / (1 << 20) as f64)
}

/// Prints the tree of modules, as PyTorch does: `(conv1): Conv2d 3→64, k7, s2`.
pub(super) fn tree<M: Module + ?Sized>(module: &M, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    struct Line {
        depth: usize,
        name: String,
        text: String,
        opens: bool,
    }
    let (mut lines, mut depth): (Vec<Line>, usize) = (vec![], 0);
    Visitor::walk(module, &mut |path, item| match item {
        Item::Enter { kind } => {
            if let Some(parent) = lines.iter_mut().rfind(|line| line.depth + 1 == depth) {
                parent.opens = true;
            }
            let name = path.rsplit('.').next().unwrap_or("").to_string();
            lines.push(Line { depth, name, text: kind.to_string(), opens: false });
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
