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
mod tests {
    use std::thread;

    use super::*;

    // Pinned: a change of these numbers would change every seeded run. Those of `seeded`, `unit`,
    // `short_unit` and `fill_normal` are what rand 0.10.4 gave, by
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
    fn a_copy_continues_in_the_middle_of_a_block() {
        let mut generator = seeded(42);
        for drawn in 0..40 {
            assert_eq!(copy_of(&generator).next_u32(), generator.next_u32(), "after {drawn} numbers");
        }
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
        // A count's standard deviation is √(70000 · 1/7 · 6/7) ≈ 93; a deviation of six of them
        // does not occur.
        assert!(counts.iter().all(|&count: &i32| (count - 10_000).abs() < 560), "{counts:?}");
    }

    #[test]
    fn normal_numbers_are_pinned() {
        let mut numbers = [0.0; 3];
        fill_normal(&mut seeded(42), &mut numbers);
        // The logarithm is the platform's, which may differ in the last bit.
        let pinned = [0.1279348383147464, 0.3166966320029613, -1.095928063849364];
        approx::assert_abs_diff_eq!(numbers[..], pinned[..], epsilon = 1e-14);
    }

    fn draw() -> u64 {
        with_generator(|generator| generator.next_u64())
    }

    /// Runs in a separate process: other tests' threads would take streams at the same time.
    #[test]
    fn program_seed_reaches_all_threads_in_order_of_first_draw() {
        const NAME: &str = "tensor::rng::tests::program_seed_reaches_all_threads_in_order_of_first_draw";
        if std::env::var_os("CONVNET_TEST_ALONE").is_none() && !cfg!(miri) {
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            let output = alone.args([NAME, "--exact"]).env("CONVNET_TEST_ALONE", "1").output().unwrap();
            assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
            return;
        }
        let elsewhere = || thread::spawn(draw).join().unwrap();
        let all = || {
            manual_seed_all(9);
            [draw(), elsewhere(), elsewhere(), draw()]
        };
        let first = all();
        assert_eq!(all(), first);
        assert!(first.iter().enumerate().all(|(i, x)| !first[..i].contains(x)), "no stream is given out twice: {first:?}");
        manual_seed(9);
        assert_eq!([draw(), draw()], [first[0], first[3]], "the calling thread is seeded as by `manual_seed`");

        // A running thread follows the program's seed, and its own later seed takes precedence.
        let (ask, asked) = std::sync::mpsc::channel();
        let (answer, answered) = std::sync::mpsc::channel();
        let running = thread::spawn(move || {
            for seed in asked {
                Option::into_iter(seed).for_each(manual_seed);
                answer.send(draw()).unwrap();
            }
        });
        let there = |seed: Option<u64>| {
            ask.send(seed).unwrap();
            answered.recv().unwrap()
        };
        let before = there(None);
        // A generator that was lent to a sample or to a repeated step keeps its numbers, and a
        // thread that only borrowed one takes no stream.
        let lent = seeded(3);
        let seeded_meanwhile = || {
            thread::spawn(|| manual_seed_all(9)).join().unwrap();
            draw()
        };
        let borrowed = thread::scope(|scope| scope.spawn(|| with_generator_at(&lent, seeded_meanwhile)).join().unwrap());
        assert_eq!(borrowed, seeded(3).next_u64());
        assert_eq!(there(None), first[1]);
        assert_ne!(before, first[1]);
        assert_eq!(there(Some(9)), first[0]);
        assert_eq!(there(None), first[3]);
        assert_eq!(elsewhere(), first[2]);
        drop(ask);
        running.join().unwrap();
    }
}
