//! # A network that reads sentences
//!
//! A convolution detects the same pattern wherever it stands. In a picture that is an edge, in a
//! sentence a phrase. Kim (*Convolutional Neural Networks for Sentence Classification*, 2014)
//! represents each word by a vector, lets kernels of 3, 4 and 5 words look for phrases, keeps only
//! the strongest answer of each kernel in the whole sentence, and classifies with one dense layer.
//! He reports 76.1 % on the film reviews of Pang and Lee (2005), sentences that praise or blame,
//! with vectors that start as random numbers (CNN-rand, ten-fold cross-validation).
//!
//! The network is [`convnet::models::text_cnn`]. Sentences of similar length share a batch, so that
//! little is computed for filling. Training lasts five epochs, a number that was set after a look
//! at the curves of the first fold: more epochs learn the training sentences by heart. The weights
//! that are tested are a running average (EMA) of those of all steps. Without `reviews` in the data
//! directory the sentences are made: "good" praises and "bad" blames, but "not good" blames and
//! "not bad" praises, with other words around them. A network that only counts words cannot solve
//! that; one that sees phrases can.
//!
//! What to look at: the mean of the folds, their spread, the curves of training and test sentences,
//! which part, and the words and phrases to which the kernels answer most, printed at the end. No
//! one told the network which words matter.

mod reviews;

use std::collections::HashMap;

use convnet::chart::Chart;
use convnet::data::{BucketSampler, DataLoader, Sequence, Subset, stratified_k_folds};
use convnet::models::{TextCnn, TextCnnOptions, text_cnn};
use convnet::nn::init;
use convnet::prelude::*;
use convnet::train::{Ema, Mean, WeightAverage, accuracy, with_average};
use reviews::Reviews;

use super::lab::{Experiment, Lab, ensure, say, spread, table};

pub const EXPERIMENT: Experiment = Experiment {
    name: "text",
    claim: "kernels of 3, 4 and 5 words tell praise from blame, with vectors of words that start random (Kim, 2014: 76.1 %)",
    run,
};

fn run(lab: &Lab) -> Result<String> {
    let reviews = match lab.data("reviews") {
        Some(dir) => Reviews::read(&dir)?,
        None => Reviews::made(lab.pick(400, 2000), lab.seed),
    };
    let (count, words) = (reviews.sentences.len(), reviews.words.len());
    say(format_args!("{count} sentences, {words} words that occur at least twice\n"));

    let folds = stratified_k_folds(reviews.clone(), &reviews.labels, 10, lab.seed)?;
    let mut last = vec![];
    let mut model = None;
    let mut curves: Vec<[Vec<f64>; 2]> = vec![];
    for (fold, (train, test)) in folds.into_iter().enumerate().take(lab.pick(3, 10)) {
        let (trained, epochs) = train_on(lab, &train, &test, words, fold as u64)?;
        let [of_training, of_test] = epochs[epochs.len() - 1];
        say(format_args!("fold {fold}: accuracy {of_training:.3} in training, {of_test:.3} in the test"));
        last.push(of_test);
        curves.resize(epochs.len(), Default::default());
        for (by_fold, accuracies) in curves.iter_mut().zip(epochs) {
            by_fold.iter_mut().zip(accuracies).for_each(|(by_fold, accuracy)| by_fold.push(accuracy));
        }
        model = Some(trained);
    }
    if let Some(model) = model {
        say("\nphrases to which a kernel answers most, times its weight for praise less that for blame:\n");
        phrases(&model, &reviews, lab.pick(200, 2000))?;
    }

    let curve = |which: usize| curves.iter().enumerate().map(move |(epoch, by_fold)| ((epoch + 1) as f64, spread(&by_fold[which]).0));
    let chart = Chart::new("Sentences that praise or blame: means over the folds").x("epoch").y("accuracy");
    lab.chart("text.svg", chart.curve("training sentences", curve(0)).curve("test sentences", curve(1)))?;

    let (mean, deviation) = spread(&last);
    let bound = lab.pick(0.7, 0.75);
    ensure(mean >= bound, format_args!("the mean accuracy of the folds is {mean:.4}, expected at least {bound}"))?;
    Ok(format!("mean accuracy of {} folds {mean:.4} ± {deviation:.4}", last.len()))
}

/// Trains a network on one part of the reviews. Returns it with the accuracies after each epoch: on
/// the training sentences while it learnt, and on the others.
fn train_on(lab: &Lab, train: &Subset<Reviews>, test: &Subset<Reviews>, words: usize, fold: u64) -> Result<(TextCnn, Vec<[f64; 2]>)> {
    let model = text_cnn(TextCnnOptions::new(words, 2).width(lab.pick(32, 128)).maps(lab.pick(16, 100)));
    // The paper's range: as large as a standard normal's, the numbers drown what is learnt.
    model.embedding.weight.set(&init::uniform(model.embedding.weight.shape(), -0.25, 0.25)?)?;
    let mut optimizer = Adam::new(model.parameters(), lab.pick(3e-3, 1e-3));
    let mut average = Ema::new(lab.pick(0.9, 0.99));
    let loader = batches(train).seed(lab.seed + fold);
    let mut accuracies = vec![];
    for epoch in 0..lab.pick(8, 5) {
        let mut learning = Mean::default();
        for batch in loader.epoch(epoch) {
            let (words, labels) = batch?;
            let logits = model.forward(&words.values)?;
            optimizer.step(&logits.cross_entropy(&labels)?.backward()?)?;
            model.limit_norms(3.0)?;
            average.update(&model)?;
            learning.update(accuracy(&logits, &labels)?, labels.numel());
        }
        accuracies.push([learning.value(), with_average(&mut average, &model, || accuracy_on(&model, test))?]);
    }
    average.swap(&model)?;
    Ok((model, accuracies))
}

/// Returns batches of sentences of similar length, in random order.
fn batches(part: &Subset<Reviews>) -> DataLoader<(Sequence<i64>, i64)> {
    let lengths: Vec<usize> = part.indices().iter().map(|&index| part.whole().sentences[index].len() / 4).collect();
    DataLoader::new(part.clone(), 50).sampler(BucketSampler::new(lengths))
}

fn accuracy_on(model: &TextCnn, part: &Subset<Reviews>) -> Result<f64> {
    model.eval();
    let mut mean = Mean::default();
    for batch in batches(part).epoch(0) {
        let (words, labels) = batch?;
        mean.update(accuracy(&no_grad(|| model.forward(&words.values))?, &labels)?, labels.numel());
    }
    model.train();
    Ok(mean.value())
}

/// Prints the phrases of some sentences that speak most for praise and for blame.
fn phrases(model: &TextCnn, reviews: &Reviews, count: usize) -> Result<()> {
    let mut found = HashMap::<String, f32>::new();
    let weight = model.fc.weight.tensor().to_vec::<f32>()?;
    let (blame, praise) = weight.split_at(weight.len() / 2);
    // Every seventh sentence, round and round, is from all parts of the data.
    for words in reviews.sentences.iter().cycle().step_by(7).take(count) {
        let vectors = no_grad(|| model.embedding.forward(&Tensor::from_vec(words.clone(), [1, words.len()])?)?.transpose(1, 2))?;
        for (i, conv) in model.convs.iter().enumerate() {
            let answers = no_grad(|| conv.forward(&vectors))?;
            let &[_, maps, places] = answers.shape() else { unreachable!("a convolution gives [N, C, L]") };
            for (place, answer) in answers.to_vec::<f32>()?.iter().enumerate() {
                let (map, start) = (place / places, place % places);
                let score = answer.max(0.0) * (praise[i * maps + map] - blame[i * maps + map]);
                let length = words.len() + 1 - places;
                let phrase = words[start..start + length].iter().map(|&word| reviews.words[word as usize].as_str());
                let best = found.entry(phrase.collect::<Vec<_>>().join(" ").trim().to_string()).or_default();
                if score.abs() > best.abs() {
                    *best = score;
                }
            }
        }
    }
    let mut found: Vec<(String, f32)> = found.into_iter().collect();
    found.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let rows = found.iter().take(6).chain(&found[found.len().saturating_sub(6)..]);
    let rows = rows.map(|(phrase, score)| [phrase.clone(), format!("{score:+.2}")]);
    table(&[["phrase", "score"].map(String::from)].into_iter().chain(rows).collect::<Vec<_>>());
    Ok(())
}
