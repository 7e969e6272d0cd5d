//! Parts by path: reached, replaced, listed, copied and compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use convnet::nn::block;
use convnet::prelude::*;
use convnet::{Result, models, visit_fields};

/// One of everything that a module can consist of.
struct Net {
    stem: Conv2d,
    stage: Vec<Block>,
    body: Sequential,
    extra: Option<Linear>,
    any: Box<dyn Module>,
    shared: Arc<Conv2d>,
    again: Arc<Conv2d>,
    gain: Parameter,
    tied: Parameter,
    options: Vec<usize>,
}

struct Block {
    conv: Conv2d,
}

impl Module for Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        block(self, || x.apply(&self.conv)?.add(x))
    }

    visit_fields!(conv => "conv.inner");
}

impl Module for Net {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.apply(&self.stem)?.apply(&self.stage)?.apply(&self.body)?.apply(&self.shared)?.apply(&self.again)?;
        y.mul(&self.gain.tensor())?.mul(&self.tied.tensor())?.mean([2, 3])?.apply(&self.extra)?.apply(&self.any)
    }

    visit_fields!(
        stem,
        each stage => |i| format!("stage{i}"),
        body => "layers",
        extra,
        any,
        shared,
        again,
        gain,
        tied,
        skip(options)
    );
}

fn net() -> Net {
    convnet::manual_seed(5);
    let shared = Arc::new(Conv2d::new(4, 4, 1));
    let gain = Parameter::new(Tensor::ones([4, 1, 1]));
    let conv = || Conv2d::new(4, 4, 3).padding(1);
    Net {
        stem: Conv2d::new(3, 4, 3),
        stage: vec![Block { conv: conv() }, Block { conv: conv() }],
        body: Sequential::new().push(conv()).push(BatchNorm2d::new(4)).push_named("act", ReLU),
        extra: Some(Linear::new(4, 4)),
        any: Box::new(Linear::new(4, 2)),
        shared: Arc::clone(&shared),
        again: shared,
        tied: gain.clone(),
        gain,
        options: vec![1, 2],
    }
}

/// The path that the layer inside says in its error.
fn path_in_error(module: &dyn Module) -> String {
    module.forward(&Tensor::zeros([1])).unwrap_err().to_string().split(' ').next().unwrap().to_string()
}

#[test]
fn modules_are_found_by_the_paths_of_state_dicts() {
    let net = net();
    for path in ["stem", "stage1.conv.inner", "layers.0", "layers", "extra", "any", "shared"] {
        assert!(net.get(path).is_some(), "{path}");
    }
    for path in ["", ".", "stem.", ".stem", "stage", "stage2", "stage1.conv", "stemx", "layers.2", "gain", "stem.weight"] {
        assert!(net.get(path).is_none(), "{path}");
    }
    assert_eq!(net.get("stage1.conv.inner").unwrap().downcast_ref::<Conv2d>().unwrap().weight.shape(), [4, 4, 3, 3]);
    assert_eq!(net.get("any").unwrap().downcast_ref::<Linear>().unwrap().weight.shape(), [2, 4], "through the box");
    assert!(net.get("any").unwrap().downcast_ref::<Conv2d>().is_none());
    let error = net.try_get("stage1.conv.iner").err().unwrap().to_string();
    assert!(error.contains("near names are stage1.conv.inner"), "{error}");
}

#[test]
fn all_modules_are_listed_and_visited_in_order() {
    let net = net();
    let paths: Vec<String> = net.named_modules().into_iter().map(|(path, _)| path).collect();
    let expected = "stem stage0 stage0.conv.inner stage1 stage1.conv.inner layers layers.0 layers.1 layers.act extra any shared again";
    assert_eq!(paths.join(" "), expected);
    let mut convolutions = 0;
    net.for_each_module(|_, module| convolutions += usize::from(module.downcast_ref::<Conv2d>().is_some()));
    assert_eq!(convolutions, 6);
    for name in ["resnet18", "mobilenet_v2", "efficientnet_b0", "googlenet", "densenet121", "condensenet", "xception", "vgg11_bn", "nin"] {
        let model = models::create(name, 3).unwrap();
        let owners: Vec<String> =
            model.named_parameters().into_iter().map(|(path, _)| path.rsplit_once('.').unwrap().0.to_string()).collect();
        for owner in owners {
            assert!(model.get(&owner).is_some(), "{name}: {owner}");
        }
    }
}

#[test]
fn a_replaced_part_runs_and_knows_its_path() {
    let mut net = net();
    let x = Tensor::randn([2, 3, 6, 6]);
    net.parameters();
    let old = net.replace("any", Sequential::new().push(Dropout::new(0.5)).push_named("fc", Linear::new(4, 7))).unwrap();
    assert!(old.downcast_ref::<Linear>().is_some());
    assert_eq!(net.forward(&x).unwrap().shape(), [2, 7]);
    assert_eq!(path_in_error(net.get("any.fc").unwrap()), "any.fc");
    // A field of a type takes that type, also where it is optional or boxed.
    net.replace("extra", Linear::new(4, 4)).unwrap();
    net.replace("extra", None::<Linear>).unwrap();
    net.replace("extra", Box::new(Linear::new(4, 4)) as Box<dyn Module>).unwrap();
    net.replace("layers.act", SiLU).unwrap();
    net.replace("stage1.conv.inner", Conv2d::new(4, 4, 1)).unwrap();
    assert_eq!(net.forward(&x).unwrap().shape(), [2, 7]);
    assert_eq!(path_in_error(net.get("stage1.conv.inner").unwrap()), "stage1.conv.inner");
    let error = net.replace("stem", ReLU).err().unwrap().to_string();
    assert!(error.contains("\"stem\" is for modules of type Conv2d, got ReLU"), "{error}");
    assert!(net.replace("stem", Box::new(ReLU) as Box<dyn Module>).is_err());
    let error = net.replace("layer.act", ReLU).err().unwrap().to_string();
    assert!(error.contains("near names are layers.act"), "{error}");
    assert!(net.replace("", ReLU).is_err());
}

#[test]
fn a_part_of_a_part_is_replaced_under_the_whole_models_path() {
    let mut model = models::resnet18(3);
    model.parameters();
    model.layer1.replace("0", Linear::new(2, 1)).unwrap();
    assert_eq!(path_in_error(model.get("layer1.0").unwrap()), "layer1.0");
}

#[test]
fn a_module_that_is_shared_outside_is_not_changed_inside() {
    let shared = Arc::new(Sequential::new().push(ReLU));
    let mut net = Sequential::new().push(Arc::clone(&shared));
    assert!(net.replace("0.0", SiLU).is_err());
    drop(shared);
    net.replace("0.0", SiLU).unwrap();
}

#[test]
fn what_is_visited_by_hand_says_how_it_can_be_reached() {
    struct Hand {
        conv: Conv2d,
        count: std::sync::atomic::AtomicUsize,
    }
    impl Module for Hand {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            x.apply(&self.conv)
        }
        fn visit(&self, v: &mut Visitor<'_>) {
            visit_fields!(v, self; conv, skip count);
        }
    }
    let mut net = Sequential::new().push(Hand { conv: Conv2d::new(1, 1, 1), count: Default::default() });
    assert_eq!(net.num_parameters(), 2);
    assert!(net.get("0").is_some());
    for error in [net.try_get("0.conv").err().unwrap(), net.replace("0.conv", Conv2d::new(1, 1, 1)).err().unwrap()] {
        assert!(error.to_string().contains("visit_fields!"), "{error}");
    }
    let error = net.deep_clone().err().unwrap().to_string();
    assert!(error.contains("a Hand cannot be copied"), "{error}");
}

#[test]
fn a_copy_is_equal_and_independent_and_keeps_what_is_shared() {
    let net = net();
    net.freeze("stem").unwrap();
    net.eval();
    let copy = net.deep_clone().unwrap();
    let x = Tensor::randn([2, 3, 6, 6]);
    assert_eq!(copy.forward(&x).unwrap().to_vec::<f32>().unwrap(), net.forward(&x).unwrap().to_vec::<f32>().unwrap());
    assert!(net.difference(&copy).unwrap().is_empty());
    assert!(copy.stem.weight.is_frozen() && !copy.is_training() && copy.options == [1, 2]);
    assert!(Arc::ptr_eq(&copy.shared, &copy.again) && !Arc::ptr_eq(&copy.shared, &net.shared));
    assert_eq!(copy.parameters().len(), net.parameters().len(), "tied parameters are one");
    copy.gain.set(&Tensor::zeros([4, 1, 1])).unwrap();
    assert_eq!(copy.tied.tensor().to_vec::<f32>().unwrap(), [0.0; 4]);
    assert_eq!(net.tied.tensor().to_vec::<f32>().unwrap(), [1.0; 4]);
    // In training the copy's estimates move, and an optimiser changes its weights only.
    copy.gain.set(&Tensor::ones([4, 1, 1])).unwrap();
    copy.train();
    let before = net.state_dict();
    let mut optimizer = Sgd::new(copy.parameters(), 0.5);
    optimizer.step(&copy.forward(&x).unwrap().square().unwrap().mean(..).unwrap().backward().unwrap()).unwrap();
    assert!(before.difference(&net.state_dict()).unwrap().is_empty());
    let changed = net.difference(&copy).unwrap();
    assert!(changed.changed.contains(&"layers.1.running_mean".to_string()) && changed.changed.contains(&"any.weight".to_string()));
    assert!(!changed.changed.contains(&"stem.weight".to_string()), "{changed}");
}

#[test]
fn a_model_of_each_paper_can_be_copied() {
    // Small ones, since a copy draws all weights.
    let names = [
        "lenet5",
        "nin_maxout",
        "googlenet",
        "resnet18",
        "seresnet18",
        "cifar_resnet20",
        "densenet121",
        "condensenet",
        "mobilenet_v1",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "efficientnet_b0",
        "xception",
    ];
    let mut all: Vec<Box<dyn Module>> = names.iter().map(|name| models::create(name, 2).unwrap()).collect();
    all.push(Box::new(models::vgg11_bn(2).features));
    for model in all {
        let shapes = |model: &dyn Module| model.named_parameters().into_iter().map(|(path, p)| (path, p.shape())).collect::<Vec<_>>();
        let copy = model.clone_boxed().unwrap();
        assert_eq!(shapes(&*copy), shapes(&*model));
        assert_eq!(copy.named_modules().len(), model.named_modules().len());
    }
}

#[test]
fn differences_are_listed_by_kind() {
    let (a, b) = (Sequential::new().push(Linear::new(2, 3)).push(Linear::new(3, 1)), Sequential::new().push(Linear::new(2, 4)));
    let difference = a.difference(&b).unwrap();
    assert_eq!(
        difference.to_string(),
        "2 only in the first: 1.weight, 1.bias; 2 of different shapes or dtypes: \
         0.weight: f32 [3, 2] and f32 [4, 2], 0.bias: f32 [3] and f32 [4]"
    );
    let nan = Linear::new(1, 1).bias(false);
    nan.weight.set(&Tensor::full([1, 1], f64::NAN, convnet::DType::F32)).unwrap();
    assert_eq!(nan.difference(&nan).unwrap().to_string(), "no difference");
    let zero = Linear::new(1, 1).bias(false);
    zero.weight.set(&Tensor::zeros([1, 1])).unwrap();
    assert_eq!(zero.difference(&nan).unwrap().changed, ["weight"]);
}

#[test]
fn a_trait_object_has_everything() {
    let boxed = models::create("lenet5", 10).unwrap();
    let model: &dyn Module = &*boxed;
    let directory = std::env::temp_dir().join(format!("convnet-parts-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("lenet.safetensors");
    model.save(&path).unwrap();
    assert!(model.load(&path).unwrap().missing.is_empty());
    std::fs::remove_dir_all(directory).unwrap();
    assert_eq!(model.summary([1, 1, 28, 28]).unwrap().parameters, 61_706);
    assert!(!model.receptive_field([1, 1, 28, 28]).unwrap().rows.is_empty());
    assert_eq!(Tensor::zeros([1, 1, 28, 28]).apply(model).unwrap().shape(), [1, 10]);
}

#[test]
fn one_call_gives_every_registered_model_a_new_head() {
    for name in models::names() {
        let mut model = models::create(name, 3).unwrap();
        let body = model.num_parameters();
        let old = models::replace_head(&mut model, 2).unwrap();
        if old.downcast_ref::<models::RbfOutput>().is_some() {
            // Its codes are fixed.
            assert_eq!((old.num_parameters(), model.num_parameters()), (0, body), "{name}");
        } else {
            assert!(old.num_parameters() > 0 && model.num_parameters() < body, "{name}");
        }
        let info = models::info(name).unwrap();
        let [channels, height, width] = info.input;
        let summary = model.summary([1, channels, height, width]).unwrap();
        assert_eq!(summary.rows[0].output.as_deref(), Some([1, 2].as_slice()), "{name}");
    }
    assert!(models::replace_head(&mut models::lenet5(3), 0).is_err());
    assert!(models::replace_head(&mut Sequential::new().push(ReLU), 2).is_err());
}

/// Returns the smallest registered model of each paper, except those of more than 14 million
/// parameters, whose files take long to write.
fn smallest_of_each_paper() -> Vec<&'static str> {
    let mut smallest = BTreeMap::new();
    for model in models::names().map(|name| models::info(name).unwrap()) {
        let candidate = (model.parameters(), model.name);
        let known = smallest.entry(model.paper).or_insert(candidate);
        *known = candidate.min(*known);
    }
    smallest.into_values().filter(|&(parameters, _)| parameters <= 14_000_000).map(|(_, name)| name).collect()
}

#[test]
fn models_with_new_heads_train_and_are_the_same_after_saving_and_loading() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let names = smallest_of_each_paper();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        let with_head = || {
            let mut model = models::create(name, 5).unwrap();
            models::replace_head(&mut model, 3).unwrap();
            model
        };
        let [channels, height, width] = models::info(name).unwrap().input;
        let x = Tensor::randn([2, channels, height.min(64), width.min(64)]);
        let model = with_head();
        let before = model.state_dict();
        let mut optimizer = Sgd::new(model.parameters(), 0.01);
        let loss = x.apply(&model).unwrap().cross_entropy(&Tensor::from_vec(vec![0i64, 2], [2]).unwrap()).unwrap();
        optimizer.step(&loss.backward().unwrap()).unwrap();
        let (head, _) = model.named_parameters().pop().unwrap();
        let changed = before.difference(&model.state_dict()).unwrap().changed;
        assert!(changed.contains(&head), "{name}: a step changed {changed:?}");

        model.save(&path).unwrap();
        let loaded = with_head();
        assert!(!loaded.difference(&model).unwrap().is_empty(), "{name}");
        loaded.load(&path).unwrap();
        assert_eq!(loaded.difference(&model).unwrap().to_string(), "no difference", "{name}");
        for model in [&model, &loaded] {
            model.eval();
        }
        let [y, again] = [&model, &loaded].map(|model| no_grad(|| x.apply(model)).unwrap());
        assert!(y.shape() == [2, 3] && y == again, "{name}: {:?}", y.worst_difference(&again));
    }
}
