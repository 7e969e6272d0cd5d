//! Outputs and gradients by path, and truncated networks.

use convnet::nn::*;
use convnet::ops::Pool2dOptions;
use convnet::{Result, Tensor, inspect, manual_seed, models, no_grad, visit_fields};

use super::{assert_close, values};

/// A convolution, a normalisation whose statistics are not those of the identity, a rectifier.
fn stem() -> Sequential {
    let bn = BatchNorm2d::new(4);
    bn.running_mean.as_ref().unwrap().set(&Tensor::randn([4])).unwrap();
    bn.running_var.as_ref().unwrap().set(&Tensor::rand([4]).add_scalar(0.5)).unwrap();
    let net = Sequential::new().push(Conv2d::new(2, 4, 3).padding(1)).push(bn).push(ReLU);
    net.eval();
    net
}

#[test]
fn outputs_are_those_of_single_layers_with_and_without_history() {
    manual_seed(1);
    let net = stem();
    let x = Tensor::randn([2, 2, 5, 5]);
    let conv = net.child(0).unwrap().forward(&x).unwrap();
    let bn = net.child(1).unwrap().forward(&conv).unwrap();
    let paths = ["2", "1", "0"];
    let fused = no_grad(|| net.forward(&x)).unwrap();
    let seen = no_grad(|| inspect::capture(&net, paths, || net.forward(&x))).unwrap();
    let recorded = inspect::capture(&net, paths, || net.forward(&x)).unwrap();
    for seen in [&seen, &recorded] {
        assert_eq!(seen.iter().map(|(path, _)| path).collect::<Vec<_>>(), ["0", "1", "2"]);
        assert_close(seen.output("0").unwrap(), &conv);
        assert_close(seen.output("1").unwrap(), &bn);
        assert_close(seen.output("2").unwrap(), &bn.relu());
        assert_close(&seen.value, &fused);
    }
    let gradients = recorded.value.sum(..).unwrap().backward().unwrap();
    assert_eq!(
        seen.gradient(&gradients, "1").unwrap_err().to_string().split(": ").nth(1),
        Some("the output at path \"1\" has no gradient")
    );
    let positive = values(&bn).into_iter().map(|y| f32::from(u8::from(y > 0.0))).collect::<Vec<_>>();
    assert_eq!(values(recorded.gradient(&gradients, "1").unwrap()), positive);
}

#[test]
fn normalisation_in_training_is_captured_before_shortcut_and_activation() {
    manual_seed(2);
    let block = models::BasicBlock::new(3, 3, 1);
    let x = Tensor::randn([2, 3, 6, 6]);
    let seen = inspect::capture(&block, ["bn2"], || block.forward(&x)).unwrap();
    assert_close(&seen.value, &seen.output("bn2").unwrap().add(&x).unwrap().relu());
}

#[test]
fn every_block_of_registered_models_reports_its_output() {
    for name in models::names() {
        let [channels, height, width] = models::info(name).unwrap().input;
        let summary = models::create(name, 10).unwrap().summary([1, channels, height, width]).unwrap();
        let silent: Vec<_> = summary
            .rows
            .iter()
            .filter(|row| row.is_block && row.multiply_adds > 0 && row.output.is_none())
            .map(|row| (&row.path, &row.layer))
            .collect();
        assert!(silent.is_empty(), "{name}: {silent:?}");
    }
}

#[test]
fn boxed_models_are_captured_at_containers_and_layers() {
    manual_seed(3);
    let model = models::create("resnet18", 10).unwrap();
    model.eval();
    let x = Tensor::randn([1, 3, 32, 32]);
    let paths = ["layer1", "layer1.0", "layer2.0.downsample", "layer4.1.bn2", "fc"];
    let seen = inspect::capture(&model, paths, || model.forward(&x)).unwrap();
    assert_eq!(seen.iter().count(), paths.len());
    assert_eq!(values(seen.output("fc").unwrap()), values(&seen.value));
    assert_eq!(seen.output("layer2.0.downsample").unwrap().shape(), [1, 128, 4, 4]);
    let gradients = seen.value.narrow(1, 3, 1).unwrap().sum(..).unwrap().backward().unwrap();
    for path in paths {
        assert_eq!(seen.gradient(&gradients, path).unwrap().shape(), seen.output(path).unwrap().shape());
    }
    // A block alone runs with its layers fused, with the same result.
    let alone = no_grad(|| inspect::capture(&model, ["layer1.0"], || model.forward(&x))).unwrap();
    assert_close(alone.output("layer1.0").unwrap(), seen.output("layer1.0").unwrap());
}

#[test]
fn part_of_a_model_is_captured_by_its_own_paths() {
    manual_seed(4);
    let model = models::resnet18(10);
    model.eval();
    let x = Tensor::randn([1, 64, 4, 4]);
    let seen = inspect::capture(&model.layer1, ["1.conv2"], || model.layer1.forward(&x)).unwrap();
    assert_eq!(seen.output("1.conv2").unwrap().shape(), [1, 64, 4, 4]);
}

#[test]
fn layer_that_runs_twice_has_two_outputs_with_gradients() {
    struct Twice {
        conv: Conv2d,
    }
    impl Module for Twice {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            x.apply(&self.conv)?.relu().apply(&self.conv)
        }
        visit_fields!(conv);
    }
    manual_seed(5);
    let net = Twice { conv: Conv2d::new(2, 2, 1) };
    let seen = inspect::capture(&net, ["conv"], || net.forward(&Tensor::randn([1, 2, 3, 3]))).unwrap();
    let outputs: Vec<_> = seen.outputs("conv").collect();
    assert_eq!(outputs.len(), 2);
    assert_eq!(values(outputs[1]), values(&seen.value));
    let gradients = seen.value.sum(..).unwrap().backward().unwrap();
    assert!(outputs.iter().all(|output| gradients.get(output).is_some()));
}

#[test]
fn outputs_inside_checkpoints_have_gradients() {
    manual_seed(6);
    let net = Sequential::new().push(Checkpoint::new(stem())).push(Conv2d::new(4, 1, 1));
    let x = Tensor::randn([1, 2, 4, 4]);
    let seen = inspect::capture(&net, ["0.0", "0"], || net.forward(&x)).unwrap();
    let gradients = seen.value.sum(..).unwrap().backward().unwrap();
    assert!(["0.0", "0"].iter().all(|path| seen.gradient(&gradients, path).is_ok()));
}

#[test]
fn dense_blocks_report_their_layers_without_history_and_with_little_memory() {
    manual_seed(7);
    let block = models::DenseBlock::new(4, 3, 2, 0.0);
    block.eval();
    let saving = models::DenseBlock { layers: block.layers.clone(), memory_efficient: true };
    let x = Tensor::randn([1, 4, 5, 5]);
    let whole = no_grad(|| block.forward(&x)).unwrap();
    let last = whole.narrow(1, 8, 2).unwrap();
    let plain = no_grad(|| inspect::capture(&block, ["denselayer3"], || block.forward(&x))).unwrap();
    let saving = inspect::capture(&saving, ["denselayer3"], || saving.forward(&x)).unwrap();
    for seen in [plain, saving] {
        assert_close(seen.output("denselayer3").unwrap(), &last);
        assert_close(&seen.value, &whole);
    }
}

#[test]
fn attention_layer_is_captured_before_shortcut_and_activation() {
    manual_seed(8);
    let block = models::BasicBlock::new(16, 16, 1).attention(models::SqueezeExcite::new(16));
    block.eval();
    let x = Tensor::randn([1, 16, 4, 4]);
    let seen = no_grad(|| inspect::capture(&block, ["se"], || block.forward(&x))).unwrap();
    assert_close(&seen.value, &seen.output("se").unwrap().add(&x).unwrap().relu());
}

#[test]
fn features_stop_at_the_path() {
    struct Net {
        body: Sequential,
        head: Linear,
    }
    impl Module for Net {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            let x = x.apply(&self.body)?.max_pool2d(2, Pool2dOptions::new())?;
            x.flatten(1, -1)?.apply(&self.head)
        }
        visit_fields!(body, head);
    }
    manual_seed(9);
    // The head does not fit the input, and so must not run.
    let net = Net { body: stem(), head: Linear::new(7, 2) };
    let x = Tensor::randn([1, 2, 6, 6]);
    assert_close(&inspect::features(&net, "body", &x).unwrap(), &net.body.forward(&x).unwrap());
    assert_close(&no_grad(|| inspect::features(&net, "body.1", &x)).unwrap().relu(), &net.body.forward(&x).unwrap());
    assert!(inspect::features(&net, "head", &x).unwrap_err().to_string().starts_with("head (Linear"));
    let error = inspect::features(&net, "boddy", &x).unwrap_err().to_string();
    assert!(error.starts_with("features: there is no module at path \"boddy\"; near names are body, "), "{error}");
}

#[test]
fn module_that_did_not_run_is_named() {
    let net = stem();
    let error = inspect::capture(&net, ["1"], || Ok(())).unwrap_err().to_string();
    assert!(error.starts_with("capture: the module at path \"1\" has no output"), "{error}");
    let error = inspect::capture(&net, [""], || Ok(())).unwrap_err().to_string();
    assert!(error.contains("the network itself"), "{error}");
    let seen = inspect::capture(&net, ["1"], || net.forward(&Tensor::zeros([1, 2, 3, 3]))).unwrap();
    assert_eq!(seen.output("0").unwrap_err().to_string(), "capture: path \"0\" was not captured, but 1");
}
