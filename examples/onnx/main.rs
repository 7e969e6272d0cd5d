//! Networks from and to ONNX files.
//!
//! ```sh
//! cargo run --release --features onnx --example onnx -- export resnet50 --weights resnet50.pth resnet50.onnx
//! cargo run --release --features onnx --example onnx -- table resnet50.onnx
//! cargo run --release --features onnx --example onnx -- weights resnet50.onnx resnet50.safetensors
//! cargo run --release --features onnx --example onnx -- compare resnet50.onnx arrays.npz
//! cargo run --release --features onnx --example onnx -- test onnx/backend/test/data/node
//! ```

mod export;
#[path = "../common/program.rs"]
mod program;
mod read;
#[path = "../common/weights_file.rs"]
mod weights_file;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use convnet::nn::ModuleExt;
use convnet::{onnx, weights};

#[derive(Parser)]
#[command(about = "Networks from and to ONNX files")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes a registered network as an ONNX file.
    Export(export::ExportOptions),
    /// Prints what a file holds: inputs, outputs, metadata, and a line for each operator.
    Table { file: PathBuf },
    /// Saves the parameters of a file's network as .safetensors or .npz.
    Weights { file: PathBuf, out: PathBuf },
    /// Runs a file's network on the arrays x (or x0, x1, …) of an .npz file and compares the
    /// results with y0, y1, …
    Compare { file: PathBuf, arrays: PathBuf },
    /// Runs ONNX's own tests: folders with model.onnx and test_data_set_0/input_0.pb, …
    Test {
        folder: PathBuf,
        /// Only tests whose name begins with one of these.
        names: Vec<String>,
    },
}

fn main() -> ExitCode {
    program::run(|| run(Options::parse().command))
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Export(options) => export::export(&options)?,
        Command::Table { file } => read::table(&onnx::import(file)?),
        Command::Weights { file, out } => weights::save(out, &onnx::import(file)?.state_dict())?,
        Command::Compare { file, arrays } => read::compare(&file, &arrays)?,
        Command::Test { folder, names } => read::test(&folder, &names)?,
    }
    Ok(())
}
