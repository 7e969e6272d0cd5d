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
//! The classifier learns from 100 faces and 100 patches without, of 25×25 pixels, flipped, turned,
//! shifted, and made lighter and darker; with `cifar10` in the data directory, 4,000 of its
//! pictures are further patches without. That is few, so it takes Rowley's way to more: it searches
//! pictures without faces, and what it finds there are its next examples, half of those without a
//! face. As in that paper, several networks decide together: here the mean of three. Each pixel is
//! seen relative to its surroundings, or the network would learn how bright faces are. Then it
//! searches the photograph at scales a factor of 1.15 apart; of boxes that overlap, non-maximum
//! suppression keeps the best.
//!
//! Look at the picture: the yellow boxes are all that was found, the thick box is the best. The
//! table gives the place of the face among the boxes kept, which is 1 where it is the best.

mod classifier;
mod made;
mod search;

use classifier::{Classifier, Committee};
use convnet::data::{Image, ImageFolder, Rng};
use convnet::ops::{GridPadding, GridSampleOptions, affine_grid, box_iou, nms};
use convnet::prelude::*;
use convnet::weights;
use search::{patch, patches_of, search};

use super::lab::{Experiment, Lab, ensure, fit_by, percent, say, table};

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
#[derive(Clone)]
struct Examples {
    faces: Vec<Vec<f32>>,
    others: Vec<Vec<f32>>,
    /// Patches without a face that a classifier took for faces.
    mistakes: Vec<Vec<f32>>,
    without: Vec<Image>,
}

/// Returns patches `[N, 1, P, P]` flipped, turned by up to 12 degrees, shifted by up to two pixels,
/// a tenth larger or smaller, and with another contrast and brightness.
fn varied(patches: &Tensor, rng: &mut Rng) -> Result<Tensor> {
    let count = patches.size(0)?;
    let (mut maps, mut gains, mut offsets) = (vec![], vec![], vec![]);
    for _ in 0..count {
        let (angle, zoom, flip) = (rng.uniform(-12.0, 12.0).to_radians(), rng.uniform(0.9, 1.12), if rng.chance(0.5) { -1.0 } else { 1.0 });
        let [x, y] = [0; 2].map(|_| rng.uniform(-2.0, 2.0) * 2.0 / PATCH as f64);
        let (sin, cos) = angle.sin_cos();
        maps.extend([flip * zoom * cos, -zoom * sin, x, flip * zoom * sin, zoom * cos, y].map(|number| number as f32));
        gains.push(rng.uniform(0.6, 1.4) as f32);
        offsets.push(rng.uniform(-0.15, 0.15) as f32 + 0.5);
    }
    let grid = affine_grid(&Tensor::from_vec(maps, [count, 2, 3])?, [PATCH, PATCH], false)?;
    let moved = patches.grid_sample(&grid, GridSampleOptions::new().padding(GridPadding::Border))?;
    let [gains, offsets] = [gains, offsets].map(|numbers| Tensor::from_vec(numbers, [count, 1, 1, 1]));
    moved.sub_scalar(0.5).mul(&gains?)?.add(&offsets?)?.clamp(0.0, 1.0)
}

/// Trains a classifier on variations of the patches, as many with a face as without.
fn train(examples: &Examples, each: usize, seed: u64) -> Result<Classifier> {
    let mut rng = Rng::new(seed);
    let (mut pixels, mut labels) = (vec![], vec![]);
    for index in 0..each {
        let others = if examples.mistakes.is_empty() || rng.chance(0.5) { &examples.others } else { &examples.mistakes };
        pixels.extend_from_slice(&others[rng.below(others.len())]);
        pixels.extend_from_slice(&examples.faces[index % examples.faces.len()]);
        labels.extend([0i64, 1]);
    }
    let count = labels.len();
    let pixels = varied(&Tensor::from_vec(pixels, [count, 1, PATCH, PATCH])?, &mut rng)?;
    let labels = Tensor::from_vec(labels, [count])?;
    convnet::manual_seed(seed);
    let net = Classifier::new();
    fit_by(&net, count, 4, 32, 0.003, seed, |batch| {
        net.forward(&pixels.index_select(0, batch)?)?.cross_entropy(&labels.index_select(0, batch)?)
    })?;
    Ok(net)
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
        let before = examples.mistakes.len();
        for picture in &examples.without {
            let (boxes, scores) = search(&classifier, picture)?;
            let kept = nms(&boxes, &scores, 0.5)?;
            for sides in boxes.index_select(0, &kept)?.to_vec::<f32>()?.chunks(4).take(100) {
                examples.mistakes.push(patch(picture, sides)?);
            }
        }
        say(format_args!(
            "seed {seed}, round {}: {} patches are taken for faces where there are none",
            round + 1,
            examples.mistakes.len() - before
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
            (Examples { faces: patches[..100].to_vec(), others, mistakes: vec![], without }, scene)
        }
        _ => (made::examples(lab.seed)?, made::scene(lab.seed + 1, true)?),
    };
    let shown = |place: Option<usize>| place.map_or("none".to_string(), |place| place.to_string());
    let (mut overlaps, mut places) = (vec![], vec![]);
    let mut rows = vec![["seed", "windows above 0", "boxes kept", "IoU of the best", "place of the face"].map(str::to_string)];
    for seed in 0..lab.pick(1, 3) {
        let seeds = (0..lab.pick(1, 3)).map(|member| lab.seed + 10 * seed + member);
        let net = Committee(seeds.map(|seed| detector(&mut examples.clone(), lab, seed)).collect::<Result<_>>()?);
        let (boxes, scores) = search(&net, &scene.picture)?;
        let kept = boxes.index_select(0, &nms(&boxes, &scores, 0.2)?)?;
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
