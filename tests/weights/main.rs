//! Weights from files: each format gives the same tensors, and every hostile file gives an error.
//!
//! The files are made by fixtures/weights.py; `expected.safetensors` holds what PyTorch has for
//! them, converted to this crate's types.

mod archive;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use archive::{Entry, archive, deflated, stored};
use convnet::data::Rng;
use convnet::nn::StateDict;
use convnet::{DType, Error, Tensor, weights};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/weights");

/// Counts what the current thread has allocated and not freed.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: forwards to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that was allocated at a time while `f` ran, beyond what was there before.
fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = f();
    (result, (PEAK.get() - before) as usize)
}

/// What a file of this length may make `load` allocate: the documented bound, the file itself, and
/// what the tensor pool and messages add.
fn allowance(length: usize) -> usize {
    9 * length + (64 << 20) + (8 << 20)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

fn expected() -> StateDict {
    StateDict::load(fixture("expected.safetensors")).unwrap()
}

fn values(tensor: &Tensor) -> Vec<u64> {
    match tensor.dtype() {
        DType::U8 => tensor.to_vec::<u8>().unwrap().into_iter().map(u64::from).collect(),
        DType::I64 => tensor.to_vec::<i64>().unwrap().into_iter().map(|x| x as u64).collect(),
        DType::F32 => tensor.to_vec::<f32>().unwrap().into_iter().map(|x| u64::from(x.to_bits())).collect(),
        DType::F64 => tensor.to_vec::<f64>().unwrap().into_iter().map(f64::to_bits).collect(),
    }
}

/// Asserts equality bit for bit, dtypes and shapes included; the order may differ.
fn assert_same(loaded: &StateDict, expected: &StateDict, what: &str) {
    let sorted = |state: &StateDict| {
        let mut keys: Vec<String> = state.keys().map(String::from).collect();
        keys.sort();
        keys
    };
    assert_eq!(sorted(loaded), sorted(expected), "{what}");
    for (name, tensor) in expected.iter() {
        let got = loaded.get(name).unwrap();
        assert_eq!((got.dtype(), got.shape()), (tensor.dtype(), tensor.shape()), "{what}: {name}");
        assert_eq!(values(got), values(tensor), "{what}: {name}");
    }
}

/// Loads bytes from a file without an extension; the result, with what it allocated checked.
fn load_bytes(bytes: &[u8]) -> convnet::Result<StateDict> {
    thread_local! {
        static TARGET: (tempfile::TempDir, PathBuf) = {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("weights");
            (folder, path)
        };
    }
    TARGET.with(|(_, path)| {
        // A new file each time: overwriting one costs a sync on some systems.
        let _ = fs::remove_file(path);
        fs::write(path, bytes).unwrap();
        let (result, peak) = peak(|| weights::load(path));
        assert!(peak <= allowance(bytes.len()), "{peak} bytes for a file of {}", bytes.len());
        if let Err(error) = &result {
            assert!(matches!(error, Error::Format { path: named, .. } if named == path), "{error:?}");
            assert!(error.to_string().len() < 2000, "a message of {} bytes", error.to_string().len());
        }
        result
    })
}

fn refused(bytes: &[u8], why: &str) {
    let error = load_bytes(bytes).expect_err(why).to_string();
    assert!(error.contains(why), "expected `{why}` in: {error}");
}

#[test]
fn every_format_gives_pytorchs_tensors_whatever_the_file_is_called() {
    let all = expected();
    for name in ["plain.pth", "protocol4.pth", "legacy.pth", "no_checksums.pth", "plain.safetensors"] {
        assert_same(&weights::load(fixture(name)).unwrap(), &all, name);
        assert_same(&load_bytes(&fs::read(fixture(name)).unwrap()).unwrap(), &all, name);
    }
    let mut without_bf16 = expected();
    without_bf16.remove("bf16").unwrap();
    for name in ["plain.npz", "compressed.npz"] {
        assert_same(&weights::load(fixture(name)).unwrap(), &without_bf16, name);
    }
}

#[test]
fn pytorch_files_keep_the_order_of_their_keys() {
    let keys = |name| weights::load(fixture(name)).unwrap().keys().map(String::from).collect::<Vec<_>>();
    assert_eq!(keys("plain.pth")[..4], ["f32", "tied", "transposed", "part"]);
    assert_eq!(keys("plain.pth"), keys("legacy.pth"));
    assert_eq!(keys("plain.npz")[..4], ["f32", "tied", "transposed", "part"]);
}

#[test]
fn unsigned_integers_do_not_turn_negative() {
    let state = weights::load(fixture("unsigned.pth")).unwrap();
    assert_eq!(state.get("u16").unwrap().to_vec::<i64>().unwrap(), [65533, 65534, 65535]);
    assert_eq!(state.get("u32").unwrap().to_vec::<i64>().unwrap(), [4294967294, 4294967295]);
}

#[test]
fn the_network_is_found_inside_a_checkpoint_and_loses_the_prefix_of_data_parallel() {
    for name in ["checkpoint.pth", "checkpoint_legacy.pth"] {
        let state = weights::load(fixture(name)).unwrap();
        assert_eq!(state.keys().collect::<Vec<_>>(), ["weight", "bias"], "{name}");
        assert_eq!(state.get("weight").unwrap().to_vec::<f32>().unwrap(), (0..12).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!(state.get("weight").unwrap().shape(), [3, 4]);
    }
}

#[test]
fn what_is_saved_loads_again_bit_for_bit() {
    let folder = tempfile::tempdir().unwrap();
    let mut state = expected();
    state.insert("name with \"quotes\" and ümlaut", Tensor::randn([2, 3, 4, 5]));
    for name in ["a.safetensors", "a.npz", "A.NPZ"] {
        let path = folder.path().join(name);
        weights::save(&path, &state).unwrap();
        assert_same(&weights::load(&path).unwrap(), &state, name);
    }
    weights::save(folder.path().join("none.npz"), &StateDict::new()).unwrap();
    assert!(weights::load(folder.path().join("none.npz")).unwrap().is_empty());
    let error = weights::save(folder.path().join("a.pth"), &state).unwrap_err().to_string();
    assert!(error.contains(".safetensors or .npz"), "{error}");
}

#[test]
fn a_pickle_that_calls_anything_but_tensor_functions_is_refused_by_name() {
    let cases = [
        ("command2.pth", "holds no tensors; save `model.state_dict()`; it has objects of `posix.system`"),
        ("command4.pth", "holds no tensors; save `model.state_dict()`; it has objects of `posix.system`"),
        (
            "command.pkl",
            "a pickle that torch.save did not write; save `model.state_dict()` with torch.save or safetensors; it has objects of",
        ),
        ("no_state_dict.pth", "no state dict"),
        ("objects.npz", "Python objects"),
        ("big_endian.npz", "big-endian"),
        ("big_endian.pth", "big-endian"),
        ("big_endian_legacy.pth", "big-endian"),
    ];
    for (name, why) in cases {
        refused(&fs::read(fixture(name)).unwrap(), why);
    }
}

/// Loads a fixture that fixtures/checkpoints.py made.
fn checkpoint(name: &str) -> StateDict {
    weights::load(fixture("checkpoints").join(name)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_tensor_with_the_negative_bit_loads_with_its_sign() {
    // torch.complex(t, t).conj().imag of t = [1, 2] is [-1, -2].
    assert_eq!(checkpoint("negative.pth").get("x").unwrap().to_vec::<f32>().unwrap(), [-1.0, -2.0]);
}

#[test]
fn tensors_load_whatever_else_a_checkpoint_holds() {
    for name in ["companions.pth", "companions_legacy3.pth"] {
        let state = checkpoint(name);
        assert_eq!(state.get("w").unwrap().to_vec::<f32>().unwrap(), [1.0, 2.0], "{name}");
        assert_eq!(state.get("attributes").unwrap().to_vec::<f32>().unwrap(), [3.0], "{name}");
        assert_eq!(state.len(), 2, "{name}");
    }
}

#[test]
fn a_whole_module_loads_as_its_state_dict() {
    let state = checkpoint("module.pth");
    assert_eq!(
        state.keys().collect::<Vec<_>>(),
        ["0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"]
    );
    // `left_out` is not persistent.
    assert_eq!(checkpoint("module_legacy.pth").keys().collect::<Vec<_>>(), ["weight", "mean", "inner.weight", "inner.mean"]);
    assert_eq!(weights::load(fixture("module.pth")).unwrap().keys().collect::<Vec<_>>(), ["weight", "bias"]);
}

#[test]
fn the_network_is_found_under_every_usual_key_and_loses_its_wrappers() {
    for key in ["net", "network", "model_state_dict", "weights", "model_ema", "ema", "params"] {
        assert_eq!(checkpoint(&format!("wrapped_{key}.pth")).keys().collect::<Vec<_>>(), ["conv.weight"], "{key}");
    }
}

#[test]
fn the_prefix_of_torch_compile_is_removed_anywhere_in_a_name() {
    let state = checkpoint("compiled.pth");
    assert_eq!(state.keys().collect::<Vec<_>>(), ["layer1.0.weight", "layer1.1.weight", "fc.weight", "fc.bias"]);
}

#[test]
fn a_tensor_that_is_not_dense_is_an_error_only_when_it_is_asked_for() {
    let reasons = [
        ("quantized", "`.dequantize()`"),
        ("per_channel", "`.dequantize()`"),
        ("coo", "`.to_dense()`"),
        ("csr", "`.to_dense()`"),
        ("meta", "on the meta device"),
        ("nested", "is nested"),
        ("jagged", "is nested"),
        ("numpy", "of another device"),
    ];
    for name in ["unread.pth", "unread_legacy.pth"] {
        let state = checkpoint(name);
        assert_eq!(state.keys().collect::<Vec<_>>(), ["good", "cpu", "after"], "{name}");
        assert!(state.iter().all(|(_, tensor)| tensor.to_vec::<f32>().unwrap() == [1.0, 2.0]), "{name}");
        for (key, reason) in reasons {
            let error = state.try_get(key).expect_err(key).to_string();
            assert!(error.contains(reason), "{name}: {error}");
        }
    }
}

#[test]
fn a_tensor_of_an_unknown_dtype_is_an_error_only_when_it_is_asked_for() {
    for (name, reason) in
        [("dtypes.pth", "complex64"), ("dtypes_legacy.pth", "complex64"), ("dtypes.npz", "<c8"), ("dtypes.safetensors", "C64")]
    {
        let state = checkpoint(name);
        assert_eq!(state.keys().collect::<Vec<_>>(), ["good"], "{name}");
        let error = state.try_get("complex").unwrap_err().to_string();
        assert!(error.contains(reason), "{name}: {error}");
        assert!(state.save(tempfile::tempdir().unwrap().path().join("a")).unwrap_err().to_string().contains("would be lost"), "{name}");
    }
}

#[test]
fn tied_names_in_the_metadata_of_safetensors_are_restored() {
    let state = checkpoint("tied.safetensors");
    assert_eq!(state.keys().collect::<Vec<_>>(), ["embed.weight", "head.weight"]);
    assert_eq!(values(state.get("head.weight").unwrap()), values(state.get("embed.weight").unwrap()));
    let state: StateDict = [("__metadata__", Tensor::zeros([1]))].into_iter().collect();
    let error = weights::save(tempfile::tempdir().unwrap().path().join("a.safetensors"), &state).unwrap_err().to_string();
    assert!(error.contains("__metadata__"), "{error}");
}

#[test]
fn a_cifar_resnets_classifier_called_linear_becomes_fc() {
    let names = ["conv1.weight", "layer3.0.conv1.weight", "linear.weight", "linear.bias"];
    let renamed = weights::rename(names.into_iter().map(|name| (name, Tensor::zeros([1]))).collect()).unwrap();
    assert_eq!(renamed.keys().collect::<Vec<_>>(), ["conv1.weight", "layer3.0.conv1.weight", "fc.weight", "fc.bias"]);
}

#[test]
fn entries_that_are_visited_again_and_again_are_charged() {
    // A dict of 20,000 numbers that 30,000 others have as their value: 600 million visits.
    let mut program = [b"\x80\x02}q\0(".to_vec(), b"K\x01K\x02".repeat(20_000), b"u0}(".to_vec()].concat();
    program.extend((0..30_000u32).flat_map(|i| [&b"J"[..], &i.to_le_bytes(), b"h\0"].concat()));
    program.extend(b"u.");
    refused(&torch_archive(&program, b""), "more memory than");
}

#[test]
fn errors_about_files_of_other_kinds_name_the_kind() {
    refused(b"", "an empty file");
    refused(b"<!DOCTYPE html>", "an HTML or XML page");
    refused(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer");
    refused(b"some text", "neither safetensors nor");
    refused(b"\x93NUMPY\x01\0", "numpy.savez");
    refused(b"\x89HDF\r\n\x1a\n", "HDF5");
    refused(&archive(&[stored("picture.png", b"x")]), "neither torch.save nor numpy.savez");
    refused(b"\x80\x02}.", "torch.save did not write");
    assert!(matches!(weights::load(FOLDER), Err(Error::Io { .. })), "a folder");
    assert!(matches!(weights::load(fixture("nothing")), Err(Error::Io { .. })));
}

/// An archive as torch.save writes it, around any program.
fn torch_archive(program: &[u8], storage: &[u8]) -> Vec<u8> {
    archive(&[stored("a/data.pkl", program), stored("a/byteorder", b"little"), stored("a/data/0", storage)])
}

/// `{'x': tensor}` over storage 0 of `count` floats; sizes as 64-bit numbers.
fn tensor_program(count: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let number = |x: i64| [&[0x8a, 8], &x.to_le_bytes()[..]].concat();
    let tuple = |xs: &[i64]| [b"(".to_vec(), xs.iter().flat_map(|&x| number(x)).collect(), b"t".to_vec()].concat();
    let text = |s: &str| [&[0x8c, s.len() as u8], s.as_bytes()].concat();
    [
        b"\x80\x02}".to_vec(),
        text("x"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        number(count),
        b"tQ".to_vec(),
        number(offset),
        tuple(shape),
        tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtRs.".to_vec(),
    ]
    .concat()
}

#[test]
fn names_of_functions_are_inert_and_only_tensors_that_depend_on_them_are_unreadable() {
    let names =
        ["os\nsystem", "posix\nsystem", "subprocess\ncheck_output", "builtins\neval", "__builtin__\nexec", "shutil\nrmtree", "sys\nexit"];
    let storage: Vec<u8> = [1.0f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let good = tensor_program(2, 0, &[2], &[1]);
    let folder = tempfile::tempdir().unwrap();
    let created = folder.path().join("created");
    let command = format!("touch {}", created.display());
    let text = |s: &str| [&[0x8c, s.len() as u8], s.as_bytes()].concat();
    for name in names {
        let shown = format!("depends on `{}`", name.replace('\n', "."));
        let call = [b"c".to_vec(), name.as_bytes().to_vec(), b"\n".to_vec(), text(&command), b"\x85R".to_vec()].concat();
        let program = |parts: &[&[u8]]| [&good[..good.len() - 1], &parts.concat(), b"."].concat();
        let load = |parts: &[&[u8]]| {
            let state = load_bytes(&torch_archive(&program(parts), &storage)).unwrap();
            assert_eq!(state.get("x").unwrap().to_vec::<f32>().unwrap(), [1.0, 2.0], "{name}");
            state
        };
        // The name itself, a call, the call of a call's result, and items and attributes for it.
        let reference = call[..call.len() - text(&command).len() - 2].to_vec();
        for value in
            [&reference, &call, &[&call[..], b")R"].concat(), &[&call[..], b"K\x01K\x02s}b"].concat(), &[&call[..], b"K\x01a"].concat()]
        {
            assert_eq!(load(&[&text("y"), value, b"s"]).keys().collect::<Vec<_>>(), ["x"], "{name}");
        }
        // As the storage, the offset, the shape, the strides and the metadata of a tensor; as what
        // a parameter wraps and as its class.
        let number = [b'K', 0];
        let stored =
            [b"(".to_vec(), text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text("0"), text("cpu"), b"K\x02tQ".to_vec()].concat();
        let arguments: [&[u8]; 5] = [&stored, &number, b"K\x02\x85", b"K\x01\x85", b"\x89)"];
        for at in 0..4 {
            let mut arguments = arguments;
            arguments[at] = &call;
            let rebuild = [b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec(), arguments.concat(), b"tR".to_vec()].concat();
            let error = load(&[&text("y"), &rebuild, b"s"]).try_get("y").unwrap_err().to_string();
            assert!(error.contains(&shown), "argument {at}: {error}");
        }
        let wrapped = [b"ctorch._utils\n_rebuild_parameter\n(".to_vec(), call.clone(), b"\x88)tR".to_vec()].concat();
        let made = [b"c".to_vec(), name.as_bytes().to_vec(), b"\n(".to_vec(), arguments.concat(), b"tR".to_vec()].concat();
        let filled = [b"ctorch.nn.parameter\nParameter\n)R(".to_vec(), call.clone(), b"\x88)tb".to_vec()].concat();
        for value in [wrapped, made, filled] {
            let error = load(&[&text("y"), &value, b"s"]).try_get("y").unwrap_err().to_string();
            assert!(error.contains(&shown), "{error}");
        }
    }
    assert!(!created.exists());
}

#[test]
fn a_view_that_reaches_outside_its_storage_or_asks_for_too_much_is_an_error() {
    let storage: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let load = |count, offset, shape: &[i64], strides: &[i64]| {
        load_bytes(&torch_archive(&tensor_program(count, offset, shape, strides), &storage))
    };
    let good = load(6, 1, &[2, 2], &[3, 1]).unwrap();
    assert_eq!(good.get("x").unwrap().to_vec::<f32>().unwrap(), [1.0, 2.0, 4.0, 5.0]);
    let huge = i64::MAX;
    let bad: [(i64, i64, &[i64], &[i64]); 12] = [
        (7, 0, &[6], &[1]),
        (huge, 0, &[6], &[1]),
        (6, 0, &[7], &[1]),
        (6, 6, &[1], &[1]),
        (6, huge, &[2], &[1]),
        (6, -1, &[2], &[1]),
        (6, 5, &[2], &[-1]),
        (6, 0, &[2], &[huge]),
        (6, 0, &[huge, huge], &[0, 0]),
        (6, 0, &[1 << 30], &[0]),
        (6, 0, &[0, huge, huge], &[1, 1, 1]),
        (6, 0, &[2, 3], &[1]),
    ];
    for (count, offset, shape, strides) in bad {
        assert!(load(count, offset, shape, strides).is_err(), "{count} {offset} {shape:?} {strides:?}");
    }
}

#[test]
fn deep_and_endless_structures_neither_overflow_the_stack_nor_fill_memory() {
    let nested_lists = [b"\x80\x02".to_vec(), vec![b']'; 50_000], vec![b'a'; 49_999], b".".to_vec()].concat();
    refused(&torch_archive(&nested_lists, b""), "no state dict");
    let nested_dicts = [b"\x80\x02".to_vec(), b"}U\x01k".repeat(30_000), b"}".to_vec(), vec![b's'; 30_000], b".".to_vec()].concat();
    refused(&torch_archive(&nested_dicts, b""), "nest deeper");
    // A dict that contains itself.
    refused(&torch_archive(b"\x80\x02}q\0U\x01kh\0s.", b""), "nest deeper");
    // Thirty dicts, each of which has the one before twice.
    let mut laughs = b"\x80\x02}q\0".to_vec();
    for i in 0..30u8 {
        laughs.extend([b'0', b'}', b'U', 1, b'a', b'h', i, b's', b'U', 1, b'b', b'h', i, b's', b'q', i + 1]);
    }
    laughs.push(b'.');
    refused(&torch_archive(&laughs, b""), "more memory than");
    // Millions of objects from as many bytes, and one long list copied again and again.
    let objects = [b"\x80\x02".to_vec(), vec![b'}'; 4_000_000]].concat();
    refused(&torch_archive(&objects, b""), "more memory than");
    let mut copies = [b"\x80\x02(".to_vec(), b"K\x01".repeat(20_000), b"t\x85q\0".to_vec()].concat();
    copies.extend(b"ctorch\nSize\nh\0R".repeat(20_000));
    refused(&torch_archive(&copies, b""), "more memory than");
}

#[test]
fn every_instruction_meets_an_empty_stack_and_a_short_rest_without_a_panic() {
    for instruction in 0..=255u8 {
        for tail in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\0\0\0\0\0\0\0\0\n\n", b"a\nb\n"] {
            for front in [&b"\x80\x02"[..], b"\x80\x02(", b"\x80\x02N", b"\x80\x02NNNN", b"\x80\x02)))", b"\x80\x02(((", b"\x80\x02NNN(1("]
            {
                let program = [front, &[instruction], tail, b"."].concat();
                // An empty dict is a complete pickle.
                let tensors = load_bytes(&torch_archive(&program, b"")).map_or(0, |state| state.len());
                assert_eq!(tensors, 0, "{program:?}");
            }
        }
    }
}

#[test]
fn wrong_zip_directories_are_refused() {
    let npy = |values: usize| {
        [
            b"\x93NUMPY\x01\0\x3c\0".to_vec(),
            format!("{:<59}\n", format!("{{'descr':'|u1','fortran_order':False,'shape':({values},)}}")).into_bytes(),
            vec![7; values],
        ]
        .concat()
    };
    assert_eq!(load_bytes(&archive(&[stored("x.npy", &npy(3))])).unwrap().get("x").unwrap().to_vec::<u8>().unwrap(), [7; 3]);
    let one = npy(3);
    let lie = |change: &dyn Fn(&mut Entry)| {
        let mut entry = stored("x.npy", &one);
        change(&mut entry);
        archive(&[entry])
    };
    refused(&lie(&|entry| entry.checksum ^= 1), "checksum");
    refused(&lie(&|entry| entry.size += 1), "contradict");
    refused(&lie(&|entry| entry.packed = 1 << 30), "outside the file");
    refused(
        &lie(&|entry| {
            entry.size += 40;
            entry.packed += 40
        }),
        "reaches into the zip directory",
    );
    refused(&lie(&|entry| entry.offset = 1), "no local header");
    refused(&lie(&|entry| entry.flags = 1), "encrypted");
    refused(&lie(&|entry| entry.method = 12), "compressed in another way");
    refused(&lie(&|entry| entry.local_name = "y.npy".into()), "another name");
    refused(&archive(&[stored("x.npy", &one), stored("x.npy", &one)]), "two entries");

    // The second entry is inside the first.
    let inner = archive(&[stored("y.npy", &one)]);
    let mut hidden = stored("y.npy", &one);
    hidden.offset = 30 + "x.npy".len() as u32;
    hidden.absent = true;
    refused(&archive(&[stored("x.npy", &inner), hidden]), "overlap");

    let count_lies = |at: usize| {
        let mut bytes = archive(&[stored("x.npy", &one)]);
        let end = bytes.len() - 22;
        bytes[end + at] ^= 1;
        bytes
    };
    refused(&count_lies(10), "has 1 entries and says 0");
    refused(&count_lies(12), "does not end at its end record");
    refused(&count_lies(16), "does not end at its end record");
    refused(&count_lies(20), "no end record");
}

#[test]
fn a_deflate_bomb_is_bounded_by_what_the_file_justifies() {
    let zeros = vec![0; 100 << 20];
    let bomb = deflated("x.npy", &zeros);
    assert!(bomb.content.len() < 1_000_000);
    refused(&archive(std::slice::from_ref(&bomb)), "more memory than");
    // The directory states a smaller, or a larger, size than the entry inflates to.
    for size in [1000, 110_000] {
        let mut lying = deflated("x.npy", &zeros[..100_000]);
        lying.size = size;
        refused(&archive(&[lying]), "does not inflate to its size");
    }
    let mut impossible = deflated("x.npy", b"x");
    impossible.size = 1 << 30;
    refused(&archive(&[impossible]), "does not inflate to its size");
    let mut longer = deflated("x.npy", &zeros[..1000]);
    longer.content.extend([0; 10]);
    longer.packed += 10;
    refused(&archive(&[longer]), "does not inflate to its size");
}

#[test]
fn a_zip_archive_with_checksums_gives_the_right_tensors_or_an_error() {
    let mut all = expected();
    for name in ["plain.pth", "plain.npz"] {
        let original = fs::read(fixture(name)).unwrap();
        let mut loaded = 0;
        for seed in 0..1000 {
            // Only values change: a shorter name in the directory would make another valid file.
            let mut bytes = original.clone();
            let mut random = Rng::for_sample(0, 0, seed);
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            if let Ok(state) = load_bytes(&bytes) {
                assert_same(&state, &all, &format!("{name}, seed {seed}"));
                loaded += 1;
            }
        }
        assert!((1..900).contains(&loaded), "{loaded} of {name}: padding and times may differ, nothing else");
        all.remove("bf16");
    }
}

#[test]
fn timm_checkpoints_get_torchvisions_names_and_shapes() {
    let mut text = String::new();
    let file = fs::File::open(fixture("timm_names.txt.gz")).unwrap();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let mut networks: Vec<(&str, Vec<[&str; 4]>)> = vec![];
    for line in text.lines() {
        let [network, row @ ..]: [&str; 5] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        match networks.last_mut() {
            Some((name, rows)) if *name == network => rows.push(row),
            _ => networks.push((network, vec![row])),
        }
    }
    assert_eq!(networks.len(), 8);
    for (network, rows) in networks {
        // Sizes beyond 8 are reduced to 8: a whole VGG takes 500 MB.
        let shape = |text: &str| -> Vec<usize> { serde_json::from_str(text).unwrap() };
        let small = |text: &str| shape(text).into_iter().map(|dim| if dim == 25088 { 49 * 8 } else { dim.min(8) }).collect::<Vec<_>>();
        let timm: StateDict = rows.iter().rev().map(|&[name, _, theirs, _]| (name, Tensor::zeros(small(theirs)))).collect();
        let renamed = weights::rename(timm).unwrap();
        assert_eq!(renamed.len(), rows.len(), "{network}");
        for [name, ours, _, wanted] in &rows {
            let tensor = renamed.get(ours).unwrap_or_else(|| panic!("{network}: {name} should be {ours}"));
            assert_eq!(tensor.shape(), small(wanted), "{network}: {ours}");
        }
        assert_eq!(weights::rename(renamed.clone()).unwrap().keys().collect::<Vec<_>>(), renamed.keys().collect::<Vec<_>>(), "{network}");
    }
}

#[test]
fn a_timm_network_that_torchvision_lacks_is_an_error_and_mobilenet_v1_stays() {
    let state = |names: &[&str]| names.iter().map(|&name| (name, Tensor::zeros([1]))).collect::<StateDict>();
    let odd = state(&["conv_stem.weight", "blocks.1.0.conv_pwl.weight", "blocks.0.0.conv_exp.weight"]);
    let error = weights::rename(odd).unwrap_err().to_string();
    assert!(error.contains("blocks.0.0.conv_exp.weight"), "{error}");
    let v1 = weights::rename(state(&["conv_stem.weight", "blocks.0.0.conv_dw.weight"])).unwrap();
    assert_eq!(v1.keys().collect::<Vec<_>>(), ["conv_stem.weight", "blocks.0.0.conv_dw.weight"]);
}

#[test]
fn the_one_array_of_a_npy_file_loads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("array.npy");
    // As `numpy.save` writes it, but for the padding of the header.
    let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }\n";
    let mut bytes = b"\x93NUMPY\x01\0".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    (0..6).for_each(|i| bytes.extend((f64::from(i) / 2.0).to_le_bytes()));
    fs::write(&path, &bytes).unwrap();
    let array = weights::load_npy(&path).unwrap();
    assert_eq!((array.shape(), array.to_vec::<f64>().unwrap()), (&[2, 3][..], vec![0.0, 0.5, 1.0, 1.5, 2.0, 2.5]));
    assert!(weights::load(&path).unwrap_err().to_string().contains("read it with `weights::load_npy`"));
    for damaged in [&bytes[..bytes.len() - 1], &bytes[..40], b"", b"PK\x03\x04"] {
        fs::write(&path, damaged).unwrap();
        let error = weights::load_npy(&path).unwrap_err();
        assert!(matches!(&error, Error::Format { .. }) && error.to_string().contains("array.npy"), "{error}");
    }
}
