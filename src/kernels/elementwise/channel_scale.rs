//! The last step of channel attention: multiplies each channel by its factor and applies the
//! epilogue while the row is in the cache.

use super::epilogue::Epilogue;
use crate::kernels::runtime::parallel;
use crate::kernels::runtime::simd::{Real, for_pairs, vectorize};

/// The number of elements that one task handles.
const GRAIN: usize = 8 * 1024;
/// The number of elements that are multiplied before the epilogue is applied to them; they stay in
/// the L1 cache.
const PIECE: usize = 1024;

/// Computes `y = activation(y · scale + residual)` for `y` `[outer, repeats, inner]`, none of them
/// 0, and a scale `[outer, inner]`; the epilogue has no bias.
///
/// Each product and sum is rounded separately, so the result is identical to that of the separate
/// operations.
pub fn apply<T: Real>([outer, repeats, inner]: [usize; 3], y: &mut [T], scale: &[T], epilogue: Epilogue<'_, T>) {
    assert!(y.len() == outer * repeats * inner && scale.len() == outer * inner && epilogue.bias.is_none());
    assert!(epilogue.residual.is_none_or(|residual| residual.len() == y.len()));
    let piece = (PIECE / inner).max(1);
    let task = piece * (GRAIN / (piece * inner)).max(1);
    let work = y.len() * (1 + epilogue.activation.cost());
    parallel::chunks_mut(y, task * inner, work, |i, y| {
        vectorize!(T, {
            for (j, y) in y.chunks_mut(piece * inner).enumerate() {
                let first = i * task + j * piece;
                for (row, y) in y.chunks_exact_mut(inner).enumerate() {
                    let scale = &scale[(first + row) / repeats * inner..][..inner];
                    for_pairs(y, scale, |y, scale| *y *= scale);
                }
                epilogue.finish(first * inner, y);
            }
        });
    });
}
