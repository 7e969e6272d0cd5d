use super::*;
use crate::DType;
use crate::autograd::gradcheck;

fn counting(shape: &[usize], format: MemoryFormat) -> Tensor {
    Tensor::arange(numel(shape)).cast(DType::F64).unwrap().with_shape(shape, MemoryFormat::RowMajor).to_format(format).unwrap()
}

const FORMATS: [MemoryFormat; 2] = [MemoryFormat::RowMajor, MemoryFormat::ChannelsLast];

fn message(result: Result<Tensor>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn permute_agrees_with_ndarray_for_every_order() {
    for format in FORMATS {
        let x = counting(&[2, 3, 4, 5], format);
        for (a, b) in (0..4).flat_map(|a| (0..4).map(move |b| (a, b))) {
            let mut dims = [0, 1, 2, 3];
            dims.swap(a, b);
            for dims in [dims, [dims[1], dims[2], dims[3], dims[0]]] {
                let y = x.permute(dims).unwrap();
                let expected = x.to_ndarray::<f64>().unwrap().permuted_axes(&dims[..]);
                assert_eq!(y.to_ndarray::<f64>().unwrap(), expected, "{dims:?}");
                assert_eq!(y.memory_format(), MemoryFormat::RowMajor);
            }
        }
    }
    assert!(Tensor::zeros([2, 0, 3]).transpose(0, -1).unwrap().shape() == [3, 0, 2]);
}

#[test]
fn squeeze_and_unsqueeze_move_between_ranks() {
    let x = Tensor::zeros([2, 1, 3]);
    assert!(x.squeeze(1).unwrap().shape() == [2, 3]);
    assert!(x.squeeze(0).unwrap().shape() == [2, 1, 3]);
    assert!(x.unsqueeze(-1).unwrap().shape() == [2, 1, 3, 1]);
    assert!(x.unsqueeze(0).unwrap().shape() == [1, 2, 1, 3]);
    assert!(Tensor::scalar(1.0f32).unsqueeze(0).unwrap().shape() == [1]);
}

#[test]
fn memory_formats_change_only_the_order_of_elements_in_memory() {
    let x = counting(&[2, 3, 4, 5], FORMATS[0]);
    let y = x.to_memory_format(FORMATS[1]).unwrap();
    assert_eq!(y.memory_format(), FORMATS[1]);
    assert_eq!(y.to_vec::<f64>().unwrap(), x.to_vec::<f64>().unwrap());
    assert_eq!(y.contiguous().unwrap().data::<f64>(), x.data::<f64>());
}

#[test]
fn gradients_agree_with_differences() {
    let check = |x: &Tensor, f: &dyn Fn(&Tensor) -> Result<Tensor>| {
        gradcheck(std::slice::from_ref(x), Default::default(), |x| f(&x[0])).unwrap();
    };
    for format in FORMATS {
        let x = counting(&[2, 3, 2, 2], format);
        check(&x, &|x| x.permute([3, 1, 0, 2]));
        check(&x, &|x| x.permute([0, 2, 3, 1]));
        check(&x, &|x| x.transpose(2, 3));
        check(&x, &|x| x.contiguous());
        check(&x, &|x| x.to_memory_format(MemoryFormat::ChannelsLast));
        check(&x, &|x| x.unsqueeze(2));
        check(&x, &|x| x.narrow(1, 0, 1)?.squeeze(1));
        check(&x, &|x| x.narrow(1, 0, 1)?.expand([2, 4, 2, 2]));
    }
}

#[test]
fn errors_name_what_does_not_fit() {
    let x = Tensor::zeros([2, 3]);
    assert_eq!(message(x.permute([0, 0])), "permute: [0, 0] does not name each dimension of shape [2, 3] once");
    assert_eq!(message(x.permute([0, 1, 2])), "permute: dimension 2 is outside a tensor with 2 dimensions");
    assert!(message(x.permute([0])).contains("does not name each dimension"));
    assert_eq!(message(x.transpose(0, 2)), "transpose: dimension 2 is outside a tensor with 2 dimensions");
    assert!(message(x.squeeze(-3)).contains("squeeze: dimension -3"));
    assert!(message(x.unsqueeze(3)).contains("unsqueeze: dimension 3"));
    assert!(message(x.to_memory_format(MemoryFormat::ChannelsLast)).contains("channels-last is for 4-D tensors, got shape [2, 3]"));
    assert_eq!(message(x.expand([2, 4])), "expand: shape [2, 3] does not broadcast to [2, 4]");
    assert_eq!(message(x.expand([3])), "expand: shape [2, 3] does not broadcast to [3]");
    assert!(message(Tensor::zeros([1]).expand([1usize << 40, 1 << 40])).contains("more elements than memory can hold"));
    assert!(message(x.reshape([4, -1])).contains("does not reshape to [4, -1]"));
    assert!(message(Tensor::zeros([1]).expand([usize::MAX, 2, 0])).contains("more elements than memory can hold"));
    assert!(message(Tensor::zeros([0]).reshape([0, usize::MAX, 2])).contains("does not reshape"));
    assert!(Tensor::zeros([1]).expand([1usize << 57, 2, 0]).unwrap().numel() == 0);
}
