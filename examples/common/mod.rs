//! What the examples for training have in common: options, data, models.
#![allow(dead_code)] // Each example uses a part.

pub mod augment;
pub mod config;
pub mod data;
pub mod model;
pub mod optimizer;
pub mod schedule;

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

/// Runs a program and prints its error.
pub fn run(program: impl FnOnce() -> convnet::Result<()>) -> ExitCode {
    match program() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a line. A closed pipe at the other end is no reason to stop.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
