//! Handwritten digits, embedded in the crate.

use std::io::Read;

use flate2::read::GzDecoder;

use super::in_memory::{DIGIT_CLASSES, InMemory};
use crate::data::Image;
use crate::data::dataset::forward_dataset;

const SAMPLES: usize = 1797;
const PIXELS: usize = 8 * 8;
static EMBEDDED: &[u8] = include_bytes!("digits.bin.gz");

/// 1,797 handwritten digits of 8×8 pixels, embedded in the crate: real data without a download.
///
/// This is the test half of *Optical Recognition of Handwritten Digits* by E. Alpaydin and C.
/// Kaynak (1998), UCI Machine Learning Repository, [doi
/// 10.24432/C50P49](https://doi.org/10.24432/C50P49), licensed [CC BY
/// 4.0](https://creativecommons.org/licenses/by/4.0/), in the order in which scikit-learn
/// distributes it. A pixel counts the inked dots in a 4×4 block of the scan: 0 to 16, here divided
/// by 16.
///
/// Every fifth sample (with an index of 4 modulo 5) is in the test set, 359 of them; the other
/// 1,438 are for training. The file is not cut in two because its last part was written by people
/// who wrote none of the rest: tested on the last fifth, a plain LeNet stays near 0.94, which
/// measures new writers more than the network.
///
/// ```
/// use convnet::data::{DataLoader, Dataset, Digits, Resize, Rng};
///
/// let test = Digits::test();
/// let (image, label) = test.get(0, &mut Rng::new(0))?;
/// assert!(image.shape() == [1, 8, 8] && label == 4);
/// let large = DataLoader::new(test, 100).transform(Resize::new([28, 28]));
/// assert!(large.epoch(0).next().expect("four batches")?.images.shape() == [100, 1, 28, 28]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone)]
pub struct Digits(InMemory);

forward_dataset!([] Digits, (Image, i64), self => self.0);

impl Digits {
    /// Returns the 1,438 samples for training.
    pub fn train() -> Digits {
        Digits::only(|index| index % 5 != 4)
    }

    /// Returns the 359 samples for testing.
    pub fn test() -> Digits {
        Digits::only(|index| index % 5 == 4)
    }

    /// Returns all 1,797 samples in their original order.
    pub fn all() -> Digits {
        Digits::only(|_| true)
    }

    /// Returns the label of each sample, for samplers and splits.
    pub fn labels(&self) -> Vec<i64> {
        self.0.labels()
    }

    fn only(chosen: fn(usize) -> bool) -> Digits {
        let mut content = Vec::with_capacity(SAMPLES * (PIXELS + 1));
        GzDecoder::new(EMBEDDED).read_to_end(&mut content).expect("the embedded file is whole");
        let (pixels, labels) = content.split_at(SAMPLES * PIXELS);
        let rows = pixels.chunks_exact(PIXELS).enumerate().filter(|&(index, _)| chosen(index));
        Digits(InMemory {
            name: "Digits",
            shape: [1, 8, 8],
            pixels: rows.flat_map(|(_, row)| row).copied().collect(),
            labels: labels.iter().enumerate().filter(|&(index, _)| chosen(index)).map(|(_, &label)| label).collect(),
            white: 16,
            classes: &DIGIT_CLASSES,
        })
    }
}
