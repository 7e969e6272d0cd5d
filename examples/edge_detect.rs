//! Edge detection by convolution, with a kernel that is given, then with the same kernel learned.
//!
//! A kernel that subtracts the pixel on the right from the one on the left answers where the
//! brightness changes from column to column: at vertical edges. Gradient descent finds the same
//! nine numbers from nothing but a picture and its edges.
//!
//! ```sh
//! cargo run --release --example edge_detect            # pictures go to out/
//! cargo run --release --example edge_detect -- DIR
//! ```

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use convnet::data::Image;
use convnet::nn::Parameter;
use convnet::ops::Conv2dOptions;
use convnet::optim::{Optimizer, Sgd};
use convnet::{Result, Tensor, no_grad};

const HEIGHT: usize = 120;
const WIDTH: usize = 160;
const SAME_SIZE: Conv2dOptions = Conv2dOptions { padding: [1, 1], stride: [1, 1], dilation: [1, 1], groups: 1 };
const STEPS: usize = 400;

/// Find vertical edges with a given convolution kernel, then learn the kernel.
#[derive(Parser)]
struct Options {
    /// Directory for the pictures
    #[arg(default_value = "out")]
    dir: PathBuf,
}

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let options = Options::parse();
    convnet::manual_seed(0);
    let image = picture()?;

    // Sobel's kernel: a difference along the row, smoothed along the column.
    let sobel = Tensor::from_vec(vec![1.0f32, 0.0, -1.0, 2.0, 0.0, -2.0, 1.0, 0.0, -1.0], [1, 1, 3, 3])?;
    let edges = image.conv2d(&sobel, None, SAME_SIZE)?;
    println!("given kernel:\n{}", table(&sobel)?);

    let learned = learn(&image, &edges)?;
    println!("learned kernel after {STEPS} steps:\n{}", table(&learned)?);
    let difference: f32 = (&learned - &sobel).abs().max(..)?.item()?;
    println!("largest difference: {difference:.1e}");

    fs::create_dir_all(&options.dir).map_err(|error| format!("{}: {error}", options.dir.display()))?;
    let relearned = no_grad(|| image.conv2d(&learned, None, SAME_SIZE))?;
    // No edge is grey; from dark to bright is black, from bright to dark is white.
    let shown = |edges: &Tensor| edges * 0.125 + 0.5;
    for (name, image) in [("picture.png", &image), ("edges.png", &shown(&edges)), ("edges_learned.png", &shown(&relearned))] {
        let path = options.dir.join(name);
        Image::from_tensor(&image.squeeze(0)?)?.save(&path)?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// Finds the kernel that turns `image` into `edges`, by gradient descent from random numbers.
fn learn(image: &Tensor, edges: &Tensor) -> Result<Tensor> {
    let kernel = Parameter::new(&Tensor::randn([1, 1, 3, 3]) * 0.1);
    let mut optimizer = Sgd::new([kernel.clone()], 0.3).momentum(0.95);
    for step in 0..STEPS {
        let loss = image.conv2d(&kernel.tensor(), None, SAME_SIZE)?.mse_loss(edges)?;
        optimizer.step(&loss.backward()?)?;
        if step % 100 == 0 {
            println!("step {step:>3}: loss {:.2e}", loss.item::<f32>()?);
        }
    }
    Ok(kernel.tensor().detach())
}

/// A disc and a box on a sky that brightens downwards, with some grain: `[1, 1, HEIGHT, WIDTH]` in
/// `[0, 1]`.
///
/// The grain matters to learning: on smooth areas, neighbouring pixels are alike, and many kernels
/// give the same answer.
fn picture() -> Result<Tensor> {
    let pixel = |y: usize, x: usize| {
        let (dy, dx) = (y as f32 - 52.0, x as f32 - 50.0);
        let in_disc = dy * dy + dx * dx < 34.0 * 34.0;
        let in_box = (40..100).contains(&y) && (100..140).contains(&x);
        let sky = 0.3 + 0.3 * y as f32 / HEIGHT as f32;
        if in_disc {
            0.85
        } else if in_box {
            0.15
        } else {
            sky
        }
    };
    let smooth: Vec<f32> = (0..HEIGHT * WIDTH).map(|i| pixel(i / WIDTH, i % WIDTH)).collect();
    let grain = &Tensor::randn([1, 1, HEIGHT, WIDTH]) * 0.05;
    (&Tensor::from_vec(smooth, [1, 1, HEIGHT, WIDTH])? + &grain).clamp(0.0, 1.0)
}

fn table(kernel: &Tensor) -> Result<String> {
    let values = kernel.to_vec::<f32>()?;
    Ok(values.chunks(3).map(|row| format!("  {:>7.3} {:>7.3} {:>7.3}\n", row[0], row[1], row[2])).collect())
}
