use approx::{assert_abs_diff_eq, assert_relative_eq};

use super::*;
use crate::autograd::{GradCheck, gradcheck};
use crate::{DType, MemoryFormat, Result, Tensor};

const REDUCTIONS: [Reduction; 3] = [Reduction::Mean, Reduction::Sum, Reduction::None];

fn logits(shape: &[usize]) -> Tensor {
    Tensor::randn(shape).cast(DType::F64).unwrap().mul_scalar(2.0)
}

fn labels(values: &[i64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape).unwrap()
}

fn message(result: Result<Tensor>) -> String {
    result.unwrap_err().to_string()
}

fn item(result: Result<Tensor>) -> f64 {
    result.unwrap().cast(DType::F64).unwrap().item().unwrap()
}

fn options(reduction: Reduction, smoothing: f64, weight: bool) -> CrossEntropyOptions {
    let weight = weight.then(|| Tensor::from_vec(vec![0.5f64, 2.0, 1.5], [3]).unwrap());
    CrossEntropyOptions { weight, ignore_index: -100, label_smoothing: smoothing, reduction }
}

#[test]
fn cross_entropy_is_the_log_of_the_sum_of_exponentials_minus_the_logit() {
    let x = Tensor::from_vec(vec![1.0f64, 2.0, 3.0, 0.0, 0.0, 0.0], [2, 3]).unwrap();
    let each = CrossEntropyOptions { reduction: Reduction::None, ..Default::default() };
    let losses = x.cross_entropy_with(&labels(&[2, 0], &[2]), &each).unwrap().to_vec::<f64>().unwrap();
    let first = (1f64.exp() + 2f64.exp() + 3f64.exp()).ln() - 3.0;
    assert_abs_diff_eq!(losses[..], [first, 3f64.ln()][..], epsilon = 1e-14);
}

#[test]
fn large_logits_neither_overflow_nor_lose_digits() {
    let x = Tensor::from_vec(vec![1e4f32, 1e4 - 1.0, -1e4, 1e30, 0.0, 0.0], [2, 3]).unwrap();
    let each = CrossEntropyOptions { reduction: Reduction::None, ..Default::default() };
    let losses = x.cross_entropy_with(&labels(&[0, 0], &[2]), &each).unwrap().to_vec::<f32>().unwrap();
    // One rounding of ln(1 + 1/e) in f32.
    assert_abs_diff_eq!(losses[0], 0.313_261_7, epsilon = 1e-6);
    assert_eq!(losses[1], 0.0);
}

#[test]
fn labels_are_probabilities_of_one() {
    let (x, at) = (logits(&[2, 3, 2, 2]), [0, 2, 1, 1, 2, 0, 0, 1]);
    let target = labels(&at, &[2, 2, 2]);
    let mut hot = ndarray::Array4::<f64>::zeros((2, 3, 2, 2));
    at.iter().enumerate().for_each(|(i, &class)| hot[[i / 4, class as usize, i / 2 % 2, i % 2]] = 1.0);
    for (smoothing, weight) in [(0.0, false), (0.2, false), (0.0, true), (0.2, true)] {
        let options = options(Reduction::Sum, smoothing, weight);
        let hot = Tensor::from_ndarray(hot.clone()).to_format(MemoryFormat::ChannelsLast).unwrap();
        let (a, b) = (item(x.cross_entropy_with(&target, &options)), item(x.cross_entropy_with(&hot, &options)));
        // With weights, PyTorch spreads smoothing over weighted classes for labels and for
        // probabilities, so the two agree.
        assert_relative_eq!(a, b, max_relative = 1e-12);
    }
}

#[test]
fn third_dimension_and_channels_last_image_agree_with_rows() {
    let rows = logits(&[6, 3]);
    let target = labels(&[0, 1, 2, 2, 1, 0], &[6]);
    let expected = item(rows.cross_entropy(&target));
    let maps = rows.reshape([2, 3, 3]).unwrap().permute([0, 2, 1]).unwrap();
    let image = maps.reshape([2, 3, 3, 1]).unwrap().to_format(MemoryFormat::ChannelsLast).unwrap();
    let (of_maps, of_image) = (target.reshape([2, 3]).unwrap(), target.reshape([2, 3, 1]).unwrap());
    assert_abs_diff_eq!(item(maps.cross_entropy(&of_maps)), expected, epsilon = 1e-14);
    assert_abs_diff_eq!(item(image.cross_entropy(&of_image)), expected, epsilon = 1e-14);
    let log_probability = |x: &Tensor| x.detach();
    let (a, b) = (log_probability(&maps), log_probability(&image));
    assert_abs_diff_eq!(item(a.nll_loss(&of_maps)), item(b.nll_loss(&of_image)), epsilon = 1e-14);
}

#[test]
fn ignored_labels_count_neither_in_the_sum_nor_in_the_mean() {
    let x = logits(&[3, 4]).with_grad();
    let ignoring = CrossEntropyOptions { ignore_index: 9, ..Default::default() };
    let some = x.cross_entropy_with(&labels(&[1, 9, 3], &[3]), &ignoring).unwrap();
    let rest = x.index_select(0, &labels(&[0, 2], &[2])).unwrap().cross_entropy(&labels(&[1, 3], &[2])).unwrap();
    assert_abs_diff_eq!(some, rest, epsilon = 1e-14);
    let gradient = some.backward().unwrap().remove(&x).unwrap().to_vec::<f64>().unwrap();
    assert!(gradient[4..8] == [0.0; 4] && gradient[0] != 0.0);
    let all = labels(&[-100; 3], &[3]);
    assert!(item(x.cross_entropy(&all)).is_nan() && item(x.nll_loss(&all)).is_nan());
    assert_eq!(item(x.cross_entropy_with(&all, &options(Reduction::Sum, 0.1, false))), 0.0);
}

#[test]
fn empty_batches_have_mean_nan_and_sum_zero() {
    let (x, none) = (Tensor::zeros([0, 3]).with_grad(), labels(&[], &[0]));
    assert!(item(x.cross_entropy(&none)).is_nan() && item(x.nll_loss(&none)).is_nan());
    assert_eq!(item(x.cross_entropy_with(&none, &options(Reduction::Sum, 0.1, true))), 0.0);
    assert!(item(x.cross_entropy(&Tensor::zeros([0, 3]))).is_nan());
    assert!(item(x.mse_loss(&x)).is_nan() && item(x.binary_cross_entropy_with_logits(&x)).is_nan());
    assert_eq!(item(x.l1_loss_with(&x, Reduction::Sum)), 0.0);
    assert!(x.cross_entropy(&none).unwrap().backward().unwrap().get(&x).unwrap().shape() == [0, 3]);
}

#[test]
fn cross_entropy_gradients_agree_with_differences() {
    let target = labels(&[2, 0, -100, 1], &[2, 2]);
    for reduction in REDUCTIONS {
        for (smoothing, weight) in [(0.0, false), (0.3, false), (0.0, true), (0.3, true)] {
            let options = options(reduction, smoothing, weight);
            let check = |inputs: &[Tensor], f: &dyn Fn(&[Tensor]) -> Result<Tensor>| gradcheck(inputs, GradCheck::default(), f).unwrap();
            check(&[logits(&[2, 3, 2])], &|x| x[0].cross_entropy_with(&target, &options));
            check(&[logits(&[3])], &|x| x[0].cross_entropy_with(&Tensor::scalar(1i64), &options));
            let image = logits(&[2, 3, 1, 2]).to_format(MemoryFormat::ChannelsLast).unwrap();
            check(&[image], &|x| x[0].cross_entropy_with(&target.reshape([2, 1, 2])?, &options));
            check(&[logits(&[2, 3]), logits(&[2, 3])], &|x| x[0].cross_entropy_with(&x[1], &options));
            check(&[logits(&[2, 3, 2]), logits(&[2, 3, 2])], &|x| x[0].cross_entropy_with(&x[1], &options));
            let nll = NllOptions { weight: options.weight.clone(), reduction, ..Default::default() };
            check(&[logits(&[2, 3, 2])], &|x| x[0].nll_loss_with(&target, &nll));
            check(&[logits(&[2, 3, 1, 2])], &|x| x[0].nll_loss_with(&target.reshape([2, 1, 2])?, &nll));
        }
    }
}

#[test]
fn pairwise_gradients_agree_with_differences() {
    for format in [MemoryFormat::RowMajor, MemoryFormat::ChannelsLast] {
        let inputs = [logits(&[2, 3, 2, 2]), logits(&[2, 3, 2, 2]).to_format(format).unwrap()];
        let check = |f: &dyn Fn(&[Tensor]) -> Result<Tensor>| gradcheck(&inputs, GradCheck::default(), f).unwrap();
        for reduction in REDUCTIONS {
            check(&|x| x[0].mse_loss_with(&x[1], reduction));
            check(&|x| x[0].l1_loss_with(&x[1], reduction));
            check(&|x| x[0].smooth_l1_loss_with(&x[1], 0.7, reduction));
            check(&|x| x[0].smooth_l1_loss_with(&x[1], 0.0, reduction));
            check(&|x| x[0].binary_cross_entropy_with_logits_with(&x[1], &BceOptions { reduction, ..Default::default() }));
            let weight = Some(Tensor::from_vec(vec![0.5f64, 2.0, 1.5], [3, 1, 1]).unwrap());
            let both = BceOptions { weight: weight.clone(), pos_weight: weight, reduction };
            check(&|x| x[0].binary_cross_entropy_with_logits_with(&x[1], &both));
        }
    }
}

#[test]
fn long_sums_are_the_sum_of_their_elements() {
    crate::manual_seed(0);
    let (x, t) = (Tensor::randn([100_003]), Tensor::randn([100_003]));
    let each = x.mse_loss_with(&t, Reduction::None).unwrap().to_vec::<f32>().unwrap();
    let expected: f64 = each.iter().map(|&x| f64::from(x)).sum();
    // The kernel also adds in f64, in another order, and rounds once to f32.
    assert_relative_eq!(item(x.mse_loss_with(&t, Reduction::Sum)), expected, max_relative = 1e-7);
}

#[test]
fn binary_cross_entropy_stays_finite_where_the_exponential_does_not() {
    let x = Tensor::from_vec(vec![1000.0f32, -1000.0], [2]).unwrap();
    let t = Tensor::from_vec(vec![0.0f32, 1.0], [2]).unwrap();
    assert_eq!(item(x.binary_cross_entropy_with_logits(&t)), 1000.0);
    assert_eq!(item(t.sub(&t).unwrap().binary_cross_entropy_with_logits(&t)) as f32, 2f32.ln());
}

#[test]
fn errors_name_labels_positions_and_shapes() {
    let x = Tensor::zeros([2, 3]);
    let wrong = message(x.cross_entropy(&labels(&[1, 3], &[2])));
    assert_eq!(wrong, "cross_entropy: label 3 at [1] is outside 0..3, the input has 3 classes");
    let maps = Tensor::zeros([2, 3, 2, 2]);
    let wrong = message(maps.nll_loss(&labels(&[0, 0, 0, 0, 0, 0, -1, 0], &[2, 2, 2])));
    assert_eq!(wrong, "nll_loss: label -1 at [1, 1, 0] is outside 0..3, the input has 3 classes");
    assert_eq!(message(x.cross_entropy(&labels(&[0], &[1]))), "cross_entropy: input [2, 3] wants labels of shape [2], got [1]");
    assert!(message(x.cross_entropy(&Tensor::zeros([2, 2]))).contains("input [2, 3] wants probabilities of its shape, got [2, 2]"));
    assert!(
        message(x.cross_entropy(&Tensor::full([2], 0.0, DType::U8))).contains("expected class numbers, which are i64 (`labels.to_dtype(DType::I64)` converts), or f32 or f64 probabilities of the input's shape, got u8")
    );
    assert_eq!(
        message(x.nll_loss(&Tensor::zeros([2]))),
        "nll_loss: expected class numbers, which are i64 (`labels.to_dtype(DType::I64)` converts), got f32"
    );
    assert_eq!(
        message(labels(&[0], &[1]).cross_entropy(&labels(&[0], &[]))),
        "cross_entropy: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"
    );
    assert!(
        message(Tensor::scalar(0f32).cross_entropy(&labels(&[0], &[]))).contains("expected [C], [N, C] or [N, C, d1, ..], got shape []")
    );
    assert!(message(Tensor::zeros([2, 0]).cross_entropy(&labels(&[0, 0], &[2]))).contains("at least one class"));
    let with = |options: CrossEntropyOptions| message(x.cross_entropy_with(&labels(&[0, 0], &[2]), &options));
    assert!(with(CrossEntropyOptions { label_smoothing: 1.5, ..Default::default() }).contains("between 0 and 1, got 1.5"));
    assert!(with(CrossEntropyOptions { label_smoothing: f64::NAN, ..Default::default() }).contains("got NaN"));
    assert!(
        with(CrossEntropyOptions { weight: Some(Tensor::ones([2])), ..Default::default() })
            .contains("expected a weight [3], got shape [2]")
    );
    assert!(
        with(CrossEntropyOptions { weight: Some(labels(&[1; 3], &[3])), ..Default::default() }).contains("expected f32 or f64, got i64")
    );
    let ignoring = CrossEntropyOptions { ignore_index: 1, ..Default::default() };
    assert!(message(x.cross_entropy_with(&x, &ignoring)).contains("a label to ignore (1) has no meaning among probabilities"));

    let y = Tensor::zeros([3]);
    assert_eq!(message(x.mse_loss(&y)), "mse_loss: input [2, 3] wants a target of its shape, got [3]");
    assert!(message(x.l1_loss(&y)).starts_with("l1_loss: input [2, 3]"));
    assert!(message(x.smooth_l1_loss(&y)).starts_with("smooth_l1_loss: input [2, 3]"));
    assert!(message(x.smooth_l1_loss_with(&x, -1.0, Reduction::Mean)).contains("beta must not be negative, got -1"));
    assert_eq!(
        message(labels(&[1], &[1]).mse_loss(&labels(&[1], &[1]))),
        "mse_loss: expected f32 or f64, got i64; convert with `.to_dtype(DType::F32)`"
    );
    assert!(message(x.binary_cross_entropy_with_logits(&y)).contains("wants a target of its shape, got [3]"));
    let heavy = BceOptions { pos_weight: Some(Tensor::ones([2])), ..Default::default() };
    assert!(
        message(x.binary_cross_entropy_with_logits_with(&x, &heavy)).contains("pos_weight of shape [2] does not broadcast to input [2, 3]")
    );
}

#[test]
fn ctc_loss_wants_lengths_and_labels_that_fit() {
    let x = Tensor::zeros([6, 2, 4]);
    let (input, lengths) = (labels(&[6, 5], &[2]), labels(&[2, 1], &[2]));
    let targets = labels(&[1, 3, 2, 0], &[2, 2]);
    let with = |targets: &Tensor, input: &Tensor, lengths: &Tensor| message(x.ctc_loss(targets, input, lengths));
    assert_eq!(with(&targets, &labels(&[6], &[1]), &lengths), "ctc_loss: input [6, 2, 4] wants input lengths [2], got shape [1]");
    assert_eq!(
        with(&targets, &labels(&[6, 7], &[2]), &lengths),
        "ctc_loss: input length 7 at 1 is more than the 6 steps of input [6, 2, 4]"
    );
    assert_eq!(with(&targets, &labels(&[6, -1], &[2]), &lengths), "ctc_loss: input length -1 at 1 is negative");
    assert_eq!(with(&targets, &input, &labels(&[2, 3], &[2])), "ctc_loss: target length 3 at 1 is more than the 2 labels of a row");
    let wrong = with(&labels(&[1, 3, 2, 4], &[2, 2]), &input, &labels(&[2, 2], &[2]));
    assert_eq!(wrong, "ctc_loss: label 4 of sequence 1 is not in 0..4 without the blank, 0");
    assert!(with(&targets, &input, &labels(&[2, 2], &[2])).contains("label 0 of sequence 1"));
    let wrong = with(&labels(&[1, 3, 2, 1], &[4]), &input, &lengths);
    assert_eq!(wrong, "ctc_loss: input [6, 2, 4] wants targets [N, S], or all labels one behind the other, here [3]; got shape [4]");
    assert!(message(Tensor::zeros([4]).ctc_loss(&targets, &input, &lengths)).contains("expected log-probabilities [T, N, C] or [T, C]"));
    assert!(message(labels(&[0; 48], &[6, 2, 4]).ctc_loss(&targets, &input, &lengths)).contains("expected f32 or f64"));
    let options = CtcOptions { blank: 4, ..Default::default() };
    let wrong = message(x.ctc_loss_with(&targets, &input, &lengths, &options));
    assert_eq!(wrong, "ctc_loss: the blank is class 4, the input [6, 2, 4] has 4 classes");
    assert!(message(x.ctc_loss(&Tensor::zeros([2, 2]), &input, &lengths)).contains("i64"));
}

#[test]
fn greedy_decoding_merges_repetitions_and_leaves_out_blanks() {
    let best = labels(&[1, 0, 1, 2, 0, 2, 2, 2, 1, 0], &[5, 2]).one_hot(3).unwrap().cast(DType::F32).unwrap();
    assert_eq!(ctc_greedy_decode(&best, None, 0).unwrap(), [vec![1, 2, 1], vec![2]]);
    assert_eq!(ctc_greedy_decode(&best, None, 2).unwrap(), [vec![1, 0, 1], vec![0, 0]]);
    assert_eq!(ctc_greedy_decode(&best, Some(&labels(&[3, 0], &[2])), 0).unwrap(), [vec![1], vec![]]);
    assert!(ctc_greedy_decode(&best, Some(&labels(&[3, 6], &[2])), 0).unwrap_err().to_string().contains("input length 6 at 1"));
    assert!(ctc_greedy_decode(&Tensor::zeros([0, 1 << 50, 3]), None, 0).unwrap_err().to_string().contains("out of memory"));
}
