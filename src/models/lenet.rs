//! LeNet-5 (LeCun, Bottou, Bengio & Haffner, *Gradient-Based Learning Applied to Document
//! Recognition*, 1998).
//!
//! Two convolutions, each with pooling, detect strokes and parts of digits; three dense layers
//! classify them. As in most present-day implementations, ReLU replaces the scaled tanh, max
//! pooling the trainable averages, and plain logits for cross-entropy the radial basis functions;
//! every map of the second convolution depends on all six of the first (the paper's table I
//! connects them sparsely). The paper pads the 28×28 digits to 32×32 pixels; here the first
//! convolution pads them.

use crate::error::Result;
use crate::nn::{Conv2d, Linear, Module};
use crate::ops::Pool2dOptions;
use crate::tensor::Tensor;
use crate::visit_fields;

/// LeNet-5; see [`lenet5`].
pub struct LeNet5 {
    /// 1→6 channels, 5×5, padding 2: the paper's C1.
    pub conv1: Conv2d,
    /// 6→16 channels, 5×5: the paper's C3.
    pub conv2: Conv2d,
    /// 400→120: the paper's C5, whose 5×5 kernel covers its whole input.
    pub fc1: Linear,
    /// 120→84: the paper's F6.
    pub fc2: Linear,
    /// 84→classes.
    pub fc3: Box<dyn Module>,
}

/// Creates LeNet-5 for grey 28×28 images, with PyTorch's initialisation of its layers.
///
/// # Shape
/// `[N, 1, 28, 28]` to logits `[N, num_classes]`.
///
/// ```
/// use convnet::{Tensor, models::lenet5, nn::Module};
///
/// let model = lenet5(10);
/// assert_eq!(model.num_parameters(), 61_706);
/// assert_eq!(model.forward(&Tensor::randn([2, 1, 28, 28]))?.shape(), [2, 10]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn lenet5(num_classes: usize) -> LeNet5 {
    LeNet5 {
        conv1: Conv2d::new(1, 6, 5).padding(2),
        conv2: Conv2d::new(6, 16, 5),
        fc1: Linear::new(16 * 5 * 5, 120),
        fc2: Linear::new(120, 84),
        fc3: Box::new(Linear::new(84, num_classes)),
    }
}

impl Module for LeNet5 {
    /// # Shape
    /// `[N, 1, 28, 28]` to logits `[N, num_classes]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // Max pooling and ReLU commute; pooling first leaves ReLU a quarter of the values.
        let pool = |x: Tensor| x.max_pool2d(2, Pool2dOptions::new())?.try_relu();
        // [N, 1, 28, 28]
        let x = pool(self.conv1.forward(x)?)?; //  C1: [N, 6, 28, 28], S2: [N, 6, 14, 14]
        let x = pool(self.conv2.forward(&x)?)?; // C3: [N, 16, 10, 10], S4: [N, 16, 5, 5]
        let x = x.flatten(1, -1)?; //              [N, 400]
        let x = self.fc1.forward(&x)?.try_relu()?; // C5: [N, 120]
        let x = self.fc2.forward(&x)?.try_relu()?; // F6: [N, 84]
        self.fc3.forward(&x) //                    [N, num_classes]
    }

    visit_fields!(conv1, conv2, fc1, fc2, fc3);
}
