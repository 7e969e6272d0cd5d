use super::*;

/// Creates a layer with weights, biases and running estimates that are all different.
fn layer(inputs: usize, outputs: usize, groups: usize, factor: usize) -> LearnedGroupConv {
    crate::manual_seed(1);
    let layer = LearnedGroupConv::new(inputs, outputs, groups, factor);
    for tensor in [layer.norm.weight.as_ref(), layer.norm.bias.as_ref()].into_iter().flatten() {
        tensor.set(&Tensor::randn(tensor.shape())).unwrap();
    }
    let [mean, var] = [&layer.norm.running_mean, &layer.norm.running_var].map(|buffer| buffer.as_ref().unwrap());
    mean.set(&Tensor::randn([inputs])).unwrap();
    var.set(&Tensor::rand([inputs]).add_scalar(0.5)).unwrap();
    layer
}

fn mask(layer: &LearnedGroupConv) -> Vec<f32> {
    layer.mask.tensor().to_vec().unwrap()
}

#[test]
fn each_stage_drops_the_inputs_with_the_smallest_weights_of_each_group() {
    let layer = LearnedGroupConv::new(4, 4, 2, 4);
    // Groups are rows 0 and 2, rows 1 and 3. Sums of magnitudes: 5 4 3 3, and 1 5 4 8.
    let weight = [[1., -4., 1., 2.], [0., 2., 3., 4.], [-4., 0., 2., 1.], [1., 3., -1., 4.]].concat();
    layer.conv.weight.set(&Tensor::from_vec(weight.iter().map(|&w: &f64| w as f32).collect(), [4, 4, 1, 1]).unwrap()).unwrap();
    let kept = [
        (0.0, [[1, 1, 1, 1], [1, 1, 1, 1]]),
        (0.16, [[1, 1, 1, 1], [1, 1, 1, 1]]),
        (0.17, [[1, 1, 0, 1], [0, 1, 1, 1]]),
        (0.34, [[1, 1, 0, 0], [0, 1, 0, 1]]),
        // The stage never decreases.
        (0.1, [[1, 1, 0, 0], [0, 1, 0, 1]]),
        (0.5, [[1, 0, 0, 0], [0, 0, 0, 1]]),
        (1.0, [[1, 0, 0, 0], [0, 0, 0, 1]]),
    ];
    for (progress, [even, odd]) in kept {
        layer.set_progress(progress).unwrap();
        assert_eq!(mask(&layer), [even, odd, even, odd].concat().iter().map(|&k| k as f32).collect::<Vec<_>>(), "{progress}");
    }
    assert_eq!(layer.count.tensor().to_vec::<f32>().unwrap(), [3.0]);
    assert_eq!(layer.current_stage().unwrap(), 3);

    // Two stages at once give the same as one after the other.
    let all_at_once = LearnedGroupConv::new(4, 4, 2, 4);
    all_at_once.conv.weight.set(&layer.conv.weight.tensor()).unwrap();
    all_at_once.set_progress(0.7).unwrap();
    assert_eq!(mask(&all_at_once), mask(&layer));
}

#[test]
fn penalty_sums_norms_over_groups_and_inputs_and_has_gradients_for_unmasked_weights_only() {
    let layer = LearnedGroupConv::new(2, 4, 2, 2);
    let weight = vec![3f32, 0.5, 5.0, 0.1, 4.0, 1.2, 12.0, 0.0];
    layer.conv.weight.set(&Tensor::from_vec(weight, [4, 2, 1, 1]).unwrap()).unwrap();
    let lasso = layer.lasso().unwrap();
    // Rows 0 and 2, rows 1 and 3: (3, 4), (0.5, 1.2), (5, 12), (0.1, 0).
    approx::assert_abs_diff_eq!(lasso.item::<f32>().unwrap(), 5.0 + 1.3 + 13.0 + 0.1, epsilon = 1e-5);
    let gradient = lasso.backward().unwrap().remove(&layer.conv.weight.tensor()).unwrap().to_vec::<f32>().unwrap();
    approx::assert_abs_diff_eq!([gradient[0], gradient[6]][..], [3.0 / 5.0, 12.0 / 13.0][..], epsilon = 1e-6);
    layer.set_progress(1.0).unwrap();
    assert_eq!(layer.lasso().unwrap().item::<f32>().unwrap(), 0.0);
}

#[test]
fn condensed_convolution_computes_the_same_in_both_modes_with_any_groups_and_factor() {
    for (groups, factor) in [(4, 4), (2, 4), (4, 2), (1, 3), (3, 1)] {
        let layer = layer(12, 24, groups, factor);
        layer.to_dtype(DType::F64).unwrap();
        if factor > 1 {
            let error = layer.condensed().err().unwrap().to_string();
            assert!(error.contains("group 0 uses 12 of 12 inputs"), "{error}");
        }
        layer.set_progress(0.5).unwrap();
        let condensed = layer.condensed().unwrap();
        assert_eq!(condensed.index.shape(), [12 * groups / factor]);
        assert_eq!(condensed.conv.weight.shape(), [24, 12 / factor, 1, 1]);
        let x = Tensor::randn([3, 12, 5, 5]).to_dtype(DType::F64).unwrap();
        let same = |condensed: &CondensedConv| {
            let [a, b] = [layer.forward(&x), condensed.forward(&x)].map(|y| y.unwrap().to_vec::<f64>().unwrap());
            let difference = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            // Sums of twelve numbers of about 1, in another order.
            assert!(difference < 1e-13 && a.len() == b.len(), "{groups} groups, factor {factor}: {difference}");
        };
        same(&condensed);
        layer.eval();
        let condensed = layer.condensed().unwrap();
        assert!(!condensed.is_training());
        same(&condensed);
    }
}

#[test]
fn misfit_channels_and_invalid_progress_are_refused() {
    let x = Tensor::zeros([1, 6, 2, 2]);
    for (inputs, outputs, groups, factor) in [(6, 8, 4, 2), (6, 9, 2, 2), (6, 8, 2, 4), (6, 8, 0, 2), (6, 8, 2, 0)] {
        let layer = LearnedGroupConv::new(inputs, outputs, groups, factor);
        let message = layer.forward(&x).unwrap_err().to_string();
        assert!(message.contains(&format!("into {groups} groups and by the condensation factor {factor}")), "{message}");
        assert!(layer.set_progress(0.5).is_err() && layer.lasso().is_err() && layer.condensed().is_err());
    }
    assert!(CondensedConv::new(6, 8, 0, 2).forward(&x).is_err());
    let layer = LearnedGroupConv::new(6, 8, 2, 2);
    for progress in [-0.1, 1.1, f64::NAN] {
        let error = layer.set_progress(progress).unwrap_err().to_string();
        assert!(error.contains("between 0 and 1"), "{error}");
    }
    // A mask and a stage with invalid values from a file.
    layer.stage.set(&Tensor::full([1], 1e30, DType::F32)).unwrap();
    assert_eq!(layer.current_stage().unwrap(), 1);
    let mut odd = vec![1.0; 48];
    for group in 0..2 {
        odd[group * 6..][..3].fill(0.0);
    }
    assign(&layer.mask, odd).unwrap();
    let error = layer.condensed().err().unwrap().to_string();
    assert!(error.contains("do not have one mask"), "{error}");
    let condensed = CondensedConv::new(6, 8, 2, 2);
    condensed.index.set(&Tensor::from_vec(vec![0i64, 1, 2, 3, 4, 99], [6]).unwrap()).unwrap();
    let error = condensed.forward(&x).unwrap_err().to_string();
    assert!(error.contains("99"), "{error}");
}
