//! Small images of one size in memory, as bytes.

use crate::data::{Dataset, Image, Rng};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The classes of datasets of digits.
pub(crate) const DIGIT_CLASSES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Images and labels of a dataset that fits into memory.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// `[C, H, W]` of each image.
    pub(crate) shape: [usize; 3],
    /// One image after the other, each `[H, W, C]`.
    pub(crate) pixels: Vec<u8>,
    pub(crate) labels: Vec<u8>,
    /// What stands for 1.0.
    pub(crate) white: u8,
    /// What the labels mean.
    pub(crate) classes: [&'static str; 10],
}

impl Table {
    /// The bytes and the label of one image.
    pub(crate) fn sample(&self, index: usize) -> Result<(&[u8], i64)> {
        let size = self.shape.iter().product::<usize>();
        let Some(&label) = self.labels.get(index) else {
            return Err(Error::argument(self.name, format!("there is no sample {index}, the dataset has {}", self.labels.len())));
        };
        Ok((&self.pixels[index * size..][..size], i64::from(label)))
    }
}

impl Dataset for Table {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn load(&self, index: usize, image: &mut Image, _random: &mut Rng) -> Result<i64> {
        let (bytes, label) = self.sample(index)?;
        image.set_bytes(self.shape, bytes, f32::from(self.white))?;
        Ok(label)
    }

    fn get(&self, index: usize) -> Result<(Tensor, i64)> {
        let mut image = Image::default();
        let (bytes, label) = self.sample(index)?;
        image.set_bytes(self.shape, bytes, f32::from(self.white))?;
        Ok((image.try_to_tensor()?, label))
    }

    fn classes(&self) -> Vec<String> {
        self.classes.map(String::from).to_vec()
    }
}
