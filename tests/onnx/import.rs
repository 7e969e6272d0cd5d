//! Import of ONNX files: ONNX's own tests of operators.

use std::collections::BTreeSet;
use std::path::Path;

use convnet::nn::StateDict;
use convnet::{DType, Tensor, no_grad, onnx, weights};

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap()
}

/// Runs one test of the archive; the error is what is wrong.
fn run(archive: &StateDict, name: &str, folder: &Path) -> Result<(), String> {
    let listed = |kind: &str| -> Vec<&Tensor> { (0..).map_while(|i| archive.get(&format!("{name}/{kind}{i}"))).collect() };
    let path = folder.join("model.onnx");
    std::fs::write(&path, archive.get(&format!("{name}/model")).unwrap().to_vec::<u8>().unwrap()).unwrap();
    let network = onnx::import(&path).map_err(|error| error.to_string())?;
    let found = no_grad(|| network.run(&listed("x"))).map_err(|error| error.to_string())?;
    let expected = listed("y");
    if found.len() != expected.len() {
        return Err(format!("expected {} outputs, got {}", expected.len(), found.len()));
    }
    for (found, expected) in found.iter().zip(expected) {
        if found.shape() != expected.shape() {
            return Err(format!("expected shape {:?}, got {:?}", expected.shape(), found.shape()));
        }
        // The tolerances of ONNX's own runner: 10⁻³ of each number, and 10⁻⁷.
        let close = |a: f64, b: f64| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-7 + 1e-3 * b.abs();
        if let Some((a, b)) = numbers(found).into_iter().zip(numbers(expected)).find(|&(a, b)| !close(a, b)) {
            return Err(format!("expected {b}, got {a}"));
        }
    }
    Ok(())
}

#[test]
fn operators_give_the_results_of_onnx_own_tests() {
    let folder = tempfile::tempdir().unwrap();
    let archive = weights::load(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/onnx/node_tests.npz")).unwrap();
    let names: BTreeSet<&str> = archive.iter().filter_map(|(name, _)| name.strip_suffix("/model")).collect();
    assert!(names.len() > 200, "{} tests", names.len());
    let failures: Vec<String> =
        names.iter().filter_map(|name| run(&archive, name, folder.path()).err().map(|why| format!("{name}: {why}"))).collect();
    assert!(failures.is_empty(), "{} of {} fail:\n{}", failures.len(), names.len(), failures.join("\n"));
}
