//! Architectures, one file for each paper, and a registry that builds them by name.
//!
//! ```
//! use convnet::{models, nn::Module};
//!
//! let by_function = models::lenet5(10);
//! let by_name = models::create("lenet5", 10)?;
//! assert_eq!(by_function.num_parameters(), by_name.num_parameters());
//! # Ok::<(), convnet::Error>(())
//! ```

mod lenet;

pub use lenet::{LeNet5, lenet5};

use crate::error::{Error, Result};
use crate::nn::Module;

/// A registered architecture.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ModelInfo {
    /// What [`create`] knows it by.
    pub name: &'static str,
    /// The shape of one input, `[C, H, W]`.
    pub input: [usize; 3],
    /// Where it was described first.
    pub paper: &'static str,
    build: fn(usize) -> Box<dyn Module>,
}

const MODELS: &[ModelInfo] = &[ModelInfo {
    name: "lenet5",
    input: [1, 28, 28],
    paper: "LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition",
    build: |classes| Box::new(lenet5(classes)),
}];

/// Every registered architecture.
pub fn all() -> &'static [ModelInfo] {
    MODELS
}

/// The names of all registered architectures.
pub fn names() -> impl ExactSizeIterator<Item = &'static str> {
    MODELS.iter().map(|model| model.name)
}

/// What is known of an architecture without building it.
///
/// # Errors
/// [`Error::Argument`] that lists the known names when this is none of them.
pub fn info(name: &str) -> Result<&'static ModelInfo> {
    MODELS.iter().find(|model| model.name == name).ok_or_else(|| {
        let known = names().collect::<Vec<_>>().join(", ");
        Error::argument("models", format!("no architecture is called {name:?}; there are: {known}"))
    })
}

/// Builds an architecture by its name, with fresh weights.
///
/// # Errors
/// [`Error::Argument`] when the name is not known (the message lists those that are), or for no classes.
pub fn create(name: &str, num_classes: usize) -> Result<Box<dyn Module>> {
    let model = info(name)?;
    if num_classes == 0 {
        return Err(Error::argument("models", format!("{name} needs at least one class, got 0")));
    }
    Ok((model.build)(num_classes))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::tensor::Tensor;

    #[test]
    fn names_are_unique() {
        assert_eq!(names().collect::<BTreeSet<_>>().len(), names().len());
    }

    #[test]
    fn lenet5_has_the_papers_layers() {
        let shapes: Vec<_> = lenet5(10).named_parameters().into_iter().map(|(name, p)| (name, p.shape().to_vec())).collect();
        let expected: [(&str, &[usize]); 10] = [
            ("conv1.weight", &[6, 1, 5, 5]),
            ("conv1.bias", &[6]),
            ("conv2.weight", &[16, 6, 5, 5]),
            ("conv2.bias", &[16]),
            ("fc1.weight", &[120, 400]),
            ("fc1.bias", &[120]),
            ("fc2.weight", &[84, 120]),
            ("fc2.bias", &[84]),
            ("fc3.weight", &[10, 84]),
            ("fc3.bias", &[10]),
        ];
        assert_eq!(shapes.len(), expected.len());
        for ((name, shape), (expected_name, expected_shape)) in shapes.iter().zip(expected) {
            assert_eq!((name.as_str(), shape.as_slice()), (expected_name, expected_shape));
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = create("lenet7", 10).err().unwrap().to_string();
        assert!(error.contains("lenet7") && error.contains("lenet5"), "{error}");
        let error = create("lenet5", 0).err().unwrap().to_string();
        assert!(error.contains("at least one class"), "{error}");
    }

    #[test]
    fn a_wrong_input_is_refused_by_the_layer_it_reaches() {
        let error = lenet5(10).forward(&Tensor::zeros([1, 3, 28, 28])).unwrap_err().to_string();
        assert!(error.contains("Conv2d") && error.contains("[1, 3, 28, 28]"), "{error}");
        let error = lenet5(10).forward(&Tensor::zeros([1, 1, 20, 20])).unwrap_err().to_string();
        assert!(error.contains("400"), "{error}");
    }
}
