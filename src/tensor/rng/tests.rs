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
