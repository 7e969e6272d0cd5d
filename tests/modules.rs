//! Layers, networks, state dicts and summaries.

use convnet::nn::*;
use convnet::{DType, Error, Result, Tensor, manual_seed, no_grad, visit_fields};

fn names(module: &impl Module) -> Vec<String> {
    module.named_parameters().into_iter().map(|(name, _)| name).collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec::<f32>().unwrap()
}

struct Block {
    conv1: Conv2d,
    act: ReLU,
    downsample: Option<Sequential>,
}

impl Module for Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.act.forward(&self.conv1.forward(x)?)?;
        y.add(&self.downsample.forward(x)?)
    }
    fn visit(&self, v: &mut Visitor<'_>) {
        visit_fields!(v, self; conv1, act, downsample);
    }
}

fn block(inputs: usize, outputs: usize) -> Block {
    let downsample = (inputs != outputs).then(|| Sequential::new().push(Conv2d::new(inputs, outputs, 1).bias(false)));
    Block { conv1: Conv2d::new(inputs, outputs, 3).padding(1), act: ReLU, downsample }
}

fn nested() -> Sequential {
    let layer1 = Sequential::new().push(block(64, 64)).push(block(64, 32));
    Sequential::new().push_named("layer1", layer1).push_named("pool", Flatten).push_named("fc", Linear::new(32 * 4, 10))
}

#[test]
fn keys_are_the_field_names_joined_with_dots() {
    let expected = [
        "layer1.0.conv1.weight",
        "layer1.0.conv1.bias",
        "layer1.1.conv1.weight",
        "layer1.1.conv1.bias",
        "layer1.1.downsample.0.weight",
        "fc.weight",
        "fc.bias",
    ];
    assert_eq!(names(&nested()), expected);
}

#[test]
fn an_error_names_the_path_of_the_layer_it_comes_from() {
    let error = nested().forward(&Tensor::zeros([2, 3, 56, 56])).unwrap_err();
    assert_eq!(error.to_string(), "layer1.0.conv1 (Conv2d 64→64, k3): expected 64 input channels, got shape [2, 3, 56, 56]");
    let error = nested().forward(&Tensor::zeros([2, 64, 3, 3])).unwrap_err();
    assert_eq!(error.to_string(), "fc (Linear 128→10): expected 128 input features, got shape [2, 288]");
    // The layer inside is named, not the ones around it, and the cause is at hand.
    let Error::Layer { path, source, .. } = error else { panic!("not an error from a layer") };
    assert!(path == "fc" && matches!(*source, Error::Shape { .. }));
}

#[test]
fn an_error_between_layers_names_the_block() {
    struct Sum;
    impl Module for Sum {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            x.add(&Tensor::zeros([7]))
        }
        fn visit(&self, _: &mut Visitor<'_>) {}
    }
    let net = Sequential::new().push_named("stem", Sequential::new().push(ReLU).push(Sum));
    let error = net.forward(&Tensor::zeros([2, 3])).unwrap_err().to_string();
    assert!(error.starts_with("stem.1 (Sum): "), "{error}");
}

#[test]
fn options_that_make_no_sense_are_errors_of_forward() {
    let x = Tensor::zeros([1, 4, 5, 5]);
    let cases: [(Conv2d, &str); 4] = [
        (Conv2d::new(4, 6, 3).groups(3), "do not divide into 3 groups"),
        (Conv2d::new(4, 6, 3).groups(0), "do not divide into 0 groups"),
        (Conv2d::new(4, usize::MAX, 3), "more elements than memory can hold"),
        (Conv2d::new(4, 6, 7), ""),
    ];
    for (conv, message) in cases {
        let error = conv.forward(&x).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(conv.num_parameters() < 10_000 && conv.state_dict().len() == 2);
    }
    let huge = Linear::new(usize::MAX, 2);
    assert!(huge.forward(&x).unwrap_err().to_string().contains("memory"));
    assert_eq!(huge.num_parameters(), 0);
    assert!(Conv2d::new(4, 4, 1).stride(0).forward(&x).is_err());
    assert!(Conv2d::new(4, 4, 3).dilation(usize::MAX).padding(usize::MAX).forward(&x).is_err());
}

#[test]
fn layers_have_pytorchs_parameters() {
    let shapes = |module: &dyn Module| module.parameters().iter().map(Parameter::shape).collect::<Vec<_>>();
    assert_eq!(shapes(&Conv2d::new(4, 6, [3, 5])), [vec![6, 4, 3, 5], vec![6]]);
    assert_eq!(shapes(&Conv2d::new(4, 6, 3).groups(2).bias(false)), [vec![6, 2, 3, 3]]);
    assert_eq!(shapes(&Conv2d::new(4, 6, 3).bias(false).groups(2)), [vec![6, 2, 3, 3]]);
    assert_eq!(shapes(&Conv1d::new(4, 6, 3).groups(2)), [vec![6, 2, 3], vec![6]]);
    assert_eq!(shapes(&ConvTranspose2d::new(4, 6, 3).groups(2)), [vec![4, 3, 3, 3], vec![6]]);
    assert_eq!(shapes(&Linear::new(4, 6)), [vec![6, 4], vec![6]]);
}

#[test]
fn weights_start_uniform_within_one_over_the_root_of_the_fan_in() {
    manual_seed(3);
    let conv = Conv2d::new(16, 32, 5);
    let bound = 1.0 / (16.0f32 * 25.0).sqrt();
    let weight = values(&conv.weight.tensor());
    let (low, high) = weight.iter().fold((f32::MAX, f32::MIN), |(low, high), &w| (low.min(w), high.max(w)));
    // 12,800 draws: the extremes miss the bounds by about 1/6,400 of the range.
    assert!(low >= -bound && high <= bound && low < -0.99 * bound && high > 0.99 * bound);
    let variance = weight.iter().map(|w| w * w).sum::<f32>() / weight.len() as f32;
    assert!((variance / (bound * bound / 3.0) - 1.0).abs() < 0.05, "uniform in ±b has variance b²/3");
    assert!(values(&conv.bias.as_ref().unwrap().tensor()).iter().all(|b| b.abs() <= bound));
}

#[test]
fn a_seed_fixes_the_weights_whenever_they_are_first_asked_for() {
    let make = || {
        manual_seed(5);
        (Linear::new(3, 4), Conv2d::new(2, 3, 3).groups(1))
    };
    let (a, b) = (make(), make());
    let _ = Tensor::rand([100]);
    assert_eq!(values(&a.1.weight.tensor()), values(&b.1.weight.tensor()));
    let on_another_thread = std::thread::scope(|scope| scope.spawn(|| values(&b.0.weight.tensor())).join().unwrap());
    assert_eq!(values(&a.0.weight.tensor()), on_another_thread);
    assert_ne!(values(&a.0.weight.tensor())[..4], values(&a.0.bias.as_ref().unwrap().tensor())[..]);
}

#[test]
fn parameters_that_are_shared_count_once() {
    let (a, mut b) = (Linear::new(3, 3), Linear::new(3, 3));
    b.weight = a.weight.clone();
    let net = Sequential::new().push(a).push(b);
    assert_eq!(net.num_parameters(), 9 + 3 + 3);
    assert_eq!(net.state_dict().len(), 4);
    assert_eq!(net.freeze("0"), 2);
    assert_eq!(net.unfreeze(""), 3);
}

#[test]
fn frozen_parameters_get_no_gradient() {
    let net = nested();
    assert_eq!(net.freeze("layer"), 0, "a path, not any prefix");
    assert_eq!(net.freeze("layer1"), 5);
    let loss = net.forward(&Tensor::ones([1, 64, 2, 2])).unwrap().sum(..).unwrap();
    let grads = loss.backward().unwrap();
    let with_gradient: Vec<String> =
        net.named_parameters().into_iter().filter(|(_, p)| grads.get(&p.tensor()).is_some()).map(|(name, _)| name).collect();
    assert_eq!(with_gradient, ["fc.weight", "fc.bias"]);
}

#[test]
fn a_state_dict_carries_everything_over() {
    let (a, b) = (nested(), nested());
    let x = Tensor::randn([1, 64, 2, 2]);
    let report = b.load_state_dict(&a.state_dict()).unwrap();
    assert_eq!(report.loaded, 7);
    let run = |net: &Sequential| values(&no_grad(|| net.forward(&x)).unwrap());
    assert_eq!(run(&a), run(&b));
}

#[test]
fn a_state_dict_does_not_change_with_the_module() {
    let fc = Linear::new(1, 1);
    fc.weight.set(&Tensor::ones([1, 1])).unwrap();
    let state = fc.state_dict();
    fc.weight.set(&Tensor::zeros([1, 1])).unwrap();
    assert_eq!(values(state.get("weight").unwrap()), [1.0]);
}

#[test]
fn all_keys_that_do_not_fit_are_in_one_error_and_nothing_is_changed() {
    let net = nested();
    let before = values(&net.state_dict().get("layer1.0.conv1.bias").unwrap().clone());
    let mut state = nested().state_dict();
    state.remove("fc.bias");
    state.insert("fc.extra", Tensor::zeros([1]));
    state.insert("fc.weight", Tensor::zeros([10, 7]));
    let error = net.load_state_dict(&state).unwrap_err().to_string();
    assert_eq!(error, "state dict: 1 missing (fc.bias); 1 unexpected (fc.extra); 1 misshapen (fc.weight: expected [10, 128], got [10, 7])");
    assert_eq!(values(net.state_dict().get("layer1.0.conv1.bias").unwrap()), before);
    let report = net.load_matching(&state).unwrap();
    assert_eq!((report.loaded, report.missing.len(), report.unexpected.len(), report.misshapen.len()), (5, 1, 1, 1));
    assert_ne!(values(net.state_dict().get("layer1.0.conv1.bias").unwrap()), before);
    assert!(net.load_matching(&StateDict::new()).is_err());
}

#[test]
fn a_module_changes_its_dtype_and_loads_other_dtypes() {
    let fc = Linear::new(2, 2);
    fc.to_dtype(DType::F64).unwrap();
    assert!(fc.forward(&Tensor::zeros([1, 2])).unwrap_err().to_string().contains("f64"));
    fc.load_state_dict(&Linear::new(2, 2).state_dict()).unwrap();
    assert_eq!(fc.weight.tensor().dtype(), DType::F64);
    assert!(fc.to_dtype(DType::I64).is_err());
}

#[test]
fn modules_work_behind_pointers_and_without_a_size() {
    let boxed: Box<dyn Module> = Box::new(Sequential::new().push(Linear::new(2, 3)));
    let unsized_: &dyn Module = &*boxed;
    assert_eq!(unsized_.num_parameters(), 9);
    assert_eq!(unsized_.state_dict().len(), 2);
    unsized_.eval();
    assert_eq!((&unsized_).summary([1, 2]).unwrap().parameters, 9);
    assert_eq!(boxed.summary([1, 2]).unwrap().parameters, 9);
    assert_eq!(vec![Linear::new(2, 2), Linear::new(2, 2)].num_parameters(), 12);
    assert!(std::panic::catch_unwind(|| Sequential::new().push_named("a", ReLU).push_named("a", ReLU)).is_err());
}

#[test]
fn a_network_prints_as_a_tree() {
    let expected = "Sequential (
  (layer1): Sequential (
    (0): Block (
      (conv1): Conv2d 64→64, k3
      (act): ReLU
      (downsample): Identity
    )
    (1): Block (
      (conv1): Conv2d 64→32, k3
      (act): ReLU
      (downsample): Sequential (
        (0): Conv2d 64→32, k1
      )
    )
  )
  (pool): Flatten
  (fc): Linear 128→10
)";
    assert_eq!(format!("{:?}", nested()), expected);
}

// Files.

fn some_state() -> StateDict {
    [
        ("conv.weight", Tensor::from_vec((0..24).map(|i| i as f32 / 7.0).collect(), [2, 3, 2, 2]).unwrap()),
        ("bn.num_batches_tracked", Tensor::scalar(7i64)),
        ("images", Tensor::from_vec(vec![0u8, 1, 255], [3]).unwrap()),
        ("exact", Tensor::from_vec(vec![1.0 / 3.0, -0.0, f64::NAN], [3, 1]).unwrap()),
        ("nothing", Tensor::zeros([0, 5])),
        ("a \"strange\"\\ näme\n", Tensor::scalar(1.5f32)),
    ]
    .into_iter()
    .collect()
}

/// Names, shapes, dtypes and bits.
fn content(state: &StateDict) -> Vec<(String, String, Vec<u64>)> {
    let bits = |t: &Tensor| match t.dtype() {
        DType::U8 => t.to_vec::<u8>().unwrap().into_iter().map(u64::from).collect(),
        DType::I64 => t.to_vec::<i64>().unwrap().into_iter().map(|x| x as u64).collect(),
        DType::F32 => t.to_vec::<f32>().unwrap().into_iter().map(|x| u64::from(x.to_bits())).collect(),
        DType::F64 => t.to_vec::<f64>().unwrap().into_iter().map(f64::to_bits).collect(),
    };
    let mut content: Vec<_> = state.iter().map(|(name, t)| (name.to_string(), format!("{:?} {}", t.shape(), t.dtype()), bits(t))).collect();
    content.sort();
    content
}

/// A safetensors file of this header and so many bytes of data.
fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }
    fn load(&self, bytes: &[u8]) -> Result<StateDict> {
        let path = self.path("some.safetensors");
        // A new file each time: some file systems wait for the disk when an old one is overwritten.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, bytes).unwrap();
        let result = StateDict::load(&path);
        if let Err(error) = &result {
            assert!(error.to_string().contains("some.safetensors"), "no path in: {error}");
        }
        result
    }
}

#[test]
fn a_state_dict_survives_the_file_to_the_bit() {
    let folder = Folder::new();
    let path = folder.path("state.safetensors");
    some_state().save(&path).unwrap();
    assert_eq!(content(&StateDict::load(&path).unwrap()), content(&some_state()));
    // Saved over itself, and with nothing left beside it.
    some_state().save(&path).unwrap();
    StateDict::new().save(folder.path("empty")).unwrap();
    assert!(StateDict::load(folder.path("empty")).unwrap().is_empty());
    assert_eq!(std::fs::read_dir(folder.0.path()).unwrap().count(), 2);
}

#[test]
fn a_module_survives_the_file() {
    let folder = Folder::new();
    let path = folder.path("net.safetensors");
    let (a, b) = (nested(), nested());
    a.save(&path).unwrap();
    assert_eq!(b.load(&path).unwrap().loaded, 7);
    assert_eq!(content(&a.state_dict()), content(&b.state_dict()));
    let error = Linear::new(1, 1).load(&path).unwrap_err().to_string();
    assert!(error.contains("2 missing (weight, bias)") && error.contains("7 unexpected"), "{error}");
}

#[test]
fn channels_last_parameters_are_saved_in_logical_order() {
    let folder = Folder::new();
    let nhwc = ndarray::Array4::from_shape_fn((2, 2, 2, 3), |(n, h, w, c)| (1000 * n + 100 * c + 10 * h + w) as f32);
    let weight = Tensor::from_ndarray(nhwc.permuted_axes([0, 3, 1, 2]));
    assert_eq!(weight.memory_format(), convnet::MemoryFormat::ChannelsLast);
    let state: StateDict = [("w", weight.clone())].into_iter().collect();
    state.save(folder.path("f")).unwrap();
    assert_eq!(values(StateDict::load(folder.path("f")).unwrap().get("w").unwrap()), values(&weight));
}

#[test]
fn errors_of_files_name_the_path() {
    let folder = Folder::new();
    let missing = StateDict::load(folder.path("missing")).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }) && missing.to_string().contains("missing: "), "{missing}");
    let directory = StateDict::load(folder.0.path()).unwrap_err().to_string();
    assert!(directory.contains("is a directory"), "{directory}");
    let directory = some_state().save(folder.0.path()).unwrap_err().to_string();
    assert!(directory.contains("is a directory"), "{directory}");
    let nowhere = some_state().save(folder.path("no/such/folder/f")).unwrap_err();
    assert!(matches!(nowhere, Error::Io { .. }) && nowhere.to_string().contains("no/such/folder/f"), "{nowhere}");
    for path in ["", "/", ".."] {
        assert!(some_state().save(path).is_err() && StateDict::load(path).is_err(), "{path:?}");
    }
    // A file in place of a folder cannot be written into, whoever asks.
    std::fs::write(folder.path("file"), b"").unwrap();
    assert!(some_state().save(folder.path("file/f")).unwrap_err().to_string().contains("file/f"));
    assert!(StateDict::load(folder.path("file")).unwrap_err().to_string().contains("not a safetensors file"));
    #[cfg(unix)]
    assert!(StateDict::load("/dev/zero").unwrap_err().to_string().contains("not a regular file"));
}

#[test]
fn half_precision_and_small_integers_are_widened() {
    let header = r#"{"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]},
        "i":{"dtype":"I16","shape":[1,1],"data_offsets":[6,8]},"t":{"dtype":"BOOL","shape":[2],"data_offsets":[8,10]}}"#;
    let state = Folder::new().load(&file_of(header, &[0x00, 0x3c, 0x00, 0xc0, 0x80, 0x3f, 0xfe, 0xff, 0, 1])).unwrap();
    assert_eq!(values(state.get("h").unwrap()), [1.0, -2.0]);
    assert_eq!(values(state.get("b").unwrap()), [1.0]);
    assert_eq!(state.get("i").unwrap().to_vec::<i64>().unwrap(), [-2]);
    assert_eq!(state.get("t").unwrap().to_vec::<u8>().unwrap(), [0, 1]);
    assert_eq!(state.keys().collect::<Vec<_>>(), ["h", "b", "i", "t"]);
}

#[test]
fn lying_headers_are_refused() {
    let folder = Folder::new();
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        file_of(&format!(r#"{{"w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#), &[0; 8])
    };
    assert!(folder.load(&entry("F32", "[2]", "[0,8]")).is_ok(), "the honest one");
    let lies = [
        entry("F8_E4M3", "[8]", "[0,8]"),
        entry("C64", "[1]", "[0,8]"),
        entry("Q7", "[8]", "[0,8]"),
        entry("F32", "[3]", "[0,8]"),
        entry("F32", "[2]", "[0,4]"),
        entry("F32", "[2]", "[8,0]"),
        entry("F32", "[2]", "[8,16]"),
        entry("F32", "[1099511627776]", "[0,4398046511104]"),
        entry("F32", "[4294967296,4294967296,4294967296]", "[0,8]"),
        entry("F32", "[-2]", "[0,8]"),
        entry("U8", "[8,18446744073709551615]", "[0,8]"),
        file_of("{}", &[0; 8]),
        file_of("[]", &[]),
        file_of(&"[".repeat(100_000), &[]),
        u64::MAX.to_le_bytes().to_vec(),
        99_999_999u64.to_le_bytes().to_vec(),
        vec![],
        b"PK\x03\x04 a zip file is something else".to_vec(),
    ];
    for (i, bytes) in lies.iter().enumerate() {
        let error = folder.load(bytes).expect_err(&format!("lie {i}"));
        assert!(matches!(error, Error::Format { .. }), "lie {i}: {error}");
    }
    let unsupported = folder.load(&lies[0]).unwrap_err().to_string();
    assert!(unsupported.contains("tensor w: dtype F8_E4M3 is not supported"), "{unsupported}");
}

#[test]
fn a_truncated_file_is_refused_at_every_length() {
    let folder = Folder::new();
    some_state().save(folder.path("whole")).unwrap();
    let whole = std::fs::read(folder.path("whole")).unwrap();
    for length in 0..whole.len() {
        assert!(folder.load(&whole[..length]).is_err(), "cut to {length} of {} bytes", whole.len());
    }
    assert!(folder.load(&[&whole[..], &[0]].concat()).is_err(), "one byte too many");
}

#[test]
fn flipped_bits_give_an_error_or_tensors_as_large_as_the_file() {
    let folder = Folder::new();
    some_state().save(folder.path("whole")).unwrap();
    let whole = std::fs::read(folder.path("whole")).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let (mut refused, mut tensors) = (0, 0);
    for bit in 0..8 * whole.len() {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match folder.load(&bytes) {
            Err(_) => refused += 1,
            Ok(state) => {
                tensors += 1;
                let size: usize = state.iter().map(|(_, t)| t.numel() * t.dtype().size()).sum();
                // F16, read as f32, doubles.
                assert!(size <= 2 * (whole.len() - header), "bit {bit}");
            }
        }
    }
    // A flip in the data gives other values, which the format cannot see.
    assert!(tensors >= 8 * (whole.len() - header) && refused > 1000, "{tensors} and {refused}");
}

// Summaries.

#[test]
fn a_summary_counts_parameters_and_multiply_adds() {
    let net = Sequential::new().push_named("conv", Conv2d::new(192, 32, 5).padding(2)).push(ReLU).push(Flatten);
    let summary = net.summary([1, 192, 28, 28]).unwrap();
    // The Inception paper's example.
    assert_eq!(summary.multiply_adds, 120_422_400);
    assert_eq!(summary.parameters, 192 * 32 * 25 + 32);
    assert_eq!(summary.rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["", "conv", "1", "2"]);
    assert_eq!(summary.rows[1].output.as_deref(), Some([1, 32, 28, 28].as_slice()));
    assert_eq!(summary.activation_bytes, 3 * 4 * 32 * 28 * 28);
    let text = summary.to_string();
    for part in ["conv", "Conv2d 192→32, k5", "[1, 32, 28, 28]", "153,632", "120,422,400", "MiB"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let grouped = Conv2d::new(8, 8, 3).groups(8).summary([2, 8, 5, 5]).unwrap();
    assert_eq!(grouped.multiply_adds, 2 * 8 * 9 * 9);
    let transposed = ConvTranspose2d::new(4, 6, 3).stride(2).summary([1, 4, 5, 5]).unwrap();
    assert_eq!(transposed.multiply_adds, 100 * 6 * 9);
    assert!(net.summary([usize::MAX, 2]).unwrap_err().to_string().contains("memory"));
    assert!(net.summary([1, 3, 28, 28]).unwrap_err().to_string().contains("conv (Conv2d"));
}

#[test]
fn a_summary_lists_blocks_over_their_layers_and_layers_that_did_not_run() {
    struct Branches {
        left: Sequential,
        right: Vec<Conv2d>,
        aux: Linear,
        gain: Parameter,
    }
    impl Module for Branches {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            Tensor::cat(&[&self.left.forward(x)?, &self.right.forward(x)?], 1)?.mul(&self.gain.tensor())
        }
        fn visit(&self, v: &mut Visitor<'_>) {
            visit_fields!(v, self; left, right, aux, gain);
        }
    }
    let left = Sequential::new().push(Conv2d::new(3, 4, 3).padding(1)).push(ReLU);
    let right = vec![Conv2d::new(3, 2, 1), Conv2d::new(2, 5, 1)];
    let branches = Branches { left, right, aux: Linear::new(9, 2), gain: Parameter::new(Tensor::ones([1])) };
    let net = Sequential::new().push_named("mixed", branches).push(BatchNorm2d::new(9));
    let summary = net.summary([2, 3, 6, 6]).unwrap();
    let rows: Vec<_> = summary.rows.iter().map(|row| (row.depth, row.path.as_str(), row.is_block, row.parameters)).collect();
    let expected = [
        (0, "", true, 172),
        (1, "mixed", true, 154),
        (2, "mixed.left", true, 112),
        (3, "mixed.left.0", false, 112),
        (3, "mixed.left.1", false, 0),
        (2, "mixed.right", true, 23),
        (3, "mixed.right.0", false, 8),
        (3, "mixed.right.1", false, 15),
        (2, "mixed.aux", false, 20 - 2),
        (1, "1", false, 18),
    ];
    assert_eq!(rows.iter().map(|row| (row.0, row.1, row.2)).collect::<Vec<_>>(), expected.map(|row| (row.0, row.1, row.2)));
    let output = |path: &str| summary.rows.iter().find(|row| row.path == path).unwrap().output.clone();
    assert_eq!(output("mixed"), Some(vec![2, 9, 6, 6]), "what a child of a Sequential returned");
    assert_eq!((output("mixed.right"), output("mixed.aux")), (Some(vec![2, 5, 6, 6]), None));
    assert_eq!(rows[1].3, 112 + 23 + 20 + 1);
    assert_eq!((rows[8].3, summary.parameters), (20, 112 + 23 + 20 + 1 + 18));
    assert_eq!(summary.rows[0].activation_bytes, summary.activation_bytes);
    assert_eq!(summary.activation_bytes, 4 * 2 * 36 * (4 + 4 + 2 + 5 + 9));
    let text = summary.to_string();
    assert!(text.contains("\n    left") && text.contains("\n      0") && text.contains("174 trainable, 0 frozen"), "{text}");
}

#[test]
fn a_summary_computes_nothing_and_leaves_nothing_behind() {
    let net = || {
        manual_seed(5);
        let net = Sequential::new().push(Conv2d::new(3, 8, 3)).push(BatchNorm2d::new(8)).push(ReLU).push(Conv2d::new(8, 8, 3));
        net.push(Flatten).push(Linear::new(8 * 16, 4))
    };
    let (seen, fresh) = (net(), net());
    seen.summary([1, 3, 8, 8]).unwrap();
    seen.receptive_field([1, 3, 8, 8]).unwrap();
    let x = Tensor::randn([1, 3, 8, 8]);
    assert_eq!(
        values(&seen.forward(&Tensor::cat(&[&x, &x], 0).unwrap()).unwrap()),
        values(&fresh.forward(&Tensor::cat(&[&x, &x], 0).unwrap()).unwrap())
    );
    for net in [&seen, &fresh] {
        net.eval();
    }
    assert_eq!(values(&no_grad(|| seen.forward(&x)).unwrap()), values(&no_grad(|| fresh.forward(&x)).unwrap()));
    seen.summary([1, 3, 8, 8]).unwrap();
    assert_eq!(values(&no_grad(|| seen.forward(&x)).unwrap()), values(&no_grad(|| fresh.forward(&x)).unwrap()));
    // A size at which computing would take minutes, and gigabytes.
    let large = net().push(Identity).summary([64, 3, 8, 8]).unwrap();
    assert_eq!(large.multiply_adds, 64 * seen.summary([1, 3, 8, 8]).unwrap().multiply_adds);
    let conv = Conv2d::new(64, 64, 3).padding(1).summary([1, 64, 4096, 4096]).unwrap();
    assert_eq!(conv.multiply_adds, 4096 * 4096 * 64 * 64 * 9);
}

#[test]
fn a_layer_that_runs_twice_is_listed_twice_and_counted_once() {
    struct Twice {
        fc: Linear,
    }
    impl Module for Twice {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            self.fc.forward(&self.fc.forward(x)?)
        }
        fn visit(&self, v: &mut Visitor<'_>) {
            visit_fields!(v, self; fc);
        }
    }
    let summary = Twice { fc: Linear::new(4, 4) }.summary([3, 4]).unwrap();
    assert_eq!(summary.rows.iter().map(|row| row.parameters).collect::<Vec<_>>(), [20, 20, 0]);
    assert_eq!((summary.parameters, summary.multiply_adds), (20, 2 * 3 * 16));
}

// Layers.

#[test]
fn every_layer_gives_the_shapes_and_keys_that_pytorch_gives() {
    // As printed by torch.nn's layers of the same options for these inputs.
    let map = || Tensor::zeros([2, 12, 9, 8]);
    let bn_keys = "weight[12] bias[12] running_mean[12] running_var[12] num_batches_tracked[]";
    let conv = Conv2d::new(12, 8, [3, 5]).stride([2, 1]).padding([1, 2]).dilation([1, 2]).groups(4);
    let cases: Vec<(Box<dyn Module>, Tensor, &[usize], &str)> = vec![
        (Box::new(conv), map(), &[2, 8, 5, 4], "weight[8, 3, 3, 5] bias[8]"),
        (Box::new(Conv2d::new(12, 8, 3).bias(false)), map(), &[2, 8, 7, 6], "weight[8, 12, 3, 3]"),
        (Box::new(Conv1d::new(12, 6, 3).stride(2).padding(1).groups(3)), Tensor::zeros([2, 12, 9]), &[2, 6, 5], "weight[6, 4, 3] bias[6]"),
        (
            Box::new(ConvTranspose2d::new(12, 6, 3).stride(2).padding(1).output_padding(1).groups(3)),
            map(),
            &[2, 6, 18, 16],
            "weight[12, 2, 3, 3] bias[6]",
        ),
        (Box::new(Linear::new(8, 5)), map(), &[2, 12, 9, 5], "weight[5, 8] bias[5]"),
        (Box::new(BatchNorm1d::new(12)), Tensor::zeros([2, 12]), &[2, 12], bn_keys),
        (Box::new(BatchNorm1d::new(12)), Tensor::zeros([2, 12, 9]), &[2, 12, 9], bn_keys),
        (Box::new(BatchNorm2d::new(12)), map(), &[2, 12, 9, 8], bn_keys),
        (Box::new(BatchNorm2d::new(12).affine(false).track_running_stats(false)), map(), &[2, 12, 9, 8], ""),
        (Box::new(LayerNorm::new([9, 8])), map(), &[2, 12, 9, 8], "weight[9, 8] bias[9, 8]"),
        (Box::new(LayerNorm::new([8]).affine(false)), map(), &[2, 12, 9, 8], ""),
        (Box::new(GroupNorm::new(3, 12)), map(), &[2, 12, 9, 8], "weight[12] bias[12]"),
        (Box::new(LocalResponseNorm::new(5)), map(), &[2, 12, 9, 8], ""),
        (Box::new(Dropout::new(0.5)), map(), &[2, 12, 9, 8], ""),
        (Box::new(Dropout2d::new(0.5)), map(), &[2, 12, 9, 8], ""),
        (Box::new(Flatten), map(), &[2, 864], ""),
        (Box::new(Flatten::new(2, -1)), map(), &[2, 12, 72], ""),
        (Box::new(Identity), map(), &[2, 12, 9, 8], ""),
        (Box::new(Upsample::new(2)), map(), &[2, 12, 18, 16], ""),
        (Box::new(Upsample::to_size([5, 20]).bilinear(true)), map(), &[2, 12, 5, 20], ""),
        (Box::new(MaxPool2d::new(3)), map(), &[2, 12, 3, 2], ""),
        (Box::new(MaxPool2d::new(3).stride(2).padding(1).ceil_mode(true)), map(), &[2, 12, 5, 5], ""),
        (Box::new(MaxPool2d::new(2).dilation(2)), map(), &[2, 12, 4, 3], ""),
        (Box::new(AvgPool2d::new([2, 3]).stride(2).padding(1).count_include_pad(false)), map(), &[2, 12, 5, 4], ""),
        (Box::new(AvgPool2d::new(2).ceil_mode(true)), map(), &[2, 12, 5, 4], ""),
        (Box::new(AdaptiveAvgPool2d::new(1)), map(), &[2, 12, 1, 1], ""),
        (Box::new(AdaptiveMaxPool2d::new([3, 20])), map(), &[2, 12, 3, 20], ""),
        (Box::new(Maxout::new(4)), map(), &[2, 3, 9, 8], ""),
        (Box::new(Softmax::new(1)), map(), &[2, 12, 9, 8], ""),
        (Box::new(LogSoftmax::new(-1)), map(), &[2, 12, 9, 8], ""),
    ];
    for (layer, x, shape, keys) in cases {
        assert_eq!(layer.forward(&x).unwrap().shape(), shape, "{layer:?}");
        let found: Vec<String> = layer.state_dict().iter().map(|(name, t)| format!("{name}{:?}", t.shape())).collect();
        assert_eq!(found.join(" "), keys, "{layer:?}");
        assert_eq!(layer.summary(x.shape()).unwrap().rows.len(), 1, "{layer:?} reports its run");
        // Inputs of a rank or with channels that do not fit, and of another dtype, are errors or results, never panics.
        for bad in [Tensor::zeros([]), Tensor::zeros([3]), Tensor::zeros([0, 0, 0, 0]), Tensor::zeros([2, 5, 9, 7]), Tensor::arange(6)] {
            if let Err(error) = layer.forward(&bad) {
                assert!(matches!(error, Error::Layer { .. }), "{layer:?}: {error}");
            }
        }
    }
}

#[test]
fn activations_are_those_of_tensors() {
    let x = Tensor::linspace(-4.0, 4.0, 33);
    let cases: Vec<(Box<dyn Module>, Result<Tensor>)> = vec![
        (Box::new(ReLU), Ok(x.relu())),
        (Box::new(LeakyReLU::new(0.2)), x.leaky_relu(0.2)),
        (Box::new(ELU::new(0.5)), x.elu(0.5)),
        (Box::new(GELU), x.gelu()),
        (Box::new(SiLU), x.silu()),
        (Box::new(Sigmoid), x.sigmoid()),
        (Box::new(Tanh), x.tanh()),
        (Box::new(Hardsigmoid), x.hardsigmoid()),
        (Box::new(Hardswish), x.hardswish()),
        (Box::new(ReLU6), x.relu6()),
        (Box::new(Softplus), x.softplus()),
        (Box::new(Softmax::new(0)), x.softmax(0)),
        (Box::new(LogSoftmax::new(0)), x.log_softmax(0)),
    ];
    for (layer, expected) in cases {
        assert_eq!(values(&layer.forward(&x).unwrap()), values(&expected.unwrap()), "{layer:?}");
    }
}

#[test]
fn training_and_evaluation_reach_every_layer_inside() {
    let net = Sequential::new().push(Sequential::new().push(Dropout::new(0.5))).push(Dropout2d::new(0.5));
    let x = Tensor::ones([1, 64, 4, 4]);
    assert!(net.is_training());
    assert!(values(&net.forward(&x).unwrap()).contains(&0.0));
    net.eval();
    assert!(!net.is_training());
    assert_eq!(values(&net.forward(&x).unwrap()), values(&x));
    net.train();
    assert!(values(&net.summary([1, 64, 4, 4]).map(|_| net.forward(&x).unwrap()).unwrap()).contains(&0.0), "summary puts it back");
}

fn assert_close(a: &[f32], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    // A handful of f32 operations on values of this size.
    assert!(a.iter().zip(b).all(|(&a, &b)| (f64::from(a) - b).abs() <= 2e-6 * b.abs().max(1.0)), "{a:?} is not {b:?}");
}

#[test]
fn batch_norm_follows_pytorch() {
    // bn = torch.nn.BatchNorm2d(2); x = torch.arange(16.).reshape(2, 2, 2, 2) ** 2 / 10; bn(x); …; bn(x * 2 - 3); …; bn.eval(); bn(x)
    let x = Tensor::from_vec((0..16).map(|i| (i * i) as f32 / 10.0).collect(), [2, 2, 2, 2]).unwrap();
    let statistics = |bn: &BatchNorm2d| -> (Vec<f32>, Vec<f32>, i64) {
        let of = |buffer: &Option<Buffer>| buffer.as_ref().unwrap().tensor();
        (values(&of(&bn.running_mean)), values(&of(&bn.running_var)), of(&bn.num_batches_tracked).item().unwrap())
    };
    let bn = BatchNorm2d::new(2);
    let y = values(&bn.forward(&x).unwrap());
    assert_close(&y[..3], &[-1.0200908184051514, -0.9986152052879333, -0.9341884255409241]);
    assert_close(&y[13..], &[0.7743202447891235, 1.1142657995224, 1.479392409324646]);
    let (mean, var, batches) = statistics(&bn);
    assert_close(&mean, &[0.4749999940395355, 1.0750000476837158]);
    assert_close(&var, &[3.378000020980835, 8.109428405761719]);
    assert_eq!(batches, 1);
    // Under no_grad too.
    let second = &(&x * 2.0) - 3.0;
    no_grad(|| bn.forward(&second)).unwrap();
    let (mean, var, batches) = statistics(&bn);
    assert_close(&mean, &[1.0774999856948853, 2.817500114440918]);
    assert_close(&var, &[12.952200889587402, 36.136199951171875]);
    assert_eq!(batches, 2);
    bn.eval();
    let y = values(&bn.forward(&x).unwrap());
    assert_close(&y[..3], &[-0.29939553141593933, -0.2716093957424164, -0.18825100362300873]);
    assert_close(&y[13..], &[2.342655658721924, 2.791806697845459, 3.27422833442688]);
    assert_eq!(statistics(&bn).2, 2, "evaluation changes nothing");

    let average = BatchNorm2d::new(2).momentum(None);
    average.forward(&x).unwrap();
    average.forward(&second).unwrap();
    assert_close(&statistics(&average).0, &[5.625, 14.625]);
    assert_close(&statistics(&average).1, &[61.95000076293945, 180.2357177734375]);
}

#[test]
fn batch_norm_refuses_what_has_no_statistics() {
    let bn = Sequential::new().push_named("bn", BatchNorm2d::new(3));
    let single = Tensor::ones([1, 3, 1, 1]);
    let error = bn.forward(&single).unwrap_err().to_string();
    assert_eq!(error, "bn (BatchNorm2d 3): expected more than one value per channel to take statistics of, got shape [1, 3, 1, 1]");
    bn.eval();
    assert!(bn.forward(&single).is_ok());
    bn.train();
    let before = content(&bn.state_dict());
    assert!(bn.forward(&Tensor::zeros([0, 3, 4, 4])).is_ok_and(|y| y.shape() == [0, 3, 4, 4]));
    assert_eq!(content(&bn.state_dict()), before, "an empty batch leaves the running estimates alone");
    let error = bn.forward(&Tensor::zeros([2, 4, 1, 1])).unwrap_err().to_string();
    assert!(error.contains("expected 3 channels, got shape [2, 4, 1, 1]"), "{error}");
}

#[test]
fn a_checkpoint_without_num_batches_tracked_loads() {
    let bn = BatchNorm2d::new(3);
    let mut state = bn.state_dict();
    state.remove("num_batches_tracked");
    assert_eq!(bn.load_state_dict(&state).unwrap().loaded, 4);
}

#[test]
fn a_network_computes_in_f64_after_to_dtype() {
    let net = Sequential::new().push(Conv2d::new(1, 2, 3)).push(BatchNorm2d::new(2)).push(ReLU);
    net.to_dtype(DType::F64).unwrap();
    let y = net.forward(&Tensor::full([2, 1, 5, 5], 1.0, DType::F64)).unwrap();
    assert_eq!(y.dtype(), DType::F64);
    let of = |name: &str| net.state_dict().get(name).unwrap().dtype();
    assert_eq!((of("1.running_var"), of("1.num_batches_tracked")), (DType::F64, DType::I64));
    assert_eq!(net.summary([2, 1, 5, 5]).unwrap().state_bytes, 8 * (18 + 2 + 2 + 2 + 2 + 2) + 8);
}

#[test]
fn fused_helpers_are_the_layers_one_after_the_other() {
    let (conv, bn) = (Conv2d::new(3, 4, 3).padding(1).bias(false), BatchNorm2d::new(4));
    let (x, shortcut) = (Tensor::randn([2, 3, 6, 6]), Tensor::randn([2, 4, 6, 6]));
    for training in [true, false] {
        if training {
            bn.train()
        } else {
            bn.eval()
        }
        let plain = bn.forward(&conv.forward(&x).unwrap()).unwrap();
        assert_eq!(values(&conv_bn(&conv, &bn, &x).unwrap()), values(&plain));
        assert_eq!(values(&conv_bn_relu(&conv, &bn, &x).unwrap()), values(&plain.relu()));
        assert_eq!(values(&conv_bn_add_relu(&conv, &bn, &x, &shortcut).unwrap()), values(&(&plain + &shortcut).relu()));
    }
}

#[test]
fn lenets_summary_has_the_numbers_of_the_literature() {
    let net = Sequential::new()
        .push_named("conv1", Conv2d::new(1, 6, 5).padding(2))
        .push(ReLU)
        .push(MaxPool2d::new(2))
        .push_named("conv2", Conv2d::new(6, 16, 5))
        .push(ReLU)
        .push(MaxPool2d::new(2))
        .push(Flatten)
        .push_named("fc1", Linear::new(400, 120))
        .push(ReLU)
        .push_named("fc2", Linear::new(120, 84))
        .push(ReLU)
        .push_named("fc3", Linear::new(84, 10));
    let summary = net.summary([1, 1, 28, 28]).unwrap();
    assert_eq!(summary.parameters, 61_706);
    // 28²·6·25 + 10²·16·150 + 400·120 + 120·84 + 84·10
    assert_eq!(summary.multiply_adds, 416_520);
    assert_eq!(summary.rows.len(), 13);
    assert_eq!(summary.rows[4].output.as_deref(), Some([1, 16, 10, 10].as_slice()));
    let text = summary.to_string();
    assert!(text.contains("61,706") && text.contains("416,520 for input [1, 1, 28, 28]"), "{text}");
    let grads = net.forward(&Tensor::randn([2, 1, 28, 28])).unwrap().cross_entropy(&Tensor::arange(2)).unwrap().backward().unwrap();
    assert!(net.parameters().iter().all(|p| grads.get(&p.tensor()).is_some_and(|g| g.shape() == p.shape())));
}

#[test]
fn initialisers_have_the_spread_they_promise() {
    manual_seed(11);
    let shape = [64, 32, 3, 3];
    let spread = |t: &Tensor| {
        let v = values(t);
        (v.iter().map(|x| f64::from(x * x)).sum::<f64>() / v.len() as f64).sqrt()
    };
    let (fan_in, fan_out) = (32.0 * 9.0f64, 64.0 * 9.0f64);
    let cases = [
        (init::kaiming_normal(shape, init::Fan::Out, init::Gain::Relu), (2.0 / fan_out).sqrt()),
        (init::kaiming_uniform(shape, init::Fan::In, init::Gain::LeakyRelu(5f64.sqrt())), (1.0 / (3.0 * fan_in)).sqrt()),
        (init::xavier_normal(shape, init::Gain::Linear), (2.0 / (fan_in + fan_out)).sqrt()),
        (init::xavier_uniform(shape, init::Gain::Tanh), 5.0 / 3.0 * (2.0 / (fan_in + fan_out)).sqrt()),
        (init::normal(shape, 0.0, 0.3), 0.3),
        (init::uniform(shape, -0.3, 0.3), 0.3 / 3f64.sqrt()),
        // A normal distribution cut at two deviations keeps this share of its own.
        (init::truncated_normal(shape, 0.0, 0.1, -0.2, 0.2), 0.1 * 0.773_741_f64.sqrt()),
        (init::constant(shape, 0.7), 0.7),
    ];
    for (i, (tensor, expected)) in cases.into_iter().enumerate() {
        let found = spread(&tensor.unwrap());
        assert!((found / expected - 1.0).abs() < 0.02, "case {i}: {found} is not {expected}"); // 18,432 draws deviate by half a percent
    }
    assert!(values(&init::truncated_normal([1000], 0.0, 1.0, 0.5, 0.6).unwrap()).iter().all(|x| (0.5..=0.6).contains(x)));
    assert!(init::truncated_normal([2], 0.0, 1.0, 60.0, 61.0).unwrap_err().to_string().contains("next to nothing"));
    assert!(init::truncated_normal([2], 0.0, f64::NAN, -1.0, 1.0).is_err());
    assert!(init::kaiming_normal([3], init::Fan::In, init::Gain::Relu).unwrap_err().to_string().contains("at least 2 dimensions"));
    assert!(init::uniform([usize::MAX, 3], 0.0, 1.0).is_err());
}
