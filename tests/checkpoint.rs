//! Gradient checkpointing: the same bits as without, in less memory. The counters of memory belong
//! to the whole process: only the last test here uses more than a few hundred kilobytes, and reads
//! them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use convnet::autograd::{BackwardOptions, Gradients, is_recomputing};
use convnet::models::{self, DenseNet, DenseNetConfig};
use convnet::nn::{
    self, BatchNorm2d, Checkpoint, Conv2d, Dropout, Module, ModuleExt, Parameter, ReLU, Sequential, StochasticDepth, Visitor,
};
use convnet::optim::{Optimizer, Sgd};
use convnet::{ConvAlgorithm, Result, Tensor, manual_seed, memory, no_grad, visit_fields, with_algorithm};

fn bits(tensor: &Tensor) -> Vec<u32> {
    tensor.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
}

/// A part of a network with everything that a second run could repeat wrongly.
fn stage(inputs: usize, outputs: usize) -> Sequential {
    Sequential::new()
        .push(Conv2d::new(inputs, outputs, 3).padding(1))
        .push(BatchNorm2d::new(outputs))
        .push(ReLU)
        .push(Dropout::new(0.3))
        .push(StochasticDepth::new(0.2))
}

/// Three stages, the first two, or all, checkpointed or plain.
fn network(checkpointed: bool) -> Sequential {
    let net = Sequential::new();
    let net = if checkpointed {
        net.push(Checkpoint::new(stage(3, 8))).push(Checkpoint::new(Sequential::new().push(Checkpoint::new(stage(8, 8)))))
    } else {
        net.push(stage(3, 8)).push(Sequential::new().push(stage(8, 8)))
    };
    net.push(stage(8, 5))
}

/// Loss, gradients, and after some steps state and random numbers: all bits that training has.
fn train(net: &dyn Module, shape: [usize; 4]) -> Result<Vec<(String, Vec<u32>)>> {
    manual_seed(5);
    let mut optimizer = Sgd::new(net.parameters(), 0.1).momentum(0.9);
    let mut found = vec![];
    for step in 0..3 {
        let x = Tensor::randn(shape).with_grad();
        let y = net.forward(&x)?;
        let y = if y.ndim() == 4 { y.mean([2, 3])? } else { y };
        let loss = y.cross_entropy(&Tensor::from_vec((0..shape[0] as i64).map(|i| i % 5).collect(), [shape[0]])?)?;
        found.push((format!("loss {step}"), bits(&loss)));
        let grads = loss.backward()?;
        found.push((format!("input's gradient {step}"), bits(grads.get(&x).expect("x took part"))));
        for (name, parameter) in net.named_parameters() {
            found.push((format!("{name} gradient {step}"), bits(grads.get(&parameter.tensor()).expect("all take part"))));
        }
        optimizer.step(&grads)?;
    }
    for (name, tensor) in net.state_dict().iter() {
        found.push((name.to_string(), tensor.to_dtype(convnet::DType::F32)?.to_vec::<f32>()?.into_iter().map(f32::to_bits).collect()));
    }
    found.push(("next random numbers".into(), bits(&Tensor::randn([4]))));
    Ok(found)
}

fn assert_same(plain: &[(String, Vec<u32>)], checkpointed: &[(String, Vec<u32>)]) {
    assert_eq!(plain.len(), checkpointed.len());
    for ((name, expected), (other, found)) in plain.iter().zip(checkpointed) {
        assert_eq!(name, other);
        assert!(expected == found, "{name} differs");
    }
}

#[test]
fn training_with_checkpoints_even_in_each_other_gives_the_same_bits_dropout_and_running_estimates_included() {
    let run = |checkpointed| {
        manual_seed(1);
        train(&network(checkpointed), [4, 3, 8, 8]).unwrap()
    };
    let plain = run(false);
    assert_same(&plain, &run(true));
    let tracked = plain.iter().find(|(name, _)| name == "0.1.num_batches_tracked").expect("BatchNorm counts");
    assert_eq!(tracked.1, [3f32.to_bits()]);
}

#[test]
fn a_checkpoint_keeps_the_modules_keys_and_does_nothing_without_gradients() {
    manual_seed(2);
    let (plain, checkpointed) = (network(false), network(true));
    assert!(plain.state_dict().keys().eq(checkpointed.state_dict().keys()));
    checkpointed.load_state_dict(&plain.state_dict()).unwrap();
    plain.eval();
    checkpointed.eval();
    let x = Tensor::randn([2, 3, 8, 8]);
    let y = no_grad(|| checkpointed.forward(&x)).unwrap();
    assert!(!y.requires_grad());
    assert_eq!(bits(&y), bits(&no_grad(|| plain.forward(&x)).unwrap()));
}

#[test]
fn values_that_are_used_inside_and_outside_several_times_get_sums_with_the_same_bits() {
    let run = |checkpointed: bool| {
        manual_seed(3);
        let leaf = || Tensor::randn([1000]).with_grad();
        let (x, z, w) = (leaf(), leaf(), leaf());
        // A recorded tensor, captured rather than passed.
        let h = x.mul(&w).unwrap().sin().unwrap();
        let (captured, weight) = (h.clone(), w.clone());
        let body = move |inputs: &[Tensor]| -> Result<Tensor> {
            let [a, b] = inputs else { unreachable!() };
            let y = a.mul(&weight)?.add(&captured.mul(b)?)?.mul(a)?;
            y.mul(&weight)?.sin()?.mul(&y)?.add(&captured)?.mul(b)
        };
        let before = h.mul(&w).unwrap().mul(&z).unwrap();
        let y = if checkpointed { nn::checkpoint(&[&h, &z], body) } else { body(&[h.clone(), z.clone()]) }.unwrap();
        let after = y.mul(&h).unwrap().mul(&w).unwrap().add(&before).unwrap().mul(&z).unwrap();
        let grads = after.sum(..).unwrap().backward().unwrap();
        [&x, &z, &w].map(|leaf| bits(grads.get(leaf).expect("all take part")))
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn a_forced_algorithm_holds_for_the_second_run_too() {
    let run = |checkpointed: bool| {
        manual_seed(4);
        let (x, w, w2) = (Tensor::randn([2, 16, 9, 9]).with_grad(), Tensor::randn([16, 16, 3, 3]), Tensor::randn([16, 16, 3, 3]));
        let body = move |inputs: &[Tensor]| {
            let conv = |x: &Tensor, w| x.conv2d(w, None, Default::default());
            conv(&conv(&inputs[0], &w)?.sin()?, &w2)?.sin()
        };
        let forward = || if checkpointed { nn::checkpoint(&[&x], body) } else { body(std::slice::from_ref(&x)) };
        let y = with_algorithm(ConvAlgorithm::Naive, forward).unwrap();
        bits(y.sum(..).unwrap().backward().unwrap().get(&x).unwrap())
    };
    assert_eq!(run(false), run(true));
}

#[test]
fn a_retained_graph_with_checkpoints_can_be_walked_again() {
    let net = network(true);
    let loss = net.forward(&Tensor::randn([2, 3, 8, 8])).unwrap().square().unwrap().sum(..).unwrap();
    let gradients = |grads: Gradients| net.parameters().iter().map(|p| bits(grads.get(&p.tensor()).unwrap())).collect::<Vec<_>>();
    let first = loss.backward_with(BackwardOptions { retain_graph: true, ..Default::default() }).unwrap();
    assert_eq!(gradients(first), gradients(loss.backward().unwrap()));
    let error = loss.backward().unwrap_err().to_string();
    assert!(error.contains("retain_graph"), "{error}");
}

#[test]
fn frozen_parameters_and_results_without_gradients_need_nothing() {
    let net = network(true);
    assert!(net.freeze("").unwrap() > 0);
    assert!(!net.forward(&Tensor::randn([2, 3, 8, 8])).unwrap().requires_grad());
    net.unfreeze("1").unwrap();
    let grads = net.forward(&Tensor::randn([2, 3, 8, 8])).unwrap().square().unwrap().sum(..).unwrap().backward().unwrap();
    let found = net.named_parameters().into_iter().filter(|(_, p)| !p.is_frozen() && grads.get(&p.tensor()).is_some());
    assert!(found.map(|(name, _)| name).eq(["1.0.0.weight", "1.0.0.bias", "1.0.1.weight", "1.0.1.bias"]));
}

#[test]
fn a_closure_may_hand_its_input_or_a_captured_tensor_through() {
    let (x, w) = (Tensor::ones([2]).with_grad(), Tensor::ones([2]).with_grad());
    let same = nn::checkpoint(&[&x], |inputs| Ok(inputs[0].clone())).unwrap();
    let captured = w.clone();
    let other = nn::checkpoint(&[], move |_| Ok(captured.clone())).unwrap();
    let grads = same.mul(&other).unwrap().mul(&x).unwrap().sum(..).unwrap().backward().unwrap();
    assert_eq!(grads.get(&x).unwrap().to_vec::<f32>().unwrap(), [2.0, 2.0]);
    assert_eq!(grads.get(&w).unwrap().to_vec::<f32>().unwrap(), [1.0, 1.0]);
}

#[test]
fn a_long_chain_of_checkpoints_is_walked_and_dropped_without_recursion() {
    let x = Tensor::ones([1]).with_grad();
    let chain = || (0..30_000).fold(x.clone(), |y, _| nn::checkpoint(&[&y], |inputs| Ok(inputs[0].mul_scalar(1.0))).unwrap());
    assert_eq!(chain().backward().unwrap().get(&x).unwrap().item::<f32>().unwrap(), 1.0);
    drop(chain());
}

/// Counts its runs as a layer with its own state would.
struct Counter {
    weight: Parameter,
    runs: AtomicUsize,
    batches: AtomicUsize,
}

impl Module for Counter {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        if !is_recomputing() {
            self.batches.fetch_add(1, Ordering::Relaxed);
        }
        x.mul(&self.weight.tensor())?.sin()?.mul(x)
    }

    fn visit(&self, v: &mut Visitor<'_>) {
        visit_fields!(v, self; weight, skip(runs, batches));
    }
}

#[test]
fn a_module_runs_once_more_for_each_checkpoint_around_it_and_can_detect_it() {
    let counter = |weight| Counter { weight: Parameter::new(weight), runs: AtomicUsize::new(0), batches: AtomicUsize::new(0) };
    let module = Arc::new(counter(Tensor::ones([2])));
    let once = Checkpoint::from(module.clone());
    once.forward(&Tensor::ones([2])).unwrap().sum(..).unwrap().backward().unwrap();
    assert_eq!((module.runs.load(Ordering::Relaxed), module.batches.load(Ordering::Relaxed)), (2, 1));
    Checkpoint::new(once).forward(&Tensor::ones([2])).unwrap().sum(..).unwrap().backward().unwrap();
    assert_eq!((module.runs.load(Ordering::Relaxed), module.batches.load(Ordering::Relaxed)), (5, 2));
    assert!(!is_recomputing());
}

#[test]
fn a_second_run_that_cannot_repeat_the_first_is_refused() {
    let w = Parameter::new(Tensor::ones([2]));
    let scaled = |w: &Parameter| {
        let w = w.clone();
        nn::checkpoint(&[], move |_| w.tensor().sin()?.mul(&w.tensor())).unwrap().sum(..).unwrap()
    };
    // An optimiser's step between the two passes.
    let loss = scaled(&w);
    w.set(&Tensor::zeros([2])).unwrap();
    let error = loss.backward().unwrap_err().to_string();
    assert!(error.contains("a parameter has changed"), "{error}");
    let loss = scaled(&w);
    let mut optimizer = Sgd::new(vec![w.clone()], 0.1);
    optimizer.step(&scaled(&w).backward().unwrap()).unwrap();
    let error = loss.backward().unwrap_err().to_string();
    assert!(error.contains("a parameter has changed"), "{error}");
    // Frozen in between.
    let loss = scaled(&w);
    w.set_frozen(true);
    let error = loss.backward().unwrap_err().to_string();
    assert!(error.contains("both have to do the same"), "{error}");
    // Another shape each time.
    let x = Tensor::ones([4]).with_grad();
    let runs = AtomicUsize::new(0);
    let body = move |inputs: &[Tensor]| inputs[0].narrow(0, 0, 1 + runs.fetch_add(1, Ordering::Relaxed));
    let loss = nn::checkpoint(&[&x], body).unwrap().sum(..).unwrap();
    let error = loss.backward().unwrap_err().to_string();
    assert!(error.contains("[1]") && error.contains("[2]"), "{error}");
    // An error in the second run only.
    let runs = AtomicUsize::new(0);
    let body = move |inputs: &[Tensor]| inputs[0].narrow(0, 0, 4 + runs.fetch_add(1, Ordering::Relaxed));
    let loss = nn::checkpoint(&[&x], body).unwrap().sum(..).unwrap();
    assert!(loss.backward().unwrap_err().to_string().contains("narrow"));
    // A failure leaves no state behind.
    let y = x.mul(&x).unwrap().sum(..).unwrap();
    assert!(!is_recomputing() && y.backward().is_ok());
}

#[test]
fn errors_and_panics_inside_leave_recording_as_it_was() {
    let x = Tensor::ones([2]).with_grad();
    let error = nn::checkpoint(&[&x], |inputs| inputs[0].reshape([3])).unwrap_err().to_string();
    assert!(error.contains("reshape"), "{error}");
    let panicked = std::panic::catch_unwind(|| nn::checkpoint(&[&x], |_| panic!("inside")));
    assert!(panicked.is_err());
    let grads = x.mul(&x).unwrap().sum(..).unwrap().backward().unwrap();
    assert_eq!(grads.get(&x).unwrap().to_vec::<f32>().unwrap(), [2.0, 2.0]);
}

#[test]
fn a_tensor_from_inside_has_no_graph() {
    let x = Tensor::ones([2]).with_grad();
    let leaked = Arc::new(Mutex::new(None));
    let hand_out = leaked.clone();
    nn::checkpoint(&[&x], move |inputs| {
        let y = inputs[0].mul_scalar(2.0);
        *hand_out.lock().unwrap() = Some(y.clone());
        Ok(y)
    })
    .unwrap();
    let leaked = leaked.lock().unwrap().take().unwrap();
    for tensor in [leaked.clone(), leaked.add(&x).unwrap()] {
        let error = tensor.sum(..).unwrap().backward().unwrap_err().to_string();
        assert!(error.contains("from inside a checkpoint"), "{error}");
    }
}

/// The highest use of memory in a training step beyond what was in use before it.
fn peak_of_a_step(net: &dyn Module, x: &Tensor) -> usize {
    let step = || net.forward(x).unwrap().square().unwrap().mean(..).unwrap().backward().unwrap();
    drop(step());
    memory::trim(0);
    let before = memory::stats().in_use;
    drop(step());
    memory::stats().peak - before
}

#[test]
fn checkpoints_and_the_memory_efficient_densenet_have_lower_peaks_with_the_same_bits() {
    // Six stages of four layers with 16 maps of 64×64 each: 0.5 MiB a map of two pictures.
    let stage = || {
        let layer = || Sequential::new().push(Conv2d::new(16, 16, 3).padding(1)).push(BatchNorm2d::new(16)).push(ReLU);
        Sequential::new().push(layer()).push(layer()).push(layer()).push(layer())
    };
    let plain = (0..6).fold(Sequential::new(), |net, _| net.push(stage()));
    let checkpointed = (0..6).fold(Sequential::new(), |net, _| net.push(Checkpoint::new(stage())));
    let x = Tensor::randn([2, 16, 64, 64]);
    let (kept, recomputed) = (peak_of_a_step(&plain, &x), peak_of_a_step(&checkpointed, &x));
    println!("24 layers in 6 checkpoints: peak {recomputed} bytes instead of {kept}");
    // The outputs of six stages and the inside of one: 0.32 of it.
    assert!(recomputed * 2 < kept, "peak {recomputed} with checkpoints, {kept} without");

    let config = DenseNetConfig { growth: 12, layers: [6, 8, 8, 6], stem: 24 };
    let build = |efficient| {
        manual_seed(6);
        DenseNet::new(&config, models::ModelOptions::new(5).dropout(0.1)).memory_efficient(efficient)
    };
    let shape = [4, 3, 64, 64];
    assert_same(&train(&build(false), shape).unwrap(), &train(&build(true), shape).unwrap());
    let x = Tensor::randn(shape);
    let (kept, recomputed) = (peak_of_a_step(&build(false), &x), peak_of_a_step(&build(true), &x));
    println!("DenseNet: peak {recomputed} bytes instead of {kept}");
    // It is 0.48 of it.
    assert!(recomputed * 4 < kept * 3, "peak {recomputed} with the memory-efficient DenseNet, {kept} with the plain one");
}
