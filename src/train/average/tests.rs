use super::*;
use crate::nn::{BatchNorm1d, Linear, ModuleExt};

/// A layer without bias whose weight `[1, 3]` is set by hand.
fn model() -> Linear {
    Linear::new(3, 1).bias(false)
}

fn set(model: &Linear, values: [f64; 3]) {
    model.weight.set(&Tensor::from_vec(values.to_vec(), [1, 3]).unwrap()).unwrap();
}

fn weight(state: &StateDict) -> Vec<f64> {
    state.get("weight").unwrap().to_vec::<f64>().unwrap()
}

const STEPS: [[f64; 3]; 4] = [[1.0, -2.0, 0.5], [1.5, -1.0, 0.25], [0.5, 3.0, -4.0], [2.0, 0.0, 8.0]];

fn run(average: &mut dyn WeightAverage) -> Vec<f64> {
    let model = model();
    for step in STEPS {
        set(&model, step);
        average.update(&model).unwrap();
    }
    weight(&average.state_dict().unwrap())
}

fn assert_close(got: &[f64], expected: &[f64]) {
    // A few roundings of f64 apart.
    assert!(got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14), "{got:?}, not {expected:?}");
}

/// The expected numbers are those of `AveragedModel` of PyTorch 2.15 and of `ModelEmaV3` of
/// timm 1.0.31 (`use_warmup=True`, `update(model, step)` from step 1) on a `Linear(3, 1)` of
/// f64 with the weights `STEPS`.
#[test]
fn averages_are_those_of_pytorch_and_timm() {
    assert_close(&run(&mut Ema::new(0.75)), &[1.2265625, -0.421875, 1.49609375]);
    assert_close(&run(&mut Swa::new()), &[1.25, 0.0, 1.1875]);
    assert_close(&run(&mut Ema::new(0.5).warmup()), &[1.4537450656184296, 0.4074901312368593, 3.0856274671907853]);
}

#[test]
fn swapping_twice_restores_the_model_and_the_average() {
    let (model, mut ema) = (model(), Ema::new(0.5));
    assert!(ema.swap(&model).unwrap_err().to_string().contains("first `update`"));
    set(&model, STEPS[0]);
    ema.update(&model).unwrap();
    set(&model, STEPS[1]);
    ema.update(&model).unwrap();
    ema.swap(&model).unwrap();
    assert_eq!(weight(&model.state_dict()), [1.25, -1.5, 0.375]);
    for error in [ema.update(&model).unwrap_err(), ema.state().unwrap_err(), ema.load_state(&StateDict::new()).unwrap_err()] {
        assert!(error.to_string().contains("`swap` it back"), "{error}");
    }
    ema.swap(&model).unwrap();
    assert_eq!(weight(&model.state_dict()), STEPS[1]);
    assert_eq!(weight(&ema.state_dict().unwrap()), [1.25, -1.5, 0.375]);
}

#[test]
fn average_leaves_the_model_after_errors_and_panics() {
    let (model, mut ema) = (model(), Ema::new(0.5));
    for step in &STEPS[..2] {
        set(&model, *step);
        ema.update(&model).unwrap();
    }
    let inside = with_average(&mut ema, &model, || Ok(weight(&model.state_dict()))).unwrap();
    assert_eq!((inside, weight(&model.state_dict())), (vec![1.25, -1.5, 0.375], STEPS[1].to_vec()));
    let failed: Result<()> = with_average(&mut ema, &model, || Err(Error::msg("no data")));
    assert!(failed.unwrap_err().to_string().contains("no data"));
    let panicking = std::panic::AssertUnwindSafe(|| with_average(&mut ema, &model, || -> Result<()> { panic!("a bug in the caller") }));
    assert!(std::panic::catch_unwind(panicking).is_err());
    assert!(!ema.is_swapped());
    assert_eq!(weight(&model.state_dict()), STEPS[1]);
    ema.swap(&model).unwrap();
    assert!(with_average(&mut ema, &model, || Ok(())).unwrap_err().to_string().contains("already"));
}

#[test]
fn snapshot_continues_with_the_same_bits_and_one_of_another_model_is_refused() {
    let (model, mut ema) = (model(), Ema::new(0.9).warmup());
    for step in &STEPS[..2] {
        set(&model, *step);
        ema.update(&model).unwrap();
    }
    let (mut restored, state) = (Ema::new(0.9).warmup(), ema.state().unwrap());
    restored.load_state(&state).unwrap();
    for step in &STEPS[2..] {
        set(&model, *step);
        ema.update(&model).unwrap();
        restored.update(&model).unwrap();
    }
    assert_eq!(weight(&restored.state_dict().unwrap()), weight(&ema.state_dict().unwrap()));
    assert_eq!(restored.updates(), 4);
    let other = Linear::new(2, 1);
    assert!(ema.update(&other).unwrap_err().to_string().contains("another model"));
    assert!(ema.swap(&other).unwrap_err().to_string().contains("another model"));
    let mut of_other = Ema::new(0.9);
    of_other.update(&other).unwrap();
    assert!(of_other.load_state(&state).unwrap_err().to_string().contains("another model"));
    for (name, value) in [("updates", Tensor::scalar(-1i64)), ("updates", Tensor::scalar(0.5)), ("x", Tensor::scalar(0.5))] {
        let mut spoiled = state.clone();
        spoiled.insert(name, value);
        assert!(matches!(of_other.load_state(&spoiled), Err(Error::StateDict(_))), "{name}");
    }
    assert!(of_other.load_state(&StateDict::new()).is_err());
}

#[test]
fn settings_out_of_range_are_errors() {
    for mut ema in [Ema::new(1.5), Ema::new(f64::NAN), Ema::new(0.9).warmup_curve(0.0, 1.0), Ema::new(0.9).warmup_curve(1.0, f64::NAN)] {
        assert!(matches!(ema.update(&model()), Err(Error::Argument { .. })), "{ema:?}");
    }
}

#[test]
fn buffers_are_copied_or_averaged() {
    let bn = BatchNorm1d::new(1);
    let run = |mut ema: Ema| {
        for mean in [1.0f32, 2.0, 4.0] {
            bn.running_mean.as_ref().unwrap().set(&Tensor::from_vec(vec![mean], [1]).unwrap()).unwrap();
            ema.update(&bn).unwrap();
        }
        ema.state_dict().unwrap().get("running_mean").unwrap().item::<f32>().unwrap()
    };
    assert_eq!(run(Ema::new(0.5)), 4.0);
    assert_eq!(run(Ema::new(0.5).average_buffers(true)), 2.75);
}
