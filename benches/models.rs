//! Whole models, the first that the registry has of each paper, all threads: inference on one
//! picture, and a training step on a few. `cargo bench --bench models`, or one of them with a
//! filter, as in `cargo bench --bench models -- resnet18`.

#[path = "../examples/workload/model.rs"]
mod model;

use std::collections::BTreeSet;
use std::time::Duration;

use convnet::models;
use criterion::{Criterion, SamplingMode, criterion_group, criterion_main};
use model::Subject;

/// Images of a training step, by the number of pixels in one.
fn batch(pixels: usize) -> usize {
    if pixels <= 32 * 32 { 64 } else { 2 }
}

fn families(c: &mut Criterion) {
    let mut seen = BTreeSet::new();
    for info in models::all() {
        let [_, height, width] = info.input;
        // Small pictures make another family of a paper's architecture.
        if !seen.insert((info.paper, height == 32)) {
            continue;
        }
        let batch = batch(height * width);
        let subject = |batch| Subject::new(info.name, batch, None, None).expect("a registered model");
        let mut group = c.benchmark_group(info.name);
        group
            .sample_size(10)
            .sampling_mode(SamplingMode::Flat)
            .warm_up_time(Duration::from_millis(100))
            .measurement_time(Duration::from_secs(1));
        // A model is built just before it is timed, so that those that a filter leaves out are not
        // built.
        let mut step = None;
        group.bench_function("inference, 1 image", |b| {
            let step = step.get_or_insert_with(|| subject(1).inference());
            b.iter(|| step().expect("a forward pass"));
        });
        drop(step);
        let mut step = None;
        group.bench_function(format!("training, {batch} images"), |b| {
            let step = step.get_or_insert_with(|| subject(batch).training().expect("a model that trains"));
            b.iter(|| step().expect("a step"));
        });
    }
}

criterion_group!(benches, families);
criterion_main!(benches);
