//! Whole training steps: `cargo bench --bench training`.

use std::time::Duration;

use convnet::models::lenet5;
use convnet::nn::Module;
use convnet::optim::{Optimizer, Sgd};
use convnet::{MemoryFormat, Result, Tensor, no_grad};
use criterion::{Criterion, criterion_group, criterion_main};

/// LeNet-5, 64 images: forward, cross-entropy, backward, SGD with momentum and weight decay; and a forward pass in evaluation.
fn lenet(c: &mut Criterion) {
    let mut group = c.benchmark_group("lenet5 b64");
    group.sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(5));

    let model = lenet5(10);
    let x = Tensor::randn([64, 1, 28, 28]).to_memory_format(MemoryFormat::ChannelsLast).expect("four dimensions");
    let labels = Tensor::from_vec((0..64i64).map(|i| i % 10).collect(), [64]).expect("64 labels");
    let mut optimizer = Sgd::new(model.parameters(), 1e-3).momentum(0.9).weight_decay(1e-4);
    let mut step = || -> Result<()> { optimizer.step(&model.forward(&x)?.cross_entropy(&labels)?.backward()?) };
    group.bench_function("training step", |b| b.iter(|| step().expect("a step")));

    model.eval();
    group.bench_function("inference", |b| b.iter(|| no_grad(|| model.forward(&x)).expect("a forward pass")));
}

criterion_group!(training, lenet);
criterion_main!(training);
