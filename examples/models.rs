//! Prints the registered architectures: input, parameters, multiply-adds for one input, and the
//! paper.
//!
//! ```sh
//! cargo run --release --example models            # all of them
//! cargo run --release --example models -- resnet  # those whose name contains a word
//! ```

use std::error::Error;
use std::io::{self, Write};

use convnet::models;

fn main() -> Result<(), Box<dyn Error>> {
    let word = std::env::args().nth(1).unwrap_or_default();
    match print(&word, io::stdout().lock()) {
        // A pipe that the reader closed, as `head` does, is no error.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) => Ok(()),
        result => result,
    }
}

fn print(word: &str, mut out: impl Write) -> Result<(), Box<dyn Error>> {
    let found: Vec<_> = models::all().iter().filter(|model| model.name.contains(word)).collect();
    if found.is_empty() {
        return Err(format!("no model's name contains `{word}`").into());
    }
    writeln!(out, "{:<20}{:<12}{:>8}{:>14}{:>16}  paper", "name", "input", "classes", "parameters", "multiply-adds")?;
    for model in found {
        let input = model.input.map(|size| size.to_string()).join("×");
        let [parameters, multiply_adds] = [model.parameters() as f64, model.multiply_adds()? as f64].map(|n| n / 1e6);
        writeln!(out, "{:<20}{input:<12}{:>8}{parameters:>12.2} M{multiply_adds:>14.1} M  {}", model.name, model.classes, model.paper)?;
    }
    Ok(())
}
