//! State dicts in safetensors files, hostile ones too.

use convnet::nn::*;
use convnet::{Error, Result, Tensor};

use super::{content, nested, values};

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

/// Returns a safetensors file of this header and data.
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
    // A file in place of a folder cannot be written into, even by root.
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
fn wrong_headers_are_refused() {
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
