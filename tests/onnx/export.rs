//! Export, and import of what was exported: every operation, and networks of several families.

use std::path::{Path, PathBuf};

use convnet::data::{ImageClassification, ResizeFilter};
use convnet::models::{DcganOptions, TextCnnOptions, UNetOptions, dcgan_generator, signal_fcn, text_cnn, unet};
use convnet::nn::{Module, StateDict};
use convnet::onnx::Export;
use convnet::ops::{
    Conv1dOptions, Conv2dOptions, ConvTranspose2dOptions, GridFilter, GridPadding, GridSampleOptions, Interpolation, PadMode,
    Pool2dOptions, ResampleOptions, UnfoldOptions,
};
use convnet::{DType, Error, Result, Tensor, models, no_grad, onnx, visit_fields};

/// A module without parameters, for operations.
struct Nothing;

impl Module for Nothing {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    visit_fields!();
}

type Run = fn(&[Tensor]) -> Result<Vec<Tensor>>;

/// Operations on inputs of these shapes: their name, and, where one operation has several cases,
/// what is special.
struct Case {
    name: &'static str,
    shapes: &'static [&'static [usize]],
    /// Whether it takes maps of other sizes.
    any_size: bool,
    run: Run,
}

const MAP: &[usize] = &[2, 4, 6, 7];

const fn case(name: &'static str, shapes: &'static [&'static [usize]], run: Run) -> Case {
    Case { name, shapes, any_size: false, run }
}

const fn sized(name: &'static str, shapes: &'static [&'static [usize]], run: Run) -> Case {
    Case { name, shapes, any_size: true, run }
}

/// Numbers between -1 and 1.
fn numbers<const N: usize>(shape: [usize; N]) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::from_vec((0..count).map(|i| (i * 7919 % 1013) as f32 / 506.5 - 1.0).collect(), shape).unwrap()
}

fn index(values: &[i64]) -> Tensor {
    Tensor::from_slice(values, [values.len()]).unwrap()
}

const CASES: &[Case] = &[
    sized("abs", &[MAP], |x| Ok(vec![x[0].abs()])),
    case("adaptive_avg_pool2d", &[MAP], |x| Ok(vec![x[0].adaptive_avg_pool2d([4, 3])?, x[0].adaptive_avg_pool2d([3, 7])?])),
    sized("adaptive_avg_pool2d-global", &[MAP], |x| Ok(vec![x[0].adaptive_avg_pool2d(1)?])),
    case("adaptive_max_pool2d", &[MAP], |x| Ok(vec![x[0].adaptive_max_pool2d([4, 3])?, x[0].adaptive_max_pool2d([3, 7])?])),
    sized("adaptive_max_pool2d-global", &[MAP], |x| Ok(vec![x[0].adaptive_max_pool2d(1)?])),
    sized("add", &[MAP, &[2, 4, 1, 1]], |x| Ok(vec![x[0].add(&x[1])?, x[0].add(&Tensor::arange(4).reshape([4, 1, 1])?)?])),
    sized("add_scalar", &[MAP], |x| Ok(vec![x[0].add_scalar(2.5), &x[0].to_dtype(DType::I64)? + 0.5])),
    sized("avg_pool2d", &[MAP], |x| {
        let windows = Pool2dOptions::new().stride(2).padding(1);
        let divided = x[0].avg_pool2d(3, windows.count_include_pad(false).divisor_override(Some(4)))?;
        Ok(vec![x[0].avg_pool2d(3, windows)?, x[0].avg_pool2d(3, windows.count_include_pad(false))?, divided])
    }),
    sized("batch_norm", &[MAP], |x| {
        let (mean, var) = (numbers([4]), numbers([4]).square()?.add_scalar(0.1));
        let (weight, bias) = (numbers([4]).add_scalar(2.0), numbers([4]));
        Ok(vec![
            x[0].batch_norm(Some((&mean, &var)), Some(&weight), Some(&bias), 1e-3)?,
            x[0].batch_norm(Some((&mean, &var)), None, None, 1e-5)?,
        ])
    }),
    sized("batch_norm-of_batch", &[MAP], |x| Ok(vec![x[0].batch_norm(None, Some(&numbers([4])), Some(&numbers([4])), 1e-3)?])),
    sized("cat", &[MAP, MAP], |x| Ok(vec![Tensor::cat(&[&x[0], &x[1], &x[0]], 1)?, Tensor::cat(&[&x[0], &x[1]], -1)?])),
    sized("ceil", &[MAP], |x| Ok(vec![x[0].ceil()?, x[0].floor()?, x[0].round()?, x[0].trunc()?, x[0].sign()?])),
    sized("clamp", &[MAP], |x| Ok(vec![x[0].clamp(-0.5, 0.25)?, x[0].clamp(f64::NEG_INFINITY, 0.25)?])),
    sized("conv1d", &[&[2, 4, 20]], |x| {
        let options = Conv1dOptions::new().stride(2).padding(3).dilation(2).groups(2);
        Ok(vec![
            x[0].conv1d(&numbers([6, 2, 3]), Some(&numbers([6])), options)?,
            x[0].conv1d(&numbers([3, 4, 1]), None, Conv1dOptions::new())?,
        ])
    }),
    sized("conv2d", &[MAP], |x| {
        let options = Conv2dOptions::new().stride([2, 1]).padding([2, 1]).dilation(2).groups(2);
        Ok(vec![x[0].conv2d(&numbers([6, 2, 3, 2]), Some(&numbers([6])), options)?])
    }),
    sized("conv_transpose2d", &[MAP], |x| {
        let options = ConvTranspose2dOptions::new().stride([2, 3]).padding([1, 0]).output_padding([1, 2]).groups(2);
        Ok(vec![x[0].conv_transpose2d(&numbers([4, 3, 3, 2]), Some(&numbers([6])), options)?])
    }),
    sized("cos", &[MAP], |x| Ok(vec![x[0].cos()?, x[0].sin()?, x[0].exp()?, x[0].erf()?])),
    // Within a quarter of π, where the tangent stays below 1.
    sized("tan", &[MAP], |x| Ok(vec![x[0].tanh()?.mul_scalar(0.78).tan()?, x[0].atan()?])),
    sized("cumsum", &[MAP], |x| Ok(vec![x[0].cumsum(2)?])),
    sized("div", &[MAP, MAP], |x| Ok(vec![x[0].div(&x[1].abs().add_scalar(0.5))?, x[0].div_scalar(3.0)])),
    sized("elu", &[MAP], |x| Ok(vec![x[0].elu(0.7)?, x[0].selu()?, x[0].celu(1.5)?, x[0].leaky_relu(0.1)?])),
    case("expand", &[&[2, 1, 6]], |x| {
        Ok(vec![x[0].expand([x[0].shape()[0], 3, 6])?, numbers([1, 6]).expand([x[0].shape()[0], 6])?.add(&x[0].squeeze(1)?)?])
    }),
    sized("flip", &[MAP], |x| Ok(vec![x[0].flip([1, 3])?])),
    case("fold", &[MAP], |x| {
        let options = UnfoldOptions::new().stride(2).padding(1);
        Ok(vec![x[0].unfold(3, options)?.fold([6, 7], 3, options)?])
    }),
    sized("unfold", &[MAP], |x| Ok(vec![x[0].unfold([3, 2], UnfoldOptions::new().stride(2).padding(1).dilation([1, 2]))?])),
    case("gather", &[&[3, 5]], |x| Ok(vec![x[0].gather(1, &Tensor::from_slice(&[4i64, 0, 1, 2], [2, 2])?)?])),
    sized("gelu", &[MAP], |x| Ok(vec![x[0].gelu()?, x[0].gelu_tanh()?, x[0].mish()?, x[0].silu()?, x[0].softplus()?])),
    sized("group_norm", &[MAP], |x| {
        Ok(vec![x[0].group_norm(2, Some(&numbers([4])), Some(&numbers([4])), 1e-3)?, x[0].group_norm(4, None, None, 1e-5)?])
    }),
    sized("hardsigmoid", &[MAP], |x| {
        Ok(vec![x[0].mul_scalar(3.0).hardsigmoid()?, x[0].mul_scalar(3.0).hardswish()?, x[0].mul_scalar(9.0).relu6()?])
    }),
    sized("index_select", &[MAP], |x| Ok(vec![x[0].index_select(1, &index(&[3, 0, 0]))?, x[0].index_select(1, &Tensor::scalar(2i64))?])),
    case("grid_sample", &[MAP, &[2, 3, 5, 2]], |x| {
        let options = GridSampleOptions::new();
        Ok(vec![
            x[0].grid_sample(&x[1], options)?,
            x[0].grid_sample(&x[1], options.padding(GridPadding::Border).align_corners(true))?,
            x[0].grid_sample(&x[1], options.padding(GridPadding::Reflection))?,
            x[0].grid_sample(&x[1], options.filter(GridFilter::Nearest))?,
            x[0].grid_sample(&x[1], options.filter(GridFilter::Bicubic).padding(GridPadding::Border))?,
        ])
    }),
    case("interpolate", &[MAP], |x| {
        Ok(vec![
            x[0].interpolate([9, 11], Interpolation::Nearest)?,
            x[0].interpolate([9, 11], Interpolation::Bilinear { align_corners: false })?,
            x[0].interpolate([13, 5], Interpolation::Bilinear { align_corners: true })?,
        ])
    }),
    sized("interpolate-scale", &[MAP, &[2, 4, 12, 14]], |x| {
        let [.., h, w] = *x[0].shape() else { unreachable!("a map") };
        let twice = x[0].interpolate([2 * h, 2 * w], Interpolation::Bilinear { align_corners: false })?;
        let other = [x[1].shape()[2], x[1].shape()[3]];
        Ok(vec![twice, x[0].interpolate(other, Interpolation::Nearest)?])
    }),
    case("interpolate-factors", &[&[2, 4, 10, 10]], |x| {
        // In f32, in which files hold them, 0.7 is a little less, and nearly 0.7 is the same
        // number.
        let by = |factors: [f64; 2]| ResampleOptions { factors: Some(factors), ..Default::default() };
        Ok(vec![x[0].resample([7, 7], by([0.7, 0.7]))?, x[0].resample([6, 7], by([0.699_999_999, 0.7]))?])
    }),
    case("layer_norm", &[MAP], |x| {
        Ok(vec![x[0].layer_norm(&[7], Some(&numbers([7])), Some(&numbers([7])), 1e-3)?, x[0].layer_norm(&[6, 7], None, None, 1e-5)?])
    }),
    case("linear", &[&[2, 3, 5]], |x| {
        let flat = x[0].flatten(0, 1)?;
        Ok(vec![x[0].linear(&numbers([4, 5]), Some(&numbers([4])))?, flat.linear(&numbers([4, 5]), None)?])
    }),
    sized("ln", &[MAP], |x| {
        Ok(vec![x[0].abs().add_scalar(0.1).ln()?, x[0].abs().log1p()?, x[0].abs().sqrt()?, x[0].abs().add_scalar(0.1).rsqrt()?])
    }),
    sized("local_response_norm", &[MAP], |x| {
        Ok(vec![x[0].local_response_norm(3, 0.3, 0.75, 1.5)?, x[0].local_response_norm(4, 0.3, 0.75, 1.0)?])
    }),
    sized("logsumexp", &[MAP], |x| Ok(vec![x[0].logsumexp(1)?, x[0].softmax(1)?, x[0].log_softmax(-1)?])),
    case("matmul", &[&[2, 3, 5], &[2, 5, 4]], |x| {
        Ok(vec![x[0].matmul(&x[1])?, x[0].matmul(&numbers([5, 2]))?, x[0].matmul(&numbers([5]))?, numbers([3]).matmul(&x[0])?])
    }),
    sized("max", &[MAP], |x| Ok(vec![x[0].max([2, 3])?, x[0].min_keepdim(1)?, x[0].argmax(1)?, x[0].argmin_keepdim(-1)?])),
    case("argmax-all", &[MAP], |x| Ok(vec![x[0].argmax(..)?, x[0].argmin_keepdim(..)?])),
    sized("max_pool2d", &[MAP], |x| {
        let windows = Pool2dOptions::new().stride(2).padding(1);
        Ok(vec![x[0].max_pool2d(3, windows)?, x[0].max_pool2d(2, windows.dilation(2))?])
    }),
    case("max_pool2d-ceil", &[MAP], |x| {
        let windows = Pool2dOptions::new().stride(2).ceil_mode(true);
        Ok(vec![x[0].max_pool2d(2, windows)?, x[0].avg_pool2d(2, windows)?])
    }),
    case("max_pool2d-indices", &[MAP], |x| {
        let (y, positions) = x[0].max_pool2d_with_indices(3, Pool2dOptions::new().stride(2).padding(1))?;
        Ok(vec![y.max_unpool2d(&positions, [6, 7])?, y, positions])
    }),
    sized("maximum", &[MAP, MAP], |x| Ok(vec![x[0].maximum(&x[1])?, x[0].minimum(&x[1])?, x[0].sub(&x[1])?, x[0].mul(&x[1])?])),
    sized("maxout", &[MAP], |x| Ok(vec![x[0].maxout(2)?])),
    sized("mean", &[MAP], |x| Ok(vec![x[0].mean([2, 3])?, x[0].mean_keepdim(1)?, x[0].sum([0, 2])?, x[0].sum(..)?])),
    sized("narrow", &[MAP], |x| {
        let height = x[0].shape()[2];
        Ok(vec![x[0].narrow(1, 1, 2)?, x[0].narrow(2, 1, height - 1)?, x[0].narrow(2, height - 3, 2)?])
    }),
    sized("neg", &[MAP], |x| {
        Ok(vec![x[0].neg(), x[0].mul_scalar(2.5), x[0].sub_scalar(0.5), x[0].square()?, x[0].add_scalar(3.0).recip()?])
    }),
    sized("pad", &[MAP], |x| {
        Ok(vec![x[0].pad([1, 0, 2, 3], 0.5)?, x[0].pad_with([1, 2, 3, 1], PadMode::Reflect)?, x[0].pad_with([1, 2], PadMode::Replicate)?])
    }),
    sized("permute", &[MAP], |x| Ok(vec![x[0].permute([0, 2, 3, 1])?, x[0].transpose(1, 3)?])),
    sized("pixel_shuffle", &[&[2, 8, 4, 6]], |x| Ok(vec![x[0].pixel_shuffle(2)?, x[0].pixel_unshuffle(2)?])),
    sized("pow", &[MAP, MAP], |x| Ok(vec![x[0].abs().pow(1.7)?, x[0].abs().add_scalar(0.1).pow_by(&x[1])?])),
    case("prod", &[MAP], |x| Ok(vec![x[0].prod(1)?])),
    case("reshape", &[MAP], |x| {
        let n = x[0].shape()[0];
        Ok(vec![
            x[0].flatten(1, -1)?,
            x[0].reshape([n, 2, 2, 42])?,
            x[0].reshape([n * 4, 42])?,
            x[0].unsqueeze(1)?,
            x[0].reshape([4, n, 6, 7])?,
        ])
    }),
    sized("reshape-sizes", &[MAP], |x| {
        let &[n, c, h, w] = x[0].shape() else { unreachable!("a map") };
        Ok(vec![x[0].reshape([n, c, h * w])?.transpose(1, 2)?.reshape([n, h, w, c])?])
    }),
    case("scatter", &[&[2, 5]], |x| {
        let at = Tensor::from_slice(&[1i64, 4], [1, 2])?;
        Ok(vec![x[0].scatter(1, &at, &numbers([1, 2]))?, x[0].scatter_add(1, &at, &numbers([1, 2]))?])
    }),
    case("sort", &[&[2, 9]], |x| {
        let (values, positions) = x[0].sort(1, false)?;
        let (top, _) = x[0].topk(3, 1)?;
        Ok(vec![values, positions, top])
    }),
    sized("sigmoid", &[MAP], |x| Ok(vec![x[0].sigmoid()?, x[0].tanh()?, x[0].relu()])),
    sized("to_dtype", &[MAP], |x| Ok(vec![x[0].mul_scalar(9.0).to_dtype(DType::I64)?, x[0].to_dtype(DType::F64)?.contiguous()?])),
    sized("var", &[MAP], |x| Ok(vec![x[0].var_with([1], 1, false)?, x[0].var_with([2, 3], 0, true)?])),
    sized("where_", &[MAP, MAP], |x| {
        let larger = x[0].gt(&x[1])?;
        Ok(vec![larger.where_(&x[0], &x[1])?, larger, x[0].ne_scalar(0.0)?.where_(1.0, &x[0])?, x[0].le(&x[1])?, x[0].eq(&x[0])?])
    }),
    case("repeated_constant", &[MAP], |x| Tensor::cat(&[&x[0], &Tensor::ones([x[0].shape()[0], 1, 6, 7])], 1).map(|y| vec![y])),
];

/// Inputs like those of a case, with another batch, and other sizes if it takes any.
fn inputs(case: &Case, run: usize) -> Vec<Tensor> {
    let shape = |shape: &&[usize]| {
        let mut shape = shape.to_vec();
        shape[0] += run;
        if case.any_size && run > 0 {
            // As different as the sizes of the case itself are.
            let scale = shape.get(2).copied().unwrap_or(0) / 6;
            shape[2..].iter_mut().filter(|size| **size > 1).for_each(|size| *size += 2 * scale.max(1));
        }
        shape
    };
    case.shapes.iter().map(|input| Tensor::randn(shape(input))).collect()
}

/// Exports a case, and writes samples of its inputs and outputs beside it; the file, read again,
/// gives the same.
fn write(case: &Case, opset: i64, folder: &Path) -> Result<()> {
    let path = folder.join(format!("{}-{opset}.onnx", case.name));
    let names: Vec<String> = (0..case.shapes.len()).map(|number| format!("x{number}")).collect();
    let count = no_grad(|| (case.run)(&inputs(case, 0)))?.len();
    let outputs: Vec<String> = (0..count).map(|number| format!("y{number}")).collect();
    let options = Export::new().opset(opset).dynamic_size(case.any_size).input_names(&names).output_names(&outputs);
    options.write_with(&Nothing, case.shapes, &path, case.run)?;
    let network = onnx::import(&path)?;
    let mut sample = StateDict::new();
    for (run, suffix) in [(0, ""), (1, "_1")] {
        let x = inputs(case, run);
        let y = no_grad(|| (case.run)(&x))?;
        let found = no_grad(|| network.run(&x.iter().collect::<Vec<_>>()))?;
        difference(&found, &y).map_err(|why| Error::other(format!("inputs {run}: {why}")))?;
        names.iter().zip(x).chain(outputs.iter().zip(y)).for_each(|(name, tensor)| drop(sample.insert(format!("{name}{suffix}"), tensor)));
    }
    sample.save(path.with_extension("safetensors"))
}

/// Small networks of several families, on images of few pixels.
const FAMILIES: &[(&str, [usize; 3])] = &[
    ("lenet5", [1, 28, 28]),
    ("cifar_resnet20", [3, 32, 32]),
    ("efficientnet_b0", [3, 32, 32]),
    ("mobilenet_v2", [3, 32, 32]),
    ("mobilenet_v3_small", [3, 32, 32]),
];

/// Says where two results differ by more than 10⁻⁵ of their spread: rounding in f32, in another
/// order after fusion, is below 10⁻⁶ of it.
fn difference(found: &[Tensor], expected: &[Tensor]) -> std::result::Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("expected {} outputs, got {}", expected.len(), found.len()));
    }
    for (number, (found, expected)) in found.iter().zip(expected).enumerate() {
        if found.shape() != expected.shape() {
            return Err(format!("output {number}: expected shape {:?}, got {:?}", expected.shape(), found.shape()));
        }
        let [found, expected] = [found, expected].map(|y| y.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap());
        let [least, most] = expected.iter().fold([f64::MAX, f64::MIN], |[least, most], &y| [least.min(y), most.max(y)]);
        // Values that are all the same have no spread.
        let bound = 1e-5 * if most > least { most - least } else { 1.0 };
        if let Some((found, expected)) =
            found.iter().zip(&expected).find(|(a, b)| a != b && ((*a - *b).abs() > bound || (*a - *b).is_nan()))
        {
            return Err(format!("output {number}: expected {expected}, got {found}, with a bound of {bound:e}"));
        }
    }
    Ok(())
}

#[test]
fn networks_of_several_families_are_the_same_after_export_and_import() {
    convnet::manual_seed(2);
    let folder = tempfile::tempdir().unwrap();
    for &(name, [channels, height, width]) in FAMILIES {
        let model = models::create(name, 10).unwrap();
        let path = folder.path().join(format!("{name}.onnx"));
        onnx::export(&model, &[[1, channels, height, width]], &path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let network = onnx::import(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        std::fs::remove_file(path).unwrap();
        model.eval();
        for batch in [1, 3] {
            let x = Tensor::randn([batch, channels, height, width]);
            let (found, expected) = no_grad(|| (network.forward(&x).unwrap(), model.forward(&x).unwrap()));
            difference(&[found], &[expected]).unwrap_or_else(|why| panic!("{name}, batch of {batch}: {why}"));
        }
    }
}

#[test]
fn factors_that_give_another_size_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let run = |x: &[Tensor]| {
        let options = ResampleOptions { factors: Some([0.7, 1.0]), ..Default::default() };
        Ok(vec![x[0].resample([5, 10], options)?])
    };
    let error = Export::new().write_with(&Nothing, &[&[2, 4, 10, 10]], folder.path().join("net.onnx"), run).unwrap_err();
    assert!(error.to_string().contains("given beside another size"), "{error}");
}

#[test]
fn metadata_is_the_same_after_export_and_import() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    let preprocessing = ImageClassification::new(28).resize(32).interpolation(ResizeFilter::Bicubic).normalize([0.3], [0.4]);
    let model = models::lenet5(2);
    Export::new().classes(["a \"b\"", "ç"]).preprocessing(&preprocessing).write(&model, &[[1, 1, 28, 28]], &path).unwrap();
    let network = onnx::import(&path).unwrap();
    assert_eq!(network.classes().unwrap(), ["a \"b\"", "ç"]);
    assert_eq!(format!("{:?}", network.preprocessing().unwrap()), format!("{preprocessing:?}"));
    for (key, value) in [("size", "[1e9, 1e9]"), ("size", "[99999, 99999]"), ("mean", "[]"), ("resize", "-1"), ("interpolation", "sinc")] {
        // The first entry of a name is the one that counts.
        Export::new().metadata(key, value).preprocessing(&preprocessing).write(&model, &[[1, 1, 28, 28]], &path).unwrap();
        assert!(onnx::import(&path).unwrap().preprocessing().is_none(), "{key} {value}");
    }
    onnx::export(&model, &[[1, 1, 28, 28]], &path).unwrap();
    let network = onnx::import(&path).unwrap();
    assert!(network.classes().is_none() && network.preprocessing().is_none());
}

#[test]
fn networks_beside_the_registry_export_with_any_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    let any_size = Export::new().dynamic_size(true);
    any_size.write(&unet(UNetOptions::new(2).width(4).depth(2)), &[[1, 3, 16, 16]], &path).unwrap();
    any_size.write(&unet(UNetOptions::new(2).width(4).depth(2).bilinear(true)), &[[1, 3, 16, 16]], &path).unwrap();
    any_size.write(&signal_fcn(1, 2), &[[1, 1, 30]], &path).unwrap();
    onnx::export(&dcgan_generator(DcganOptions::new(16).latent(8).width(4)).unwrap(), &[[1, 8]], &path).unwrap();
    let words = Export::new().dtype(DType::I64);
    words.write(&text_cnn(TextCnnOptions::new(9, 2).width(8).maps(4)), &[[1, 7]], &path).unwrap();
}

#[test]
fn cases_of_every_operation_are_the_same_after_export_and_import() {
    convnet::manual_seed(1);
    let temporary = tempfile::tempdir().unwrap();
    // The script `tests/fixtures/onnx_export.py` compares them with ONNX Runtime.
    let folder = std::env::var_os("ONNX_CASES").map_or(temporary.path().to_path_buf(), PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    let mut failed = vec![];
    for case in CASES {
        for opset in [17, 23, 28] {
            if let Err(error) = write(case, opset, &folder) {
                failed.push(format!("{} at opset {opset}: {error}", case.name));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
