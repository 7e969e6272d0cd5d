//! Sampling of images at positions that a grid gives, and grids of affine maps.

use super::options::option_setters;
use crate::error::{Error, Result};
use crate::kernels::grid_sample::GridSample;
pub use crate::kernels::grid_sample::{GridFilter, GridPadding};
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::shape::try_numel;
use crate::tensor::{MemoryFormat, Pair, Tensor, with_float};

/// Options of [`Tensor::grid_sample`]. By default pixels are squares, which are interpolated
/// linearly, with zeros around them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GridSampleOptions {
    /// What is read between pixels.
    pub filter: GridFilter,
    /// What is read outside of the image.
    pub padding: GridPadding,
    /// Whether -1 and 1 are the centres of the corner pixels; otherwise they are the image's outer
    /// edges.
    pub align_corners: bool,
}

option_setters!(GridSampleOptions, [], filter: GridFilter, padding: GridPadding, align_corners: bool);

impl GridSampleOptions {
    fn details(self) -> Details {
        let filter = match self.filter {
            GridFilter::Bilinear => "bilinear",
            GridFilter::Nearest => "nearest",
            GridFilter::Bicubic => "cubic",
        };
        let padding = match self.padding {
            GridPadding::Zeros => "zeros",
            GridPadding::Border => "border",
            GridPadding::Reflection => "reflection",
        };
        Details::new().text("filter", filter).text("padding", padding).flag("align_corners", self.align_corners)
    }
}

impl Tensor {
    /// Reads images at the positions of a grid: PyTorch's `grid_sample`, the sampler of spatial
    /// transformers (Jaderberg et al., 2015). A position is `(x, y)`, from -1 at the left and the
    /// top to 1 at the right and the bottom; NaN is read as -1. [`affine_grid`] makes grids.
    ///
    /// Images and grid have gradients; that of the grid is zero for the nearest pixel.
    ///
    /// # Shape
    /// `[N, C, H, W]` with a grid `[N, outH, outW, 2]` gives `[N, C, outH, outW]`, channels-last.
    ///
    /// # Errors
    /// [`Error::Shape`] for other shapes, a height or width of 0, or a result that memory cannot
    /// hold; [`Error::DType`] unless both tensors have the same floating-point type.
    ///
    /// ```
    /// use convnet::{Tensor, ops::GridSampleOptions};
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0, 4.0], [1, 1, 2, 2])?;
    /// // The centre, and the right one of the upper pixels.
    /// let grid = Tensor::from_vec(vec![0.0f32, 0.0, 1.0, -1.0], [1, 1, 2, 2])?;
    /// let y = x.grid_sample(&grid, GridSampleOptions::new().align_corners(true))?;
    /// assert_eq!(y.to_vec::<f32>()?, [2.5, 2.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn grid_sample(&self, grid: &Tensor, options: GridSampleOptions) -> Result<Tensor> {
        let op = "grid_sample";
        let observed = operation(op);
        observed.details(|| options.details());
        self.expect_float(op)?;
        grid.expect_dtype(op, self.dtype())?;
        let ([n, channels, height, width], [count, rows, columns, 2]) = (self.shape(), grid.shape()) else {
            let message =
                format!("expected input [N, C, H, W] and grid [N, outH, outW, 2], got shapes {:?} and {:?}", self.shape(), grid.shape());
            return Err(Error::shape(op, message));
        };
        if n != count || [height, width, rows, columns].contains(&&0) {
            let shapes = format!("input {:?} and grid {:?}", self.shape(), grid.shape());
            return Err(Error::shape(op, format!("{shapes} must have one N, and heights and widths of at least 1")));
        }
        let (shape, size) = ([*n, *channels, *rows, *columns], [*rows, *columns]);
        if try_numel(&shape).is_none() {
            return Err(Error::shape(op, format!("the result {shape:?} has more elements than memory can hold")));
        }
        let GridSampleOptions { filter, padding, align_corners } = options;
        let kernel = GridSample { input: [*height, *width], channels: *channels, filter, padding, align_corners };
        let (x, grid_of) = (self.to_format(MemoryFormat::ChannelsLast)?, grid.to_format(MemoryFormat::RowMajor)?);
        let (x, grid_of) = (x.detach(), grid_of.detach());
        let y = with_float!(x.dtype(), op, T => {
            Tensor::build(&shape, MemoryFormat::ChannelsLast, |y: &mut [T]| kernel.forward(size, x.data(), grid_of.data(), y))?
        });
        Ok(y.record(op, [self, grid], move |dy, wanted| {
            let dy = dy.to_format(MemoryFormat::ChannelsLast)?;
            with_float!(dy.dtype(), op, T => {
                let dx = wanted[0].then(|| {
                    let fill = |dx: &mut [T]| kernel.input_gradient(size, grid_of.data(), dy.data(), dx);
                    Tensor::build(x.shape(), MemoryFormat::ChannelsLast, fill)
                });
                let dgrid = wanted[1].then(|| {
                    let fill = |dgrid: &mut [T]| kernel.grid_gradient(size, x.data(), grid_of.data(), dy.data(), dgrid);
                    Tensor::build(grid_of.shape(), MemoryFormat::RowMajor, fill)
                });
                Ok([dx.transpose()?, dgrid.transpose()?])
            })
        }))
    }
}

/// Returns the grid with which [`Tensor::grid_sample`] reads images of `size`, height and width,
/// through affine maps: position `(x, y)` of the result is `theta · (x, y, 1)`. PyTorch's
/// `affine_grid`.
///
/// # Shape
/// `theta`, `[N, 2, 3]`, gives `[N, size[0], size[1], 2]`.
///
/// # Errors
/// [`Error::Shape`] for another shape, a height or width of 0, or a result that memory cannot hold;
/// [`Error::DType`] unless floating point.
///
/// ```
/// use convnet::{Tensor, ops::affine_grid};
///
/// let mirrored = Tensor::from_vec(vec![-1.0f32, 0.0, 0.0, 0.0, 1.0, 0.0], [1, 2, 3])?;
/// let grid = affine_grid(&mirrored, [1, 2], true)?;
/// assert_eq!(grid.to_vec::<f32>()?, [1.0, 0.0, -1.0, 0.0]);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn affine_grid(theta: &Tensor, size: impl Into<Pair>, align_corners: bool) -> Result<Tensor> {
    let [height, width] = size.into().0;
    theta.expect_float("affine_grid")?;
    let &[n, 2, 3] = theta.shape() else {
        return Err(Error::shape("affine_grid", format!("expected maps [N, 2, 3], got shape {:?}", theta.shape())));
    };
    if height == 0 || width == 0 || try_numel(&[n.max(1), height, width, 3]).is_none() {
        let message = format!("{n} grids of {:?}: heights and widths must be at least 1, and memory must hold the result", [height, width]);
        return Err(Error::shape("affine_grid", message));
    }
    let place = |at: usize, count: usize| {
        let (position, count) = (2.0 * at as f64 + 1.0 - count as f64, count as f64);
        position / if align_corners { (count - 1.0).max(1.0) } else { count }
    };
    let places = height * width;
    let base = with_float!(theta.dtype(), "affine_grid", T => Tensor::build(&[3, places], MemoryFormat::RowMajor, |base: &mut [T]| {
        for at in 0..places {
            base[at] = place(at % width, width) as T;
            base[places + at] = place(at / width, height) as T;
            base[2 * places + at] = 1.0;
        }
    })?);
    theta.matmul(&base)?.permute([0, 2, 1])?.reshape([n as i64, height as i64, width as i64, 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::autograd::gradcheck;

    fn doubles<const N: usize>(shape: [usize; N]) -> Tensor {
        Tensor::randn(shape).cast(DType::F64).unwrap()
    }

    #[test]
    fn grid_of_an_image_without_channels_has_a_gradient_of_zeros() {
        let (x, grid) = (Tensor::zeros([2, 0, 3, 3]).with_grad(), Tensor::zeros([2, 1, 2, 2]).with_grad());
        let y = x.grid_sample(&grid, GridSampleOptions::new()).unwrap();
        let gradients = y.sum(..).unwrap().backward().unwrap();
        assert_eq!(gradients.get(&grid).unwrap().to_vec::<f32>().unwrap(), [0.0; 8]);
        assert_eq!(gradients.get(&x).unwrap().shape(), x.shape());
    }

    #[test]
    fn gradients_are_those_of_differences() {
        crate::manual_seed(5);
        let (x, grid) = (doubles([2, 3, 4, 5]), doubles([2, 3, 2, 2]));
        for filter in [GridFilter::Bilinear, GridFilter::Bicubic] {
            for padding in [GridPadding::Zeros, GridPadding::Border, GridPadding::Reflection] {
                for align_corners in [false, true] {
                    let options = GridSampleOptions { filter, padding, align_corners };
                    gradcheck(&[x.clone(), grid.clone()], Default::default(), |x| x[0].grid_sample(&x[1], options)).unwrap();
                }
            }
        }
        gradcheck(&[doubles([2, 2, 3])], Default::default(), |x| affine_grid(&x[0], [3, 4], false)).unwrap();
    }

    #[test]
    fn identity_map_keeps_the_image() {
        let x = doubles([2, 3, 4, 5]);
        let identity = Tensor::from_vec([[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]; 2].concat(), [2, 2, 3]).unwrap();
        for align_corners in [false, true] {
            let grid = affine_grid(&identity, [4, 5], align_corners).unwrap();
            let y = x.grid_sample(&grid, GridSampleOptions::new().align_corners(align_corners)).unwrap();
            // Positions are rounded.
            for (y, x) in y.to_vec::<f64>().unwrap().into_iter().zip(x.to_vec::<f64>().unwrap()) {
                assert!((y - x).abs() < 1e-14, "{y} for {x}");
            }
        }
    }

    #[test]
    fn positions_that_are_not_finite_or_far_away_are_outside_or_at_the_edge() {
        let x = Tensor::from_vec(vec![1.0f32, 2.0], [1, 1, 1, 2]).unwrap();
        let places = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1e30];
        let grid = Tensor::from_vec(places.iter().flat_map(|&x| [x, 0.0]).collect(), [1, 1, 5, 2]).unwrap();
        let read = |padding| x.grid_sample(&grid, GridSampleOptions::new().align_corners(true).padding(padding)).unwrap();
        assert_eq!(read(GridPadding::Zeros).to_vec::<f32>().unwrap(), [1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(read(GridPadding::Border).to_vec::<f32>().unwrap(), [1.0, 2.0, 1.0, 2.0, 1.0]);
        assert!(read(GridPadding::Reflection).to_vec::<f32>().unwrap().iter().all(|y| (0.0..=2.0).contains(y)));
    }

    #[test]
    fn errors_name_the_shapes() {
        let message =
            |x: &[usize], grid: &[usize]| Tensor::zeros(x).grid_sample(&Tensor::zeros(grid), Default::default()).unwrap_err().to_string();
        assert_eq!(
            message(&[1, 2, 3], &[1, 2, 2, 2]),
            "grid_sample: expected input [N, C, H, W] and grid [N, outH, outW, 2], got shapes [1, 2, 3] and [1, 2, 2, 2]"
        );
        assert!(message(&[1, 2, 3, 3], &[2, 2, 2, 2]).contains("must have one N"));
        assert!(message(&[1, 2, 0, 3], &[1, 2, 2, 2]).contains("at least 1"));
        assert!(affine_grid(&Tensor::zeros([1, 3, 2]), 2, false).unwrap_err().to_string().contains("expected maps [N, 2, 3]"));
        assert!(affine_grid(&Tensor::zeros([1, 2, 3]), [1 << 40, 1 << 40], false).is_err());
        let y = Tensor::zeros([0, 2, 3, 3]).grid_sample(&Tensor::zeros([0, 4, 5, 2]), Default::default()).unwrap();
        assert_eq!(y.shape(), [0, 2, 4, 5]);
    }
}
