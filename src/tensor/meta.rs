//! Shapes without numbers: what a network would compute, and of which size, without computing it.
//!
//! Inside [`run`], whatever builds a tensor gets zeros that nobody writes: memory that the system maps on the first touch, and that is not
//! touched. All else happens as ever: checks, shapes, and, where something wants gradients, the graph, whose nodes get no rules but
//! remember their [`InputExtent`]. So listing the layers of a network takes the time of its bookkeeping, at any size of input.

use std::cell::Cell;

use super::guard::with_value;

/// Places along one side of a map whose [`InputExtent`] is listed, at most.
pub(crate) const MOST_PLACES: usize = 1 << 16;

thread_local! {
    static META: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread computes shapes only.
pub(crate) fn is_meta() -> bool {
    META.get()
}

/// Runs `body` without computing any elements: all that it builds on this thread is zeros. Nothing that comes out may be kept.
pub(crate) fn run<R>(body: impl FnOnce() -> R) -> R {
    with_value(&META, true, body)
}

/// From which places of an operation's input a place of its output is computed, along height and width.
pub(crate) struct InputExtent {
    /// How many places of the input one step in the output is.
    pub(crate) scale: [f64; 2],
    /// The distance between neighbouring places.
    pub(crate) step: [usize; 2],
    /// For each place of the output the first and the last place; they may lie outside the input.
    pub(crate) places: [Vec<[isize; 2]>; 2],
}

impl InputExtent {
    /// Of `count` places of the output each, with the places that `of` tells, every one of them.
    pub(crate) fn new(count: [usize; 2], scale: [f64; 2], of: impl Fn(usize, isize) -> [isize; 2]) -> InputExtent {
        InputExtent { scale, step: [1, 1], places: [0, 1].map(|axis| (0..count[axis] as isize).map(|at| of(axis, at)).collect()) }
    }
}
