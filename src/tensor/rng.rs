//! This thread's generator, and the mappings from its bits to numbers.
//!
//! The generator is ChaCha8 with an explicit seed: its stream of bits is part of the algorithm's
//! definition. How bits become seeds and numbers is written here, since `rand` does not promise its
//! own mappings from one release to the next: a seed gives the same numbers in every release. Each
//! thread has its own generator; without [`manual_seed`] it starts from the system's entropy.

use std::cell::RefCell;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

thread_local! {
    static GENERATOR: RefCell<ChaCha8Rng> = RefCell::new(ChaCha8Rng::from_rng(&mut rand::rng()));
}

/// Makes everything random on this thread repeat from here: initial weights, dropout, [`Tensor::randn`](crate::Tensor::randn).
///
/// ```
/// use convnet::Tensor;
///
/// convnet::manual_seed(42);
/// let a = Tensor::randn([3]).to_vec::<f32>()?;
/// convnet::manual_seed(42);
/// assert_eq!(a, Tensor::randn([3]).to_vec::<f32>()?);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn manual_seed(seed: u64) {
    GENERATOR.set(seeded(seed));
}

/// Runs `body` with this thread's generator.
pub(crate) fn with_generator<R>(body: impl FnOnce(&mut ChaCha8Rng) -> R) -> R {
    GENERATOR.with_borrow_mut(body)
}

/// Returns a copy of this thread's generator in its present state.
pub(crate) fn generator() -> ChaCha8Rng {
    with_generator(|generator| generator.clone())
}

/// Runs `body` with this thread's generator in the given state, then restores the earlier state.
pub(crate) fn with_generator_at<R>(state: &ChaCha8Rng, body: impl FnOnce() -> R) -> R {
    struct Restore(ChaCha8Rng);
    impl Drop for Restore {
        fn drop(&mut self) {
            GENERATOR.set(self.0.clone());
        }
    }
    let _restore = Restore(GENERATOR.replace(state.clone()));
    body()
}

/// Returns a generator that starts from a small seed, expanded to a key by a PCG32 of 64 bits of state
/// (O'Neill, 2014), as `seed_from_u64` of `rand_core` 0.10 does.
pub(crate) fn seeded(seed: u64) -> ChaCha8Rng {
    let (mut key, mut state) = ([0; 32], seed);
    for part in key.as_chunks_mut::<4>().0 {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0xA176_54E4_6FBE_17F3);
        let bits = (((state >> 18) ^ state) >> 27) as u32;
        *part = bits.rotate_right((state >> 59) as u32).to_le_bytes();
    }
    ChaCha8Rng::from_seed(key)
}

/// Returns a number uniform in `[0, 1)` with 53 bits.
pub(crate) fn unit(generator: &mut ChaCha8Rng) -> f64 {
    (generator.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Returns a number uniform in `[0, 1)` with 24 bits, all that an `f32` in that interval takes.
pub(crate) fn short_unit(generator: &mut ChaCha8Rng) -> f64 {
    f64::from(generator.next_u32() >> 8) / f64::from(1 << 24)
}

/// Returns a number uniform in `0..bound`; 0 when the bound is 0 or 1.
pub(crate) fn below(generator: &mut ChaCha8Rng, bound: u64) -> u64 {
    if bound < 2 {
        return 0;
    }
    // Lemire's multiplication (2019): the upper half is uniform once the lower halves that occur one
    // time more often than the others are rejected.
    let threshold = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(generator.next_u64()) * u128::from(bound);
        if product as u64 >= threshold {
            return (product >> 64) as u64;
        }
    }
}

/// Fills with numbers uniform in `[0, 1)`.
pub(crate) fn fill_uniform(generator: &mut ChaCha8Rng, out: &mut [f64]) {
    out.iter_mut().for_each(|x| *x = unit(generator));
}

/// Fills with standard normal numbers, by Marsaglia's polar method.
pub(crate) fn fill_normal(generator: &mut ChaCha8Rng, out: &mut [f64]) {
    // Uniform in [-1, 1) with 52 bits.
    let signed_unit = |generator: &mut ChaCha8Rng| (generator.next_u64() >> 12) as f64 / (1u64 << 51) as f64 - 1.0;
    for pair in out.chunks_mut(2) {
        let (u, v, s) = loop {
            let (u, v) = (signed_unit(generator), signed_unit(generator));
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                break (u, v, s);
            }
        };
        let scale = (-2.0 * s.ln() / s).sqrt();
        pair[0] = u * scale;
        if let Some(second) = pair.get_mut(1) {
            *second = v * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Pinned: a change of these numbers would change every seeded run. Those of `seeded`, `unit`,
    // `short_unit` and `fill_normal` are what rand 0.10.4 and rand_chacha 0.10.0 gave, by
    // `seed_from_u64`, `random::<f64>()`, `next_u32() >> 8` and `random_range(-1.0..1.0)`.

    #[test]
    fn seeds_give_pinned_streams() {
        let first = |seed| seeded(seed).next_u64();
        assert_eq!(
            [first(0), first(42), first(u64::MAX)],
            [13_080_132_717_333_068_652, 12_578_764_544_318_200_737, 12_619_125_218_144_107_694]
        );
    }

    #[test]
    fn uniform_numbers_are_pinned() {
        let mut numbers = [0.0; 3];
        fill_uniform(&mut seeded(42), &mut numbers);
        assert_eq!(numbers, [0.6818961923066714, 0.950275407672484, 0.4275164028565197]);
        let mut generator = seeded(42);
        let numbers = [short_unit(&mut generator), short_unit(&mut generator)];
        assert_eq!(numbers.map(|number| number * f64::from(1 << 24)), [3_759_451.0, 11_440_319.0]);
    }

    #[test]
    fn numbers_below_a_bound_are_pinned_and_evenly_spread() {
        let mut generator = seeded(42);
        assert_eq!([10, 1000, u64::MAX, 0, 1].map(|bound| below(&mut generator, bound)), [6, 950, 7_886_285_670_807_131_019, 0, 0]);
        let mut counts = [0; 7];
        (0..70_000).for_each(|_| counts[below(&mut generator, 7) as usize] += 1);
        // A count's standard deviation is √(70000 · 1/7 · 6/7) ≈ 93; six of them are never seen.
        assert!(counts.iter().all(|&count: &i32| (count - 10_000).abs() < 560), "{counts:?}");
    }

    #[test]
    fn normal_numbers_are_pinned() {
        let mut numbers = [0.0; 3];
        fill_normal(&mut seeded(42), &mut numbers);
        // The logarithm is the platform's, which may differ in the last bit.
        for (found, pinned) in numbers.iter().zip([0.1279348383147464, 0.3166966320029613, -1.095928063849364]) {
            assert!((found - pinned).abs() < 1e-14, "{numbers:?}");
        }
    }
}
