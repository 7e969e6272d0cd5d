//! What single operators compute, where ONNX's own tests do not say it. Numbers were computed by
//! ONNX Runtime 1.32 and ONNX's reference evaluator 1.23, which agree unless the test says so.

use super::*;
use crate::{DType, Result};

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..Default::default() }
}

fn list(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Ints as i32, ints: ints.to_vec(), ..Default::default() }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Float as i32, f, ..Default::default() }
}

fn text(name: &str, s: &str) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::String as i32, s: s.as_bytes().to_vec().into(), ..Default::default() }
}

/// A graph of one operator on `x` and stored tensors, in the order of `inputs`.
fn single(op: &str, inputs: &[&str], stored: Vec<TensorProto>, attributes: Vec<AttributeProto>) -> ModelProto {
    model(vec![NodeProto { attribute: attributes, ..node(op, inputs, &["y"]) }], stored, "y")
}

/// A graph whose input has another element type than `float`.
fn taking(element: DataType, mut model: ModelProto) -> ModelProto {
    let tensor = type_proto::Tensor { elem_type: element as i32, shape: None };
    model.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap().value = Some(type_proto::Value::TensorType(tensor));
    model
}

fn of_version(version: i64, mut model: ModelProto) -> ModelProto {
    model.opset_import[0].version = version;
    model
}

fn tensor<const N: usize>(shape: [usize; N], values: &[f32]) -> Tensor {
    Tensor::from_slice(values, shape).unwrap()
}

fn run(model: &ModelProto, x: &Tensor) -> Result<Tensor> {
    no_grad(|| read(model).map_err(crate::Error::other)?.forward(x))
}

/// Checks shape and numbers, which are exact.
fn gives(model: &ModelProto, x: &Tensor, shape: &[usize], expected: &[f32]) {
    let y = run(model, x).unwrap();
    assert_eq!((y.shape(), y.to_dtype(DType::F32).unwrap().to_vec::<f32>().unwrap().as_slice()), (shape, expected));
}

/// Checks numbers up to two units in the last place of `f32`.
fn close(model: &ModelProto, x: &Tensor, expected: &[f32]) {
    let y = run(model, x).unwrap();
    let shape = y.shape().to_vec();
    assert!(approx::relative_eq!(y, Tensor::from_slice(expected, shape).unwrap(), max_relative = 2.4e-7, epsilon = 1e-7), "{y}");
}

fn fails(model: &ModelProto, x: &Tensor, why: &str) {
    let message = run(model, x).unwrap_err().to_string();
    assert!(message.contains(why), "{message}");
}

#[test]
fn response_windows_of_even_size_reach_farther_to_later_channels() {
    let x = tensor([1, 6, 1, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let attributes = |size: i64| vec![int("size", size), float("alpha", size as f32), float("beta", 1.0), float("bias", 1.0)];
    // The reference evaluator; ONNX Runtime takes odd sizes only.
    let four = [0.066_666_67, 0.064_516_13, 0.054_545_455, 0.045_977_01, 0.064_102_57, 0.096_774_19];
    close(&single("LRN", &["x"], vec![], attributes(4)), &x, &four);
    let two = [0.166_666_67, 0.142_857_15, 0.115_384_62, 0.095_238_1, 0.080_645_16, 0.162_162_11];
    close(&single("LRN", &["x"], vec![], attributes(2)), &x, &two);
}

#[test]
fn padding_of_transposed_convolutions_is_as_in_onnx_runtime() {
    let one = tensor([1, 1, 1], &[1.0]);
    let two = tensor([1, 1, 2], &[1.0, 1.0]);
    let case = |taps: &[f32], attributes: Vec<AttributeProto>| {
        let stored = vec![floats("w", &[1, 1, taps.len() as i64], taps), floats("b", &[1], &[5.0])];
        single("ConvTranspose", &["x", "w", "b"], stored, attributes)
    };
    // Of an odd total padding, the larger half is at the start, except for `SAME_UPPER`.
    let four = [1.0, 2.0, 3.0, 4.0];
    let sized = |pad: &str| vec![list("output_shape", &[3]), text("auto_pad", pad)];
    gives(&case(&four, vec![list("output_shape", &[3])]), &one, &[1, 1, 3], &[7.0, 8.0, 9.0]);
    gives(&case(&four, sized("SAME_UPPER")), &one, &[1, 1, 3], &[6.0, 7.0, 8.0]);
    gives(&case(&four, sized("SAME_LOWER")), &one, &[1, 1, 3], &[7.0, 8.0, 9.0]);
    // The bias is added to all of the output, also to what is beyond the last window.
    let three = [1.0, 2.0, 3.0];
    let wide = vec![list("strides", &[3]), list("output_shape", &[8])];
    gives(&case(&three, wide), &two, &[1, 1, 8], &[6.0, 7.0, 8.0, 6.0, 7.0, 8.0, 5.0, 5.0]);
    let stored = vec![floats("w", &[1, 1, 3, 3], &[0.0; 9]), floats("b", &[1], &[5.0])];
    let attributes = vec![list("strides", &[2, 2]), list("pads", &[1, 1, 0, 0]), list("output_padding", &[1, 1])];
    gives(&single("ConvTranspose", &["x", "w", "b"], stored, attributes), &tensor([1, 1, 1, 1], &[1.0]), &[1, 1, 3, 3], &[5.0; 9]);
}

#[test]
fn exclusive_sums_are_shifted_so_that_nothing_is_lost() {
    let sum = |reverse: i64| {
        single(
            "CumSum",
            &["x", "axis"],
            vec![TensorProto { dims: vec![], ..ints("axis", &[0]) }],
            vec![int("exclusive", 1), int("reverse", reverse)],
        )
    };
    gives(&sum(0), &tensor([2], &[1.0, 1e8]), &[2], &[0.0, 1.0]);
    gives(&sum(0), &tensor([3], &[1.0, f32::INFINITY, 2.0]), &[3], &[0.0, 1.0, f32::INFINITY]);
    gives(&sum(1), &tensor([3], &[1.0, f32::INFINITY, 2.0]), &[3], &[f32::INFINITY, 2.0, 0.0]);
    gives(&sum(0), &tensor([0], &[]), &[0], &[]);
}

#[test]
fn sizes_follow_from_scales_in_f32() {
    let x = tensor([1, 1, 10, 1], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
    let scales = floats("s", &[4], &[1.0, 1.0, 0.7, 1.0]);
    let nearest = vec![text("coordinate_transformation_mode", "asymmetric"), text("nearest_mode", "floor")];
    // ONNX Runtime; the reference evaluator, which multiplies in f64, gives 6 rows.
    gives(&single("Resize", &["x", "", "s"], vec![scales.clone()], nearest), &x, &[1, 1, 7, 1], &[0.0, 1.0, 2.0, 4.0, 5.0, 7.0, 8.0]);
    let linear = single("Resize", &["x", "", "s"], vec![scales], vec![text("mode", "linear")]);
    assert_eq!(run(&linear, &x).unwrap().shape(), [1, 1, 7, 1]);
}

#[test]
fn remainders_of_floating_point_are_exact() {
    let (x, y) = ([5.0f32, -5.0, 5.0, 1.0, f32::INFINITY, 3.0], [0.1f32, 0.1, -0.1, 0.0, 2.0, f32::INFINITY]);
    let remainder = single("Mod", &["x", "d"], vec![floats("d", &[6], &y)], vec![int("fmod", 1)]);
    let found = run(&remainder, &tensor([6], &x)).unwrap().to_vec::<f32>().unwrap();
    let expected = [0.099_999_93, -0.099_999_93, 0.099_999_93, f32::NAN, f32::NAN, 3.0];
    assert!(found.iter().zip(expected).all(|(a, b)| *a == b || a.is_nan() && b.is_nan()), "{found:?}");
    // With gradients too.
    let network = read(&remainder).unwrap();
    let wanted = tensor([6], &[5.0, -5.0, 5.5, 1.0, 2.0, 3.0]).with_grad();
    let gradients = network.forward(&wanted).unwrap().sum(..).unwrap().backward().unwrap();
    assert_eq!(gradients.get(&wanted).unwrap().to_vec::<f32>().unwrap(), [1.0; 6]);
}

#[test]
fn wide_integers_keep_their_last_bits() {
    let numbers = [(1 << 53) + 1, -(1 << 53) - 1, i64::MAX, i64::MIN, 0];
    let x = Tensor::from_slice(&numbers, [5]).unwrap();
    for (op, expected) in [
        ("Neg", [-(1 << 53) - 1, (1 << 53) + 1, -i64::MAX, i64::MIN, 0]),
        ("Abs", [(1 << 53) + 1, (1 << 53) + 1, i64::MAX, i64::MIN, 0]),
        ("Sign", [1, -1, 1, -1, 0]),
        ("Relu", [(1 << 53) + 1, 0, i64::MAX, 0, 0]),
    ] {
        let y = run(&taking(DataType::Int64, single(op, &["x"], vec![], vec![])), &x).unwrap();
        assert_eq!(y.to_vec::<i64>().unwrap(), expected, "{op}");
    }
}

#[test]
fn automatic_padding_replaces_given_padding() {
    let x = tensor([1, 1, 4, 4], &std::array::from_fn::<f32, 16, _>(|at| at as f32));
    let attributes = || vec![text("auto_pad", "SAME_UPPER"), list("pads", &[1, 1, 1, 1])];
    // The reference evaluator; ONNX Runtime refuses both together.
    let expected = [10.0, 18.0, 24.0, 18.0, 27.0, 45.0, 54.0, 39.0, 51.0, 81.0, 90.0, 63.0, 42.0, 66.0, 72.0, 50.0];
    let weight = floats("w", &[1, 1, 3, 3], &[1.0; 9]);
    gives(&single("Conv", &["x", "w"], vec![weight.clone()], attributes()), &x, &[1, 1, 4, 4], &expected);
    // A weight that is computed.
    let nodes = vec![node("Neg", &["x"], &["n"]), node("Max", &["n", "n"], &["m"]), node("Mul", &["m", "zero"], &["z"])];
    let nodes = nodes.into_iter().chain([
        node("ReduceMax", &["z"], &["top"]),
        node("Add", &["w", "top"], &["weight"]),
        NodeProto { attribute: attributes(), ..node("Conv", &["x", "weight"], &["y"]) },
    ]);
    let computed = model(nodes.collect(), vec![weight, floats("zero", &[1], &[0.0])], "y");
    gives(&computed, &x, &[1, 1, 4, 4], &expected);
    // ONNX Runtime.
    let pool = single("MaxPool", &["x"], vec![], [attributes(), vec![list("kernel_shape", &[2, 2])]].concat());
    let expected = [5.0, 6.0, 7.0, 7.0, 9.0, 10.0, 11.0, 11.0, 13.0, 14.0, 15.0, 15.0, 13.0, 14.0, 15.0, 15.0];
    gives(&pool, &x, &[1, 1, 4, 4], &expected);
}

#[test]
fn a_split_may_have_many_parts_and_large_ones() {
    let count = 80;
    let names: Vec<String> = (0..count).map(|at| format!("p{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let parts = |size: i64, count: usize| ints("s", &vec![size; count]);
    let split = |size: i64, count: usize| {
        let nodes = vec![
            NodeProto { attribute: vec![int("axis", 1)], ..node("Split", &["x", "s"], &names[..count]) },
            node("Neg", &[names[count - 1]], &["y"]),
        ];
        model(nodes, vec![parts(size, count)], "y")
    };
    let steps: Vec<f32> = (0..80).map(|at| at as f32).collect();
    gives(&split(1, 80), &tensor([1, 80], &steps), &[1, 1], &[-79.0]);
    gives(&split(256, 8), &Tensor::ones([1, 2048]), &[1, 256], &[-1.0; 256]);
    fails(&split(256, 7), &Tensor::ones([1, 2048]), "do not make dimension 1");
    fails(&split(-1, 2), &Tensor::ones([1, 2]), "");
    fails(&split(i64::MAX, 4), &Tensor::ones([1, 2]), "do not make dimension 1");
}

#[test]
fn values_of_attributes_that_are_not_known_are_errors() {
    let x = tensor([1, 4, 2, 2], &[1.0; 16]);
    let resize =
        |attribute: AttributeProto| single("Resize", &["x", "", "s"], vec![floats("s", &[4], &[1.0, 1.0, 2.0, 2.0])], vec![attribute]);
    fails(
        &resize(text("coordinate_transformation_mode", "half_pixels")),
        &x,
        "coordinate_transformation_mode \"half_pixels\" is not known",
    );
    fails(&resize(text("nearest_mode", "round")), &x, "nearest_mode \"round\" is not known");
    fails(&resize(text("keep_aspect_ratio_policy", "keep")), &x, "keep_aspect_ratio_policy \"keep\" is not known");
    let depth = |op: &str| single(op, &["x"], vec![], vec![int("blocksize", 2), text("mode", "XYZ")]);
    fails(&depth("DepthToSpace"), &x, "mode \"XYZ\" is not known");
    fails(&single("LpNormalization", &["x"], vec![], vec![int("p", 3)]), &x, "p 3 is not supported");
    let quantised = |op: &str, code: i64| {
        let stored = vec![TensorProto { dims: vec![], ..floats("s", &[], &[0.3]) }];
        of_version(23, single(op, &["x", "s"], stored, vec![int("output_dtype", code)]))
    };
    fails(&quantised("DequantizeLinear", DataType::String as i64), &x, "string");
    fails(&quantised("DequantizeLinear", DataType::Int8 as i64), &x, "int8");
    // 0.3 and 0.6 in f16.
    let network = taking(DataType::Int8, quantised("DequantizeLinear", DataType::Float16 as i64));
    gives(&network, &Tensor::from_slice(&[1i64, 2], [2]).unwrap(), &[2], &[0.300_048_83, 0.600_097_66]);
}

#[test]
fn axes_are_named_once() {
    let x = tensor([1, 1, 6], &[0.0; 6]);
    fails(
        &single("Slice", &["x", "a", "b", "axes"], vec![ints("a", &[1, 1]), ints("b", &[5, 3]), ints("axes", &[2, -1])], vec![]),
        &x,
        "twice",
    );
    fails(&single("Unsqueeze", &["x", "axes"], vec![ints("axes", &[0, 0])], vec![]), &x, "twice");
    fails(&single("Squeeze", &["x", "axes"], vec![ints("axes", &[0, -3])], vec![]), &x, "twice");
    fails(&single("Unsqueeze", &["x", "axes"], vec![ints("axes", &vec![0; 100])], vec![]), &x, "dimensions");
    fails(&single("Reshape", &["x", "axes"], vec![ints("axes", &[1; 65])], vec![]), &x, "65 dimensions");
    fails(&single("ReduceSum", &["x", "axes"], vec![ints("axes", &[1, 1])], vec![]), &x, "twice");
}

#[test]
fn a_slope_broadcasts_from_the_last_dimension() {
    let x = Tensor::full([1, 2, 2, 2], -1.0, DType::F32);
    let slopes = |dims: &[i64]| single("PRelu", &["x", "slope"], vec![floats("slope", dims, &[2.0, 3.0])], vec![]);
    gives(&slopes(&[2, 1, 1]), &x, &[1, 2, 2, 2], &[-2.0, -2.0, -2.0, -2.0, -3.0, -3.0, -3.0, -3.0]);
    gives(&slopes(&[2]), &x, &[1, 2, 2, 2], &[-2.0, -3.0, -2.0, -3.0, -2.0, -3.0, -2.0, -3.0]);
}

#[test]
fn a_place_for_each_class_and_the_first_maximum_are_marked() {
    let stored = || vec![ints("depth", &[3]), floats("values", &[2], &[2.0, 7.0])];
    let one_hot = |axis: i64| taking(DataType::Int64, single("OneHot", &["x", "depth", "values"], stored(), vec![int("axis", axis)]));
    // Negative indices count from the end; for those outside there is no place.
    let x = Tensor::from_slice(&[0i64, 2, -1, 5, -4], [5]).unwrap();
    let rows = [7.0, 2.0, 2.0, 2.0, 2.0, 7.0, 2.0, 2.0, 7.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0];
    gives(&one_hot(-1), &x, &[5, 3], &rows);
    let columns: Vec<f32> = (0..15).map(|at| rows[at % 5 * 3 + at / 5]).collect();
    gives(&one_hot(0), &x, &[3, 5], &columns);
    fails(&one_hot(2), &x, "axis 2");
    // ONNX Runtime; the reference evaluator takes version 13 of the operator for version 11.
    let x = tensor([2, 2, 2], &[1.0, 3.0, 3.0, 0.0, 2.0, 0.0, 2.0, 1.0]);
    let hardmax = |version: i64| of_version(version, single("Hardmax", &["x"], vec![], vec![int("axis", 1)]));
    gives(&hardmax(11), &x, &[2, 2, 2], &[0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    gives(&hardmax(13), &x, &[2, 2, 2], &[0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
}

#[test]
fn maxima_are_counted_in_the_input_whatever_the_padding() {
    // Two maps.
    let maps = [1.0, 5.0, 2.0, 7.0, 3.0, 4.0, 0.0, 0.0, 9.0, 8.0, 8.0, 6.0];
    let run = |maps: &[f32], pads: &[i64], by_columns: i64| {
        let attribute = vec![list("kernel_shape", &[2, 2]), list("pads", pads), int("storage_order", by_columns)];
        let pool = NodeProto { attribute, ..node("MaxPool", &["x"], &["y", "at"]) };
        let x = Tensor::from_slice(maps, [1, 2, 2, 3]).unwrap();
        read(&model(vec![pool], vec![], "at")).unwrap().forward(&x).unwrap().to_vec::<i64>().unwrap()
    };
    // A row above and a column on the right.
    assert_eq!(run(&maps, &[1, 0, 0, 1], 0), [1, 1, 2, 3, 1, 5, 6, 8, 8, 9, 8, 8]);
    assert_eq!(run(&maps, &[1, 0, 0, 1], 1), [2, 2, 4, 1, 2, 5, 6, 10, 10, 7, 10, 10]);
    assert_eq!(run(&maps, &[0; 4], 0), [3, 1, 9, 8]);
    // A row below and a column on the right.
    assert_eq!(run(&maps, &[0, 0, 1, 1], 0)[..3], [3, 1, 5]);
    // No element is greater than the padding.
    let lowest = run(&[f32::NEG_INFINITY; 12], &[1, 0, 0, 1], 0);
    assert!(lowest.iter().enumerate().all(|(i, &at)| (6 * (i as i64 / 6)..6 + 6 * (i as i64 / 6)).contains(&at)), "{lowest:?}");
}

#[test]
fn the_mask_of_dropout_says_what_was_dropped_also_where_the_input_is_zero() {
    let truth = TensorProto { data_type: DataType::Bool as i32, dims: vec![], int32_data: vec![1], name: "t".into(), ..Default::default() };
    let stored = vec![TensorProto { dims: vec![], ..floats("p", &[1], &[0.5]) }, truth];
    let mut file = model(vec![node("Dropout", &["x", "p", "t"], &["y", "kept"])], stored, "y");
    file.graph.as_mut().unwrap().output.push(value("kept"));
    let network = read(&file).unwrap();
    crate::manual_seed(0);
    let x = Tensor::from_vec((0..200).map(|i| if i % 2 == 0 { 0f32 } else { 3.0 }).collect(), [200]).unwrap();
    let found = no_grad(|| network.run(&[&x])).unwrap();
    let (y, kept) = (found[0].to_vec::<f32>().unwrap(), found[1].to_vec::<u8>().unwrap());
    // Half of 100 zeros are kept; 20 and fewer have a probability of 6e-10.
    assert!(kept.iter().step_by(2).filter(|&&kept| kept == 1).count() > 20, "{kept:?}");
    for (at, (&y, &kept)) in y.iter().zip(&kept).enumerate() {
        let x = if at % 2 == 0 { 0.0 } else { 3.0 };
        assert_eq!(y, x * 2.0 * f32::from(kept), "element {at}");
    }
}

#[test]
fn numbers_that_uint64_has_and_i64_has_not_are_errors() {
    let large = TensorProto {
        name: "w".into(),
        dims: vec![1],
        data_type: DataType::Uint64 as i32,
        uint64_data: vec![1 << 63],
        ..Default::default()
    };
    let x = tensor([2], &[3.0, 1e19]);
    let stored = single("Cast", &["x"], vec![large.clone()], vec![int("to", 13)]);
    fails(&stored, &x, "initialiser `w`: `uint64` is held as `i64`");
    let fits = TensorProto { uint64_data: vec![(1 << 63) - 1], ..large };
    let cast = single("Cast", &["x"], vec![fits], vec![int("to", 13)]);
    fails(&cast, &x, "from 2^63 on");
    fails(&cast, &tensor([1], &[-1.0]), "below 0");
    gives(&cast, &tensor([2], &[3.9, -0.5]), &[2], &[3.0, 0.0]);
    // Differences that would wrap.
    let graph = model(vec![node("Sub", &["x", "x2"], &["y"])], vec![], "y");
    let mut graph = taking(DataType::Uint64, graph);
    let first = graph.graph.as_ref().unwrap().input[0].clone();
    graph.graph.as_mut().unwrap().input.push(ValueInfoProto { name: "x2".into(), ..first });
    let network = read(&graph).unwrap();
    let [one, two] = [1i64, 2].map(|number| Tensor::from_vec(vec![number], [1]).unwrap());
    assert_eq!(network.run(&[&two, &one]).unwrap()[0].to_vec::<i64>().unwrap(), [1]);
    assert!(network.run(&[&one, &two]).unwrap_err().to_string().contains("below 0"));
    let message = network.run(&[&Tensor::from_vec(vec![-1i64], [1]).unwrap(), &one]).unwrap_err().to_string();
    assert!(message.contains("input `x`"), "{message}");
}

#[test]
fn an_operator_that_never_changed_is_understood_in_its_first_version() {
    let x = Tensor::from_vec(vec![0u8, 1], [2]).unwrap();
    let not = of_version(1, taking(DataType::Bool, single("Not", &["x"], vec![], vec![])));
    gives(&not, &x, &[2], &[1.0, 0.0]);
    let relu = of_version(6, single("Relu", &["x"], vec![], vec![]));
    fails(&relu, &tensor([1], &[1.0]), "operators of version 6");
    fails(&of_version(0, single("Not", &["x"], vec![], vec![])), &x, "operators of version 0");
}
