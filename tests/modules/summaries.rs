//! Summaries: the cost of a network, without running it.

use convnet::nn::*;
use convnet::{Result, Tensor, manual_seed, no_grad, visit_fields};

use super::values;

#[test]
fn a_summary_counts_parameters_and_multiply_adds() {
    let net = Sequential::new().push_named("conv", Conv2d::new(192, 32, 5).padding(2)).push(ReLU).push(Flatten);
    let summary = net.summary([1, 192, 28, 28]).unwrap();
    // The Inception paper's example.
    assert_eq!(summary.multiply_adds, 120_422_400);
    assert_eq!(summary.parameters, 192 * 32 * 25 + 32);
    assert_eq!(summary.rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["", "conv", "1", "2"]);
    assert_eq!(summary.rows[1].output.as_deref(), Some([1, 32, 28, 28].as_slice()));
    assert_eq!(summary.activation_bytes, 3 * 4 * 32 * 28 * 28);
    let text = summary.to_string();
    for part in ["conv", "Conv2d 192→32, k5", "[1, 32, 28, 28]", "153,632", "120,422,400", "MiB"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let grouped = Conv2d::new(8, 8, 3).groups(8).summary([2, 8, 5, 5]).unwrap();
    assert_eq!(grouped.multiply_adds, 2 * 8 * 9 * 9);
    let transposed = ConvTranspose2d::new(4, 6, 3).stride(2).summary([1, 4, 5, 5]).unwrap();
    assert_eq!(transposed.multiply_adds, 100 * 6 * 9);
    assert!(net.summary([usize::MAX, 2]).unwrap_err().to_string().contains("memory"));
    assert!(net.summary([1, 3, 28, 28]).unwrap_err().to_string().contains("conv (Conv2d"));
}

#[test]
fn a_summary_lists_blocks_over_their_layers_and_layers_that_did_not_run() {
    struct Branches {
        left: Sequential,
        right: Vec<Conv2d>,
        aux: Linear,
        gain: Parameter,
    }
    impl Module for Branches {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            Tensor::cat(&[&self.left.forward(x)?, &self.right.forward(x)?], 1)?.mul(&self.gain.tensor())
        }
        visit_fields!(left, right, aux, gain);
    }
    let left = Sequential::new().push(Conv2d::new(3, 4, 3).padding(1)).push(ReLU);
    let right = vec![Conv2d::new(3, 2, 1), Conv2d::new(2, 5, 1)];
    let branches = Branches { left, right, aux: Linear::new(9, 2), gain: Parameter::new(Tensor::ones([1])) };
    let net = Sequential::new().push_named("mixed", branches).push(BatchNorm2d::new(9));
    let summary = net.summary([2, 3, 6, 6]).unwrap();
    let rows: Vec<_> = summary.rows.iter().map(|row| (row.depth, row.path.as_str(), row.is_block, row.parameters)).collect();
    let expected = [
        (0, "", true, 172),
        (1, "mixed", true, 154),
        (2, "mixed.left", true, 112),
        (3, "mixed.left.0", false, 112),
        (3, "mixed.left.1", false, 0),
        (2, "mixed.right", true, 23),
        (3, "mixed.right.0", false, 8),
        (3, "mixed.right.1", false, 15),
        (2, "mixed.aux", false, 20 - 2),
        (1, "1", false, 18),
    ];
    assert_eq!(rows.iter().map(|row| (row.0, row.1, row.2)).collect::<Vec<_>>(), expected.map(|row| (row.0, row.1, row.2)));
    let output = |path: &str| summary.rows.iter().find(|row| row.path == path).unwrap().output.clone();
    assert_eq!(output("mixed"), Some(vec![2, 9, 6, 6]), "what a child of a Sequential returned");
    assert_eq!((output("mixed.right"), output("mixed.aux")), (Some(vec![2, 5, 6, 6]), None));
    assert_eq!(rows[1].3, 112 + 23 + 20 + 1);
    assert_eq!((rows[8].3, summary.parameters), (20, 112 + 23 + 20 + 1 + 18));
    assert_eq!(summary.rows[0].activation_bytes, summary.activation_bytes);
    assert_eq!(summary.activation_bytes, 4 * 2 * 36 * (4 + 4 + 2 + 5 + 9));
    let text = summary.to_string();
    assert!(text.contains("\n    left") && text.contains("\n      0") && text.contains("174 trainable, 0 frozen"), "{text}");
}

#[test]
fn a_summary_computes_nothing_and_leaves_no_state_behind() {
    let net = || {
        manual_seed(5);
        let net = Sequential::new().push(Conv2d::new(3, 8, 3)).push(BatchNorm2d::new(8)).push(ReLU).push(Conv2d::new(8, 8, 3));
        net.push(Flatten).push(Linear::new(8 * 16, 4))
    };
    let (seen, fresh) = (net(), net());
    seen.summary([1, 3, 8, 8]).unwrap();
    seen.receptive_field([1, 3, 8, 8]).unwrap();
    let x = Tensor::randn([1, 3, 8, 8]);
    assert_eq!(
        values(&seen.forward(&Tensor::cat(&[&x, &x], 0).unwrap()).unwrap()),
        values(&fresh.forward(&Tensor::cat(&[&x, &x], 0).unwrap()).unwrap())
    );
    for net in [&seen, &fresh] {
        net.eval();
    }
    assert_eq!(values(&no_grad(|| seen.forward(&x)).unwrap()), values(&no_grad(|| fresh.forward(&x)).unwrap()));
    seen.summary([1, 3, 8, 8]).unwrap();
    assert_eq!(values(&no_grad(|| seen.forward(&x)).unwrap()), values(&no_grad(|| fresh.forward(&x)).unwrap()));
    // A size at which computing would take minutes, and gigabytes.
    let large = net().push(Identity).summary([64, 3, 8, 8]).unwrap();
    assert_eq!(large.multiply_adds, 64 * seen.summary([1, 3, 8, 8]).unwrap().multiply_adds);
    let conv = Conv2d::new(64, 64, 3).padding(1).summary([1, 64, 4096, 4096]).unwrap();
    assert_eq!(conv.multiply_adds, 4096 * 4096 * 64 * 64 * 9);
}

#[test]
fn a_layer_that_runs_twice_is_listed_twice_and_counted_once() {
    struct Twice {
        fc: Linear,
    }
    impl Module for Twice {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            self.fc.forward(&self.fc.forward(x)?)
        }
        visit_fields!(fc);
    }
    let summary = Twice { fc: Linear::new(4, 4) }.summary([3, 4]).unwrap();
    assert_eq!(summary.rows.iter().map(|row| row.parameters).collect::<Vec<_>>(), [20, 20, 0]);
    assert_eq!((summary.parameters, summary.multiply_adds), (20, 2 * 3 * 16));
}

#[test]
fn lenets_summary_has_the_numbers_of_the_literature() {
    let net = Sequential::new()
        .push_named("conv1", Conv2d::new(1, 6, 5).padding(2))
        .push(ReLU)
        .push(MaxPool2d::new(2))
        .push_named("conv2", Conv2d::new(6, 16, 5))
        .push(ReLU)
        .push(MaxPool2d::new(2))
        .push(Flatten)
        .push_named("fc1", Linear::new(400, 120))
        .push(ReLU)
        .push_named("fc2", Linear::new(120, 84))
        .push(ReLU)
        .push_named("fc3", Linear::new(84, 10));
    let summary = net.summary([1, 1, 28, 28]).unwrap();
    assert_eq!(summary.parameters, 61_706);
    // 28²·6·25 + 10²·16·150 + 400·120 + 120·84 + 84·10
    assert_eq!(summary.multiply_adds, 416_520);
    assert_eq!(summary.rows.len(), 13);
    assert_eq!(summary.rows[4].output.as_deref(), Some([1, 16, 10, 10].as_slice()));
    let text = summary.to_string();
    assert!(text.contains("61,706") && text.contains("416,520 for input [1, 1, 28, 28]"), "{text}");
    let grads = net.forward(&Tensor::randn([2, 1, 28, 28])).unwrap().cross_entropy(&Tensor::arange(2)).unwrap().backward().unwrap();
    assert!(net.parameters().iter().all(|p| grads.get(&p.tensor()).is_some_and(|g| g.shape() == p.shape())));
}

#[test]
fn a_summary_of_statistics_and_dropout_computes_nothing_and_draws_nothing() {
    let layers: [Box<dyn Module>; 3] =
        [Box::new(GroupNorm::new(4, 32)), Box::new(InstanceNorm2d::new(32)), Box::new(BatchNorm2d::new(32).track_running_stats(false))];
    // 1.2 TB of f32.
    for layer in layers {
        assert_eq!(layer.summary([1, 32, 100_000, 100_000]).unwrap().rows[0].output.as_deref(), Some([1, 32, 100_000, 100_000].as_slice()));
    }
    let draw = |summarise: bool| {
        manual_seed(7);
        let net = Sequential::new().push(Dropout::new(0.5)).push(Linear::new(4, 2));
        if summarise {
            net.summary([3, 4]).unwrap();
        }
        values(&Tensor::randn([3]))
    };
    assert_eq!(draw(true), draw(false));
}
