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
/// Kernels of three input channels are drawn in colour, one for each output channel, each scaled
/// from its smallest weight to its largest. Others are gray: a row for each output channel, a
/// column for each input channel of its group; 0 is mid-gray, and the largest absolute weight of
/// the row is black or white.
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
/// [`Error::Shape`] unless the weight is `[out, in, kH, kW]` and not empty, [`Error::Argument`] when
/// memory cannot hold the picture.
pub fn kernels(weight: &Tensor) -> Result<Image> {
    let &[outputs, inputs, height, width] = weight.shape() else {
        return Err(Error::shape("kernels", format!("expected a weight [out, in, kH, kW], got shape {:?}", weight.shape())));
    };
    if weight.numel() == 0 {
        return Err(Error::shape("kernels", format!("the weight is empty: {:?}", weight.shape())));
    }
    let values = weight.detach().to_dtype(DType::F32)?.to_vec::<f32>()?;
    let plane = height * width;
    let byte = |x: f32| (x * 255.0).round() as u8;
    let (mut tiles, columns) = (vec![], if inputs == 3 { square(outputs) } else { inputs });
    for kernel in values.chunks_exact(inputs * plane) {
        if inputs == 3 {
            let (low, high) = kernel.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &x| (low.min(x), high.max(x)));
            let scaled = |x: f32| byte((x - low) / (high - low).max(f32::MIN_POSITIVE));
            let pixels = (0..plane).flat_map(|i| [0, 1, 2].map(|c| scaled(kernel[c * plane + i]))).collect();
            tiles.push(Image::from_bytes([3, height, width], pixels)?);
        } else {
            let largest = kernel.iter().fold(f32::MIN_POSITIVE, |largest, x| largest.max(x.abs()));
            for slice in kernel.chunks_exact(plane) {
                let pixels = slice.iter().map(|x| byte(0.5 + x / (2.0 * largest))).collect();
                tiles.push(Image::from_bytes([1, height, width], pixels)?);
            }
        }
    }
    let rows = tiles.len().div_ceil(columns);
    let fits = |factor: usize| rows.max(columns) * (factor * height.max(width) + 1) <= LARGEST;
    let factor = (1..=SIDE / height.max(width)).rev().find(|&factor| fits(factor)).unwrap_or(1);
    let tiles = tiles.iter().map(|tile| enlarged(tile, factor)).collect::<Result<Vec<_>>>()?;
    Image::grid(&tiles, columns, 1)
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
