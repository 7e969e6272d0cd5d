//! What the examples for training have in common: options, data, models.
#![allow(dead_code)] // Each example uses a part.

pub mod augment;
pub mod config;
pub mod data;
pub mod list;
pub mod loss;
pub mod optimizer;
pub mod program;
pub mod schedule;
pub mod transforms;
pub mod weights_file;

use std::process::ExitCode;

/// Runs a program for training and prints its error.
pub fn run(program: impl FnOnce() -> convnet::Result<()>) -> ExitCode {
    program::run(|| program().map_err(with_hint))
}

/// Returns the message of an error and, if a sample is its cause, which options help.
fn with_hint(error: convnet::Error) -> String {
    if is_about_a_sample(&error) {
        format!("{error}\n`--broken skip` leaves out pictures that cannot be read, `--broken replace` takes others instead")
    } else {
        error.to_string()
    }
}

/// Returns whether a sample is the cause of an error.
fn is_about_a_sample(error: &convnet::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        // A source in a box is found as the box.
        let known = error.downcast_ref::<convnet::Error>().or_else(|| error.downcast_ref::<Box<convnet::Error>>().map(|error| &**error));
        if let Some(convnet::Error::Sample { .. }) = known {
            return true;
        }
        next = error.source();
    }
    false
}
