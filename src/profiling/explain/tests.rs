use super::*;
use crate::nn::{BatchNorm2d, Conv2d, Module, ModuleExt, ReLU, Sequential};
use crate::ops::{Conv1dOptions, Conv2dOptions, ConvTranspose2dOptions};
use crate::{Tensor, no_grad, with_algorithm};

const PASSES: [ConvPass; 3] = [ConvPass::Forward, ConvPass::InputGradient, ConvPass::WeightGradient];

fn strided() -> Conv2dOptions {
    Conv2dOptions { stride: [2, 2], padding: [1, 1], ..Default::default() }
}

/// Runs forward and backward with both gradients.
fn both_ways(x: &Tensor, w: &Tensor, options: Conv2dOptions) {
    x.with_grad().conv2d(&w.with_grad(), None, options).unwrap().sum(..).unwrap().backward().unwrap();
}

#[test]
fn cheapest_algorithm_that_fits_runs_unless_one_is_forced() {
    let (x, w) = (Tensor::randn([2, 64, 28, 28]), Tensor::randn([64, 64, 3, 3]));
    let options = Conv2dOptions { padding: [1, 1], ..Default::default() };
    let ((), explanation) = explain(|| both_ways(&x, &w, options));
    assert_eq!(explanation.choices.iter().map(|choice| choice.pass).collect::<Vec<_>>(), PASSES);
    for choice in &explanation.choices {
        assert_eq!((choice.input, choice.weight, choice.output), ([2, 64, 28, 28], [64, 64, 3, 3], [2, 64, 28, 28]));
        assert_eq!((choice.stride, choice.padding, choice.dilation, choice.groups), ([1, 1], [1, 1], [1, 1], 1));
        assert_eq!((choice.dtype, choice.calls), (DType::F32, 1));
        assert_eq!((choice.asked, choice.ran), (ConvAlgorithm::Auto, choice.candidates[0].0));
        assert!(choice.candidates.is_sorted_by(|a, b| a.1 <= b.1) && choice.candidates[0].1 > 0.0);
        assert!(choice.candidates.iter().any(|(algorithm, _)| *algorithm == ConvAlgorithm::Winograd4));
        assert_eq!(choice.relative_costs()[0].1, 1.0);
    }
    let all = [ConvAlgorithm::Naive, ConvAlgorithm::Im2col, ConvAlgorithm::Direct, ConvAlgorithm::Winograd2, ConvAlgorithm::Winograd4];
    for algorithm in all {
        let ((), explanation) = explain(|| with_algorithm(algorithm, || both_ways(&x, &w, options)));
        assert_eq!(explanation.choices.len(), 3);
        for choice in &explanation.choices {
            assert_eq!((choice.asked, choice.ran, choice.reason().as_str()), (algorithm, algorithm, "as asked"));
            let own = choice.relative_costs().into_iter().find(|(candidate, _)| *candidate == algorithm);
            assert!(own.is_none_or(|(_, cost)| cost == 1.0), "{choice:?}");
        }
    }
}

#[test]
fn forced_algorithm_that_does_not_fit_falls_back_with_reason() {
    let (x, w) = (Tensor::randn([1, 80, 9, 9]), Tensor::randn([80, 80, 3, 3]));
    let grouped = Conv2dOptions { groups: 4, ..Default::default() };
    let dilated = Conv2dOptions { dilation: [1, 2], ..Default::default() };
    let padded = Conv2dOptions { padding: [3, 3], ..Default::default() };
    let narrow = Tensor::randn([80, 20, 3, 3]);
    let pointwise = Tensor::randn([80, 80, 1, 1]);
    let cases = [
        (ConvAlgorithm::Winograd2, &w, dilated, "the dilation is not 1"),
        (ConvAlgorithm::Winograd4, &narrow, grouped, "there are groups"),
        (ConvAlgorithm::Winograd4, &pointwise, Conv2dOptions::default(), "the kernel is not 3×3, 4×4 or 5×5"),
        (ConvAlgorithm::Depthwise, &w, strided(), "groups have many channels"),
    ];
    for (algorithm, w, options, unsupported_reason) in cases {
        let ((), explanation) = explain(|| with_algorithm(algorithm, || both_ways(&x, w, options)));
        for pass in PASSES {
            let choice = explanation.get("", pass).unwrap();
            assert_eq!((choice.asked, choice.ran), (algorithm, choice.candidates[0].0));
            assert_ne!(choice.ran, algorithm);
            assert!(choice.unsupported.contains(&(algorithm, unsupported_reason)), "{choice:?}");
            assert_eq!(choice.reason(), format!("not {algorithm}, as asked: {unsupported_reason}"));
        }
    }
    // Only the input gradient does not support this padding or a stride.
    let large = Tensor::randn([80, 80, 7, 7]);
    for (w, options, unsupported_reason) in
        [(&w, padded, "the padding is as wide as the kernel"), (&large, strided(), "the stride is not 1")]
    {
        let ((), explanation) = explain(|| with_algorithm(ConvAlgorithm::Winograd4, || both_ways(&x, w, options)));
        let ran = |pass| explanation.get("", pass).unwrap().ran;
        assert_eq!((ran(ConvPass::Forward), ran(ConvPass::WeightGradient)), (ConvAlgorithm::Winograd4, ConvAlgorithm::Winograd4));
        assert_eq!(ran(ConvPass::InputGradient), ConvAlgorithm::Direct);
        let unsupported = &explanation.get("", ConvPass::InputGradient).unwrap().unsupported;
        assert!(unsupported.contains(&(ConvAlgorithm::Winograd4, unsupported_reason)), "{unsupported:?}");
    }
    let ((), explanation) = explain(|| with_algorithm(ConvAlgorithm::Winograd4, || both_ways(&x, &w, strided())));
    assert_eq!(explanation.choices[0].reason(), "not winograd4, as asked: the stride leaves fewer than 3×3 taps");
}

#[test]
fn reported_algorithm_is_the_one_that_computes() {
    // The algorithms round differently, so the bits show which of them ran.
    let (x, w) = (Tensor::randn([1, 64, 20, 20]), Tensor::randn([64, 64, 3, 3]));
    for options in [Conv2dOptions::default(), strided()] {
        let run = |algorithm| explain(|| with_algorithm(algorithm, || x.conv2d(&w, None, options).unwrap().to_vec::<f32>().unwrap()));
        let (picked, explanation) = run(ConvAlgorithm::Auto);
        let ran = explanation.choices[0].ran;
        for algorithm in [ConvAlgorithm::Direct, ConvAlgorithm::Winograd2, ConvAlgorithm::Winograd4] {
            let (forced, explanation) = run(algorithm);
            assert_eq!(forced == picked, explanation.choices[0].ran == ran, "{algorithm} against {ran}");
        }
    }
}

fn net() -> Sequential {
    let stem = Sequential::new().push(Conv2d::new(3, 16, 3).stride(2).bias(false)).push(BatchNorm2d::new(16)).push(ReLU);
    let body = Sequential::new().push(Conv2d::new(16, 16, 3).padding(1)).push(ReLU).push(Conv2d::new(16, 16, 3).padding(1).groups(16));
    Sequential::new().push_named("stem", stem).push_named("body", body)
}

#[test]
fn training_step_is_listed_by_layer_path_with_forward_first() {
    let (net, x) = (net(), Tensor::randn([2, 3, 17, 17]));
    let step = || net.forward(&x).unwrap().sum(..).unwrap().backward().unwrap();
    let (_, explanation) = explain(|| (step(), step()));
    let rows: Vec<_> = explanation.choices.iter().map(|choice| (choice.path.as_str(), choice.pass, choice.calls)).collect();
    let mut expected = vec![("stem.0", ConvPass::Forward, 2), ("stem.0", ConvPass::WeightGradient, 2)];
    for path in ["body.0", "body.2"] {
        expected.extend(PASSES.map(|pass| (path, pass, 2)));
    }
    assert_eq!(rows, expected, "the first layer's input wants no gradient\n{explanation}");
    assert!(explanation.choices.iter().all(|choice| choice.operation == "conv2d"));
}

#[test]
fn fused_layers_are_explained_in_every_inference_run() {
    let net = net();
    net.eval();
    let x = Tensor::randn([1, 3, 17, 17]);
    // Later runs reuse the weights that are laid out in the first one.
    for calls in [1, 3] {
        let ((), explanation) = explain(|| (0..calls).for_each(|_| drop(no_grad(|| net.forward(&x)).unwrap())));
        let rows: Vec<_> = explanation.choices.iter().map(|choice| (choice.path.as_str(), choice.pass, choice.calls)).collect();
        assert_eq!(rows, ["stem.0", "body.0", "body.2"].map(|path| (path, ConvPass::Forward, calls)));
    }
    let (_, explanation) = explain(|| with_algorithm(ConvAlgorithm::Im2col, || no_grad(|| net.forward(&x)).unwrap()));
    assert!(explanation.choices.iter().all(|choice| choice.ran == ConvAlgorithm::Im2col), "{explanation}");
}

#[test]
fn calls_that_differ_have_separate_rows() {
    let conv = Conv2d::new(8, 8, 3);
    let run = |shape: [usize; 4]| drop(no_grad(|| conv.forward(&Tensor::zeros(shape))).unwrap());
    let ((), explanation) = explain(|| {
        run([1, 8, 9, 9]);
        run([2, 8, 9, 9]);
        run([1, 8, 9, 9]);
        with_algorithm(ConvAlgorithm::Direct, || run([1, 8, 9, 9]));
        conv.to_dtype(DType::F64).unwrap();
        drop(no_grad(|| conv.forward(&Tensor::zeros([1, 8, 9, 9]).cast(DType::F64).unwrap())).unwrap());
    });
    let rows: Vec<_> = explanation.choices.iter().map(|row| (row.input[0], row.asked, row.dtype, row.calls)).collect();
    let expected = [
        (1, ConvAlgorithm::Auto, DType::F32, 2),
        (2, ConvAlgorithm::Auto, DType::F32, 1),
        (1, ConvAlgorithm::Direct, DType::F32, 1),
        (1, ConvAlgorithm::Auto, DType::F64, 1),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn transposed_convolution_has_shapes_and_passes_of_its_caller() {
    let (x, w) = (Tensor::randn([2, 8, 5, 6]).with_grad(), Tensor::randn([8, 3, 2, 2]).with_grad());
    let options = ConvTranspose2dOptions { stride: [2, 2], ..Default::default() };
    let (_, explanation) =
        explain(|| x.conv_transpose2d(&w, None, options).unwrap().sum(..).unwrap().backward_with(Default::default()).unwrap());
    assert_eq!(explanation.choices.iter().map(|choice| choice.pass).collect::<Vec<_>>(), PASSES);
    for choice in &explanation.choices {
        assert_eq!((choice.input, choice.weight, choice.output), ([2, 8, 5, 6], [8, 3, 2, 2], [2, 3, 10, 12]));
        assert_eq!((choice.operation, choice.stride), ("conv_transpose2d", [2, 2]));
    }
    assert!(explanation.to_string().contains("  conv_transpose2d 8→3, k2, s2 @5×6 ×2  "), "{explanation}");
}

#[test]
fn outer_explanation_includes_inner_one_and_meta_runs_are_not_counted() {
    let net = net();
    let x = Tensor::randn([1, 3, 17, 17]);
    let (inner, outer) = explain(|| {
        net.summary(x.shape()).unwrap();
        let first = net.forward(&x).unwrap();
        let (_, inner) = explain(|| net.forward(&x).unwrap());
        drop(first);
        inner
    });
    let calls = |explanation: &Explanation| explanation.choices.iter().map(|choice| choice.calls).collect::<Vec<_>>();
    assert_eq!((calls(&inner), calls(&outer)), (vec![1; 3], vec![2; 3]));
}

#[test]
fn table_is_complete_and_aligned() {
    let net = net();
    let x = Tensor::randn([2, 3, 17, 17]);
    let (_, mut explanation) = explain(|| net.forward(&x).unwrap().sum(..).unwrap().backward().unwrap());
    let one = Tensor::randn([1, 4, 9]);
    let conv1d = || one.conv1d(&Tensor::randn([2, 4, 3]), None, Conv1dOptions::default()).unwrap();
    let (_, of_one) = explain(|| with_algorithm(ConvAlgorithm::Winograd2, conv1d));
    explanation.choices.extend(of_one.choices);
    explanation.threads = 1;
    let text = explanation.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[2].starts_with("stem.0  forward ") && lines[2].contains("  3→16, k3, s2 @17×17 ×2 "), "{text}");
    assert!(lines[2].ends_with("; no winograd: the stride leaves fewer than 3×3 taps"), "{text}");
    assert!(lines[5].starts_with("body.0  input gradient ") && lines[5].contains("  the cheapest "), "{text}");
    assert!(lines[5].contains("  direct 1.00, ") && lines[5].contains(", winograd2 "), "{text}");
    assert!(lines[9].contains("16→16, k3, g16 @8×8 ×2 ") && lines[9].contains("; no winograd: there are groups"), "{text}");
    let last = lines[lines.len() - 3];
    assert!(last.starts_with("-       forward ") && last.contains("  conv1d 4→2, k1×3 @1×9 ×1 "), "{text}");
    assert!(last.contains("  not winograd2, as asked: the kernel is not 3×3  "), "{text}");
    let foot = format!("{}, 1 thread; costs as multiples of what ran", instruction_set());
    assert!(lines[lines.len() - 1].starts_with(&foot), "{text}");
    for head in ["pass", "convolution", "algorithm", "why", "estimated costs"] {
        let column = lines[0].split(head).next().unwrap().chars().count();
        for line in &lines[2..lines.len() - 2] {
            let letters: Vec<char> = line.chars().collect();
            assert!(letters[column - 2..column] == [' ', ' '] && letters[column] != ' ', "{head}\n{text}");
        }
    }
}
