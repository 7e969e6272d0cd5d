use super::*;
use crate::autograd::gradcheck;

/// Returns `0, 1, 2, …` as `f64`, in either memory format.
fn counting(shape: &[usize], format: MemoryFormat) -> Tensor {
    Tensor::arange(numel(shape)).cast(DType::F64).unwrap().with_shape(shape, MemoryFormat::RowMajor).to_format(format).unwrap()
}

const FORMATS: [MemoryFormat; 2] = [MemoryFormat::RowMajor, MemoryFormat::ChannelsLast];

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn narrow_takes_the_elements_that_an_ndarray_slice_has() {
    for format in FORMATS {
        let x = counting(&[2, 5, 3, 4], format);
        for axis in 0..4 {
            let y = x.narrow(axis, 1, x.shape()[axis] - 1).unwrap();
            assert_eq!(y.memory_format(), format);
            let view = x.view::<f64>().unwrap();
            let slice = view.slice_axis(ndarray::Axis(axis), (1..).into());
            assert_eq!(y.to_ndarray::<f64>().unwrap(), slice.to_owned(), "axis {axis}");
        }
    }
}

#[test]
fn cat_is_the_inverse_of_split_along_every_dimension_in_either_format() {
    for format in FORMATS {
        let x = counting(&[3, 5, 4, 7], format);
        for axis in 0..4 {
            let parts = x.split(2, axis).unwrap();
            let y = Tensor::cat(&parts.iter().collect::<Vec<_>>(), axis).unwrap();
            assert_eq!(y.memory_format(), format);
            assert_eq!(y.to_vec::<f64>().unwrap(), x.to_vec::<f64>().unwrap(), "axis {axis}");
        }
    }
}

#[test]
fn cat_of_both_formats_is_channels_last() {
    let (a, b) = (counting(&[2, 3, 2, 2], FORMATS[0]), counting(&[2, 1, 2, 2], FORMATS[1]));
    let y = Tensor::cat(&[&a, &b], 1).unwrap();
    assert_eq!(y.memory_format(), MemoryFormat::ChannelsLast);
    assert_eq!(y.narrow(1, 0, 3).unwrap().to_vec::<f64>().unwrap(), a.to_vec::<f64>().unwrap());
    assert_eq!(y.narrow(1, 3, 1).unwrap().to_vec::<f64>().unwrap(), b.to_vec::<f64>().unwrap());
}

#[test]
fn large_cat_is_right_when_several_tasks_share_it() {
    let (a, b) = (counting(&[2, 64, 40, 30], FORMATS[1]), counting(&[2, 32, 40, 30], FORMATS[1]));
    let y = Tensor::cat(&[&a, &b], 1).unwrap().to_ndarray::<f64>().unwrap();
    let views = [a.view::<f64>().unwrap(), b.view::<f64>().unwrap()];
    assert_eq!(y, ndarray::concatenate(ndarray::Axis(1), &views).unwrap());
}

#[test]
fn empty_one_dimensional_tensors_are_left_out_of_a_cat_and_dtypes_promote() {
    let (none, x) = (Tensor::zeros([0]), Tensor::full([2, 3], 7.0, DType::I64));
    let y = Tensor::cat(&[&none, &x], 1).unwrap();
    assert!(y.shape() == [2, 3] && y.dtype() == DType::F32);
    assert!(Tensor::cat(&[&none, &none], 0).unwrap().shape() == [0]);
}

#[test]
fn pad_surrounds_maps_of_any_rank_in_either_format() {
    for (shape, format) in [(&[2, 3][..], FORMATS[0]), (&[2, 2, 3], FORMATS[0]), (&[2, 3, 4, 5], FORMATS[0]), (&[2, 3, 4, 5], FORMATS[1])] {
        let x = counting(shape, format);
        let y = x.pad([1, 2, 3, 0], -1.5).unwrap();
        assert_eq!(y.memory_format(), format);
        let rank = shape.len();
        let (h, w) = (shape[rank - 2], shape[rank - 1]);
        let inner = y.narrow(-2, 3, h).unwrap().narrow(-1, 1, w).unwrap();
        assert_eq!(inner.to_vec::<f64>().unwrap(), x.to_vec::<f64>().unwrap());
        let outside = y.to_vec::<f64>().unwrap().iter().filter(|&&y| y == -1.5).count();
        assert_eq!(outside, y.numel() - x.numel());
    }
    assert!(Tensor::zeros([1, 0, 3]).pad([0, 0, 1, 1], 2.0).unwrap().to_vec::<f32>().unwrap() == [2.0; 6]);
}

#[test]
fn flip_reverses_and_keeps_the_format() {
    for format in FORMATS {
        let x = counting(&[2, 3, 2, 2], format);
        let y = x.flip(..).unwrap();
        assert_eq!(y.memory_format(), format);
        let reversed: Vec<f64> = x.to_vec::<f64>().unwrap().into_iter().rev().collect();
        assert_eq!(y.to_vec::<f64>().unwrap(), reversed);
        let y = x.flip(-1).unwrap().narrow(3, 0, 1).unwrap();
        assert_eq!(y.to_vec::<f64>().unwrap(), x.narrow(3, 1, 1).unwrap().to_vec::<f64>().unwrap());
    }
}

#[test]
fn chunks_have_the_sizes_that_pytorch_gives() {
    let sizes = |n: usize, chunks: usize| -> Vec<usize> {
        Tensor::zeros([n]).chunk(chunks, 0).unwrap().iter().map(|part| part.shape()[0]).collect()
    };
    assert_eq!(sizes(6, 4), [2, 2, 2]);
    assert_eq!(sizes(7, 3), [3, 3, 1]);
    assert_eq!(sizes(0, 3), [0, 0, 0]);
    assert!(Tensor::zeros([2, 0]).split(0, 1).unwrap().len() == 1);
}

#[test]
fn gradients_agree_with_differences() {
    for format in FORMATS {
        let (x, z) = (counting(&[2, 3, 2, 3], format), counting(&[2, 2, 2, 3], FORMATS[1]));
        let check = |inputs: &[Tensor], f: &dyn Fn(&[Tensor]) -> Result<Tensor>| gradcheck(inputs, Default::default(), f).unwrap();
        for axis in 0..4 {
            check(std::slice::from_ref(&x), &|x| x[0].narrow(axis, 1, 1));
            check(std::slice::from_ref(&x), &|x| x[0].flip(axis));
        }
        check(std::slice::from_ref(&x), &|x| x[0].pad([1, 0, 2, 1], 3.0));
        check(&[x.clone(), z.clone()], &|x| Tensor::cat(&[&x[0], &x[1], &x[0]], 1));
        check(&[x.clone(), x.clone()], &|x| Tensor::stack(&[&x[0], &x[1]], 2));
    }
}

#[test]
fn errors_name_what_does_not_fit() {
    let x = Tensor::zeros([2, 3]);
    assert_eq!(message(x.narrow(1, 2, 2)), "narrow: 2 elements from 2 exceed dimension 1 of shape [2, 3]");
    assert!(message(x.narrow(1, 2, usize::MAX)).contains("exceed dimension 1"));
    assert_eq!(message(x.narrow(2, 0, 1)), "narrow: dimension 2 is outside a tensor with 2 dimensions");
    assert_eq!(message(x.chunk(0, 0)), "chunk: expected at least one chunk");
    assert!(message(Tensor::zeros([0]).chunk(usize::MAX, 0)).contains("more than memory can hold"));
    assert!(message(x.split(0, 1)).contains("parts of size 0 do not cover dimension 1"));
    assert_eq!(message(Tensor::cat(&[], 0)), "cat: expected at least one tensor, got an empty list");
    let (a, b) = (Tensor::zeros([2, 3]), Tensor::zeros([4, 5]));
    assert_eq!(message(Tensor::cat(&[&a, &b], 0)), "cat: tensor 1 of shape [4, 5] does not join [2, 3] along dimension 0");
    assert!(message(Tensor::cat(&[&a, &Tensor::zeros([2, 3, 1])], 0)).contains("tensor 1 of shape [2, 3, 1]"));
    assert!(message(Tensor::cat(&[&a], -3)).contains("dimension -3"));
    let huge = Tensor::zeros([0, 1 << 58]);
    assert!(message(Tensor::cat(&[&huge, &huge], 1)).contains("more than memory can hold"));
    assert_eq!(message(Tensor::stack(&[], 0)), "stack: expected at least one tensor, got an empty list");
    assert_eq!(message(Tensor::stack(&[&a, &b], 0)), "stack: tensor 1 has shape [4, 5], the first [2, 3]");
    assert_eq!(message(Tensor::zeros([3]).pad([1; 4], 0.0)), "pad: expected at least two dimensions, got shape [3]");
    for padding in [[usize::MAX, 1, 0, 0], [0, 0, 1 << 62, 0]] {
        assert!(message(x.pad(padding, 0.0)).contains("more than memory can hold"));
    }
    assert!(message(x.flip([0, -2])).contains("named twice"));
}

#[test]
fn tensors_without_elements_may_be_large_in_other_dimensions() {
    let x = Tensor::zeros([0, 1 << 56, 3]);
    assert!(x.narrow(1, 5, 7).unwrap().shape() == [0, 7, 3]);
    assert!(x.flip(..).unwrap().shape() == x.shape());
    assert!(Tensor::cat(&[&x, &x], 0).unwrap().shape() == x.shape());
}
