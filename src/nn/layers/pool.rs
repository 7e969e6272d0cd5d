//! Pooling layers.

use super::pair::{Pair, short};
use crate::error::{Error, Result};
use crate::nn::module::layer::LayerPath;
use crate::nn::module::macros::stateless;
use crate::ops::{Pool1dOptions, Pool2dOptions};
use crate::tensor::Tensor;

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

    /// Returns what [`forward`](crate::nn::Module::forward) does and the positions of the maxima,
    /// which [`MaxUnpool2d`] takes; see
    /// [`Tensor::max_pool2d_with_indices`](crate::Tensor::max_pool2d_with_indices).
    ///
    /// # Errors
    /// Those of `forward`.
    pub fn forward_with_indices(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let mut positions = None;
        let y = self.path.scope(self, x, || {
            let (y, found) = x.max_pool2d_with_indices(self.kernel, self.options)?;
            positions = Some(found);
            Ok(y)
        })?;
        Ok((y, positions.expect("found with the maxima")))
    }
}

/// Puts the maxima of a [`MaxPool2d`] with the same options back to their positions, as the decoder
/// of SegNet does (Badrinarayanan et al., 2015); see
/// [`Tensor::max_unpool2d`](crate::Tensor::max_unpool2d). It has no parameters, and is no
/// [`Module`](crate::nn::Module) because it takes two tensors.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{MaxPool2d, MaxUnpool2d};
///
/// let x = Tensor::randn([1, 8, 16, 16]);
/// let (y, positions) = MaxPool2d::new(2).forward_with_indices(&x)?;
/// let up = MaxUnpool2d::new(2).unpool(&y, &positions)?;
/// assert_eq!(up.shape(), x.shape());
/// assert_eq!(up.max(..)?.item::<f32>()?, y.max(..)?.item::<f32>()?);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MaxUnpool2d {
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
}

impl MaxUnpool2d {
    /// Creates the layer for windows of this size with the same stride.
    pub fn new(kernel: impl Into<Pair>) -> MaxUnpool2d {
        let kernel = kernel.into().0;
        MaxUnpool2d { kernel, stride: kernel, padding: [0, 0] }
    }

    /// Sets the stride of the windows (default: the kernel size).
    pub fn stride(mut self, stride: impl Into<Pair>) -> MaxUnpool2d {
        self.stride = stride.into().0;
        self
    }

    /// Sets the padding of the windows (default: 0).
    pub fn padding(mut self, padding: impl Into<Pair>) -> MaxUnpool2d {
        self.padding = padding.into().0;
        self
    }

    /// Returns maps of height `(H − 1)·stride − 2·padding + kernel`, the smallest that the pooling
    /// maps to the height `H` of `y`, and of such a width. For maps of another size there is
    /// [`Tensor::max_unpool2d`](crate::Tensor::max_unpool2d).
    ///
    /// # Errors
    /// Those of `Tensor::max_unpool2d`; [`Error::Argument`] when the options leave no positions.
    pub fn unpool(&self, y: &Tensor, positions: &Tensor) -> Result<Tensor> {
        let size = |axis: usize| {
            let steps = y.shape().iter().rev().nth(1 - axis)?.checked_sub(1)?;
            let full = steps.checked_mul(self.stride[axis])?.checked_add(self.kernel[axis])?;
            full.checked_sub(self.padding[axis].checked_mul(2)?)
        };
        match size(0).zip(size(1)) {
            Some((height, width)) => y.max_unpool2d(positions, [height, width]),
            None => Err(Error::argument("max_unpool2d", format!("{self:?} leaves no positions for maxima of shape {:?}", y.shape()))),
        }
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

    /// Sets the divisor of every window's sum, at least 1 (default: the number of positions).
    pub fn divisor_override(mut self, divisor: usize) -> AvgPool2d {
        self.options.divisor_override = Some(divisor);
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

/// [`Tensor::max_pool1d`](crate::Tensor::max_pool1d) as a layer.
///
/// ```
/// use convnet::Tensor;
/// use convnet::nn::{MaxPool1d, Module};
///
/// let x = Tensor::from_vec(vec![1.0f32, 3.0, 2.0, 5.0, 4.0], [1, 1, 5])?;
/// assert_eq!(MaxPool1d::new(2).forward(&x)?.to_vec::<f32>()?, [3.0, 5.0]);
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Debug)]
pub struct MaxPool1d {
    kernel: usize,
    options: Pool1dOptions,
    path: LayerPath,
}

impl MaxPool1d {
    /// Creates the layer with windows of this size and the same stride.
    pub fn new(kernel: usize) -> MaxPool1d {
        MaxPool1d { kernel, options: Pool1dOptions::default(), path: LayerPath::new() }
    }

    /// Sets the stride of the window (default: the kernel size).
    pub fn stride(mut self, stride: usize) -> MaxPool1d {
        self.options.stride = stride;
        self
    }

    /// Sets the padding at each end, which is never the maximum (default: 0); at most half of the
    /// dilated kernel.
    pub fn padding(mut self, padding: usize) -> MaxPool1d {
        self.options.padding = padding;
        self
    }

    /// Sets the dilation, the distance between window elements (default: 1).
    pub fn dilation(mut self, dilation: usize) -> MaxPool1d {
        self.options.dilation = dilation;
        self
    }

    /// Sets whether the last window may extend past the end (default: false).
    pub fn ceil_mode(mut self, ceil: bool) -> MaxPool1d {
        self.options.ceil_mode = ceil;
        self
    }
}

/// [`Tensor::avg_pool1d`](crate::Tensor::avg_pool1d) as a layer.
#[derive(Debug)]
pub struct AvgPool1d {
    kernel: usize,
    options: Pool1dOptions,
    path: LayerPath,
}

impl AvgPool1d {
    /// Creates the layer with windows of this size and the same stride.
    pub fn new(kernel: usize) -> AvgPool1d {
        AvgPool1d { kernel, options: Pool1dOptions::default(), path: LayerPath::new() }
    }

    /// Sets the stride of the window (default: the kernel size).
    pub fn stride(mut self, stride: usize) -> AvgPool1d {
        self.options.stride = stride;
        self
    }

    /// Sets the zero padding at each end (default: 0); at most half the kernel.
    pub fn padding(mut self, padding: usize) -> AvgPool1d {
        self.options.padding = padding;
        self
    }

    /// Sets whether the last window may extend past the end (default: false).
    pub fn ceil_mode(mut self, ceil: bool) -> AvgPool1d {
        self.options.ceil_mode = ceil;
        self
    }

    /// Sets whether the padding's zeros count as elements of the mean (default: true).
    pub fn count_include_pad(mut self, count: bool) -> AvgPool1d {
        self.options.count_include_pad = count;
        self
    }
}

/// [`Tensor::adaptive_avg_pool1d`](crate::Tensor::adaptive_avg_pool1d) as a layer.
#[derive(Debug)]
pub struct AdaptiveAvgPool1d {
    output: usize,
    path: LayerPath,
}

impl AdaptiveAvgPool1d {
    /// Creates the layer with this output length; 1 is the mean of the whole sequence.
    pub fn new(output: usize) -> AdaptiveAvgPool1d {
        AdaptiveAvgPool1d { output, path: LayerPath::new() }
    }
}

/// Spatial pyramid pooling (He et al., 2014): the maxima of grids of several sizes as one vector,
/// whose length does not depend on the size of the map.
///
/// # Shape
/// `[N, C, H, W]` gives `[N, C · (n₁² + n₂² + …)]` for grids of n₁×n₁, n₂×n₂, … windows: first all
/// channels of the first grid, then those of the next. `[C, H, W]` gives one such vector.
/// Row-major.
///
/// ```
/// use convnet::nn::SpatialPyramidPooling;
/// use convnet::prelude::*;
///
/// let pool = SpatialPyramidPooling::new([1, 2, 4]);
/// for size in [13, 20] {
///     assert_eq!(pool.forward(&Tensor::zeros([1, 256, size, size]))?.shape(), [1, 256 * (1 + 4 + 16)]);
/// }
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Debug)]
pub struct SpatialPyramidPooling {
    grids: Vec<usize>,
    path: LayerPath,
}

impl SpatialPyramidPooling {
    /// Creates the layer with grids of these numbers of windows along each side.
    pub fn new(grids: impl AsRef<[usize]>) -> SpatialPyramidPooling {
        SpatialPyramidPooling { grids: grids.as_ref().to_vec(), path: LayerPath::new() }
    }

    fn pool(&self, x: &Tensor) -> Result<Tensor> {
        if self.grids.is_empty() {
            return Err(Error::argument("spatial_pyramid_pooling", "expected at least one grid"));
        }
        let grids = self.grids.iter().map(|&grid| x.adaptive_max_pool2d(grid)?.flatten(-3, -1)).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&grids.iter().collect::<Vec<_>>(), -1)
    }
}

/// Formats a window along one axis, such as `k3, s2`.
fn window1d(kernel: usize, stride: usize) -> String {
    window([kernel; 2], [stride; 2])
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
    MaxPool1d { kernel, options }, |layer| format!("MaxPool1d {}", window1d(layer.kernel, layer.options.stride)),
        |x| x.max_pool1d(layer.kernel, layer.options);
    AvgPool1d { kernel, options }, |layer| format!("AvgPool1d {}", window1d(layer.kernel, layer.options.stride)),
        |x| x.avg_pool1d(layer.kernel, layer.options);
    AdaptiveAvgPool1d { output }, |layer| format!("AdaptiveAvgPool1d {}", layer.output),
        |x| x.adaptive_avg_pool1d(layer.output);
    SpatialPyramidPooling { grids }, |layer| format!("SpatialPyramidPooling {:?}", layer.grids), |x| layer.pool(x);
}
