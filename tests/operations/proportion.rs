//! Results that memory cannot hold are errors at once, and work is in proportion to the result.

use std::time::{Duration, Instant};

use convnet::nn::{AvgPool2d, BatchNorm2d, Conv2d, ConvTranspose2d, Linear, Module, ModuleExt};
use convnet::ops::{Conv2dOptions, ConvAlgorithm, ConvTranspose2dOptions, UnfoldOptions};
use convnet::optim::{Optimizer, Sgd};
use convnet::{DType, Error, Result, Tensor, memory, models, with_algorithm};

const ALGORITHMS: [ConvAlgorithm; 7] = [
    ConvAlgorithm::Auto,
    ConvAlgorithm::Im2col,
    ConvAlgorithm::Direct,
    ConvAlgorithm::Winograd2,
    ConvAlgorithm::Winograd4,
    ConvAlgorithm::Depthwise,
    ConvAlgorithm::Naive,
];

/// More time than any of these calls takes when nothing is wrong, on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn within_reason<R>(name: &str, run: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = run();
    assert!(start.elapsed() < LONG, "{name} took {:?}", start.elapsed());
    result
}

/// Returns the innermost cause of an error from inside a network.
fn cause(error: &Error) -> &Error {
    match error {
        Error::Layer { source, .. } => cause(source),
        other => other,
    }
}

#[test]
fn results_that_memory_cannot_hold_are_errors() {
    let one = Tensor::zeros([1]);
    let map = Tensor::zeros([1, 1, 4, 4]);
    let wide = Conv2dOptions { padding: [1 << 20, 1 << 20], ..Default::default() };
    let unfold = UnfoldOptions { padding: [1 << 20, 1 << 20], ..Default::default() };
    let big = Tensor::zeros([1 << 20, 1]);
    type Case<'a> = (&'a str, &'a dyn Fn() -> Result<Tensor>);
    let cases: [Case; 13] = [
        ("expand", &|| one.expand([1usize << 40])),
        ("add", &|| big.add(&big.transpose(0, 1)?)),
        ("pad", &|| map.pad([0, 0, 0, 1 << 40], 0.0)),
        ("interpolate", &|| map.interpolate([1 << 20, 1 << 20], convnet::ops::Interpolation::Nearest)),
        ("adaptive_max_pool2d", &|| map.adaptive_max_pool2d([1 << 20, 1 << 20])),
        ("adaptive_max_pool2d in one direction", &|| map.adaptive_max_pool2d([1 << 40, 1])),
        ("adaptive_avg_pool2d", &|| map.adaptive_avg_pool2d([1, 1 << 40])),
        ("matmul", &|| big.matmul(&big.transpose(0, 1)?)),
        ("unfold", &|| map.unfold([3, 3], unfold)),
        ("conv2d", &|| map.conv2d(&Tensor::zeros([1, 1, 3, 3]), None, wide)),
        ("Linear", &|| Linear::new(3, 1 << 40).forward(&Tensor::zeros([1, 3]))),
        ("Conv2d", &|| Conv2d::new(1, 1 << 40, 3).forward(&map)),
        ("resnet18", &|| models::create("resnet18", 1 << 40)?.forward(&Tensor::zeros([1, 3, 64, 64]))),
    ];
    for (name, run) in cases {
        let error = within_reason(name, run).map(|y| y.shape().to_vec()).expect_err(name);
        assert!(matches!(cause(&error), Error::OutOfMemory { .. }), "{name}: {error}");
    }
    let error = one.expand([1usize << 40]).unwrap_err().to_string();
    assert!(error.starts_with("out of memory: a tensor [1099511627776] of f32: 4.0 TiB asked for with "), "{error}");
    assert!(error.ends_with(" (memory::set_limit changes it)"), "{error}");
    assert!(memory::limit() < 1 << 42, "{}", memory::limit());
    // As many tensors as that are an error too, though none has elements.
    let error = Tensor::zeros([1 << 40, 0]).split(1, 0).expect_err("too many parts");
    assert!(error.to_string().contains("more than memory can hold"), "{error}");
}

#[test]
fn functions_that_return_no_result_panic_with_a_message() {
    let panic = std::panic::catch_unwind(|| Tensor::zeros([1 << 45])).unwrap_err();
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.starts_with("out of memory: a tensor [35184372088832] of f32: 128.0 TiB asked for"), "{message}");
}

#[test]
fn parameters_that_memory_cannot_hold_are_errors_wherever_they_are_asked_for() {
    let layer = Linear::new(3, 1 << 40);
    assert_eq!(layer.num_parameters(), 4 << 40);
    let state = Linear::new(3, 4).state_dict();
    assert!(layer.load_state_dict(&state).unwrap_err().to_string().contains("misshapen"));
    assert!(matches!(layer.parameters()[0].try_tensor(), Err(Error::OutOfMemory { .. })));
    assert!(matches!(layer.save(std::env::temp_dir().join("never-written.safetensors")), Err(Error::OutOfMemory { .. })));
    let mut optimizer = Sgd::new(layer.parameters(), 0.1);
    let w = Tensor::ones([1]).with_grad();
    let gradients = w.sum(..).unwrap().backward().unwrap();
    assert!(optimizer.step(&gradients).unwrap_err().to_string().contains("out of memory"));
    assert!(matches!(layer.to_dtype(DType::F64), Err(Error::OutOfMemory { .. })));
}

#[test]
fn summaries_and_receptive_fields_of_huge_inputs_take_no_memory() {
    let net = convnet::nn::Sequential::new().push(Conv2d::new(1, 8, 3)).push(BatchNorm2d::new(8)).push(Conv2d::new(8, 8, 3).stride(2));
    let summary = within_reason("summary", || net.summary([1 << 16, 1, 1 << 10, 1 << 10])).unwrap();
    assert!(summary.to_string().contains("65536"), "{summary}");
    within_reason("receptive_field", || net.receptive_field([1, 1, 1 << 16, 1 << 16])).unwrap();
    // The positions along one side are more than a list can hold.
    let line = within_reason("receptive_field", || net.receptive_field([1, 1, 1 << 45, 8]));
    assert!(line.expect_err("a line of 35 trillion places").to_string().contains("at most 65536 along a side"));
    // Windows that reach far into the padding, and taps far apart.
    let pool = AvgPool2d::new([1 << 40, 1]).stride([1, 1]).padding([1 << 39, 0]);
    within_reason("a wide window", || pool.receptive_field([1, 1, 4, 4])).unwrap();
    let apart = ConvTranspose2d::new(1, 1, [2, 1]).dilation([(1 << 33) + 1, 1]).padding([1 << 32, 0]);
    within_reason("taps far apart", || apart.receptive_field([1, 1, 4, 4])).unwrap();
    let resnet = models::create("resnet18", 1 << 40).unwrap();
    assert!(within_reason("summary", || resnet.summary([1, 3, 224, 224])).is_ok());
}

#[test]
fn no_output_channels_give_the_empty_result_in_every_algorithm() {
    for algorithm in ALGORITHMS {
        for (channels, groups, kernel) in [(1, 1, 1), (1, 1, 3), (4, 4, 3), (4, 2, 3), (8, 1, 5), (0, 1, 3)] {
            let x = Tensor::ones([2, channels, 6, 6]).with_grad();
            let w = Tensor::ones([0, channels / groups, kernel, kernel]).with_grad();
            let bias = Tensor::ones([0]).with_grad();
            let result = with_algorithm(algorithm, || -> Result<_> {
                let y = x.conv2d(&w, Some(&bias), Conv2dOptions { groups, ..Default::default() })?;
                Ok((y.shape().to_vec(), y.sum(..)?.backward()?))
            });
            let name = format!("{algorithm}, {channels} channels in {groups} groups, kernel {kernel}");
            if channels == 0 {
                assert!(result.is_err() || result.is_ok_and(|(shape, _)| shape[1] == 0), "{name}");
                continue;
            }
            let (shape, gradients) = result.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(shape, [2, 0, 7 - kernel, 7 - kernel], "{name}");
            assert_eq!(gradients.get(&x).unwrap().to_vec::<f32>().unwrap(), vec![0.0; 2 * channels * 36], "{name}");
            assert_eq!(gradients.get(&w).unwrap().shape(), w.shape(), "{name}");
            assert_eq!(gradients.get(&bias).unwrap().shape(), [0], "{name}");
        }
        for (input, out) in [(2, 0), (0, 2)] {
            let x = Tensor::ones([2, input, 4, 4]).with_grad();
            let w = Tensor::ones([input, out, 3, 3]).with_grad();
            let bias = Tensor::ones([out]).with_grad();
            let name = format!("{algorithm}, transposed from {input} to {out} channels");
            let result = with_algorithm(algorithm, || -> Result<_> {
                let y = x.conv_transpose2d(&w, Some(&bias), ConvTranspose2dOptions::default())?;
                Ok((y.to_vec::<f32>()?, y.sum(..)?.backward()?))
            });
            if let Ok((y, gradients)) = result {
                // The result without input channels is the bias.
                assert_eq!(y, vec![1.0; 2 * out * 36], "{name}");
                assert_eq!(gradients.get(&x).unwrap().to_vec::<f32>().unwrap(), vec![0.0; 2 * input * 16], "{name}");
                assert_eq!(gradients.get(&w).unwrap().shape(), w.shape(), "{name}");
            } else {
                assert_eq!(input, 0, "{name}");
            }
        }
    }
}

#[test]
fn a_transposed_convolution_without_elements_takes_no_time_whatever_the_stride() {
    for algorithm in ALGORITHMS {
        for (batch, input, out) in [(0, 1, 1), (1, 1, 0), (0, 2, 0)] {
            let options = ConvTranspose2dOptions { stride: [1 << 33, 1], ..Default::default() };
            let (x, w) = (Tensor::zeros([batch, input, 2, 2]), Tensor::zeros([input, out, 1, 1]));
            let name = format!("{algorithm}, [{batch}, {input}] to {out}");
            let y = within_reason(&name, || with_algorithm(algorithm, || x.conv_transpose2d(&w, None, options))).expect(&name);
            assert_eq!(y.shape(), [batch, out, (1 << 33) + 1, 2], "{name}");
        }
    }
}

#[test]
fn a_convolution_with_huge_padding_and_stride_takes_time_and_memory_for_its_results_only() {
    // One pixel of the input meets a window: the first and the last window cover padding only.
    let p = 1 << 26;
    let options = Conv2dOptions { padding: [p, 0], stride: [p, 1], ..Default::default() };
    for algorithm in ALGORITHMS {
        let name = algorithm.to_string();
        let x = Tensor::full([1, 1, 1, 1], 3.0, DType::F32).with_grad();
        let w = Tensor::full([1, 1, 1, 1], 2.0, DType::F32).with_grad();
        let (y, gradients) = within_reason(&name, || {
            with_algorithm(algorithm, || {
                let y = x.conv2d(&w, None, options).unwrap();
                let gradients = y.sum(..).unwrap().backward().unwrap();
                (y, gradients)
            })
        });
        assert_eq!(y.to_vec::<f32>().unwrap(), [0.0, 6.0, 0.0], "{name}");
        assert_eq!(gradients.get(&x).unwrap().to_vec::<f32>().unwrap(), [2.0], "{name}");
        assert_eq!(gradients.get(&w).unwrap().to_vec::<f32>().unwrap(), [3.0], "{name}");
    }
}

#[test]
fn shapes_that_cannot_be_addressed_are_refused_though_they_have_no_elements() {
    for shape in [[0, usize::MAX, usize::MAX], [usize::MAX, usize::MAX, 0], [0, 1 << 62, 1]] {
        assert!(Tensor::from_vec(Vec::<f32>::new(), shape).is_err());
        assert!(Tensor::from_slice(&[0f64; 0], shape).is_err());
        assert!(std::panic::catch_unwind(|| Tensor::zeros(shape)).is_err());
        assert!(Tensor::zeros([0]).reshape(shape).is_err());
        assert!(Tensor::zeros([1, 1, 1]).expand(shape).is_err());
    }
    // The result can be printed, copied and normalised.
    let x = Tensor::zeros([0, 1 << 10, 1 << 40]);
    assert_eq!(x.to_string(), "[]\n[0, 1024, 1099511627776] f32");
    assert_eq!(Tensor::zeros([1 << 40, 0]).to_string(), "[]\n[1099511627776, 0] f32");
    assert_eq!(x.to_ndarray::<f32>().unwrap().shape(), x.shape());
    let wide = Tensor::zeros([0, 1 << 45]);
    assert!(matches!(wide.batch_norm(None, None, None, 1e-5).map(|y| y.shape().to_vec()), Err(Error::OutOfMemory { .. })));
    assert!(matches!(wide.group_norm(1 << 45, None, None, 1e-5).map(|y| y.shape().to_vec()), Err(Error::OutOfMemory { .. })));
    assert_eq!(x.batch_norm(None, None, None, 1e-5).map(|y| y.shape().to_vec()).ok(), Some(x.shape().to_vec()));
}

#[test]
fn operations_on_tensors_without_elements_take_no_time_however_large_the_other_sizes_are() {
    type Operation = fn(&Tensor) -> Result<Tensor>;
    let operations: [(&str, Operation); 24] = [
        ("sum", |x| x.sum(..)),
        ("sum of the first", |x| x.sum(0)),
        ("mean of the last", |x| x.mean(-1)),
        ("max", |x| x.max(1)),
        ("argmax", |x| x.argmax(1)),
        ("var", |x| x.var(1)),
        ("logsumexp", |x| x.logsumexp(1)),
        ("softmax", |x| x.softmax(1)),
        ("log_softmax", |x| x.log_softmax(-1)),
        ("add", |x| x.add(x)),
        ("relu", |x| Ok(x.relu())),
        ("transpose", |x| x.transpose(1, -1)),
        ("flatten", |x| x.flatten(0, -1)),
        ("flip", |x| x.flip(..)),
        ("narrow", |x| x.narrow(1, 0, 1)),
        ("cat", |x| Tensor::cat(&[x, x], 0)),
        ("pad", |x| x.pad([1, 1, 1, 1], 0.0)),
        ("max_pool2d", |x| x.max_pool2d([1, 1], Default::default())),
        ("avg_pool2d", |x| x.avg_pool2d([1, 1], Default::default())),
        ("adaptive_avg_pool2d", |x| x.adaptive_avg_pool2d([1, 1])),
        ("interpolate", |x| x.interpolate([2, 2], convnet::ops::Interpolation::Nearest)),
        ("batch_norm", |x| x.batch_norm(None, None, None, 1e-5)),
        ("group_norm", |x| x.group_norm(1, None, None, 1e-5)),
        ("unfold", |x| x.unfold([1, 1], Default::default())),
    ];
    let sizes = [[0, 2, 1 << 50, 1], [0, 1 << 50, 1, 2], [1 << 50, 2, 0, 1], [2, 1 << 50, 1, 0], [2, 0, 1, 1 << 50], [2, 0, 1 << 50, 1]];
    for shape in sizes {
        for (name, operation) in operations {
            // With its backward pass; an error is right where the result has elements that memory
            // cannot hold.
            let x = Tensor::zeros(shape).with_grad();
            let start = Instant::now();
            let gradients = operation(&x).and_then(|y| y.sum(..)?.backward());
            if let Ok(gradients) = gradients {
                assert!(gradients.get(&x).is_none_or(|gradient| gradient.shape() == shape), "{name} of {shape:?}");
            }
            assert!(start.elapsed() < LONG, "{name} of {shape:?} took {:?}", start.elapsed());
        }
    }
}
