use super::*;
use crate::autograd::gradcheck;

fn index(values: &[i64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape).unwrap()
}

fn counting(shape: &[usize]) -> Tensor {
    Tensor::arange(shape.iter().product()).cast(DType::F64).unwrap().reshape(shape).unwrap()
}

#[test]
fn index_select_agrees_with_ndarray_in_either_format() {
    for format in [MemoryFormat::RowMajor, MemoryFormat::ChannelsLast] {
        let x = counting(&[3, 4, 3, 5]).to_format(format).unwrap();
        for axis in 0..4 {
            let y = x.index_select(axis, &index(&[2, 0, 2, 1], &[4])).unwrap();
            assert_eq!(y.memory_format(), format);
            let expected = x.view::<f64>().unwrap().select(ndarray::Axis(axis), &[2, 0, 2, 1]);
            assert_eq!(y.to_ndarray::<f64>().unwrap(), expected, "axis {axis}");
        }
    }
    assert!(counting(&[3, 2]).index_select(-1, &Tensor::scalar(1i64)).unwrap().shape() == [3, 1]);
}

#[test]
fn gather_takes_an_element_for_each_index() {
    let x = counting(&[2, 3]);
    let y = x.gather(1, &index(&[2, 0, 1, 1], &[2, 2])).unwrap();
    assert_eq!(y.to_vec::<f64>().unwrap(), [2.0, 0.0, 4.0, 4.0]);
    let y = x.gather(0, &index(&[1, 0], &[1, 2])).unwrap();
    assert_eq!(y.to_vec::<f64>().unwrap(), [3.0, 1.0]);
    let last = counting(&[2, 3, 2, 2]).to_format(MemoryFormat::ChannelsLast).unwrap();
    let y = last.gather(1, &index(&[2, 1, 0, 2], &[1, 1, 2, 2])).unwrap();
    assert_eq!(y.to_vec::<f64>().unwrap(), [8.0, 5.0, 2.0, 11.0]);
    assert!(x.gather(1, &index(&[], &[2, 0])).unwrap().shape() == [2, 0]);
}

#[test]
fn gradients_add_up_where_an_index_repeats() {
    let x = counting(&[2, 3, 2, 2]).to_format(MemoryFormat::ChannelsLast).unwrap();
    for axis in 0..4 {
        gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].index_select(axis, &index(&[1, 1, 0], &[3]))).unwrap();
    }
    let at = index(&[0, 1, 1, 0, 1, 1, 0, 1], &[2, 1, 2, 2]);
    for axis in [1, 3] {
        gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].gather(axis, &at)).unwrap();
    }
}

/// The expected values are PyTorch 2.15's.
#[test]
fn tensor_or_index_without_dimensions_counts_as_one_element() {
    let x = Tensor::scalar(3.0f64);
    for dim in [0, -1] {
        for at in [index(&[0], &[]), index(&[0], &[1])] {
            let y = x.index_select(dim, &at).unwrap();
            assert!(y.ndim() == 0 && y.item::<f64>().unwrap() == 3.0);
        }
        assert!(x.gather(dim, &index(&[0], &[])).unwrap().ndim() == 0);
        assert_eq!(x.gather(dim, &index(&[0, 0], &[2])).unwrap().to_vec::<f64>().unwrap(), [3.0, 3.0]);
        let y = counting(&[3]).gather(dim, &index(&[2], &[])).unwrap();
        assert!(y.ndim() == 0 && y.item::<f64>().unwrap() == 2.0);
        gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].index_select(dim, &index(&[0], &[]))).unwrap();
        gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].gather(dim, &index(&[0, 0], &[2]))).unwrap();
    }
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    assert_eq!(
        message(x.index_select(0, &index(&[0, 0], &[2]))),
        "index_select: a tensor without dimensions takes one index, got shape [2]"
    );
    assert_eq!(message(x.index_select(1, &index(&[0], &[]))), "index_select: dimension 1 is outside a tensor with 0 dimensions");
    assert!(message(x.gather(0, &index(&[1], &[]))).contains("out of range for dimension 0 of size 1"));
    assert!(message(counting(&[2, 3]).gather(0, &index(&[0], &[]))).contains("do not fit"));
}

#[test]
fn errors_name_the_index_and_the_size() {
    let x = Tensor::zeros([2, 3]);
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    let wrong = message(x.index_select(1, &index(&[0, 3], &[2])));
    assert_eq!(wrong, "index_select: index 3 (element 1) is out of range for dimension 1 of size 3");
    assert!(message(x.index_select(0, &index(&[-1], &[1]))).contains("index -1 (element 0) is out of range for dimension 0 of size 2"));
    assert_eq!(
        message(x.index_select(0, &x.reshape([6]).unwrap())),
        "index_select: expected i64, got f32; convert with `.to_dtype(DType::I64)`"
    );
    assert!(message(x.index_select(0, &index(&[0, 1], &[1, 2]))).contains("got shape [1, 2]"));
    assert!(message(x.index_select(2, &index(&[0], &[1]))).contains("dimension 2"));
    assert!(message(Tensor::zeros([1 << 58, 0]).index_select(1, &index(&[0], &[1]))).contains("out of range"));
    assert!(message(x.gather(1, &index(&[0, 1, 2], &[3, 1]))).contains("indices of shape [3, 1] do not fit a tensor of shape [2, 3]"));
    assert!(message(x.gather(1, &index(&[0], &[1]))).contains("do not fit"));
    assert!(message(x.gather(1, &index(&[7], &[1, 1]))).contains("index 7 (element 0) is out of range for dimension 1 of size 3"));
    assert_eq!(message(x.gather(0, &x)), "gather: expected i64, got f32; convert with `.to_dtype(DType::I64)`");
}
