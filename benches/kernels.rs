//! Operations on shapes of real networks, 16 images each, all threads: `cargo bench --bench operators`, or one group of it with a filter,
//! as in `cargo bench --bench operators -- conv2d/backward`.
//!
//! Backward means all gradients that the operation has, its input's too except for the first layer's 3 channels.

use std::time::Duration;

use convnet::autograd::BackwardOptions;
use convnet::ops::{Conv2dOptions, Pool2dOptions};
use convnet::{MemoryFormat, Tensor, no_grad};
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};

const BATCH: usize = 16;

/// Name, input channels, output channels, kernel, stride, padding, groups, input height and width.
const CONVOLUTIONS: [(&str, [usize; 7]); 10] = [
    ("3-64 k7 s2 @224", [3, 64, 7, 2, 3, 1, 224]),
    ("64 k3 @56", [64, 64, 3, 1, 1, 1, 56]),
    ("128 k3 @28", [128, 128, 3, 1, 1, 1, 28]),
    ("256 k3 @14", [256, 256, 3, 1, 1, 1, 14]),
    ("512 k3 @7", [512, 512, 3, 1, 1, 1, 7]),
    ("64-256 k1 @56", [64, 256, 1, 1, 0, 1, 56]),
    ("1024-256 k1 @14", [1024, 256, 1, 1, 0, 1, 14]),
    ("depthwise 96 k3 s2 @112", [96, 96, 3, 2, 1, 96, 112]),
    ("depthwise 144 k3 @56", [144, 144, 3, 1, 1, 144, 56]),
    ("depthwise 480 k5 @14", [480, 480, 5, 1, 2, 480, 14]),
];
const GROUPED: (&str, [usize; 7]) = ("128 in 32 groups k3 @28", [128, 128, 3, 1, 1, 32, 28]);

fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group
}

fn images(channels: usize, size: usize) -> Tensor {
    let images = Tensor::randn([BATCH, channels, size, size]);
    images.to_memory_format(MemoryFormat::ChannelsLast).expect("four dimensions")
}

/// Benchmarks `run` forward, and backward through what it returns for `x` and `leaves` that want gradients.
fn both(c: &mut Criterion, op: &str, name: &str, x: Tensor, leaves: Vec<Tensor>, run: impl Fn(&Tensor, &[Tensor]) -> Tensor) {
    group(c, &format!("{op}/forward")).bench_function(name, |b| b.iter(|| no_grad(|| run(&x, &leaves))));

    let leaves: Vec<Tensor> = leaves.iter().map(Tensor::with_grad).collect();
    let x = if x.shape()[1] == 3 { x } else { x.with_grad() };
    let y = run(&x, &leaves);
    let gradient = Tensor::randn(y.shape()).to_memory_format(y.memory_format()).expect("its own format");
    let walk = BackwardOptions { gradient: Some(gradient), retain_graph: true };
    group(c, &format!("{op}/backward")).bench_function(name, |b| b.iter(|| y.backward_with(walk.clone()).expect("a retained graph")));
}

fn convolutions(c: &mut Criterion) {
    for (name, [channels, out, k, s, p, groups, size]) in CONVOLUTIONS.into_iter().chain([GROUPED]) {
        let options = Conv2dOptions { stride: [s, s], padding: [p, p], groups, ..Default::default() };
        let weight = &Tensor::randn([out, channels / groups, k, k]) * 0.05;
        both(c, "conv2d", name, images(channels, size), vec![weight], |x, w| x.conv2d(&w[0], None, options).expect("fitting shapes"));
    }
}

fn pooling(c: &mut Criterion) {
    let options = Pool2dOptions { stride: [2, 2], padding: [1, 1], ..Default::default() };
    both(c, "max_pool2d", "3 s2, 64 @112", images(64, 112), vec![], |x, _| x.max_pool2d([3, 3], options).expect("fitting shapes"));
    both(c, "avg_pool2d", "3 s2, 64 @112", images(64, 112), vec![], |x, _| x.avg_pool2d([3, 3], options).expect("fitting shapes"));
    both(c, "adaptive_avg_pool2d", "to 1, 512 @7", images(512, 7), vec![], |x, _| x.adaptive_avg_pool2d([1, 1]).expect("fitting shapes"));
}

fn normalisation(c: &mut Criterion) {
    let affine = vec![Tensor::ones([256]), Tensor::zeros([256])];
    both(c, "batch_norm", "training, 256 @56", images(256, 56), affine, |x, w| {
        x.batch_norm_train(Some(&w[0]), Some(&w[1]), 1e-5).expect("fitting shapes").output
    });
}

fn activations(c: &mut Criterion) {
    both(c, "relu", "256 @56", images(256, 56), vec![], |x, _| x.relu());
}

fn products(c: &mut Criterion) {
    for n in [128, 512, 1024] {
        let (a, b) = (Tensor::randn([n, n]), Tensor::randn([n, n]));
        both(c, "matmul", &format!("{n}x{n}"), a, vec![b], |a, b| a.matmul(&b[0]).expect("fitting shapes"));
    }
}

criterion_group!(operators, convolutions, pooling, normalisation, activations, products);
criterion_main!(operators);
