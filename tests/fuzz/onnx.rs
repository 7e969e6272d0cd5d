//! ONNX files.

use std::cell::Cell;
use std::fs;
use std::path::Path;

use convnet::nn::ModuleExt;
use convnet::onnx::Network;
use convnet::{Tensor, no_grad, onnx, weights};

use crate::message::Message;
use crate::mutate::{self, LONGEST, measured};

/// Ten times what the worst of 300 files took.
const PER_BYTE: usize = 750;

/// What tensors may take: constants that a file computes, for which the reader's own limit is
/// 64 MiB, and those of runs.
const TENSORS: usize = 128 << 20;

/// Small files: ONNX's own tests of operators, and an exported network.
fn seeds() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.onnx");
    onnx::export(&convnet::models::lenet5(2), &[[1, 1, 28, 28]], &path).unwrap();
    let archive = weights::load(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/onnx/node_tests.npz")).unwrap();
    let models = archive.iter().filter(|(name, _)| name.ends_with("/model")).map(|(_, model)| model.to_vec::<u8>().unwrap());
    models.chain([fs::read(path).unwrap()]).collect()
}

fn import(path: &Path, file: &[u8]) -> Option<Network> {
    fs::write(path, file).unwrap();
    match onnx::import(path) {
        Ok(network) => {
            assert!(network.preprocessing().is_none() && network.classes().is_none());
            assert!(network.to_string().contains("operator"));
            Some(network)
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("file") && message.chars().count() < 500, "{message}");
            None
        }
    }
}

/// Runs a network on ones, on shapes alone first. Returns whether it gives outputs.
fn runs(network: &Network) -> bool {
    let mut inputs = vec![];
    for info in network.inputs() {
        let shape: Vec<usize> = info.shape.iter().flatten().map(|size| size.unwrap_or(2)).collect();
        if shape.iter().fold(1usize, |all, &size| all.saturating_mul(size.max(1))) > 1 << 16 {
            return false;
        }
        let dtype = info.element.map_or(convnet::DType::F32, onnx::ElementType::dtype);
        inputs.push(Tensor::full(shape, 1.0, dtype));
    }
    if let [x] = inputs.as_slice() {
        let (summary, time, _) = measured(|| network.summary_of(x.shape(), x.dtype()));
        assert!(time < LONGEST, "the shapes take {time:?}");
        if summary.expect("shapes are computed without a panic").is_err() {
            return false;
        }
    }
    let (outputs, time, _) = measured(|| no_grad(|| network.run(&inputs.iter().collect::<Vec<_>>())));
    assert!(time < LONGEST, "a run takes {time:?}");
    match outputs.expect("a run does not panic") {
        Ok(outputs) => outputs.len() == network.outputs().len(),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

#[test]
fn a_mutated_onnx_file_is_a_network_or_an_error_in_proportion() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    mutate::run("ONNX", &seeds(), PER_BYTE, |_| {}, |file| import(&path, file).is_some());
}

#[test]
fn networks_with_other_fields_are_errors_or_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let seeds: Vec<Message> = seeds().iter().map(|seed| Message::model(seed)).collect();
    for seed in &seeds {
        assert!(import(&path, &seed.write()).is_some(), "a file that is written again is a network");
    }
    let make = |random: &mut convnet::data::Rng| {
        let mut file = seeds[random.below(seeds.len())].clone();
        (0..=random.below(3)).for_each(|_| file.mutate(&seeds, random));
        file.write()
    };
    let (read, run) = (Cell::new(0), Cell::new(0));
    mutate::with_limit(TENSORS, || {
        mutate::run_made("ONNX fields", PER_BYTE, make, |file| {
            let network = import(&path, file);
            read.set(read.get() + usize::from(network.is_some()));
            run.set(run.get() + usize::from(network.as_ref().is_some_and(runs)));
            network.is_some()
        });
    });
    println!("{} of {} networks run", run.get(), read.get());
    // Otherwise mutations would test the first checks alone.
    let (files, read, run) = (mutate::inputs(), read.get(), run.get());
    assert!(3 * read > files && 10 * run > files, "of {files} files {read} are networks, and {run} of these run");
}
