//! Layers, networks, state dicts and summaries.

mod files;
mod layer_values;
mod layers;
mod messages;
mod parts;
mod paths;

mod summaries;

use convnet::nn::*;
use convnet::{DType, Error, Result, Tensor, manual_seed, no_grad, visit_fields};

fn names(module: &impl Module) -> Vec<String> {
    module.named_parameters().into_iter().map(|(name, _)| name).collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec::<f32>().unwrap()
}

/// Names, shapes, dtypes and bits.
fn content(state: &StateDict) -> Vec<(String, String, Vec<u64>)> {
    let bits = |t: &Tensor| match t.dtype() {
        DType::U8 => t.to_vec::<u8>().unwrap().into_iter().map(u64::from).collect(),
        DType::I64 => t.to_vec::<i64>().unwrap().into_iter().map(|x| x as u64).collect(),
        DType::F32 => t.to_vec::<f32>().unwrap().into_iter().map(|x| u64::from(x.to_bits())).collect(),
        DType::F64 => t.to_vec::<f64>().unwrap().into_iter().map(f64::to_bits).collect(),
    };
    let mut content: Vec<_> = state.iter().map(|(name, t)| (name.to_string(), format!("{:?} {}", t.shape(), t.dtype()), bits(t))).collect();
    content.sort();
    content
}

struct Block {
    conv1: Conv2d,
    act: ReLU,
    downsample: Option<Sequential>,
}

impl Module for Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.act.forward(&self.conv1.forward(x)?)?;
        y.add(&self.downsample.forward(x)?)
    }
    visit_fields!(conv1, act, downsample);
}

fn block(inputs: usize, outputs: usize) -> Block {
    let downsample = (inputs != outputs).then(|| Sequential::new().push(Conv2d::new(inputs, outputs, 1).bias(false)));
    Block { conv1: Conv2d::new(inputs, outputs, 3).padding(1), act: ReLU, downsample }
}

fn nested() -> Sequential {
    let layer1 = Sequential::new().push(block(64, 64)).push(block(64, 32));
    Sequential::new().push_named("layer1", layer1).push_named("pool", Flatten).push_named("fc", Linear::new(32 * 4, 10))
}

#[test]
fn keys_are_the_field_names_joined_with_dots() {
    let expected = [
        "layer1.0.conv1.weight",
        "layer1.0.conv1.bias",
        "layer1.1.conv1.weight",
        "layer1.1.conv1.bias",
        "layer1.1.downsample.0.weight",
        "fc.weight",
        "fc.bias",
    ];
    assert_eq!(names(&nested()), expected);
}

#[test]
fn an_error_names_the_path_of_the_layer_it_comes_from() {
    let error = nested().forward(&Tensor::zeros([2, 3, 56, 56])).unwrap_err();
    assert_eq!(error.to_string(), "layer1.0.conv1 (Conv2d 64→64, k3): expected 64 input channels, got shape [2, 3, 56, 56]");
    let error = nested().forward(&Tensor::zeros([2, 64, 3, 3])).unwrap_err();
    assert_eq!(error.to_string(), "fc (Linear 128→10): expected 128 input features, got shape [2, 288]");
    // The layer inside is named, not the ones around it, and the cause is its source.
    let Error::Layer { path, source, .. } = error else { panic!("not an error from a layer") };
    assert!(path == "fc" && matches!(*source, Error::Shape { .. }));
}

#[test]
fn an_error_between_layers_names_the_block() {
    struct Sum;
    impl Module for Sum {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            x.add(&Tensor::zeros([7]))
        }
        fn visit(&self, _: &mut Visitor<'_>) {}
    }
    let net = Sequential::new().push_named("stem", Sequential::new().push(ReLU).push(Sum));
    let error = net.forward(&Tensor::zeros([2, 3])).unwrap_err().to_string();
    assert!(error.starts_with("stem.1 (Sum): "), "{error}");
}

#[test]
fn options_that_make_no_sense_are_errors_of_forward() {
    let x = Tensor::zeros([1, 4, 5, 5]);
    let cases: [(Conv2d, &str); 4] = [
        (Conv2d::new(4, 6, 3).groups(3), "do not divide into 3 groups"),
        (Conv2d::new(4, 6, 3).groups(0), "do not divide into 0 groups"),
        (Conv2d::new(4, usize::MAX, 3), "more elements than memory can hold"),
        (Conv2d::new(4, 6, 7), ""),
    ];
    for (conv, message) in cases {
        let error = conv.forward(&x).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(conv.num_parameters() < 10_000 && conv.state_dict().len() == 2);
    }
    let huge = Linear::new(usize::MAX, 2);
    assert!(huge.forward(&x).unwrap_err().to_string().contains("memory"));
    assert_eq!(huge.num_parameters(), 0);
    assert!(Conv2d::new(4, 4, 1).stride(0).forward(&x).is_err());
    assert!(Conv2d::new(4, 4, 3).dilation(usize::MAX).padding(usize::MAX).forward(&x).is_err());
}

#[test]
fn layers_have_pytorchs_parameters() {
    let shapes = |module: &dyn Module| module.parameters().iter().map(Parameter::shape).collect::<Vec<_>>();
    assert_eq!(shapes(&Conv2d::new(4, 6, [3, 5])), [vec![6, 4, 3, 5], vec![6]]);
    assert_eq!(shapes(&Conv2d::new(4, 6, 3).groups(2).bias(false)), [vec![6, 2, 3, 3]]);
    assert_eq!(shapes(&Conv2d::new(4, 6, 3).bias(false).groups(2)), [vec![6, 2, 3, 3]]);
    assert_eq!(shapes(&Conv1d::new(4, 6, 3).groups(2)), [vec![6, 2, 3], vec![6]]);
    assert_eq!(shapes(&ConvTranspose2d::new(4, 6, 3).groups(2)), [vec![4, 3, 3, 3], vec![6]]);
    assert_eq!(shapes(&Linear::new(4, 6)), [vec![6, 4], vec![6]]);
}

#[test]
fn weights_start_uniform_within_one_over_the_root_of_the_fan_in() {
    manual_seed(3);
    let conv = Conv2d::new(16, 32, 5);
    let bound = 1.0 / (16.0f32 * 25.0).sqrt();
    let weight = values(&conv.weight.tensor());
    let (low, high) = weight.iter().fold((f32::MAX, f32::MIN), |(low, high), &w| (low.min(w), high.max(w)));
    // 12,800 draws: the extremes miss the bounds by about 1/6,400 of the range.
    assert!(low >= -bound && high <= bound && low < -0.99 * bound && high > 0.99 * bound);
    let variance = weight.iter().map(|w| w * w).sum::<f32>() / weight.len() as f32;
    assert!(approx::relative_eq!(variance, bound * bound / 3.0, max_relative = 0.05), "uniform in ±b has variance b²/3");
    assert!(values(&conv.bias.as_ref().unwrap().tensor()).iter().all(|b| b.abs() <= bound));
}

#[test]
fn a_seed_fixes_the_weights_whenever_they_are_first_asked_for() {
    let make = || {
        manual_seed(5);
        (Linear::new(3, 4), Conv2d::new(2, 3, 3).groups(1))
    };
    let (a, b) = (make(), make());
    let _ = Tensor::rand([100]);
    assert_eq!(values(&a.1.weight.tensor()), values(&b.1.weight.tensor()));
    let on_another_thread = std::thread::scope(|scope| scope.spawn(|| values(&b.0.weight.tensor())).join().unwrap());
    assert_eq!(values(&a.0.weight.tensor()), on_another_thread);
    assert_ne!(values(&a.0.weight.tensor())[..4], values(&a.0.bias.as_ref().unwrap().tensor())[..]);
}

#[test]
fn parameters_that_are_shared_count_once() {
    let (a, mut b) = (Linear::new(3, 3), Linear::new(3, 3));
    b.weight = a.weight.clone();
    let net = Sequential::new().push(a).push(b);
    assert_eq!(net.num_parameters(), 9 + 3 + 3);
    assert_eq!(net.state_dict().len(), 4);
    assert_eq!(net.freeze("0").unwrap(), 2);
    assert_eq!(net.unfreeze("").unwrap(), 3);
}

#[test]
fn frozen_parameters_get_no_gradient() {
    let net = nested();
    assert_eq!(net.freeze("layer1").unwrap(), 5);
    let loss = net.forward(&Tensor::ones([1, 64, 2, 2])).unwrap().sum(..).unwrap();
    let grads = loss.backward().unwrap();
    let with_gradient: Vec<String> =
        net.named_parameters().into_iter().filter(|(_, p)| grads.get(&p.tensor()).is_some()).map(|(name, _)| name).collect();
    assert_eq!(with_gradient, ["fc.weight", "fc.bias"]);
}

#[test]
fn freezing_what_is_not_there_is_an_error_with_near_names() {
    let net = nested();
    // A path, not any prefix.
    for prefix in ["layer", "layer1.0.conv", "layers1", "fc.weight.", "fcweight"] {
        assert!(net.unfreeze(prefix).is_err(), "{prefix}");
    }
    let error = net.freeze("layer").unwrap_err().to_string();
    assert!(error.starts_with("freeze: there is no module or parameter at path \"layer\"; near names are layer1, "), "{error}");
    assert!(net.freeze(&"x".repeat(100_000)).is_err());
    assert!(net.named_parameters().iter().all(|(_, parameter)| !parameter.is_frozen()));
    assert_eq!([net.freeze("pool").unwrap(), net.freeze("fc.weight").unwrap(), net.freeze("").unwrap()], [0, 1, 7]);
    let relu = ReLU;
    assert!(relu.freeze("x").unwrap_err().to_string().contains("no parts"));
}

#[test]
fn a_state_dict_carries_everything_over() {
    let (a, b) = (nested(), nested());
    let x = Tensor::randn([1, 64, 2, 2]);
    let report = b.load_state_dict(&a.state_dict()).unwrap();
    assert_eq!(report.loaded, 7);
    let run = |net: &Sequential| values(&no_grad(|| net.forward(&x)).unwrap());
    assert_eq!(run(&a), run(&b));
}

#[test]
fn a_state_dict_does_not_change_with_the_module() {
    let fc = Linear::new(1, 1);
    fc.weight.set(&Tensor::ones([1, 1])).unwrap();
    let state = fc.state_dict();
    fc.weight.set(&Tensor::zeros([1, 1])).unwrap();
    assert_eq!(values(state.get("weight").unwrap()), [1.0]);
}

#[test]
fn all_keys_that_do_not_fit_are_in_one_error_and_nothing_is_changed() {
    let net = nested();
    let before = values(&net.state_dict().get("layer1.0.conv1.bias").unwrap().clone());
    let mut state = nested().state_dict();
    state.remove("fc.bias");
    state.insert("fc.extra", Tensor::zeros([1]));
    state.insert("fc.weight", Tensor::zeros([10, 7]));
    let error = net.load_state_dict(&state).unwrap_err().to_string();
    assert_eq!(error, "state dict: 1 missing (fc.bias); 1 unexpected (fc.extra); 1 misshapen (fc.weight: expected [10, 128], got [10, 7])");
    assert_eq!(values(net.state_dict().get("layer1.0.conv1.bias").unwrap()), before);
    let report = net.load_matching(&state).unwrap();
    assert_eq!((report.loaded, report.missing.len(), report.unexpected.len(), report.misshapen.len()), (5, 1, 1, 1));
    assert_ne!(values(net.state_dict().get("layer1.0.conv1.bias").unwrap()), before);
    assert!(net.load_matching(&StateDict::new()).is_err());
}

#[test]
fn a_module_changes_its_dtype_and_loads_other_dtypes() {
    let fc = Linear::new(2, 2);
    fc.to_dtype(DType::F64).unwrap();
    assert!(fc.forward(&Tensor::zeros([1, 2])).unwrap_err().to_string().contains("f64"));
    fc.load_state_dict(&Linear::new(2, 2).state_dict()).unwrap();
    assert_eq!(fc.weight.tensor().dtype(), DType::F64);
    assert!(fc.to_dtype(DType::I64).is_err());
}

#[test]
fn modules_work_behind_pointers_and_without_a_size() {
    let boxed: Box<dyn Module> = Box::new(Sequential::new().push(Linear::new(2, 3)));
    let unsized_: &dyn Module = &*boxed;
    assert_eq!(unsized_.num_parameters(), 9);
    assert_eq!(unsized_.state_dict().len(), 2);
    unsized_.eval();
    assert_eq!(unsized_.summary([1, 2]).unwrap().parameters, 9);
    assert_eq!(boxed.summary([1, 2]).unwrap().parameters, 9);
    assert_eq!(vec![Linear::new(2, 2), Linear::new(2, 2)].num_parameters(), 12);
    assert!(std::panic::catch_unwind(|| Sequential::new().push_named("a", ReLU).push_named("a", ReLU)).is_err());
}

#[test]
fn a_network_prints_as_a_tree() {
    let expected = "Sequential (
  (layer1): Sequential (
    (0): Block (
      (conv1): Conv2d 64→64, k3
      (act): ReLU
      (downsample): Identity
    )
    (1): Block (
      (conv1): Conv2d 64→32, k3
      (act): ReLU
      (downsample): Sequential (
        (0): Conv2d 64→32, k1
      )
    )
  )
  (pool): Flatten
  (fc): Linear 128→10
)";
    assert_eq!(format!("{:?}", nested()), expected);
}

#[test]
fn gradients_are_listed_by_the_names_of_parameters() {
    let net = Sequential::new().push_named("a", Linear::new(2, 3)).push_named("b", Linear::new(3, 1).bias(false));
    net.freeze("a.bias").unwrap();
    let gradients = net.forward(&Tensor::ones([4, 2])).unwrap().sum(..).unwrap().backward().unwrap();
    let names: Vec<String> = net.named_gradients(&gradients).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a.weight", "b.weight"]);
}
