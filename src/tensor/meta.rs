//! Meta runs: compute the shapes of a network's results without computing their elements.
//!
//! Inside [`run`], each function that makes a tensor returns zeros that are never written and that
//! take no memory until they are read. Everything else happens as usual: checks, shapes and, where
//! gradients are required, the graph, whose nodes get no rules but store their [`InputExtent`]. So
//! listing the layers of a network takes only the time of this bookkeeping, at any size of input.

use std::cell::Cell;

use super::guard::with_value;
use crate::kernels::runtime::arrays::MapEach;

/// The largest number of positions along one side of a map whose [`InputExtent`] is listed.
pub(crate) const MOST_PLACES: usize = 1 << 16;

thread_local! {
    static META: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread computes shapes only.
pub(crate) fn is_meta() -> bool {
    META.get()
}

/// Runs `body` without computing any elements: each tensor that it makes on this thread is zeros.
/// No result may be kept.
pub(crate) fn run<R>(body: impl FnOnce() -> R) -> R {
    with_value(&META, true, body)
}

/// Runs `body` with elements inside a meta run: what is computed from shapes alone.
#[cfg(feature = "onnx")]
pub(crate) fn pause<R>(body: impl FnOnce() -> R) -> R {
    with_value(&META, false, body)
}

/// Returns height and width: the last two dimensions of four or more; `[1, L]` of `[N, C, L]`.
pub(crate) fn map_size(shape: &[usize]) -> Option<[usize; 2]> {
    match *shape {
        [_, _, length] => Some([1, length]),
        [_, _, .., height, width] => Some([height, width]),
        _ => None,
    }
}

/// The positions of an input from which each position of an operation's output is computed, along
/// height and width.
pub(crate) struct InputExtent {
    /// The number of input positions that one step in the output moves.
    pub(crate) scale: [f64; 2],
    /// The distance between neighbouring positions of one window.
    pub(crate) step: [usize; 2],
    /// For each output position the first and the last input position; they may be outside the
    /// input.
    pub(crate) places: [Vec<[isize; 2]>; 2],
}

impl InputExtent {
    /// Makes the extent of an output of size `count` whose position `at` along an axis reads
    /// `of(axis, at)`, without gaps.
    pub(crate) fn new(count: [usize; 2], scale: [f64; 2], of: impl Fn(usize, isize) -> [isize; 2]) -> InputExtent {
        InputExtent { scale, step: [1, 1], places: [0, 1].map_each(|axis| (0..count[axis] as isize).map(|at| of(axis, at)).collect()) }
    }

    /// Makes the extent of an output of this shape whose position `p` reads position `p + shift`;
    /// `None` (the whole input) when the output has no height and width.
    pub(crate) fn shifted(output: &[usize], shift: [isize; 2]) -> Option<InputExtent> {
        Some(InputExtent::new(map_size(output)?, [1.0, 1.0], |axis, at| [at + shift[axis]; 2]))
    }

    /// Makes the extent of an operation that mixes all positions along one dimension: pointwise
    /// when that is neither height nor width, `None` (the whole input) otherwise.
    pub(crate) fn along(output: &[usize], axis: usize) -> Option<InputExtent> {
        let of_map = axis > 1 && axis + 2 >= output.len();
        if of_map { None } else { InputExtent::shifted(output, [0, 0]) }
    }
}

/// The positions of its inputs from which a node's output is computed; known in meta runs.
pub(crate) enum NodeExtent {
    Pointwise,
    /// For each input; `None` for an input that is read as a whole.
    Windows(Vec<Option<InputExtent>>),
    Global,
}
