//! The same seed gives the same bits, whatever the number of threads.

use convnet::Result;
use convnet::data::{Batch, DataLoader, Digits, Normalize, Resize};
use convnet::models::lenet5;
use convnet::nn::Module;
use convnet::optim::{Optimizer, Sgd};

/// The bits of all parameters after 50 steps with `threads` threads computing and `workers` loading.
fn train(threads: usize, workers: usize) -> Result<Vec<(String, Vec<u32>)>> {
    convnet::set_num_threads(threads)?;
    convnet::manual_seed(7);
    let model = lenet5(10);
    let loader = DataLoader::new(Digits::train(), 64).shuffle(7).workers(workers);
    let loader = loader.transform(Resize::new([28, 28])).transform(Normalize::new([0.3], [0.35]));
    let mut optimizer = Sgd::new(model.parameters(), 0.05).momentum(0.9).weight_decay(5e-4);
    for batch in (0..).flat_map(|epoch| loader.epoch(epoch)).take(50) {
        let Batch { images, labels } = batch?;
        optimizer.step(&model.forward(&images)?.cross_entropy(&labels)?.backward()?)?;
    }
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    model.named_parameters().into_iter().map(|(name, p)| Ok((name, bits(p.tensor().to_vec()?)))).collect()
}

// One test: the number of threads belongs to the whole process.
#[test]
fn lenet_training_gives_the_same_bits_with_any_number_of_threads_twice() {
    let expected = train(1, 0).unwrap();
    for (round, threads) in [(1, 2), (1, 3), (1, 8), (2, 1), (2, 2), (2, 3), (2, 8)] {
        let found = train(threads, round).unwrap();
        for ((name, expected), (found_name, found)) in expected.iter().zip(&found) {
            assert_eq!(name, found_name);
            let differing = expected.iter().zip(found).filter(|(a, b)| a != b).count();
            assert!(differing == 0, "{threads} threads, round {round}: {differing} of {} numbers differ in {name}", expected.len());
        }
    }
}
