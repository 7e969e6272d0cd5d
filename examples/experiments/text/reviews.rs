//! Sentences of film reviews, read from files or made.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use convnet::data::{Dataset, Rng, Sequence};
use convnet::prelude::*;

/// Sentences as numbers of words, with their classes: 1 for praise.
#[derive(Clone)]
pub struct Reviews {
    pub sentences: Vec<Vec<i64>>,
    pub labels: Vec<i64>,
    /// By number; number 0 fills up short sentences, 1 stands for words that occur once.
    pub words: Vec<String>,
}

impl Reviews {
    /// Reads `rt-polarity.neg` and `rt-polarity.pos`, a sentence in a line, in Latin-1.
    pub fn read(dir: &Path) -> Result<Reviews> {
        let mut texts = vec![];
        for (label, file) in [(0, "rt-polarity.neg"), (1, "rt-polarity.pos")] {
            let path = dir.join(file);
            let bytes = fs::read(&path).map_err(|source| Error::Io { path, source })?;
            let text: String = bytes.into_iter().map(char::from).collect();
            texts.extend(text.lines().filter(|line| !line.trim().is_empty()).map(|line| (line.to_string(), label)));
        }
        Ok(Reviews::new(&texts))
    }

    /// Makes sentences in which "not" turns the meaning.
    pub fn made(count: usize, seed: u64) -> Reviews {
        const OTHERS: [&str; 12] = ["the", "film", "is", "a", "story", "of", "two", "men", "and", "very", "long", "today"];
        let mut rng = Rng::new(seed);
        let mut sentence = |i: usize| {
            let (praise, not) = (i.is_multiple_of(2), rng.below(2) == 1);
            let mut words: Vec<&str> = (0..4 + rng.below(12)).map(|_| OTHERS[rng.below(OTHERS.len())]).collect();
            let at = rng.below(words.len());
            words.insert(at, if praise == not { "bad" } else { "good" });
            if not {
                words.insert(at, "not");
            }
            (words.join(" "), i64::from(praise))
        };
        Reviews::new(&(0..count).map(&mut sentence).collect::<Vec<_>>())
    }

    fn new(texts: &[(String, i64)]) -> Reviews {
        let mut counts = HashMap::<&str, usize>::new();
        texts.iter().flat_map(|(text, _)| text.split_whitespace()).for_each(|word| *counts.entry(word).or_default() += 1);
        let mut frequent: Vec<&str> = counts.into_iter().filter(|&(_, count)| count >= 2).map(|(word, _)| word).collect();
        frequent.sort_unstable();
        let words: Vec<String> = ["", "?"].iter().chain(&frequent).map(|word| word.to_string()).collect();
        let numbers: HashMap<&str, i64> = words.iter().map(String::as_str).zip(0..).collect();
        // Kernels also see the ends: two places of filling on each side.
        let sentence = |text: &String| {
            let words = text.split_whitespace().map(|word| numbers.get(word).copied().unwrap_or(1));
            [0, 0].into_iter().chain(words).chain([0, 0]).collect()
        };
        Reviews {
            sentences: texts.iter().map(|(text, _)| sentence(text)).collect(),
            labels: texts.iter().map(|&(_, label)| label).collect(),
            words: words.clone(),
        }
    }
}

impl Dataset for Reviews {
    type Sample = (Sequence<i64>, i64);

    fn len(&self) -> usize {
        self.sentences.len()
    }

    fn get(&self, index: usize, _: &mut Rng) -> Result<Self::Sample> {
        Ok((Sequence(self.sentences[index].clone()), self.labels[index]))
    }
}
