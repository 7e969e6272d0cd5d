//! Drawn faces, for runs without data.

use convnet::data::{Image, Rng};
use convnet::prelude::*;

use super::{Examples, PATCH, Scene};

/// Draws a face, an ellipse with eyes and a mouth, or with `is_face` false the same parts in other
/// places, into a picture of one channel.
fn draw(pixels: &mut [f32], width: usize, [left, top, size]: [f64; 3], is_face: bool, rng: &mut Rng) {
    let mut ellipse = |x: f64, y: f64, a: f64, b: f64, value: f64| {
        let [cx, cy, a, b] = [left + x * size, top + y * size, a * size, b * size];
        for (at, pixel) in pixels.iter_mut().enumerate() {
            let (dx, dy) = (((at % width) as f64 + 0.5 - cx) / a, ((at / width) as f64 + 0.5 - cy) / b);
            if dx * dx + dy * dy < 1.0 {
                *pixel = value as f32;
            }
        }
    };
    let (skin, dark) = (rng.uniform(0.6, 0.95), rng.uniform(0.0, 0.3));
    let mut place =
        |x: f64, y: f64| if is_face { [x + rng.uniform(-0.03, 0.03), y + rng.uniform(-0.03, 0.03)] } else { [rng.unit(), rng.unit()] };
    let [middle, eye, other, mouth] = [place(0.5, 0.5), place(0.34, 0.4), place(0.66, 0.4), place(0.5, 0.74)];
    ellipse(middle[0], middle[1], 0.4, 0.47, skin);
    ellipse(eye[0], eye[1], 0.09, 0.06, dark);
    ellipse(other[0], other[1], 0.09, 0.06, dark);
    ellipse(mouth[0], mouth[1], 0.17, 0.06, dark);
}

fn noise(pixels: &mut [f32], rng: &mut Rng) {
    pixels.iter_mut().for_each(|pixel| *pixel = (*pixel + 0.04 * rng.normal() as f32).clamp(0.0, 1.0));
}

/// Makes drawn faces, and patches of the same parts in disorder.
pub fn examples(seed: u64) -> Result<Examples> {
    let made = |is_face: bool, index: u64| {
        let mut rng = Rng::for_sample(seed, u64::from(is_face), index);
        let mut pixels = vec![rng.uniform(0.1, 0.6) as f32; PATCH * PATCH];
        draw(&mut pixels, PATCH, [0.0, 0.0, PATCH as f64], is_face, &mut rng);
        noise(&mut pixels, &mut rng);
        pixels
    };
    let without = (0..3).map(|index| scene(seed + 10 + index, false).map(|scene| scene.picture)).collect::<Result<_>>()?;
    Ok(Examples {
        faces: (0..100).map(|i| made(true, i)).collect(),
        others: (0..100).map(|i| made(false, i)).collect(),
        mistakes: vec![],
        without,
    })
}

/// Makes a picture of disorder, with a face of 60 pixels if wanted.
pub fn scene(seed: u64, with_face: bool) -> Result<Scene> {
    let (side, mut rng) = (160, Rng::new(seed));
    let mut pixels = vec![0.35; side * side];
    for _ in 0..12 {
        let at = [rng.uniform(-20.0, 140.0), rng.uniform(-20.0, 140.0), rng.uniform(25.0, 60.0)];
        draw(&mut pixels, side, at, false, &mut rng);
    }
    let [left, top] = [rng.uniform(10.0, 90.0), rng.uniform(10.0, 90.0)];
    if with_face {
        draw(&mut pixels, side, [left, top, 60.0], true, &mut rng);
    }
    noise(&mut pixels, &mut rng);
    let colored = pixels.iter().flat_map(|&pixel| [pixel; 3]).collect();
    let face = [left, top, left + 60.0, top + 60.0].map(|side| side as f32);
    Ok(Scene { picture: Image::from_floats([3, side, side], colored)?, face })
}
