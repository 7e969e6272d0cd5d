//! Schedules of learning rates against PyTorch.

use convnet::Tensor;
use convnet::nn::Parameter;
use convnet::optim::{
    Adagrad, Anneal, ChainedLr, CosineAnnealingLr, CosineWarmRestarts, CyclicLr, CyclicMode, ExponentialLr, LambdaLr, LinearWarmup,
    LrSchedule, MultiStepLr, OneCycleLr, Optimizer, OptimizerState, PlateauMode, PolynomialLr, ReduceLrOnPlateau, SequentialLr, Sgd,
    StepLr, ThresholdMode,
};

use super::{FIXTURE, assert_close, numbers};

fn scheduled() -> Sgd {
    let parameter = || [Parameter::new(Tensor::zeros([1]))];
    Sgd::new(parameter(), 0.1).momentum(0.9).group(parameter(), |options| options.learning_rate = 0.02)
}

/// The fixture's rates come from recurrences, these from closed forms: some 50 roundings apart.
const RATE_TOLERANCE: f64 = 1e-12;

#[test]
fn every_schedule_follows_pytorch() {
    for (name, rows) in FIXTURE["schedules"].as_object().unwrap() {
        let schedule: Box<dyn LrSchedule> = match name.as_str() {
            "step" => Box::new(StepLr::new(7)),
            "step_gamma" => Box::new(StepLr::new(10).gamma(0.5)),
            "multi_step" => Box::new(MultiStepLr::new([5, 20, 20, 33]).gamma(0.3)),
            "exponential" => Box::new(ExponentialLr::new(0.93)),
            "cosine" => Box::new(CosineAnnealingLr::new(0.0).steps(50)),
            "cosine_minimum" => Box::new(CosineAnnealingLr::new(0.003).steps(15)),
            "one_cycle" => Box::new(OneCycleLr::new(0.4, 50)),
            "one_cycle_linear" => {
                let cycle = OneCycleLr::new(0.0, 50).group_max_rates([0.4, 0.1]).pct_start(0.41).anneal(Anneal::Linear);
                Box::new(cycle.div_factor(10.0).final_div_factor(100.0).momentum([0.5, 0.8]))
            }
            "one_cycle_three_phase" => Box::new(OneCycleLr::new(0.4, 50).three_phase(true).pct_start(0.25).momentum(None)),
            "warm_restarts" => Box::new(CosineWarmRestarts::new(7)),
            "warm_restarts_longer" => Box::new(CosineWarmRestarts::new(5).multiplier(2).minimum(0.004)),
            "polynomial" => Box::new(PolynomialLr::new(50)),
            "polynomial_power" => Box::new(PolynomialLr::new(30).power(2.5)),
            "cyclic" => Box::new(CyclicLr::new(0.01, 0.1).step_size(6, 6)),
            "cyclic_halving" => {
                let cyclic = CyclicLr::new(0.01, 0.2).step_size(4, 7).momentum([0.6, 0.85]);
                Box::new(cyclic.mode(CyclicMode::Triangular2))
            }
            "cyclic_exponential" => {
                let cyclic = CyclicLr::new(0.0, 0.0).group_rates([[0.01, 0.1], [0.02, 0.3]]).step_size(5, 3).momentum(None);
                Box::new(cyclic.mode(CyclicMode::ExpRange(0.97)))
            }
            "lambda" => Box::new(LambdaLr::new(|step| 0.95f64.powf(step as f64))),
            "lambda_groups" => {
                let factor = |step: u64, group| if group == 0 { 0.9f64.powf(step as f64) } else { 1.0 / (1.0 + step as f64) };
                Box::new(LambdaLr::by_group(factor))
            }
            "sequential" => {
                let sequence = SequentialLr::new(ExponentialLr::new(0.9)).switch_at(10, StepLr::new(4));
                Box::new(sequence.switch_at(30, CosineAnnealingLr::new(0.0).steps(20)))
            }
            "chained" => Box::new(ChainedLr::new(ExponentialLr::new(0.95)).and(MultiStepLr::new([10, 30]).gamma(0.5))),
            "warm_cosine" => Box::new(LinearWarmup::new(6, CosineAnnealingLr::new(0.0).steps(44))),
            "warm_step" => Box::new(LinearWarmup::new(10, StepLr::new(9)).start_factor(0.01)),
            "warm_exponential" => Box::new(LinearWarmup::new(1, ExponentialLr::new(0.9)).start_factor(0.5)),
            _ => panic!("the fixture has a schedule {name} that is not built here"),
        };
        let mut optimizer = scheduled();
        let mut schedule = schedule.attach(&mut optimizer).unwrap();
        for (step, row) in rows.as_array().unwrap().iter().enumerate() {
            let momenta: Vec<f64> = (0..2).map(|group| optimizer.momentum_of(group).unwrap().unwrap()).collect();
            let (rates, expected) = (optimizer.learning_rates(), numbers(&row[0]));
            assert_close(&format!("{name} step {step} rates"), &rates, &expected, RATE_TOLERANCE);
            assert_close(&format!("{name} step {step} momentum"), &momenta, &numbers(&row[1]), RATE_TOLERANCE);
            schedule.step(&mut optimizer).unwrap();
        }
    }
}

fn plateau(name: &str) -> ReduceLrOnPlateau {
    let plateau = ReduceLrOnPlateau::new();
    match name {
        "min" => plateau.factor(0.5).patience(3),
        "max_absolute" => plateau.mode(PlateauMode::Max).factor(0.3).patience(2).threshold(0.05, ThresholdMode::Absolute).cooldown(4),
        "max_relative" => {
            plateau.mode(PlateauMode::Max).factor(0.5).patience(4).threshold(0.1, ThresholdMode::Relative).min_learning_rate(0.015)
        }
        "min_absolute" => plateau.patience(1).threshold(0.01, ThresholdMode::Absolute).cooldown(1).eps(1e-4),
        _ => panic!("the fixture has a plateau {name} that is not built here"),
    }
}

#[test]
fn reducing_on_a_plateau_follows_pytorch_also_across_a_snapshot() {
    for (name, rows) in FIXTURE["plateaus"].as_object().unwrap() {
        let mut optimizer = scheduled();
        let mut schedule = plateau(name).attach(&mut optimizer).unwrap();
        let metrics = numbers(&FIXTURE["metrics"]);
        for (step, (row, &metric)) in rows.as_array().unwrap().iter().zip(&metrics).enumerate() {
            if step == 20 {
                let state = schedule.state();
                let before = optimizer.learning_rates();
                optimizer = scheduled();
                schedule = plateau(name).attach(&mut optimizer).unwrap();
                schedule.load_state(&state, &mut optimizer).unwrap();
                assert_eq!(optimizer.learning_rates(), before, "{name}: before the next step");
                let refused = schedule.load_state(&OptimizerState::default(), &mut optimizer).unwrap_err();
                assert!(refused.to_string().contains("schedule.step is missing"));
            }
            schedule.step_with(&mut optimizer, metric).unwrap();
            assert_close(&format!("{name} step {step}"), &optimizer.learning_rates(), &numbers(row), RATE_TOLERANCE);
        }
        assert!(optimizer.learning_rate(0).unwrap() < 0.1, "{name} reduces at all");
        assert!(schedule.step(&mut optimizer).unwrap_err().to_string().contains("step_with"));
    }
}

/// Saves after each of 40 steps, restores into a new optimiser and schedule, and compares all rates
/// from there on, bit by bit.
fn continues_from_every_step<S: LrSchedule + Clone>(name: &str, schedule: S) {
    let metrics = numbers(&FIXTURE["metrics"]);
    let rates = |optimizer: &Sgd| {
        let momenta: Vec<_> = (0..2).map(|group| optimizer.momentum_of(group).unwrap()).collect();
        (optimizer.learning_rates(), momenta)
    };
    let mut optimizer = scheduled();
    let mut attached = schedule.clone().attach(&mut optimizer).unwrap();
    let (mut expected, mut snapshots) = (vec![], vec![]);
    for metric in &metrics[..40] {
        expected.push(rates(&optimizer));
        snapshots.push((optimizer.state(), attached.state()));
        attached.step_with(&mut optimizer, *metric).unwrap();
    }
    assert!(expected.iter().any(|rates| *rates != expected[0]), "{name} changes something");
    for (start, (of_optimizer, of_schedule)) in snapshots.iter().enumerate() {
        for optimizer_first in [false, true] {
            let mut optimizer = scheduled();
            if optimizer_first {
                optimizer.load_state(of_optimizer).unwrap();
            }
            let mut attached = schedule.clone().attach(&mut optimizer).unwrap();
            attached.load_state(of_schedule, &mut optimizer).unwrap();
            for step in start..40 {
                assert_eq!(rates(&optimizer), expected[step], "{name}: step {step}, restored at {start}");
                attached.step_with(&mut optimizer, metrics[step]).unwrap();
            }
        }
    }
}

#[test]
fn every_schedule_restored_into_a_new_optimiser_has_its_rates_at_once_and_from_then_on() {
    continues_from_every_step("step", StepLr::new(7));
    continues_from_every_step("multi_step", MultiStepLr::new([5, 20, 20, 33]).gamma(0.3));
    continues_from_every_step("exponential", ExponentialLr::new(0.93));
    continues_from_every_step("cosine", CosineAnnealingLr::new(0.003).steps(15));
    continues_from_every_step("one_cycle", OneCycleLr::new(0.4, 50));
    continues_from_every_step("plateau", plateau("min_absolute"));
    continues_from_every_step("warm_step", LinearWarmup::new(10, StepLr::new(9)).start_factor(0.01));
    continues_from_every_step("warm_restarts", CosineWarmRestarts::new(5).multiplier(2));
    continues_from_every_step("polynomial", PolynomialLr::new(30));
    continues_from_every_step("cyclic", CyclicLr::new(0.01, 0.1).step_size(4, 7));
    continues_from_every_step("lambda", LambdaLr::new(|step| 1.0 / (1.0 + step as f64)));
    let boxed: Box<dyn LrSchedule> = Box::new(SequentialLr::new(plateau("min")).switch_at(20, plateau("max_absolute")));
    continues_from_every_step("sequential_plateaus, boxed", boxed);
    continues_from_every_step("chained", ChainedLr::new(ExponentialLr::new(0.99)).and(plateau("min")));
    continues_from_every_step("warm_plateau", LinearWarmup::new(6, plateau("min")).start_factor(0.1));
}

#[test]
fn schedule_that_cannot_be_restored_leaves_itself_and_the_optimiser_as_they_were() {
    let mut optimizer = scheduled();
    let mut schedule = ExponentialLr::new(0.5).attach(&mut optimizer).unwrap();
    schedule.step(&mut optimizer).unwrap();
    let spoiled = |name: &str, value: Tensor| -> OptimizerState {
        schedule.state().into_iter().map(|(key, old)| if key == name { (key, value.clone()) } else { (key, old) }).collect()
    };
    // The second group's base is refused by the optimiser, when the first one's rate has been set.
    let states = [spoiled("schedule.base.1", Tensor::scalar(f64::NAN)), spoiled("schedule.step", Tensor::scalar(-1i64))];
    let mut restored = ExponentialLr::new(0.5).attach(&mut optimizer).unwrap();
    let (rates, steps) = (optimizer.learning_rates(), restored.steps());
    for state in states {
        assert!(restored.load_state(&state, &mut optimizer).is_err());
        assert_eq!((optimizer.learning_rates(), restored.steps()), (rates.clone(), steps));
    }
    // A snapshot for an optimiser with other groups.
    let mut other = Sgd::new([Parameter::new(Tensor::zeros([1]))], 0.3);
    assert!(restored.load_state(&schedule.state(), &mut other).unwrap_err().to_string().contains("2 parameter groups"));
    assert_eq!(other.learning_rates(), [0.3]);
}

#[test]
fn warm_up_before_a_plateau_hides_its_metrics() {
    let mut optimizer = scheduled();
    let warm = LinearWarmup::new(4, ReduceLrOnPlateau::new().patience(1).factor(0.5)).start_factor(0.0);
    let mut schedule = warm.attach(&mut optimizer).unwrap();
    let mut rates = vec![optimizer.learning_rate(0).unwrap()];
    for _ in 0..4 {
        schedule.step(&mut optimizer).unwrap();
        rates.push(optimizer.learning_rate(0).unwrap());
    }
    for _ in 0..3 {
        schedule.step_with(&mut optimizer, 1.0).unwrap();
        rates.push(optimizer.learning_rate(0).unwrap());
    }
    assert_close("rates", &rates, &[0.0, 0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.05], 1e-12);
}

#[test]
fn part_of_a_sequence_gets_the_metrics_of_its_own_steps() {
    let mut optimizer = scheduled();
    let sequence = SequentialLr::new(StepLr::new(100)).switch_at(3, ReduceLrOnPlateau::new().patience(0).factor(0.5));
    let mut schedule = sequence.attach(&mut optimizer).unwrap();
    for _ in 0..3 {
        schedule.step(&mut optimizer).unwrap();
    }
    assert!(schedule.step(&mut optimizer).unwrap_err().to_string().contains("step_with"));
    let rates: Vec<f64> = [1.0, 1.0, 0.5, 0.5]
        .map(|metric| {
            schedule.step_with(&mut optimizer, metric).unwrap();
            optimizer.learning_rate(0).unwrap()
        })
        .to_vec();
    assert_close("rates", &rates, &[0.1, 0.05, 0.05, 0.025], 1e-12);
}

#[test]
fn schedules_with_settings_out_of_range_are_not_attached() {
    let schedules: Vec<(&str, Box<dyn LrSchedule>)> = vec![
        ("step size", Box::new(StepLr::new(0))),
        ("gamma", Box::new(StepLr::new(1).gamma(-0.1))),
        ("gamma", Box::new(MultiStepLr::new([1]).gamma(f64::NAN))),
        ("gamma", Box::new(ExponentialLr::new(f64::INFINITY))),
        ("number of steps", Box::new(CosineAnnealingLr::new(0.0).steps(0))),
        ("minimum", Box::new(CosineAnnealingLr::new(-1.0).steps(1))),
        ("number of steps", Box::new(OneCycleLr::new(0.1, 0))),
        ("maximal rate", Box::new(OneCycleLr::new(f64::NAN, 10))),
        ("pct_start", Box::new(OneCycleLr::new(0.1, 10).pct_start(1.1))),
        ("division factors", Box::new(OneCycleLr::new(0.1, 10).div_factor(0.0))),
        ("momentum", Box::new(OneCycleLr::new(0.1, 10).momentum([0.5, 1.0]))),
        ("group 0", Box::new(OneCycleLr::new(0.1, 10).group_max_rates([]))),
        ("factor", Box::new(ReduceLrOnPlateau::new().factor(1.0))),
        ("period", Box::new(CosineWarmRestarts::new(0))),
        ("multiplier", Box::new(CosineWarmRestarts::new(1).multiplier(0))),
        ("minimum", Box::new(CosineWarmRestarts::new(1).minimum(f64::NAN))),
        ("number of steps", Box::new(PolynomialLr::new(0))),
        ("power", Box::new(PolynomialLr::new(1).power(-1.0))),
        ("steps up", Box::new(CyclicLr::new(0.1, 0.2).step_size(0, 1))),
        ("steps down", Box::new(CyclicLr::new(0.1, 0.2).step_size(1, 0))),
        ("rate", Box::new(CyclicLr::new(0.1, f64::NAN))),
        ("gamma", Box::new(CyclicLr::new(0.1, 0.2).mode(CyclicMode::ExpRange(-1.0)))),
        ("momentum", Box::new(CyclicLr::new(0.1, 0.2).momentum([0.5, 1.0]))),
        ("group 0", Box::new(CyclicLr::new(0.1, 0.2).group_rates([]))),
        ("learning rate", Box::new(LambdaLr::new(|_| f64::NAN))),
        ("steps 5 and 5", Box::new(SequentialLr::new(StepLr::new(1)).switch_at(5, StepLr::new(1)).switch_at(5, StepLr::new(1)))),
        ("step size", Box::new(SequentialLr::new(StepLr::new(1)).switch_at(5, StepLr::new(0)))),
        ("step size", Box::new(ChainedLr::new(StepLr::new(1)).and(StepLr::new(0)))),
        ("start factor", Box::new(LinearWarmup::new(3, CosineAnnealingLr::new(0.0).steps(1)).start_factor(1.5))),
        ("step size", Box::new(LinearWarmup::new(3, StepLr::new(0)))),
    ];
    for (word, schedule) in schedules {
        let error = schedule.attach(&mut scheduled()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(word), "{error} names {word}");
    }
}

#[test]
fn cycle_ends_and_needs_an_optimiser_with_momentum() {
    let mut optimizer = scheduled();
    let mut schedule = OneCycleLr::new(0.1, 3).attach(&mut optimizer).unwrap();
    for _ in 0..3 {
        schedule.step(&mut optimizer).unwrap();
    }
    for _ in 0..2 {
        assert!(schedule.step(&mut optimizer).unwrap_err().to_string().contains("step 4 is past the 3 steps"));
    }
    let mut adagrad = Adagrad::new([Parameter::new(Tensor::zeros([1]))], 0.1);
    assert!(OneCycleLr::new(0.1, 3).attach(&mut adagrad).unwrap_err().to_string().contains("no momentum"));
    assert!(OneCycleLr::new(0.1, 3).momentum(None).attach(&mut adagrad).is_ok());
    // Another optimiser than the schedule's own.
    assert!(schedule.step(&mut adagrad).unwrap_err().to_string().contains("2 parameter groups, the optimiser has 1"));
}
