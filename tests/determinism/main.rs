//! The same seed gives the same bits, whatever the number of threads.

mod layers;
mod pools;

use std::sync::{Mutex, MutexGuard, PoisonError};

use convnet::data::{Batch, DataLoader, Digits, Normalize, Resize};
use convnet::models::{self, lenet5};
use convnet::nn::Module;
use convnet::optim::{Optimizer, Sgd};
use convnet::{Result, Tensor};
use layers::Layer;

/// The number of threads belongs to the whole process: tests take turns.
fn threads_for_me() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bits(tensor: &Tensor) -> Result<Vec<u32>> {
    Ok(tensor.to_vec()?.into_iter().map(f32::to_bits).collect())
}

/// The bits of all parameters after 50 steps with `threads` threads computing and `workers`
/// loading.
fn train(threads: usize, workers: usize) -> Result<Vec<(String, Vec<u32>)>> {
    convnet::set_num_threads(threads)?;
    train_here(workers)
}

/// As [`train`], with the threads that serve the caller.
fn train_here(workers: usize) -> Result<Vec<(String, Vec<u32>)>> {
    convnet::manual_seed(7);
    let model = lenet5(10);
    let loader = DataLoader::new(Digits::train(), 64).shuffle(7).workers(workers);
    let loader = loader.transform(Resize::new([28, 28])).transform(Normalize::new([0.3], [0.35]));
    let mut optimizer = Sgd::new(model.parameters(), 0.05).momentum(0.9).weight_decay(5e-4);
    for batch in (0..).flat_map(|epoch| loader.epoch(epoch)).take(50) {
        let Batch { images, labels } = batch?;
        optimizer.step(&model.forward(&images)?.cross_entropy(&labels)?.backward()?)?;
    }
    model.named_parameters().into_iter().map(|(name, p)| Ok((name, bits(&p.tensor())?))).collect()
}

/// Fails when two runs differ in some tensor, and says in which.
fn assert_same(what: &str, found: &[(String, Vec<u32>)], expected: &[(String, Vec<u32>)]) {
    assert_eq!(found.len(), expected.len());
    for ((name, expected), (found_name, found)) in expected.iter().zip(found) {
        assert_eq!(name, found_name);
        let differing = expected.iter().zip(found).filter(|(a, b)| a != b).count();
        assert!(differing == 0, "{what}: {differing} of {} numbers differ in {name}", expected.len());
    }
}

#[test]
fn lenet_training_gives_the_same_bits_with_any_number_of_threads_twice() {
    let _turn = threads_for_me();
    let expected = train(1, 0).unwrap();
    for (round, threads) in [(1, 2), (1, 3), (1, 8), (2, 1), (2, 2), (2, 3), (2, 8)] {
        assert_same(&format!("{threads} threads, round {round}"), &train(threads, round).unwrap(), &expected);
    }
}

/// The bits of a step's gradients on small pictures, and of the statistics that it leaves behind.
fn step(name: &str, threads: usize) -> Result<Vec<(String, Vec<u32>)>> {
    convnet::set_num_threads(threads)?;
    step_here(name)
}

/// As [`step`], with the threads that serve the caller.
fn step_here(name: &str) -> Result<Vec<(String, Vec<u32>)>> {
    convnet::manual_seed(5);
    let model = models::create(name, 10)?;
    let x = Tensor::randn([4, 3, 64, 64]);
    let gradients = model.forward(&x)?.cross_entropy(&Tensor::from_vec(vec![0i64, 3, 5, 9], [4])?)?.backward()?;
    let reached = model.named_parameters().into_iter().filter_map(|(name, p)| Some((name, gradients.get(&p.tensor())?.clone())));
    let buffers = model.buffers().into_iter().enumerate().map(|(i, buffer)| (format!("buffer {i}"), buffer.tensor()));
    let floating = reached.chain(buffers).filter(|(_, tensor)| tensor.dtype() == convnet::DType::F32);
    floating.map(|(name, tensor)| Ok((name, bits(&tensor)?))).collect()
}

/// Between them every kind of layer: all norms, poolings and activations, shortcuts, joins,
/// squeezes, shuffles, dropout.
#[test]
fn a_training_step_of_each_kind_of_network_gives_the_same_bits_with_any_number_of_threads() {
    let _turn = threads_for_me();
    for name in ["googlenet", "nin_maxout", "resnet18", "densenet121", "mobilenet_v3_small", "condensenet"] {
        let expected = step(name, 1).unwrap();
        assert!(expected.len() > 10, "{name}");
        for threads in [2, 3, 8] {
            assert_same(&format!("{name}, {threads} threads"), &step(name, threads).unwrap(), &expected);
        }
    }
}

#[test]
fn every_convolution_of_the_zoo_gives_the_same_bits_by_every_algorithm_with_any_number_of_threads() {
    let _turn = threads_for_me();
    let layers = Layer::of_the_zoo();
    assert!(layers.len() > 100, "{} layers", layers.len());
    let all = |threads| {
        convnet::set_num_threads(threads).unwrap();
        layers.iter().flat_map(Layer::runs).collect::<Vec<_>>()
    };
    let expected = all(1);
    for threads in [2, 3, 8] {
        for ((layer, algorithm, found), (_, _, expected)) in all(threads).iter().zip(&expected) {
            assert!(found == expected, "{layer:?} by {algorithm:?} with {threads} threads");
        }
    }
}
