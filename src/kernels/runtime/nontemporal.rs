//! Non-temporal stores: writes that bypass the cache.
//!
//! A store to memory that is not in the cache first fetches the line, only to overwrite it: a third
//! of the traffic of `y = f(x)`. A result that is too large to still be in the cache when it is
//! read next is therefore computed in small pieces in the innermost cache, and copied from there
//! with stores that fetch nothing. The pieces are so small that loads of one piece overlap with
//! stores of the previous one. A GEMM register tile writes its vectors directly with such stores.

use bytemuck::Pod;

use super::simd::Scalar;
use crate::kernels::runtime::arrays::MapEach;

/// The size in bytes from which results are streamed: about a core's share of the last-level cache.
const LARGE: usize = 16 << 20;
/// The number of elements of a piece.
const PIECE: usize = 128;

/// The number of bytes of a cache line.
#[cfg(all(target_arch = "x86_64", not(miri)))]
const LINE: usize = 64;

/// Returns whether streaming is worthwhile for a result of `length` elements.
pub fn pays<T>(length: usize) -> bool {
    cfg!(all(target_arch = "x86_64", not(miri))) && length.saturating_mul(size_of::<T>()) >= LARGE
}

/// Writes a vector without fetching its cache lines, if the processor supports it. A [`fence`] is
/// required before another thread reads the vector.
///
/// # Safety
/// `to` must be writable for a vector and aligned to its size; the processor must have the
/// instruction set that the vector belongs to.
#[inline(always)]
pub(crate) unsafe fn store<V: Pod>(to: *mut V, vector: V) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: by this function's contract; a vector of 64 bytes exists with AVX-512 only, one of 32
    // with AVX.
    unsafe {
        use std::arch::x86_64::{__m256i, __m512i, _mm256_stream_si256, _mm512_stream_si512};
        match size_of::<V>() {
            64 => return _mm512_stream_si512(to.cast(), std::mem::transmute_copy::<V, __m512i>(&vector)),
            32 => return _mm256_stream_si256(to.cast(), std::mem::transmute_copy::<V, __m256i>(&vector)),
            _ => {}
        }
    }
    // SAFETY: by this function's contract.
    unsafe { to.write_unaligned(vector) };
}

/// Orders this thread's streamed stores before all its later stores, as ordinary stores are
/// ordered.
#[inline(always)]
pub(crate) fn fence() {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a fence has no operands; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Copies without fetching the target's cache lines. A [`fence`] is required before another thread
/// reads the target.
#[inline(always)]
pub fn copy<T: Scalar>(from: &[T], to: &mut [T]) {
    copy_bytes(bytemuck::cast_slice(from), bytemuck::cast_slice_mut(to));
}

fn copy_bytes(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len());
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
        let head = to.as_ptr().align_offset(size_of::<__m128i>()).min(to.len());
        let whole = (to.len() - head) / LINE * LINE;
        to[..head].copy_from_slice(&from[..head]);
        for at in (head..head + whole).step_by(LINE) {
            // SAFETY: `at + LINE <= head + whole <= len` of both, and `to + at` is aligned to 16
            // bytes. SSE2 is part of x86-64.
            unsafe {
                let (from, to) = (from.as_ptr().add(at).cast::<__m128i>(), to.as_mut_ptr().add(at).cast::<__m128i>());
                let line = [0, 1, 2, 3].map_each(|i| _mm_loadu_si128(from.add(i)));
                (0..4).for_each(|i| _mm_stream_si128(to.add(i), line[i]));
            }
        }
        to[head + whole..].copy_from_slice(&from[head + whole..]);
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    to.copy_from_slice(from);
}

/// Runs `body(at, piece)` for all pieces of `y`, each starting at element `at`; the results bypass
/// the cache if `streamed`.
pub fn in_pieces<T: Scalar>(y: &mut [T], streamed: bool, body: &mut dyn FnMut(usize, &mut [T])) {
    if !streamed {
        return body(0, y);
    }
    let mut scratch = [T::default(); PIECE];
    for (i, y) in y.chunks_mut(PIECE).enumerate() {
        let piece = &mut scratch[..y.len()];
        body(i * PIECE, piece);
        copy(piece, y);
    }
    fence();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_writes_every_byte_at_any_alignment_and_length() {
        let from: Vec<u8> = (0..200).map(|i| i as u8).collect();
        for start in 0..20 {
            for length in [0, 1, 5, 15, 16, 17, 31, 64, 150] {
                let mut to = [255; 200];
                copy(&from[3..3 + length], &mut to[start..start + length]);
                fence();
                assert_eq!(to[start..start + length], from[3..3 + length]);
                assert!(to[..start].iter().chain(&to[start + length..]).all(|&byte| byte == 255));
            }
        }
    }

    #[test]
    fn pieces_are_written_in_order() {
        for streamed in [false, true] {
            let mut y = vec![0f64; 3 * PIECE + 7];
            in_pieces(&mut y, streamed, &mut |at, piece| piece.iter_mut().enumerate().for_each(|(i, y)| *y = (at + i) as f64));
            assert!(y.iter().enumerate().all(|(i, &y)| y == i as f64));
        }
    }
}
