//! The samples of a data set that a network classifies worst.

use super::ReportPicture;
use crate::DType;
use crate::data::Image;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Finds the samples with the largest losses, batch by batch, for
/// [`HtmlReport::pictures`](super::HtmlReport::pictures). It keeps only their pictures.
///
/// The loss is the cross-entropy of the sample. Samples with equal losses stay in the order in
/// which they came.
///
/// ```
/// use convnet::Tensor;
/// use convnet::train::{HtmlReport, WorstSamples};
///
/// let mut worst = WorstSamples::new(16).normalized([0.5; 3], [0.25; 3]);
/// let (images, labels) = (Tensor::randn([4, 3, 8, 8]), Tensor::from_vec(vec![0i64, 1, 1, 0], [4])?);
/// let logits = Tensor::from_vec(vec![3.0f32, 0.0, 2.0, 0.0, 0.0, 1.0, 0.0, 0.5], [4, 2])?; // model.forward(&images)?
/// worst.add(&images, &logits, &labels)?;
/// let pictures = worst.pictures(&["cat", "dog"]);
/// assert_eq!(pictures.len(), 2); // Two of four are right.
/// let report = HtmlReport::new("Cats and dogs").pictures("Worst-classified samples", &pictures);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WorstSamples {
    count: usize,
    mean: Vec<f32>,
    std: Vec<f32>,
    /// By loss, the largest first.
    samples: Vec<Sample>,
    /// The number of samples so far.
    seen: usize,
}

#[derive(Clone, Debug)]
struct Sample {
    /// The place in the order of all samples.
    index: usize,
    loss: f64,
    truth: usize,
    predicted: usize,
    image: Image,
}

impl WorstSamples {
    /// Keeps this many samples.
    pub fn new(count: usize) -> WorstSamples {
        WorstSamples { count, mean: Vec::new(), std: Vec::new(), samples: Vec::new(), seen: 0 }
    }

    /// Sets the normalisation of the images, which is undone in the pictures: mean and standard
    /// deviation by channel, as given to [`Normalize`](crate::data::Normalize).
    #[must_use]
    pub fn normalized(self, mean: impl AsRef<[f64]>, std: impl AsRef<[f64]>) -> WorstSamples {
        let narrow = |numbers: &[f64]| numbers.iter().map(|&number| number as f32).collect();
        WorstSamples { mean: narrow(mean.as_ref()), std: narrow(std.as_ref()), ..self }
    }

    /// Adds a batch: images `[N, C, H, W]`, logits `[N, K]`, labels `[N]` of `i64`. Samples that
    /// are classified right are passed over.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes do not fit each other, [`Error::DType`] for labels of
    /// another type, [`Error::Value`] for a label out of range.
    pub fn add(&mut self, images: &Tensor, logits: &Tensor, labels: &Tensor) -> Result<()> {
        const OP: &str = "worst samples";
        let (&[count, channels, height, width], &[rows, classes]) = (images.shape(), logits.shape()) else {
            let message = format!("expected images [N, C, H, W] and logits [N, K], got {:?} and {:?}", images.shape(), logits.shape());
            return Err(Error::shape(OP, message));
        };
        if rows != count || labels.shape() != [count] {
            let message = format!("{count} images with logits {:?} and labels {:?}", logits.shape(), labels.shape());
            return Err(Error::shape(OP, message));
        }
        for (name, numbers) in [("means", &self.mean), ("deviations", &self.std)] {
            if !numbers.is_empty() && numbers.len() != channels {
                return Err(Error::shape(OP, format!("{} {name} of the normalisation for {channels} channels", numbers.len())));
            }
        }
        let labels = labels.to_vec::<i64>()?;
        if let Some(label) = labels.iter().find(|&&label| usize::try_from(label).map_or(true, |label| label >= classes)) {
            return Err(Error::value(OP, format!("label {label} is not one of {classes} classes")));
        }
        let scores = logits.detach().to_dtype(DType::F64)?.log_softmax(-1)?.to_vec::<f64>()?;
        for (i, (row, label)) in scores.chunks(classes.max(1)).zip(labels).enumerate() {
            let truth = label as usize;
            let mut predicted = 0;
            row.iter().enumerate().for_each(|(class, score)| predicted = if *score > row[predicted] { class } else { predicted });
            // A score that is not a number is the worst.
            let loss = if row[truth].is_nan() { f64::INFINITY } else { -row[truth] };
            let place = self.samples.partition_point(|sample| sample.loss >= loss);
            if (predicted == truth && loss.is_finite()) || place >= self.count {
                continue;
            }
            let image = images.detach().narrow(0, i, 1)?.reshape([channels, height, width])?;
            let image = self.displayed(&image)?;
            self.samples.insert(place, Sample { index: self.seen + i, loss, truth, predicted, image });
            self.samples.truncate(self.count);
        }
        self.seen += count;
        Ok(())
    }

    /// Returns the picture of an image, without the normalisation.
    fn displayed(&self, image: &Tensor) -> Result<Image> {
        let image = if image.dtype() == DType::U8 { image.clone() } else { image.to_dtype(DType::F32)? };
        let mut image = Image::from_tensor(&image)?;
        if !self.mean.is_empty() && !self.std.is_empty() {
            for pixel in image.pixels_mut().chunks_exact_mut(self.mean.len()) {
                pixel.iter_mut().zip(self.mean.iter().zip(&self.std)).for_each(|(value, (mean, std))| *value = *value * std + mean);
            }
        }
        Ok(image.to_bytes())
    }

    /// Returns the samples as pictures with loss and place in the data, the largest loss first. A
    /// class without a name has its number.
    pub fn pictures(&self, classes: &[impl AsRef<str>]) -> Vec<ReportPicture> {
        let name = |class: usize| classes.get(class).map_or_else(|| class.to_string(), |name| name.as_ref().to_string());
        let picture = |sample: &Sample| {
            let note = format!("sample {}, loss {:.2}", sample.index, sample.loss);
            ReportPicture::new(sample.image.clone(), name(sample.truth), name(sample.predicted)).note(note)
        };
        self.samples.iter().map(picture).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(worst: &mut WorstSamples, logits: &[[f32; 2]], labels: &[i64], value: f32) -> Result<()> {
        let images = Tensor::full([labels.len(), 1, 1, 2], f64::from(value), DType::F32);
        let logits = Tensor::from_vec(logits.concat(), [labels.len(), 2])?;
        worst.add(&images, &logits, &Tensor::from_vec(labels.to_vec(), [labels.len()])?)
    }

    #[test]
    fn largest_losses_of_all_batches_are_kept_in_order_without_right_ones() {
        let mut worst = WorstSamples::new(3).normalized([0.25], [0.5]);
        add(&mut worst, &[[1.0, 0.0], [0.0, 3.0], [9.0, 0.0]], &[1, 0, 0], 0.5).unwrap();
        add(&mut worst, &[[0.0, 5.0], [f32::NAN, 0.0], [0.5, 0.0]], &[0, 1, 1], -0.5).unwrap();
        let found: Vec<(usize, usize, usize)> = worst.samples.iter().map(|sample| (sample.index, sample.truth, sample.predicted)).collect();
        assert_eq!(found, [(4, 1, 0), (3, 0, 1), (1, 0, 1)]);
        // ln(1 + e⁵)
        assert!((worst.samples[1].loss - 5.006_715_348).abs() < 1e-8);
        // -0.5 and 0.5 times 0.5, plus 0.25, in 255ths.
        assert_eq!(worst.samples[1].image.bytes(), Some(&[0, 0][..]));
        assert_eq!(worst.samples[2].image.bytes(), Some(&[128, 128][..]));
        assert_eq!(worst.pictures(&["cat"])[0].predicted, "cat");
        assert_eq!(worst.pictures(&["cat"])[0].truth, "1");
    }

    #[test]
    fn batches_that_do_not_fit_are_errors() {
        let mut worst = WorstSamples::new(2);
        assert!(matches!(add(&mut worst, &[[0.0, 1.0]], &[2], 0.0), Err(Error::Value { .. })));
        assert!(matches!(add(&mut worst, &[[0.0, 1.0]], &[-1], 0.0), Err(Error::Value { .. })));
        let images = Tensor::zeros([2, 1, 1, 1]);
        let labels = Tensor::from_vec(vec![0i64], [1]).unwrap();
        assert!(matches!(worst.add(&images, &Tensor::zeros([2, 2]), &labels), Err(Error::Shape { .. })));
        let mut coloured = WorstSamples::new(2).normalized([0.5; 3], [0.5; 3]);
        assert!(matches!(add(&mut coloured, &[[0.0, 1.0]], &[0], 0.0), Err(Error::Shape { .. })));
    }
}
