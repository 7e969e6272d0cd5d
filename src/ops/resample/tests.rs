use super::*;
use crate::DType;
use crate::autograd::gradcheck;

const MODES: [Interpolation; 6] = [
    Interpolation::Nearest,
    Interpolation::Bilinear { align_corners: false },
    Interpolation::Bilinear { align_corners: true },
    Interpolation::NearestExact,
    Interpolation::Bicubic { align_corners: false },
    Interpolation::Bicubic { align_corners: true },
];

fn image(shape: [usize; 4]) -> Tensor {
    Tensor::randn(shape).cast(DType::F64).unwrap()
}

#[test]
fn same_size_gives_the_same_image() {
    let x = image([2, 3, 4, 5]);
    for mode in MODES {
        assert_eq!(x.interpolate([4, 5], mode).unwrap().to_vec::<f64>().unwrap(), x.to_vec::<f64>().unwrap());
    }
}

#[test]
fn aligned_corners_keep_their_values_and_a_plane_stays_a_plane() {
    let x = Tensor::arange(12).cast(DType::F64).unwrap().reshape([1, 1, 3, 4]).unwrap();
    let plane = ndarray::Array4::from_shape_fn([1, 1, 5, 7], |(_, _, i, j)| i as f64 * 2.0 + j as f64 * 0.5);
    crate::assert_close!(x.interpolate([5, 7], MODES[2]).unwrap(), Tensor::from_ndarray(plane), epsilon = 1e-12, max_relative = 0.0);
}

#[test]
fn bilinear_without_aligned_corners_gives_what_pytorch_gives() {
    // F.interpolate(torch.tensor([[[[1., 2.], [3., 5.]]]]), size=(3, 4), mode="bilinear")
    let x = Tensor::from_vec(vec![1.0f64, 2.0, 3.0, 5.0], [1, 1, 2, 2]).unwrap();
    let y = x.interpolate([3, 4], MODES[1]).unwrap().to_vec::<f64>().unwrap();
    assert_eq!(y, [1.0, 1.25, 1.75, 2.0, 2.0, 2.375, 3.125, 3.5, 3.0, 3.5, 4.5, 5.0]);
}

#[test]
fn gradients_agree_with_differences_up_and_down() {
    for format in [MemoryFormat::RowMajor, MemoryFormat::ChannelsLast] {
        let x = image([2, 2, 3, 4]).to_format(format).unwrap();
        for (mode, size) in MODES.into_iter().flat_map(|mode| [[5, 9], [2, 3], [1, 1], [3, 4], [6, 8]].map(|size| (mode, size))) {
            gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].interpolate(size, mode)).unwrap();
        }
    }
}

#[test]
fn every_combination_of_filter_and_coordinates_has_its_gradient() {
    use ResampleFilter::{Cubic, Linear, Nearest};
    let x = image([1, 2, 3, 4]);
    let roundings = [Rounding::Floor, Rounding::Ceil, Rounding::HalfDown, Rounding::HalfUp];
    for filter in roundings.map(Nearest).into_iter().chain([Linear, Cubic { a: -0.5 }]) {
        for coordinates in [Coordinates::HalfPixel, Coordinates::AlignCorners, Coordinates::Asymmetric] {
            for (size, factors) in [([5, 7], None), ([2, 9], Some([0.75, 2.3]))] {
                let options = ResampleOptions { filter, coordinates, factors };
                gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].resample(size, options)).unwrap();
            }
        }
    }
}

/// The expected values are those of `Resize` in onnx's reference implementation, whose
/// documentation has the same numbers (`resize_upsample_sizes_nearest_floor_align_corners`,
/// `resize_upsample_sizes_nearest_ceil_half_pixel`,
/// `resize_upsample_sizes_nearest_round_prefer_ceil_asymmetric`).
#[test]
fn nearest_pixels_are_those_of_onnx() {
    let x = Tensor::arange(16).cast(DType::F64).unwrap().add_scalar(1.0).reshape([1, 1, 4, 4]).unwrap();
    for (rounding, coordinates, row, column) in [
        (Rounding::Floor, Coordinates::AlignCorners, [1, 1, 1, 2, 2, 3, 3, 4], [1, 1, 1, 5, 5, 9, 9, 13]),
        (Rounding::Ceil, Coordinates::HalfPixel, [1, 2, 2, 3, 3, 4, 4, 4], [1, 5, 5, 9, 9, 13, 13, 13]),
        (Rounding::HalfUp, Coordinates::Asymmetric, [1, 2, 2, 3, 3, 4, 4, 4], [1, 5, 5, 9, 9, 13, 13, 13]),
        (Rounding::HalfDown, Coordinates::Asymmetric, [1, 1, 2, 2, 3, 3, 4, 4], [1, 1, 5, 5, 9, 9, 13, 13]),
    ] {
        let options = ResampleOptions::new().filter(ResampleFilter::Nearest(rounding)).coordinates(coordinates);
        let y = x.resample(8, options).unwrap().to_vec::<f64>().unwrap();
        assert_eq!(y[..8], row.map(f64::from), "{rounding:?}, {coordinates:?}");
        assert_eq!(y.chunks(8).map(|row| row[0]).collect::<Vec<_>>(), column.map(f64::from), "{rounding:?}, {coordinates:?}");
    }
}

#[test]
fn empty_batches_are_allowed_and_integers_take_the_nearest_pixel() {
    let y = Tensor::zeros([0, 3, 2, 2]).with_grad().interpolate([4, 4], MODES[1]).unwrap();
    assert!(y.shape() == [0, 3, 4, 4]);
    let bytes = Tensor::from_vec(vec![1u8, 2], [1, 1, 1, 2]).unwrap();
    assert_eq!(bytes.interpolate([1, 3], MODES[0]).unwrap().to_vec::<u8>().unwrap(), [1, 1, 2]);
}

#[test]
fn errors_name_the_shapes() {
    let message = |x: &Tensor, size, mode| x.interpolate(size, mode).unwrap_err().to_string();
    let x = Tensor::zeros([1, 1, 2, 2]);
    assert_eq!(
        message(&Tensor::zeros([2, 2]), [1, 1], MODES[0]),
        "interpolate: expected input [N, C, H, W] or [C, H, W], got shape [2, 2]"
    );
    for factor in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300] {
        let error = x.interpolate_by(factor, MODES[0]).unwrap_err().to_string();
        assert!(error.contains("the factors must be finite and positive"), "{error}");
    }
    assert!(x.interpolate_by(0.1, MODES[0]).unwrap_err().to_string().contains("heights and widths must be at least 1"));
    assert!(x.interpolate_by(1e30, MODES[0]).unwrap_err().to_string().contains("more than memory can hold"));
    assert!(message(&x, [0, 3], MODES[0]).contains("heights and widths must be at least 1"));
    assert!(message(&Tensor::zeros([1, 1, 0, 2]), [2, 2], MODES[1]).contains("cannot scale shape [1, 1, 0, 2]"));
    assert!(message(&x, [usize::MAX, 2], MODES[1]).contains("more than memory can hold"));
    assert!(message(&Tensor::zeros([0, 1, 2, 2]), [usize::MAX, 2], MODES[1]).contains("more than memory can hold"));
    assert_eq!(
        message(&Tensor::full([1, 1, 2, 2], 1.0, DType::U8), [2, 2], MODES[1]),
        "interpolate: expected f32 or f64, got u8; convert with `.to_dtype(DType::F32)`"
    );
}
