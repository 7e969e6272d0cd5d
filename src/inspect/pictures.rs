//! Pictures of kernels and of feature maps.

use crate::data::{ColorMap, Image};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

/// The side to which small kernels are enlarged, in pixels, for grids of few kernels.
const SIDE: usize = 28;

/// The largest side of a grid for which kernels are enlarged.
const LARGEST: usize = 2048;

/// Draws the kernels of a convolution, side by side.
///
/// Kernels of three input channels are drawn in colour, those of one in gray, in a square. Others
/// are gray too: a row for each output channel, a column for each input channel of its group. The
/// middle between black and white is 0, and the largest absolute weight of a kernel, over its input
/// channels, is at one end.
///
/// ```
/// use convnet::{inspect, models::resnet18};
///
/// let model = resnet18(1000);
/// let picture = inspect::kernels(&model.conv1.weight.tensor())?; // 64 kernels of 7×7, in colour
/// assert_eq!(picture.shape(), [3, 8 * 29 + 1, 8 * 29 + 1]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] unless the weight is `[out, in, kH, kW]` and not empty, [`Error::Argument`]
/// when memory cannot hold the picture.
pub fn kernels(weight: &Tensor) -> Result<Image> {
    let [outputs, inputs, height, width] = kernel_shape(weight)?;
    let tiles = kernel_tiles(weight)?;
    let columns = if matches!(inputs, 1 | 3) { square(outputs) } else { inputs };
    let rows = tiles.len().div_ceil(columns);
    let fits = |factor: usize| rows.max(columns) * (factor * height.max(width) + 1) <= LARGEST;
    let factor = (1..=SIDE / height.max(width)).rev().find(|&factor| fits(factor)).unwrap_or(1);
    let tiles = tiles.iter().map(|tile| enlarged(tile, factor)).collect::<Result<Vec<_>>>()?;
    Image::grid(&tiles, columns, 1)
}

/// Returns the shape of a convolution's weight, `[out, in, kH, kW]`.
pub(crate) fn kernel_shape(weight: &Tensor) -> Result<[usize; 4]> {
    let &[outputs, inputs, height, width] = weight.shape() else {
        return Err(Error::shape("kernels", format!("expected the weight of a convolution [out, in, kH, kW], got {:?}", weight.shape())));
    };
    if weight.numel() == 0 {
        return Err(Error::shape("kernels", format!("the weight is empty: {:?}", weight.shape())));
    }
    Ok([outputs, inputs, height, width])
}

/// Draws each kernel of three input channels in colour, each input channel of others in gray.
pub(crate) fn kernel_tiles(weight: &Tensor) -> Result<Vec<Image>> {
    let [_, inputs, height, width] = kernel_shape(weight)?;
    let values = weight.detach().to_dtype(DType::F32)?.to_vec::<f32>()?;
    let plane = height * width;
    let channels = if inputs == 3 { 3 } else { 1 };
    let mut tiles = Vec::new();
    for kernel in values.chunks_exact(inputs * plane) {
        let largest = kernel.iter().filter(|x| x.is_finite()).fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
        let byte = |x: f32| ((0.5 + 0.5 * (x / largest)) * 255.0).round() as u8;
        for slices in kernel.chunks_exact(channels * plane) {
            let pixels = (0..plane).flat_map(|at| (0..channels).map(move |channel| byte(slices[channel * plane + at]))).collect();
            tiles.push(Image::from_bytes([channels, height, width], pixels)?);
        }
    }
    Ok(tiles)
}

/// Draws the maps of a layer's output, side by side, each from its smallest number to its largest
/// in the colours of [`ColorMap::Viridis`].
///
/// ```
/// use convnet::{Tensor, inspect};
///
/// let picture = inspect::feature_maps(&Tensor::randn([1, 6, 16, 20]))?;
/// assert_eq!(picture.shape(), [3, 2 * 17 + 1, 3 * 21 + 1]);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] unless the output is `[1, maps, h, w]` or `[maps, h, w]` and not empty,
/// [`Error::Argument`] when memory cannot hold the picture.
pub fn feature_maps(output: &Tensor) -> Result<Image> {
    let (maps, height, width) = match *output.shape() {
        [1, maps, height, width] | [maps, height, width] if maps * height * width > 0 => (maps, height, width),
        _ => return Err(Error::shape("feature_maps", format!("expected [1, maps, h, w] or [maps, h, w], got shape {:?}", output.shape()))),
    };
    let all = output.detach().reshape([maps, height, width])?;
    let map = |i: usize| ColorMap::Viridis.paint(&all.narrow(0, i, 1)?.reshape([height, width])?);
    Image::grid(&(0..maps).map(map).collect::<Result<Vec<_>>>()?, square(maps), 1)
}

/// Returns the columns of a grid that is about as high as wide.
fn square(count: usize) -> usize {
    (count as f64).sqrt().ceil().max(1.0) as usize
}

/// Draws each pixel as a square of this side.
fn enlarged(image: &Image, factor: usize) -> Result<Image> {
    let [channels, height, width] = image.shape();
    let bytes = image.bytes().unwrap_or_default();
    let mut pixels = Vec::with_capacity(bytes.len() * factor * factor);
    for row in bytes.chunks_exact(channels * width) {
        for _ in 0..factor {
            row.chunks_exact(channels).for_each(|pixel| (0..factor).for_each(|_| pixels.extend_from_slice(pixel)));
        }
    }
    Image::from_bytes([channels, height * factor, width * factor], pixels)
}
