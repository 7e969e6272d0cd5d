//! Reads ONNX files: the table of a graph, comparison with stored results, ONNX's own tests.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use convnet::nn::Module;
use convnet::{DType, Tensor, no_grad, onnx, weights};

use crate::program::say;

type Fallible<T> = Result<T, Box<dyn Error>>;

pub fn table(network: &onnx::Network) {
    say(format_args!("operators of version {}, written by {}", network.opset(), network.producer()));
    let line = |kind: &str, info: &onnx::ValueInfo| {
        let sizes = |shape: &Vec<Option<usize>>| {
            let sizes: Vec<String> = shape.iter().map(|size| size.map_or("?".into(), |size| size.to_string())).collect();
            format!("[{}]", sizes.join(", "))
        };
        let element = info.element.map_or("any type", onnx::ElementType::name);
        say(format_args!("{kind} {}: {element} {}", info.name, info.shape.as_ref().map_or("of any shape".into(), sizes)));
    };
    network.inputs().for_each(|info| line("input", info));
    network.outputs().for_each(|info| line("output", info));
    network.metadata().iter().for_each(|(name, value)| say(format_args!("{name}: {value}")));
    say(format_args!("{} parameters\n\n{network}", network.num_parameters()));
}

/// Returns the largest difference, and the spread of the expected values: greatest minus least.
fn difference(found: &Tensor, expected: &Tensor) -> Fallible<(f64, f64)> {
    if found.shape() != expected.shape() {
        return Err(format!("expected shape {:?}, got {:?}", expected.shape(), found.shape()).into());
    }
    let (found, expected) = (found.to_dtype(DType::F64)?.to_vec::<f64>()?, expected.to_dtype(DType::F64)?.to_vec::<f64>()?);
    let spread = expected.iter().copied().reduce(f64::max).unwrap_or(0.0) - expected.iter().copied().reduce(f64::min).unwrap_or(0.0);
    let distance = |(&a, &b): (&f64, &f64)| if a == b || a.is_nan() && b.is_nan() { 0.0 } else { (a - b).abs() };
    // A difference that is not a number is larger than any other.
    let largest = found.iter().zip(&expected).map(distance).fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
    Ok((largest, spread))
}

pub fn compare(file: &Path, arrays: &Path) -> Fallible<()> {
    let (network, arrays) = (onnx::import(file)?, weights::load(arrays)?);
    let inputs: Vec<&Tensor> =
        (0..).map_while(|i| arrays.get(&format!("x{i}")).or_else(|| if i == 0 { arrays.get("x") } else { None })).collect();
    // An exporter may have written one image without its batch.
    let rank = network.inputs().next().and_then(|info| info.shape.as_ref().map(Vec::len));
    let alone = if rank == Some(3) && inputs.len() == 1 && inputs[0].ndim() == 4 { Some(inputs[0].squeeze(0)?) } else { None };
    let inputs = alone.as_ref().map_or(inputs, |image| vec![image]);
    for (i, found) in no_grad(|| network.run(&inputs))?.iter().enumerate() {
        let expected = arrays.get(&format!("y{i}")).ok_or_else(|| format!("the arrays have no y{i}"))?;
        let (largest, spread) = difference(found, expected)?;
        say(format_args!("{} output {i} {:?}: largest difference {largest:.2e}, spread {spread:.2e}", file.display(), found.shape()));
    }
    Ok(())
}

/// Runs each test of a folder, and prints a line for each that does not pass.
pub fn test(folder: &Path, names: &[String]) -> Fallible<()> {
    let mut tests: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    tests.sort();
    let (mut passed, mut all) = (0, 0);
    for path in tests {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_string();
        let wanted = names.is_empty() || names.iter().any(|prefix| name.trim_start_matches("test_").starts_with(prefix));
        if !wanted || !path.join("model.onnx").is_file() {
            continue;
        }
        all += 1;
        match test_one(&path) {
            Ok(()) => passed += 1,
            Err(error) => say(format_args!("{name}: {error}")),
        }
    }
    say(format_args!("{passed} of {all} tests passed"));
    Ok(())
}

fn test_one(path: &Path) -> Fallible<()> {
    let network = onnx::import(path.join("model.onnx"))?;
    for set in (0..).map(|i| path.join(format!("test_data_set_{i}"))).take_while(|set| set.is_dir()) {
        let read = |kind: &str, count: usize| -> convnet::Result<Vec<Tensor>> {
            (0..count).map(|i| onnx::read_tensor(set.join(format!("{kind}_{i}.pb")))).collect()
        };
        let inputs = read("input", network.inputs().len()).map_err(|error| format!("test data: {error}"))?;
        let expected: Vec<Tensor> =
            read("output", network.outputs().len()).map_err(|error: convnet::Error| format!("test data: {error}"))?;
        let found = no_grad(|| network.run(&inputs.iter().collect::<Vec<_>>()))?;
        for (found, expected) in found.iter().zip(&expected) {
            let (largest, spread) = difference(found, expected)?;
            // ONNX's own runner allows a relative error of 10⁻³ and an absolute one of 10⁻⁷.
            let greatest = if expected.numel() == 0 { 0.0 } else { expected.to_dtype(DType::F64)?.abs().max(..)?.item::<f64>()? };
            let allowed = 1e-7 + 1e-3 * if greatest.is_finite() { greatest } else { 1.0 };
            if largest > allowed {
                return Err(format!("differs by {largest:.2e}, spread {spread:.2e}").into());
            }
        }
    }
    Ok(())
}
