//! The embedding layer: a table of vectors.

use crate::error::{Error, Result};
use crate::kernels::runtime::arrays::MapEach;
use crate::nn::init::layer_normal;
use crate::nn::module::Module;
use crate::nn::module::layer::{Layer, LayerPath};
use crate::nn::module::parameter::Parameter;
use crate::tensor::shape::try_numel;
use crate::tensor::{DType, Tensor};
use crate::visit_fields;

/// A table of vectors, one for each integer below `count`, as the input of networks for words,
/// categories or classes. The vectors are drawn from the standard normal distribution.
///
/// ```
/// use convnet::prelude::*;
/// use convnet::nn::Embedding;
///
/// let embedding = Embedding::new(1000, 64).padding_idx(0);
/// let words = Tensor::from_vec(vec![17i64, 4, 0, 0], [1, 4])?;
/// assert_eq!(embedding.forward(&words)?.shape(), [1, 4, 64]);
/// // A summary of a network that takes integers.
/// assert_eq!(embedding.summary_of([1, 4], DType::I64)?.parameters, 64_000);
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct Embedding {
    /// `[count, width]`.
    pub weight: Parameter,
    sizes: [usize; 2],
    padding: Option<usize>,
    path: LayerPath,
}

impl Embedding {
    /// Creates the layer with `count` vectors of `width` elements.
    pub fn new(count: usize, width: usize) -> Embedding {
        Embedding { weight: table([count, width], None), sizes: [count, width], padding: None, path: LayerPath::new() }
    }

    /// Sets the index of a vector that starts as zeros and gets no gradient, for the places that
    /// fill up sequences of different lengths (default: none). [`forward`](Module::forward) returns
    /// an error when there is no such vector.
    pub fn padding_idx(mut self, index: usize) -> Embedding {
        self.padding = Some(index);
        self.weight = table(self.sizes, self.padding);
        self
    }
}

/// Creates the table, with zeros in the row `padding`. It is empty when memory cannot hold it,
/// which `forward` reports.
fn table(sizes: [usize; 2], padding: Option<usize>) -> Parameter {
    let held = if try_numel(&sizes).is_some() { sizes } else { [0, 0] };
    layer_normal(held.to_vec(), move |values| {
        let [count, width] = held;
        if let Some(row) = padding.filter(|&row| row < count) {
            values[row * width..][..width].fill(0.0);
        }
    })
}

impl Layer for Embedding {
    fn describe(&self) -> String {
        let [count, width] = self.sizes.map_each(|size| size.to_string());
        format!("Embedding {count}→{width}")
    }
}

impl Module for Embedding {
    /// # Shape
    /// Indices of any shape `[…]` give `[…, width]`; row-major.
    ///
    /// # Errors
    /// [`Error::Layer`] around [`Error::DType`] unless the indices are `i64`, [`Error::Value`] for
    /// an index that is negative or not less than the number of vectors, [`Error::Argument`] when
    /// the index of the padding is not less than it.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        const OP: &str = "embedding";
        self.path.scope(self, x, || {
            let [count, width] = self.sizes;
            if self.weight.dims() != self.sizes {
                return Err(Error::argument(OP, format!("a table of {count} times {width} elements is more than memory can hold")));
            }
            if let Some(row) = self.padding.filter(|&row| row >= count) {
                return Err(Error::argument(OP, format!("the index {row} of the padding is not less than {count}, the number of vectors")));
            }
            x.expect_dtype(OP, DType::I64)?;
            let flat = x.reshape([x.numel()])?;
            let mut rows = self.weight.try_tensor()?.index_select(0, &flat)?;
            if let Some(row) = self.padding {
                // Cuts the gradient, not the value.
                rows = flat.ne_scalar(row as f64)?.unsqueeze(1)?.where_(&rows, &rows.detach())?;
            }
            let mut shape = x.shape().to_vec();
            shape.push(width);
            rows.reshape(shape)
        })
    }

    visit_fields!(layer path, weight, skip(sizes, padding));
}
