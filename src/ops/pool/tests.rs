use super::*;
use crate::DType;
use crate::autograd::gradcheck;

/// Returns a map of distinct values, so that no step of the gradient checker changes which
/// element is the largest.
fn map(shape: [usize; 4]) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::from_vec((0..count).map(|i| (i * 7919 % 1013) as f64 / 100.0).collect(), shape).unwrap()
}

fn padded() -> Pool2dOptions {
    Pool2dOptions { stride: [2, 1], padding: [1, 0], ceil_mode: true, ..Default::default() }
}

#[test]
fn gradients_agree_with_differences() {
    let x = map([2, 3, 5, 4]);
    gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].max_pool2d([3, 2], padded())).unwrap();
    gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].max_pool2d([2, 2], Pool2dOptions { dilation: [2, 2], ..padded() }))
        .unwrap();
    gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].avg_pool2d([3, 2], padded())).unwrap();
    let exclusive = Pool2dOptions { count_include_pad: false, ..padded() };
    gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].avg_pool2d([3, 2], exclusive)).unwrap();
    let divided = padded().divisor_override(Some(5));
    gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].avg_pool2d([3, 2], divided)).unwrap();
    for size in [[1, 1], [2, 3], [7, 5]] {
        gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].adaptive_avg_pool2d(size)).unwrap();
        gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].adaptive_max_pool2d(size)).unwrap();
    }
    gradcheck(std::slice::from_ref(&x), Default::default(), |x| x[0].avg_pool2d([5, 4], Default::default())).unwrap();
    let large = map([1, 1, 17, 18]); // 306 window elements: a position does not fit into one byte
    gradcheck(&[large], Default::default(), |x| x[0].adaptive_max_pool2d([1, 1])).unwrap();
}

#[test]
fn averages_divide_as_pytorch_does() {
    let options = Pool2dOptions { stride: [2, 2], padding: [1, 1], ceil_mode: true, ..Default::default() };
    let y = Tensor::full([1, 1, 4, 4], 36.0, DType::F64).avg_pool2d([3, 3], options).unwrap();
    assert_eq!(y.to_vec::<f64>().unwrap(), [16.0, 24.0, 12.0, 24.0, 36.0, 18.0, 12.0, 18.0, 9.0]);
}

#[test]
fn window_that_holds_only_padding_is_an_error() {
    let message = |x: [usize; 4], kernel, options| Tensor::ones(x).max_pool2d(kernel, options).unwrap_err().to_string();
    let options = Pool2dOptions { stride: [1, 1], padding: [1, 1], dilation: [2, 2], ..Default::default() };
    assert_eq!(
        message([1, 1, 1, 1], [2, 2], options),
        "max_pool2d: row 0 of the windows holds padding only: with dilation [2, 2] and padding [1, 1] the taps of kernel [2, 2] step over \
         the input 1×1; use a smaller dilation or another padding"
    );
    let columns = Pool2dOptions { stride: [1, 1], padding: [0, 2], dilation: [1, 3], ..Default::default() };
    for ceil_mode in [false, true] {
        // The taps of column 0 are at positions -2 and 1, those of column 1 at -1 and 2.
        assert!(message([2, 1, 3, 1], [1, 2], Pool2dOptions { ceil_mode, ..columns }).contains("column 0 of the windows"));
        assert!(message([2, 1, 3, 2], [1, 2], Pool2dOptions { ceil_mode, ..columns }).contains("column 1 of the windows"));
    }
}

/// PyTorch 2.15 limits padding to half of the kernel itself. It gives the same result for
/// `F.max_pool2d(F.pad(x, (2, 2), value=-inf), (1, 2), 1, 0, (1, 3))`.
#[test]
fn padding_reaches_to_half_of_the_dilated_kernel() {
    let options = Pool2dOptions { stride: [1, 1], padding: [0, 2], dilation: [1, 3], ..Default::default() };
    let x = Tensor::arange(5).cast(DType::F64).unwrap().reshape([1, 1, 1, 5]).unwrap().with_grad();
    let y = x.max_pool2d([1, 2], options).unwrap();
    assert_eq!(y.to_vec::<f64>().unwrap(), [1.0, 2.0, 3.0, 4.0, 2.0, 3.0]);
    let gradients = y.sum(..).unwrap().backward().unwrap();
    assert_eq!(gradients.get(&x).unwrap().to_vec::<f64>().unwrap(), [0.0, 1.0, 2.0, 2.0, 1.0]);
    let wider = Pool2dOptions { padding: [0, 3], ..options };
    let error = x.max_pool2d([1, 2], wider).unwrap_err().to_string();
    assert_eq!(error, "max_pool2d: padding [0, 3] is more than half of the kernel [1, 2] (dilated to [1, 4])");
}

#[test]
fn both_memory_formats_give_the_same_result() {
    let x = map([2, 3, 6, 5]);
    let last = x.to_format(MemoryFormat::ChannelsLast).unwrap();
    let [a, b] = [&x, &last].map(|x| x.max_pool2d([2, 3], Default::default()).unwrap().to_vec::<f64>().unwrap());
    assert_eq!(a, b);
}

#[test]
fn empty_batches_and_sizes_are_allowed() {
    let x = Tensor::zeros([0, 3, 4, 4]).with_grad();
    let y = x.max_pool2d([2, 2], Default::default()).unwrap();
    assert_eq!(y.shape(), [0, 3, 2, 2]);
    assert_eq!(y.sum(..).unwrap().backward().unwrap().get(&x).unwrap().shape(), [0, 3, 4, 4]);
    assert_eq!(x.adaptive_avg_pool2d([1 << 57, 1]).unwrap().shape(), [0, 3, 1 << 57, 1]);
    assert!(x.adaptive_avg_pool2d([usize::MAX, 1]).unwrap_err().to_string().contains("more elements than memory can hold"));
    let x = Tensor::ones([1, 3, 4, 4]).with_grad();
    let y = x.adaptive_avg_pool2d([0, 2]).unwrap();
    assert_eq!(y.sum(..).unwrap().backward().unwrap().get(&x).unwrap().to_vec::<f32>().unwrap(), [0.0; 48]);
}

#[test]
fn errors_say_what_is_wrong() {
    let x = Tensor::zeros([2, 3, 4, 4]);
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    let max = |kernel, options| message(x.max_pool2d(kernel, options));
    assert_eq!(max([5, 5], Default::default()), "max_pool2d: kernel 5×5 is larger than the padded input 4×4");
    assert_eq!(max([0, 2], Default::default()), "max_pool2d: kernel 0×2 must not be zero");
    let padding = Pool2dOptions { padding: [0, 2], ..Default::default() };
    assert_eq!(max([2, 3], padding), "max_pool2d: padding [0, 2] is more than half of the kernel [2, 3]");
    let dilation = Pool2dOptions { dilation: [2, 1], ..Default::default() };
    assert_eq!(message(x.avg_pool2d([2, 2], dilation)), "avg_pool2d: windows cannot be dilated, got dilation [2, 1]");
    let divisor = Pool2dOptions { divisor_override: Some(0), ..Default::default() };
    assert_eq!(
        message(x.avg_pool2d([2, 2], divisor)),
        "avg_pool2d: divisor_override must be at least 1, got 0; None divides by the number of positions"
    );
    let shape = |shape: &[usize]| message(Tensor::zeros(shape).avg_pool2d([2, 2], Default::default()));
    assert_eq!(shape(&[4, 4]), "avg_pool2d: expected [N, C, H, W] or [C, H, W] of which only N may be 0, got shape [4, 4]");
    assert_eq!(shape(&[2, 0, 4, 4]), "avg_pool2d: expected [N, C, H, W] or [C, H, W] of which only N may be 0, got shape [2, 0, 4, 4]");
    let flat = Tensor::zeros([2, 3, 0, 4]);
    let expected = "adaptive_max_pool2d: expected [N, C, H, W] or [C, H, W] of which only N may be 0, got shape [2, 3, 0, 4]";
    assert_eq!(message(flat.adaptive_max_pool2d([1, 1])), expected);
    let integers = Tensor::full([1, 1, 2, 2], 0.0, DType::U8);
    assert_eq!(
        message(integers.adaptive_avg_pool2d([1, 1])),
        "adaptive_avg_pool2d: expected f32 or f64, got u8; convert with `.to_dtype(DType::F32)`"
    );
    let expected = format!("adaptive_max_pool2d: the result [2, 3, {0}, {0}] has more elements than memory can hold", usize::MAX);
    assert_eq!(message(x.adaptive_max_pool2d([usize::MAX; 2])), expected);
}

#[test]
fn unpooling_refuses_positions_that_do_not_fit() {
    let (x, positions) = (Tensor::ones([1, 2, 1, 1]), Tensor::from_vec(vec![3i64, 4], [1, 2, 1, 1]).unwrap());
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    assert_eq!(x.max_unpool2d(&positions, [1, 5]).unwrap().to_vec::<f32>().unwrap(), [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    assert!(message(x.max_unpool2d(&positions, 2)).contains("index 4 (element 1) is out of range"));
    let flat = positions.squeeze(0).unwrap();
    assert_eq!(message(x.max_unpool2d(&flat, 2)), "max_unpool2d: positions of shape [2, 1, 1] do not fit maxima of shape [1, 2, 1, 1]");
    assert!(message(x.max_unpool2d(&x, 2)).contains("expected i64, got f32"));
    assert!(message(x.max_unpool2d(&positions, usize::MAX)).contains("more elements than memory can hold"));
    let scalar = Tensor::ones([]);
    assert!(message(scalar.max_unpool2d(&Tensor::scalar(0i64), 2)).contains("expected [N, C, H, W] or [C, H, W], got shape []"));
}

#[test]
fn positions_of_an_empty_batch_are_empty() {
    let (y, positions) = Tensor::zeros([0, 3, 4, 4]).max_pool2d_with_indices(2, Default::default()).unwrap();
    assert_eq!((y.shape(), positions.shape(), positions.dtype()), (&[0, 3, 2, 2][..], &[0, 3, 2, 2][..], DType::I64));
    assert_eq!(y.max_unpool2d(&positions, 4).unwrap().shape(), [0, 3, 4, 4]);
}
