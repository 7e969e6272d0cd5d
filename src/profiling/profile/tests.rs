use std::sync::Barrier;

use serde_json::Value;

use super::*;
use crate::nn::{BatchNorm2d, Conv2d, Flatten, Linear, Module, ModuleExt, Sequential, block, conv_bn_relu};
use crate::optim::{Optimizer, Sgd};
use crate::{Result, Tensor, no_grad, visit_fields};

/// A shortcut around two convolutions, the first fused with its normalisation and activation.
struct Residual {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
}

impl Module for Residual {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || {
            let y = conv_bn_relu(&self.conv1, &self.bn1, x)?;
            self.conv2.forward(&y)?.add(x)
        })
    }

    visit_fields!(conv1, bn1, conv2);
}

fn net() -> Sequential {
    let conv = || Conv2d::new(4, 4, 3).padding(1).bias(false);
    let residual = || Residual { conv1: conv(), bn1: BatchNorm2d::new(4), conv2: conv() };
    let stem = Sequential::new().push_named("stem", Conv2d::new(1, 4, 3));
    let layers = stem.push_named("layer1", Sequential::new().push(residual()).push(residual()));
    layers.push(Flatten).push_named("fc", Linear::new(4 * 36, 3))
}

fn train(net: &Sequential, x: &Tensor) {
    let loss = net.forward(x).unwrap().sum(..).unwrap();
    let mut optimizer = Sgd::new(net.parameters(), 0.1);
    optimizer.step(&loss.backward().unwrap()).unwrap();
}

#[test]
fn operations_are_listed_by_path_of_layer_or_block_with_backward() {
    let (net, x) = (net(), Tensor::randn([2, 1, 8, 8]));
    let ((), profile) = profile(|| train(&net, &x));
    let calls = |path, operation| profile.get(path, operation).map(|row| (row.forward.calls, row.backward.calls));
    assert_eq!(calls("stem", "conv2d"), Some((1, 1)));
    assert_eq!(calls("layer1.1.conv1", "conv2d"), Some((1, 1)));
    assert_eq!(calls("layer1.1", "add"), Some((1, 1)), "between the layers of a block\n{profile}");
    assert_eq!(calls("fc", "linear"), Some((1, 1)));
    assert_eq!(calls("", "sum"), Some((1, 1)));
    assert_eq!(calls("", "sgd"), Some((1, 0)));
    assert!(profile.rows.iter().all(|row| row.path != "layer1.0.conv2" || row.operation == "conv2d"), "{profile}");
    assert_eq!(profile.rows.iter().filter(|row| row.operation == "conv2d").count(), 5);
    let by_operation = profile.by_operation();
    let convolutions = by_operation.iter().find(|row| row.operation == "conv2d").unwrap();
    assert_eq!((convolutions.forward.calls, convolutions.backward.calls), (5, 5));
    assert!(profile.rows.is_sorted_by(|a, b| a.time() >= b.time()));
    assert!(profile.time() <= profile.elapsed && profile.time() > Duration::ZERO);
}

#[test]
fn multiply_adds_agree_with_summary_and_are_twice_as_many_in_backward() {
    let (net, x) = (net(), Tensor::randn([2, 1, 8, 8]));
    let ((), profile) = profile(|| train(&net, &x));
    let sum = |of: fn(&ProfileRow) -> Cost| profile.rows.iter().map(|row| of(row).multiply_adds).sum::<u64>();
    let forward = net.summary(x.shape()).unwrap().multiply_adds;
    assert_eq!(sum(|row| row.forward), forward);
    // Backward computes the gradients of the weight and of the input; the first layer's input needs
    // none.
    let stem = profile.get("stem", "conv2d").unwrap().forward.multiply_adds;
    assert_eq!(sum(|row| row.backward), 2 * forward - stem);
    let conv = profile.get("layer1.0.conv1", "conv2d").unwrap();
    assert!(conv.forward.bytes >= 4 * 2 * 4 * 36 && conv.forward.gflops().is_some());
    assert!(profile.get("layer1.0", "add").unwrap().forward.gflops().is_none());
}

#[test]
fn inference_is_profiled_completely() {
    let (net, x) = (net(), Tensor::randn([2, 1, 8, 8]));
    net.eval();
    let (y, profile) = profile(|| no_grad(|| net.forward(&x)));
    assert!(!y.unwrap().requires_grad());
    let found: u64 = profile.rows.iter().map(|row| row.forward.multiply_adds).sum();
    assert_eq!(found, net.summary(x.shape()).unwrap().multiply_adds, "{profile}");
    // However the layers run, the work of each convolution is counted under its path.
    for path in ["stem", "layer1.0.conv1", "layer1.1.conv2"] {
        assert!(profile.rows.iter().any(|row| row.path.starts_with(path) && row.forward.multiply_adds > 0), "{path}\n{profile}");
    }
}

#[test]
fn trace_is_json_with_events_inside_the_run() {
    let (net, x) = (net(), Tensor::randn([2, 1, 8, 8]));
    let ((), profile) = profile(|| train(&net, &x));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    profile.save_trace(&path).unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing beside the file");
    let trace: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let elapsed = profile.elapsed.as_secs_f64() * 1e6;
    for event in events {
        let [start, time] = ["ts", "dur"].map(|field| event[field].as_f64().unwrap());
        assert!(event["ph"] == "X" && start >= 0.0 && time >= 0.0 && start + time <= elapsed, "{event}");
    }
    let count = |category: &str| events.iter().filter(|event| event["cat"] == category).count() as u64;
    let calls = |of: fn(&ProfileRow) -> Cost| profile.rows.iter().map(|row| of(row).calls).sum::<u64>();
    assert_eq!((count("forward"), count("backward")), (calls(|row| row.forward), calls(|row| row.backward)));
    let of_block = |event: &&Value| event["cat"] == "module" && event["name"] == "layer1.1";
    let block = events.iter().find(of_block).expect("blocks are there");
    let add = events.iter().find(|event| event["name"] == "add" && event["args"]["path"] == "layer1.1").unwrap();
    let [outer, inner] = [block, add].map(|event| event["ts"].as_f64().unwrap());
    assert!(outer <= inner, "an operation lies inside its block");
    assert!(profile.save_trace(folder.path()).unwrap_err().to_string().contains("directory"));
}

#[test]
fn table_is_aligned_and_has_sums() {
    let (net, x) = (net(), Tensor::randn([2, 1, 8, 8]));
    let ((), profile) = profile(|| train(&net, &x));
    let text = profile.to_string();
    for part in ["layer1.0.conv1", "conv2d", "forward ms", "backward ms", "GFLOP/s", "(everywhere)", "(all)", "outside of operations"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let lines: Vec<&str> = text.lines().collect();
    let column = |line: &str, word: &str| line.find(word).unwrap();
    let rows: Vec<_> = lines.iter().filter(|line| line.contains(" conv2d ")).collect();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| column(row, "conv2d") == column(lines[0], "operation")), "{text}");
}

#[test]
fn threads_that_profile_at_the_same_time_are_independent() {
    let together = Barrier::new(2);
    let run = |times: u64| {
        let x = Tensor::ones([8]);
        profile(|| {
            together.wait();
            (0..times).for_each(|_| drop(x.relu()));
            together.wait();
        })
        .1
    };
    let (a, b) = std::thread::scope(|scope| {
        let a = scope.spawn(|| run(3));
        (run(5), a.join().unwrap())
    });
    let calls = |profile: &Profile| profile.rows.iter().map(|row| (row.operation, row.forward.calls)).collect::<Vec<_>>();
    assert_eq!((calls(&a), calls(&b)), (vec![("relu", 5)], vec![("relu", 3)]));
}

#[test]
fn inner_profile_is_included_in_outer_one() {
    let x = Tensor::ones([8]);
    let (inner, outer) = profile(|| {
        drop(x.relu());
        let ((), inner) = profile(|| drop(x.relu()));
        drop(x.exp());
        inner
    });
    let calls = |profile: &Profile, operation| profile.get("", operation).map(|row| row.forward.calls);
    assert_eq!((calls(&inner, "relu"), calls(&inner, "exp")), (Some(1), None));
    assert_eq!((calls(&outer, "relu"), calls(&outer, "exp")), (Some(2), Some(1)));
}

#[test]
fn panic_leaves_no_active_profile() {
    let net = net();
    let panics = || profile(|| net.forward(&Tensor::zeros([2, 1, 8, 8])).map(|_| panic!("as the test wants")));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
    drop(Tensor::ones([2]).relu());
    let ((), profile) = profile(|| drop(Tensor::ones([2]).exp()));
    assert_eq!(profile.rows.iter().map(|row| row.operation).collect::<Vec<_>>(), ["exp"]);
}
