use prost::Message;

use super::{Export, export};
use crate::autograd::CustomOp;
use crate::nn::{BatchNorm2d, Conv2d, Dropout, Flatten, Layer, LayerPath, Linear, Module, ModuleExt, ReLU, Sequential};
use crate::onnx::proto::{ModelProto, TensorProto, tensor_shape_proto::dimension::Value, type_proto};
use crate::{Error, Result, Tensor, models, no_grad, visit_fields};

fn written(options: &Export, model: &impl Module, shape: &[usize]) -> ModelProto {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    options.write(model, &[shape], &path).unwrap();
    ModelProto::decode(std::fs::read(&path).unwrap().as_slice()).unwrap()
}

fn refused(model: &impl Module, shape: &[usize]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    let message = export(model, &[shape], &path).unwrap_err().to_string();
    assert!(!path.exists());
    message
}

/// The nodes as `name: inputs -> outputs`.
fn nodes(model: &ModelProto) -> Vec<String> {
    let nodes = &model.graph.as_ref().unwrap().node;
    nodes.iter().map(|node| format!("{}: {} -> {}", node.name, node.input.join(" "), node.output.join(" "))).collect()
}

fn operators(model: &ModelProto) -> Vec<&str> {
    model.graph.as_ref().unwrap().node.iter().map(|node| node.op_type.as_str()).collect()
}

fn initialisers(model: &ModelProto) -> Vec<&TensorProto> {
    model.graph.as_ref().unwrap().initializer.iter().collect()
}

fn floats(tensor: &TensorProto) -> Vec<f32> {
    tensor.raw_data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// The sizes of an input or output: numbers and names.
fn sizes(model: &ModelProto, is_output: bool) -> Vec<String> {
    let graph = model.graph.as_ref().unwrap();
    let port = if is_output { &graph.output[0] } else { &graph.input[0] };
    let Some(type_proto::Value::TensorType(tensor)) = &port.r#type.as_ref().unwrap().value else { panic!("no tensor") };
    let size = |value: &Option<Value>| match value.as_ref().unwrap() {
        Value::DimValue(size) => size.to_string(),
        Value::DimParam(name) => name.clone(),
    };
    tensor.shape.as_ref().unwrap().dim.iter().map(|dimension| size(&dimension.value)).collect()
}

/// A normalisation that is not the identity.
fn norm(channels: usize) -> BatchNorm2d {
    let norm = BatchNorm2d::new(channels).eps(1e-2);
    norm.running_mean.as_ref().unwrap().set(&Tensor::randn([channels])).unwrap();
    norm.running_var.as_ref().unwrap().set(&Tensor::rand([channels]).add_scalar(0.5)).unwrap();
    norm.weight.as_ref().unwrap().set(&Tensor::randn([channels])).unwrap();
    norm
}

fn small() -> Sequential {
    Sequential::new()
        .push_named("conv", Conv2d::new(3, 4, 3).padding(1).bias(false))
        .push_named("bn", norm(4))
        .push(ReLU)
        .push(Dropout::new(0.5))
        .push(Flatten)
        .push_named("fc", Linear::new(4 * 5 * 6, 2))
}

#[test]
fn graph_has_names_of_layers_and_keys_of_the_state_dict() {
    let net = small();
    let model = written(&Export::new(), &net, &[1, 3, 5, 6]);
    assert_eq!(
        nodes(&model),
        [
            "conv/Conv: input conv.weight -> conv/Conv_output",
            "bn/BatchNormalization: conv/Conv_output bn.weight bn.bias bn.running_mean bn.running_var -> bn/BatchNormalization_output",
            "2/Relu: bn/BatchNormalization_output -> 2/Relu_output",
            "4/Reshape: 2/Relu_output integers_0 -> 4/Reshape_output",
            "fc/Gemm: 4/Reshape_output fc.weight fc.bias -> output",
        ]
    );
    let mut names: Vec<&str> = initialisers(&model).iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    let mut keys: Vec<String> = net.state_dict().keys().filter(|key| !key.contains("num_batches")).map(str::to_string).collect();
    keys.push("integers_0".to_string());
    keys.sort_unstable();
    assert_eq!(names, keys);
    for tensor in initialisers(&model).into_iter().filter(|tensor| tensor.name != "integers_0") {
        let value = net.state_dict().get(&tensor.name).unwrap().clone();
        assert_eq!((floats(tensor), &tensor.dims), (value.to_vec::<f32>().unwrap(), &value.shape().iter().map(|&n| n as i64).collect()));
    }
    assert_eq!(
        (sizes(&model, false), sizes(&model, true)),
        (["batch", "3", "5", "6"].map(String::from).to_vec(), ["batch", "2"].map(String::from).to_vec())
    );
    assert_eq!((model.opset_import[0].version, model.ir_version), (17, 8));
}

#[test]
fn export_leaves_the_mode_and_the_statistics_of_the_network_as_they_are() {
    let net = small();
    let before = net.state_dict();
    written(&Export::new(), &net, &[1, 3, 5, 6]);
    assert!(net.is_training());
    for (key, value) in net.state_dict().iter() {
        assert_eq!(value, before.get(key).unwrap(), "{key}");
    }
}

#[test]
fn folded_normalisation_gives_weights_whose_outputs_are_those_of_both_layers() {
    let net = Sequential::new().push_named("conv", Conv2d::new(3, 4, 3)).push_named("bn", norm(4)).push(ReLU);
    let model = written(&Export::new().fold(true), &net, &[1, 3, 5, 6]);
    assert_eq!(nodes(&model), ["conv/Conv: input conv.weight conv.bias -> conv/Conv_output", "2/Relu: conv/Conv_output -> output"]);
    let tensors: Vec<Tensor> = initialisers(&model)
        .iter()
        .map(|tensor| Tensor::from_vec(floats(tensor), tensor.dims.iter().map(|&n| n as usize).collect::<Vec<_>>()).unwrap())
        .collect();
    net.eval();
    let x = Tensor::randn([2, 3, 5, 6]);
    let expected = no_grad(|| net.forward(&x)).unwrap();
    let found = x.conv2d(&tensors[0], Some(&tensors[1]), Default::default()).unwrap().relu();
    // Rounding errors of sums of 27 products.
    assert!(approx::relative_eq!(found, expected, epsilon = 1e-5, max_relative = 1e-5), "{:?}", found.worst_difference(&expected));
    // A convolution whose result is read twice stays as it is.
    struct Twice {
        conv: Conv2d,
        bn: BatchNorm2d,
    }
    impl Module for Twice {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            let y = self.conv.forward(x)?;
            self.bn.forward(&y)?.add(&y)
        }
        visit_fields!(conv, bn);
    }
    let model = written(&Export::new().fold(true), &Twice { conv: Conv2d::new(3, 4, 1), bn: norm(4) }, &[1, 3, 5, 6]);
    assert_eq!(operators(&model), ["Conv", "BatchNormalization", "Add"]);
}

#[test]
fn sizes_are_dynamic_where_the_network_allows_and_an_error_says_where_not() {
    let pooled = models::cifar_resnet20(10);
    let model = written(&Export::new().dynamic_size(true), &pooled, &[1, 3, 32, 32]);
    assert_eq!(sizes(&model, false), ["batch", "3", "height", "width"]);
    assert_eq!(sizes(&model, true), ["batch", "10"]);
    let folder = tempfile::tempdir().unwrap();
    let any_size = Export::new().dynamic_size(true);
    let error = any_size.write(&small(), &[[1, 3, 5, 6]], folder.path().join("net.onnx")).unwrap_err().to_string();
    assert!(error.contains("fc (Linear") && error.contains("dynamic_size"), "{error}");
    let error = any_size.write(&Adaptive::default(), &[[1, 3, 8, 8]], folder.path().join("net.onnx")).unwrap_err().to_string();
    assert!(error.contains("pool: operation `adaptive_avg_pool2d`") && error.contains("fixed height and width"), "{error}");
    let fixed = written(&Export::new().dynamic_batch(false), &small(), &[4, 3, 5, 6]);
    assert_eq!((sizes(&fixed, false)[0].as_str(), sizes(&fixed, true)[0].as_str()), ("4", "4"));
}

#[derive(Default)]
struct Adaptive {
    pool: Pool,
}

#[derive(Default)]
struct Pool {
    path: LayerPath,
}

impl Layer for Pool {
    fn describe(&self) -> String {
        "Pool".into()
    }
}

impl Module for Pool {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || x.adaptive_avg_pool2d(2))
    }
    visit_fields!(layer path);
}

impl Module for Adaptive {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.pool.forward(x)
    }
    visit_fields!(pool);
}

/// A module of this function, at the path `inner`.
struct Of<F>(Inner<F>);

struct Inner<F> {
    run: F,
    path: LayerPath,
}

impl<F> Layer for Inner<F> {
    fn describe(&self) -> String {
        "Inner".into()
    }
}

impl<F: Fn(&Tensor) -> Result<Tensor> + Clone + Send + Sync + 'static> Module for Inner<F> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.path.scope(self, x, || (self.run)(x))
    }
    visit_fields!(layer path, skip(run));
}

impl<F: Fn(&Tensor) -> Result<Tensor> + Clone + Send + Sync + 'static> Module for Of<F> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
    fn visit(&self, visitor: &mut crate::nn::Visitor<'_>) {
        visitor.module("inner", &self.0);
    }
}

fn of<F: Fn(&Tensor) -> Result<Tensor> + Clone + Send + Sync + 'static>(run: F) -> Of<F> {
    Of(Inner { run, path: LayerPath::new() })
}

#[test]
fn operations_that_cannot_be_exported_are_errors_that_name_the_layer() {
    let swish = of(|x| {
        CustomOp::new("relu").apply([x], |[x]| {
            let y = x.mul(&x.sigmoid()?)?;
            Ok((y, |grad: &Tensor, _: [bool; 1]| Ok([Some(grad.clone())])))
        })
    });
    let message = refused(&swish, &[1, 3]);
    assert!(message.contains("inner: operation `relu` cannot be exported: it is an operation of the user"), "{message}");
    let message = refused(&of(|x| x.dropout(0.5)), &[1, 3]);
    assert!(message.contains("inner: operation `dropout` cannot be exported: it drops elements at random"), "{message}");
    let message = refused(&of(|x| x.mse_loss(&x.relu())), &[1, 3]);
    assert!(message.contains("`mse_loss` cannot be exported: a loss"), "{message}");
}

#[test]
fn values_that_leave_tensors_are_found_by_the_second_run() {
    let by_hand = of(|x| {
        let values: Vec<f32> = x.to_vec::<f32>()?.iter().map(|value| value * 2.0).collect();
        Tensor::from_vec(values, x.shape())?.add(x)
    });
    let message = refused(&by_hand, &[1, 3]);
    assert!(message.contains("inner: operation `add` cannot be exported: it reads a tensor [2, 3] that differs"), "{message}");
    let message = refused(&of(|x| Ok(x.mul_scalar(f64::from(x.sum(..)?.item::<f32>()?)))), &[1, 3]);
    assert!(message.contains("`mul_scalar` cannot be exported: its `value` depends on the input"), "{message}");
    let chosen = of(|x| if x.shape()[0] > 2 { x.tanh() } else { x.sigmoid() });
    let message = refused(&chosen, &[1, 3]);
    assert!(message.contains("`sigmoid`") && message.contains("`tanh` is in its place"), "{message}");
    let random = of(|x| x.add(&Tensor::randn([3])));
    assert!(refused(&random, &[1, 3]).contains("drawn at random"));
}

#[test]
fn constants_are_computed_before_and_an_unchanged_input_is_copied() {
    let weight = Tensor::randn([4, 3]);
    let scaled = of(move |x| x.matmul(&weight.mul_scalar(2.0).transpose(0, 1)?));
    let model = written(&Export::new(), &scaled, &[1, 3]);
    assert_eq!(nodes(&model), ["inner/MatMul: input inner/constant -> output"]);
    assert_eq!(initialisers(&model)[0].dims, [3, 4]);
    assert_eq!(nodes(&written(&Export::new(), &of(|x| Ok(x.clone())), &[1, 3])), ["Identity: input -> output"]);
}

#[test]
fn several_inputs_and_outputs_have_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    let options = Export::new().input_names(["left", "right"]).output_names(["sum", "same"]);
    let model = of(|x| Ok(x.clone()));
    options.write_with(&model, &[[1, 3], [1, 3]], &path, |x| x[0].add(&x[1]).map(|sum| vec![sum.clone(), sum])).unwrap();
    let read = ModelProto::decode(std::fs::read(&path).unwrap().as_slice()).unwrap();
    assert_eq!(nodes(&read), ["Add: left right -> sum", "Identity: sum -> same"]);
    assert!(options.write(&model, &[[1, 3], [1, 3]], &path).unwrap_err().to_string().contains("`write_with`"));
    let wrong = options.output_names(["a", "a"]).write_with(&model, &[[1, 3], [1, 3]], &path, |x| Ok(x.to_vec()));
    assert!(wrong.unwrap_err().to_string().contains("expected 2 different names"));
    assert!(matches!(Export::new().opset(16).write(&model, &[[1, 3]], &path), Err(Error::Argument { .. })));
}

#[test]
fn metadata_and_external_data_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lenet.onnx");
    let net = models::lenet5(3);
    let options = Export::new().external_data(true).classes(["a", "b\"", "c"]).preprocessing(&models::preprocessing("lenet5").unwrap());
    options.write(&net, &[[1, 1, 28, 28]], &path).unwrap();
    let model = ModelProto::decode(std::fs::read(&path).unwrap().as_slice()).unwrap();
    let entries: Vec<(&str, &str)> = model.metadata_props.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    let expected = [
        ("classes", r#"["a","b\"","c"]"#),
        ("mean", "[0.1307]"),
        ("std", "[0.3081]"),
        ("size", "[28,28]"),
        ("resize", "28"),
        ("interpolation", "bilinear"),
    ];
    assert_eq!(entries, expected);
    let data = std::fs::read(folder.path().join("lenet.onnx.data")).unwrap();
    let mut external = 0;
    for tensor in initialisers(&model) {
        let Some(value) = net.state_dict().get(&tensor.name).cloned() else { continue };
        let bytes = if tensor.external_data.is_empty() {
            tensor.raw_data.to_vec()
        } else {
            external += 1;
            let number = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).unwrap().value.parse::<usize>().unwrap();
            assert_eq!((tensor.external_data[0].value.as_str(), number("offset") % 4096), ("lenet.onnx.data", 0));
            data[number("offset")..][..number("length")].to_vec()
        };
        assert_eq!(bytes, bytemuck::cast_slice::<f32, u8>(&value.to_vec::<f32>().unwrap()));
    }
    // The first convolution's weight has 600 bytes, the last layer's 1008, the biases fewer.
    assert_eq!(external, 3);
}
