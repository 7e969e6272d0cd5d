//! Compares every algorithm with the definition, over random geometry.

use proptest::prelude::*;

use super::*;
use crate::kernels::elementwise::epilogue::Activation;
use crate::kernels::numbers;
use crate::kernels::runtime::parallel;

/// Numbers of cases. Under Miri there are few, and they are small.
const CASES: [u32; 2] = if cfg!(miri) { [4, 2] } else { [128, 32] };

fn affordable(g: &ConvGeometry) -> bool {
    crate::kernels::affordable(g.work())
}

/// Generates any convolution of up to a few hundred elements per axis.
fn any_geometry() -> impl Strategy<Value = ConvGeometry> {
    let pair = |range: std::ops::Range<usize>| [range.clone(), range];
    (0..4usize, 1..4usize, 1..6usize, 1..40usize, pair(1..12), pair(1..5), pair(1..4), pair(0..4), pair(1..3)).prop_filter_map(
        "the kernel fits",
        |(batch, groups, group_in, channels_out, input, kernel, stride, padding, dilation)| {
            let window = Window::new(input, kernel, stride, padding, dilation, false).ok()?;
            let channels_out = channels_out.next_multiple_of(groups);
            Some(ConvGeometry { batch, channels_in: groups * group_in, channels_out, groups, window }).filter(affordable)
        },
    )
}

/// The algorithms that are compared with the naive convolution.
const ALGORITHMS: [ConvAlgorithm; 6] = [
    ConvAlgorithm::Auto,
    ConvAlgorithm::Direct,
    ConvAlgorithm::Im2col,
    ConvAlgorithm::Winograd2,
    ConvAlgorithm::Winograd4,
    ConvAlgorithm::Depthwise,
];

/// Generates kernels that Winograd's algorithms support, with more channels than a panel and enough
/// tiles for several groups.
fn any_dense_geometry() -> impl Strategy<Value = ConvGeometry> {
    let size = prop_oneof![1..9usize, 20..30usize];
    // Kernel and stride; without a stride, kernels have the same number of taps along both axes.
    let kernel = prop_oneof![
        3 => Just([[3, 3], [1, 1]]),
        2 => prop::sample::select(vec![[[4, 4], [1, 1]], [[5, 5], [1, 1]]]),
        2 => prop::sample::select(vec![[[7, 7], [2, 2]], [[11, 11], [4, 4]], [[5, 8], [2, 3]], [[4, 12], [1, 3]], [[9, 10], [2, 2]]]),
    ];
    (0..4usize, 1..70usize, 1..70usize, [size.clone(), size], [0..5usize, 0..5usize], kernel).prop_filter_map(
        "the kernel fits",
        |(batch, channels_in, channels_out, input, padding, [kernel, stride])| {
            let window = Window::new(input, kernel, stride, padding, [1, 1], false).ok()?;
            Some(ConvGeometry { batch, channels_in, channels_out, groups: 1, window }).filter(affordable)
        },
    )
}

/// Generates groups of few channels that together have more channels than a vector has lanes.
fn grouped_geometry() -> impl Strategy<Value = ConvGeometry> {
    let pair = |range: std::ops::Range<usize>| [range.clone(), range];
    let channels = prop_oneof![
        (1..70usize).prop_map(|groups| [groups, 1, 1]),
        (1..30usize, 2..5usize).prop_map(|(groups, multiplier)| [groups, 1, multiplier]),
        (1..20usize, prop::sample::select(vec![2usize, 4, 8])).prop_map(|(groups, width)| [groups, width, width]),
        (1..12usize, 1..6usize, 1..6usize).prop_map(|(groups, group_in, group_out)| [groups, group_in, group_out]),
    ];
    let kernel = prop_oneof![prop::sample::select(vec![[3usize, 3], [5, 5], [7, 7]]), pair(1..10)];
    (1..3usize, channels, pair(1..24), kernel, pair(1..4), pair(0..6), pair(1..3), any::<bool>()).prop_filter_map(
        "the kernel fits",
        |(batch, [groups, group_in, group_out], input, kernel, stride, padding, dilation, dilated)| {
            let dilation = if dilated { dilation } else { [1, 1] };
            let window = Window::new(input, kernel, stride, padding, dilation, false).ok()?;
            let g = ConvGeometry { batch, channels_in: groups * group_in, channels_out: groups * group_out, groups, window };
            Some(g).filter(affordable)
        },
    )
}

/// Generates few input channels, so that the input gradient is summed from overlapping windows.
fn overlapping_geometry() -> impl Strategy<Value = ConvGeometry> {
    let pair = |range: std::ops::Range<usize>| [range.clone(), range];
    (1..8usize, 1..9usize, 1..40usize, pair(1..24), pair(2..9), pair(1..4), pair(0..8)).prop_filter_map(
        "windows that are worth adding",
        |(batch, channels_in, channels_out, input, kernel, stride, padding)| {
            let window = Window::new(input, kernel, stride, padding, [1, 1], false).ok()?;
            let g = ConvGeometry { batch, channels_in, channels_out, groups: 1, window };
            Some(g).filter(|g| affordable(g) && overlap_add::pays::<f32>(g))
        },
    )
}

/// Rounds numbers to `T`.
fn rounded<T: Real>(numbers: &[f64]) -> Vec<T> {
    numbers.iter().map(|&number| T::of(number)).collect()
}

fn assert_close<T: Real>(name: &str, algorithm: ConvAlgorithm, got: &[T], expected: &[f64]) {
    // The results are sums of at most a few thousand products of numbers up to 1, in another order,
    // and of numbers that are themselves rounded; Winograd's transforms lose two more digits. A
    // value in a wrong place is wrong by a tenth or more.
    let most = if size_of::<T>() == size_of::<f64>() { 1e-11 } else { 2e-3 };
    assert_eq!(got.len(), expected.len());
    for (at, (got, expected)) in got.iter().map(|got| got.to_f64().unwrap()).zip(expected).enumerate() {
        assert!(
            approx::abs_diff_eq!(got, *expected, epsilon = most),
            "{name} {algorithm:?} of {} at {at}: {got}, expected {expected}",
            std::any::type_name::<T>()
        );
    }
}

/// Compares every algorithm in both types: they are compiled with different tile sizes and for
/// different instruction sets.
fn compare(g: &ConvGeometry) {
    let expected = passes::<f64>(g, ConvAlgorithm::Naive);
    let expected = expected.each_ref().map(|pass| &pass[..]);
    for algorithm in ALGORITHMS {
        compare_passes::<f64>(g, algorithm, expected);
        compare_passes::<f32>(g, algorithm, expected);
        let (x, w, bias) = (numbers(g.batch * g.image_in(), 1), numbers(g.weights(), 2), numbers(g.channels_out, 4));
        compare_moments(algorithm, g, &x, &w, &bias);
    }
}

fn compare_passes<T: Real>(g: &ConvGeometry, algorithm: ConvAlgorithm, expected: [&[f64]; 3]) {
    for ((name, got), expected) in ["forward", "input gradient", "weight gradient"].into_iter().zip(passes::<T>(g, algorithm)).zip(expected)
    {
        assert_close(name, algorithm, &got, expected);
    }
}

/// Computes the output with one epilogue, the input's gradient with another, and the weight's
/// gradient.
fn passes<T: Real>(g: &ConvGeometry, algorithm: ConvAlgorithm) -> [Vec<T>; 3] {
    let (inputs, outputs) = (g.batch * g.image_in(), g.batch * g.image_out());
    let numbers = |length, seed| rounded::<T>(&numbers(length, seed));
    let (x, w, dy) = (numbers(inputs, 1), numbers(g.weights(), 2), numbers(outputs, 3));
    let (bias_out, bias_in) = (numbers(g.channels_out, 4), numbers(g.channels_in, 5));
    let (residual_out, residual_in) = (numbers(outputs, 6), numbers(inputs, 7));
    let forward_epilogue = Epilogue { residual: Some(&residual_out), activation: Activation::Silu, ..Epilogue::bias(Some(&bias_out)) };
    let gradient_epilogue = Epilogue { residual: Some(&residual_in), activation: Activation::Relu, ..Epilogue::bias(Some(&bias_in)) };
    let [mut y, mut dx, mut dw] = [outputs, inputs, g.weights()].map(|length| vec![T::nan(); length]);
    Prepared::forward(algorithm, g, &w).run(&x, forward_epilogue, &mut y);
    Prepared::new(algorithm, g, Pass::InputGradient, true, &w).run(&dy, gradient_epilogue, &mut dx);
    weight_gradient(algorithm, g, &x, &dy, &mut dw);
    [y, dx, dw]
}

/// Compares the moments that the forward pass computes with those of its result.
fn compare_moments(algorithm: ConvAlgorithm, g: &ConvGeometry, x: &[f64], w: &[f64], bias: &[f64]) {
    let [mut y, mut alone] = [(); 2].map(|()| vec![f64::NAN; g.batch * g.image_out()]);
    // Far from zero, so that moments from plain sums of squares would suffer from cancellation.
    let bias: Vec<f64> = bias.iter().map(|bias| 1000.0 + bias).collect();
    let moments = forward_with_moments(algorithm, g, x, w, Some(&bias), &mut y);
    forward(algorithm, g, x, w, Some(&bias), &mut alone);
    assert_eq!(y, alone, "{algorithm:?}");
    let maps = Maps { images: 1, rows: y.len() / g.channels_out, channels: g.channels_out };
    let expected = norm::take_moments(maps, &y);
    for (found, expected) in [(&moments.mean, &expected.mean), (&moments.m2, &expected.m2)] {
        let agree = approx::relative_eq!(found[..], expected[..], epsilon = 1e-10, max_relative = 1e-10);
        assert!(agree, "{algorithm:?}: {found:?}, expected {expected:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES[0], failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_algorithm_agrees_with_the_naive_convolution(g in any_geometry()) {
        compare(&g);
    }

    #[test]
    fn every_algorithm_agrees_with_the_naive_convolution_of_groups(g in grouped_geometry()) {
        compare(&g);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES[1], failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_algorithm_agrees_with_the_naive_convolution_on_dense_kernels(g in any_dense_geometry()) {
        compare(&g);
    }

    #[test]
    fn every_algorithm_agrees_with_the_naive_convolution_where_windows_of_few_channels_overlap(g in overlapping_geometry()) {
        compare(&g);
    }
}

#[test]
fn large_and_odd_geometries_agree_with_the_naive_convolution() {
    // [batch, channels in, channels out, groups, size, kernel, stride, padding, dilation]
    for [batch, channels_in, channels_out, groups, size, kernel, stride, padding, dilation] in [
        [2, 1, 6, 1, 28, 5, 1, 2, 1],
        [3, 6, 16, 1, 14, 5, 1, 0, 1],
        // Overlapping windows: many images in a product, one image in bands, strides longer than
        // the kernel, rows that read only padding.
        [70, 3, 20, 1, 9, 3, 1, 1, 1],
        [1, 3, 8, 1, 60, 7, 1, 3, 1],
        [2, 3, 9, 1, 16, 4, 2, 1, 1],
        [2, 3, 9, 1, 16, 2, 3, 0, 1],
        [1, 3, 9, 1, 4, 3, 1, 6, 1],
        [1, 3, 70, 1, 23, 7, 2, 3, 1],
        [2, 33, 40, 1, 9, 3, 1, 1, 2],
        [1, 24, 24, 24, 15, 3, 2, 1, 1],
        [2, 16, 8, 1, 12, 1, 3, 0, 1],
        [1, 4, 4, 2, 4, 4, 1, 0, 1],
        [1, 4, 6, 2, 5, 2, 4, 3, 2],
        // Sums of more products than are added in one piece: pieces of whole taps, pieces of parts
        // of a tap, and pixels that are computed together.
        [1, 300, 20, 1, 6, 3, 1, 1, 1],
        [1, 1300, 40, 1, 5, 1, 1, 0, 1],
        [1, 130, 6, 1, 9, 3, 1, 1, 1],
        [1, 6, 130, 1, 9, 3, 1, 1, 1],
        // Winograd's weight gradient: by ranges of several chunks; by chunks, with few blocks and
        // with many; with many blocks of one chunk.
        [4, 5, 7, 1, 50, 3, 1, 1, 1],
        [2, 70, 70, 1, 40, 3, 1, 1, 1],
        [1, 150, 100, 1, 40, 3, 1, 1, 1],
        [1, 200, 120, 1, 9, 3, 1, 1, 1],
        [4, 3, 7, 1, 100, 7, 2, 3, 1],
        [1, 70, 60, 1, 23, 5, 1, 2, 1],
        // Tiles that read only padding.
        [2, 3, 4, 1, 5, 3, 1, 7, 1],
        [1, 2, 2, 1, 1, 3, 1, 9, 1],
        // Pixels computed together: with and without a remainder.
        [2, 3, 5, 1, 12, 3, 2, 1, 1],
        [2, 2, 3, 1, 11, 5, 1, 2, 1],
    ] {
        let pair = |n| [n, n];
        let window = Window::new(pair(size), pair(kernel), pair(stride), pair(padding), pair(dilation), false).unwrap();
        let g = ConvGeometry { batch, channels_in, channels_out, groups, window };
        if affordable(&g) {
            compare(&g);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore)] // large
fn depthwise_results_larger_than_the_caches_agree_with_the_naive_convolution() {
    // Without an epilogue, so that results are written with non-temporal stores.
    for (size, stride) in [(226, 1), (225, 2)] {
        let window = Window::new([size; 2], [3, 3], [stride; 2], [1, 1], [1, 1], false).unwrap();
        let g = ConvGeometry { batch: 2, channels_in: 64, channels_out: 64, groups: 64, window };
        let (got, expected) = (streamed::<f32>(&g, ConvAlgorithm::Depthwise), streamed::<f64>(&g, ConvAlgorithm::Naive));
        assert_close("forward", ConvAlgorithm::Depthwise, &got[0], &expected[0]);
        assert_close("input gradient", ConvAlgorithm::Depthwise, &got[1], &expected[1]);
    }
}

/// Computes the output and the input's gradient, in buffers aligned like those of tensors.
fn streamed<T: Real>(g: &ConvGeometry, algorithm: ConvAlgorithm) -> [AlignedVec<T>; 2] {
    let (inputs, outputs) = (g.batch * g.image_in(), g.batch * g.image_out());
    let [w, x, dy] = [(g.weights(), 1), (inputs, 2), (outputs, 3)].map(|(length, seed)| rounded::<T>(&numbers(length, seed)));
    let [mut y, mut dx] = [outputs, inputs].map(AlignedVec::uninit);
    [&mut y, &mut dx].into_iter().for_each(|values| values.fill(T::nan()));
    forward(algorithm, g, &x, &w, None, &mut y);
    input_gradient(algorithm, g, &dy, &w, None, &mut dx);
    [y, dx]
}

#[test]
#[cfg_attr(miri, ignore)] // large
fn input_gradients_of_few_channels_are_bit_identical_with_any_number_of_threads() {
    for (batch, channels, size, stride) in [(21, 6, 14, 1), (1, 3, 40, 1), (1, 1, 41, 2)] {
        let window = Window::new([size; 2], [5, 5], [stride; 2], [1, 1], [1, 1], false).unwrap();
        let g = ConvGeometry { batch, channels_in: channels, channels_out: 16, groups: 1, window };
        let [w, dy] = [(g.weights(), 2), (batch * g.image_out(), 3)].map(|(length, seed)| rounded::<f32>(&numbers(length, seed)));
        assert!(crate::kernels::runtime::simd::lanes::<f32>() < 8 || overlap_add::pays::<f32>(&g));
        let with_threads = |threads| {
            parallel::set_num_threads(threads).unwrap();
            let mut dx = vec![f32::NAN; batch * g.image_in()];
            input_gradient(ConvAlgorithm::Auto, &g, &dy, &w, None, &mut dx);
            dx.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let one = with_threads(1);
        assert!([2, 3].into_iter().all(|threads| with_threads(threads) == one), "{g:?}");
        parallel::set_num_threads(0).unwrap();
    }
}

#[test]
#[cfg_attr(miri, ignore)] // large
fn depthwise_results_are_bit_identical_with_any_number_of_threads() {
    for (channels, groups, stride) in [(96, 96, 1), (96, 96, 2), (64, 16, 1), (40, 10, 2)] {
        let window = Window::new([40, 40], [3, 3], [stride; 2], [1, 1], [1, 1], false).unwrap();
        let g = ConvGeometry { batch: 3, channels_in: channels, channels_out: channels, groups, window };
        let sizes = [(3 * g.image_in(), 1), (g.weights(), 2), (3 * g.image_out(), 3)];
        let [x, w, dy] = sizes.map(|(length, seed)| rounded::<f32>(&numbers(length, seed)));
        let with_threads = |threads| {
            parallel::set_num_threads(threads).unwrap();
            let [mut y, mut dx, mut dw] = [&dy, &x, &w].map(|like| vec![f32::NAN; like.len()]);
            forward(ConvAlgorithm::Depthwise, &g, &x, &w, None, &mut y);
            input_gradient(ConvAlgorithm::Depthwise, &g, &dy, &w, None, &mut dx);
            weight_gradient(ConvAlgorithm::Depthwise, &g, &x, &dy, &mut dw);
            [y, dx, dw].map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        let one = with_threads(1);
        assert!([2, 3].into_iter().all(|threads| with_threads(threads) == one), "{g:?}");
        parallel::set_num_threads(0).unwrap();
    }
}
