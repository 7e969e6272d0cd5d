//! Hostile graphs, and networks that train.

mod operators;

use std::time::Instant;

use prost::Message;

use super::*;
use crate::nn::{Module, ModuleExt};
use crate::onnx::proto::tensor_proto::{DataLocation, DataType};
use crate::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use crate::onnx::proto::type_proto;
use crate::onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
};
use crate::{Tensor, no_grad};

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    NodeProto { op_type: op.into(), input: names(inputs), output: names(outputs), ..Default::default() }
}

fn value(name: &str) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: None };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: name.into(), r#type: Some(kind), ..Default::default() }
}

fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        float_data: values.to_vec(),
        ..Default::default()
    }
}

fn ints(name: &str, values: &[i64]) -> TensorProto {
    let dims = vec![values.len() as i64];
    TensorProto { name: name.into(), dims, data_type: DataType::Int64 as i32, int64_data: values.to_vec(), ..Default::default() }
}

fn model(nodes: Vec<NodeProto>, stored: Vec<TensorProto>, output: &str) -> ModelProto {
    let graph = GraphProto { node: nodes, initializer: stored, input: vec![value("x")], output: vec![value(output)], ..Default::default() };
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
    ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..Default::default() }
}

fn read(model: &ModelProto) -> Parsed<Network> {
    parse(model.encode_to_vec(), None)
}

fn refused(model: &ModelProto, why: &str) {
    match read(model) {
        Ok(network) => panic!("{network} was read, and not refused because it {why}"),
        Err(message) => assert!(message.contains(why), "{message}"),
    }
}

#[test]
fn hostile_graphs_are_errors() {
    refused(&model(vec![node("Relu", &["b"], &["a"]), node("Relu", &["a"], &["b"])], vec![], "a"), "cycle");
    refused(&model(vec![node("Relu", &["a"], &["a"])], vec![], "a"), "cycle");
    refused(&model(vec![node("Conv", &["x", "weight"], &["y"])], vec![], "y"), "`weight`, which nothing makes");
    refused(&model(vec![node("Relu", &["x"], &["y"]), node("Neg", &["x"], &["y"])], vec![], "y"), "made twice");
    refused(&model(vec![node("Relu", &["x"], &["y"])], vec![], "z"), "made by no node");
    refused(&model(vec![node("Frobnicate", &["x"], &["y"])], vec![], "y"), "not supported");
    refused(&model(vec![node("Relu", &["x"], &["y"])], vec![floats("w", &[-1], &[])], "y"), "not that of a tensor");
    refused(&model(vec![node("Relu", &["x"], &["y"])], vec![floats("w", &[1 << 60], &[1.0])], "y"), "not that of a tensor");
    refused(&model(vec![node("Relu", &["x"], &["y"])], vec![floats("w", &[1 << 40], &[1.0])], "y"), "bytes do not make");
    let dimension = |size: i64| Dimension { value: Some(dimension::Value::DimValue(size)), ..Default::default() };
    let mut negative = model(vec![node("Relu", &["x"], &["y"])], vec![], "y");
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(TensorShapeProto { dim: vec![dimension(-1)] }) };
    negative.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap().value = Some(type_proto::Value::TensorType(tensor));
    refused(&negative, "a dimension of size -1");
    let old = ModelProto { opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 99 }], ..model(vec![], vec![], "x") };
    refused(&old, "version 99");
}

#[test]
fn constants_are_folded_within_the_memory_that_the_file_justifies() {
    for (op, shape) in [("ConstantOfShape", vec![1i64 << 40]), ("ConstantOfShape", vec![1 << 16, 1 << 16]), ("ConstantOfShape", vec![-3])] {
        refused(&model(vec![node(op, &["s"], &["c"]), node("Add", &["x", "c"], &["y"])], vec![ints("s", &shape)], "y"), "");
    }
    // Each doubling is small; together they are not.
    let mut nodes = vec![node("Concat", &["s", "s"], &["c0"])];
    for at in 0..50 {
        let (from, to) = (format!("c{at}"), format!("c{}", at + 1));
        nodes.push(node("Concat", &[&from, &from], &[&to]));
    }
    nodes.iter_mut().for_each(|node| {
        node.attribute = vec![AttributeProto { name: "axis".into(), r#type: AttributeType::Int as i32, i: 0, ..Default::default() }];
    });
    refused(&model(nodes, vec![ints("s", &[1; 64])], "c50"), "more memory than");
}

#[test]
fn functions_that_call_themselves_or_multiply_are_errors() {
    let function = |name: &str, nodes: Vec<NodeProto>| FunctionProto {
        name: name.into(),
        domain: "own".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: nodes,
        ..Default::default()
    };
    let call = |name: &str, from: &str, to: &str| NodeProto { domain: "own".into(), ..node(name, &[from], &[to]) };
    let mut endless = model(vec![call("f", "x", "y")], vec![], "y");
    endless.functions = vec![function("f", vec![call("f", "a", "b")])];
    refused(&endless, "nested more than");
    let mut bomb = model(vec![call("f0", "x", "y")], vec![], "y");
    bomb.functions = (0..15)
        .map(|level| {
            let names: Vec<String> =
                std::iter::once("a".to_string()).chain((1..16).map(|i| format!("t{i}"))).chain(["b".to_string()]).collect();
            let inner = |at: usize| match level {
                14 => node("Relu", &[&names[at]], &[&names[at + 1]]),
                _ => call(&format!("f{}", level + 1), &names[at], &names[at + 1]),
            };
            function(&format!("f{level}"), (0..16).map(inner).collect())
        })
        .collect();
    refused(&bomb, "more memory than");
}

#[test]
fn a_default_of_a_function_stands_in_for_a_reference_to_what_was_not_given() {
    let alpha = AttributeProto { name: "alpha".into(), r#type: AttributeType::Float as i32, ..Default::default() };
    let named = |name: &str| AttributeProto { ref_attr_name: name.into(), ..alpha.clone() };
    let function = |name: &str, node: NodeProto| FunctionProto {
        name: name.into(),
        domain: "own".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![node],
        ..Default::default()
    };
    let call = |name: &str, from: &str, to: &str, attribute: Vec<AttributeProto>| NodeProto {
        domain: "own".into(),
        attribute,
        ..node(name, &[from], &[to])
    };
    let negative = |given: Vec<AttributeProto>| {
        let mut file = model(vec![call("f", "x", "y", given)], vec![], "y");
        // The outer function has no default for its attribute, the inner one has.
        let outer = FunctionProto { attribute: vec!["slope".into()], ..function("f", call("g", "a", "b", vec![named("slope")])) };
        let leaky = NodeProto { attribute: vec![named("alpha")], ..node("LeakyRelu", &["a"], &["b"]) };
        let default = AttributeProto { f: 0.5, ..alpha.clone() };
        file.functions = vec![outer, FunctionProto { attribute_proto: vec![default], ..function("g", leaky) }];
        read(&file).unwrap().forward(&Tensor::from_vec(vec![-4f32], [1]).unwrap()).unwrap().item::<f32>().unwrap()
    };
    assert_eq!(negative(vec![]), -2.0);
    assert_eq!(negative(vec![AttributeProto { name: "slope".into(), f: 0.25, ..alpha.clone() }]), -1.0);
}

#[test]
fn many_attributes_of_a_function_take_time_in_proportion() {
    let alpha = |name: String| AttributeProto { name, r#type: AttributeType::Float as i32, f: 0.5, ..Default::default() };
    let call = |to: &str| NodeProto { domain: "own".into(), ..node("f", &["x"], &[to]) };
    let mut file = model(vec![call("y")], vec![], "y");
    // The length of a file limits the memory for its attributes: this one is long by a comment.
    file.doc_string = " ".repeat(32 << 20);
    let reference = AttributeProto { ref_attr_name: "59999".into(), ..alpha("alpha".into()) };
    file.functions = vec![FunctionProto {
        name: "f".into(),
        domain: "own".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![NodeProto { attribute: vec![reference], ..node("LeakyRelu", &["a"], &["b"]) }],
        attribute_proto: (0..60_000).map(|at| alpha(format!("{at:05}"))).collect(),
        ..Default::default()
    }];
    let timed = |file: &ModelProto| {
        let start = Instant::now();
        (read(file).unwrap(), start.elapsed())
    };
    let mut unused = file.clone();
    unused.graph.as_mut().unwrap().node = vec![node("Relu", &["x"], &["y"])];
    let (_, alone) = timed(&unused);
    let (network, with_call) = timed(&file);
    // Measured: 1.1 times; more than 100 times where each name is compared with each.
    assert!(with_call < 10 * alone, "{with_call:?} with a call, {alone:?} without");
    let y = network.forward(&Tensor::from_vec(vec![-4f32], [1]).unwrap()).unwrap();
    assert_eq!(y.item::<f32>().unwrap(), -2.0);
    // A function is read anew for each call.
    file.graph.as_mut().unwrap().node.extend((0..100).map(|at| call(&format!("y{at}"))));
    refused(&file, "more memory than");
}

#[test]
fn lists_that_functions_copy_are_taken_from_the_limit() {
    let list = AttributeProto { name: "list".into(), r#type: AttributeType::Ints as i32, ints: vec![1; 100_000], ..Default::default() };
    let body = NodeProto { attribute: vec![list], ..node("Relu", &["a"], &["b"]) };
    let calls = (0..200).map(|at| NodeProto { domain: "own".into(), ..node("f", &["x"], &[&format!("y{at}")]) });
    let mut copies = model(calls.collect(), vec![], "y0");
    copies.functions = vec![FunctionProto {
        name: "f".into(),
        domain: "own".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![body],
        ..Default::default()
    }];
    refused(&copies, "more memory than");
    copies.graph.as_mut().unwrap().node.truncate(1);
    assert!(read(&copies).is_ok());
}

#[test]
fn constants_that_take_long_are_computed_in_runs() {
    let kept = |steps: usize| {
        let mut nodes = vec![node("ConstantOfShape", &["s"], &["c0"])];
        nodes.extend((0..steps).map(|at| node("MatMul", &[&format!("c{at}"), "c0"], &[&format!("c{}", at + 1)])));
        nodes.push(node("Add", &["x", &format!("c{steps}")], &["y"]));
        let network = read(&model(nodes, vec![ints("s", &[512, 512])], "y")).unwrap();
        let x = Tensor::ones([512, 512]);
        assert_eq!(network.forward(&x).unwrap().to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
        network.actions.len()
    };
    assert_eq!(kept(1), 1, "only the addition is left");
    // Each product is some 4·10⁸ operations.
    assert!(kept(4) > 1);
}

#[test]
fn nodes_in_any_order_and_functions_run() {
    let nodes = vec![node("Neg", &["r"], &["y"]), NodeProto { domain: "own".into(), ..node("f", &["x"], &["r"]) }];
    let mut found = model(nodes, vec![], "y");
    found.functions = vec![FunctionProto {
        name: "f".into(),
        domain: "own".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![node("Relu", &["a"], &["b"])],
        ..Default::default()
    }];
    let network = read(&found).unwrap();
    let x = Tensor::from_vec(vec![-1f32, 2.0], [2]).unwrap();
    assert_eq!(network.forward(&x).unwrap().to_vec::<f32>().unwrap(), [0.0, -2.0]);
    assert!(network.run(&[]).unwrap_err().to_string().contains("expected 1 inputs"));
}

#[test]
fn sums_over_labels_are_products_of_matrices() {
    let equation = |text: &str, inputs: &[&str]| {
        let attribute = AttributeProto {
            name: "equation".into(),
            r#type: AttributeType::String as i32,
            s: text.as_bytes().to_vec().into(),
            ..Default::default()
        };
        model(
            vec![NodeProto { attribute: vec![attribute], ..node("Einsum", inputs, &["y"]) }],
            vec![floats("v", &[3], &[1.0, -2.0, 0.5])],
            "y",
        )
    };
    let run = |text: &str, inputs: &[&str], shape: &[usize]| {
        let x = Tensor::from_vec((0..shape.iter().product()).map(|i: usize| i as f32).collect(), shape).unwrap();
        let y = read(&equation(text, inputs)).unwrap().forward(&x)?;
        Ok::<_, crate::Error>((y.shape().to_vec(), y.to_vec::<f32>().unwrap()))
    };
    // Computed by `torch.einsum`.
    let cases: &[(&str, &[&str], &[usize], &[usize], &[f32])] = &[
        ("ij,j->i", &["x", "v"], &[2, 3], &[2], &[-1.0, -2.5]),
        ("b i j , b j k -> b k i", &["x", "x"], &[1, 2, 2], &[1, 2, 2], &[2.0, 6.0, 3.0, 11.0]),
        ("...ii->...i", &["x"], &[2, 2, 2], &[2, 2], &[0.0, 3.0, 4.0, 7.0]),
        ("ij,...k,k", &["x", "v", "v"], &[1, 2], &[1, 2], &[0.0, 5.25]),
        ("...k,...k->k", &["x", "v"], &[2, 3], &[3], &[3.0, -10.0, 3.5]),
        ("i,j,k->ki", &["x", "v", "v"], &[2], &[3, 2], &[0.0, -0.5, 0.0, 1.0, 0.0, -0.25]),
    ];
    for &(text, inputs, shape, expected, values) in cases {
        assert_eq!(run(text, inputs, shape).unwrap(), (expected.to_vec(), values.to_vec()), "{text}");
    }
    for (text, inputs) in [
        ("ij", &["x", "x"][..]),
        ("ijk->i", &["x"]),
        ("ij->ik", &["x"]),
        ("ij->ii", &["x"]),
        ("ii->i", &["x"]),
        ("ij,ji->i", &["x", "x"]),
        ("i1->i", &["x"]),
        ("......->", &["x"]),
        ("", &["x"]),
    ] {
        assert!(run(text, inputs, &[2, 3]).is_err(), "{text}");
    }
}

#[test]
fn an_error_names_the_sizes_that_a_file_was_written_for() {
    let mut fixed = model(vec![node("Reshape", &["x", "s"], &["y"])], vec![ints("s", &[1, 4])], "y");
    let dim = [1, 2, 2].map(|size| Dimension { value: Some(dimension::Value::DimValue(size)), ..Default::default() }).to_vec();
    let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: Some(TensorShapeProto { dim }) };
    fixed.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap().value = Some(type_proto::Value::TensorType(tensor));
    let network = read(&fixed).unwrap();
    assert_eq!(network.forward(&Tensor::ones([1, 2, 2])).unwrap().shape(), [1, 4]);
    let message = network.forward(&Tensor::ones([3, 2, 2])).unwrap_err().to_string();
    assert!(message.contains("input `x` is [1, 2, 2] in the file, got shape [3, 2, 2]"), "{message}");
}

#[test]
fn convolutions_normalise_train_and_copy_as_layers_do() {
    crate::manual_seed(1);
    let weight: Vec<f32> = Tensor::randn([4 * 3 * 9]).to_vec().unwrap();
    let stored = vec![
        floats("conv.weight", &[4, 3, 3, 3], &weight),
        floats("bn.weight", &[4], &[1.0, 2.0, 3.0, 4.0]),
        floats("bn.bias", &[4], &[0.5; 4]),
        floats("bn.mean", &[4], &[0.1; 4]),
        floats("bn.var", &[4], &[0.5; 4]),
    ];
    let norm = ["c", "bn.weight", "bn.bias", "bn.mean", "bn.var"];
    let nodes = vec![node("Conv", &["x", "conv.weight"], &["c"]), node("BatchNormalization", &norm, &["n"]), node("Relu", &["n"], &["y"])];
    let network = read(&model(nodes, stored, "y")).unwrap();
    let names: Vec<String> = network.named_parameters().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["conv.weight", "bn.weight", "bn.bias"]);
    assert_eq!(network.actions.len(), 1, "one fused operation");

    let x = Tensor::randn([2, 3, 6, 6]);
    let fused = no_grad(|| network.forward(&x)).unwrap();
    let apart = network.forward(&x).unwrap();
    // The rounding errors of sums of 27 products.
    assert!(approx::relative_eq!(fused, apart.detach(), epsilon = 1e-4, max_relative = 1e-4));
    let copy = network.deep_clone().unwrap();
    network.train();
    let gradients = network.forward(&x).unwrap().sum(..).unwrap().backward().unwrap();
    assert!(network.parameters().iter().all(|parameter| gradients.get(&parameter.tensor()).is_some()));
    network.eval();
    assert!(no_grad(|| network.forward(&x)).unwrap().worst_difference(&fused).unwrap().is_some(), "the statistics have followed the batch");
    assert!(no_grad(|| copy.forward(&x)).unwrap().worst_difference(&fused).unwrap().is_none(), "the copy is independent");
}

#[test]
fn nodes_with_long_metadata_and_no_weights_are_read() {
    // What PyTorch's exporter writes of a node: where it comes from, with a stack trace.
    let entry = |key: &str, length: usize| StringStringEntryProto { key: key.into(), value: "x".repeat(length) };
    let keys =
        [("namespace", 90), ("pkg.torch.onnx.class_hierarchy", 250), ("pkg.torch.onnx.fx_node", 160), ("pkg.torch.onnx.stack_trace", 1500)];
    let props: Vec<_> = keys.map(|(key, length)| entry(key, length)).to_vec();
    let nodes = (0..2000).map(|at| {
        let (from, to) = (if at == 0 { "x".to_string() } else { format!("v{at}") }, format!("v{}", at + 1));
        NodeProto { metadata_props: props.clone(), ..node("Relu", &[&from], &[&to]) }
    });
    let mut long = model(nodes.collect(), vec![], "v2000");
    long.graph.as_mut().unwrap().metadata_props = vec![entry("pkg.torch.export.ExportedProgram.graph_signature", 100_000)];
    long.metadata_props = vec![entry("note", 10)];
    let network = read(&long).unwrap();
    assert_eq!(network.forward(&Tensor::ones([2])).unwrap().to_vec::<f32>().unwrap(), [1.0, 1.0]);
    assert_eq!(network.metadata(), [("note".to_string(), "x".repeat(10))]);
}

#[test]
fn small_constants_that_ask_for_much_are_refused() {
    let of = |op: &str, inputs: &[&str], stored: Vec<TensorProto>, attributes: Vec<AttributeProto>| {
        let nodes = vec![NodeProto { attribute: attributes, ..node(op, inputs, &["c"]) }, node("Add", &["x", "c"], &["y"])];
        model(nodes, stored, "y")
    };
    // 16 GiB of results, of one number.
    refused(&of("Resize", &["s", "", "", "sizes"], vec![ints("s", &[7]), ints("sizes", &[1 << 31])], vec![]), "more memory than");
    let image = TensorProto { dims: vec![1, 1, 1, 1], ..ints("s", &[7]) };
    refused(&of("Resize", &["s", "", "", "sizes"], vec![image, ints("sizes", &[1, 1, 1 << 31, 1])], vec![]), "more memory than");
    // Indices without elements, for 2⁴⁰ rows.
    let none = TensorProto { dims: vec![1 << 40, 0], ..ints("at", &[]) };
    refused(&of("GatherND", &["s", "at"], vec![ints("s", &[7]), none.clone()], vec![]), "do not fit");
    refused(&of("ScatterND", &["s", "at", "u"], vec![ints("s", &[7]), none, ints("u", &[])], vec![]), "do not fit");
    // Tensors without elements that have long dimensions.
    let empty = TensorProto { dims: vec![0, 1 << 40], ..ints("s", &[]) };
    let slice = of(
        "Slice",
        &["s", "a", "b", "axes", "step"],
        vec![empty, ints("a", &[-1]), ints("b", &[i64::MIN]), ints("axes", &[1]), ints("step", &[-1])],
        vec![],
    );
    assert_eq!(read(&slice).unwrap().inputs().len(), 1);
    // A scalar is no weight.
    let byte = |name: &str, dims: &[i64], count: usize| TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Int8 as i32,
        int32_data: vec![1; count],
        ..Default::default()
    };
    let scale = floats("scale", &[], &[0.5]);
    let stored = vec![byte("q", &[1, 1, 2, 2], 4), byte("w", &[], 1), byte("zero", &[], 1), byte("zeros", &[2], 2), scale];
    let inputs = ["q", "scale", "zero", "w", "scale", "zeros", "scale", "zero"];
    refused(&of("QLinearConv", &inputs, stored, vec![]), "weight");
}

#[test]
fn constants_that_take_long_are_not_even_tried() {
    let attribute = |name: &str, ints: &[i64]| AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints as i32,
        ints: ints.to_vec(),
        ..Default::default()
    };
    // 10⁶ windows of 10⁶ positions, and 10¹⁰ pairs of boxes.
    let map = TensorProto { dims: vec![1, 1, 1000, 1000], ..ints("s", &vec![1; 1_000_000]) };
    let pool = NodeProto {
        attribute: vec![attribute("kernel_shape", &[1001, 1001]), attribute("pads", &[500; 4])],
        ..node("MaxPool", &["s"], &["c", "places"])
    };
    let boxes = floats("boxes", &[1, 100_000, 4], &vec![0.5; 400_000]);
    let scores = floats("scores", &[1, 1, 100_000], &vec![0.5; 100_000]);
    let select = node("NonMaxSuppression", &["boxes", "scores", "most"], &["places"]);
    let most = TensorProto { dims: vec![], ..ints("most", &[1]) };
    for (nodes, stored) in [(vec![pool], vec![map]), (vec![select], vec![boxes, scores, most])] {
        let nodes = [nodes, vec![node("ReduceMax", &["places"], &["p"]), node("Add", &["x", "p"], &["y"])]].concat();
        let (start, network) = (std::time::Instant::now(), read(&model(nodes, stored, "y")).unwrap());
        // It would take minutes; the bound allows for slow builds and machines.
        assert!(start.elapsed().as_secs() < 10, "{network}");
        assert_eq!(network.actions.len(), 3, "it is left to runs: {network}");
    }
}

#[test]
fn normalisations_of_vectors_and_sequences_train() {
    let stored = vec![
        floats("weight", &[3], &[1.0, 2.0, 3.0]),
        floats("bias", &[3], &[0.5; 3]),
        floats("mean", &[3], &[0.0; 3]),
        floats("var", &[3], &[1.0; 3]),
    ];
    let nodes = vec![node("BatchNormalization", &["x", "weight", "bias", "mean", "var"], &["n"]), node("Relu", &["n"], &["y"])];
    let network = read(&model(nodes, stored, "y")).unwrap();
    crate::manual_seed(1);
    for shape in [vec![8, 3], vec![4, 3, 5], vec![2, 3, 2, 2, 2]] {
        let x = Tensor::randn(shape.as_slice());
        network.eval();
        let before: Vec<Tensor> = network.buffers().iter().map(|buffer| buffer.tensor()).collect();
        let own = no_grad(|| network.forward(&x)).unwrap();
        network.train();
        let y = network.forward(&x).unwrap();
        assert_eq!(y.shape(), x.shape());
        assert!(own.worst_difference(&y.detach()).unwrap().is_some(), "{shape:?}: normalised with the batch's statistics");
        let [weight, bias] = [0, 1].map(|at| network.parameters()[at].tensor());
        let flat = if x.ndim() == 5 { x.flatten(2, -1).unwrap() } else { x.clone() };
        let expected = flat.batch_norm(None, Some(&weight), Some(&bias), 1e-5).unwrap().relu().reshape(x.shape()).unwrap();
        // Rounding of sums of 16 numbers in another order.
        assert!(approx::relative_eq!(y.detach(), expected.detach(), epsilon = 1e-6, max_relative = 1e-5));
        let gradients = y.sum(..).unwrap().backward().unwrap();
        assert!(network.parameters().iter().all(|parameter| gradients.get(&parameter.tensor()).is_some()));
        let after: Vec<Tensor> = network.buffers().iter().map(|buffer| buffer.tensor()).collect();
        assert!(before.iter().zip(&after).all(|(a, b)| a.worst_difference(b).unwrap().is_some()), "{shape:?}: the statistics follow");
    }
}

#[test]
fn initialisers_are_trained_where_layers_use_them() {
    let names = |nodes: Vec<NodeProto>, stored: &[&str]| -> Vec<String> {
        let stored = stored.iter().map(|name| floats(name, &[2, 2], &[1.0, 2.0, 3.0, 4.0])).collect();
        read(&model(nodes, stored, "y")).unwrap().named_parameters().into_iter().map(|(name, _)| name).collect()
    };
    let masked = vec![
        node("Min", &["x", "c"], &["m"]),
        node("Greater", &["x", "c"], &["g"]),
        node("Where", &["g", "m", "d"], &["w"]),
        node("Sub", &["w", "e"], &["s"]),
        node("MatMul", &["s", "weight"], &["p"]),
        node("Add", &["p", "bias"], &["y"]),
    ];
    assert_eq!(names(masked, &["c", "d", "e", "weight", "bias"]), ["weight", "bias"]);
    // Through operators that hand on, and functions of weights alone. Boxes and what selects them
    // have no gradients.
    let axis = AttributeProto { name: "axis".into(), r#type: AttributeType::Int as i32, i: 0, ..Default::default() };
    let nodes = vec![
        node("ReduceMean", &["w"], &["mean"]),
        node("Sub", &["w", "mean"], &["centred"]),
        node("Transpose", &["centred"], &["t"]),
        node("MatMul", &["x", "t"], &["p"]),
        node("Exp", &["scale"], &["e"]),
        node("Mul", &["p", "e"], &["q"]),
        node("Shape", &["x"], &["size"]),
        node("Expand", &["token", "size"], &["tokens"]),
        NodeProto { attribute: vec![axis], ..node("Concat", &["q", "tokens"], &["joined"]) },
        node("Floor", &["steps"], &["floor"]),
        node("Add", &["joined", "floor"], &["r"]),
        node("Add", &["r", "bias"], &["y"]),
        node("Max", &["q", "unused"], &["z"]),
    ];
    let mut stored: Vec<TensorProto> =
        ["w", "scale", "token", "unused"].iter().map(|name| floats(name, &[2, 2], &[1.0, 2.0, 3.0, 4.0])).collect();
    stored.extend([floats("bias", &[1, 2], &[1.0, 2.0]), floats("steps", &[1], &[1.5])]);
    let network = read(&model(nodes, stored, "y")).unwrap();
    let found: Vec<String> = network.named_parameters().into_iter().map(|(name, _)| name).collect();
    assert_eq!(found, ["w", "scale", "token", "bias"]);
    let gradients = network.forward(&Tensor::ones([2, 2])).unwrap().sum(..).unwrap().backward().unwrap();
    assert!(network.parameters().iter().all(|parameter| gradients.get(&parameter.tensor()).is_some()));
}

#[test]
fn constants_in_other_files_are_read_beside_the_model() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data"), [0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
    let outside = TensorProto {
        dims: vec![2],
        data_type: DataType::Float as i32,
        data_location: DataLocation::External as i32,
        external_data: vec![StringStringEntryProto { key: "location".into(), value: "data".into() }],
        ..Default::default()
    };
    let constant = AttributeProto { name: "value".into(), r#type: AttributeType::Tensor as i32, t: Some(outside), ..Default::default() };
    let nodes = vec![NodeProto { attribute: vec![constant], ..node("Constant", &[], &["c"]) }, node("Add", &["x", "c"], &["y"])];
    let file = model(nodes, vec![], "y");
    let path = folder.path().join("net.onnx");
    std::fs::write(&path, file.encode_to_vec()).unwrap();
    let network = import(&path).unwrap();
    assert_eq!(network.forward(&Tensor::ones([2])).unwrap().to_vec::<f32>().unwrap(), [2.0, 3.0]);
    let message = import_bytes(file.encode_to_vec()).unwrap_err().to_string();
    assert!(message.contains("external data"), "{message}");
    let plain = model(vec![node("Neg", &["x"], &["y"])], vec![], "y").encode_to_vec();
    assert_eq!(import_bytes(plain.as_slice()).unwrap().inputs().len(), 1);
    assert!(import_bytes([1u8, 2, 3]).is_err());
}
