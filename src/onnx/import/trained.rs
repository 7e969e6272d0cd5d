//! Which initialisers are parameters and which are buffers.

use std::collections::HashSet;

use super::graph::{Entry, Graph, Source, Step};
use crate::nn::{Buffer, Parameter};
use crate::onnx::element::Value;

/// The inputs of operators on which networks have weights: what they multiply with or add, and
/// tables.
const TRAINED: &[(&str, &[usize])] = &[
    ("Conv", &[1, 2]),
    ("ConvTranspose", &[1, 2]),
    ("Gemm", &[0, 1, 2]),
    ("MatMul", &[0, 1]),
    ("Add", &[0, 1]),
    ("Mul", &[0, 1]),
    ("Sum", ALL),
    ("Einsum", ALL),
    ("Gather", &[0]),
    ("PRelu", &[1]),
    ("BatchNormalization", &[1, 2]),
    ("InstanceNormalization", &[1, 2]),
    ("GroupNormalization", &[1, 2]),
    ("LayerNormalization", &[1, 2]),
    ("RMSNormalization", &[1]),
];

/// Operators that hand elements on, to places or a number of copies that may depend on the
/// network's inputs: a token for each image, the part of a table of positions.
const HANDED_ON: &[(&str, &[usize])] = &[
    ("Concat", ALL),
    ("Expand", &[0]),
    ("Pad", &[0]),
    ("Reshape", &[0]),
    ("Resize", &[0]),
    ("Slice", &[0]),
    ("Tile", &[0]),
    ("Upsample", &[0]),
];

/// Operators without a gradient for their first input, and those that change the type of stored
/// numbers, which are not trained in the type before.
const STOPPED: &[&str] = &[
    "ArgMax",
    "ArgMin",
    "Cast",
    "CastLike",
    "Ceil",
    "DequantizeLinear",
    "Equal",
    "Floor",
    "Greater",
    "GreaterOrEqual",
    "IsInf",
    "IsNaN",
    "Less",
    "LessOrEqual",
    "NonMaxSuppression",
    "NonZero",
    "OneHot",
    "QuantizeLinear",
    "Range",
    "Round",
    "Shape",
    "Sign",
    "Size",
];

const ALL: &[usize] = &[];

fn lists(table: &[(&str, &[usize])], op: &str, input: usize) -> bool {
    table.iter().any(|&(name, inputs)| name == op && (inputs.is_empty() || inputs.contains(&input)))
}

/// What is known of the values of a graph, by their numbers.
#[derive(Default)]
struct Values {
    /// Those that depend on an input of the network.
    data: HashSet<usize>,
    /// Those of which gradients reach an operator's weight.
    trained: HashSet<usize>,
    /// The running means and variances.
    statistics: HashSet<usize>,
}

impl Values {
    /// Finds the values that depend on the network's inputs, in the order of the steps.
    fn follow_data(&mut self, steps: &[Step]) {
        for step in steps {
            let mut reads: Vec<usize> = step.node().inputs.iter().flatten().copied().collect();
            if let Step::If { branches, .. } = step {
                for branch in branches.iter() {
                    self.follow_data(&branch.steps);
                    reads.extend(branch.outputs.iter().flatten());
                }
            }
            if reads.iter().any(|slot| self.data.contains(slot)) {
                self.data.extend(step.node().outputs.iter().flatten());
            }
        }
    }

    /// Finds the values that are trained, from the last step to the first: those that operators on
    /// the network's data use as weights, and those that become such by operators on weights alone.
    fn follow_weights(&mut self, steps: &[Step]) {
        for step in steps.iter().rev() {
            let node = step.node();
            let used = node.outputs.iter().flatten().any(|slot| self.trained.contains(slot));
            if let Step::If { branches, .. } = step {
                for branch in branches.iter() {
                    if used {
                        self.trained.extend(branch.outputs.iter().flatten());
                    }
                    self.follow_weights(&branch.steps);
                }
                continue;
            }
            let on_data = node.inputs.iter().flatten().any(|slot| self.data.contains(slot));
            for (input, &slot) in node.inputs.iter().enumerate().filter_map(|(input, slot)| Some((input, slot.as_ref()?))) {
                let listed = lists(TRAINED, &node.op, input);
                let of_weights = !on_data && (listed || input == 0 && !STOPPED.contains(&node.op.as_str()));
                if on_data && listed || used && (of_weights || lists(HANDED_ON, &node.op, input)) {
                    self.trained.insert(slot);
                } else if node.op == "BatchNormalization" && input >= 3 {
                    self.statistics.insert(slot);
                }
            }
        }
    }
}

/// The parameters and the buffers of a network, with their names.
type Owned = (Vec<(String, Parameter)>, Vec<(String, Buffer)>);

/// Makes parameters of the initialisers that are trained, and buffers of running statistics.
pub(super) fn adopt(graph: &mut Graph) -> Owned {
    let mut values = Values { data: graph.inputs.iter().map(|&(_, slot)| slot).collect(), ..Default::default() };
    values.follow_data(&graph.steps);
    values.follow_weights(&graph.steps);
    let (mut parameters, mut buffers) = (vec![], vec![]);
    for (slot, Entry { name, source }) in graph.values.iter_mut().enumerate() {
        let Source::Constant(Value { tensor, element }) = source else { continue };
        if !element.is_float() || tensor.ndim() == 0 {
            continue;
        }
        if values.trained.contains(&slot) {
            parameters.push((name.clone(), Parameter::new(tensor.clone())));
            *source = Source::Parameter(parameters.len() - 1);
        } else if values.statistics.contains(&slot) {
            buffers.push((name.clone(), Buffer::new(tensor.clone())));
            *source = Source::Buffer(buffers.len() - 1);
        }
    }
    (parameters, buffers)
}
