//! Changes of colours against torchvision's numbers (`fixtures/transforms.py`), and the
//! distributions of what is random.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use convnet::data::{
    AugMix, AutoAugment, AutoAugmentPolicy, Autocontrast, Batch, Blur, Brightness, ColorJitter, Contrast, CutMix, DataLoader,
    Deterministic, Digits, Equalize, Erase, GaussianBlur, Hue, Image, Invert, Mask, MixUp, Part, Posterize, RandAugment,
    RandomAdjustSharpness, RandomApply, RandomAutocontrast, RandomChoice, RandomEqualize, RandomErasing, RandomGrayscale, RandomInvert,
    RandomOrder, RandomPosterize, RandomSolarize, Rng, Saturation, Sharpness, Solarize, Transform, TrivialAugmentWide,
};
use convnet::nn::StateDict;
use convnet::{DType, Result, Tensor};

use crate::{complaint, image_of};

fn fixture() -> StateDict {
    StateDict::load(PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/transforms_color.safetensors"))).unwrap()
}

/// Returns the change of this name in the fixture.
fn change(name: &str) -> Box<dyn Deterministic> {
    let words: Vec<&str> = name.split(' ').collect();
    let number = |i: usize| words[i].parse::<f64>().unwrap();
    match words[0] {
        "brightness" => Box::new(Brightness::new(number(1))),
        "contrast" => Box::new(Contrast::new(number(1))),
        "saturation" => Box::new(Saturation::new(number(1))),
        "sharpness" => Box::new(Sharpness::new(number(1))),
        "hue" => Box::new(Hue::new(number(1))),
        "posterize" => Box::new(Posterize::new(number(1) as u32)),
        "solarize" => Box::new(Solarize::new(number(1))),
        "autocontrast" => Box::new(Autocontrast),
        "equalize" => Box::new(Equalize),
        "invert" => Box::new(Invert),
        "blur" => Box::new(Blur::new([number(1) as usize, number(2) as usize], number(3))),
        _ => panic!("the fixture has {name}"),
    }
}

#[test]
fn fixed_changes_of_bytes_give_torchvisions_bytes() {
    let fixture = fixture();
    let mut cases = 0;
    for kind in ["rgb", "gray"] {
        let start = image_of(fixture.get(kind).unwrap());
        for (key, expected) in fixture.iter() {
            let Some(name) = key.strip_prefix(kind).and_then(|rest| rest.strip_prefix(' ')).filter(|name| !name.starts_with("f32")) else {
                continue;
            };
            let mut image = start.clone();
            image.apply(&*change(name)).unwrap();
            let (found, expected) = (image.bytes().unwrap(), expected.to_vec::<u8>().unwrap());
            // A blur adds in another order, so that what is close to half-way may be rounded the
            // other way.
            let tolerance = u8::from(name.starts_with("blur"));
            for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
                assert!(found.abs_diff(expected) <= tolerance, "{key}: {found} in place of {expected} at value {i}");
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 2 * 43);
}

#[test]
fn fixed_changes_of_floats_give_torchvisions_numbers() {
    let fixture = fixture();
    let mut cases = 0;
    for kind in ["rgb f32", "gray f32"] {
        let start = image_of(fixture.get(kind).unwrap());
        for (key, expected) in fixture.iter() {
            let Some(name) = key.strip_prefix(kind).and_then(|rest| rest.strip_prefix(' ')) else { continue };
            let mut image = start.clone();
            image.apply(&*change(name)).unwrap();
            for (i, (found, expected)) in image.pixels().iter().zip(expected.to_vec::<f32>().unwrap()).enumerate() {
                // Sums in another order, of values up to 1 or, for the hue, of sixths up to 6: some
                // units in the last place.
                assert!((found - expected).abs() <= 2e-6, "{key}: {found} in place of {expected} at value {i}");
            }
            cases += 1;
        }
    }
    assert!(cases >= 2 * 20, "{cases}");
}

#[test]
fn rotated_hues_of_a_grid_of_colours_are_pillows() {
    // Checksums printed by `fixtures/transforms.py`.
    let steps = || (0..=255).step_by(5);
    let grid: Vec<u8> = steps().flat_map(|r| steps().flat_map(move |g| steps().flat_map(move |b| [r, g, b]))).collect();
    for (shift, expected) in HUES {
        let mut image = Image::from_bytes([3, 52 * 52, 52], grid.clone()).unwrap();
        image.apply(&Hue::new(shift)).unwrap();
        assert_eq!(crc(&image), expected, "shift {shift}");
    }
}

const HUES: [(f64, u32); 3] = [(-0.3, 1_813_763_658), (0.0, 766_652_913), (0.5, 166_298_513)];

fn bytes(shape: [usize; 3], byte: u8) -> Image {
    Image::from_bytes(shape, vec![byte; shape.iter().product()]).unwrap()
}

/// Returns the part of `draws` seeds after which the transform has changed an image of one colour.
fn rate(transform: &dyn Transform, draws: u64) -> f64 {
    let changed = (0..draws).filter(|&seed| {
        let mut image = Image::from_bytes([3, 1, 2], vec![200, 100, 30, 90, 60, 140]).unwrap();
        let before = image.bytes().unwrap().to_vec();
        transform.apply(&mut image, &mut Rng::new(seed)).unwrap();
        image.bytes().unwrap() != before
    });
    changed.count() as f64 / draws as f64
}

#[test]
fn random_changes_are_applied_with_their_probability() {
    let transforms: [(&str, Box<dyn Transform>); 6] = [
        ("invert", Box::new(RandomInvert::new(0.3))),
        ("posterize", Box::new(RandomPosterize::new(2, 0.3))),
        ("solarize", Box::new(RandomSolarize::new(128.0, 0.3))),
        ("autocontrast", Box::new(RandomAutocontrast::new(0.3))),
        ("grayscale", Box::new(RandomGrayscale::new(0.3))),
        ("apply", Box::new(RandomApply::new((Invert, Posterize::new(3)), 0.3))),
    ];
    for (name, transform) in transforms {
        // Four standard deviations of a mean of 2000 draws: 4 √(0.3 · 0.7 / 2000) = 0.041.
        let rate = rate(&transform, 2000);
        assert!((rate - 0.3).abs() < 0.041, "{name}: {rate}");
    }
    for (image, transform) in
        [(4u8, Box::new(RandomEqualize::new(1.0)) as Box<dyn Transform>), (9, Box::new(RandomAdjustSharpness::new(2.0, 1.0)))]
    {
        let noise = (0..900u32).map(|i| (i * i % 251) as u8 / image).collect();
        let mut changed = Image::from_bytes([1, 30, 30], noise).unwrap();
        let before = changed.bytes().unwrap().to_vec();
        transform.apply(&mut changed, &mut Rng::new(0)).unwrap();
        assert!(changed.bytes().unwrap() != before);
    }
    let mut image = Image::from_bytes([3, 1, 1], vec![200, 100, 0]).unwrap();
    RandomGrayscale::new(1.0).apply(&mut image, &mut Rng::new(0)).unwrap();
    assert_eq!(image.bytes().unwrap(), [118; 3], "the channels stay");
}

#[test]
fn jitter_draws_uniform_factors_and_every_order() {
    // White times the factor: uniform between 0.5 and 1.
    let jitter = ColorJitter::new().brightness([0.5, 1.0]);
    let factors: Vec<f64> = (0..2000)
        .map(|seed| {
            let mut image = Image::from_floats([1, 1, 1], vec![1.0]).unwrap();
            jitter.apply(&mut image, &mut Rng::new(seed)).unwrap();
            f64::from(image.pixels()[0])
        })
        .collect();
    let mean = factors.iter().sum::<f64>() / 2000.0;
    // Four standard deviations: 4 · 0.5 / √(12 · 2000) = 0.013.
    assert!((mean - 0.75).abs() < 0.013, "{mean}");
    assert!(factors.iter().all(|factor| (0.5..=1.0).contains(factor)));
    let below = factors.iter().filter(|&&factor| factor < 0.6).count() as f64 / 2000.0;
    // A fifth, within 4 √(0.2 · 0.8 / 2000) = 0.036.
    assert!((below - 0.2).abs() < 0.036, "{below}");

    // All four with fixed numbers: 24 orders, of which the results are some of.
    let jitter = ColorJitter::new().brightness([1.4, 1.4]).contrast([1.3, 1.3]).saturation([0.5, 0.5]).hue([0.2, 0.2]);
    let start = Image::from_bytes([3, 1, 3], vec![200, 100, 30, 90, 60, 140, 10, 80, 70]).unwrap();
    let steps: [&dyn Deterministic; 4] = [&Brightness::new(1.4), &Contrast::new(1.3), &Saturation::new(0.5), &Hue::new(0.2)];
    let mut possible = Vec::new();
    for order in (0..256usize).map(|code| [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6]) {
        if (0..4).all(|step| order.contains(&step)) {
            let mut image = start.clone();
            order.iter().for_each(|&step| steps[step].transform(&mut image).unwrap());
            possible.push(image.bytes().unwrap().to_vec());
        }
    }
    assert_eq!(possible.len(), 24);
    let found: Vec<Vec<u8>> = (0..500)
        .map(|seed| {
            let mut image = start.clone();
            jitter.apply(&mut image, &mut Rng::new(seed)).unwrap();
            image.bytes().unwrap().to_vec()
        })
        .collect();
    assert!(found.iter().all(|result| possible.contains(result)));
    assert!(possible.iter().all(|result| found.contains(result)), "each order occurs");
    let mut image = start.clone();
    ColorJitter::new().apply(&mut image, &mut Rng::new(0)).unwrap();
    assert_eq!(image.bytes(), start.bytes());
}

#[test]
fn gaussian_blur_draws_a_width_in_its_range() {
    let line = Image::from_floats([1, 1, 9], vec![0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
    let peak = |transform: &dyn Transform, seed: u64| {
        let mut image = line.clone();
        transform.apply(&mut image, &mut Rng::new(seed)).unwrap();
        image.pixels()[4]
    };
    let ends = [0.5, 1.5].map(|sigma| peak(&Blur::new([1, 7], sigma), 0));
    let blur = GaussianBlur::new([1, 7]).sigma([0.5, 1.5]);
    let peaks: Vec<f32> = (0..200).map(|seed| peak(&blur, seed)).collect();
    assert!(peaks.iter().all(|peak| (ends[1]..=ends[0]).contains(peak)), "{ends:?}");
    // Half of the widths are above 1: 100 of 200 within four standard deviations, 4 √50 = 28.
    let middle = peak(&Blur::new([1, 7], 1.0), 0);
    let wide = peaks.iter().filter(|&&peak| peak < middle).count();
    assert!(wide.abs_diff(100) < 28, "{wide}");
}

#[test]
fn erasing_overwrites_a_rectangle_of_the_asked_area_and_ratio() {
    let erasing = RandomErasing::new(0.5).scale([0.1, 0.2]).ratio([0.5, 2.0]).value([7.0]);
    let mut erased = 0;
    for seed in 0..400 {
        let mut image = bytes([1, 40, 50], 1);
        erasing.apply(&mut image, &mut Rng::new(seed)).unwrap();
        let changed: Vec<[usize; 2]> = (0..2000).filter(|&i| image.bytes().unwrap()[i] == 7).map(|i| [i / 50, i % 50]).collect();
        assert!(image.bytes().unwrap().iter().all(|&x| x == 1 || x == 7));
        let Some([top, left]) = changed.first().copied() else { continue };
        let [bottom, right] = changed[changed.len() - 1];
        let [height, width] = [bottom - top + 1, right - left + 1];
        assert_eq!(changed.len(), height * width, "a rectangle");
        // Sides are rounded to whole pixels, of 10 to 28.
        assert!((0.09..0.22).contains(&(changed.len() as f64 / 2000.0)), "{changed:?}");
        assert!((0.46..2.2).contains(&(height as f64 / width as f64)), "{height}×{width}");
        erased += 1;
    }
    // Half of 400 within four standard deviations, 4 √100.
    assert!((160..=240).contains(&erased), "{erased}");

    let random = RandomErasing::new(1.0).scale([0.5, 0.5]).ratio([1.0, 1.0]).random();
    let mut image = Image::from_floats([3, 100, 100], vec![9.0; 30_000]).unwrap();
    random.apply(&mut image, &mut Rng::new(0)).unwrap();
    let noise: Vec<f64> = image.pixels().iter().filter(|&&x| x != 9.0).map(|&x| f64::from(x)).collect();
    assert_eq!(noise.len(), 71 * 71 * 3);
    let (mean, square) = (noise.iter().sum::<f64>() / 15_123.0, noise.iter().map(|x| x * x).sum::<f64>() / 15_123.0);
    // Four standard deviations: 4 / √15123 = 0.033 and 4 √(2 / 15123) = 0.046.
    assert!(mean.abs() < 0.033 && (square - 1.0).abs() < 0.046, "{mean} {square}");

    let mut image = bytes([3, 2, 2], 1);
    image.apply(&Erase::new([1, 0], [1, 1], [3.0, 4.0, 5.0])).unwrap();
    assert_eq!(image.bytes().unwrap(), [1, 1, 1, 1, 1, 1, 3, 4, 5, 1, 1, 1]);
    // One that never fits leaves the image as it is.
    let mut image = bytes([1, 1, 1], 1);
    RandomErasing::new(1.0).apply(&mut image, &mut Rng::new(0)).unwrap();
    assert_eq!(image.bytes().unwrap(), [1]);
}

#[test]
fn choices_follow_their_weights_and_orders_are_all_drawn() {
    let choice =
        RandomChoice::new().push_weighted(Erase::new([0, 0], [1, 1], [1.0]), 1.0).push_weighted(Erase::new([0, 0], [1, 1], [2.0]), 3.0);
    let drawn = |transform: &dyn Transform, seed: u64| {
        let mut image = bytes([1, 1, 1], 100);
        transform.apply(&mut image, &mut Rng::new(seed)).unwrap();
        image.bytes().unwrap()[0]
    };
    let first = (0..2000).filter(|&seed| drawn(&choice, seed) == 1).count() as f64 / 2000.0;
    // 4 √(0.25 · 0.75 / 2000) = 0.039.
    assert!((first - 0.25).abs() < 0.039, "{first}");

    let order = RandomOrder::new().push(Invert).push(Brightness::new(0.5));
    // 100 inverted and halved is 77; halved and inverted 205.
    let results: Vec<u8> = (0..400).map(|seed| drawn(&order, seed)).collect();
    let inverted_first = results.iter().filter(|&&x| x == 77).count();
    assert!(results.iter().all(|&x| x == 77 || x == 205) && (160..=240).contains(&inverted_first), "{inverted_first}");
    assert_eq!(drawn(&RandomChoice::new(), 0), 100);
    assert_eq!(drawn(&RandomOrder::new(), 0), 100);
}

#[test]
fn changes_of_colours_leave_masks_as_they_are_and_treat_images_of_a_sample_alike() {
    let transform = RandomApply::new(RandomChoice::new().push(ColorJitter::new().brightness(0.9)).push(RandomInvert::new(0.5)), 0.9);
    for seed in 0..20 {
        let (mut one, mut two) = (bytes([3, 2, 2], 77), bytes([3, 2, 2], 77));
        let mut mask = Mask::new([2, 2], vec![0, 1, 2, 3]).unwrap();
        let mut parts = [Part::Image(&mut one), Part::Mask(&mut mask), Part::Image(&mut two)];
        transform.apply_to_parts(&mut parts, &mut Rng::new(seed)).unwrap();
        assert_eq!(one.bytes(), two.bytes());
        assert_eq!(mask.classes(), [0, 1, 2, 3]);
    }
}

#[test]
fn arguments_that_make_no_sense_are_named() {
    let with = |transform: &dyn Transform, shape: [usize; 3]| -> Result<()> { transform.apply(&mut bytes(shape, 50), &mut Rng::new(1)) };
    let says = |transform: &dyn Transform, words: &str| {
        let message = complaint(with(transform, [3, 4, 4]));
        assert!(message.contains(words), "{message:?} should say {words:?}");
    };
    says(&Brightness::new(-0.1), "brightness: a factor must be finite and at least 0, got -0.1");
    says(&Contrast::new(f64::NAN), "got NaN");
    says(&Saturation::new(1e300), "finite");
    says(&Sharpness::new(f64::INFINITY), "finite");
    says(&Hue::new(0.6), "from -0.5 to 0.5, got 0.6");
    says(&Posterize::new(9), "cannot keep 9");
    says(&Solarize::new(f64::NAN), "not a number");
    says(&Blur::new(4, 1.0), "must be odd, got 4×4");
    says(&Blur::new(3, 0.0), "sigma must be positive");
    says(&Blur::new([9, 3], 1.0), "too large for the mirror image of 4×4");
    says(&GaussianBlur::new(3).sigma([2.0, 1.0]), "got 2 to 1");
    says(&ColorJitter::new().hue(0.7), "shifts of hue must be between -0.5 and 0.5");
    says(&ColorJitter::new().brightness([1.0, 0.5]), "got 1 to 0.5");
    says(&ColorJitter::new().contrast(-0.5), "factors of contrast");
    says(&RandomInvert::new(1.5), "random invert: a probability is between 0 and 1, got 1.5");
    says(&RandomApply::new(Invert, f64::NAN), "got NaN");
    says(&RandomChoice::new().push_weighted(Invert, -1.0), "weights must be at least 0");
    says(&RandomErasing::new(1.0).scale([0.5, 1.5]), "scale must be a range within 0 and 1");
    says(&RandomErasing::new(1.0).ratio([0.0, 1.0]), "ratio must be a range of positive numbers");
    says(&RandomErasing::new(1.0).value([1.0, 2.0]), "2 values do not fit an image of 3 channels");
    says(&Erase::new([0, 3], [1, 2], [0.0]), "are not inside of an image of 4×4");
    says(&Erase::new([usize::MAX, 3], [1, 2], [0.0]), "are not inside");
    for transform in [&Contrast::new(0.5) as &dyn Transform, &Saturation::new(0.5), &Hue::new(0.1), &RandomGrayscale::new(0.5)] {
        assert!(complaint(with(transform, [2, 4, 4])).contains("1 or 3 channels, got 2"));
    }
    // Images without pixels, and others of any number of channels.
    let any: [&dyn Transform; 8] = [
        &Brightness::new(0.5),
        &Sharpness::new(0.5),
        &Invert,
        &Posterize::new(2),
        &Solarize::new(9.0),
        &Autocontrast,
        &Equalize,
        &RandomErasing::new(1.0),
    ];
    for transform in any {
        for shape in [[0, 0, 0], [0, 4, 4], [3, 0, 4], [3, 4, 0], [2, 5, 5], [5, 3, 3]] {
            with(transform, shape).unwrap();
            let mut image = Image::from_floats(shape, vec![0.5; shape.iter().product()]).unwrap();
            transform.apply(&mut image, &mut Rng::new(0)).unwrap();
        }
    }
    for shape in [[3, 0, 4], [1, 4, 0]] {
        with(&(Contrast::new(0.5), Saturation::new(0.5), Hue::new(0.1), Blur::new(3, 1.0)), shape).unwrap();
    }
}

/// Makes a batch of four images of one colour each, 1 to 4, and the classes 0 to 3.
fn batch() -> Batch {
    let images = Tensor::from_vec((0..4 * 2 * 15).map(|i| (i / 30 + 1) as f32).collect(), [4, 2, 3, 5]).unwrap();
    Batch { images, labels: Tensor::from_vec(vec![0i64, 1, 2, 3], [4]).unwrap() }
}

#[test]
fn mixup_mixes_images_and_labels_alike_with_the_sample_before() {
    for seed in 0..50 {
        let Batch { images, labels } = MixUp::new(1.0, 5).apply(batch(), &mut Rng::new(seed)).unwrap();
        assert!(images.shape() == [4, 2, 3, 5] && labels.shape() == [4, 5] && labels.dtype() == DType::F32);
        let labels = labels.to_vec::<f32>().unwrap();
        let own = labels[0];
        for sample in 0..4 {
            let before = (sample + 3) % 4;
            let mut expected = [0.0; 5];
            (expected[sample], expected[before]) = (own, 1.0 - own);
            for (found, expected) in labels[sample * 5..][..5].iter().zip(expected) {
                // 1 minus a share rounds once.
                assert!((found - expected).abs() < 1e-6);
            }
            let colour = own * (sample + 1) as f32 + (1.0 - own) * (before + 1) as f32;
            let pixels = images.narrow(0, sample, 1).unwrap().to_vec::<f32>().unwrap();
            // One rounding of each product and of the sum, of values up to 4.
            assert!(pixels.iter().all(|x| (x - colour).abs() < 1e-6), "{pixels:?} {colour}");
        }
    }
}

#[test]
fn cutmix_pastes_a_rectangle_and_mixes_labels_by_its_area() {
    let mut pasted = 0;
    for seed in 0..100 {
        let Batch { images, labels } = CutMix::new(1.0, 4).apply(batch(), &mut Rng::new(seed)).unwrap();
        let labels = labels.to_vec::<f32>().unwrap();
        for sample in 0..4 {
            let before = (sample + 3) % 4;
            let pixels = images.narrow(0, sample, 1).unwrap().to_vec::<f32>().unwrap();
            let foreign: Vec<usize> = (0..30).filter(|&i| pixels[i] == (before + 1) as f32).collect();
            let kept = pixels.iter().filter(|&&x| x == (sample + 1) as f32).count();
            assert_eq!(foreign.len() + kept, 30);
            // A share of the area and its complement round once each.
            assert!((labels[sample * 4 + sample] - kept as f32 / 30.0).abs() < 1e-6);
            assert!((labels[sample * 4 + before] - foreign.len() as f32 / 30.0).abs() < 1e-6);
            let of_first_channel: Vec<usize> = foreign.iter().copied().filter(|i| *i < 15).collect();
            if let (Some(first), Some(last)) = (of_first_channel.first(), of_first_channel.last()) {
                let area = (last / 5 - first / 5 + 1) * (last % 5 - first % 5 + 1);
                assert!(area == of_first_channel.len() && 2 * area == foreign.len(), "a rectangle, in each channel");
                pasted += 1;
            }
        }
    }
    assert!(pasted > 100, "{pasted}");
}

#[test]
fn mixtures_follow_the_beta_distribution() {
    for alpha in [0.2, 1.0, 4.0] {
        let draws: Vec<f64> = (0..4000)
            .map(|seed| {
                let labels = Tensor::from_vec(vec![0i64, 1], [2]).unwrap();
                let batch = Batch { images: Tensor::zeros([2, 1, 1, 1]), labels };
                let mixed = MixUp::new(alpha, 2).apply(batch, &mut Rng::new(seed)).unwrap();
                f64::from(mixed.labels.to_vec::<f32>().unwrap()[0])
            })
            .collect();
        let mean = draws.iter().sum::<f64>() / 4000.0;
        let variance = draws.iter().map(|x| (x - 0.5).powi(2)).sum::<f64>() / 4000.0;
        // The variance is 1 / (4 (2α + 1)). The mean's deviation is at most √(0.18 / 4000) =
        // 0.0067, the variance's, of squares of at most 1/4, at most 0.25 / √4000 / 2 = 0.002: four
        // of each.
        assert!((mean - 0.5).abs() < 0.027, "{alpha}: {mean}");
        assert!((variance - 0.25 / (2.0 * alpha + 1.0)).abs() < 0.008, "{alpha}: {variance}");
    }
}

#[test]
fn mixtures_run_in_the_loader_and_train_through_cross_entropy() {
    let loader = DataLoader::new(Digits::train(), 16).shuffle(1).transform_batch(MixUp::new(0.4, 10)).transform_batch(CutMix::new(1.0, 10));
    let Batch { images, labels } = loader.epoch(0).next().unwrap().unwrap();
    assert!(images.shape() == [16, 1, 8, 8] && labels.shape() == [16, 10]);
    // Ten shares and their products round once each.
    assert!(labels.sum(1).unwrap().to_vec::<f32>().unwrap().iter().all(|sum| (sum - 1.0).abs() < 1e-5));
    let loss = Tensor::zeros([16, 10]).cross_entropy(&labels).unwrap().item::<f32>().unwrap();
    assert!((loss - 10f32.ln()).abs() < 1e-5, "{loss}");
    // The same seed gives the same mixtures.
    let again = loader.epoch(0).next().unwrap().unwrap();
    assert!(images == again.images && labels == again.labels);
}

#[test]
fn mixtures_name_what_does_not_fit() {
    let says = |mixed: Result<Batch>, words: &str| {
        let message = complaint(mixed);
        assert!(message.contains(words), "{message:?} should say {words:?}");
    };
    says(MixUp::new(0.0, 4).apply(batch(), &mut Rng::new(0)), "alpha must be positive and finite, got 0");
    says(CutMix::new(f64::NAN, 4).apply(batch(), &mut Rng::new(0)), "got NaN");
    let scalar = || Batch { images: Tensor::scalar(0f32), labels: Tensor::from_vec(Vec::<i64>::new(), [0]).unwrap() };
    says(MixUp::new(1.0, 4).apply(scalar(), &mut Rng::new(0)), "expected images [B, …], got a tensor without dimensions");
    says(CutMix::new(1.0, 4).apply(scalar(), &mut Rng::new(0)), "expected images [B, …], got a tensor without dimensions");
    says(MixUp::new(1.0, 3).apply(batch(), &mut Rng::new(0)), "label 3 is outside 0..3");
    let with = |labels: Tensor| CutMix::new(1.0, 4).apply(Batch { labels, ..batch() }, &mut Rng::new(0));
    says(with(Tensor::zeros([4, 3])), "4 images and 4 classes want labels [4] or [4, 4], got [4, 3]");
    says(with(Tensor::zeros([3])), "got [3]");
    says(with(Tensor::zeros([4])), "class numbers, which are i64");
    for alpha in [1e-310, 1e-300, 1e300] {
        let labels = MixUp::new(alpha, 4).apply(batch(), &mut Rng::new(0)).unwrap().labels.to_vec::<f32>().unwrap();
        assert!(labels.iter().all(|x| (0.0..=1.0).contains(x)), "{labels:?}");
    }
}

#[test]
fn mixtures_of_given_shares_and_erased_rectangles_are_torchvisions() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/transforms_mixtures.safetensors");
    let fixture = StateDict::load(path).unwrap();
    let get = |name: &str| fixture.get(name).unwrap().clone();
    let batch = || Batch { images: get("images"), labels: get("labels") };
    let mut cases = 0;
    for (key, expected) in fixture.iter() {
        let words: Vec<&str> = key.split(' ').collect();
        let number = |i: usize| words[i].parse::<f64>().unwrap();
        let place = |i: usize| number(i) as usize;
        let found = match words[0] {
            "mixup" => MixUp::new(1.0, 5).mix(batch(), number(1)).unwrap(),
            "cutmix" => CutMix::new(1.0, 5).mix(batch(), number(1), [place(2), place(3)]).unwrap(),
            "erase" => {
                let mut image = Image::from_tensor(&batch().images.narrow(0, 0, 1).unwrap().squeeze(0).unwrap()).unwrap();
                image.apply(&Erase::new([place(1), place(2)], [place(3), place(4)], [0.1, 0.5, 0.9])).unwrap();
                Batch { images: image.to_tensor(), ..batch() }
            }
            _ => continue,
        };
        let found = if key.ends_with("labels") { found.labels } else { found.images };
        assert_eq!(found.shape(), expected.shape());
        for (found, expected) in found.to_vec::<f32>().unwrap().iter().zip(expected.to_vec::<f32>().unwrap()) {
            // One rounding of each product and of the sum, of values up to 1.
            assert!((found - expected).abs() <= 1.2e-7, "{key}: {found} in place of {expected}");
        }
        cases += 1;
    }
    assert_eq!(cases, 2 * 4 + 2 * 5 + 3);
    for message in [complaint(MixUp::new(1.0, 5).mix(batch(), 1.5)), complaint(CutMix::new(1.0, 5).mix(batch(), f64::NAN, [0, 0]))] {
        assert!(message.contains("the share of an image itself is from 0 to 1"), "{message}");
    }
    assert!(complaint(CutMix::new(1.0, 5).mix(batch(), 0.5, [9, 0])).contains("row 9, column 0 is not in images of 9×13"));
}

/// Returns the checksums that torchvision's policies can give, from `fixtures/transforms.py`.
fn possible(name: &str) -> Vec<u32> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/transforms_policies.json")).unwrap();
    let content: serde_json::Value = serde_json::from_str(&text).unwrap();
    content[name].as_array().unwrap().iter().map(|sum| sum.as_u64().unwrap() as u32).collect()
}

/// Makes the picture of the policies' fixture.
fn policy_picture() -> Image {
    let value = |y: usize, x: usize, c: usize| {
        let byte = match (y, x) {
            (10..20, 5..30) => [200, 40, 90][c],
            _ => (y * 37 + x * x * 3 + c * 50 + (x * y) % 7 * 9) % 256,
        };
        (40.0 + byte as f64 * 0.7) as u8
    };
    let bytes = (0..40 * 48 * 3).map(|i| value(i / 144, i / 3 % 48, i % 3)).collect();
    Image::from_bytes([3, 40, 48], bytes).unwrap()
}

fn crc(image: &Image) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(image.bytes().unwrap());
    crc.sum()
}

#[test]
fn policies_give_all_of_torchvisions_pictures_and_no_others() {
    assert_eq!([crc(&policy_picture())], possible("picture")[..]);
    // The rarest result of AutoAugment has a probability of 0.0002, and there are some of these:
    // not all are asked for.
    let cases: [(&str, Box<dyn Transform>, u64, f64); 9] = [
        ("rand_augment 0", Box::new(RandAugment::new().num_ops(1).magnitude(0)), 400, 1.0),
        ("rand_augment 9", Box::new(RandAugment::new().num_ops(1)), 400, 1.0),
        ("rand_augment 17", Box::new(RandAugment::new().num_ops(1).magnitude(17)), 400, 1.0),
        ("rand_augment 30", Box::new(RandAugment::new().num_ops(1).magnitude(30)), 400, 1.0),
        ("rand_augment 9 twice", Box::new(RandAugment::new()), 800, 0.6),
        ("trivial_augment_wide", Box::new(TrivialAugmentWide::new()), 1200, 0.6),
        ("auto_augment_imagenet", Box::new(AutoAugment::new(AutoAugmentPolicy::ImageNet)), 800, 0.7),
        ("auto_augment_cifar10", Box::new(AutoAugment::new(AutoAugmentPolicy::Cifar10)), 800, 0.7),
        ("auto_augment_svhn", Box::new(AutoAugment::new(AutoAugmentPolicy::Svhn)), 800, 0.7),
    ];
    for (name, transform, draws, part) in cases {
        let possible = possible(name);
        let mut found = BTreeSet::new();
        for seed in 0..draws {
            let mut image = policy_picture();
            transform.apply(&mut image, &mut Rng::new(seed)).unwrap();
            assert!(possible.contains(&crc(&image)), "{name}: seed {seed}");
            found.insert(crc(&image));
        }
        assert!(found.len() as f64 >= part * possible.len() as f64, "{name}: {} of {}", found.len(), possible.len());
    }
}

#[test]
fn geometry_of_policies_moves_masks_and_colours_do_not() {
    let transform = RandAugment::new().num_ops(1).magnitude(20);
    let (mut moved, mut stayed) = (0, 0);
    for seed in 0..60 {
        let mut image = policy_picture();
        let mut alone = image.clone();
        let mut mask = Mask::new([40, 48], vec![1; 40 * 48]).unwrap();
        transform.apply_to_parts(&mut [Part::Image(&mut image), Part::Mask(&mut mask)], &mut Rng::new(seed)).unwrap();
        transform.apply(&mut alone, &mut Rng::new(seed)).unwrap();
        assert_eq!(image.bytes(), alone.bytes());
        if mask.classes().contains(&Mask::IGNORE) {
            // What geometry brings in is black.
            let black = image.bytes().unwrap().chunks(3).map(|pixel| pixel == [0; 3]);
            assert!(black.eq(mask.classes().iter().map(|&class| class == Mask::IGNORE)));
            moved += 1;
        } else {
            stayed += 1;
        }
    }
    assert!(moved > 10 && stayed > 10, "{moved} {stayed}");
}

#[test]
fn augmix_stays_between_the_image_and_its_changed_copies() {
    let start = policy_picture();
    let mixed = |mix: &AugMix, seed: u64| {
        let mut image = start.clone();
        mix.apply(&mut image, &mut Rng::new(seed)).unwrap();
        image
    };
    // Without chains, only the image's own part is left: uniform for α = 1.
    let parts: Vec<f64> = (0..300)
        .map(|seed| f64::from(mixed(&AugMix::new().mixture_width(0), seed).bytes().unwrap()[0]) / f64::from(start.bytes().unwrap()[0]))
        .collect();
    let mean = parts.iter().sum::<f64>() / 300.0;
    // Four standard deviations, 4 / √(12 · 300) = 0.067, and what truncation takes: half of a 40th.
    assert!((mean - 0.4875).abs() < 0.067, "{mean}");
    // Equal copies mix to the image itself.
    let gray = bytes([3, 8, 8], 90);
    for seed in 0..50 {
        let mut image = gray.clone();
        AugMix::new().severity(1).all_ops(false).apply(&mut image, &mut Rng::new(seed)).unwrap();
        // Only the threshold and bits of the smallest magnitude: solarize from 255 on, and 4 bits.
        assert!(image.bytes().unwrap().iter().all(|x| (80..=90).contains(x)));
    }
    assert!((0..20).all(|seed| mixed(&AugMix::new(), seed).bytes() != start.bytes()));
}

#[test]
fn arguments_of_policies_that_make_no_sense_are_named() {
    let says = |transform: &dyn Transform, words: &str| {
        let message = complaint(transform.apply(&mut policy_picture(), &mut Rng::new(1)));
        assert!(message.contains(words), "{message:?} should say {words:?}");
    };
    says(&RandAugment::new().magnitude(31), "the magnitude must be below the number of bins, 31, got 31");
    says(&RandAugment::new().num_magnitude_bins(1), "at least 2 bins");
    says(&RandAugment::new().num_ops(usize::MAX), "the number of changes is at most 256");
    says(&TrivialAugmentWide::new().num_magnitude_bins(0), "at least 2 bins");
    says(&AugMix::new().severity(11), "from 1 to 10, got 11");
    says(&AugMix::new().mixture_width(1 << 40), "the number of chains is at most 256");
    says(&AugMix::new().chain_depth(1000), "at most 256");
    says(&AugMix::new().alpha(0.0), "alpha must be positive");
}
