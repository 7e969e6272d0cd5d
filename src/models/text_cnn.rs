//! A convolutional network for sentences (Kim, *Convolutional Neural Networks for Sentence
//! Classification*, 2014).
//!
//! Each word becomes a vector; convolutions over 3, 4 and 5 neighbouring words detect phrases; the
//! maximum over the sentence says whether a phrase occurs, wherever it stands; a dense layer
//! classifies. This is the paper's CNN-rand, whose vectors are trained with the rest; vectors from
//! elsewhere can be [set](crate::nn::Parameter::set) as `embedding.weight`, and frozen.

use crate::autograd::no_grad;
use crate::error::{Error, Result};
use crate::nn::{Conv1d, Dropout, Embedding, Linear, Module, block};
use crate::tensor::Tensor;
use crate::visit_fields;

/// Sizes of a [`TextCnn`]. The defaults are the paper's.
#[derive(Clone, Debug, PartialEq)]
pub struct TextCnnOptions {
    vocabulary: usize,
    num_classes: usize,
    width: usize,
    kernels: Vec<usize>,
    maps: usize,
    dropout: f64,
}

impl TextCnnOptions {
    /// Creates options for words `0..vocabulary`, of which 0 fills up short sentences: vectors of
    /// 300 elements, 100 maps for each of the kernels 3, 4 and 5, dropout 0.5.
    pub fn new(vocabulary: usize, num_classes: usize) -> TextCnnOptions {
        TextCnnOptions { vocabulary, num_classes, width: 300, kernels: vec![3, 4, 5], maps: 100, dropout: 0.5 }
    }

    /// Sets the elements of a word's vector (default: 300).
    pub fn width(mut self, width: usize) -> TextCnnOptions {
        self.width = width;
        self
    }

    /// Sets the lengths of the kernels, in words (default: 3, 4, 5).
    pub fn kernels(mut self, kernels: impl Into<Vec<usize>>) -> TextCnnOptions {
        self.kernels = kernels.into();
        self
    }

    /// Sets the number of maps for each kernel length (default: 100).
    pub fn maps(mut self, maps: usize) -> TextCnnOptions {
        self.maps = maps;
        self
    }

    /// Sets the probability of dropout before the classifier (default: 0.5).
    pub fn dropout(mut self, p: f64) -> TextCnnOptions {
        self.dropout = p;
        self
    }
}

/// Kim's network for sentences; see [`text_cnn`].
pub struct TextCnn {
    /// A vector for each word.
    pub embedding: Embedding,
    /// Width→maps, one for each kernel length.
    pub convs: Vec<Conv1d>,
    /// Before `fc`.
    pub dropout: Dropout,
    /// Kernels · maps→classes.
    pub fc: Linear,
}

/// Creates the network for words `0..vocabulary`.
///
/// # Shape
/// Words `[N, L]` of type `i64` to logits `[N, num_classes]`; sentences are filled up with 0 to the
/// length of the longest, which is at least the longest kernel's.
///
/// ```
/// use convnet::{Tensor, models::{TextCnnOptions, text_cnn}, nn::Module};
///
/// let model = text_cnn(TextCnnOptions::new(1000, 2).width(32));
/// let words = Tensor::from_vec(vec![17i64, 4, 256, 9, 2, 31, 8, 0, 0, 0], [2, 5])?;
/// assert_eq!(model.forward(&words)?.shape(), [2, 2]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn text_cnn(options: TextCnnOptions) -> TextCnn {
    let TextCnnOptions { vocabulary, num_classes, width, kernels, maps, dropout } = options;
    TextCnn {
        embedding: Embedding::new(vocabulary, width).padding_idx(0),
        convs: kernels.iter().map(|&kernel| Conv1d::new(width, maps, kernel)).collect(),
        dropout: Dropout::new(dropout),
        fc: Linear::new(maps.saturating_mul(kernels.len()), num_classes),
    }
}

impl TextCnn {
    /// Scales the classifier's weights of each class down to a Euclidean norm of `limit`, where it
    /// is larger: after each step of training, the paper's regularisation next to dropout, with a
    /// limit of 3.
    ///
    /// # Errors
    /// [`Error::Argument`] unless the limit is positive.
    pub fn limit_norms(&self, limit: f64) -> Result<()> {
        if limit.is_nan() || limit <= 0.0 {
            return Err(Error::argument("limit_norms", format!("expected a positive limit, got {limit}")));
        }
        no_grad(|| {
            let weight = self.fc.weight.try_tensor()?;
            let norms = weight.norm(2.0, 1)?.unsqueeze(1)?.clamp(limit, f64::INFINITY)?;
            self.fc.weight.set(&weight.mul_scalar(limit).div(&norms)?)
        })
    }
}

impl Module for TextCnn {
    /// # Shape
    /// Words `[N, L]` of type `i64` to logits `[N, num_classes]`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the input is `[N, L]`; [`Error::Layer`] around [`Error::DType`] and
    /// [`Error::Value`] for what are no words, around [`Error::Argument`] or [`Error::Shape`] when
    /// a sentence is shorter than a kernel.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if x.ndim() != 2 {
            return Err(Error::shape("text_cnn", format!("expected words [N, L], got shape {:?}", x.shape())));
        }
        block(self, || {
            let x = self.embedding.forward(x)?.transpose(1, 2)?; //                   [N, width, L]
            // ReLU and maximum commute; the maximum first leaves less to do.
            let found = |conv: &Conv1d| conv.forward(&x)?.max(2)?.try_relu(); //      [N, maps]
            let found = self.convs.iter().map(found).collect::<Result<Vec<Tensor>>>()?;
            let found = Tensor::cat(&found.iter().collect::<Vec<_>>(), 1)?; //        [N, kernels · maps]
            self.fc.forward(&self.dropout.forward(&found)?) //                        [N, classes]
        })
    }

    visit_fields!(embedding, convs, dropout, fc);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(values: Vec<i64>) -> Tensor {
        let length = values.len();
        Tensor::from_vec(values, [1, length]).unwrap()
    }

    #[test]
    fn a_phrase_counts_the_same_wherever_it_stands() {
        let net = text_cnn(TextCnnOptions::new(50, 2).width(8).maps(4));
        net.eval();
        // Five places of filling on each side, so that kernels see the phrase and zeros alone.
        let at = |start: usize| {
            let mut values = vec![0; 20];
            values[start..start + 3].copy_from_slice(&[7, 8, 9]);
            net.forward(&words(values)).unwrap().to_vec::<f32>().unwrap()
        };
        assert_eq!(at(5), at(12));
        assert!(net.forward(&words(vec![9, 8, 7, 0, 0])).unwrap().to_vec::<f32>().unwrap() != at(5));
    }

    #[test]
    fn norms_over_the_limit_are_scaled_down_and_others_stay() {
        let net = text_cnn(TextCnnOptions::new(10, 2).kernels([1]).maps(2));
        net.fc.weight.set(&Tensor::from_vec(vec![3f32, 4.0, 0.3, 0.4], [2, 2]).unwrap()).unwrap();
        net.limit_norms(2.5).unwrap();
        let weight = net.fc.weight.tensor().to_vec::<f32>().unwrap();
        for (found, expected) in weight.iter().zip([1.5, 2.0, 0.3, 0.4]) {
            // Three roundings.
            assert!((found - expected).abs() < 1e-6, "{weight:?}");
        }
        for limit in [0.0, -1.0, f64::NAN] {
            assert!(net.limit_norms(limit).unwrap_err().to_string().contains("expected a positive limit"));
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let net = text_cnn(TextCnnOptions::new(10, 2).width(4).maps(3));
        let message = |x: Tensor| net.forward(&x).unwrap_err().to_string();
        assert!(message(words(vec![1, 2, 3, 10, 0])).contains("Embedding 10→4: index 10 (element 3) is out of range"));
        assert!(message(words(vec![1, 2, 3])).contains("Conv1d 4→3, k4"));
        assert!(message(Tensor::zeros([1, 5])).contains("Embedding 10→4: expected i64"), "{}", message(Tensor::zeros([1, 5])));
        assert!(message(words(vec![1, 2]).reshape([2]).unwrap()).contains("expected words [N, L], got shape [2]"));
        let none = text_cnn(TextCnnOptions::new(10, 2).kernels([]));
        assert!(none.forward(&words(vec![1])).is_err());
    }
}
