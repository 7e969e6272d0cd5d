use proptest::prelude::*;

use super::super::elementwise::epilogue::Activation;
use super::*;

fn values(length: usize, seed: usize) -> Vec<f64> {
    (0..length).map(|i| ((i * 7919 + seed * 31) % 1013) as f64 / 100.0 - 3.0).collect()
}

fn close(a: &[f64], b: &[f64]) -> bool {
    approx::relative_eq!(a, b, epsilon = 1e-11, max_relative = 1e-11)
}

/// Computes the sums of `f` over the rows in `f64` with a plain loop.
fn plain_sums(maps: Maps, f: impl Fn(usize, usize) -> f64) -> Vec<f64> {
    let at = |slot: usize, row: usize| (slot / maps.channels * maps.rows + row) * maps.channels + slot % maps.channels;
    (0..maps.images * maps.channels).map(|slot| (0..maps.rows).map(|row| f(slot, at(slot, row))).sum()).collect()
}

const ACTIVATIONS: [Activation; 7] = [
    Activation::Linear,
    Activation::Relu,
    Activation::Relu6,
    Activation::Silu,
    Activation::Hardswish,
    Activation::Sigmoid,
    Activation::Hardsigmoid,
];

fn any_maps() -> impl Strategy<Value = Maps> {
    let channels = prop_oneof![1usize..9, 60usize..70];
    let rows = prop_oneof![1usize..20, if cfg!(miri) { 20usize..30 } else { 3000..3020 }];
    (1usize..4, rows, channels).prop_map(|(images, rows, channels)| Maps { images, rows, channels })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 24 }))]

    #[test]
    fn every_pass_agrees_with_plain_loop(maps in any_maps()) {
        let (x, grad) = (values(maps.len(), 1), values(maps.len(), 2));
        let found = take_moments(maps, &x);
        let mean: Vec<f64> = plain_sums(maps, |_, at| x[at]).iter().map(|sum| sum / maps.rows as f64).collect();
        prop_assert!(close(&found.mean, &mean));
        prop_assert!(close(&found.m2, &plain_sums(maps, |slot, at| (x[at] - mean[slot]).powi(2))));
        let [scale, shift, slope, offset] = [3, 4, 5, 6].map(|seed| values(mean.len(), seed));
        let slot = |at: usize| at / (maps.rows * maps.channels) * maps.channels + at % maps.channels;
        let normal = |at: usize| (x[at] - mean[slot(at)]) * scale[slot(at)] + shift[slot(at)];
        let factors = [&mean[..], &scale, &shift];
        let shortcut = values(maps.len(), 7);
        for activation in ACTIVATIONS {
            let act = |x: f64| {
                let mut y = [x];
                activation.map(&mut y);
                y[0]
            };
            let chain = |at: usize, x: f64| {
                let mut g = [grad[at]];
                activation.chain(&[x], &mut g);
                g[0]
            };
            let mut y = vec![0.0; x.len()];
            forward(maps, &x, factors, None, activation, &mut y);
            prop_assert!(close(&y, &(0..x.len()).map(|at| act(normal(at))).collect::<Vec<_>>()));
            forward(maps, &x, factors, Some(&shortcut), activation, &mut y);
            let sum = |at: usize| normal(at) + shortcut[at];
            prop_assert!(close(&y, &(0..x.len()).map(|at| act(sum(at))).collect::<Vec<_>>()));

            if !activation.needs_map() {
                let found = gradient_sums(maps, &grad, &x, factors, activation);
                let g: Vec<f64> = (0..x.len()).map(|at| chain(at, normal(at))).collect();
                prop_assert!(close(&found.first, &plain_sums(maps, |_, at| g[at])));
                prop_assert!(close(&found.second, &plain_sums(maps, |slot, at| g[at] * (x[at] - mean[slot]))));
                let expected: Vec<f64> = (0..x.len())
                    .map(|at| g[at] * scale[slot(at)] + (x[at] - mean[slot(at)]) * slope[slot(at)] + offset[slot(at)])
                    .collect();
                let mut dx = vec![0.0; x.len()];
                gradient(maps, Some(&grad), &x, factors, [&slope, &offset], activation, &mut dx);
                prop_assert!(close(&dx, &expected));
                let mut dx = grad.clone();
                gradient(maps, None, &x, factors, [&slope, &offset], activation, &mut dx);
                prop_assert!(close(&dx, &expected));
            }

            let sources = [
                (ActivationSource::Normalised, false),
                (ActivationSource::NormalisedPlus(&shortcut[..]), true),
                (ActivationSource::Output(&y[..]), true),
            ];
            for (source, behind_shortcut) in sources.into_iter().take(if activation.reads_output() { 3 } else { 2 }) {
                let expected: Vec<f64> = (0..x.len()).map(|at| chain(at, if behind_shortcut { sum(at) } else { normal(at) })).collect();
                let mut g = grad.clone();
                let found = gradient_sums_in_place(maps, &mut g, &x, factors, source, activation);
                prop_assert!(close(&g, &expected));
                prop_assert!(close(&found.first, &plain_sums(maps, |_, at| g[at])));
                prop_assert!(close(&found.second, &plain_sums(maps, |slot, at| g[at] * (x[at] - mean[slot]))));
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore)] // large
fn variance_in_f32_stays_accurate_for_large_mean() {
    let maps = Maps { images: 1, rows: 40_000, channels: 3 };
    let x: Vec<f32> = (0..maps.len()).map(|i| 4096.0 + (i * 7919 % 17) as f32 / 8.0).collect();
    let expected = plain_sums(maps, |slot, at| {
        let mean = plain_sums(Maps { images: 1, rows: 17, channels: 3 }, |_, at| f64::from(x[at]))[slot] / 17.0;
        (f64::from(x[at]) - mean).powi(2)
    });
    // The values are exact in f32; the remaining error is the rounding of sums of a few hundred
    // terms.
    for (found, expected) in take_moments(maps, &x).m2.iter().zip(expected) {
        approx::assert_relative_eq!(*found, expected, max_relative = 1e-5);
    }
}

#[test]
fn sums_of_blocks_of_rows_are_combined_without_rounding() {
    let maps = Maps { images: 1, rows: 16 * 512, channels: 8 };
    // The sum of sixteen terms fits the 24 bits of an f32; the sum of all 512 of a lane needs
    // 28.
    let grad: Vec<f32> = (0..maps.len()).map(|i| 1.0 + (i * 7919 % 1013 % 8) as f32 / 524_288.0).collect();
    let x = vec![1f32; maps.len()];
    let [zeros, ones] = [0.0, 1.0].map(|value| vec![value; maps.channels]);
    let found = gradient_sums(maps, &grad, &x, [&zeros, &ones, &zeros], Activation::Linear);
    let expected = plain_sums(maps, |_, at| f64::from(grad[at]));
    assert_eq!(found.first, expected);
    assert_eq!(found.second, expected);
}
