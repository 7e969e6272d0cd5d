//! Attention's end: each channel times its factor, and what follows, while the row is in the cache.

use super::epilogue::Epilogue;
use crate::kernels::runtime::parallel;
use crate::kernels::runtime::simd::{Real, vectorize};

/// Elements that one task handles.
const GRAIN: usize = 8 * 1024;
/// Elements that are multiplied before the epilogue comes to them: they stay in the first cache.
const PIECE: usize = 1024;

/// `y = activation(y · gate + residual)` for `y` `[outer, repeats, inner]`, none of them 0, and a gate `[outer, inner]`; the epilogue has no bias.
///
/// Each product and sum is rounded by itself, so that the result is that of the operations one after the other.
pub fn gate<T: Real>([outer, repeats, inner]: [usize; 3], y: &mut [T], gate: &[T], epilogue: Epilogue<'_, T>) {
    assert!(y.len() == outer * repeats * inner && gate.len() == outer * inner && epilogue.bias.is_none());
    assert!(epilogue.residual.is_none_or(|residual| residual.len() == y.len()));
    let piece = (PIECE / inner).max(1);
    let task = piece * (GRAIN / (piece * inner)).max(1);
    let work = y.len() * (1 + epilogue.activation.cost());
    parallel::chunks_mut(y, task * inner, work, |i, y| {
        vectorize::<T, _>(
            #[inline(always)]
            || {
                for (j, y) in y.chunks_mut(piece * inner).enumerate() {
                    let first = i * task + j * piece;
                    for (row, y) in y.chunks_exact_mut(inner).enumerate() {
                        let gate = &gate[(first + row) / repeats * inner..][..inner];
                        for (y, &gate) in y.iter_mut().zip(gate) {
                            *y *= gate;
                        }
                    }
                    epilogue.finish(first * inner, y);
                }
            },
        );
    });
}
