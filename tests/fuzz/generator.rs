//! What operations and layers are called with: shapes, values, dimensions and options, odd ones
//! among them.

use convnet::data::Rng;
use convnet::nn::Activation;
use convnet::ops::{
    BceOptions, Conv1dOptions, Conv2dOptions, ConvTranspose2dOptions, CrossEntropyOptions, GridFilter, GridPadding, GridSampleOptions,
    Interpolation, NllOptions, Pool2dOptions, Reduction, UnfoldOptions,
};
use convnet::{DType, Element, MemoryFormat, Result, Tensor};

/// Makes arguments; the same number makes the same.
pub struct Generator {
    random: Rng,
}

impl Generator {
    pub fn new(number: u64) -> Generator {
        Generator { random: Rng::for_sample(13, 0, number) }
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound)
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A size of a tensor.
    pub fn size(&mut self) -> usize {
        self.pick(&[1, 1, 2, 2, 3, 3, 4, 7, 0])
    }

    /// A number for an option: small, or now and then of any magnitude.
    pub fn option(&mut self, usual: usize) -> usize {
        match self.below(16) {
            0 => self.pick(&[5, 100, 1 << 16, 1 << 31, 1 << 32, 1 << 62, usize::MAX / 2, usize::MAX / 2 + 1, usize::MAX - 1, usize::MAX]),
            1..=4 => self.pick(&[0, 1, 2, 3, 7]),
            _ => usual,
        }
    }

    pub fn options(&mut self, usual: usize) -> [usize; 2] {
        [self.option(usual), self.option(usual)]
    }

    /// A dimension, often in range for few dimensions.
    pub fn dim(&mut self) -> isize {
        match self.below(24) {
            0 => self.pick(&[5, -6, isize::MAX, isize::MIN]),
            _ => self.pick(&[0, 0, 1, 1, 2, 3, -1, -1, -2, -3, -4, 4]),
        }
    }

    /// Dimensions of a reduction.
    pub fn dims(&mut self) -> Vec<isize> {
        (0..self.below(4)).map(|_| self.dim()).collect()
    }

    pub fn value(&mut self) -> f64 {
        match self.below(12) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => self.pick(&[f64::MAX, f64::MIN, f64::from(f32::MAX), f64::MIN_POSITIVE, 1e-320, 9.3e18, -9.3e18]),
            4 | 5 => 0.0,
            6 => -0.0,
            7 => 1.0,
            _ => self.random.uniform(-3.0, 3.0),
        }
    }

    /// A number between 0 and 1, now and then any.
    pub fn fraction(&mut self) -> f64 {
        if self.once_in(4) { self.value() } else { self.random.unit() }
    }

    pub fn shape(&mut self) -> Vec<usize> {
        let ndim = self.below(6);
        self.shape_of(ndim)
    }

    /// Sizes for `ndim` dimensions, now and then for another number of them.
    pub fn shape_of(&mut self, ndim: usize) -> Vec<usize> {
        let ndim = if self.once_in(12) { self.below(6) } else { ndim };
        let mut shape: Vec<usize> = (0..ndim).map(|_| self.size()).collect();
        if ndim > 0 && self.once_in(24) {
            let at = self.below(ndim);
            shape[at] = self.pick(&[64, 257, 4096]);
        }
        // Of no elements, and yet larger than memory in the other sizes.
        if ndim > 1 && self.once_in(32) {
            let [zero, large] = [self.below(ndim), self.below(ndim)];
            shape[large] = self.pick(&[1 << 20, 1 << 40, 1 << 62, usize::MAX]);
            shape[zero] = 0;
        }
        shape
    }

    /// The same shape, or one with another size.
    pub fn like(&mut self, shape: &[usize]) -> Vec<usize> {
        let mut shape = shape.to_vec();
        match self.below(16) {
            0 => return self.shape(),
            1 | 2 if !shape.is_empty() => {
                let at = self.below(shape.len());
                shape[at] = self.size();
            }
            3 if !shape.is_empty() => drop(shape.remove(0)),
            _ => {}
        }
        shape
    }

    pub fn dtype(&mut self) -> DType {
        self.pick(&[DType::F32, DType::F32, DType::F32, DType::F64, DType::F64, DType::F64, DType::I64, DType::U8])
    }

    /// A tensor of any shape.
    pub fn any(&mut self) -> Result<Tensor> {
        let shape = self.shape();
        self.tensor(&shape)
    }

    /// A tensor of `ndim` dimensions, most times.
    pub fn of(&mut self, ndim: usize) -> Result<Tensor> {
        let shape = self.shape_of(ndim);
        self.tensor(&shape)
    }

    pub fn tensor(&mut self, shape: &[usize]) -> Result<Tensor> {
        let dtype = if self.once_in(3) { self.dtype() } else { DType::F32 };
        self.typed(shape, dtype)
    }

    /// A tensor of the dtype of `x`, most times, and of about this shape.
    pub fn beside(&mut self, x: &Tensor, shape: &[usize]) -> Result<Tensor> {
        let dtype = if self.once_in(12) { self.dtype() } else { x.dtype() };
        let shape = self.like(shape);
        self.typed(&shape, dtype)
    }

    /// As [`beside`](Generator::beside), or none.
    pub fn maybe(&mut self, x: &Tensor, shape: &[usize]) -> Result<Option<Tensor>> {
        if self.once_in(2) { Ok(None) } else { self.beside(x, shape).map(Some) }
    }

    /// Labels below `classes`, now and then others.
    pub fn labels(&mut self, shape: &[usize], classes: usize) -> Result<Tensor> {
        let shape = self.like(shape);
        if self.once_in(12) {
            return self.tensor(&shape);
        }
        let label = |this: &mut Self| match this.below(48) {
            0 => this.pick(&[-1, -100, i64::MIN, i64::MAX, classes as i64]),
            _ => this.below(classes.clamp(1, 1 << 20)) as i64,
        };
        self.filled(&shape, label)
    }

    fn typed(&mut self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        let plain = self.once_in(2);
        let value = move |this: &mut Self| if plain { this.random.uniform(-2.0, 2.0) } else { this.value() };
        let x = match dtype {
            DType::F64 => self.filled(shape, value)?,
            DType::F32 => self.filled(shape, |this| value(this) as f32)?,
            DType::I64 => self.filled(shape, |this| value(this) as i64)?,
            DType::U8 => self.filled(shape, |this| this.random.bits() as u8)?,
        };
        let format = if shape.len() == 4 && self.once_in(2) { MemoryFormat::ChannelsLast } else { MemoryFormat::RowMajor };
        let x = x.to_memory_format(format)?;
        Ok(if self.once_in(4) { x } else { x.with_grad() })
    }

    fn filled<T: Element>(&mut self, shape: &[usize], mut value: impl FnMut(&mut Self) -> T) -> Result<Tensor> {
        // Of a shape with a 0, the other sizes may be of any magnitude; of one without, that was
        // made from it, they may not.
        let product = if shape.contains(&0) { Some(0) } else { shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)) };
        let shape: Vec<usize> = match product {
            Some(0..=65_536) => shape.to_vec(),
            _ => shape.iter().map(|&size| size.min(3)).collect(),
        };
        let numel = if shape.contains(&0) { 0 } else { shape.iter().product() };
        // Drawing each element of a large tensor would take most of the time.
        let few: Vec<T> = (0..numel.min(64)).map(|_| value(self)).collect();
        Tensor::from_vec(few.iter().copied().cycle().take(numel).collect(), shape)
    }

    pub fn reduction(&mut self) -> Reduction {
        self.pick(&[Reduction::None, Reduction::Sum, Reduction::Mean])
    }

    pub fn activation(&mut self) -> Activation {
        self.pick(&[
            Activation::Linear,
            Activation::Relu,
            Activation::Relu6,
            Activation::Silu,
            Activation::Hardswish,
            Activation::Sigmoid,
            Activation::Hardsigmoid,
        ])
    }

    pub fn interpolation(&mut self) -> Interpolation {
        let align_corners = self.once_in(2);
        self.pick(&[
            Interpolation::Nearest,
            Interpolation::NearestExact,
            Interpolation::Bilinear { align_corners },
            Interpolation::Bicubic { align_corners },
        ])
    }

    pub fn grid_sample(&mut self) -> GridSampleOptions {
        GridSampleOptions {
            filter: self.pick(&[GridFilter::Bilinear, GridFilter::Nearest, GridFilter::Bicubic]),
            padding: self.pick(&[GridPadding::Zeros, GridPadding::Border, GridPadding::Reflection]),
            align_corners: self.once_in(2),
        }
    }

    pub fn conv2d(&mut self, groups: usize) -> Conv2dOptions {
        Conv2dOptions { stride: self.options(1), padding: self.options(1), dilation: self.options(1), groups: self.option(groups) }
    }

    pub fn conv1d(&mut self, groups: usize) -> Conv1dOptions {
        Conv1dOptions { stride: self.option(1), padding: self.option(1), dilation: self.option(1), groups: self.option(groups) }
    }

    pub fn conv_transpose2d(&mut self, groups: usize) -> ConvTranspose2dOptions {
        ConvTranspose2dOptions {
            stride: self.options(2),
            padding: self.options(0),
            output_padding: self.options(0),
            dilation: self.options(1),
            groups: self.option(groups),
        }
    }

    pub fn unfold(&mut self) -> UnfoldOptions {
        UnfoldOptions { stride: self.options(1), padding: self.options(1), dilation: self.options(1) }
    }

    pub fn pool2d(&mut self) -> Pool2dOptions {
        Pool2dOptions {
            stride: self.options(2),
            padding: self.options(0),
            dilation: self.options(1),
            ceil_mode: self.once_in(2),
            count_include_pad: self.once_in(2),
            divisor_override: self.once_in(3).then(|| self.option(3)),
        }
    }

    pub fn cross_entropy(&mut self, x: &Tensor) -> Result<CrossEntropyOptions> {
        let classes = x.shape().get(1).copied().unwrap_or(1);
        Ok(CrossEntropyOptions {
            weight: self.maybe(x, &[classes])?,
            ignore_index: self.pick(&[-100, 0, 1]),
            label_smoothing: if self.once_in(2) { 0.0 } else { self.fraction() },
            reduction: self.reduction(),
        })
    }

    pub fn nll(&mut self, x: &Tensor) -> Result<NllOptions> {
        let classes = x.shape().get(1).copied().unwrap_or(1);
        Ok(NllOptions { weight: self.maybe(x, &[classes])?, ignore_index: self.pick(&[-100, 0, 1]), reduction: self.reduction() })
    }

    pub fn bce(&mut self, x: &Tensor) -> Result<BceOptions> {
        Ok(BceOptions { weight: self.maybe(x, x.shape())?, pos_weight: self.maybe(x, x.shape())?, reduction: self.reduction() })
    }
}
