//! Reports which algorithm computes each convolution, and why.
//!
//! The hooks are those of [`profile`](super::profile()), in `profiling/hooks.rs`: each pass of a
//! convolution records its parameters and its path. The choice of the algorithm depends on these
//! parameters alone, so the cost model that made it (`kernels/conv/cost.rs`) computes it again
//! here, with all the alternatives that it compared.

use std::collections::HashMap;
use std::fmt;

use super::hooks::{Convolution, observe};
use crate::kernels::conv::{ConvAlgorithm, ConvPass};
use crate::kernels::runtime::arrays::MapEach;
use crate::kernels::runtime::arrays::sort_by;
use crate::kernels::runtime::parallel::num_threads;
use crate::kernels::runtime::simd::instruction_set;
use crate::tensor::DType;

/// Runs `body` and returns its value and, for each convolution that ran, forward and backward,
/// which algorithm computed it and why: which algorithm was requested, which ones fit and at what
/// estimated cost, and which ones do not fit.
///
/// Paths, nesting and threads are as in [`profile`](super::profile()). When no `explain` is active,
/// the cost is one thread-local check. Convolutions that run fused with the layers after them, as
/// in inference, are included. A transposed convolution has rows for its passes as its caller sees
/// them: its forward pass is computed as the input gradient of an ordinary convolution.
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
    let (value, log) = observe(body);
    let mut choices: Vec<ConvChoice> = vec![];
    for ((path, operation, convolution), calls) in log.convolutions() {
        choices.push(ConvChoice::new(path, operation, convolution, calls));
    }
    let mut places = HashMap::new();
    for choice in &choices {
        let place = places.len();
        places.entry(choice.path.clone()).or_insert(place);
    }
    let key = |choice: &ConvChoice| (places[&choice.path], choice.pass);
    sort_by(&mut choices, |a, b| key(a).cmp(&key(b)));
    (value, Explanation { choices, instruction_set: instruction_set(), threads: num_threads() })
}

/// Equal calls of one convolution, and the algorithm that computed them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConvChoice {
    /// The path of the layer; empty outside of all layers.
    pub path: String,
    /// The operation, such as `conv2d`.
    pub operation: &'static str,
    /// The pass that was computed.
    pub pass: ConvPass,
    /// The shape of the input, `[N, C, H, W]`; also for one-dimensional convolutions, whose `H` is
    /// 1.
    pub input: [usize; 4],
    /// The shape of the weight: `[C_out, C_in / groups, kH, kW]`, or for a transposed convolution
    /// `[C_in, C_out / groups, kH, kW]`.
    pub weight: [usize; 4],
    /// The shape of the output.
    pub output: [usize; 4],
    /// The step of the kernel along height and width.
    pub stride: [usize; 2],
    /// The number of zeros on each side, along height and width.
    pub padding: [usize; 2],
    /// The distance between neighbouring taps, along height and width.
    pub dilation: [usize; 2],
    /// The number of groups.
    pub groups: usize,
    /// The type of the elements.
    pub dtype: DType,
    /// The requested algorithm: [`Auto`](ConvAlgorithm::Auto), or the one that
    /// [`with_algorithm`](crate::with_algorithm) sets.
    pub asked: ConvAlgorithm,
    /// The algorithm that computed the calls.
    pub ran: ConvAlgorithm,
    /// The algorithms that fit, with estimated costs, the cheapest first. The unit is one
    /// multiplication or addition at the highest speed that the machine reaches. In inference,
    /// weights that are laid out once for many calls count with the cost of reading them.
    pub candidates: Vec<(ConvAlgorithm, f64)>,
    /// The algorithms that do not fit, with the reasons.
    pub unsupported: Vec<(ConvAlgorithm, &'static str)>,
    /// The number of calls.
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
        let mut maps = [(g.channels_in, window.input), (g.channels_out, window.output)].map_each(|(c, [h, w])| [g.batch, c, h, w]);
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

    /// Returns the estimated costs of the algorithms that fit, the cheapest first, as multiples of
    /// the cost of the one that ran, or of the cheapest when the one that ran has no estimate.
    pub fn relative_costs(&self) -> Vec<(ConvAlgorithm, f64)> {
        let ran = self.candidates.iter().find(|(algorithm, _)| *algorithm == self.ran).or(self.candidates.first());
        // The cost of an empty batch is 0.
        let unit = ran.map_or(0.0, |(_, cost)| *cost);
        let relative = |cost: f64| if unit > 0.0 { cost / unit } else { 1.0 };
        self.candidates.iter().map(|&(algorithm, cost)| (algorithm, relative(cost))).collect()
    }

    /// Describes why this algorithm ran.
    fn reason(&self) -> String {
        let asked = self.asked;
        match self.unsupported.iter().find(|(algorithm, _)| *algorithm == asked) {
            Some((_, unsupported_reason)) => format!("not {asked}, as asked: {unsupported_reason}"),
            None if asked == self.ran => "as asked".to_string(),
            None if self.candidates.len() > 1 => "the cheapest".to_string(),
            None => "no other fits".to_string(),
        }
    }

    /// Describes the convolution as `64→128, k3, s2 @56×56 ×16`: channels, kernel, options that are
    /// not 1, size of the input, batch.
    fn geometry(&self) -> String {
        let &ConvChoice { stride, dilation, groups, .. } = self;
        let ([batch, inputs, height, width], [_, outputs, ..], [_, _, kh, kw]) = (self.input, self.output, self.weight);
        let convolution = describe_convolution([inputs, outputs], short_size([kh, kw]), short_size(stride), short_size(dilation), groups);
        let operation = if self.operation == "conv2d" { String::new() } else { format!("{} ", self.operation) };
        let dtype = if self.dtype == DType::F32 { String::new() } else { format!(" {}", self.dtype) };
        format!("{operation}{convolution} @{height}×{width} ×{batch}{dtype}")
    }

    /// Lists the algorithms that fit with their relative costs and, for a 3×3 kernel that
    /// Winograd's algorithms do not fit, the reason.
    fn weighed(&self) -> String {
        let costs = self.relative_costs().iter().map(|(algorithm, cost)| format!("{algorithm} {cost:.2}")).collect::<Vec<_>>().join(", ");
        let winograd = self.unsupported.iter().find(|(algorithm, _)| *algorithm == ConvAlgorithm::Winograd4);
        match winograd.filter(|_| self.weight[2..] == [3, 3]) {
            Some((_, unsupported_reason)) => format!("{costs}; no winograd: {unsupported_reason}"),
            None => costs,
        }
    }
}

/// Describes a convolution as `64→128, k3, s2, d2, g4`, without options that are 1.
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

/// The result of [`explain`]; prints as a table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The choices, by path in the order of first calls; for one path, forward first, then the
    /// gradient of the input, then that of the weight.
    pub choices: Vec<ConvChoice>,
    /// The instruction set that the kernels use.
    pub instruction_set: &'static str,
    /// The number of threads; no choice depends on it.
    pub threads: usize,
}

impl Explanation {
    /// Returns the first row of a pass at a path; there are more when a layer ran in different
    /// ways.
    pub fn get(&self, path: &str, pass: ConvPass) -> Option<&ConvChoice> {
        self.choices.iter().find(|choice| choice.path == path && choice.pass == pass)
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEADS: [&str; 7] = ["path", "pass", "convolution", "calls", "algorithm", "why", "estimated costs"];
        let mut table = vec![HEADS.map_each(String::from)];
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
