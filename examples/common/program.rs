//! How the examples end and print.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

/// Runs a program and prints its error.
pub fn run<E: Display>(program: impl FnOnce() -> Result<(), E>) -> ExitCode {
    match program() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a line. A pipe that the reader closed, as `head` does, is no reason to stop.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
