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
//! In the picture, each row has a scene, the true digit, the one found without shortcuts and the
//! one found with them. What shortcuts add is the outline.

use convnet::data::{ColorMap, Image, Rng};
use convnet::models::{UNet, UNetOptions, unet};
use convnet::prelude::*;

use super::lab::{Experiment, Glyph, Lab, enlarged, ensure, fit_by, glyphs, percent, predict, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "segmentation",
    claim: "a U-Net separates a digit from strokes like its own, and owes its outline to the shortcuts",
    run,
};

/// A pixel at least this bright belongs to a stroke.
const BRIGHT: f32 = 0.3;

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

struct Scenes {
    /// `[N, 1, 2s, 2s]` with digits of `s` pixels.
    images: Tensor,
    /// 1 where the digit is, `[N, 2s, 2s]`.
    masks: Tensor,
}

/// Draws a part of a picture into a canvas that is twice as wide.
fn paste(canvas: &mut [f32], glyph: &[f32], size: usize, [from, to]: [[usize; 2]; 2], side: usize) {
    for row in 0..side {
        for column in 0..side {
            let pixel = &mut canvas[(to[0] + row) * 2 * size + to[1] + column];
            *pixel = pixel.max(glyph[(from[0] + row) * size + from[1] + column]);
        }
    }
}

fn scenes(digits: &[Glyph], size: usize, count: usize, seed: u64) -> Result<Scenes> {
    let (side, piece) = (2 * size, size / 2);
    let (mut images, mut masks) = (vec![], vec![]);
    for scene in 0..count {
        let mut rng = Rng::for_sample(seed, 0, scene as u64);
        let mut canvas = vec![0.0; side * side];
        for _ in 0..10 {
            let (other, _) = &digits[rng.below(digits.len())];
            let [from, to] = [[size; 2], [side; 2]].map(|most| most.map(|most| rng.below(most - piece + 1)));
            paste(&mut canvas, other, size, [from, to], piece);
        }
        let (digit, _) = &digits[rng.below(digits.len())];
        let at = [rng.below(size + 1), rng.below(size + 1)];
        paste(&mut canvas, digit, size, [[0, 0], at], size);
        let mut mask = vec![0.0; side * side];
        paste(&mut mask, digit, size, [[0, 0], at], size);
        masks.extend(mask.iter().map(|&x| i64::from(x >= BRIGHT)));
        images.extend(canvas);
    }
    Ok(Scenes { images: Tensor::from_vec(images, [count, 1, side, side])?, masks: Tensor::from_vec(masks, [count, side, side])? })
}

/// Returns the pixels in both masks over those in either.
fn overlap(found: &Tensor, truth: &Tensor) -> Result<f64> {
    let (found, truth) = (found.to_vec::<i64>()?, truth.to_vec::<i64>()?);
    let count = |both: fn(i64, i64) -> bool| found.iter().zip(&truth).filter(|&(&a, &b)| both(a, b)).count() as f64;
    Ok(count(|a, b| a == 1 && b == 1) / count(|a, b| a == 1 || b == 1))
}

fn run(lab: &Lab) -> Result<String> {
    let data = lab.digits()?;
    let (training, testing) = lab.pick((1000, 200), (4000, 500));
    let (width, depth) = (lab.pick(6, 8), if data.size == 8 { 2 } else { 3 });
    let train = scenes(&glyphs(&data.train, 20_000)?, data.size, training, lab.seed)?;
    let test = scenes(&glyphs(&data.test, 5_000)?, data.size, testing, lab.seed + 1)?;
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
            fit_by(&net, training, lab.pick(4, 5), 32, 0.01, lab.seed + seed, |batch| {
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
    ensure(shortcuts > lab.pick(0.33, 0.75), format_args!("the U-Net's IoU is {shortcuts:.3}"))?;
    ensure(
        shortcuts > zeros && shortcuts > baseline,
        format_args!("IoU {shortcuts:.3}, without shortcuts {zeros:.3}, of all {baseline:.3}"),
    )?;
    Ok(format!("IoU {} with shortcuts, {} without", percent(with), percent(without)))
}
