//! Prints the registered architectures: input, parameters, multiply-adds for one input, and the paper.
//!
//! ```sh
//! cargo run --release --example models            # all of them
//! cargo run --release --example models -- resnet  # those whose name contains a word
//! ```

use convnet::{Result, models};

fn main() -> Result<()> {
    let word = std::env::args().nth(1).unwrap_or_default();
    println!("{:<20}{:<12}{:>8}{:>14}{:>16}  paper", "name", "input", "classes", "parameters", "multiply-adds");
    for model in models::all().iter().filter(|model| model.name.contains(&word)) {
        let input = model.input.map(|size| size.to_string()).join("×");
        let [parameters, multiply_adds] = [model.parameters() as f64, model.multiply_adds()? as f64].map(|n| n / 1e6);
        println!("{:<20}{input:<12}{:>8}{parameters:>12.2} M{multiply_adds:>14.1} M  {}", model.name, model.classes, model.paper);
    }
    Ok(())
}
