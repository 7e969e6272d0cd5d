//! One network for pictures of several sizes.
//!
//! Convolutions take pictures of any size; the dense layer at the end does not. Three ways around
//! it: bring all pictures to one size; take the mean of each map (global average pooling, Lin et
//! al., 2014); or pool each map over grids of 1×1, 2×2 and 4×4 windows, which keeps where things
//! are (spatial pyramid pooling, He et al., 2014). A batch needs pictures of one size as well:
//! either they are padded with black to the largest, or each batch takes its pictures from one
//! bucket of equal sizes.
//!
//! The data are digits at five sizes, at random; two further sizes are for the test only, a smaller
//! and a larger one. Look at the chart: accuracy by size, and which form survives an unseen size.

use convnet::chart::Chart;
use convnet::data::{BucketSampler, DataLoader, Dataset, Image, Pad, Resize, Rng};
use convnet::nn::{AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential, SpatialPyramidPooling};
use convnet::{Result, manual_seed};

use super::lab::{Experiment, Lab, Pictures, accuracy, ensure, first, fit, plus_minus, say, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "sizes",
    claim: "global average pooling, pyramid pooling and buckets let one network read pictures of several sizes",
    run,
};

/// Sizes to train on; the first and the last are for tests only.
const SIZES: [usize; 7] = [16, 20, 24, 28, 32, 36, 44];
const KNOWN: std::ops::Range<usize> = 1..6;

/// The side that all pictures are brought to, for the network with a dense layer.
const FIXED: usize = 28;

/// Pictures brought to different sizes.
struct Sized {
    pictures: Pictures,
    sizes: Vec<usize>,
    /// Side that smaller ones are padded to with black, at the right and lower ends.
    least: usize,
}

impl Dataset for Sized {
    type Sample = (Image, i64);

    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn get(&self, index: usize, rng: &mut Rng) -> Result<(Image, i64)> {
        let (mut image, label) = self.pictures.get(index, rng)?;
        let size = self.sizes[index];
        image.apply(&Resize::new(size))?;
        if size < self.least {
            image.apply(&Pad::new([0, 0, self.least - size, self.least - size]))?;
        }
        Ok((image, label))
    }
}

/// What follows the convolutions.
#[derive(Clone, Copy, PartialEq)]
enum Head {
    Dense,
    Average,
    Pyramid,
}

/// How batches get pictures of one size.
#[derive(Clone, Copy, PartialEq)]
enum Batching {
    Resized,
    Buckets,
    Padded,
}

const WAYS: [(&str, Head, Batching); 5] = [
    ("dense layer, all resized to 28", Head::Dense, Batching::Resized),
    ("average pooling, buckets", Head::Average, Batching::Buckets),
    ("average pooling, padded", Head::Average, Batching::Padded),
    ("pyramid pooling, buckets", Head::Pyramid, Batching::Buckets),
    ("pyramid pooling, padded", Head::Pyramid, Batching::Padded),
];

fn run(lab: &Lab) -> Result<String> {
    let digits = lab.digits()?;
    let train = first(&digits.train, lab.pick(600, 2000))?;
    let test = first(&digits.test, lab.pick(100, 500))?;
    let (seeds, epochs) = (lab.pick(1, 3), lab.pick(7, 5));
    say(format_args!("{}: {} pictures to train on, {} to test on at each size, {seeds} seeds\n", digits.name, train.len(), test.len()));

    let mut rows = vec![["accuracy", "16 (new)", "20", "24", "28", "32", "36", "44 (new)", "known sizes"].map(String::from)];
    let mut chart = Chart::new("Accuracy by size of the picture").x("pixels on a side").y("accuracy");
    let mut means = Vec::new();
    for (name, head, batching) in WAYS {
        // By size, then by seed.
        let mut results = vec![Vec::new(); SIZES.len()];
        for seed in lab.seed..lab.seed + seeds {
            manual_seed(seed);
            let model = network(head);
            let mut rng = Rng::new(seed);
            let sizes: Vec<usize> = (0..train.len()).map(|_| SIZES[KNOWN][rng.below(KNOWN.len())]).collect();
            fit(&model, &loader(&train, sizes, batching, seed), epochs, 0.1)?;
            for (result, size) in results.iter_mut().zip(SIZES) {
                result.push(accuracy(&model, &loader(&test, vec![size; test.len()], batching, 0))?);
            }
        }
        let by_size: Vec<(f64, f64)> = results.iter().map(|result| spread(result)).collect();
        let by_seed: Vec<f64> =
            (0..seeds as usize).map(|i| results[KNOWN].iter().map(|result| result[i]).sum::<f64>() / KNOWN.len() as f64).collect();
        means.push(spread(&by_seed).0);
        chart = chart.curve(name, SIZES.iter().zip(&by_size).map(|(&size, &(mean, _))| (size as f64, mean)));
        let cells = by_size.iter().map(|(mean, _)| format!("{mean:.3}"));
        let cells: Vec<String> = [name.to_string()].into_iter().chain(cells).chain([plus_minus(&by_seed)]).collect();
        rows.extend(<[String; 9]>::try_from(cells));
    }
    table(&rows);
    lab.chart("sizes.svg", chart.vertical("training sizes from", 20.0).vertical("to", 36.0))?;
    let worst = means.iter().copied().fold(f64::INFINITY, f64::min);
    ensure(worst > lab.pick(0.3, 0.8), format_args!("one of the forms reaches {worst:.4} only"))?;
    Ok(format!(
        "accuracy at known sizes: resized {:.4}, average pooling {:.4}, pyramid pooling {:.4} (buckets)",
        means[0], means[1], means[3]
    ))
}

fn network(head: Head) -> Sequential {
    let mut net = Sequential::new();
    for (inputs, outputs) in [(1, 16), (16, 32), (32, 48)] {
        net = net.push(Conv2d::new(inputs, outputs, 3).padding(1).bias(false)).push(BatchNorm2d::new(outputs)).push(ReLU);
        if outputs < 48 {
            net = net.push(MaxPool2d::new(2));
        }
    }
    // [N, 48, H / 4, W / 4]
    match head {
        Head::Dense => net.push(Flatten).push(Linear::new(48 * (FIXED / 4) * (FIXED / 4), 10)),
        Head::Average => net.push(AdaptiveAvgPool2d::new(1)).push(Flatten).push(Linear::new(48, 10)),
        Head::Pyramid => net.push(SpatialPyramidPooling::new([1, 2, 4])).push(Linear::new(48 * (1 + 4 + 16), 10)),
    }
}

fn loader(pictures: &Pictures, sizes: Vec<usize>, batching: Batching, seed: u64) -> DataLoader {
    let least = if batching == Batching::Padded { SIZES[KNOWN.end - 1] } else { 0 };
    let loader = DataLoader::new(Sized { pictures: pictures.clone(), sizes: sizes.clone(), least }, 32);
    match batching {
        Batching::Resized => loader.shuffle(seed).transform(Resize::new(FIXED)),
        Batching::Buckets => loader.seed(seed).sampler(BucketSampler::new(sizes)),
        Batching::Padded => loader.shuffle(seed),
    }
}
