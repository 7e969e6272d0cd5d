//! Each kernel by itself, on shapes of real networks, all threads: `cargo bench --bench kernels`,
//! or one group of it with a filter, as in `cargo bench --bench kernels -- conv2d/backward`.
//!
//! Backward means all gradients that an operation has, its input's too except for the first layer's
//! 3 channels.

#[path = "../examples/workload/operation.rs"]
mod operation;

use std::time::Duration;

use convnet::ops::{Conv2dOptions, ConvAlgorithm};
use convnet::{Tensor, explain, with_algorithm};
use criterion::{BenchmarkGroup, Criterion, SamplingMode, criterion_group, criterion_main, measurement::WallTime};
use operation::{BATCH, OPERATIONS, Operation, images};

fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    group
}

/// Benchmarks an operation forward and backward; it is built just before it is timed, so that those
/// that a filter leaves out are not built.
fn both(c: &mut Criterion, op: &str, name: &str, make: impl Fn() -> Operation) {
    let mut step = None;
    group(c, &format!("{op}/forward")).bench_function(name, |b| {
        let step = step.get_or_insert_with(|| make().forward());
        b.iter(|| step().expect("fitting shapes"));
    });
    drop(step);
    let mut step = None;
    group(c, &format!("{op}/backward")).bench_function(name, |b| {
        let step = step.get_or_insert_with(|| make().backward().expect("fitting shapes"));
        b.iter(|| step().expect("a retained graph"));
    });
}

fn spec(c: &mut Criterion, spec: &str, size: usize) {
    let (op, rest) = spec.split_once(' ').expect("a name and its geometry");
    both(c, op, &format!("{rest} @{size}"), || Operation::parse(spec, BATCH, size).expect("a row of the table"));
}

/// Those that the example `workload` lists.
fn operations(c: &mut Criterion) {
    for (row, size) in OPERATIONS {
        spec(c, row, size);
    }
}

/// Every algorithm that fits, on one picture: channels, groups, size, all of them 3×3.
fn algorithms(c: &mut Criterion) {
    const ALL: [ConvAlgorithm; 7] = [
        ConvAlgorithm::Auto,
        ConvAlgorithm::Naive,
        ConvAlgorithm::Im2col,
        ConvAlgorithm::Direct,
        ConvAlgorithm::Winograd2,
        ConvAlgorithm::Winograd4,
        ConvAlgorithm::Depthwise,
    ];
    for (name, channels, groups, size) in [("128 k3 @28", 128, 1, 28), ("depthwise 144 k3 @56", 144, 144, 56)] {
        let options = Conv2dOptions { padding: [1, 1], groups, ..Default::default() };
        let make = || {
            let weight = &Tensor::randn([channels, channels / groups, 3, 3]) * 0.05;
            Operation::new(images(1, channels, size).expect("four dimensions"), vec![weight], move |x, w| x.conv2d(&w[0], None, options))
        };
        for algorithm in ALL {
            let mut forward = make().forward();
            let (_, explanation) = explain(|| with_algorithm(algorithm, &mut forward));
            if algorithm != ConvAlgorithm::Auto && explanation.choices.iter().any(|choice| choice.ran != algorithm) {
                continue;
            }
            let name = format!("{name}, {algorithm}");
            with_algorithm(algorithm, || both(c, "algorithms", &name, make));
        }
    }
}

fn pooling(c: &mut Criterion) {
    spec(c, "avg_pool2d c=64 k=3 s=2 p=1", 112);
    let make = || Operation::new(images(BATCH, 512, 7).expect("four dimensions"), vec![], |x, _| x.adaptive_avg_pool2d([1, 1]));
    both(c, "adaptive_avg_pool2d", "to 1, 512 @7", make);
}

fn normalisation(c: &mut Criterion) {
    let maps = || images(BATCH, 64, 56).expect("four dimensions");
    let affine = || vec![Tensor::ones([64]), Tensor::zeros([64])];
    both(c, "group_norm", "32 groups, 64 @56", || {
        Operation::new(maps(), affine(), |x, w| x.group_norm(32, Some(&w[0]), Some(&w[1]), 1e-5))
    });
    both(c, "layer_norm", "2048 of 768", || {
        let affine = vec![Tensor::ones([768]), Tensor::zeros([768])];
        Operation::new(Tensor::randn([2048, 768]), affine, |x, w| x.layer_norm(&[768], Some(&w[0]), Some(&w[1]), 1e-5))
    });
    both(c, "local_response_norm", "5, 64 @56", || Operation::new(maps(), vec![], |x, _| x.local_response_norm(5, 1e-4, 0.75, 2.0)));
}

fn activations(c: &mut Criterion) {
    let all: [(&str, fn(&Tensor) -> convnet::Result<Tensor>); 5] = [
        ("gelu", Tensor::gelu),
        ("hardswish", Tensor::hardswish),
        ("sigmoid", Tensor::sigmoid),
        ("silu", Tensor::silu),
        ("softmax", |x| x.softmax(1)),
    ];
    for (name, function) in all {
        let make = || Operation::new(images(BATCH, 64, 56).expect("four dimensions"), vec![], move |x, _| function(x));
        both(c, name, "64 @56", make);
    }
}

fn products(c: &mut Criterion) {
    for n in [128, 512, 1024] {
        let make = || Operation::new(Tensor::randn([n, n]), vec![Tensor::randn([n, n])], |a, b| a.matmul(&b[0]));
        both(c, "matmul", &format!("{n}×{n}"), make);
    }
    for (rows, inputs, outputs) in [(1, 4096, 4096), (16, 512, 1000), (64, 400, 120)] {
        let leaves = || vec![Tensor::randn([outputs, inputs]), Tensor::zeros([outputs])];
        let make = || Operation::new(Tensor::randn([rows, inputs]), leaves(), |x, w| x.linear(&w[0], Some(&w[1])));
        both(c, "linear", &format!("{inputs}→{outputs}, {rows} rows"), make);
    }
}

criterion_group!(kernels, operations, algorithms, pooling, normalisation, activations, products);
criterion_main!(kernels);
