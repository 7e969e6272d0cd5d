//! Every operation against PyTorch, central differences, and itself: in both precisions, both
//! memory formats, with one thread and several.
//!
//! The cases are data, `tests/fixtures/ops.json`, made by the script beside it; one interpreter,
//! `operations/run.rs`, calls the operations.

mod accuracy;
mod check;
mod dropout;
mod fixture;
mod proportion;
mod run;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use check::{agrees_with_pytorch, bits, close, every, every_case, outcome, values};
use convnet::MemoryFormat::{ChannelsLast, RowMajor};
use convnet::autograd::{BackwardOptions, GradCheck, gradcheck};
use convnet::ops::registry::OPERATIONS;
use convnet::{DType, MemoryFormat, Tensor};
use fixture::{FIXTURE, Large};
use run::run;

/// The number of cases that an operation has at least.
fn enough(op: &str) -> usize {
    match op {
        "conv2d" => 20,
        "max_pool2d" | "avg_pool2d" | "adaptive_avg_pool2d" | "adaptive_max_pool2d" => 10,
        _ => 5,
    }
}

#[test]
fn every_operation_has_cases_enough() {
    let cases = |op: &str| FIXTURE.cases.iter().filter(|case| case.op == op).count();
    every(OPERATIONS.iter().map(|&(op, _)| (op.to_string(), op)), |op| {
        match dropout::OPERATIONS.iter().find(|(random, _)| *random == op) {
            Some(_) if cases(op) > 0 => Err("has cases, though it is random and operations/dropout.rs tests it".into()),
            None if cases(op) < enough(op) => Err(format!("has {} cases, not {}", cases(op), enough(op)).into()),
            _ => Ok(()),
        }
    });
}

#[test]
fn a_profile_sees_every_operation_and_its_backward() {
    let run_cases = || {
        for case in &FIXTURE.cases {
            let tensors = case.tensors(DType::F64, RowMajor).expect("tensors");
            let upstream = |output: &Tensor| Ok(case.numbers("upstream").map(|numbers| numbers.tensor(output.dtype())));
            outcome(&case.op, &case.args, &tensors, upstream).expect("a case runs");
        }
        for (_, drop) in dropout::OPERATIONS {
            let y = drop(&Tensor::ones([2, 3]).with_grad(), 0.5).expect("half");
            y.sum(..).and_then(|sum| sum.backward()).expect("a gradient");
        }
    };
    let seen = convnet::profile(run_cases).1.by_operation();
    every(OPERATIONS.iter().map(|&(op, _)| (op.to_string(), op)), |op| {
        let row = seen.iter().find(|row| row.operation == op).ok_or("is not timed: it has to begin with `operation`")?;
        if row.forward.calls > 0 && row.backward.calls > 0 { Ok(()) } else { Err(format!("{row:?}").into()) }
    });
}

#[test]
fn forward_and_gradients_agree_with_pytorch_in_f64() {
    every_case(|case| agrees_with_pytorch(case, DType::F64, RowMajor, RowMajor));
}

#[test]
fn forward_and_gradients_agree_with_pytorch_in_f32() {
    every_case(|case| agrees_with_pytorch(case, DType::F32, RowMajor, RowMajor));
}

#[test]
fn forward_and_gradients_agree_with_pytorch_in_channels_last() {
    every_case(|case| {
        for float in [DType::F64, DType::F32] {
            agrees_with_pytorch(case, float, ChannelsLast, ChannelsLast)?;
        }
        Ok(())
    });
}

#[test]
fn the_upstream_gradient_may_have_the_other_memory_format() {
    every_case(|case| {
        agrees_with_pytorch(case, DType::F64, ChannelsLast, RowMajor)?;
        agrees_with_pytorch(case, DType::F64, RowMajor, ChannelsLast)
    });
}

#[test]
fn gradients_of_every_registered_operation_agree_with_central_differences() {
    let checked = RefCell::new(BTreeSet::new());
    every_case(|case| {
        // The differences need a smooth neighbourhood and an f64 output; the largest cases would
        // take long.
        let tensors = case.tensors(DType::F64, RowMajor)?;
        let inputs: Vec<Tensor> = case.inputs.iter().map(|name| tensors[name.as_str()].detach()).collect();
        let smooth = !["ties", "nan", "extreme"].iter().any(|flag| case.has(flag));
        let narrowed = case.op == "to_dtype" && run::dtype(&case.args) != DType::F64;
        let elements: usize = inputs.iter().map(Tensor::numel).sum();
        if case.numbers("upstream").is_none() || !smooth || narrowed || elements > 600 {
            return Ok(());
        }
        let compared = gradcheck_compares(&inputs, |inputs| run(&case.op, &case.args, &tensors.with(&case.inputs, inputs)))?;
        if compared {
            checked.borrow_mut().insert(case.op.clone());
        }
        Ok(())
    });
    for (op, drop) in dropout::OPERATIONS {
        // The same draws for every difference.
        let dropped = |inputs: &[Tensor]| {
            convnet::manual_seed(7);
            drop(&inputs[0], 0.5)
        };
        let x = Tensor::randn([4, 3, 2, 2]).to_dtype(DType::F64).expect("f64");
        let compared = gradcheck_compares(&[x], dropped).unwrap_or_else(|error| panic!("{op}: {error}"));
        assert!(compared, "{op}: nothing was compared");
        checked.borrow_mut().insert(op.to_string());
    }
    // Cases have further names, for what is composed of several operations.
    let shows = |op: &&&str| checked.borrow().contains(**op) || STEPS.contains(*op);
    let unchecked: Vec<_> = OPERATIONS.iter().map(|(op, _)| op).filter(|op| !shows(op)).collect();
    assert!(unchecked.is_empty(), "no case has its gradient compared with central differences: {unchecked:?}");
}

/// Operations that are constant between jumps: all gradients are 0.
const STEPS: [&str; 5] = ["ceil", "floor", "round", "sign", "trunc"];

/// Checks the gradients by central differences. Whether that shows anything: some gradient of an
/// input is not zero, as differences of a function that ignores its inputs are.
fn gradcheck_compares(inputs: &[Tensor], function: impl Fn(&[Tensor]) -> convnet::Result<Tensor>) -> convnet::Result<bool> {
    gradcheck(inputs, GradCheck::default(), &function)?;
    let leaves: Vec<Tensor> = inputs.iter().map(Tensor::with_grad).collect();
    let output = function(&leaves)?;
    let gradients = output.backward_with(BackwardOptions { gradient: Some(weights_of(&output)?), retain_graph: false })?;
    let mut compared = false;
    for gradient in leaves.iter().filter_map(|leaf| gradients.get(leaf)) {
        compared |= gradient.to_vec::<f64>()?.iter().any(|&g| g != 0.0);
    }
    Ok(compared)
}

#[test]
fn operators_agree_with_their_methods() {
    let binary = ["add", "sub", "mul", "div"];
    let cases = FIXTURE.cases.iter().filter(|case| binary.contains(&case.op.trim_end_matches("_scalar")));
    every(cases.map(|case| (case.label(), case)), |case| {
        let tensors = case.tensors(DType::F32, RowMajor)?;
        let x = &tensors["x"];
        let found = match (case.op.as_str(), tensors.get("other")) {
            ("add", Some(other)) => vec![x + other, x.clone() + other.clone(), x + other.clone(), x.clone() + other],
            ("sub", Some(other)) => vec![x - other, x.clone() - other.clone(), x - other.clone(), x.clone() - other],
            ("mul", Some(other)) => vec![x * other, x.clone() * other.clone(), x * other.clone(), x.clone() * other],
            ("div", Some(other)) => vec![x / other, x.clone() / other.clone(), x / other.clone(), x.clone() / other],
            ("add_scalar", _) => vec![x + case.args.number("value"), x.clone() + case.args.number("value")],
            ("sub_scalar", _) => vec![x - case.args.number("value"), x.clone() - case.args.number("value")],
            ("mul_scalar", _) => vec![x * case.args.number("value"), x.clone() * case.args.number("value")],
            ("div_scalar", _) => vec![x / case.args.number("value"), x.clone() / case.args.number("value")],
            (op, _) => return Err(format!("{op} has no operator here").into()),
        };
        let method = run(&case.op, &case.args, &tensors)?;
        for found in found {
            close("the operator", &values(&method)?, &values(&found)?, 0.0)?;
        }
        close("the sign", &values(&x.neg())?, &values(&-x)?, 0.0)
    });
}

#[test]
fn small_inputs_give_the_same_bits_with_one_thread_and_three() {
    let _alone = threads_for_me();
    let bits = |threads| {
        convnet::set_num_threads(threads).expect("threads start");
        let bits = FIXTURE.cases.iter().map(|case| {
            let tensors = case.tensors(DType::F32, ChannelsLast)?;
            let upstream = |output: &Tensor| Ok(case.numbers("upstream").map(|numbers| numbers.tensor(output.dtype())));
            Ok(bits(&outcome(&case.op, &case.args, &tensors, upstream)?)?)
        });
        bits.collect::<Vec<Result<_, Box<dyn std::error::Error>>>>()
    };
    let (one, three) = (bits(1), bits(3));
    let pairs = FIXTURE.cases.iter().zip(one.into_iter().zip(three));
    every(pairs.map(|(case, pair)| (case.label(), pair)), |(one, three)| {
        if one? == three? { Ok(()) } else { Err("one thread and three give different bits".into()) }
    });
}

#[test]
fn large_inputs_give_the_same_bits_with_one_thread_and_three() {
    let _alone = threads_for_me();
    every(large_cases(), |(large, float)| {
        for format in [RowMajor, ChannelsLast] {
            let bits = |threads| -> Result<Vec<u64>, Box<dyn std::error::Error>> {
                convnet::set_num_threads(threads)?;
                Ok(bits(&run_large(large, float, format)?)?)
            };
            if bits(1)? != bits(3)? {
                return Err(format!("one thread and three give different bits in {format:?}").into());
            }
        }
        Ok(())
    });
}

#[test]
fn large_inputs_give_the_same_numbers_in_either_memory_format() {
    every(large_cases(), |(large, float)| {
        let (row_major, channels_last) = (run_large(large, float, RowMajor)?, run_large(large, float, ChannelsLast)?);
        // In f32 a sum of 300,000 numbers around zero keeps four digits; a misread layout keeps
        // none.
        let tolerance = if float == DType::F32 { 1e-3 } else { 1e-10 };
        close("the output", &values(&row_major.output)?, &values(&channels_last.output)?, tolerance)?;
        for ((name, a), (_, b)) in row_major.gradients.iter().zip(&channels_last.gradients) {
            close(&format!("the gradient of {name}"), &values(a)?, &values(b)?, tolerance)?;
        }
        Ok(())
    });
}

/// The number of threads is the process's: tests that set it take turns.
fn threads_for_me() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn large_cases() -> impl Iterator<Item = (String, (&'static Large, DType))> {
    let both = |large: &'static Large| [DType::F32, DType::F64].map(|float| (format!("{} in {float}", large.label()), (large, float)));
    FIXTURE.large.iter().flat_map(both)
}

fn run_large(large: &Large, float: DType, format: MemoryFormat) -> Result<check::Outcome, Box<dyn std::error::Error>> {
    outcome(&large.op, &large.args, &large.tensors(float, format)?, |output| {
        if !output.requires_grad() {
            return Ok(None);
        }
        fixture::to_format(weights_of(output)?, format).map(Some)
    })
}

/// A gradient for the output, between -0.5 and 0.5, different for neighbours.
fn weights_of(output: &Tensor) -> convnet::Result<Tensor> {
    let weights = (0..output.numel()).map(|i| (i as f64 * 0.618_033_988_749_895).fract() - 0.5);
    match output.dtype() {
        DType::F32 => Tensor::from_vec(weights.map(|w| w as f32).collect(), output.shape()),
        _ => Tensor::from_vec(weights.collect::<Vec<f64>>(), output.shape()),
    }
}
