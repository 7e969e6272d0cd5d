//! A search for faces in a picture, at all places and scales, and pictures as patches.

use convnet::data::{Grayscale, Image, ImageFolder, Resize, Rng};
use convnet::prelude::*;

use super::{PATCH, STRIDE};
use crate::lab::predict;

/// Searches a picture at all scales; returns boxes and log-odds of a face of all above 0, at most
/// 2,000.
pub fn search(net: &dyn Module, picture: &Image) -> Result<(Tensor, Tensor)> {
    let (mut boxes, mut scores) = (vec![], vec![]);
    let mut scale = 0.6;
    loop {
        let size = picture.size().map(|side| (side as f64 * scale).round() as usize);
        if size.iter().any(|&side| side < PATCH) {
            break;
        }
        let mut scaled = picture.clone();
        scaled.apply(&Grayscale)?.apply(&Resize::new(size))?;
        let maps = predict(net, &scaled.to_tensor().unsqueeze(0)?)?;
        let odds = maps.narrow(1, 1, 1)?.sub(&maps.narrow(1, 0, 1)?)?;
        let width = odds.size(3)?;
        for (at, odds) in odds.to_vec::<f32>()?.into_iter().enumerate().filter(|(_, odds)| *odds > 0.0) {
            let [left, top] = [at % width, at / width].map(|place| (STRIDE * place) as f32 / scale as f32);
            let side = PATCH as f32 / scale as f32;
            boxes.extend([left, top, left + side, top + side]);
            scores.push(odds);
        }
        scale /= 1.15;
    }
    let count = scores.len();
    let (boxes, scores) = (Tensor::from_vec(boxes, [count, 4])?, Tensor::from_vec(scores, [count])?);
    let best = scores.topk(count.min(2000), 0)?.1;
    Ok((boxes.index_select(0, &best)?, scores.index_select(0, &best)?))
}

/// Returns the part of a picture in a box as a patch.
pub fn patch(picture: &Image, sides: &[f32]) -> Result<Vec<f32>> {
    let [left, top, right, bottom] = [0, 1, 2, 3].map(|side| sides[side].round().max(0.0) as usize);
    let (right, bottom) = (right.min(picture.width()), bottom.min(picture.height()));
    let part = picture.to_tensor().narrow(1, top, bottom - top)?.narrow(2, left, right - left)?;
    let mut part = Image::from_tensor(&part)?;
    part.apply(&Grayscale)?.apply(&Resize::new(PATCH))?;
    Ok(part.pixels().into_owned())
}

/// Returns pictures of things and animals as patches.
pub fn patches_of(pictures: &ImageFolder, count: usize) -> Result<Vec<Vec<f32>>> {
    let step = (pictures.len() / count).max(1);
    let gray = |i: usize| {
        let (mut image, _) = pictures.get(i * step, &mut Rng::new(0))?;
        image.apply(&Grayscale)?.apply(&Resize::new(PATCH))?;
        Ok(image.pixels().into_owned())
    };
    (0..count.min(pictures.len())).map(gray).collect()
}
