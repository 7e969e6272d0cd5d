//! Which walk sets the paths that errors, profiles and summaries give.

use convnet::nn::*;
use convnet::{Error, Result, Tensor, profile, visit_fields};

use super::{block, nested};

/// The path that an error from the layer gives.
fn path(layer: &dyn Module) -> String {
    match layer.forward(&Tensor::zeros([1, 1, 1])) {
        Err(Error::Layer { path, .. }) => path,
        other => panic!("expected an error with a path, got {other:?}"),
    }
}

struct Net {
    conv1: Conv2d,
    stage: Vec<Conv2d>,
    boxed: Box<dyn Module>,
    extra: Option<Conv2d>,
}

impl Module for Net {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.boxed.forward(&self.extra.forward(&self.stage.forward(&self.conv1.forward(x)?)?)?)
    }
    visit_fields!(conv1, stage, boxed, extra);
}

fn net() -> Net {
    let conv = || Conv2d::new(2, 2, 1);
    let net = Net { conv1: conv(), stage: vec![conv(), conv()], boxed: Box::new(conv()), extra: Some(conv()) };
    net.eval();
    net
}

fn paths(net: &Net) -> [String; 5] {
    [path(&net.conv1), path(&net.stage[0]), path(&net.stage[1]), path(&net.boxed), path(net.extra.as_ref().unwrap())]
}

const PATHS: [&str; 5] = ["conv1", "stage.0", "stage.1", "boxed", "extra"];

#[test]
fn a_walk_over_a_part_leaves_the_paths_from_the_root() {
    let net = net();
    assert_eq!(paths(&net), PATHS);
    net.conv1.parameters();
    net.stage.eval();
    net.stage[1].train();
    net.boxed.named_buffers();
    net.extra.state_dict();
    net.extra.as_ref().unwrap().is_training();
    net.conv1.to_dtype(convnet::DType::F64).unwrap();
    net.stage.summary([1, 2, 3, 3]).unwrap();
    assert_eq!(paths(&net), PATHS);
    // Keys stay those from the part.
    assert_eq!(net.stage.named_parameters()[2].0, "1.weight");
    let ((), profile) = profile(|| {
        let _ = net.stage[1].forward(&Tensor::zeros([1, 2, 3, 3]));
    });
    assert!(profile.to_string().contains("stage.1"), "{profile}");
}

#[test]
fn a_part_of_a_part_keeps_its_path_and_so_do_the_children_of_a_sequence() {
    let net = nested();
    net.parameters();
    let layer1 = net.child(0).unwrap();
    layer1.eval();
    layer1.parameters();
    let error = net.forward(&Tensor::zeros([2, 3, 56, 56])).unwrap_err().to_string();
    assert!(error.starts_with("layer1.0.conv1 (Conv2d"), "{error}");
    let error = layer1.forward(&Tensor::zeros([2, 3, 56, 56])).unwrap_err().to_string();
    assert!(error.starts_with("layer1.0.conv1 (Conv2d"), "{error}");
}

#[test]
fn a_summary_of_a_part_lists_paths_from_the_part() {
    let net = nested();
    net.parameters();
    let layer1 = net.child(0).unwrap();
    let summary = layer1.summary([1, 64, 2, 2]).unwrap();
    let expected = ["", "0", "0.conv1", "0.act", "1", "1.conv1", "1.act", "1.downsample", "1.downsample.0"];
    assert_eq!(summary.rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), expected);
    assert!(summary.rows.iter().all(|row| row.output.is_some()), "{summary}");
    let fields = layer1.receptive_field([1, 64, 2, 2]).unwrap();
    assert_eq!(fields.rows[0].path, "0.conv1");
    let error = layer1.summary([1, 3, 2, 2]).unwrap_err().to_string();
    assert!(error.starts_with("layer1.0.conv1 (Conv2d 64→64, k3)"), "{error}");
    let error = layer1.receptive_field([1, 3, 2, 2]).unwrap_err().to_string();
    assert!(error.starts_with("layer1.0.conv1 (Conv2d 64→64, k3)"), "{error}");
}

#[test]
fn the_first_walk_over_a_larger_model_sets_longer_paths() {
    let inner = net();
    struct Outer {
        body: Net,
        fc: Linear,
    }
    impl Module for Outer {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            self.fc.forward(&self.body.forward(x)?)
        }
        visit_fields!(body, fc);
    }
    let outer = Outer { body: inner, fc: Linear::new(2, 2) };
    outer.parameters();
    let expected = PATHS.map(|path| format!("body.{path}"));
    assert_eq!(paths(&outer.body), expected);
    outer.body.parameters();
    outer.body.stage.parameters();
    assert_eq!(paths(&outer.body), expected);
    // A part in a model of another structure, under the name that it had.
    let Net { conv1, boxed, .. } = outer.body;
    let moved = Net { conv1, stage: vec![], boxed, extra: None };
    moved.parameters();
    assert_eq!(path(&moved.conv1), "body.conv1", "both keep their old prefix, as if still inside");
    let moved = Net { stage: vec![Conv2d::new(2, 2, 1)], ..moved };
    moved.parameters();
    assert_eq!([path(&moved.conv1), path(&moved.stage[0]), path(&moved.boxed)], ["conv1", "stage.0", "boxed"]);
    let sequence = Sequential::new().push_named("conv1", moved.conv1);
    assert_eq!(path(sequence.child(0).unwrap()), "conv1");
}

#[test]
fn a_layer_in_two_places_has_the_first_path() {
    struct Tied(std::sync::Arc<Conv2d>);
    impl Module for Tied {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            self.0.forward(&self.0.forward(x)?)
        }
        fn visit(&self, v: &mut Visitor<'_>) {
            v.module("a", &self.0);
            v.module("b", &self.0);
        }
    }
    let net = vec![Tied(Conv2d::new(2, 2, 1).into())];
    net.parameters();
    assert_eq!(path(&net[0].0), "0.a");
    net[0].parameters();
    net[0].0.parameters();
    assert_eq!(path(&net[0].0), "0.a");
}

#[test]
fn names_that_only_end_alike_are_different_paths() {
    struct Named(&'static str, Conv2d);
    impl Module for Named {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            self.1.forward(x)
        }
        fn visit(&self, v: &mut Visitor<'_>) {
            v.module(self.0, &self.1);
        }
    }
    let named = Named("xconv", Conv2d::new(2, 2, 1));
    named.parameters();
    let named = Named("conv", named.1);
    named.parameters();
    assert_eq!(path(&named.1), "conv");
}

#[test]
fn a_new_layer_in_a_part_gets_its_path_from_the_next_walk_over_the_model() {
    let mut net = vec![block(2, 2), block(2, 2)];
    net.parameters();
    net[1].conv1 = Conv2d::new(2, 2, 3);
    net.parameters();
    assert_eq!(path(&net[1].conv1), "1.conv1");
    net[1].parameters();
    assert_eq!(path(&net[1].conv1), "1.conv1");
}
