use proptest::prelude::*;

use super::*;
use crate::kernels::geometry::Window;

/// Generates a pooling, a number of images and a number of channels.
fn any_case() -> impl Strategy<Value = (Pooling, usize, usize)> {
    let axis = || (1usize..9, 1usize..5, 1usize..4, 0usize..3, 1usize..5, 1usize..12);
    let channels = prop_oneof![1usize..20, 30usize..40, 60usize..70];
    (axis(), axis(), any::<[bool; 3]>(), 1usize..3, channels).prop_filter_map("a window that fits", |(a, b, flags, images, channels)| {
        let [adaptive, ceil, padding_counts] = flags;
        let pooling = if adaptive {
            Pooling::adaptive([a.0, b.0], [a.5, b.5])
        } else {
            let divisor = if padding_counts { Divisor::Padded } else { Divisor::Taps };
            let padding = [a.3.min(a.1 / 2), b.3.min(b.1 / 2)];
            Pooling::sliding(&Window::new([a.0, b.0], [a.1, b.1], [a.2, b.2], padding, [a.4, b.4], ceil).ok()?, divisor)
        };
        Some((pooling, images, channels))
    })
}

/// Returns numbers with many ties and some NaN.
fn values(length: usize) -> Vec<f64> {
    (0..length).map(|i| if i % 31 == 30 { f64::NAN } else { (i * 7919 % 17) as f64 - 8.0 }).collect()
}

/// Returns for each output element, in memory order, the input elements of its window by row,
/// and the divisor.
fn windows(pooling: &Pooling, images: usize, channels: usize) -> Vec<(Vec<usize>, usize)> {
    let ([h, w], [rows, columns]) = (pooling.input, pooling.output);
    let mut windows = vec![];
    for index in 0..images * rows * columns * channels {
        let [n, row, column, c] =
            [index / channels / columns / rows, index / channels / columns % rows, index / channels % columns, index % channels];
        let (a, b) = (pooling.spans[0][row], pooling.spans[1][column]);
        let mut inside = vec![];
        for i in 0..a.taps {
            for j in 0..b.taps {
                let (y, x) = (a.start + i * pooling.step[0], b.start + j * pooling.step[1]);
                assert!(y < h && x < w);
                inside.push(((n * h + y) * w + x) * channels + c);
            }
        }
        windows.push((inside, a.counted * b.counted));
    }
    windows
}

#[test]
fn far_apart_taps_cost_no_more_than_adjacent_ones() {
    // Some 10^10 steps if all positions between the taps of all windows counted.
    let (input, dilation) = if cfg!(miri) { (400, 200) } else { (400_000, 200_000) };
    let start = std::time::Instant::now();
    let pooling = Pooling::sliding(&Window::new([1, input], [1, 2], [1, 1], [0, 0], [1, dilation], false).unwrap(), Divisor::Taps);
    let (grad, mut dx) = (vec![1f32; input - dilation], vec![-1f32; input]);
    average_backward(&pooling, 1, &grad, &mut dx);
    assert!(dx.iter().all(|&dx| dx == 0.5));
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

fn bits(x: &[f64]) -> Vec<u64> {
    x.iter().map(|x| if x.is_nan() { 0 } else { x.to_bits() }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 64 }))]

    #[test]
    fn max_pooling_and_its_gradient_agree_with_plain_loops((pooling, images, channels) in any_case()) {
        let x = values(images * pooling.input[0] * pooling.input[1] * channels);
        let windows = windows(&pooling, images, channels);
        let grad: Vec<f64> = (0..windows.len()).map(|i| (i % 5) as f64 + 1.0).collect();
        let (mut expected, mut winners, mut expected_dx) = (vec![], vec![], vec![0.0; x.len()]);
        for ((inside, _), grad) in windows.iter().zip(&grad) {
            let mut winner = None;
            for &at in inside {
                let best = winner.map_or(f64::NEG_INFINITY, |at: usize| x[at]);
                if winner.is_none() || x[at] > best || x[at].is_nan() {
                    winner = Some(at);
                }
            }
            expected.push(winner.map_or(f64::NEG_INFINITY, |at| x[at]));
            if let Some(at) = winner {
                expected_dx[at] += grad;
            }
            winners.push(winner);
        }
        let mut y = vec![-1.0; windows.len()];
        max::<f64, u8>(&pooling, channels, &x, &mut y, None);
        prop_assert_eq!(bits(&y), bits(&expected));
        let mut bytes = vec![0u8; y.len()];
        max(&pooling, channels, &x, &mut y, Some(&mut bytes));
        prop_assert_eq!(bits(&y), bits(&expected));
        let mut dx = vec![-1.0; x.len()];
        max_backward(&pooling, channels, &grad, &bytes, &mut dx);
        prop_assert_eq!(&dx, &expected_dx);
        // Vectors of f32 have more lanes and overhang at other places.
        let single: Vec<f32> = x.iter().map(|&x| x as f32).collect();
        let (mut single_y, mut single_bytes) = (vec![-1f32; y.len()], vec![0u8; y.len()]);
        max(&pooling, channels, &single, &mut single_y, Some(&mut single_bytes));
        prop_assert_eq!(bits(&single_y.iter().map(|&y| f64::from(y)).collect::<Vec<_>>()), bits(&expected));
        prop_assert_eq!(&single_bytes, &bytes);
        let (single, mut single_dx) = (grad.iter().map(|&x| x as f32).collect::<Vec<_>>(), vec![-1f32; x.len()]);
        max_backward(&pooling, channels, &single, &single_bytes, &mut single_dx);
        prop_assert!(single_dx.iter().zip(&expected_dx).all(|(&a, &b)| f64::from(a) == b));
        let mut wide = vec![0i64; y.len()];
        max(&pooling, channels, &x, &mut y, Some(&mut wide));
        max_backward(&pooling, channels, &grad, &wide, &mut dx);
        prop_assert_eq!(&dx, &expected_dx);
        let (mut of_bytes, mut of_wide) = (vec![-1; y.len()], vec![-1; y.len()]);
        positions(&pooling, channels, &bytes, &mut of_bytes);
        positions(&pooling, channels, &wide, &mut of_wide);
        prop_assert_eq!(&of_bytes, &of_wide);
        let map = pooling.input[0] * pooling.input[1];
        // A window without taps has no winner.
        let right = |(winner, &at): (&Option<usize>, &i64)| winner.is_none_or(|winner| winner / channels % map == at as usize);
        prop_assert!(winners.iter().zip(&of_bytes).all(right));
    }

    #[test]
    fn average_pooling_and_its_gradient_agree_with_plain_loops((pooling, images, channels) in any_case()) {
        let x: Vec<f64> = (0..images * pooling.input[0] * pooling.input[1] * channels).map(|i| (i * 7919 % 17) as f64).collect();
        let windows = windows(&pooling, images, channels);
        let grad: Vec<f64> = (0..windows.len()).map(|i| (i % 5) as f64 + 1.0).collect();
        let mut y = vec![-1.0; windows.len()];
        average(&pooling, channels, &x, &mut y);
        // f32 uses other block sizes; the sums are exact in either type, and the quotients are
        // rounded once.
        let (single, mut single_y) = (x.iter().map(|&x| x as f32).collect::<Vec<_>>(), vec![-1f32; y.len()]);
        average(&pooling, channels, &single, &mut single_y);
        prop_assert!(single_y.iter().zip(&y).all(|(&single, &y)| single == y as f32));
        let mut expected_dx = vec![0.0; x.len()];
        for (((inside, divisor), grad), y) in windows.iter().zip(&grad).zip(&y) {
            // Sums of small integers are exact.
            prop_assert_eq!(*y, inside.iter().map(|&at| x[at]).sum::<f64>() / (*divisor).max(1) as f64);
            inside.iter().for_each(|&at| expected_dx[at] += grad / *divisor as f64);
        }
        let mut dx = vec![-1.0; x.len()];
        average_backward(&pooling, channels, &grad, &mut dx);
        let (single, mut single_dx) = (grad.iter().map(|&x| x as f32).collect::<Vec<_>>(), vec![-1f32; x.len()]);
        average_backward(&pooling, channels, &single, &mut single_dx);
        let single_dx: Vec<f64> = single_dx.into_iter().map(f64::from).collect();
        prop_assert!(approx::abs_diff_eq!(single_dx[..], expected_dx[..], epsilon = 1e-3));
        // Multiplication by a reciprocal: two roundings for each of at most 144 terms below 5.
        prop_assert!(approx::abs_diff_eq!(dx[..], expected_dx[..], epsilon = 1e-12));
    }
}
