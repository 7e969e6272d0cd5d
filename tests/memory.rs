//! Tensor memory in steady state. The counters belong to the whole process: one test.

use convnet::memory::stats;
use convnet::models::{self, lenet5};
use convnet::nn::Module;
use convnet::optim::{Optimizer, Sgd};
use convnet::{Result, Tensor, no_grad};

#[test]
fn a_training_step_in_steady_state_asks_the_system_for_no_memory() {
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
    assert!(requests <= 2, "{requests} requests in 50 steps");
    assert!(now.in_use + now.idle <= now.bound(), "{now:?}");

    inference_in_steady_state_asks_for_none_and_training_drops_what_it_kept();
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
