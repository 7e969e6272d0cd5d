#![no_main]

use convnet::nn::ModuleExt;
use convnet::onnx::{self, Network};
use convnet::{DType, Tensor, memory, no_grad};
use convnet_fuzz::{explained, read_file, visit};

/// The most elements of an input: runs stay short.
const MOST: usize = 1 << 12;

/// What the tensors of a run may take.
const TENSORS: usize = 128 << 20;

/// Runs the network on ones, on shapes alone first where it has one input.
fn run(network: &Network) {
    let mut inputs = vec![];
    for info in network.inputs() {
        let shape: Vec<usize> = info.shape.iter().flatten().map(|size| size.unwrap_or(2)).collect();
        if shape.iter().fold(1usize, |all, &size| all.saturating_mul(size.max(1))) > MOST {
            return;
        }
        inputs.push(Tensor::full(shape, 1.0, info.element.map_or(DType::F32, onnx::ElementType::dtype)));
    }
    if let [x] = inputs.as_slice()
        && let Err(error) = network.summary_of(x.shape(), x.dtype())
    {
        return explained(&error);
    }
    match no_grad(|| network.run(&inputs.iter().collect::<Vec<_>>())) {
        Ok(outputs) => assert_eq!(outputs.len(), network.outputs().len()),
        Err(error) => explained(&error),
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match read_file(bytes, "onnx", |path| onnx::import(path)) {
    Ok(network) => {
        network.preprocessing();
        network.classes();
        network.state_dict().iter().for_each(|(_, tensor)| visit(tensor));
        memory::set_limit(Some(memory::stats().in_use + TENSORS));
        run(&network);
        memory::set_limit(None);
    }
    Err(error) => explained(&error),
});
