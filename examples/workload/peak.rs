//! How fast the machine multiplies and adds in registers: what no kernel can exceed without doing
//! less work.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};

/// Sums that do not wait for each other: as many as the latency of two units takes, and no more
/// than 16 registers hold.
const CHAINS: usize = 12;
/// Steps of each, for some milliseconds.
const STEPS: usize = 1 << 20;

/// Billions of floating-point operations in a second, on `threads` threads at once, with the
/// instruction set that the crate uses.
pub fn peak(threads: usize) -> f64 {
    let together = Barrier::new(threads);
    let one = || {
        together.wait();
        let start = Instant::now();
        let operations = arch().dispatch(MultiplyAdd);
        1e-9 * operations as f64 / start.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(one)).collect();
        one() + others.into_iter().map(|other| other.join().expect("nothing in it panics")).sum::<f64>()
    })
}

/// The instruction set that the crate uses, which `CONVNET_ISA` may have capped.
fn arch() -> Arch {
    match convnet::instruction_set() {
        "portable" => Arch::Scalar,
        #[cfg(target_arch = "x86_64")]
        "AVX2" => pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3),
        _ => Arch::new(),
    }
}

struct MultiplyAdd;

impl WithSimd for MultiplyAdd {
    type Output = usize;

    /// Runs all steps and returns the number of floating-point operations.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        // The values tend to 1, so that none becomes subnormal, which would be slow.
        let [factor, addend] = black_box([0.75f32, 0.25]).map(|x| simd.splat_f32s(x));
        let mut sums = [simd.splat_f32s(black_box(0.5)); CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, addend);
            }
        }
        let total = sums.into_iter().map(|sum| simd.reduce_sum_f32s(sum)).sum::<f32>();
        black_box(total);
        2 * STEPS * CHAINS * (size_of::<S::f32s>() / size_of::<f32>())
    }
}
