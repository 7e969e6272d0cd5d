//! Exclusive or: the smallest problem that needs a hidden layer.
//!
//! No line separates the inputs whose answer is 1 from the others (Minsky & Papert, 1969), so a
//! linear model does no better than chance; one hidden layer, trained by backpropagation
//! (Rumelhart, Hinton & Williams, 1986), solves it.
//!
//! ```sh
//! cargo run --release --example xor_mlp
//! ```

use convnet::nn::{Linear, Module, Sequential, Tanh};
use convnet::optim::{Adam, Optimizer};
use convnet::{Result, Tensor, no_grad};

fn main() -> Result<()> {
    convnet::manual_seed(0);
    let inputs = Tensor::from_vec(vec![0.0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0], [4, 2])?;
    let targets = Tensor::from_vec(vec![0.0f32, 1.0, 1.0, 0.0], [4, 1])?;

    let linear = Linear::new(2, 1);
    let mlp = Sequential::new().push(Linear::new(2, 8)).push(Tanh).push(Linear::new(8, 1));

    let right = train("linear model", &linear, &inputs, &targets)?;
    println!("{right} of 4 right: a line cannot do it.\n");
    let right = train("one hidden layer of 8", &mlp, &inputs, &targets)?;
    println!("{right} of 4 right.");
    Ok(())
}

/// Trains a model, prints the truth table that it learned, and returns how many of its four rows
/// are right.
fn train(name: &str, model: &impl Module, inputs: &Tensor, targets: &Tensor) -> Result<usize> {
    let mut optimizer = Adam::new(model.parameters(), 0.05);
    let mut last = f32::NAN;
    for _ in 0..500 {
        let loss = model.forward(inputs)?.binary_cross_entropy_with_logits(targets)?;
        optimizer.step(&loss.backward()?)?;
        last = loss.item()?;
    }
    let answers: Vec<f32> = no_grad(|| model.forward(inputs)?.sigmoid()?.to_vec())?;

    println!("{name}: {} parameters, loss {last:.4}", model.num_parameters());
    println!("  a  b  a xor b  learned");
    let mut right = 0;
    for ((input, target), answer) in inputs.to_vec::<f32>()?.chunks(2).zip(targets.to_vec::<f32>()?).zip(answers) {
        println!("  {}  {}  {target:>7}  {answer:>7.3}", input[0], input[1]);
        // An answer near 0.5 counts as wrong.
        right += usize::from((answer - target).abs() < 0.4);
    }
    Ok(right)
}
