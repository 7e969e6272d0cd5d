use super::*;
use crate::nn::{BatchNorm1d, Dropout, Linear, ModuleExt, Sequential};
use crate::optim::Sgd;
use crate::tensor::rng::manual_seed;

fn network() -> Sequential {
    Sequential::new().push(Linear::new(3, 8)).push(BatchNorm1d::new(8)).push(Dropout::new(0.2)).push(Linear::new(8, 1))
}

fn batches(count: usize) -> impl Iterator<Item = Result<(Tensor, Tensor)>> {
    let values = |n: usize, step: usize| (0..n).map(|i| ((i * step) % 11) as f32 / 5.0 - 1.0).collect::<Vec<f32>>();
    let (x, y) = (Tensor::from_vec(values(48, 7), [16, 3]).unwrap(), Tensor::from_vec(values(16, 5), [16, 1]).unwrap());
    (0..count).map(move |_| Ok((x.clone(), y.clone())))
}

fn loss(model: &Sequential, (x, y): (Tensor, Tensor)) -> Result<Tensor> {
    model.forward(&x)?.mse_loss(&y)
}

#[test]
fn model_optimiser_and_random_numbers_are_as_before_the_test() {
    manual_seed(3);
    let model = network();
    let last = model.get("3").unwrap().parameters();
    let first = model.parameters().into_iter().take(4);
    let mut optimizer = Sgd::new(first, 0.1).momentum(0.9).group(last, |options| options.learning_rate = 0.02);
    for batch in batches(2) {
        let value = loss(&model, batch.unwrap()).unwrap();
        optimizer.step(&value.backward().unwrap()).unwrap();
    }
    let (state, of_optimizer) = (model.state_dict(), format!("{:?}", optimizer.state()));
    let mut following = generator();
    let mut rates = vec![];
    let range = LrRangeTest::new(1e-3, 10.0, 9).divergence(f64::INFINITY);
    let range = range.run(&model, &mut optimizer, batches(20), loss).unwrap();
    assert!(model.state_dict().difference(&state).unwrap().is_empty());
    assert_eq!(format!("{:?}", optimizer.state()), of_optimizer);
    assert_eq!(optimizer.learning_rates(), [0.1, 0.02]);
    assert_eq!(rand::Rng::next_u64(&mut generator()), rand::Rng::next_u64(&mut following));
    rates.extend_from_slice(range.rates());
    assert_eq!((rates.len(), range.losses().len(), range.smoothed().len()), (9, 9, 9));
    for (pair, first) in rates.windows(2).zip(&rates) {
        assert!((pair[1] / pair[0] - 10f64.sqrt()).abs() < 1e-12 && *first < 10.0 + 1e-9);
    }
    // An error in the middle restores too.
    let failing = batches(3).chain([Err(Error::msg("no more"))]);
    let error = lr_find(&model, &mut optimizer, failing, loss).unwrap_err();
    assert!(error.to_string().contains("no more"));
    assert!(model.state_dict().difference(&state).unwrap().is_empty());
    assert_eq!(format!("{:?}", optimizer.state()), of_optimizer);
}

/// Gradient descent on `w² / 2` from 1 multiplies `w` by `1 - rate`, and diverges above 2.
#[test]
fn loss_of_a_parabola_falls_most_steeply_below_the_rate_at_which_it_diverges() {
    let model = Linear::new(1, 1).bias(false);
    model.weight.set(&Tensor::ones([1, 1])).unwrap();
    let mut optimizer = Sgd::new(model.parameters(), 1.0);
    let ones = || std::iter::repeat_with(|| Ok(Tensor::ones([1, 1])));
    let half_square = |model: &Linear, x: Tensor| {
        let y = model.forward(&x)?;
        Ok(y.mul(&y)?.sum(..)?.mul_scalar(0.5))
    };
    let plain = LrRangeTest::new(1e-3, 100.0, 60).smoothing(0.0);
    let range = plain.run(&model, &mut optimizer, ones(), half_square).unwrap();
    let (mut w, mut steepest) = (1.0f64, (0.0, 0.0));
    let mut losses = vec![];
    for &rate in range.rates() {
        losses.push(w * w / 2.0);
        w *= 1.0 - rate;
    }
    for (got, expected) in range.losses().iter().zip(&losses) {
        assert!((got - expected).abs() <= 1e-5 * expected.max(1e-3), "{got} instead of {expected}");
    }
    for i in 6..losses.len() - 1 {
        let slope = losses[i + 1] - losses[i - 1];
        steepest = if slope < steepest.0 { (slope, range.rates()[i]) } else { steepest };
    }
    assert_eq!(range.suggestion(), Some(steepest.1));
    assert!(range.rates().len() < 60 && (0.05..2.0).contains(&steepest.1), "{range:?}");
    let smoothed = plain.smoothing(0.8).run(&model, &mut optimizer, ones(), half_square).unwrap();
    // The running mean with the correction for its start, of the first two losses.
    let expected = (0.2 * 0.8 * smoothed.losses()[0] + 0.2 * smoothed.losses()[1]) / (1.0 - 0.64);
    assert!((smoothed.smoothed()[1] - expected).abs() < 1e-12);
    assert_eq!(LrRange::default().suggestion(), None);
}

#[test]
fn settings_out_of_range_and_missing_batches_are_errors() {
    let model = network();
    let mut optimizer = Sgd::new(model.parameters(), 0.1);
    let mut message = |test: LrRangeTest, count: usize| test.run(&model, &mut optimizer, batches(count), loss).unwrap_err().to_string();
    for (start, end) in [(0.0, 1.0), (1.0, 1.0), (1.0, f64::INFINITY), (f64::NAN, 1.0)] {
        assert!(message(LrRangeTest::new(start, end, 9), 9).contains("rates must grow"));
    }
    assert!(message(LrRangeTest::new(0.1, 1.0, 1), 9).contains("2 steps"));
    assert!(message(LrRangeTest::default().smoothing(1.0), 9).contains("smoothing"));
    assert!(message(LrRangeTest::default().divergence(f64::NAN), 9).contains("divergence"));
    assert!(message(LrRangeTest::default(), 0).contains("no batch"));
}
