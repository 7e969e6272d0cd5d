//! ONNX files.

use std::fs;

use convnet::{onnx, weights};

use crate::mutate;

/// Ten times what the worst of 300 files took.
const PER_BYTE: usize = 750;

/// Small files: ONNX's own tests of operators, and an exported network.
fn seeds() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    onnx::export(&convnet::models::lenet5(2), &[[1, 1, 28, 28]], &path).unwrap();
    let archive = weights::load(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/onnx/node_tests.npz")).unwrap();
    let models = archive.iter().filter(|(name, _)| name.ends_with("/model")).map(|(_, model)| model.to_vec::<u8>().unwrap());
    models.chain([fs::read(path).unwrap()]).collect()
}

#[test]
fn a_mutated_onnx_file_is_a_network_or_an_error_in_proportion() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let read = |file: &[u8]| {
        fs::write(&path, file).unwrap();
        match onnx::import(&path) {
            Ok(network) => {
                assert!(network.preprocessing().is_none() && network.classes().is_none());
                assert!(network.to_string().contains("operator"));
                true
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains("file") && message.chars().count() < 500, "{message}");
                false
            }
        }
    };
    mutate::run("ONNX", &seeds(), PER_BYTE, |_| {}, read);
}
