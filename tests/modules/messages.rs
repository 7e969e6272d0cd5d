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
fn labels_that_are_not_class_numbers_are_named_so() {
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
    fn visit(&self, v: &mut Visitor<'_>) {
        visit_fields!(v, self; conv);
    }
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
        fn visit(&self, v: &mut Visitor<'_>) {
            visit_fields!(v, self; stem, layer1);
        }
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
