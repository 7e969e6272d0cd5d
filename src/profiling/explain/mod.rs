//! Which algorithm computes a convolution, and why that one.
//!
//! The hooks are those of [`profile`](super::profile()), in `profiling/hooks.rs`: each pass of a convolution tells what it is asked to compute,
//! and under which path. The choice depends on that alone, so that it is worked out again here, by the cost model that made it
//! (`kernels/conv/cost.rs`), with all that was weighed.

use std::collections::HashMap;
use std::fmt;

use super::hooks::{Convolution, watch};
use crate::kernels::conv::{ConvAlgorithm, ConvPass};
use crate::kernels::runtime::parallel::num_threads;
use crate::kernels::runtime::simd::instruction_set;
use crate::tensor::DType;

/// Runs `body` and returns its value and, for each convolution that ran, forward and backward, which algorithm computed it and why: what was
/// asked for, what else would have fitted and at what estimated cost, and what did not fit.
///
/// Paths, nesting and threads are as with [`profile`](super::profile()); who does not explain pays for one look at a flag of the thread.
/// Convolutions that run together with what follows them, as in inference, are there too. Transposed convolutions are rows with the passes as
/// they see them: their forward pass is computed as the input gradient of the convolution that leads back.
///
/// ```
/// use convnet::nn::{Conv2d, Module, Sequential};
/// use convnet::ops::{ConvAlgorithm, ConvPass};
/// use convnet::Tensor;
///
/// let net = Sequential::new().push(Conv2d::new(64, 64, 3).padding(1)).push(Conv2d::new(64, 128, 3).stride(2));
/// let x = Tensor::randn([1, 64, 28, 28]);
/// let (y, explanation) = convnet::explain(|| convnet::no_grad(|| net.forward(&x)));
/// let [first, second] = ["0", "1"].map(|path| explanation.get(path, ConvPass::Forward).expect("it ran"));
/// assert_eq!(first.ran, first.candidates[0].0, "the cheapest");
/// assert_eq!(second.ran, ConvAlgorithm::Direct);
/// assert!(second.unsupported.contains(&(ConvAlgorithm::Winograd4, "the stride leaves fewer than 3×3 taps")));
/// println!("{explanation}");
/// # y?;
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn explain<R>(body: impl FnOnce() -> R) -> (R, Explanation) {
    let (value, log) = watch(body);
    let mut choices: Vec<ConvChoice> = vec![];
    for ((path, operation, convolution), calls) in log.convolutions() {
        choices.push(ConvChoice::new(path, operation, convolution, calls));
    }
    let mut places = HashMap::new();
    for choice in &choices {
        let place = places.len();
        places.entry(choice.path.clone()).or_insert(place);
    }
    choices.sort_by_key(|choice| (places[&choice.path], choice.pass));
    (value, Explanation { choices, instruction_set: instruction_set(), threads: num_threads() })
}

/// Calls of one convolution that were alike, and what they were computed by.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConvChoice {
    /// The path of the layer; empty outside of all.
    pub path: String,
    /// The operation, as `conv2d`.
    pub operation: &'static str,
    /// What was computed.
    pub pass: ConvPass,
    /// The shape of the input, `[N, C, H, W]`; also for one-dimensional convolutions, whose `H` is 1.
    pub input: [usize; 4],
    /// The shape of the weight, `[C_out, C_in / groups, kH, kW]`; `[C_in, C_out / groups, kH, kW]` of a transposed convolution.
    pub weight: [usize; 4],
    /// The shape of the output.
    pub output: [usize; 4],
    /// The step of the kernel along height and width.
    pub stride: [usize; 2],
    /// The zeros on either side, along height and width.
    pub padding: [usize; 2],
    /// The distance between neighbouring taps, along height and width.
    pub dilation: [usize; 2],
    /// The number of groups.
    pub groups: usize,
    /// The type of the elements.
    pub dtype: DType,
    /// What was asked for: [`Auto`](ConvAlgorithm::Auto), or what [`with_algorithm`](crate::with_algorithm) wanted.
    pub asked: ConvAlgorithm,
    /// What computed it.
    pub ran: ConvAlgorithm,
    /// What fits, with estimated costs, the cheapest first. One is a multiplication or an addition at the speed at which the machine does them
    /// best. In inference, weights that are laid out once for many calls count with what it takes to read them.
    pub candidates: Vec<(ConvAlgorithm, f64)>,
    /// What does not fit, with the reason.
    pub unsupported: Vec<(ConvAlgorithm, &'static str)>,
    /// How many calls there were.
    pub calls: u64,
}

impl ConvChoice {
    fn new(path: &str, operation: &'static str, convolution: &Convolution, calls: u64) -> ConvChoice {
        let &Convolution { geometry: g, pass, kept, transposed, dtype, asked } = convolution;
        let choice = match dtype {
            DType::F64 => asked.choice::<f64>(&g, pass, kept),
            _ => asked.choice::<f32>(&g, pass, kept),
        };
        let window = &g.window;
        let mut maps = [(g.channels_in, window.input), (g.channels_out, window.output)].map(|(c, [h, w])| [g.batch, c, h, w]);
        let pass = match pass {
            ConvPass::Forward if transposed => ConvPass::InputGradient,
            ConvPass::InputGradient if transposed => ConvPass::Forward,
            pass => pass,
        };
        if transposed {
            maps.reverse();
        }
        ConvChoice {
            path: path.to_string(),
            operation,
            pass,
            input: maps[0],
            weight: [g.channels_out, g.group_in(), window.kernel[0], window.kernel[1]],
            output: maps[1],
            stride: window.stride,
            padding: window.padding,
            dilation: window.dilation,
            groups: g.groups,
            dtype,
            asked,
            ran: choice.ran,
            candidates: choice.candidates,
            unsupported: choice.unsupported,
            calls,
        }
    }

    /// The estimated cost of what fits, the cheapest first, as multiples of that of what ran; where that has no estimate, of the cheapest.
    pub fn relative_costs(&self) -> Vec<(ConvAlgorithm, f64)> {
        let ran = self.candidates.iter().find(|(algorithm, _)| *algorithm == self.ran).or(self.candidates.first());
        // Nothing costs nothing: an empty batch.
        let unit = ran.map_or(0.0, |(_, cost)| *cost);
        let relative = |cost: f64| if unit > 0.0 { cost / unit } else { 1.0 };
        self.candidates.iter().map(|&(algorithm, cost)| (algorithm, relative(cost))).collect()
    }

    /// Why this algorithm, in words.
    fn reason(&self) -> String {
        let asked = self.asked;
        match self.unsupported.iter().find(|(algorithm, _)| *algorithm == asked) {
            Some((_, unsupported_reason)) => format!("not {asked}, as asked: {unsupported_reason}"),
            None if asked == self.ran => "as asked".to_string(),
            None if self.candidates.len() > 1 => "the cheapest".to_string(),
            None => "no other fits".to_string(),
        }
    }

    /// As `64→128, k3, s2 @56×56 ×16`: channels, kernel, what is not 1, size of the input, batch.
    fn geometry(&self) -> String {
        let &ConvChoice { stride, dilation, groups, .. } = self;
        let ([batch, inputs, height, width], [_, outputs, ..], [_, _, kh, kw]) = (self.input, self.output, self.weight);
        let convolution = describe_convolution([inputs, outputs], short_size([kh, kw]), short_size(stride), short_size(dilation), groups);
        let operation = if self.operation == "conv2d" { String::new() } else { format!("{} ", self.operation) };
        let dtype = if self.dtype == DType::F32 { String::new() } else { format!(" {}", self.dtype) };
        format!("{operation}{convolution} @{height}×{width} ×{batch}{dtype}")
    }

    /// What fits with its relative cost; and for a kernel that one would expect Winograd's algorithms for, what stands in their way.
    fn weighed(&self) -> String {
        let costs = self.relative_costs().iter().map(|(algorithm, cost)| format!("{algorithm} {cost:.2}")).collect::<Vec<_>>().join(", ");
        let winograd = self.unsupported.iter().find(|(algorithm, _)| *algorithm == ConvAlgorithm::Winograd4);
        match winograd.filter(|_| self.weight[2..] == [3, 3]) {
            Some((_, unsupported_reason)) => format!("{costs}; no winograd: {unsupported_reason}"),
            None => costs,
        }
    }
}

/// Describes a convolution as `64→128, k3, s2, d2, g4`, without what is 1.
pub(crate) fn describe_convolution(channels: [usize; 2], kernel: String, stride: String, dilation: String, groups: usize) -> String {
    let mut text = format!("{}→{}, k{kernel}", channels[0], channels[1]);
    for (letter, value) in [('s', stride), ('d', dilation), ('g', groups.to_string())] {
        if value != "1" {
            text.push_str(&format!(", {letter}{value}"));
        }
    }
    text
}

/// Writes a size along height and width: `3` for `[3, 3]`, `3×5` for others.
pub(crate) fn short_size([height, width]: [usize; 2]) -> String {
    if height == width { height.to_string() } else { format!("{height}×{width}") }
}

/// What [`explain`] saw; prints as a table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// By path in the order in which they ran first; at one path forward first, then the gradient of the input and that of the weight.
    pub choices: Vec<ConvChoice>,
    /// The instruction set that the kernels use.
    pub instruction_set: &'static str,
    /// The number of threads, which no choice depends on.
    pub threads: usize,
}

impl Explanation {
    /// The first row of a pass at a path; there are more where a layer ran in different ways.
    pub fn get(&self, path: &str, pass: ConvPass) -> Option<&ConvChoice> {
        self.choices.iter().find(|choice| choice.path == path && choice.pass == pass)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEADS: [&str; 7] = ["path", "pass", "convolution", "calls", "algorithm", "why", "estimated costs"];
        let mut table = vec![HEADS.map(String::from)];
        table.extend(self.choices.iter().map(|choice| {
            let path = if choice.path.is_empty() { "-" } else { &choice.path };
            let [pass, calls, ran] = [choice.pass.to_string(), choice.calls.to_string(), choice.ran.to_string()];
            [path.to_string(), pass, choice.geometry(), calls, ran, choice.reason(), choice.weighed()]
        }));
        crate::io::text_table::write(f, &table, HEADS.len(), &[1, table.len()])?;
        let threads = if self.threads == 1 { "1 thread".to_string() } else { format!("{} threads", self.threads) };
        write!(f, "{}, {threads}; costs as multiples of what ran, or of the cheapest where what ran has no estimate", self.instruction_set)
    }
}

#[cfg(test)]
mod tests;
