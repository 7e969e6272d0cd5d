//! This thread's generator, and normal and uniform numbers from it.
//!
//! ChaCha8 with an explicit seed: the stream is part of the algorithm's definition, so a seed gives the same numbers in every release and on
//! every machine. Each thread has a generator of its own; without [`manual_seed`] it starts from the system's entropy.

use std::cell::RefCell;

use rand::{RngExt, SeedableRng};
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
    GENERATOR.set(ChaCha8Rng::seed_from_u64(seed));
}

/// Runs `body` with this thread's generator.
pub(crate) fn with_generator<R>(body: impl FnOnce(&mut ChaCha8Rng) -> R) -> R {
    GENERATOR.with_borrow_mut(body)
}

/// This thread's generator as it stands.
pub(crate) fn generator() -> ChaCha8Rng {
    with_generator(|generator| generator.clone())
}

/// Runs `body` with this thread's generator standing there, then puts it back to where it was.
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

/// Fills with numbers uniform in `[0, 1)`.
pub(crate) fn fill_uniform(generator: &mut ChaCha8Rng, out: &mut [f64]) {
    out.iter_mut().for_each(|x| *x = generator.random());
}

/// Fills with standard normal numbers, by Marsaglia's polar method.
pub(crate) fn fill_normal(generator: &mut ChaCha8Rng, out: &mut [f64]) {
    for pair in out.chunks_mut(2) {
        let (u, v, s) = loop {
            let (u, v) = (generator.random_range(-1.0..1.0f64), generator.random_range(-1.0..1.0f64));
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
