//! Dropout is random: the tests check its rate, its scale, and that the gradient passes where the
//! values do.

use approx::abs_diff_eq;
use convnet::autograd::BackwardOptions;
use convnet::{DType, MemoryFormat, Result, Tensor};

/// A method that drops at a rate.
type Drop = fn(&Tensor, f64) -> Result<Tensor>;

/// The random operations, for which there are no cases.
pub const OPERATIONS: [(&str, Drop); 3] =
    [("dropout", Tensor::dropout), ("dropout2d", Tensor::dropout2d), ("stochastic_depth", Tensor::stochastic_depth)];

const SHAPE: [usize; 4] = [16, 32, 12, 10];

/// Ones of f32 or f64, and dropout's result on them.
fn dropped(float: DType, format: MemoryFormat, dropout: impl Fn(&Tensor) -> Result<Tensor>) -> Result<(Tensor, Tensor)> {
    convnet::manual_seed(7);
    let x = Tensor::full(SHAPE, 1.0, float).to_memory_format(format)?.with_grad();
    let y = dropout(&x)?;
    assert_eq!((y.shape(), y.dtype()), (x.shape(), x.dtype()));
    Ok((x, y))
}

fn numbers(x: &Tensor) -> Vec<f64> {
    super::check::values(x).expect("any dtype can be read")
}

/// Whether the share of zeros is within five standard deviations of `rate`, over `independent`
/// draws.
fn assert_rate(y: &[f64], rate: f64, independent: usize) {
    let share = y.iter().filter(|&&y| y == 0.0).count() as f64 / y.len() as f64;
    let deviation = (rate * (1.0 - rate) / independent as f64).sqrt();
    assert!(abs_diff_eq!(share, rate, epsilon = 5.0 * deviation), "{share} were dropped at a rate of {rate}");
}

#[test]
fn dropout_keeps_its_rate_and_scales_what_it_keeps() -> Result<()> {
    for (rate, float) in [(0.1, DType::F32), (0.5, DType::F64), (0.8, DType::F32)] {
        let (_, y) = dropped(float, MemoryFormat::RowMajor, |x| x.dropout(rate))?;
        let y = numbers(&y);
        assert_rate(&y, rate, y.len());
        // Exact up to the rounding of 1 / (1 - p) to f32.
        assert!(y.iter().all(|&y| y == 0.0 || abs_diff_eq!(y * (1.0 - rate), 1.0, epsilon = 1e-6)));
    }
    Ok(())
}

#[test]
fn dropout2d_drops_whole_channels_and_scales_the_others() -> Result<()> {
    for format in [MemoryFormat::RowMajor, MemoryFormat::ChannelsLast] {
        let (_, y) = dropped(DType::F32, format, |x| x.dropout2d(0.3))?;
        let y = numbers(&y);
        assert_rate(&y, 0.3, SHAPE[0] * SHAPE[1]);
        assert!(y.iter().all(|&y| y == 0.0 || abs_diff_eq!(y * 0.7, 1.0, epsilon = 1e-6)));
        let channels: Vec<&[f64]> = y.chunks(SHAPE[2] * SHAPE[3]).collect();
        assert!(channels.iter().all(|channel| channel.iter().all(|y| *y == channel[0])), "a channel is dropped in part");
        assert!(channels.windows(SHAPE[1]).any(|w| w[0][0] != w[SHAPE[1] - 1][0]), "all channels share one fate");
    }
    Ok(())
}

#[test]
fn stochastic_depth_drops_whole_samples_and_scales_the_others() -> Result<()> {
    for format in [MemoryFormat::RowMajor, MemoryFormat::ChannelsLast] {
        let (_, y) = dropped(DType::F32, format, |x| x.stochastic_depth(0.3))?;
        let y = numbers(&y);
        assert_rate(&y, 0.3, SHAPE[0]);
        assert!(y.iter().all(|&y| y == 0.0 || abs_diff_eq!(y * 0.7, 1.0, epsilon = 1e-6)));
        let samples: Vec<&[f64]> = y.chunks(y.len() / SHAPE[0]).collect();
        assert!(samples.iter().all(|sample| sample.iter().all(|y| *y == sample[0])), "a sample is dropped in part");
        assert!(samples.iter().any(|sample| sample[0] != samples[0][0]), "all samples share one fate");
    }
    Ok(())
}

#[test]
fn the_gradient_of_dropout_passes_where_the_values_do() -> Result<()> {
    for format in [MemoryFormat::RowMajor, MemoryFormat::ChannelsLast] {
        for dropout in [Tensor::dropout, Tensor::dropout2d, Tensor::stochastic_depth] {
            let (x, y) = dropped(DType::F64, format, |x| dropout(x, 0.4))?;
            let upstream: Vec<f64> = (0..y.numel()).map(|i| 0.5 + (i % 7) as f64).collect();
            let options = BackwardOptions { gradient: Some(Tensor::from_vec(upstream.clone(), SHAPE)?), retain_graph: false };
            let gradient = numbers(y.backward_with(options)?.get(&x).expect("x took part"));
            // On ones the output is the factor of each element.
            let expected: Vec<f64> = numbers(&y).into_iter().zip(upstream).map(|(factor, upstream)| factor * upstream).collect();
            assert!(abs_diff_eq!(expected[..], gradient[..], epsilon = 1e-12));
        }
    }
    Ok(())
}

#[test]
fn dropout_repeats_itself_with_the_same_seed_only() -> Result<()> {
    for dropout in [Tensor::dropout, Tensor::dropout2d, Tensor::stochastic_depth] {
        let (x, first) = dropped(DType::F32, MemoryFormat::RowMajor, |x| dropout(x, 0.5))?;
        let (_, again) = dropped(DType::F32, MemoryFormat::RowMajor, |x| dropout(x, 0.5))?;
        assert_eq!(numbers(&first), numbers(&again));
        assert_ne!(numbers(&first), numbers(&dropout(&x, 0.5)?), "without a new seed the mask should be another");
    }
    Ok(())
}

#[test]
fn dropout_with_probability_0_keeps_all_and_with_1_nothing() -> Result<()> {
    for dropout in [Tensor::dropout, Tensor::dropout2d, Tensor::stochastic_depth] {
        let (x, kept) = dropped(DType::F32, MemoryFormat::RowMajor, |x| dropout(x, 0.0))?;
        assert_eq!(numbers(&kept), numbers(&x));
        let (x, gone) = dropped(DType::F32, MemoryFormat::RowMajor, |x| dropout(x, 1.0))?;
        assert!(numbers(&gone).iter().all(|&y| y == 0.0));
        let gradients = gone.sum(..)?.backward()?;
        assert!(numbers(gradients.get(&x).expect("x took part")).iter().all(|&g| g == 0.0));
    }
    Ok(())
}

#[test]
fn a_rate_that_is_no_probability_is_refused() {
    let x = Tensor::ones(SHAPE);
    for dropout in [Tensor::dropout, Tensor::dropout2d, Tensor::stochastic_depth] {
        for rate in [-0.1, 1.5, f64::NAN] {
            let error = dropout(&x, rate).expect_err("a rate is between 0 and 1").to_string();
            assert!(error.contains("a probability between 0 and 1"), "{error}");
        }
    }
}
