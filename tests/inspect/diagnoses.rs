//! Pictures of kernels and maps, histograms, diagnoses.

use convnet::data::Image;
use convnet::nn::*;
use convnet::{Result, Tensor, inspect, manual_seed, models, no_grad};

#[test]
fn kernels_of_three_channels_are_drawn_in_colour_and_others_by_input() {
    let weight = Tensor::from_vec((-10..14).map(|i| i as f32).collect(), [2, 3, 2, 2]).unwrap();
    // A row of two kernels, each enlarged 14 times, between lines of one pixel.
    let picture = inspect::kernels(&weight).unwrap();
    assert_eq!(picture.shape(), [3, 30, 59]);
    let pixel = |picture: &Image, row: usize, column: usize| {
        let channels = picture.channels();
        picture.bytes().unwrap()[(row * picture.width() + column) * channels..][..channels].to_vec()
    };
    // Elements -10, -6 and -2 of -10 to 1, and 5, 9 and 13 of 2 to 13; 0 would be 127.5.
    assert_eq!(pixel(&picture, 1, 1), [0, 51, 102]);
    assert_eq!(pixel(&picture, 28, 57), [177, 216, 255]);
    let signed = Tensor::from_vec(vec![-2f32, 0.0, 1.0, 0.0, 0.0, 4.0], [3, 2, 1, 1]).unwrap();
    let picture = inspect::kernels(&signed).unwrap();
    assert_eq!(picture.shape(), [1, 3 * 29 + 1, 2 * 29 + 1]);
    let rows = [0, 1, 2].map(|row| [0, 1].map(|column| pixel(&picture, 29 * row + 1, 29 * column + 1)[0]));
    assert_eq!(rows, [[0, 128], [255, 128], [128, 255]]);
    assert_eq!(inspect::kernels(&Tensor::zeros([6, 1, 5, 5])).unwrap().shape(), [1, 2 * 26 + 1, 3 * 26 + 1]);
    assert!(inspect::kernels(&Tensor::zeros([3, 2])).is_err() && inspect::kernels(&Tensor::zeros([0, 3, 2, 2])).is_err());
    assert_eq!(inspect::feature_maps(&Tensor::zeros([5, 4, 6])).unwrap().shape(), [3, 11, 22]);
    assert!(inspect::feature_maps(&Tensor::zeros([2, 5, 4, 6])).is_err());
}

#[test]
fn histogram_counts_what_is_finite() {
    let values = vec![f32::NAN, -1.0, 0.0, 0.0, 3.0, f32::INFINITY];
    let histogram = inspect::Histogram::of(&Tensor::from_vec(values, [6]).unwrap(), 2).unwrap();
    assert_eq!((histogram.counts, histogram.zeros, histogram.non_finite), (vec![3, 1], 2, 2));
    assert_eq!((histogram.min, histogram.max, histogram.mean, histogram.std), (-1.0, 3.0, 0.5, 2.25f64.sqrt()));
    let empty = inspect::Histogram::of(&Tensor::zeros([0]), 3).unwrap();
    assert_eq!((empty.counts, empty.mean, empty.std), (vec![0; 3], 0.0, 0.0));
    assert!(inspect::Histogram::of(&Tensor::zeros([2]), 0).is_err());
    assert_eq!(inspect::Histogram::of(&Tensor::ones([7]), 3).unwrap().counts, [7, 0, 0]);
}

#[test]
fn histograms_are_listed_by_layer() {
    manual_seed(1);
    let net = Sequential::new().push(Conv2d::new(1, 2, 3)).push(ReLU).push(Flatten).push_named("fc", Linear::new(8, 2));
    let x = Tensor::randn([4, 1, 4, 4]);
    let names = |all: &[(String, inspect::Histogram)]| all.iter().map(|(path, _)| path.clone()).collect::<Vec<_>>();
    let activations = no_grad(|| inspect::activation_histograms(&net, 8, || net.forward(&x))).unwrap();
    assert_eq!(names(&activations), ["0", "1", "2", "fc"]);
    assert_eq!(activations[1].1.counts.iter().sum::<u64>(), 4 * 2 * 4);
    let gradients = net.forward(&x).unwrap().sum(..).unwrap().backward().unwrap();
    let parameters = ["0.weight", "0.bias", "fc.weight", "fc.bias"];
    assert_eq!(names(&inspect::weight_histograms(&net, 8).unwrap()), parameters);
    let histograms = inspect::gradient_histograms(&net, &gradients, 8).unwrap();
    assert_eq!(names(&histograms), parameters);
    assert_eq!((histograms[3].1.min, histograms[3].1.max), (4.0, 4.0));
}

#[test]
fn first_output_that_is_not_finite_is_found_in_fused_networks() {
    manual_seed(2);
    let model = models::create("resnet18", 4).unwrap();
    model.eval();
    let x = Tensor::randn([1, 3, 32, 32]);
    let search = || no_grad(|| inspect::first_non_finite(&model, || model.forward(&x))).unwrap();
    assert_eq!(search(), None);
    let parameters = model.named_parameters();
    let set = |name: &str, value: f32| {
        let (_, parameter) = parameters.iter().find(|(path, _)| path == name).unwrap();
        parameter.set(&(&Tensor::zeros(parameter.shape()) + f64::from(value))).unwrap();
    };
    set("layer3.0.bn2.bias", f32::NAN);
    let found = search().unwrap();
    assert_eq!((found.path.as_str(), found.layer.as_str(), found.nan, found.numel), ("layer3.0.bn2", "BatchNorm2d 256", 1024, 1024));
    assert_eq!(found.parameters, ["layer3.0.bn2.bias"]);
    assert!(found.to_string().starts_with("layer3.0.bn2 (BatchNorm2d 256): 1024 NaN and 0 infinite of 1024 elements"), "{found}");
    // An error before anything is found is the caller's.
    assert!(inspect::first_non_finite(&model, || model.forward(&Tensor::zeros([1, 2, 8, 8]))).is_err());
}

#[test]
fn parameters_that_got_no_gradient_are_named_unless_frozen() {
    let net = Sequential::new().push_named("a", Linear::new(2, 2)).push_named("b", Linear::new(2, 2)).push_named("c", Linear::new(2, 2));
    net.freeze("c.bias").unwrap();
    let gradients = net.child(0).unwrap().forward(&Tensor::ones([1, 2])).unwrap().sum(..).unwrap().backward().unwrap();
    assert_eq!(inspect::without_gradient(&net, &gradients), ["b.weight", "b.bias", "c.weight"]);
}

#[test]
fn dead_rectifiers_are_counted_in_layers_and_in_blocks() {
    manual_seed(3);
    let block = models::BasicBlock::new(2, 2, 1);
    block.eval();
    block.bn1.bias.as_ref().unwrap().set(&Tensor::from_vec(vec![-1e3f32, 1e3], [2]).unwrap()).unwrap();
    let net = Sequential::new().push(Conv2d::new(1, 2, 1)).push(ReLU).push_named("block", block);
    let x = Tensor::rand([3, 1, 4, 4]);
    for found in
        [inspect::dead_relus(&net, || net.forward(&x)).unwrap(), no_grad(|| inspect::dead_relus(&net, || net.forward(&x))).unwrap()]
    {
        assert_eq!(found.iter().map(|relu| relu.path.as_str()).collect::<Vec<_>>(), ["1", "block#1", "block#2"]);
        assert_eq!((found[1].dead, found[1].channels, found[1].share()), (1, 2, 0.5));
    }
}

#[test]
fn update_ratio_is_the_change_by_the_norm() {
    let layer = Linear::new(2, 2);
    layer.weight.set(&Tensor::ones([2, 2])).unwrap();
    layer.bias.as_ref().unwrap().set(&Tensor::zeros([2])).unwrap();
    let before = inspect::UpdateRatios::before(&layer).unwrap();
    let ratios = |layer: &Linear| -> Result<Vec<f64>> { Ok(before.after(layer)?.into_iter().map(|(_, ratio)| ratio).collect()) };
    assert_eq!(ratios(&layer).unwrap(), [0.0, 0.0]);
    layer.weight.set(&(&Tensor::ones([2, 2]) * 1.5)).unwrap();
    layer.bias.as_ref().unwrap().set(&Tensor::ones([2])).unwrap();
    assert_eq!(ratios(&layer).unwrap(), [0.5, f64::INFINITY]);
    assert!(ratios(&Linear::new(3, 2)).is_err());
}
