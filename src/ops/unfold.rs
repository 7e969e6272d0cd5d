//! Patches of an image as columns of a matrix (im2col), and back (col2im).

use super::batch::batched;
use super::conv::check_size;
use super::options::option_setters;
use crate::error::{Error, Result};
use crate::kernels::conv;
use crate::kernels::geometry::Window;
use crate::profiling::hooks::operation;
use crate::profiling::record::Details;
use crate::tensor::shape::{strides, try_numel};
use crate::tensor::{MemoryFormat, Pair, Tensor, with_float};

/// Options of [`Tensor::unfold`] and [`Tensor::fold`]; pairs are (height, width), see
/// [`Pair`](crate::Pair).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnfoldOptions {
    /// Distance between neighbouring windows.
    pub stride: [usize; 2],
    /// Zeros added on both sides.
    pub padding: [usize; 2],
    /// Distance between neighbouring kernel elements.
    pub dilation: [usize; 2],
}

impl Default for UnfoldOptions {
    fn default() -> Self {
        UnfoldOptions { stride: [1, 1], padding: [0, 0], dilation: [1, 1] }
    }
}

option_setters!(UnfoldOptions, [stride, padding, dilation]);

impl UnfoldOptions {
    fn details(self, kernel: [usize; 2]) -> Details {
        let UnfoldOptions { stride, padding, dilation } = self;
        Details::new().ints("kernel", &kernel).ints("stride", &stride).ints("padding", &padding).ints("dilation", &dilation)
    }
}

impl Tensor {
    /// Copies the patch under each position of the kernel into a column (im2col).
    ///
    /// # Shape
    /// `[N, C, H, W]` gives `[N, C·kH·kW, L]` for `L` positions of the kernel, and `[C, H, W]`
    /// gives `[C·kH·kW, L]`; row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] when the kernel does not fit, [`Error::DType`] unless the tensor is
    /// floating point.
    ///
    /// ```
    /// use convnet::{Tensor, ops::UnfoldOptions};
    ///
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0], [1, 1, 3])?;
    /// let columns = x.unfold([1, 2], UnfoldOptions::new())?; // the patches 1 2 and 2 3
    /// assert_eq!(columns.to_vec::<f32>()?, [1.0, 2.0, 2.0, 3.0]);
    /// // Each pixel is summed as often as a patch has it.
    /// assert_eq!(columns.fold([1, 3], [1, 2], UnfoldOptions::new())?.to_vec::<f32>()?, [1.0, 4.0, 3.0]);
    /// # Ok::<(), convnet::Error>(())
    /// ```
    pub fn unfold(&self, kernel: impl Into<Pair>, options: UnfoldOptions) -> Result<Tensor> {
        let kernel = kernel.into().0;
        batched(self, 4, |x| x.columns(kernel, options))
    }

    // The code of the public functions is in functions without type parameters, so that it is
    // compiled once, not for each type of argument.
    fn columns(&self, kernel: [usize; 2], options: UnfoldOptions) -> Result<Tensor> {
        const OP: &str = "unfold";
        let observed = operation(OP);
        observed.details(|| options.details(kernel));
        self.expect_float(OP)?;
        let &[_, channels, height, width] = self.shape() else {
            return Err(Error::shape(OP, format!("expected [N, C, H, W] or [C, H, W], got shape {:?}", self.shape())));
        };
        let window = patches(OP, [height, width], kernel, options)?;
        let y = unfold(OP, self, &window)?;
        Ok(y.record(OP, [self], move |grad, _wanted| Ok([Some(fold(OP, grad, channels, &window)?)])))
    }

    /// Sums patches into the image at the positions they come from (col2im); the adjoint of
    /// [`unfold`](Tensor::unfold).
    ///
    /// # Shape
    /// `[N, C·kH·kW, L]` gives `[N, C, H, W]` of the given size, channels-last, and `[C·kH·kW, L]`
    /// gives `[C, H, W]`, row-major.
    ///
    /// # Errors
    /// [`Error::Shape`] when the columns do not fit an image of this size, [`Error::DType`] unless
    /// the tensor is floating point.
    pub fn fold(&self, output_size: impl Into<Pair>, kernel: impl Into<Pair>, options: UnfoldOptions) -> Result<Tensor> {
        let (output_size, kernel) = (output_size.into().0, kernel.into().0);
        batched(self, 3, |x| x.image(output_size, kernel, options))
    }

    fn image(&self, output_size: [usize; 2], kernel: [usize; 2], options: UnfoldOptions) -> Result<Tensor> {
        const OP: &str = "fold";
        let observed = operation(OP);
        observed.details(|| options.details(kernel).ints("size", &output_size));
        self.expect_float(OP)?;
        let window = patches(OP, output_size, kernel, options)?;
        let (taps, length) = (kernel[0] * kernel[1], window.output[0] * window.output[1]);
        let &[batch, rows, columns] = self.shape() else {
            return Err(Error::shape(OP, format!("expected [N, C·kH·kW, L] or [C·kH·kW, L], got shape {:?}", self.shape())));
        };
        if rows % taps != 0 || columns != length {
            let wanted = format!("expected [N, C·{taps}, {length}] for an image of {output_size:?}");
            return Err(Error::shape(OP, format!("{wanted}, got shape {:?}", self.shape())));
        }
        check_size(OP, [batch, rows / taps, output_size[0], output_size[1]], &window)?;
        let y = fold(OP, self, rows / taps, &window)?;
        Ok(y.record(OP, [self], move |grad, _wanted| Ok([Some(unfold(OP, grad, &window)?)])))
    }
}

/// Returns the window of `unfold` and `fold`, and checks that its patches can be addressed.
fn patches(op: &'static str, input: [usize; 2], kernel: [usize; 2], options: UnfoldOptions) -> Result<Window> {
    let UnfoldOptions { stride, padding, dilation } = options;
    let window = Window::new(input, kernel, stride, padding, dilation, false).map_err(|message| Error::shape(op, message))?;
    let [rows, columns] = window.output;
    try_numel(&[kernel[0], kernel[1], rows, columns])
        .map(|_| window)
        .ok_or_else(|| Error::shape(op, format!("{rows}×{columns} patches of {kernel:?} are more than memory can hold")))
}

fn unfold(op: &'static str, x: &Tensor, window: &Window) -> Result<Tensor> {
    let (batch, channels) = (x.shape()[0], x.shape()[1]);
    let shape = [batch, channels.saturating_mul(window.kernel[0] * window.kernel[1]), window.output[0] * window.output[1]];
    try_numel(&shape).ok_or_else(|| Error::shape(op, format!("the result {shape:?} is larger than memory can hold")))?;
    let x = x.to_format(MemoryFormat::ChannelsLast)?;
    let (image, matrix) = (strides(x.shape(), MemoryFormat::RowMajor)[0], shape[1] * shape[2]);
    Ok(with_float!(x.dtype(), op, T => Tensor::build(&shape, MemoryFormat::RowMajor, |columns: &mut [T]| {
        for n in 0..batch {
            let x = &x.data::<T>()[n * image..][..image];
            conv::unfold(window, x, channels, channels, &mut columns[n * matrix..][..matrix]);
        }
    })?))
}

fn fold(op: &'static str, columns: &Tensor, channels: usize, window: &Window) -> Result<Tensor> {
    let batch = columns.shape()[0];
    let shape = [batch, channels, window.input[0], window.input[1]];
    let columns = columns.to_format(MemoryFormat::RowMajor)?;
    let (image, matrix) = (channels * window.input[0] * window.input[1], columns.shape()[1] * columns.shape()[2]);
    Ok(with_float!(columns.dtype(), op, T => Tensor::build(&shape, MemoryFormat::ChannelsLast, |x: &mut [T]| {
        x.fill(0.0);
        for n in 0..batch {
            let columns = &columns.data::<T>()[n * matrix..][..matrix];
            conv::fold(window, columns, channels, channels, &mut x[n * image..][..image]);
        }
    })?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_does_not_fit() {
        let x = Tensor::zeros([1, 4, 5, 5]);
        let columns = UnfoldOptions::default();
        for (result, expected) in [
            (x.unfold([6, 1], columns), "larger than the padded input"),
            (Tensor::zeros([4, 5]).unfold([2, 2], columns), "expected [N, C, H, W]"),
            (Tensor::zeros([1, 7, 16]).fold([5, 5], [2, 2], columns), "expected [N, C·4, 16]"),
            (Tensor::zeros([1, 8, 15]).fold([5, 5], [2, 2], columns), "expected [N, C·4, 16]"),
        ] {
            let message = result.expect_err("the operands do not fit").to_string();
            assert!(message.contains(expected), "{message:?} does not contain {expected:?}");
        }
    }
}
