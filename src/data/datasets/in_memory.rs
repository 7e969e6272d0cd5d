//! Datasets of small images of one size in memory, as bytes.

use crate::data::{Dataset, Image, Rng};
use crate::error::{Error, Result};

/// The classes of datasets of digits.
pub(crate) const DIGIT_CLASSES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Images and labels of a dataset that fits into memory.
#[derive(Clone)]
pub(crate) struct InMemory {
    pub(crate) name: &'static str,
    /// `[C, H, W]` of each image.
    pub(crate) shape: [usize; 3],
    /// One image after the other, each `[H, W, C]`.
    pub(crate) pixels: Vec<u8>,
    pub(crate) labels: Vec<u8>,
    /// The byte that stands for 1.0.
    pub(crate) white: u8,
    /// The names of the labels.
    pub(crate) classes: &'static [&'static str],
}

impl InMemory {
    /// Returns the label of each sample.
    pub(crate) fn labels(&self) -> Vec<i64> {
        self.labels.iter().map(|&label| i64::from(label)).collect()
    }
}

impl Dataset for InMemory {
    type Sample = (Image, i64);

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn get(&self, index: usize, _: &mut Rng) -> Result<(Image, i64)> {
        let size = self.shape.iter().product::<usize>();
        let Some(&label) = self.labels.get(index) else {
            return Err(Error::argument(self.name, format!("there is no sample {index}, the dataset has {}", self.labels.len())));
        };
        let bytes = &self.pixels[index * size..][..size];
        let image = match self.white {
            255 => Image::from_bytes(self.shape, bytes.to_vec())?,
            white => Image::from_floats(self.shape, bytes.iter().map(|&byte| f32::from(byte) / f32::from(white)).collect())?,
        };
        Ok((image, i64::from(label)))
    }

    fn classes(&self) -> Vec<String> {
        self.classes.iter().map(|&name| name.to_string()).collect()
    }
}
