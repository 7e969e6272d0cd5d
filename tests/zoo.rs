//! Every registered architecture against torchvision's, timm's or the paper's reference: keys,
//! shapes, parameters, logits, loss, gradients.
//!
//! `fixtures/models.py` made the numbers and says how each weight comes from its name. `ZOO=resnet
//! cargo test --test zoo` looks only at the names that contain this word.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use convnet::autograd::Gradients;
use convnet::models::{self, Cbam, DcganOptions, RESNET18, ResNet, ResNetConfig, TextCnnOptions, UNetOptions};
use convnet::nn::{Item, Module, ModuleExt, Parameter, StateDict, Visitor};
use convnet::{DType, Tensor, no_grad, weights};
use flate2::read::GzDecoder;
use serde_json::Value;

type Check<T = ()> = Result<T, Box<dyn Error>>;

static FIXTURE: LazyLock<BTreeMap<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("fixtures/models.json")).expect("models.json is JSON"));

/// Not registered, but its attention is public.
const WITH_CBAM: &str = "resnet18 with CBAM";
const GENERATOR: &str = "dcgan_generator";
const DISCRIMINATOR: &str = "dcgan_discriminator";
const TEXT_CNN: &str = "text_cnn";
const SIGNAL_FCN: &str = "signal_fcn";
const UNET: &str = "unet";
const UNET_BILINEAR: &str = "unet bilinear";
const UNET_PAPER: &str = "unet of the paper";
const NOT_REGISTERED: [&str; 8] = [WITH_CBAM, GENERATOR, DISCRIMINATOR, TEXT_CNN, SIGNAL_FCN, UNET, UNET_BILINEAR, UNET_PAPER];

/// Files of large networks take long to sync; those go through memory alone.
const LARGEST_FILE: usize = 12_000_000;

fn fnv1a64(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Uniform in `[-1, 1)` by the name and the place.
fn uniform(name: &str) -> impl Fn(usize) -> f64 + use<> {
    let seed = fnv1a64(name);
    move |i| {
        let z = seed.wrapping_add((i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 * 2f64.powi(-52) - 1.0
    }
}

fn tensor(shape: &[usize], value: impl Fn(usize) -> f64) -> Tensor {
    let numel = shape.iter().product();
    Tensor::from_vec((0..numel).map(|i| value(i) as f32).collect(), shape).expect("as many values as the shape has")
}

/// What the formula gives an entry of the state dict.
fn value(name: &str, shape: &[usize], gain: f64) -> Tensor {
    let u = uniform(name);
    if name.ends_with("num_batches_tracked") {
        Tensor::zeros(shape).to_dtype(DType::I64).expect("numbers convert")
    } else if name.ends_with("_count") || name.ends_with("_stage") {
        Tensor::zeros(shape)
    } else if name.ends_with("_mask") {
        tensor(shape, |i| f64::from(u(i) > 0.0))
    } else if name.ends_with("weight") && shape.len() >= 2 {
        let scale = (gain / shape[1..].iter().product::<usize>() as f64).sqrt();
        tensor(shape, |i| u(i) * scale)
    } else if name.ends_with("weight") {
        tensor(shape, |i| 1.0 + u(i) / 4.0)
    } else if name.ends_with("running_var") {
        tensor(shape, |i| 1.0 + u(i) / 2.0)
    } else {
        tensor(shape, |i| u(i) / 10.0)
    }
}

/// Gives every parameter and buffer its formula's value.
fn fill(model: &dyn Module, gain: f64) -> Check {
    let mut result = Ok(());
    Visitor::walk(model, &mut |name, item| {
        let set = match item {
            Item::Parameter(parameter) => parameter.set(&value(name, &parameter.shape(), gain)),
            Item::Buffer(buffer) => buffer.set(&value(name, &buffer.shape(), gain)),
            _ => return,
        };
        if let (Ok(()), Err(error)) = (&result, set) {
            result = Err(format!("{name}: {error}"));
        }
    });
    Ok(result?)
}

/// Training without chance: dropout and stochastic depth stay switched to evaluation.
fn train_without_chance(model: &dyn Module) {
    let mut kinds = vec![];
    Visitor::walk(model, &mut |_, item| match item {
        Item::Enter { type_name } => kinds.push(type_name.to_string()),
        Item::Leave => drop(kinds.pop()),
        Item::TrainingMode(mode) => {
            let chance = kinds.last().is_some_and(|kind| kind.starts_with("Dropout") || kind == "StochasticDepth");
            mode.set_training(!chance);
        }
        _ => {}
    });
}

/// A network, and its loss in training.
struct Net {
    model: Arc<dyn Module>,
    loss: Box<dyn Fn(&Tensor, &Tensor) -> convnet::Result<Tensor>>,
}

impl Net {
    fn new(name: &str, classes: usize) -> convnet::Result<Net> {
        if name == "googlenet" {
            // Its loss in training has three parts.
            let model = Arc::new(models::googlenet(classes));
            let net = model.clone();
            return Ok(Net { model, loss: Box::new(move |x, labels| net.forward_with_aux(x)?.loss(labels)) });
        }
        let gan = DcganOptions::new(28).channels(1).latent(20).width(16);
        let model: Arc<dyn Module> = match name {
            GENERATOR => Arc::new(models::dcgan_generator(gan)?),
            DISCRIMINATOR => {
                let model = Arc::new(models::dcgan_discriminator(gan)?);
                let net = model.clone();
                let real = |like: &Tensor| Tensor::from_vec(vec![1f32, 0.0], [2, 1])?.to_dtype(like.dtype());
                let loss = move |x: &Tensor, _: &Tensor| net.forward(x)?.binary_cross_entropy_with_logits(&real(x)?);
                return Ok(Net { model, loss: Box::new(loss) });
            }
            TEXT_CNN => Arc::new(models::text_cnn(TextCnnOptions::new(40, classes).width(8).maps(6))),
            UNET => Arc::new(models::unet(UNetOptions::new(3).input_channels(2).width(8).depth(3))),
            UNET_BILINEAR => Arc::new(models::unet(UNetOptions::new(3).input_channels(2).width(8).depth(2).bilinear(true))),
            UNET_PAPER => Arc::new(models::unet(UNetOptions::paper(2).width(8).depth(2))),
            SIGNAL_FCN => Arc::new(models::signal_fcn(2, classes)),
            WITH_CBAM => {
                let config = ResNetConfig { attention: Some(|channels| Box::new(Cbam::new(channels))), ..RESNET18 };
                Arc::new(ResNet::new(&config, classes))
            }
            _ => Arc::from(models::create(name, classes)?),
        };
        let net = model.clone();
        Ok(Net { model, loss: Box::new(move |x, labels| net.forward(x)?.flatten(1, -1)?.cross_entropy(labels)) })
    }

    /// With the formula's weights.
    fn filled(name: &str, row: &Row, dtype: DType) -> Check<Net> {
        let net = Net::new(name, row.classes())?;
        fill(&net.model, row.number("gain"))?;
        if dtype != DType::F32 {
            net.model.to_dtype(dtype)?;
        }
        Ok(net)
    }
}

/// A model's fixture.
struct Row(&'static Value);

impl Row {
    fn number(&self, field: &str) -> f64 {
        self.0[field].as_f64().unwrap_or_else(|| panic!("the fixture has no {field}"))
    }

    fn classes(&self) -> usize {
        self.number("classes") as usize
    }

    fn input(&self, dtype: DType) -> Check<Tensor> {
        let sizes = self.0["input"].as_array().expect("a shape").iter().map(|n| n.as_u64().expect("a size") as usize);
        let shape: Vec<usize> = [2].into_iter().chain(sizes).collect();
        let u = uniform("input");
        if let Some(words) = self.0["words"].as_f64() {
            let numel = shape.iter().product();
            return Ok(Tensor::from_vec((0..numel).map(|i| ((u(i) + 1.0) / 2.0 * words) as i64).collect(), shape)?);
        }
        Ok(tensor(&shape, |i| u(i) * 3f64.sqrt()).to_dtype(dtype)?)
    }

    fn labels(&self) -> Check<Tensor> {
        Ok(Tensor::from_vec(vec![3, self.classes() as i64 - 3], [2])?)
    }

    /// PyTorch's own noise, of f32 against f64: of its logits, loss and gradients.
    fn noise(&self, of: usize) -> f64 {
        self.0["noise"][of].as_f64().expect("a number")
    }

    /// What the loss of a training step may differ by: through a hundred layers that divide by the
    /// deviation of a few values, what f32 rounds grows.
    fn tolerance_of_loss(&self, dtype: DType) -> f64 {
        if dtype == DType::F32 { tolerance(dtype) + 20.0 * self.noise(1) } else { tolerance(dtype) }
    }

    /// What gradients may differ by, of their norm. In f32 only a missing or wrong part shows:
    /// rounding decides on which side of zero some unit is, and batch statistics of a few values
    /// amplify what follows from layer to layer; PyTorch's own noise shows by how much. In f64,
    /// where that does not happen at these weights, all digits must agree but for that noise.
    fn tolerance_of_gradients(&self, dtype: DType) -> f64 {
        let noise = self.noise(2);
        if dtype == DType::F32 { 0.1 + 5.0 * noise } else { tolerance(dtype) + 20.0 * noise * 2f64.powi(-29) }
    }
}

/// Of the logits' spread, or of the loss: some hundred roundings, and small changes in a layer are
/// far above.
fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F32 { 1e-4 } else { 1e-9 }
}

fn close(what: &str, found: f64, expected: f64, scale: f64, tolerance: f64) -> Check {
    // A NaN compares as different.
    if approx::abs_diff_eq!(found, expected, epsilon = tolerance * scale) {
        return Ok(());
    }
    let difference = (found - expected).abs() / scale;
    Err(format!("{what} is {found}, expected {expected}: {difference:.1e} of the scale, {tolerance:.1e} allowed").into())
}

fn values(tensor: &Tensor) -> Check<Vec<f64>> {
    Ok(tensor.to_dtype(DType::F64)?.to_vec::<f64>()?)
}

/// The registered models, and those that are not, with their fixtures: those asked for.
fn zoo() -> impl Iterator<Item = (&'static str, Result<Row, String>)> {
    let wanted = std::env::var("ZOO").unwrap_or_default();
    models::names().chain(NOT_REGISTERED).filter(move |name| name.contains(&wanted)).map(|name| {
        let row = FIXTURE.get(name).map(Row).ok_or_else(|| "no row in fixtures/models.json".to_string());
        (name, row)
    })
}

/// Runs a check on each model; all that fail are reported.
fn each(check: impl Fn(&'static str, &Row) -> Check) {
    assert!(zoo().next().is_some(), "no model has this in its name: {}", std::env::var("ZOO").unwrap_or_default());
    let failures: Vec<String> = zoo()
        .filter_map(|(name, row)| row.map_err(Into::into).and_then(|row| check(name, &row)).err().map(|e| format!("{name}: {e}")))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_model_has_the_references_keys_shapes_and_number_of_parameters() {
    each(|name, row| {
        let net = Net::new(name, row.classes())?;
        let mut lines = vec![];
        // No weights are drawn for this, so that the largest networks cost nothing.
        Visitor::walk(&net.model, &mut |name, item| {
            let shape = match item {
                Item::Parameter(parameter) => parameter.shape(),
                Item::Buffer(buffer) => buffer.shape(),
                _ => return,
            };
            let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
            lines.push(format!("{name} {}\n", sizes.join(",")));
        });
        let text = lines.concat();
        if format!("{:016x}", fnv1a64(&text)) != row.0["digest"] {
            let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.keys"));
            std::fs::write(&path, &text)?;
            let message = format!("{} keys, expected {}, or other shapes or order", lines.len(), row.0["keys"]);
            let compare = format!("python tests/fixtures/models.py --keys {name} | diff - {}", path.display());
            return Err(format!("{message}; to see them: {compare}").into());
        }
        let (found, expected) = (net.model.num_parameters(), row.number("parameters") as usize);
        if found != expected { Err(format!("{found} parameters, expected {expected}").into()) } else { Ok(()) }
    });
}

/// Compares the logits in evaluation, where layers run as one, with the fixture and with what the
/// layers give one by one, as they run while the graph is recorded.
fn logits_agree(net: &Net, row: &Row, dtype: DType) -> Check<Tensor> {
    net.model.eval();
    let logits = no_grad(|| net.model.forward(&row.input(dtype)?)?.flatten(1, -1).map_err(Box::<dyn Error>::from))?;
    let apart = values(&net.model.forward(&row.input(dtype)?)?)?;
    if logits.shape() != [2, row.classes()] || logits.dtype() != dtype {
        return Err(format!("logits are {:?} {:?}", logits.dtype(), logits.shape()).into());
    }
    let (found, spread) = (values(&logits)?, row.number("spread"));
    for (i, expected) in row.0["logits"].as_array().expect("logits").iter().enumerate() {
        let (sample, class) = (i % 2, i * row.classes() / 10);
        let expected = expected.as_f64().expect("a number");
        let what = format!("{dtype}: logit {class} of sample {sample}");
        close(&what, found[sample * row.classes() + class], expected, spread, tolerance(dtype))?;
    }
    // Some roundings apart: the normalisation is in the weights.
    let tolerance = if dtype == DType::F32 { 1e-4 } else { 1e-10 };
    for (i, (&found, &apart)) in found.iter().zip(&apart).enumerate() {
        close(&format!("{dtype}: element {i} of the logits of layers that run as one"), found, apart, spread, tolerance)?;
    }
    Ok(logits)
}

/// The norm of a parameter's gradient, and its product with numbers that see a transposed or
/// negated one.
fn measures(name: &str, parameter: &Parameter, gradients: &Gradients) -> Check<[f64; 2]> {
    let gradient = gradients.get(&parameter.tensor()).ok_or_else(|| format!("no gradient reaches {name}"))?;
    if gradient.shape() != parameter.shape() {
        return Err(format!("the gradient of {name} has shape {:?}", gradient.shape()).into());
    }
    let probe = uniform(&format!("{name}.probe"));
    let values = values(gradient)?;
    let norm = values.iter().map(|g| g * g).sum::<f64>().sqrt();
    Ok([norm, values.iter().enumerate().map(|(i, g)| g * probe(i)).sum()])
}

/// Compares loss and gradients in training; each parameter gets one.
fn training_agrees(net: &Net, row: &Row, dtype: DType) -> Check {
    train_without_chance(&net.model);
    let loss = (net.loss)(&row.input(dtype)?, &row.labels()?)?;
    let (found, expected) = (values(&loss)?[0], row.number("loss"));
    close(&format!("{dtype}: the loss"), found, expected, expected, row.tolerance_of_loss(dtype))?;

    let gradients = loss.backward()?;
    let mut found = BTreeMap::new();
    for (name, parameter) in net.model.named_parameters() {
        found.insert(name.clone(), measures(&name, &parameter, &gradients)?);
    }
    let tolerance = row.tolerance_of_gradients(dtype);
    for expected in row.0["gradients"].as_array().expect("gradients") {
        let name = expected[0].as_str().expect("a name");
        let [norm, product] = [1, 2].map(|i| expected[i].as_f64().expect("a number"));
        let found = found.get(name).ok_or_else(|| format!("no parameter {name}"))?;
        close(&format!("{dtype}: the gradient's norm for {name}"), found[0], norm, norm, tolerance)?;
        close(&format!("{dtype}: the gradient's product for {name}"), found[1], product, norm, tolerance)?;
    }
    let (norm, expected) = (found.values().map(|[norm, _]| norm * norm).sum::<f64>().sqrt(), row.number("gradient"));
    close(&format!("{dtype}: the gradient's norm"), norm, expected, expected, tolerance)
}

/// For those whose gradients are too large for the reference's numbers.
fn every_parameter_gets_a_gradient(net: &Net, row: &Row) -> Check {
    train_without_chance(&net.model);
    let gradients = (net.loss)(&row.input(DType::F32)?, &row.labels()?)?.backward()?;
    for (name, parameter) in net.model.named_parameters() {
        let gradient = gradients.get(&parameter.tensor()).ok_or_else(|| format!("no gradient reaches {name}"))?;
        let largest = gradient.abs().max(..)?.item::<f32>()?;
        if gradient.shape() != parameter.shape() || !largest.is_finite() {
            return Err(format!("the gradient of {name} has shape {:?} and reaches {largest}", gradient.shape()).into());
        }
    }
    Ok(())
}

/// Another network gives the same logits, bit for bit, with the state that this one saved, and with
/// any number of threads.
fn saved_and_loaded_is_the_same(name: &str, net: &Net, row: &Row, logits: &Tensor) -> Check {
    let mut state = net.model.state_dict();
    if row.number("parameters") as usize <= LARGEST_FILE {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("model.safetensors");
        net.model.save(&path)?;
        state = StateDict::load(&path)?;
    }
    let other = Net::new(name, row.classes())?;
    other.model.load_state_dict(&state)?;
    other.model.eval();
    let logits = logits.to_vec::<f32>()?;
    for threads in [1, 4] {
        // Other tests may run with that many too: their results do not depend on it.
        convnet::set_num_threads(threads)?;
        let again = no_grad(|| other.model.forward(&row.input(DType::F32)?).map_err(Box::<dyn Error>::from))?;
        if again.to_vec::<f32>()? != logits {
            return Err(format!("other logits after saving and loading, with {threads} threads").into());
        }
    }
    Ok(convnet::set_num_threads(0)?)
}

#[test]
fn every_model_computes_what_the_reference_does_and_keeps_it_through_saving() {
    each(|name, row| {
        let net = Net::filled(name, row, DType::F32)?;
        let logits = logits_agree(&net, row, DType::F32)?;
        saved_and_loaded_is_the_same(name, &net, row, &logits)?;
        if row.0["loss"].is_null() {
            return every_parameter_gets_a_gradient(&net, row);
        }
        training_agrees(&net, row, DType::F32)?;
        if row.0["f64"] == true {
            let net = Net::filled(name, row, DType::F64)?;
            logits_agree(&net, row, DType::F64)?;
            training_agrees(&net, row, DType::F64)?;
        }
        Ok(())
    });
}

/// Compressed twice: see `fixtures/pth.py`.
fn unpacked(name: &str) -> Check<Vec<u8>> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights").join(format!("{name}.pth.gz"));
    let mut bytes = vec![];
    GzDecoder::new(GzDecoder::new(std::fs::File::open(path)?)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn checkpoints_that_torch_saved_of_torchvisions_networks_load_and_give_pytorchs_logits() {
    let fixture: BTreeMap<String, Value> = serde_json::from_str(include_str!("fixtures/weights/pth.json")).expect("pth.json is JSON");
    assert!(fixture.keys().eq(["densenet121", "googlenet", "mobilenet_v3_small", "resnet18"]));
    let dir = tempfile::tempdir().unwrap();
    let image = tensor(&[1, 3, 96, 96], |i| (7919 * i % 2003) as f64 / 1001.0 - 1.0);
    let check = |name: &str, row: &Value| -> Check {
        let path = dir.path().join(format!("{name}.pth"));
        std::fs::write(&path, unpacked(name)?)?;
        let model = models::create(name, 1000)?;
        model.load_state_dict(&weights::load(&path)?)?;
        std::fs::remove_file(&path)?;
        model.eval();
        let found = values(&no_grad(|| model.forward(&image))?)?;
        let expected = row["logits"].as_array().expect("logits");
        assert_eq!((found.len(), expected.len()), (1000, 40));
        let spread = row["spread"].as_f64().expect("a number");
        for (i, expected) in expected.iter().enumerate() {
            close(&format!("logit {}", 25 * i), found[25 * i], expected.as_f64().expect("a number"), spread, 1e-4)?;
        }
        Ok(())
    };
    let failures: Vec<String> =
        fixture.iter().filter_map(|(name, row)| check(name, row).err().map(|error| format!("{name}: {error}"))).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
