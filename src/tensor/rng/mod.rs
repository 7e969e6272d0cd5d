//! This thread's generator, and the mappings from its bits to numbers.
//!
//! The generator is ChaCha8 with an explicit seed: its stream of bits is part of the algorithm's
//! definition. How bits become seeds and numbers is written here, since `rand` does not promise its
//! own mappings from one release to the next: a seed gives the same numbers in every release. Each
//! thread has its own generator: [`manual_seed`] seeds this thread's, [`manual_seed_all`] those of
//! the whole program. Without either it starts from the system's entropy.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

/// The program's seed, once it is set, and the number of streams that threads have taken from it.
static PROGRAM: Mutex<Option<(u64, u64)>> = Mutex::new(None);
/// Increases with each call of [`manual_seed_all`].
static EPOCH: AtomicU64 = AtomicU64::new(0);
/// The epoch of a generator that [`with_generator_at`] lends: the program's seed does not replace
/// it.
const LENT: u64 = u64::MAX;

struct Generator {
    rng: ChaCha8Rng,
    /// The value of [`EPOCH`] when the generator was seeded, or [`LENT`].
    epoch: u64,
}

impl Generator {
    /// Makes the generator of a thread that draws for the first time.
    fn new() -> Generator {
        Generator::of_program().unwrap_or_else(|| Generator { rng: ChaCha8Rng::from_rng(&mut rand::rng()), epoch: 0 })
    }

    /// Takes the next stream of the program's seed, if there is one.
    fn of_program() -> Option<Generator> {
        let mut program = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
        let (seed, streams) = program.as_mut()?;
        let mut rng = seeded(*seed);
        *streams += 1;
        rng.set_stream(*streams);
        Some(Generator { rng, epoch: EPOCH.load(Ordering::Relaxed) })
    }

    /// Replaces the generator by a stream of the program's seed when that seed is newer.
    fn update(&mut self) {
        if self.epoch != LENT
            && self.epoch != EPOCH.load(Ordering::Relaxed)
            && let Some(newer) = Generator::of_program()
        {
            *self = newer;
        }
    }
}

thread_local! {
    /// `None` until this thread draws: only threads that draw take a stream of the program's seed.
    static GENERATOR: RefCell<Option<Generator>> = const { RefCell::new(None) };
}

/// Seeds this thread's generator, so that everything random on this thread can be repeated from
/// here, such as initial weights, dropout and [`Tensor::randn`](crate::Tensor::randn). Other
/// threads' generators stay as they are; [`manual_seed_all`] seeds those as well.
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
    let epoch = EPOCH.load(Ordering::Relaxed);
    GENERATOR.set(Some(Generator { rng: seeded(seed), epoch }));
}

/// Seeds the generators of the whole program: this thread's as [`manual_seed`] does, and those of
/// all other threads, whether they run already or start later, as of their next random number.
///
/// Each of the other threads gets a stream that differs from all others'. The streams are assigned
/// in the order in which the threads first draw after this call. Where that order is not fixed, as
/// in a rayon pool, seed each piece of work with [`manual_seed`] instead. A later [`manual_seed`]
/// on a thread takes precedence there. Data loaders need neither: each of their samples has a
/// generator made from the loader's seed.
///
/// ```
/// use convnet::Tensor;
///
/// let draw = || {
///     convnet::manual_seed_all(42);
///     let here = Tensor::randn([3]).to_vec::<f32>()?;
///     let there = std::thread::spawn(|| Tensor::randn([3]).to_vec::<f32>()).join().expect("no panic")?;
///     Ok::<_, convnet::Error>((here, there))
/// };
/// let (here, there) = draw()?;
/// assert_ne!(here, there);
/// assert_eq!((here, there), draw()?);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn manual_seed_all(seed: u64) {
    let mut program = PROGRAM.lock().unwrap_or_else(PoisonError::into_inner);
    *program = Some((seed, 0));
    let epoch = EPOCH.fetch_add(1, Ordering::Relaxed) + 1;
    drop(program);
    GENERATOR.set(Some(Generator { rng: seeded(seed), epoch }));
}

/// Runs `body` with this thread's generator.
pub(crate) fn with_generator<R>(body: impl FnOnce(&mut ChaCha8Rng) -> R) -> R {
    GENERATOR.with_borrow_mut(|generator| {
        let generator = generator.get_or_insert_with(Generator::new);
        generator.update();
        body(&mut generator.rng)
    })
}

/// Returns a copy of this thread's generator in its present state.
pub(crate) fn generator() -> ChaCha8Rng {
    with_generator(|generator| copy_of(generator))
}

/// Returns a generator that continues as this one does, which has no `Clone`.
pub(crate) fn copy_of(generator: &ChaCha8Rng) -> ChaCha8Rng {
    ChaCha8Rng::deserialize_state(&generator.serialize_state())
}

/// Runs `body` with this thread's generator in the given state, then restores the earlier state.
pub(crate) fn with_generator_at<R>(state: &ChaCha8Rng, body: impl FnOnce() -> R) -> R {
    struct Restore(Option<Generator>);
    impl Drop for Restore {
        fn drop(&mut self) {
            GENERATOR.set(self.0.take());
        }
    }
    let _restore = Restore(GENERATOR.replace(Some(Generator { rng: copy_of(state), epoch: LENT })));
    body()
}

/// Returns a generator that starts from a small seed, expanded to a key by a PCG32 of 64 bits of
/// state (O'Neill, 2014), as `seed_from_u64` of `rand_core` 0.10 does.
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
    // Lemire's multiplication (2019): the upper half is uniform once the lower halves that occur
    // one time more often than the others are rejected.
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
mod tests;
