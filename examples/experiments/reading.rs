//! Lines of digits, read without being told where each digit is.
//!
//! Connectionist temporal classification (Graves, Fernández, Gomez and Schmidhuber, *Connectionist
//! Temporal Classification: Labelling Unsegmented Sequence Data with Recurrent Neural Networks*,
//! 2006) trains a network that gives a class, or a blank, to each step of its input from the
//! sequence of labels alone: its loss sums over all ways to spread the labels over the steps. The
//! authors had recurrent networks in mind; what the loss needs is an output for each step, and a
//! convolutional network whose maps are only pooled in height has one for each two columns.
//!
//! Lines of 3 to 6 digits, which touch or stand apart by chance, are read greedily: the best class
//! of each step, repetitions merged, blanks removed. A line counts when all of its digits are right
//! and in order; the error rate is the edit distance per digit. Since nothing in the network
//! depends on the width of the line, it also reads lines twice as long as any it was trained on:
//! look at the last row of the table.

use convnet::data::{ColorMap, Image, Rng};
use convnet::ops::{CtcOptions, Pool2dOptions, ctc_greedy_decode};
use convnet::prelude::*;

use super::lab::{Experiment, Glyph, Lab, enlarged, ensure, fit_by, glyphs, percent, predict, say, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "reading",
    claim: "with the CTC loss a convolutional network learns to read lines of digits from their labels alone",
    run,
};

/// The class of no digit.
const BLANK: usize = 10;

/// Convolutions whose pooling leaves a step for each two columns; then scores for each step.
struct Reader {
    features: Sequential,
    context: Sequential,
}

impl Reader {
    fn new() -> Reader {
        let block = |from, to| Sequential::new().push(Conv2d::new(from, to, 3).padding(1)).push(BatchNorm2d::new(to)).push(ReLU);
        let features = block(1, 16).push(MaxPool2d::new(2)).push(block(16, 32)).push(MaxPool2d::new([2, 1])).push(block(32, 48));
        let context = Sequential::new().push(Conv1d::new(48, 64, 5).padding(2)).push(ReLU).push(Conv1d::new(64, 11, 1));
        Reader { features, context }
    }
}

impl Module for Reader {
    /// Lines `[N, 1, H, W]` to log-probabilities `[N, W / 2, 11]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.features.forward(x)?; //                [N, 48, H / 4, W / 2]
        let height = x.size(2)?;
        let x = x.max_pool2d([height, 1], Pool2dOptions::new())?.squeeze(2)?; // [N, 48, W / 2]
        self.context.forward(&x)?.permute([0, 2, 1])?.log_softmax(-1)
    }

    visit_fields!(features, context);
}

/// Lines of one width, the rest of which is empty.
struct Lines {
    images: Tensor,
    /// One behind the other.
    digits: Vec<Vec<i64>>,
}

/// Sets digits beside each other: up to a quarter of their width overlaps, or is left free.
fn lines(glyphs: &[Glyph], size: usize, count: usize, lengths: [usize; 2], seed: u64) -> Result<Lines> {
    let width = lengths[1] * (size + size / 4);
    let (mut images, mut digits) = (vec![0f32; count * size * width], vec![]);
    for (index, canvas) in images.chunks_exact_mut(size * width).enumerate() {
        let mut rng = Rng::for_sample(seed, 0, index as u64);
        let mut left = rng.below(size / 4);
        let mut line = vec![];
        for _ in 0..lengths[0] + rng.below(lengths[1] - lengths[0] + 1) {
            let (pixels, class) = &glyphs[rng.below(glyphs.len())];
            for (at, &pixel) in pixels.iter().enumerate() {
                let place = &mut canvas[at / size * width + left + at % size];
                *place = place.max(pixel);
            }
            line.push(*class);
            left += size - size / 4 + rng.below(size / 2);
        }
        digits.push(line);
    }
    Ok(Lines { images: Tensor::from_vec(images, [count, 1, size, width])?, digits })
}

/// Returns the number of insertions, deletions and substitutions between two lines (Levenshtein).
fn edits(a: &[i64], b: &[i64]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let best = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], best);
        }
    }
    row[b.len()]
}

/// Reads lines; returns the shares of right lines and of wrong digits, and what was read.
fn read(net: &Reader, lines: &Lines) -> Result<([f64; 2], Vec<Vec<i64>>)> {
    let found = ctc_greedy_decode(&predict(net, &lines.images)?.permute([1, 0, 2])?, None, BLANK)?;
    let right = found.iter().zip(&lines.digits).filter(|(found, digits)| found == digits).count();
    let wrong: usize = found.iter().zip(&lines.digits).map(|(found, digits)| edits(found, digits)).sum();
    let total: usize = lines.digits.iter().map(Vec::len).sum();
    Ok(([right as f64 / found.len() as f64, wrong as f64 / total as f64], found))
}

fn run(lab: &Lab) -> Result<String> {
    let data = lab.digits()?;
    let (training, testing) = lab.pick((1500, 200), (4000, 500));
    let [inked, unseen] = [glyphs(&data.train, 60_000)?, glyphs(&data.test, 10_000)?];
    let train = lines(&inked, data.size, training, [3, 6], lab.seed)?;
    let test = lines(&unseen, data.size, testing, [3, 6], lab.seed + 1)?;
    let long = lines(&unseen, data.size, testing, [12, 12], lab.seed + 1)?;

    let mut figures: [Vec<f64>; 4] = Default::default();
    let mut sheet = vec![];
    for seed in 0..lab.pick(1, 3) {
        convnet::manual_seed(lab.seed + seed);
        let net = Reader::new();
        let loss = |batch: &Tensor| {
            let lines: Vec<&Vec<i64>> = batch.to_vec::<i64>()?.iter().map(|&i| &train.digits[i as usize]).collect();
            let targets: Vec<i64> = lines.iter().flat_map(|line| line.iter().copied()).collect();
            let lengths = Tensor::from_vec(lines.iter().map(|line| line.len() as i64).collect(), [lines.len()])?;
            let scores = net.forward(&train.images.index_select(0, batch)?)?.permute([1, 0, 2])?;
            let steps = Tensor::full([lines.len()], scores.size(0)? as f64, DType::I64);
            let total = targets.len();
            let options = CtcOptions { blank: BLANK, ..Default::default() };
            scores.ctc_loss_with(&Tensor::from_vec(targets, [total])?, &steps, &lengths, &options)
        };
        fit_by(&net, training, 6, lab.pick(32, 16), lab.pick(0.01, 0.005), lab.seed + seed, loss)?;
        let ([right, wrong], found) = read(&net, &test)?;
        let ([right_long, wrong_long], _) = read(&net, &long)?;
        figures.iter_mut().zip([right, wrong, right_long, wrong_long]).for_each(|(all, figure)| all.push(figure));
        if seed == 0 {
            for (i, line) in found.iter().take(8).enumerate() {
                let text = |digits: &[i64]| digits.iter().map(ToString::to_string).collect::<String>();
                say(format_args!("line {i}: {:>6}, read as {:>6}", text(&test.digits[i]), text(line)));
                sheet.push(enlarged(&test.images.narrow(0, i, 1)?.squeeze(0)?, ColorMap::Gray, 32 / data.size)?);
            }
        }
    }

    say("");
    let [right, wrong, right_long, wrong_long] = &figures;
    table(&[
        [data.name.to_string(), "lines right".to_string(), "errors per digit".to_string()],
        ["lines of 3 to 6".to_string(), percent(right), percent(wrong)],
        ["lines of 12".to_string(), percent(right_long), percent(wrong_long)],
    ]);
    lab.save("reading.png", &Image::grid(&sheet, 2, 4)?)?;
    let bound = lab.pick(0.5, 0.8);
    ensure(spread(right).0 > bound, format_args!("{} of the lines were read, less than {bound}", percent(right)))?;
    ensure(spread(wrong_long).0 < lab.pick(0.3, 0.1), format_args!("{} of the digits of long lines were wrong", percent(wrong_long)))?;
    Ok(format!("{} of lines read in full, {} of lines twice as long", percent(right), percent(right_long)))
}
