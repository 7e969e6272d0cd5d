//! Files of weights: PyTorch's in both forms, NumPy's archives, safetensors.

use std::fs;
use std::path::Path;

use crate::mutate;

/// Ten times what the worst of 20,000 files took; the limits of the readers themselves are wider.
const PER_BYTE: usize = 2000;

fn seeds(names: &[&str]) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights");
    names.iter().map(|name| fs::read(folder.join(name)).unwrap()).collect()
}

fn run(kind: &str, names: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    mutate::run(
        kind,
        &seeds(names),
        PER_BYTE,
        |_| {},
        |file| {
            fs::write(&path, file).unwrap();
            match convnet::weights::load(&path) {
                Ok(state) => {
                    assert!(state.iter().all(|(_, tensor)| tensor.numel() <= (64 << 20) + 8 * file.len()));
                    true
                }
                Err(error) => {
                    assert!(error.to_string().contains("file"), "{error}");
                    false
                }
            }
        },
    );
}

#[test]
fn a_mutated_legacy_pth_file_is_a_state_dict_or_an_error_in_proportion() {
    run("legacy .pth", &["legacy.pth", "checkpoint_legacy.pth", "big_endian_legacy.pth", "command.pkl"]);
}

#[test]
fn a_mutated_pth_archive_is_a_state_dict_or_an_error_in_proportion() {
    run(".pth archive", &["plain.pth", "checkpoint.pth", "no_checksums.pth", "protocol4.pth", "module.pth", "unsigned.pth"]);
}

#[test]
fn a_mutated_npz_archive_is_a_state_dict_or_an_error_in_proportion() {
    run(".npz", &["plain.npz", "compressed.npz", "big_endian.npz", "objects.npz"]);
}

#[test]
fn a_mutated_safetensors_file_is_a_state_dict_or_an_error_in_proportion() {
    run("safetensors", &["plain.safetensors", "expected.safetensors"]);
}
