//! Optimisers, schedules and clipping against PyTorch; `fixtures/optim.py` made the numbers.

mod clipping;
mod schedules;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use convnet::autograd::Gradients;
use convnet::nn::Parameter;
use convnet::optim::{
    Adadelta, Adagrad, Adam, AdamW, Lamb, Lars, Lion, LrSchedule, NAdam, OneCycleLr, Optimizer, OptimizerState, RAdam, RmsProp, Sgd,
    clip_grad_norm,
};
use convnet::{Element, Tensor};
use serde_json::Value;

const STEPS: usize = 50;
const NAMES: [&str; 5] = ["w1", "b1", "w2", "b2", "scale"];

static FIXTURE: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("../fixtures/optim.json")).unwrap());

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap_or(f64::NAN)).collect()
}

trait Real: Element {
    const NAME: &'static str;
    fn of(x: f64) -> Self;
    fn wide(self) -> f64;
}

impl Real for f32 {
    const NAME: &'static str = "f32";
    fn of(x: f64) -> f32 {
        x as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

impl Real for f64 {
    const NAME: &'static str = "f64";
    /// The fixture's numbers are f32 values in decimal.
    fn of(x: f64) -> f64 {
        f64::from(x as f32)
    }
    fn wide(self) -> f64 {
        self
    }
}

fn tensor<T: Real>(value: &Value, shape: &[usize]) -> Tensor {
    Tensor::from_vec(numbers(value).into_iter().map(T::of).collect(), shape).unwrap()
}

/// The fixture's problem: two dense layers, a scale, and one parameter that the loss does not use.
struct Problem {
    parameters: BTreeMap<&'static str, Parameter>,
    unused: Parameter,
    input: Tensor,
    target: Tensor,
}

impl Problem {
    fn new<T: Real>() -> Problem {
        let shape = |name: &str| numbers(&FIXTURE["shapes"][name]).into_iter().map(|n| n as usize).collect::<Vec<_>>();
        let parameters = NAMES.map(|name| (name, Parameter::new(tensor::<T>(&FIXTURE["initial"][name], &shape(name))))).into();
        let unused = Parameter::new(tensor::<T>(&FIXTURE["initial"]["b2"], &[3]));
        let (input, target) = (tensor::<T>(&FIXTURE["input"], &[6, 4]), tensor::<T>(&FIXTURE["target"], &[6, 3]));
        Problem { parameters, unused, input, target }
    }

    fn of(&self, names: &[&str]) -> Vec<Parameter> {
        names.iter().map(|name| self.parameters[name].clone()).collect()
    }

    fn all(&self) -> Vec<Parameter> {
        let mut all = self.of(&NAMES);
        all.insert(2, self.unused.clone());
        all
    }

    fn loss(&self) -> Tensor {
        let p = |name: &str| self.parameters[name].tensor();
        let hidden = self.input.linear(&p("w1"), Some(&p("b1"))).unwrap().tanh().unwrap();
        let output = hidden.linear(&p("w2"), Some(&p("b2"))).unwrap().mul(&p("scale")).unwrap();
        let error = output.sub(&self.target).unwrap();
        error.mul(&error).unwrap().sum(..).unwrap() * 0.1
    }

    /// The gradients that the optimiser of this name takes: those of the negative loss where it
    /// maximises.
    fn gradients(&self, name: &str) -> Gradients {
        let loss = self.loss();
        if name.ends_with("maximize") { loss.neg().backward().unwrap() } else { loss.backward().unwrap() }
    }

    fn values<T: Real>(&self) -> BTreeMap<&'static str, Vec<f64>> {
        self.parameters.iter().map(|(&name, p)| (name, p.tensor().to_vec::<T>().unwrap().into_iter().map(T::wide).collect())).collect()
    }

    /// The bits of every parameter.
    fn bits(&self) -> Vec<u64> {
        self.values::<f64>().into_values().flatten().map(f64::to_bits).collect()
    }
}

fn two_groups<O>(problem: &Problem, build: impl FnOnce(Vec<Parameter>, Vec<Parameter>) -> O) -> O {
    let mut weights = problem.of(&["w1", "w2"]);
    weights.push(problem.unused.clone());
    build(weights, problem.of(&["b1", "b2", "scale"]))
}

/// The optimiser that the fixture has under this name, and whether a 1cycle schedule goes with it.
fn optimizer(name: &str, problem: &Problem) -> (Box<dyn Optimizer>, bool) {
    let p = problem.all();
    let optimizer: Box<dyn Optimizer> = match name {
        "sgd" => Box::new(Sgd::new(p, 0.05)),
        "sgd_decay" => Box::new(Sgd::new(p, 0.05).weight_decay(0.02)),
        "sgd_momentum" => Box::new(Sgd::new(p, 0.02).momentum(0.9).weight_decay(5e-4)),
        "sgd_dampening" => Box::new(Sgd::new(p, 0.05).momentum(0.8).dampening(0.3)),
        "sgd_nesterov" => Box::new(Sgd::new(p, 0.02).momentum(0.9).nesterov(true).weight_decay(1e-3)),
        "sgd_groups" => two_groups(problem, |weights, others| {
            let own = |o: &mut convnet::optim::SgdOptions| (o.learning_rate, o.weight_decay, o.momentum) = (0.01, 0.0, 0.5);
            // Setters before and after the group: the order must not matter.
            Box::new(Sgd::new(weights, 0.03).momentum(0.9).group(others, own).weight_decay(0.01))
        }),
        "sgd_maximize" => Box::new(Sgd::new(p, 0.02).momentum(0.9).weight_decay(0.01).maximize(true)),
        "sgd_one_cycle" => return (Box::new(Sgd::new(p, 0.1).momentum(0.9)), true),
        "adam" => Box::new(Adam::new(p, 0.01)),
        "adam_decay" => Box::new(Adam::new(p, 0.02).betas(0.8, 0.99).eps(1e-6).weight_decay(0.05)),
        "adam_amsgrad" => Box::new(Adam::new(p, 0.05).betas(0.9, 0.9).amsgrad(true)),
        "adam_groups" => two_groups(problem, |weights, others| {
            let adam = Adam::new(weights, 0.02).weight_decay(0.01);
            Box::new(adam.group(others, |o| (o.learning_rate, o.betas) = (0.002, [0.7, 0.95])))
        }),
        "adam_one_cycle" => return (Box::new(Adam::new(p, 0.1)), true),
        "adamw" => Box::new(AdamW::new(p, 0.02)),
        "adamw_amsgrad" => Box::new(AdamW::new(p, 0.05).betas(0.85, 0.95).weight_decay(0.1).amsgrad(true)),
        "adamw_maximize" => Box::new(AdamW::new(p, 0.02).weight_decay(0.1).maximize(true)),
        "rmsprop" => Box::new(RmsProp::new(p, 0.005)),
        "rmsprop_alpha" => Box::new(RmsProp::new(p, 0.01).alpha(0.9).eps(1e-4).weight_decay(0.01)),
        "rmsprop_centered" => Box::new(RmsProp::new(p, 0.002).alpha(0.95).eps(1e-3).centered(true)),
        "rmsprop_momentum" => Box::new(RmsProp::new(p, 0.001).momentum(0.9).weight_decay(1e-3)),
        "rmsprop_all" => Box::new(RmsProp::new(p, 0.001).alpha(0.9).eps(1e-3).momentum(0.8).centered(true)),
        "adagrad" => Box::new(Adagrad::new(p, 0.1)),
        "adagrad_all" => Box::new(Adagrad::new(p, 0.2).learning_rate_decay(0.05).weight_decay(0.01).initial_accumulator(0.3).eps(1e-6)),
        "adagrad_groups" => two_groups(problem, |weights, others| {
            let adagrad = Adagrad::new(weights, 0.1).weight_decay(0.01);
            Box::new(adagrad.group(others, |o| (o.learning_rate, o.learning_rate_decay) = (0.02, 0.1)))
        }),
        "adadelta" => Box::new(Adadelta::new(p, 1.0)),
        "adadelta_all" => Box::new(Adadelta::new(p, 2.0).rho(0.8).eps(1e-4).weight_decay(0.01)),
        "nadam" => Box::new(NAdam::new(p, 0.02)),
        "nadam_decay" => Box::new(NAdam::new(p, 0.01).betas(0.8, 0.99).eps(1e-6).weight_decay(0.05).momentum_decay(0.02)),
        "nadam_decoupled" => Box::new(NAdam::new(p, 0.02).weight_decay(0.05).decoupled_weight_decay(true)),
        "nadam_one_cycle" => return (Box::new(NAdam::new(p, 0.1)), true),
        "radam" => Box::new(RAdam::new(p, 0.02)),
        "radam_decay" => Box::new(RAdam::new(p, 0.02).betas(0.8, 0.9).eps(1e-5).weight_decay(0.05)),
        "radam_decoupled" => Box::new(RAdam::new(p, 0.02).weight_decay(0.05).decoupled_weight_decay(true)),
        "lamb" => Box::new(Lamb::new(p, 0.02)),
        "lamb_all" => {
            let lamb = Lamb::new(p, 0.02).betas(0.8, 0.99).eps(1e-4).weight_decay(0.1).max_grad_norm(0.2);
            Box::new(lamb.trust_clip(true).always_adapt(true))
        }
        "lamb_decoupled" => Box::new(Lamb::new(p, 0.01).weight_decay(0.1).max_grad_norm(f64::INFINITY).decoupled_weight_decay(true)),
        "lamb_groups" => two_groups(problem, |weights, others| {
            let lamb = Lamb::new(weights, 0.02).weight_decay(0.05);
            Box::new(lamb.group(others, |o| (o.learning_rate, o.weight_decay) = (0.005, 0.0)))
        }),
        "lars" => Box::new(Lars::new(p, 0.1)),
        "lars_decay" => Box::new(Lars::new(p, 1.0).momentum(0.9).weight_decay(0.01).trust_coefficient(0.01)),
        "lars_all" => {
            let lars = Lars::new(p, 0.05).momentum(0.8).nesterov(true).trust_coefficient(0.2).eps(1e-4);
            Box::new(lars.trust_clip(true).always_adapt(true))
        }
        "lars_groups" => two_groups(problem, |weights, others| {
            let lars = Lars::new(weights, 1.0).momentum(0.9).dampening(0.1).weight_decay(0.02).trust_coefficient(0.01);
            Box::new(lars.group(others, |o| (o.learning_rate, o.weight_decay) = (0.01, 0.0)))
        }),
        "lion" => Box::new(Lion::new(p, 0.01)),
        "lion_decay" => Box::new(Lion::new(p, 0.005).betas(0.8, 0.95).weight_decay(0.1)),
        "lion_one_cycle" => return (Box::new(Lion::new(p, 0.1)), true),
        _ => panic!("the fixture has an optimiser {name} that is not built here"),
    };
    (optimizer, false)
}

fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-300, |max: f64, x| max.max(x.abs()));
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!(
            approx::abs_diff_eq!(a, b, epsilon = tolerance * scale),
            "{what}[{i}]: {a} instead of {b}, off by {:e} of {scale}",
            (a - b).abs() / scale
        );
    }
}

fn follow<T: Real>(tolerance: f64) {
    for (name, expected) in FIXTURE[T::NAME].as_object().unwrap() {
        let problem = Problem::new::<T>();
        let (mut optimizer, cycled) = optimizer(name, &problem);
        let mut schedule = cycled.then(|| OneCycleLr::new(0.1, STEPS as u64).attach(&mut *optimizer).unwrap());
        let mut losses = vec![];
        for _ in 0..STEPS {
            losses.push(problem.loss().item::<T>().unwrap().wide());
            optimizer.step(&problem.gradients(name)).unwrap();
            if let Some(schedule) = &mut schedule {
                schedule.step(&mut *optimizer).unwrap();
            }
        }
        if let Some(expected) = expected.get("losses") {
            assert_close(&format!("{name} loss"), &losses, &numbers(expected), tolerance);
        }
        assert!(losses[STEPS - 1] < losses[0], "{name} learns");
        for (parameter, values) in problem.values::<T>() {
            assert_close(&format!("{name} {parameter}"), &values, &numbers(&expected["final"][parameter]), tolerance);
        }
        let unused = problem.unused.tensor().to_vec::<T>().unwrap().into_iter().map(T::wide).collect::<Vec<_>>();
        let initial = tensor::<T>(&FIXTURE["initial"]["b2"], &[3]).to_vec::<T>().unwrap().into_iter().map(T::wide).collect::<Vec<_>>();
        assert_eq!(unused, initial, "{name} leaves a parameter without a gradient alone, weight decay or not");
    }
}

#[test]
fn every_optimiser_follows_pytorch_in_f64() {
    follow::<f64>(1e-10);
}

/// Rounding differs in order; 50 steps on a smooth problem do not amplify it beyond 1e-5 of the
/// largest element.
#[test]
fn every_optimiser_follows_pytorch_in_f32() {
    follow::<f32>(1e-5);
}

#[test]
fn every_optimiser_continues_with_the_same_bits_after_a_round_trip_of_its_state() {
    for name in FIXTURE["f64"].as_object().unwrap().keys() {
        let run = |interrupted: bool| {
            let mut problem = Problem::new::<f64>();
            let (mut current, cycled) = optimizer(name, &problem);
            let new_schedule = |optimizer: &mut dyn Optimizer| OneCycleLr::new(0.1, STEPS as u64).attach(optimizer).unwrap();
            let mut schedule = cycled.then(|| new_schedule(&mut *current));
            for step in 0..30 {
                if interrupted && step == 13 {
                    // What a checkpoint would hold, into a new network, optimiser and schedule.
                    let entries: Vec<(String, Tensor)> = current.state().into_iter().collect();
                    let values = problem.values::<f64>();
                    let of_schedule = schedule.as_ref().map(|schedule| schedule.state());
                    problem = Problem::new::<f64>();
                    for (name, parameter) in &problem.parameters {
                        parameter.set(&Tensor::from_vec(values[name].clone(), parameter.shape()).unwrap()).unwrap();
                    }
                    current = optimizer(name, &problem).0;
                    schedule = cycled.then(|| new_schedule(&mut *current));
                    current.load_state(&OptimizerState::from(entries)).unwrap();
                    if let (Some(schedule), Some(state)) = (&mut schedule, of_schedule) {
                        schedule.load_state(&state, &mut *current).unwrap();
                        assert_eq!(schedule.steps(), 13);
                    }
                }
                current.step(&problem.gradients(name)).unwrap();
                if let Some(schedule) = &mut schedule {
                    schedule.step(&mut *current).unwrap();
                }
            }
            problem.bits()
        };
        assert_eq!(run(true), run(false), "{name}");
    }
}

#[test]
fn every_optimiser_maximises_what_it_would_minimise_with_the_opposite_sign() {
    type Build = fn(Vec<Parameter>, bool) -> Box<dyn Optimizer>;
    let builds: [Build; 11] = [
        |p, maximize| Box::new(Sgd::new(p, 0.1).weight_decay(0.1).maximize(maximize)),
        |p, maximize| Box::new(Adam::new(p, 0.1).maximize(maximize)),
        |p, maximize| Box::new(AdamW::new(p, 0.1).maximize(maximize)),
        |p, maximize| Box::new(NAdam::new(p, 0.1).maximize(maximize)),
        |p, maximize| Box::new(RAdam::new(p, 0.1).maximize(maximize)),
        |p, maximize| Box::new(RmsProp::new(p, 0.1).maximize(maximize)),
        |p, maximize| Box::new(Adagrad::new(p, 0.1).maximize(maximize)),
        |p, maximize| Box::new(Adadelta::new(p, 1.0).maximize(maximize)),
        |p, maximize| Box::new(Lamb::new(p, 0.1).maximize(maximize)),
        |p, maximize| Box::new(Lars::new(p, 0.1).maximize(maximize)),
        |p, maximize| Box::new(Lion::new(p, 0.1).maximize(maximize)),
    ];
    for build in builds {
        let run = |maximize: bool| {
            let problem = Problem::new::<f64>();
            let mut optimizer = build(problem.all(), maximize);
            for _ in 0..3 {
                let loss = if maximize { problem.loss().neg() } else { problem.loss() };
                optimizer.step(&loss.backward().unwrap()).unwrap();
            }
            problem.bits()
        };
        let name = build(vec![], true).state().iter().next().expect("options").0.to_string();
        assert_eq!(run(true), run(false), "{name}");
    }
}

#[test]
fn snapshots_of_earlier_versions_load() {
    let problem = Problem::new::<f64>();
    let mut adam = Adam::new(problem.all(), 0.01).eps(1e-3);
    adam.step(&problem.loss().backward().unwrap()).unwrap();
    let earlier: OptimizerState = adam.state().into_iter().filter(|(name, _)| !name.ends_with("maximize")).collect();
    let earlier: OptimizerState = earlier.into_iter().map(|(name, value)| (name.replace(".eps", ".epsilon"), value)).collect();
    assert!(earlier.get("adam.group.0.epsilon").is_some());
    let mut other = Adam::new(problem.all(), 0.5).maximize(true);
    other.load_state(&earlier).unwrap();
    assert_eq!(other.options(0), adam.options(0));
    // It has to be there under one of its names.
    let without = earlier.into_iter().filter(|(name, _)| !name.ends_with("epsilon")).collect();
    assert!(other.load_state(&without).unwrap_err().to_string().contains("adam.group.0.eps is missing"));
}

#[test]
fn update_has_the_same_bits_whatever_the_number_of_threads() {
    type Build = fn(Vec<Parameter>) -> Box<dyn Optimizer>;
    let builds: [Build; 7] = [
        |p| Box::new(AdamW::new(p, 0.01).amsgrad(true)),
        |p| Box::new(Adadelta::new(p, 1.0)),
        |p| Box::new(NAdam::new(p, 0.01)),
        |p| Box::new(RAdam::new(p, 0.01)),
        |p| Box::new(Lamb::new(p, 0.01).max_grad_norm(0.5)),
        |p| Box::new(Lars::new(p, 0.1).momentum(0.9).weight_decay(0.01)),
        |p| Box::new(Lion::new(p, 0.01)),
    ];
    let run = |build: Build, threads: usize| {
        convnet::set_num_threads(threads).unwrap();
        let start = Tensor::from_vec((0..100_003).map(|i| (i * 7919 % 1013) as f32 / 999.0 - 0.5).collect(), [100_003]).unwrap();
        let w = Parameter::new(start);
        let mut optimizer = build(vec![w.clone()]);
        for _ in 0..3 {
            let mut grads = w.tensor().mul(&w.tensor()).unwrap().sum(..).unwrap().backward().unwrap();
            clip_grad_norm(std::slice::from_ref(&w), &mut grads, 1.0).unwrap();
            optimizer.step(&grads).unwrap();
        }
        w.tensor().to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
    };
    for build in builds {
        let expected = run(build, 1);
        for threads in [2, 3, 8] {
            assert_eq!(run(build, threads), expected, "{threads} threads");
        }
    }
    convnet::set_num_threads(0).unwrap();
}

#[test]
fn snapshot_that_does_not_fit_is_refused_and_changes_nothing() {
    let problem = Problem::new::<f64>();
    let mut adam = Adam::new(problem.all(), 0.01);
    adam.step(&problem.loss().backward().unwrap()).unwrap();
    let good: Vec<(String, Tensor)> = adam.state().into_iter().collect();
    let message = |optimizer: &mut dyn Optimizer, entries: Vec<(String, Tensor)>| {
        let before = format!("{:?}", optimizer.state());
        let error = optimizer.load_state(&OptimizerState::from(entries)).unwrap_err().to_string();
        assert_eq!(format!("{:?}", optimizer.state()), before);
        error
    };
    let replaced = |name: &str, value: Tensor| {
        good.iter().map(|(key, old)| (key.clone(), if key == name { value.clone() } else { old.clone() })).collect::<Vec<_>>()
    };
    assert!(message(&mut Sgd::new(problem.all(), 0.1), good.clone()).contains("sgd.group.0.learning_rate is missing"));
    assert!(message(&mut adam, good[1..].to_vec()).contains("adam.group.0.learning_rate is missing"));
    assert!(message(&mut adam, replaced("adam.param.0.exp_avg", Tensor::zeros([2]))).contains("adam.param.0.exp_avg is Tensor([2]"));
    assert!(message(&mut adam, replaced("adam.param.1.step", Tensor::scalar(-1i64))).contains("adam.param.1.step should be one i64"));
    assert!(message(&mut adam, replaced("adam.group.0.beta1", Tensor::scalar(f64::NAN))).contains("first beta"));
    let extra = [good.clone(), vec![("adam.param.9.step".into(), Tensor::scalar(1i64))]].concat();
    assert!(message(&mut adam, extra).contains("unexpected adam.param.9.step"));
    let double = [good.clone(), good[..1].to_vec()].concat();
    assert!(message(&mut adam, double).contains("there twice"));
}

#[test]
fn options_out_of_range_are_errors_of_the_step() {
    let check = |word: &str, build: &dyn Fn(Vec<Parameter>) -> Box<dyn Optimizer>| {
        let problem = Problem::new::<f64>();
        let before = problem.bits();
        let error = build(problem.all()).step(&problem.loss().backward().unwrap()).unwrap_err().to_string();
        assert!(error.contains(word), "{error} names {word}");
        assert_eq!(problem.bits(), before);
    };
    for rate in [-0.1, f64::NAN, f64::INFINITY] {
        check("sgd: learning rate", &|p| Box::new(Sgd::new(p, rate)));
        check("adam: learning rate", &|p| Box::new(Adam::new(p, rate)));
        check("adamw: learning rate", &|p| Box::new(AdamW::new(p, rate)));
        check("rmsprop: learning rate", &|p| Box::new(RmsProp::new(p, rate)));
        check("adadelta: learning rate", &|p| Box::new(Adadelta::new(p, rate)));
        check("nadam: learning rate", &|p| Box::new(NAdam::new(p, rate)));
        check("radam: learning rate", &|p| Box::new(RAdam::new(p, rate)));
        check("lamb: learning rate", &|p| Box::new(Lamb::new(p, rate)));
        check("lars: learning rate", &|p| Box::new(Lars::new(p, rate)));
        check("lion: learning rate", &|p| Box::new(Lion::new(p, rate)));
        check("adagrad: learning rate", &|p| Box::new(Adagrad::new(p, rate)));
    }
    for bad in [-0.1, 1.0, f64::NAN] {
        check("momentum", &|p| Box::new(Sgd::new(p, 0.1).momentum(bad)));
        check("momentum", &|p| Box::new(RmsProp::new(p, 0.1).momentum(bad)));
        check("rho", &|p| Box::new(Adadelta::new(p, 1.0).rho(bad)));
        check("first beta", &|p| Box::new(NAdam::new(p, 0.1).betas(bad, 0.9)));
        check("second beta", &|p| Box::new(RAdam::new(p, 0.1).betas(0.9, bad)));
        check("second beta", &|p| Box::new(Lion::new(p, 0.1).betas(0.9, bad)));
        check("momentum", &|p| Box::new(Lars::new(p, 0.1).momentum(bad)));
        check("alpha", &|p| Box::new(RmsProp::new(p, 0.1).alpha(bad)));
        check("first beta", &|p| Box::new(Adam::new(p, 0.1).betas(bad, 0.9)));
        check("second beta", &|p| Box::new(AdamW::new(p, 0.1).betas(0.9, bad)));
    }
    for bad in [-1e-3, f64::NAN] {
        check("weight decay", &|p| Box::new(Sgd::new(p, 0.1).weight_decay(bad)));
        check("weight decay", &|p| Box::new(AdamW::new(p, 0.1).weight_decay(bad)));
        check("eps", &|p| Box::new(Adam::new(p, 0.1).eps(bad)));
        check("momentum decay", &|p| Box::new(NAdam::new(p, 0.1).momentum_decay(bad)));
        check("largest norm", &|p| Box::new(Lamb::new(p, 0.1).max_grad_norm(bad)));
        check("trust coefficient", &|p| Box::new(Lars::new(p, 0.1).trust_coefficient(bad)));
        check("dampening", &|p| Box::new(Lars::new(p, 0.1).momentum(0.9).dampening(bad)));
        check("dampening", &|p| Box::new(Sgd::new(p, 0.1).momentum(0.9).dampening(bad)));
        check("decay", &|p| Box::new(Adagrad::new(p, 0.1).learning_rate_decay(bad)));
        check("initial accumulator", &|p| Box::new(Adagrad::new(p, 0.1).initial_accumulator(bad)));
    }
    check("nesterov", &|p| Box::new(Sgd::new(p, 0.1).nesterov(true)));
    check("nesterov", &|p| Box::new(Lars::new(p, 0.1).nesterov(true)));
    check("largest norm", &|p| Box::new(Lamb::new(p, 0.1).max_grad_norm(0.0)));
    check("nesterov", &|p| Box::new(Sgd::new(p, 0.1).momentum(0.9).dampening(0.1).nesterov(true)));
    check("two groups", &|p| Box::new(Sgd::new(p.clone(), 0.1).group(p, |_| {})));
    check("weight decay", &|p| Box::new(Sgd::new([], 0.1).group(p, |options| options.weight_decay = -1.0)));
}

#[test]
fn rates_are_set_by_group_and_checked() {
    let problem = Problem::new::<f32>();
    let mut sgd = two_groups(&problem, |a, b| Sgd::new(a, 0.1).group(b, |options| options.learning_rate = 0.2));
    assert_eq!((sgd.num_groups(), sgd.learning_rates(), sgd.parameters().len()), (2, vec![0.1, 0.2], 6));
    sgd.set_learning_rate(1, 0.0).unwrap();
    sgd.set_momentum(0, 0.5).unwrap();
    assert_eq!((sgd.learning_rate(1).unwrap(), sgd.momentum_of(0).unwrap(), sgd.momentum_of(1).unwrap()), (0.0, Some(0.5), Some(0.0)));
    assert!(sgd.set_learning_rate(2, 0.1).unwrap_err().to_string().contains("no group 2"));
    assert!(sgd.learning_rate(2).is_err() && sgd.momentum_of(2).is_err() && sgd.set_momentum(2, 0.1).is_err());
    assert!(sgd.set_learning_rate(0, f64::NAN).is_err() && sgd.set_learning_rate(0, -1.0).is_err() && sgd.set_momentum(0, 1.0).is_err());
    let mut adagrad = Adagrad::new(problem.all(), 0.1);
    assert!(adagrad.momentum_of(0).unwrap().is_none() && adagrad.set_momentum(0, 0.5).unwrap_err().to_string().contains("no momentum"));
    assert!(format!("{sgd:?}").starts_with("sgd(3 parameters, SgdOptions"));
}

#[test]
fn frozen_parameters_and_repeated_ones_are_not_updated_or_updated_once() {
    let problem = Problem::new::<f64>();
    problem.parameters["w1"].set_frozen(true);
    let before = problem.values::<f64>();
    let mut optimizer = Sgd::new(problem.all().into_iter().chain(problem.of(&["b1"])), 0.1).weight_decay(0.1);
    let mut grads = problem.loss().backward().unwrap();
    let of_bias = grads.get(&problem.parameters["b1"].tensor()).unwrap().to_vec::<f64>().unwrap();
    optimizer.step(&grads).unwrap();
    let after = problem.values::<f64>();
    assert_eq!(before["w1"], after["w1"]);
    let once: Vec<f64> = before["b1"].iter().zip(&of_bias).map(|(p, g)| p - 0.1 * (g + 0.1 * p)).collect();
    assert_close("b1", &after["b1"], &once, 1e-14);
    // Frozen between the forward pass and the step.
    problem.parameters["b1"].set_frozen(true);
    optimizer.step(&grads).unwrap();
    assert_eq!(problem.values::<f64>()["b1"], after["b1"]);
    grads.insert(&problem.parameters["w2"].tensor(), Tensor::zeros([7]));
    assert!(optimizer.step(&grads).unwrap_err().to_string().contains("gradient [7] does not fit a parameter [3, 5]"));
}

#[test]
fn optimiser_that_finds_no_gradient_of_its_parameters_names_the_likely_cause() {
    let (problem, other) = (Problem::new::<f64>(), Problem::new::<f64>());
    let grads = problem.loss().backward().unwrap();
    let before = other.bits();
    let message = |parameters: Vec<Parameter>, grads: &Gradients| Adam::new(parameters, 0.1).step(grads).unwrap_err().to_string();
    let foreign = message(other.all(), &grads);
    assert!(foreign.contains("none of the 6 parameters has a gradient: the 5 gradients belong to other tensors"), "{foreign}");
    assert!(foreign.contains("another network"), "{foreign}");
    assert!(message(other.all(), &Gradients::default()).contains("there are no gradients at all"));
    assert!(message(vec![], &grads).contains("there are no parameters"));
    other.parameters["w1"].set_frozen(true);
    assert!(message(other.all(), &grads).contains("none of the 6 parameters, 1 of them frozen,"));
    other.all().iter().for_each(|parameter| parameter.set_frozen(true));
    assert!(message(other.all(), &grads).contains("all 6 parameters are frozen"));
    assert_eq!(other.bits(), before);
    // One that has a gradient suffices, as the unused parameter of every other test shows.
    Adam::new(other.all().into_iter().chain(problem.of(&["scale"])), 0.1).step(&grads).unwrap();
}
