//! What errors from layers, blocks and operators say.

use convnet::nn::*;
use convnet::{DType, Error, Result, Tensor, visit_fields};

#[test]
fn every_layer_says_which_of_input_and_weights_is_f64_and_what_to_do() {
    let layers: [(&str, Box<dyn Module>, &[usize]); 8] = [
        ("Conv2d", Box::new(Conv2d::new(2, 2, 1)), &[1, 2, 3, 3]),
        ("Conv2d", Box::new(Conv2d::new(2, 2, 1).groups(2)), &[1, 2, 3, 3]),
        ("Conv1d", Box::new(Conv1d::new(2, 2, 1)), &[1, 2, 3]),
        ("ConvTranspose2d", Box::new(ConvTranspose2d::new(2, 2, 1)), &[1, 2, 3, 3]),
        ("Linear", Box::new(Linear::new(2, 2)), &[1, 2]),
        ("BatchNorm2d", Box::new(BatchNorm2d::new(2)), &[1, 2, 3, 3]),
        ("GroupNorm", Box::new(GroupNorm::new(1, 2)), &[1, 2, 3, 3]),
        ("LayerNorm", Box::new(LayerNorm::new([3])), &[1, 2, 3]),
    ];
    for (name, layer, shape) in layers {
        let message = |training: bool, dtype| {
            if training {
                layer.train()
            } else {
                layer.eval()
            };
            convnet::no_grad(|| layer.forward(&Tensor::full(shape, 1.0, dtype))).unwrap_err().to_string()
        };
        for training in [true, false] {
            let expected = " f32; convert the input with `x.to_dtype(DType::F32)` or the network with \
                            `model.to_dtype(DType::F64)`";
            let found = message(training, DType::F64);
            assert!(found.starts_with(name) && found.contains(": the input is f64, the ") && found.ends_with(expected), "{found}");
        }
        layer.to_dtype(DType::F64).unwrap();
        let found = message(true, DType::F32);
        assert!(
            found.contains(": the input is f32, the ") && found.contains(" f64; convert the input with `x.to_dtype(DType::F64)`"),
            "{found}"
        );
    }
}

#[test]
fn labels_that_are_not_class_numbers_are_reported_as_such() {
    let x = Tensor::zeros([2, 3]);
    for labels in [Tensor::zeros([2]), Tensor::full([2], 0.0, DType::F64), Tensor::full([2], 0.0, DType::U8)] {
        for error in [x.cross_entropy(&labels), x.nll_loss(&labels)] {
            let error = error.unwrap_err();
            assert!(matches!(error, Error::DType { .. }), "{error}");
            assert!(
                error.to_string().contains("expected class numbers, which are i64 (`labels.to_dtype(DType::I64)` converts)"),
                "{error}"
            );
        }
    }
}

/// A block that adds, pools or runs its layer on what does not fit.
struct Residual {
    conv: Conv2d,
    fails: &'static str,
}

impl Module for Residual {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || match self.fails {
            "add" => self.conv.forward(x)?.add(&Tensor::zeros([7])),
            "max_pool2d" => x.max_pool2d([9, 9], Default::default()),
            _ => self.conv.forward(&Tensor::zeros([1, 1, 1, 1])),
        })
    }
    visit_fields!(conv, skip fails);
}

#[test]
fn an_operation_in_a_blocks_forward_names_the_block_and_a_layer_inside_itself() {
    struct Net {
        stem: Conv2d,
        layer1: Vec<Residual>,
    }
    impl Module for Net {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            // Without the `Vec`'s own forward: the block itself names its place.
            let x = self.stem.forward(x)?;
            self.layer1[1].forward(&x)
        }
        visit_fields!(stem, layer1);
    }
    let residual = |fails| Residual { conv: Conv2d::new(2, 2, 1), fails };
    for (fails, expected) in [
        ("add", "layer1.1 (Residual): add: "),
        ("max_pool2d", "layer1.1 (Residual): max_pool2d: "),
        ("layer", "layer1.1.conv (Conv2d 2→2, k1): expected 2 input channels"),
    ] {
        let net = Net { stem: Conv2d::new(2, 2, 1), layer1: vec![residual("add"), residual(fails)] };
        net.eval();
        for error in [net.forward(&Tensor::zeros([1, 2, 3, 3])), net.summary([1, 2, 3, 3]).map(|_| Tensor::zeros([1]))] {
            let error = error.unwrap_err();
            assert!(error.to_string().starts_with(expected), "{error}");
            let Error::Layer { is_block, .. } = error else { panic!("no place") };
            assert_eq!(is_block, fails != "layer");
        }
    }
}

#[test]
fn an_operator_panics_at_the_callers_line() {
    use std::sync::Mutex;
    static PLACE: Mutex<Option<(String, u32)>> = Mutex::new(None);
    let mine = std::thread::current().id();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() == mine {
            *PLACE.lock().unwrap() = info.location().map(|at| (at.file().to_string(), at.line()));
        } else {
            before(info);
        }
    }));
    let (a, b) = (Tensor::zeros([2]), Tensor::zeros([3]));
    let cases: [(u32, &dyn Fn() -> Tensor); 8] = [
        (line!(), &|| &a + &b),
        (line!(), &|| a.clone() - &b),
        (line!(), &|| &a * b.clone()),
        (line!(), &|| a.clone() / b.clone()),
        (line!(), &|| Tensor::zeros([usize::MAX, 2])),
        (line!(), &|| Tensor::ones([1 << 60])),
        (line!(), &|| Tensor::full([1 << 60], 1.0, DType::F64)),
        (line!(), &|| Tensor::arange(1 << 60)),
    ];
    let mut places = vec![];
    for (line, operation) in cases {
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(operation)).is_err());
        let found = PLACE.lock().unwrap().take();
        places.push((found, Some((file!().to_string(), line))));
    }
    drop(std::panic::take_hook());
    places.into_iter().for_each(|(found, expected)| assert_eq!(found, expected));
}

#[test]
fn the_error_about_a_picture_of_bytes_advises_conversion_and_scaling() {
    let advice = "expected f32 or f64, got u8; convert the input; the bytes of a picture are usually scaled to 0..1: \
                  `x.to_dtype(DType::F32)?.mul_scalar(1.0 / 255.0)`";
    let picture = Tensor::full([1, 2, 3, 3], 200.0, DType::U8);
    let layers: [Box<dyn Module>; 3] = [Box::new(Conv2d::new(2, 2, 1)), Box::new(MaxPool2d::new(2)), Box::new(BatchNorm2d::new(2))];
    for layer in layers {
        let found = layer.forward(&picture).unwrap_err().to_string();
        assert!(found.ends_with(advice), "{found}");
    }
    // The call that the message advises works.
    let scaled = picture.to_dtype(DType::F32).unwrap().mul_scalar(1.0 / 255.0);
    assert_eq!(Conv2d::new(2, 2, 1).forward(&scaled).unwrap().shape(), [1, 2, 3, 3]);

    let product = Tensor::ones([1, 2]).matmul(&Tensor::full([2, 1], 1.0, DType::F64)).unwrap_err().to_string();
    assert!(product.contains("to_dtype") && !product.contains("model"), "{product}");
}

#[test]
fn errors_about_shapes_name_the_missing_step() {
    let message = |layer: &dyn Module, shape: &[usize]| layer.forward(&Tensor::zeros(shape)).unwrap_err().to_string();
    let (conv, norm, linear) = (Conv2d::new(3, 2, 1), BatchNorm2d::new(3), Linear::new(12, 2));
    assert!(message(&norm, &[3, 4, 4]).ends_with("got shape [3, 4, 4]; `x.unsqueeze(0)` makes a batch of one"));
    assert!(message(&conv, &[4, 4]).ends_with("expected [N, C, H, W] or [C, H, W], got shape [4, 4]"));
    for layer in [&conv as &dyn Module, &norm] {
        let found = message(layer, &[1, 4, 5, 3]);
        assert!(found.ends_with("; channels come second: `x.permute([0, 3, 1, 2])` takes [N, H, W, C] there"), "{found}");
        assert!(message(layer, &[1, 4, 5, 5]).ends_with("got shape [1, 4, 5, 5]"));
    }
    let found = message(&linear, &[1, 3, 2, 2]);
    assert!(found.ends_with("got shape [1, 3, 2, 2]; `x.flatten(1, -1)`, or a `Flatten` before the layer, joins them"), "{found}");
    assert!(message(&linear, &[1, 3, 2, 3]).ends_with("got shape [1, 3, 2, 3]"));
    let x = Tensor::zeros([1, 3, 2, 2]);
    assert!(linear.forward(&x.flatten(1, -1).unwrap()).is_ok());
}

#[test]
fn a_weight_of_more_channels_than_can_be_counted_is_an_error() {
    let options = convnet::ops::Conv2dOptions { groups: usize::MAX, ..Default::default() };
    let error = Tensor::zeros([1, 0, 1, 1]).conv2d(&Tensor::zeros([0, 2, 1, 1]), None, options).unwrap_err();
    assert!(error.to_string().contains("wants 18446744073709551615 input channels"), "{error}");
}

#[test]
fn a_file_of_another_kind_names_the_function_that_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.pth");
    let pth = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/weights/module.pth");
    for bytes in [std::fs::read(pth).unwrap(), b"PK\x03\x04".to_vec(), b"\x80\x02\x8a\nl\xfc".to_vec()] {
        std::fs::write(&path, bytes).unwrap();
        let error = Linear::new(2, 2).load(&path).unwrap_err().to_string();
        assert!(error.contains("read it with `weights::load` and then `load_state_dict`"), "{error}");
    }
}

#[test]
fn weights_of_another_architecture_are_summarised() {
    let other: StateDict = (0..500).map(|i| (format!("block.{i}.conv.weight"), Tensor::zeros([1]))).collect();
    let net = Sequential::new().push(Linear::new(2, 2)).push(Linear::new(2, 2));
    let error = net.load_state_dict(&other).unwrap_err().to_string();
    let start = "state dict: none of 4 keys fits; the state dict has keys such as block.0.conv.weight, block.1.conv.weight, \
                 block.2.conv.weight; 4 missing (0.weight, 0.bias, 1.weight, and 1 more); 500 unexpected (";
    assert!(error.starts_with(start) && error.ends_with(", and 497 more)") && error.len() < 350, "{error}");
    // Where some fit, every kind is counted and its first names are listed.
    let mut partly = other;
    partly.insert("0.weight", Tensor::zeros([2, 2]));
    let error = net.load_state_dict(&partly).unwrap_err().to_string();
    assert!(error.contains("3 missing (0.bias, 1.weight, 1.bias)") && error.ends_with(", and 480 more)"), "{error}");
}

#[test]
fn messages_do_not_grow_with_the_content_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    let long = "x".repeat(100_000);
    let ones = vec!["1"; 50_000].join(",");
    let headers = [
        format!(r#"{{"{long}":{{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}}}"#),
        format!(r#"{{"{long}":{{"dtype":"F8_E5M2","shape":[4],"data_offsets":[0,4]}}}}"#),
        format!(r#"{{"{long}":{{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}}}"#),
        format!(r#"{{"a":{{"dtype":"{long}","shape":[1],"data_offsets":[0,4]}}}}"#),
        format!(r#"{{"a":{{"dtype":"F32","shape":[{ones},2],"data_offsets":[0,4]}}}}"#),
        format!(r#"{{"a":{{"dtype":"F32","shape":[0,4294967296,4294967296,4294967296,{ones}],"data_offsets":[0,0]}}}}"#),
        format!(r#"{{"a":"{long}"}}"#),
        format!(r#"{{"{long}"#),
        // Good files whose names or shapes do not fit.
        format!(r#"{{"{long}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#),
        format!(r#"{{"weight":{{"dtype":"F32","shape":[{ones}],"data_offsets":[0,4]}}}}"#),
    ];
    for header in headers {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 4]);
        std::fs::write(&path, bytes).unwrap();
        let errors = [
            Linear::new(2, 2).load(&path).unwrap_err(),
            Linear::new(2, 2).load_matching(&StateDict::load(&path).unwrap_or_default()).unwrap_err(),
        ];
        for error in errors {
            let message = error.to_string();
            assert!(message.chars().count() < 1000, "{} characters: {}", message.len(), &message[..300]);
        }
    }
}
