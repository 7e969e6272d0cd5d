//! Memory in steady state. The counters belong to the whole process: one test.

use convnet::data::Rng;
use convnet::memory::{set_limit, stats, trim};
use convnet::models::{self, lenet5};
use convnet::optim::{Lamb, Lars, clip_grad_norm};
use convnet::prelude::*;

#[test]
fn a_training_step_in_steady_state_asks_the_system_for_no_memory() {
    resident_memory_does_not_grow_over_batches_and_pictures_of_many_sizes();
    refused_memory_is_an_error_that_keeps_gradients();
    trim(0);

    // With one thread, the order of requests is the same in each step.
    convnet::set_num_threads(1).unwrap();
    let model = lenet5(10);
    let x = Tensor::randn([64, 1, 28, 28]);
    let labels = Tensor::from_vec((0..64i64).map(|i| i % 10).collect(), [64]).unwrap();
    let mut optimizer = Sgd::new(model.parameters(), 1e-3).momentum(0.9).weight_decay(1e-4);
    let mut step = || -> Result<()> { optimizer.step(&model.forward(&x)?.cross_entropy(&labels)?.backward()?) };

    for _ in 0..3 {
        step().unwrap();
    }
    let before = stats();
    for i in 0..50 {
        step().unwrap();
        let now = stats();
        assert_eq!(now.system_allocations, before.system_allocations, "step {i}");
        assert!(now.in_use + now.idle <= now.bound(), "step {i}: {now:?}");
        assert_eq!(now.in_use, before.in_use, "step {i} leaves tensors behind");
    }
    assert!(stats().reuses > before.reuses, "the steps needed no memory at all: this test looks at the wrong counter");

    // With several, how many hold scratch memory at the same time differs from step to step; it
    // still becomes constant.
    convnet::set_num_threads(2).unwrap();
    for _ in 0..50 {
        step().unwrap();
    }
    let before = stats();
    for _ in 0..50 {
        step().unwrap();
    }
    let now = stats();
    let requests = now.system_allocations - before.system_allocations;
    // None as a rule; one for each thread if both first hold scratch memory at once here.
    assert!(requests <= 2, "{requests} requests in 50 steps");
    assert!(now.in_use + now.idle <= now.bound(), "{now:?}");

    inference_in_steady_state_asks_for_none_and_training_drops_what_it_kept();
}

/// At the limit, functions that read gradients return a result; none unwinds.
fn refused_memory_is_an_error_that_keeps_gradients() {
    // With 9 million elements, sums of squares have more parts than a small block of memory holds.
    let w = Parameter::new(Tensor::zeros([9 << 20]));
    let leaf = w.tensor();
    let mut grads = leaf.mul_scalar(2.0).sum(..).unwrap().backward().unwrap();
    let (shared, other) = (grads.clone(), grads.clone());
    let norm = f64::from(36 << 20);
    set_limit(Some(1));
    let is_refused = |result: Result<()>| matches!(result, Err(Error::OutOfMemory { .. }));
    assert_eq!(grads.norm().unwrap(), norm.sqrt());
    // The gradient is shared: the sum, and the clipped gradient, need memory.
    assert!(is_refused(grads.add(&other)));
    assert!(is_refused(clip_grad_norm(std::slice::from_ref(&w), &mut grads, 1.0).map(drop)));
    assert!(grads.get(&leaf).is_some_and(|gradient| gradient.shape() == [9 << 20]), "an error lost the gradient");
    drop((shared, other));
    assert_eq!(clip_grad_norm(std::slice::from_ref(&w), &mut grads, 1.0).unwrap(), norm.sqrt());
    drop(leaf);
    let parameters = || vec![w.clone()];
    Lars::new(parameters(), 0.1).weight_decay(0.1).step(&grads).unwrap();
    assert!(is_refused(Lamb::new(parameters(), 0.1).step(&grads)));
    assert!(is_refused(Adam::new(parameters(), 0.1).step(&grads)));
    set_limit(None);
}

fn inference_in_steady_state_asks_for_none_and_training_drops_what_it_kept() {
    for name in ["mobilenet_v3_small", "densenet121", "alexnet"] {
        convnet::set_num_threads(1).unwrap();
        let model = models::create(name, 10).unwrap();
        model.eval();
        let batches = [2, 1].map(|n| Tensor::randn([n, 3, 64, 64]));
        let pass = || batches.iter().for_each(|x| drop(no_grad(|| model.forward(x)).unwrap()));
        // While the graph is recorded nothing is kept; this draws the weights.
        drop(model.forward(&batches[0]).unwrap());
        let untouched = stats().in_use;
        for _ in 0..2 {
            pass();
        }
        let before = stats();
        for i in 0..10 {
            pass();
            let now = stats();
            assert_eq!(now.system_allocations, before.system_allocations, "{name}, pass {i}");
            assert_eq!(now.in_use, before.in_use, "{name}, pass {i} leaves tensors behind");
        }
        assert!(before.in_use > untouched, "{name} keeps no weights: this test looks at the wrong counter");
        drop(model.forward(&batches[0]).unwrap());
        assert_eq!(stats().in_use, untouched, "{name} keeps weights that a step in training has no use for");
    }
}

fn resident_memory_does_not_grow_over_batches_and_pictures_of_many_sizes() {
    // Only Linux tells. This runs first: idle memory of earlier work would hide a growth.
    let Some(_) = resident() else { return };
    convnet::set_num_threads(2).unwrap();
    let model = Sequential::new()
        .push(Conv2d::new(3, 8, 3).padding(1).bias(false))
        .push(BatchNorm2d::new(8))
        .push(ReLU)
        .push(MaxPool2d::new(2))
        .push(Conv2d::new(8, 16, 3).padding(1))
        .push(ReLU)
        .push(AdaptiveAvgPool2d::new(1))
        .push(Flatten)
        .push(Linear::new(16, 10));
    let mut optimizer = Sgd::new(model.parameters(), 1e-3).momentum(0.9);
    let mut rng = Rng::new(0);
    let mut step = || -> Result<()> {
        let (count, height, width) = (1 + rng.below(12), 8 + rng.below(25), 8 + rng.below(25));
        let images = Tensor::randn([count, 3, height, width]);
        let labels = Tensor::from_vec((0..count as i64).map(|i| i % 10).collect(), [count])?;
        optimizer.step(&model.forward(&images)?.cross_entropy(&labels)?.backward()?)
    };
    (0..200).for_each(|_| step().unwrap());
    let early = resident().expect("it was there before");
    let mut peak = early;
    for i in 200..2000 {
        step().unwrap();
        if i % 100 == 99 {
            peak = peak.max(resident().expect("it was there before"));
        }
    }
    // It is 0.005: what small allocations of the steps leave in the heap of the C library.
    let growth = peak as f64 / early as f64 - 1.0;
    assert!(growth < 0.02, "from {early} KiB after 200 steps to {peak} KiB: {:.1} %", 100.0 * growth);
}

/// Returns the resident memory of this process in KiB; `None` where the system does not tell.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse().ok())
}
