//! Pooling layers.

use super::pair::{Pair, short};
use crate::nn::module::layer::LayerPath;
use crate::nn::module::macros::stateless;
use crate::ops::Pool2dOptions;

/// [`Tensor::max_pool2d`](crate::Tensor::max_pool2d) as a layer.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{MaxPool2d, Module};
///
/// let pool = MaxPool2d::new(3).stride(2).padding(1);
/// assert!(pool.forward(&Tensor::zeros([1, 64, 112, 112]))?.shape() == [1, 64, 56, 56]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Debug)]
pub struct MaxPool2d {
    kernel: [usize; 2],
    options: Pool2dOptions,
    path: LayerPath,
}

impl MaxPool2d {
    /// Creates the layer with windows of this size and the same stride.
    pub fn new(kernel: impl Into<Pair>) -> MaxPool2d {
        MaxPool2d { kernel: kernel.into().0, options: Pool2dOptions::default(), path: LayerPath::new() }
    }

    /// Sets the stride of the window (default: the kernel size).
    pub fn stride(mut self, stride: impl Into<Pair>) -> MaxPool2d {
        self.options.stride = stride.into().0;
        self
    }

    /// Sets the padding on each side, which is never the maximum (default: 0); at most half of the
    /// dilated kernel.
    pub fn padding(mut self, padding: impl Into<Pair>) -> MaxPool2d {
        self.options.padding = padding.into().0;
        self
    }

    /// Sets the dilation, the distance between window elements (default: 1).
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> MaxPool2d {
        self.options.dilation = dilation.into().0;
        self
    }

    /// Sets whether the last window may extend past the end (default: false).
    pub fn ceil_mode(mut self, ceil: bool) -> MaxPool2d {
        self.options.ceil_mode = ceil;
        self
    }
}

/// [`Tensor::avg_pool2d`](crate::Tensor::avg_pool2d) as a layer.
#[derive(Debug)]
pub struct AvgPool2d {
    kernel: [usize; 2],
    options: Pool2dOptions,
    path: LayerPath,
}

impl AvgPool2d {
    /// Creates the layer with windows of this size and the same stride.
    pub fn new(kernel: impl Into<Pair>) -> AvgPool2d {
        AvgPool2d { kernel: kernel.into().0, options: Pool2dOptions::default(), path: LayerPath::new() }
    }

    /// Sets the stride of the window (default: the kernel size).
    pub fn stride(mut self, stride: impl Into<Pair>) -> AvgPool2d {
        self.options.stride = stride.into().0;
        self
    }

    /// Sets the zero padding on each side (default: 0); at most half the kernel.
    pub fn padding(mut self, padding: impl Into<Pair>) -> AvgPool2d {
        self.options.padding = padding.into().0;
        self
    }

    /// Sets whether the last window may extend past the end (default: false).
    pub fn ceil_mode(mut self, ceil: bool) -> AvgPool2d {
        self.options.ceil_mode = ceil;
        self
    }

    /// Sets whether the padding's zeros count as elements of the mean (default: true).
    pub fn count_include_pad(mut self, count: bool) -> AvgPool2d {
        self.options.count_include_pad = count;
        self
    }
}

/// [`Tensor::adaptive_avg_pool2d`](crate::Tensor::adaptive_avg_pool2d) as a layer: the mean of one
/// window for each output position.
#[derive(Debug)]
pub struct AdaptiveAvgPool2d {
    output: [usize; 2],
    path: LayerPath,
}

impl AdaptiveAvgPool2d {
    /// Creates the layer with this output size; 1 is global average pooling.
    pub fn new(output: impl Into<Pair>) -> AdaptiveAvgPool2d {
        AdaptiveAvgPool2d { output: output.into().0, path: LayerPath::new() }
    }
}

/// [`Tensor::adaptive_max_pool2d`](crate::Tensor::adaptive_max_pool2d) as a layer: the maximum of
/// one window for each output position.
#[derive(Debug)]
pub struct AdaptiveMaxPool2d {
    output: [usize; 2],
    path: LayerPath,
}

impl AdaptiveMaxPool2d {
    /// Creates the layer with this output size.
    pub fn new(output: impl Into<Pair>) -> AdaptiveMaxPool2d {
        AdaptiveMaxPool2d { output: output.into().0, path: LayerPath::new() }
    }
}

/// Formats a window, such as `k3, s2`; the stride only where it differs from the kernel.
fn window(kernel: [usize; 2], stride: [usize; 2]) -> String {
    let mut text = format!("k{}", short(kernel));
    if stride != kernel && stride != [0, 0] {
        text.push_str(&format!(", s{}", short(stride)));
    }
    text
}

stateless! {
    MaxPool2d { kernel, options }, |layer| format!("MaxPool2d {}", window(layer.kernel, layer.options.stride)), |x| x.max_pool2d(layer.kernel, layer.options);
    AvgPool2d { kernel, options }, |layer| format!("AvgPool2d {}", window(layer.kernel, layer.options.stride)), |x| x.avg_pool2d(layer.kernel, layer.options);
    AdaptiveAvgPool2d { output }, |layer| format!("AdaptiveAvgPool2d {}", short(layer.output)), |x| x.adaptive_avg_pool2d(layer.output);
    AdaptiveMaxPool2d { output }, |layer| format!("AdaptiveMaxPool2d {}", short(layer.output)), |x| x.adaptive_max_pool2d(layer.output);
}
