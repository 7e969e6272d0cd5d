//! Block smoothing: the estimate of libjpeg-turbo 3 for coefficients that a progressive file's
//! scans have not given (`jdcoefct.c`; after T.81, annex K.8, on 5×5 blocks).
//!
//! The first coefficients of a block and of its neighbours are the levels of a surface. Its slopes
//! and curvatures estimate the low frequencies that are still zero and not known to be exact. While
//! only first coefficients are known, the level itself is smoothed too.

use super::{Component, Frame, ZIGZAG};
use crate::kernels::runtime::arrays::MapEach;

/// The last coefficient, in the file's order, that is estimated.
const LAST: usize = 9;

/// How exactly a component's coefficients are known: the position of the last bit received, by
/// coefficient in the file's order, and -1 before any. Also before the latest scan.
#[derive(Clone)]
pub(super) struct Precision {
    now: [i32; 64],
    before: [i32; 64],
}

impl Default for Precision {
    fn default() -> Precision {
        Precision { now: [-1; 64], before: [-1; 64] }
    }
}

impl Precision {
    /// Records the scan with this number, the first being 1.
    pub(super) fn update(&mut self, number: usize, [start, end]: [usize; 2], low: u32) {
        for k in start.min(1)..=end.max(LAST) {
            self.before[k] = if number > 1 { self.now[k] } else { 0 };
        }
        self.now[start..=end].fill(low as i32);
    }
}

/// Returns whether a file is smoothed: each component's level is known, some coefficient is not,
/// and the quantisation tables allow it.
pub(super) fn is_useful(frame: &Frame) -> bool {
    let ready = |component: &Component| {
        let steps = component.quantisation.is_some_and(|table| (0..=LAST).all(|k| table[usize::from(ZIGZAG[k])] != 0));
        steps && component.precision.now[0] >= 0
    };
    frame.progressive
        && frame.components.iter().all(ready)
        && frame.components.iter().any(|component| component.precision.now[1..=LAST].iter().any(|&bit| bit != 0))
}

/// Replaces a component's coefficients by smoothed ones. `rows` is the number of rows of units,
/// `last_good` the last one that the latest scan had data for, `scans` the number of scans.
pub(super) fn smooth(component: &mut Component, rows: usize, last_good: usize, scans: usize) {
    let Some(table) = component.quantisation else { return };
    let levels: Vec<i16> = component.coefficients.iter().map(|block| block[0]).collect();
    let stride = component.blocks[0];
    let (width, height) = (component.width.div_ceil(8), component.height.div_ceil(8));
    let factor = component.sampling[1];
    for unit in 0..rows {
        let mut bits = component.precision.now;
        if unit > last_good {
            bits = if scans > 1 { component.precision.before } else { [-1; 64] };
        }
        let level_too = bits[1..=LAST].iter().all(|&bit| bit == -1);
        let in_unit = if unit + 1 < rows { factor } else { (height + factor - 1) % factor + 1 };
        for y in 0..in_unit {
            // Rows are counted as libjpeg counts them, which is off in a last unit that is not
            // full.
            let (number, count, row) = (unit * in_unit + y, rows * in_unit, unit * factor + y);
            let above = row - usize::from(number > 0);
            let below = row + usize::from(number + 1 < count);
            let near = [if number > 1 { row - 2 } else { above }, above, row, below, if number + 2 < count { row + 2 } else { below }];
            for x in 0..width {
                let columns = [x.saturating_sub(2), x.saturating_sub(1), x, (x + 1).min(width - 1), (x + 2).min(width - 1)];
                let window = near.map_each(|row| columns.map_each(|column| i64::from(levels[row * stride + column])));
                estimate(&mut component.coefficients[row * stride + x], &window, &table, &bits, level_too);
            }
        }
    }
}

/// Weights of a 5×5 window, in 256ths.
type Kernel = [[i64; 5]; 5];

/// The kernels of coefficients 1 to 9 in the file's order, where the level is smoothed too.
#[rustfmt::skip]
const WITH_LEVEL: [Kernel; LAST] = [
    [[-1, -1, 0, 1, 1], [-3, 13, 0, -13, 3], [-3, 38, 0, -38, 3], [-3, 13, 0, -13, 3], [-1, -1, 0, 1, 1]],
    [[-1, -3, -3, -3, -1], [-1, 13, 38, 13, -1], [0; 5], [1, -13, -38, -13, 1], [1, 3, 3, 3, 1]],
    [[0, 0, 1, 0, 0], [0, 2, 7, 2, 0], [0, -5, -14, -5, 0], [0, 2, 7, 2, 0], [0, 0, 1, 0, 0]],
    [[-1, 0, 0, 0, 1], [0, 9, 0, -9, 0], [0; 5], [0, -9, 0, 9, 0], [1, 0, 0, 0, -1]],
    [[0; 5], [0, 2, -5, 2, 0], [1, 7, -14, 7, 1], [0, 2, -5, 2, 0], [0; 5]],
    [[0; 5], [0, 1, 0, -1, 0], [0, 2, 0, -2, 0], [0, 1, 0, -1, 0], [0; 5]],
    [[0; 5], [0, 1, -3, 1, 0], [0; 5], [0, -1, 3, -1, 0], [0; 5]],
    [[0; 5], [0, 1, 0, -1, 0], [0, -3, 0, 3, 0], [0, 1, 0, -1, 0], [0; 5]],
    [[0; 5], [0, 1, 2, 1, 0], [0; 5], [0, -1, -2, -1, 0], [0; 5]],
];

/// The kernels of coefficients 1 to 5 where it is not.
#[rustfmt::skip]
const WITHOUT_LEVEL: [Kernel; 5] = [
    [[0; 5], [0; 5], [-7, 50, 0, -50, 7], [0; 5], [0; 5]],
    [[0, 0, -7, 0, 0], [0, 0, 50, 0, 0], [0; 5], [0, 0, -50, 0, 0], [0, 0, 7, 0, 0]],
    [[0, 0, -1, 0, 0], [0, 0, 13, 0, 0], [0, 0, -24, 0, 0], [0, 0, 13, 0, 0], [0, 0, -1, 0, 0]],
    [[0, -1, 0, 1, 0], [-1, 10, 0, -10, 1], [0; 5], [1, -10, 0, 10, -1], [0, 1, 0, -1, 0]],
    [[0; 5], [0; 5], [-1, 13, -24, 13, -1], [0; 5], [0; 5]],
];

const LEVEL: Kernel = [[-2, -6, -8, -6, -2], [-6, 6, 42, 6, -6], [-8, 42, 152, 42, -8], [-6, 6, 42, 6, -6], [-2, -6, -8, -6, -2]];

fn estimate(block: &mut [i16; 64], window: &Kernel, table: &[u16; 64], bits: &[i32; 64], level_too: bool) {
    let value = |kernel: &Kernel, step: u16| {
        let products = kernel.as_flattened().iter().zip(window.as_flattened());
        let sum = i64::from(table[0]) * products.map(|(weight, level)| weight * level).sum::<i64>();
        let size = ((i64::from(step) << 7) + sum.abs()) / (i64::from(step) << 8);
        (size, sum.signum())
    };
    let kernels = if level_too { &WITH_LEVEL[..] } else { &WITHOUT_LEVEL[..] };
    for (k, kernel) in (1..).zip(kernels) {
        if bits[k] != 0 && block[k] == 0 {
            let (mut size, sign) = value(kernel, table[usize::from(ZIGZAG[k])]);
            if bits[k] > 0 {
                // Larger ones would have shown in the bits received.
                size = size.min((1 << bits[k]) - 1);
            }
            block[k] = (sign * size) as i16;
        }
    }
    if level_too {
        let (size, sign) = value(&LEVEL, table[0]);
        block[0] = (sign * size) as i16;
    }
}
