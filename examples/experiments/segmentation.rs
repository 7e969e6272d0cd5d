//! A digit hidden in clutter, pixel by pixel: U-Net and its shortcuts.
//!
//! Ronneberger, Fischer and Brox (*U-Net: Convolutional Networks for Biomedical Image
//! Segmentation*, 2015) let a network that shrinks its maps to see context grow them again, and
//! pass it at each size the maps from before the shrinking: context says what a pixel belongs to,
//! the shortcuts where its borders are.
//!
//! Each scene here has one digit in a field of strokes, which are pieces cut from other digits, so
//! that no pixel says by itself whether it belongs to the digit. Three ways to find it are compared
//! by their IoU, the number of pixels in both the found and the true digit over that of pixels in
//! either: all bright pixels; a U-Net whose shortcuts carry zeros; a U-Net.
//!
//! In the picture, each row has two scenes, in four columns each: the scene, the true digit, the
//! one found without shortcuts and the one found with them. What shortcuts add is the outline.

use convnet::data::{ColorMap, Image};
use convnet::models::{UNet, UNetOptions, unet};
use convnet::prelude::*;

use super::clutter::{BRIGHT, Clutter};
use super::lab::{Experiment, Lab, enlarged, ensure, fit_by, glyphs, percent, predict, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "segmentation",
    claim: "a U-Net separates a digit from strokes like its own, and owes its outline to the shortcuts",
    run,
};

/// A U-Net whose shortcuts carry zeros.
struct WithoutShortcuts {
    net: UNet,
}

impl Module for WithoutShortcuts {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.net.inc.forward(x)?;
        for down in &self.net.downs {
            x = down.forward(&x)?;
        }
        for up in &self.net.ups {
            x = up.forward(&x)?;
        }
        self.net.outc.forward(&x)
    }

    visit_fields!(net);
}

/// Returns the pixels in both masks over those in either.
fn overlap(found: &Tensor, truth: &Tensor) -> Result<f64> {
    let (found, truth) = (found.to_vec::<i64>()?, truth.to_vec::<i64>()?);
    let count = |both: fn(i64, i64) -> bool| found.iter().zip(&truth).filter(|&(&a, &b)| both(a, b)).count() as f64;
    Ok(count(|a, b| a == 1 && b == 1) / count(|a, b| a == 1 || b == 1))
}

fn run(lab: &Lab) -> Result<String> {
    let data = lab.digits()?;
    let (training, testing) = lab.pick((1000, 200), (2500, 500));
    let (width, depth) = (lab.pick(6, 8), if data.size == 8 { 2 } else { 3 });
    let clutter = Clutter { digit: data.size, side: 2 * data.size, pieces: 10 };
    let train = clutter.scenes(&glyphs(&data.train, 20_000)?, training, lab.seed)?;
    let test = clutter.scenes(&glyphs(&data.test, 5_000)?, testing, lab.seed + 1)?;
    let seeds = lab.pick(1, 3);

    let bright = test.images.ge_scalar(f64::from(BRIGHT))?.to_dtype(DType::I64)?.squeeze(1)?;
    let baseline = overlap(&bright, &test.masks)?;
    let mut found = vec![];
    let mut overlaps = [vec![], vec![]];
    let mut parameters = 0;
    for seed in 0..seeds {
        for shortcuts in [false, true] {
            convnet::manual_seed(lab.seed + seed);
            let net = unet(UNetOptions::new(2).input_channels(1).width(width).depth(depth));
            parameters = net.num_parameters();
            let net: Box<dyn Module> = if shortcuts { Box::new(net) } else { Box::new(WithoutShortcuts { net }) };
            fit_by(&net, training, lab.pick(4, 10), 32, lab.pick(0.01, 0.004), lab.seed + seed, |batch| {
                net.forward(&train.images.index_select(0, batch)?)?.cross_entropy(&train.masks.index_select(0, batch)?)
            })?;
            let classes = predict(&net, &test.images)?.argmax(1)?;
            overlaps[usize::from(shortcuts)].push(overlap(&classes, &test.masks)?);
            if seed == 0 {
                found.push(classes);
            }
        }
    }

    let [without, with] = &overlaps;
    let row = |name: &str, parameters: usize, overlap: String| [name.to_string(), parameters.to_string(), overlap];
    table(&[
        [format!("{} in clutter", data.name), "parameters".to_string(), "IoU".to_string()],
        row("all bright pixels", 0, percent(&[baseline])),
        row("U-Net, zeros as shortcuts", parameters, percent(without)),
        row("U-Net", parameters, percent(with)),
    ]);
    let mut pictures = vec![];
    for scene in 0..6 {
        for maps in [&test.images.squeeze(1)?, &test.masks, &found[0], &found[1]] {
            pictures.push(enlarged(&maps.narrow(0, scene, 1)?.to_dtype(DType::F32)?, ColorMap::Viridis, (80 / (2 * data.size)).max(1))?);
        }
    }
    lab.save("segmentation.png", &Image::grid(&pictures, 8, 4)?)?;

    let ((shortcuts, _), (zeros, _)) = (spread(with), spread(without));
    ensure(shortcuts > lab.pick(0.33, 0.45), format_args!("the U-Net's IoU is {shortcuts:.3}"))?;
    ensure(
        shortcuts > zeros && shortcuts > baseline,
        format_args!("IoU {shortcuts:.3}, without shortcuts {zeros:.3}, of all {baseline:.3}"),
    )?;
    Ok(format!("IoU {} with shortcuts, {} without", percent(with), percent(without)))
}
