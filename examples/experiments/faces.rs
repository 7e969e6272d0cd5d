//! A face in a photograph, found by a classifier of small patches.
//!
//! Before detectors were trained as such, a classifier of patches was run over all places and sizes
//! of a picture (Rowley, Baluja and Kanade, *Neural Network-Based Face Detection*, 1998). A
//! convolutional network need not see each patch by itself: its dense layer over maps of 4×4 is a
//! convolution with a kernel of 4×4, and with it the network takes a picture of any size and gives
//! a score for each patch at a stride of its pooling (Sermanet et al., *OverFeat*, 2013; Long et
//! al., *Fully Convolutional Networks*, 2015). The program makes this step by moving the weights,
//! and checks that the scores are the same.
//!
//! The classifier learns from 100 faces and 100 patches without, of 25×25 pixels, flipped, shifted
//! and made lighter and darker. That is few, so it takes Rowley's way to more: it searches pictures
//! without faces, and what it finds there are its next examples. Then it searches the photograph at
//! scales a factor of 1.15 apart. A box counts as much as all boxes that overlap it by a half; of
//! boxes that overlap, non-maximum suppression keeps the best.
//!
//! Look at the picture: the yellow boxes are all that was found, the thick box is the best. In the
//! photograph the best need not be the face: a round badge on a suit resembles one too. The table
//! therefore gives the place of the face among the boxes kept, which is 1 where it is the best.

mod made;

use convnet::data::{Grayscale, Image, ImageFolder, Resize, Rng};
use convnet::ops::{box_iou, nms};
use convnet::prelude::*;
use convnet::weights;

use super::lab::{Experiment, Lab, ensure, fit_by, percent, predict, say, table};

pub const EXPERIMENT: Experiment =
    Experiment { name: "faces", claim: "a classifier of patches becomes a detector when its dense layer becomes a convolution", run };

/// Height and width of a patch.
const PATCH: usize = 25;
/// The pixels between patches: two poolings by two.
const STRIDE: usize = 4;
/// Pictures without faces seen from the front.
const WITHOUT: [&str; 5] = ["coffee.png", "coins.png", "page.png", "rocket.jpg", "chelsea.png"];

/// A picture to search, and where its face is.
struct Scene {
    picture: Image,
    face: [f32; 4],
}

/// Patches, and pictures to search for more of those without a face.
struct Examples {
    faces: Vec<Vec<f32>>,
    others: Vec<Vec<f32>>,
    without: Vec<Image>,
}

/// A classifier of patches.
struct Classifier {
    convolutions: Sequential,
    dropout: Dropout,
    dense: Linear,
}

impl Classifier {
    fn new() -> Classifier {
        let block = |from, to, kernel| {
            Sequential::new().push(Conv2d::new(from, to, kernel)).push(BatchNorm2d::new(to)).push(ReLU).push(MaxPool2d::new(2))
        };
        let convolutions = block(1, 16, 5).push(block(16, 32, 3)); // [N, 16, 10, 10], [N, 32, 4, 4]
        Classifier { convolutions, dropout: Dropout::new(0.5), dense: Linear::new(32 * 4 * 4, 2) }
    }

    /// Makes the dense layer a convolution over maps of 4×4: its weights already have that order.
    fn into_detector(self) -> Result<Sequential> {
        let conv = Conv2d::new(32, 2, 4);
        conv.weight.set(&self.dense.weight.tensor().detach().reshape([2, 32, 4, 4])?)?;
        if let (Some(to), Some(from)) = (&conv.bias, &self.dense.bias) {
            to.set(&from.tensor().detach())?;
        }
        let detector = Sequential::new().push(self.convolutions).push(conv);
        detector.eval();
        Ok(detector)
    }
}

impl Module for Classifier {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.apply(&self.convolutions)?.flatten(1, -1)?.apply(&self.dropout)?.apply(&self.dense)
    }

    visit_fields!(convolutions, dropout, dense);
}

/// Returns a patch flipped, shifted by up to two pixels, and with another contrast and brightness.
fn varied(patch: &[f32], rng: &mut Rng) -> Vec<f32> {
    let (flip, gain, offset) = (rng.chance(0.5), rng.uniform(0.6, 1.4) as f32, rng.uniform(-0.15, 0.15) as f32);
    let shift = [rng.below(5), rng.below(5)];
    let pixel = |at: usize| {
        let [row, column] = [at / PATCH + shift[0], at % PATCH + shift[1]].map(|place| place.saturating_sub(2).min(PATCH - 1));
        let column = if flip { PATCH - 1 - column } else { column };
        ((patch[row * PATCH + column] - 0.5) * gain + 0.5 + offset).clamp(0.0, 1.0)
    };
    (0..PATCH * PATCH).map(pixel).collect()
}

/// Trains a classifier on variations of the patches, as many with a face as without.
fn train(examples: &Examples, each: usize, seed: u64) -> Result<Classifier> {
    let mut rng = Rng::new(seed);
    let (mut pixels, mut labels) = (vec![], vec![]);
    for index in 0..each {
        for (patches, label) in [(&examples.others, 0i64), (&examples.faces, 1)] {
            pixels.extend(varied(&patches[index % patches.len()], &mut rng));
            labels.push(label);
        }
    }
    let count = labels.len();
    let (pixels, labels) = (Tensor::from_vec(pixels, [count, 1, PATCH, PATCH])?, Tensor::from_vec(labels, [count])?);
    convnet::manual_seed(seed);
    let net = Classifier::new();
    fit_by(&net, count, 4, 32, 0.003, seed, |batch| {
        net.forward(&pixels.index_select(0, batch)?)?.cross_entropy(&labels.index_select(0, batch)?)
    })?;
    Ok(net)
}

/// Searches a picture at all scales; returns boxes and log-odds of a face of all above 0, at most
/// 2,000.
fn search(net: &Sequential, picture: &Image) -> Result<(Tensor, Tensor)> {
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
fn patch(picture: &Image, sides: &[f32]) -> Result<Vec<f32>> {
    let [left, top, right, bottom] = [0, 1, 2, 3].map(|side| sides[side].round().max(0.0) as usize);
    let (right, bottom) = (right.min(picture.width()), bottom.min(picture.height()));
    let part = picture.to_tensor().narrow(1, top, bottom - top)?.narrow(2, left, right - left)?;
    let mut part = Image::from_tensor(&part)?;
    part.apply(&Grayscale)?.apply(&Resize::new(PATCH))?;
    Ok(part.pixels().into_owned())
}

/// Returns for each box the sum of the scores of those that it overlaps by more than a half: a face
/// is found at several places and scales around its own, what only resembles one at fewer.
fn supported(boxes: &Tensor, scores: &Tensor) -> Result<Tensor> {
    let near = box_iou(boxes, boxes)?.gt_scalar(0.5)?.to_dtype(DType::F32)?;
    near.matmul(&scores.unsqueeze(1)?)?.squeeze(1)
}

/// Returns pictures of things and animals as patches.
fn patches_of(pictures: &ImageFolder, count: usize) -> Result<Vec<Vec<f32>>> {
    let step = (pictures.len() / count).max(1);
    let gray = |i: usize| {
        let (mut image, _) = pictures.get(i * step, &mut Rng::new(0))?;
        image.apply(&Grayscale)?.apply(&Resize::new(PATCH))?;
        Ok(image.pixels().into_owned())
    };
    (0..count.min(pictures.len())).map(gray).collect()
}

/// Trains, and adds to the examples what the classifier takes for faces where there are none.
fn detector(examples: &mut Examples, lab: &Lab, seed: u64) -> Result<Sequential> {
    let each = lab.pick(600, 6000);
    for round in 0.. {
        let classifier = train(examples, each, seed)?;
        let x = Tensor::from_slice(&examples.faces[0], [1, 1, PATCH, PATCH])?;
        let dense = no_grad(|| classifier.forward(&x))?;
        let classifier = classifier.into_detector()?;
        let difference = no_grad(|| classifier.forward(&x))?.flatten(1, -1)?.sub(&dense)?.abs().max(..)?.item::<f32>()?;
        ensure(difference < 1e-4, format_args!("the convolution gives scores other than those of the dense layer, by {difference}"))?;
        if round == lab.pick(2, 3) {
            return Ok(classifier);
        }
        let before = examples.others.len();
        for picture in &examples.without {
            let (boxes, scores) = search(&classifier, picture)?;
            let kept = nms(&boxes, &scores, 0.5)?;
            for sides in boxes.index_select(0, &kept)?.to_vec::<f32>()?.chunks(4).take(100) {
                examples.others.push(patch(picture, sides)?);
            }
        }
        say(format_args!(
            "seed {seed}, round {}: {} patches are taken for faces where there are none",
            round + 1,
            examples.others.len() - before
        ));
    }
    unreachable!("the last round returns")
}

fn run(lab: &Lab) -> Result<String> {
    let (examples, scene) = match (lab.data("faces"), lab.data("pictures")) {
        (Some(faces), Some(pictures)) => {
            let patches = weights::load_npy(faces.join("lfw_subset.npy"))?.to_dtype(DType::F32)?.to_vec::<f32>()?;
            let patches: Vec<Vec<f32>> = patches.chunks(PATCH * PATCH).map(<[f32]>::to_vec).collect();
            let without = WITHOUT.iter().map(|name| Image::open(pictures.join(name))).collect::<Result<_>>()?;
            let picture = Image::open(pictures.join("astronaut.png"))?;
            // From the hairline to the chin, as in the patches; measured by hand.
            let scene = Scene { picture, face: [176.0, 77.0, 276.0, 177.0] };
            let mut others = patches[100..].to_vec();
            if let Some(cifar) = lab.data("cifar10") {
                others.extend(patches_of(&ImageFolder::new(cifar.join("train"))?, lab.pick(500, 4000))?);
            }
            (Examples { faces: patches[..100].to_vec(), others, without }, scene)
        }
        _ => (made::examples(lab.seed)?, made::scene(lab.seed + 1, true)?),
    };
    let shown = |place: Option<usize>| place.map_or("none".to_string(), |place| place.to_string());
    let (mut overlaps, mut places) = (vec![], vec![]);
    let mut rows = vec![["seed", "windows above 0", "boxes kept", "IoU of the best", "place of the face"].map(str::to_string)];
    for seed in 0..lab.pick(1, 3) {
        let mut examples = Examples { faces: examples.faces.clone(), others: examples.others.clone(), without: examples.without.clone() };
        let net = detector(&mut examples, lab, lab.seed + seed)?;
        let (boxes, scores) = search(&net, &scene.picture)?;
        let kept = boxes.index_select(0, &nms(&boxes, &supported(&boxes, &scores)?, 0.2)?)?;
        let found: Vec<[f32; 4]> = kept.to_vec::<f32>()?.chunks(4).map(|sides| [sides[0], sides[1], sides[2], sides[3]]).collect();
        ensure(!found.is_empty(), "no face was found")?;
        let on_face = box_iou(&kept, &Tensor::from_slice(&scene.face, [1, 4])?)?.to_vec::<f32>()?;
        let best = on_face[0];
        let place = on_face.iter().position(|&overlap| overlap >= 0.4).map(|index| index + 1);
        overlaps.push(f64::from(best));
        places.push(place);
        rows.push([seed.to_string(), scores.numel().to_string(), found.len().to_string(), format!("{best:.2}"), shown(place)]);
        if seed == 0 {
            let picture = scene.picture.draw_boxes(&kept, [255, 220, 0], 1)?;
            lab.save("faces.png", &picture.draw_boxes(&kept.narrow(0, 0, 1)?, [0, 255, 60], 4)?)?;
        }
    }
    say("");
    table(&rows);
    let found = places.iter().flatten().count();
    if lab.quick {
        ensure(overlaps[0] > 0.3, format_args!("the best box overlaps the made face by {:.2} only", overlaps[0]))?;
    }
    ensure(found > 0, "no box with an IoU of 0.4 or more lies on the face in any run")?;
    let places = places.into_iter().map(shown).collect::<Vec<_>>().join(", ");
    Ok(format!(
        "a box is on the face (IoU of 0.4 or more) in {found} of {} runs; its place among the boxes kept: {places}; IoU of the best box: {}",
        overlaps.len(),
        percent(&overlaps)
    ))
}
