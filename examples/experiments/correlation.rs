//! What a convolution layer computes, in numbers small enough to check by hand.
//!
//! A convolution layer slides a kernel over a picture; at each place it multiplies what lies below,
//! number by number, and adds. The worked example of *Dive into Deep Learning* (Zhang et al.,
//! chapter 7.2) starts with 0·0 + 1·1 + 3·2 + 4·3 = 19. What mathematics calls convolution flips
//! the kernel first; all libraries leave that out, since a kernel can be learned flipped as well.
//!
//! The table compares the crate's operations with numbers that are computed by hand or taken from
//! a source: padding, stride, several channels, 1×1 kernels, pooling, the edge between bright and
//! dark halves (Ng's course), and a detector of curves that answers 6600 to its curve and 0 to
//! another (Deshpande's guide). Look at the picture: original, mean, identity, sharpened, vertical
//! edges, horizontal edges.

use convnet::data::{Image, Resize};
use convnet::ops::{Conv2dOptions, Pool2dOptions};
use convnet::{Result, Tensor};

use super::lab::{Experiment, Lab, ensure, say, table};

pub const EXPERIMENT: Experiment =
    Experiment { name: "correlation", claim: "a convolution layer is a cross-correlation: the worked 2×2 example starts with 19", run };

fn run(lab: &Lab) -> Result<String> {
    let checks = worked_examples()?;
    let mut rows = vec![["operation", "by hand", "by the crate"].map(String::from)];
    rows.extend(checks.iter().map(|(name, by_hand, computed)| [name.to_string(), numbers(by_hand), numbers(computed)]));
    table(&rows);
    for (name, by_hand, computed) in &checks {
        ensure(by_hand == computed, format_args!("{name}: expected {by_hand:?}, got {computed:?}"))?;
    }

    let photograph = photograph(lab)?;
    let mean = photograph.conv2d(&(Tensor::ones([1, 1, 9, 9]) * (1.0 / 81.0)), None, same(4))?;
    let identity = filter(&photograph, [0, 0, 0, 0, 1, 0, 0, 0, 0])?;
    let sharpened = filter(&photograph, [0, -1, 0, -1, 5, -1, 0, -1, 0])?;
    let vertical = filter(&photograph, [1, 0, -1, 2, 0, -2, 1, 0, -1])?;
    let horizontal = filter(&photograph, [1, 2, 1, 0, 0, 0, -1, -2, -1])?;
    say("");
    let mut rows = vec![["kernel on the photograph", "mean difference of neighbours", "against the original"].map(String::from)];
    let before = roughness(&photograph)?;
    for (name, picture) in [("original", &photograph), ("mean of 9×9", &mean), ("identity", &identity), ("sharpening", &sharpened)] {
        let after = roughness(picture)?;
        rows.push([name.to_string(), format!("{after:.4}"), format!("{:.2}", after / before)]);
    }
    table(&rows);
    let blurred = roughness(&mean)? / before;
    ensure(identity.to_vec::<f32>()? == photograph.to_vec::<f32>()?, "the identity kernel does not copy")?;
    ensure(blurred < 0.7, format_args!("the mean kernel leaves {blurred:.2} of the differences between neighbours"))?;

    // No edge is grey.
    let edges = |map: &Tensor| map * 0.25 + 0.5;
    let pictures = [&photograph, &mean, &identity, &sharpened, &edges(&vertical), &edges(&horizontal)];
    let pictures = pictures.map(|picture| Ok(Image::from_tensor(&picture.clamp(0.0, 1.0)?.squeeze(0)?)?.to_bytes()));
    lab.save("correlation.png", &Image::grid(&pictures.into_iter().collect::<Result<Vec<_>>>()?, 3, 4)?)?;
    Ok(format!(
        "first value 19; {} worked examples equal; the 9×9 mean leaves {:.0} % of the differences between neighbours",
        checks.len(),
        100.0 * blurred
    ))
}

type Check = (&'static str, Vec<f32>, Vec<f32>);

/// Operations with their results by hand and by the crate, row by row.
fn worked_examples() -> Result<Vec<Check>> {
    let plain = Conv2dOptions::default();
    let x = grid(&[0, 1, 2, 3, 4, 5, 6, 7, 8], 1, 3)?;
    let kernel = grid(&[0, 1, 2, 3], 1, 2)?;
    let flipped = kernel.flip([2, 3])?;
    // The same numbers raised by 1, as a second channel.
    let two = Tensor::cat(&[&x, &(&x + 1.0)], 1)?;
    let two_kernels = Tensor::cat(&[&kernel, &(&kernel + 1.0)], 1)?;
    let mix = Tensor::from_vec(vec![1f32, 10.0], [1, 2, 1, 1])?;
    let half_bright = grid(&[10, 10, 10, 0, 0, 0].repeat(6), 1, 6)?;
    let vertical = grid(&[1, 0, -1, 1, 0, -1, 1, 0, -1], 1, 3)?;
    let horizontal = grid(&[1, 1, 1, 0, 0, 0, -1, -1, -1], 1, 3)?;
    let convolved = |x: &Tensor, kernel: &Tensor, options: Conv2dOptions| x.conv2d(kernel, None, options)?.to_vec::<f32>();
    let strided = Conv2dOptions { padding: [1, 1], stride: [3, 2], ..plain };
    let pool = Pool2dOptions { stride: [1, 1], ..Pool2dOptions::default() };

    Ok(vec![
        ("2×2 kernel on 3×3", vec![19.0, 25.0, 37.0, 43.0], convolved(&x, &kernel, plain)?),
        ("kernel flipped: convolution", vec![5.0, 11.0, 23.0, 29.0], convolved(&x, &flipped, plain)?),
        (
            "padding 1: 4×4 values",
            [0.0, 3.0, 8.0, 4.0, 9.0, 19.0, 25.0, 10.0, 21.0, 37.0, 43.0, 16.0, 6.0, 7.0, 8.0, 0.0].to_vec(),
            convolved(&x, &kernel, Conv2dOptions { padding: [1, 1], ..plain })?,
        ),
        ("padding 1, stride 3 and 2", vec![0.0, 8.0, 6.0, 8.0], convolved(&x, &kernel, strided)?),
        ("two channels", vec![56.0, 72.0, 104.0, 120.0], convolved(&two, &two_kernels, plain)?),
        ("1×1 kernel: 1·a + 10·(a + 1)", (0..9).map(|a| (11 * a + 10) as f32).collect(), convolved(&two, &mix, plain)?),
        ("largest of 2×2", vec![4.0, 5.0, 7.0, 8.0], x.max_pool2d(2, pool)?.to_vec()?),
        ("mean of 2×2", vec![2.0, 3.0, 5.0, 6.0], x.avg_pool2d(2, pool)?.to_vec()?),
        ("vertical edge, 6×6 half bright", [0.0, 30.0, 30.0, 0.0].repeat(4), convolved(&half_bright, &vertical, plain)?),
        ("horizontal edge, the same", vec![0.0; 16], convolved(&half_bright, &horizontal, plain)?),
        ("curve detector on its curve", vec![6600.0], convolved(&grid(&CURVE, 1, 7)?, &grid(&DETECTOR, 1, 7)?, plain)?),
        ("curve detector on another", vec![0.0], convolved(&grid(&OTHER, 1, 7)?, &grid(&DETECTOR, 1, 7)?, plain)?),
    ])
}

/// A kernel of 7×7 that answers a line which bends to the right at its upper end.
#[rustfmt::skip]
const DETECTOR: [i32; 49] = [
    0, 0, 0,  0,  0, 30, 0,
    0, 0, 0,  0, 30,  0, 0,
    0, 0, 0, 30,  0,  0, 0,
    0, 0, 0, 30,  0,  0, 0,
    0, 0, 0, 30,  0,  0, 0,
    0, 0, 0, 30,  0,  0, 0,
    0, 0, 0,  0,  0,  0, 0,
];

/// Such a line, in a drawing of a mouse: its back.
#[rustfmt::skip]
const CURVE: [i32; 49] = [
    0, 0, 0,  0,  0,  0, 30,
    0, 0, 0,  0, 50, 50, 50,
    0, 0, 0, 20, 50,  0,  0,
    0, 0, 0, 50, 50,  0,  0,
    0, 0, 0, 50, 50,  0,  0,
    0, 0, 0, 50, 50,  0,  0,
    0, 0, 0, 50, 50,  0,  0,
];

/// Lines of another kind: the mouse's ear.
#[rustfmt::skip]
const OTHER: [i32; 49] = [
     0,  0,  0,  0, 0, 0, 0,
     0, 40,  0,  0, 0, 0, 0,
    40,  0, 40,  0, 0, 0, 0,
    40, 20,  0,  0, 0, 0, 0,
     0, 50,  0,  0, 0, 0, 0,
     0,  0, 50,  0, 0, 0, 0,
    25, 25,  0, 50, 0, 0, 0,
];

/// Returns numbers as a tensor `[1, channels, side, side]`.
fn grid(values: &[i32], channels: usize, side: usize) -> Result<Tensor> {
    Tensor::from_vec(values.iter().map(|&value| value as f32).collect(), [1, channels, side, side])
}

/// Options that keep the size of a picture.
fn same(padding: usize) -> Conv2dOptions {
    Conv2dOptions { padding: [padding, padding], ..Conv2dOptions::default() }
}

fn filter(picture: &Tensor, kernel: [i32; 9]) -> Result<Tensor> {
    picture.conv2d(&grid(&kernel, 1, 3)?, None, same(1))
}

/// Returns the mean difference between a pixel and its right neighbour, without the border.
fn roughness(picture: &Tensor) -> Result<f64> {
    let [height, width] = [picture.shape()[2] - 10, picture.shape()[3] - 10];
    let inside = picture.narrow(2, 5, height)?.narrow(3, 5, width)?;
    let difference = &inside.narrow(3, 1, width - 1)? - &inside.narrow(3, 0, width - 1)?;
    Ok(f64::from(difference.abs().mean(..)?.item::<f32>()?))
}

/// Returns a photograph in grey, 160×160, from 0 to 1; without data, stripes and discs.
fn photograph(lab: &Lab) -> Result<Tensor> {
    const SIDE: usize = 160;
    let Some(folder) = lab.data("pictures") else {
        let pixel = |i: usize| {
            let (x, y) = ((i % SIDE) as f32, (i / SIDE) as f32);
            let disc = (x - 60.0).hypot(y - 70.0) < 40.0 || (x - 120.0).hypot(y - 110.0) < 25.0;
            let stripes = 0.15 * ((x + 0.4 * y) / 3.0).sin();
            if disc { 0.75 + stripes } else { 0.3 + 0.1 * y / SIDE as f32 }
        };
        return Tensor::from_vec((0..SIDE * SIDE).map(pixel).collect(), [1, 1, SIDE, SIDE]);
    };
    let mut image = Image::open(folder.join("camera.png"))?;
    image.apply(&Resize::new(SIDE))?;
    let image = image.to_tensor();
    image.mean_keepdim(0)?.unsqueeze(0)
}

/// Returns numbers as text, those after the first six left out.
fn numbers(values: &[f32]) -> String {
    let shown: Vec<String> = values.iter().take(6).map(f32::to_string).collect();
    shown.join(" ") + if values.len() > 6 { " …" } else { "" }
}
