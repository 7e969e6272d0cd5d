//! Files of weights: PyTorch's in both forms, NumPy's archives, safetensors.

use std::fs;
use std::io::Read;
use std::path::Path;

use convnet::data::Rng;
use flate2::read::DeflateDecoder;

use crate::archive::{Entry, archive, deflated, stored};
use crate::mutate;

/// Ten times what the worst of 20,000 files took; the limits of the readers themselves are wider.
const PER_BYTE: usize = 2000;

fn seeds(names: &[&str]) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/weights");
    names.iter().map(|name| fs::read(folder.join(name)).unwrap()).collect()
}

/// Asserts that a file is a state dict in proportion to it, or an error that names it; returns
/// whether it is a state dict.
fn load(path: &Path, file: &[u8]) -> bool {
    fs::write(path, file).unwrap();
    match convnet::weights::load(path) {
        Ok(state) => {
            assert!(state.iter().all(|(_, tensor)| tensor.numel() <= (64 << 20) + 8 * file.len()));
            assert!(state.unreadable().all(|(_, reason)| reason.chars().count() <= 301));
            true
        }
        Err(error) => {
            let message = error.to_string();
            // The folder's name and at most 300 characters of what the file says.
            assert!(message.contains("file") && message.chars().count() < 500, "{message}");
            false
        }
    }
}

fn run(kind: &str, names: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    mutate::run(kind, &seeds(names), PER_BYTE, |_| {}, |file| load(&path, file));
}

/// Mutates what is inside archives, names and contents of a few entries, and writes checksums and
/// sizes that fit it: mutations of the bytes of an archive rarely get beyond these.
fn run_inside(kind: &str, names: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let archives: Vec<_> = seeds(names).iter().map(|seed| read(seed)).collect();
    for entries in &archives {
        let whole: Vec<_> = entries.iter().map(|(name, content)| stored(name, content)).collect();
        assert!(load(&path, &archive(&whole)), "an archive written again loads");
    }
    let contents: Vec<_> = archives.iter().flatten().map(|(_, content)| content.clone()).filter(|content| !content.is_empty()).collect();
    let make = |random: &mut Rng| {
        let mut entries = archives[random.below(archives.len())].clone();
        for _ in 0..=random.below(3) {
            let which = random.below(entries.len());
            match random.below(16) {
                0 => entries[which].0 = mutated_name(&entries[which].0, random),
                1 => drop(entries.remove(which)),
                2 => entries.push(entries[which].clone()),
                3 => entries[which].1 = contents[random.below(contents.len())].clone(),
                _ => (0..=random.below(4)).for_each(|_| mutate::mutate(&mut entries[which].1, &contents, random)),
            }
            if entries.is_empty() {
                break;
            }
        }
        let packed: fn(&str, &[u8]) -> Entry = if random.below(4) == 0 { deflated } else { stored };
        archive(&entries.iter().map(|(name, content)| packed(name, content)).collect::<Vec<_>>())
    };
    mutate::run_made(kind, PER_BYTE, make, |file| load(&path, file));
}

/// Names and contents of an archive whose entries are stored or deflated.
fn read(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let number = |at: usize, width: usize| bytes[at..at + width].iter().rev().fold(0usize, |n, &byte| n << 8 | usize::from(byte));
    let end = bytes.len() - 22;
    let (count, mut at) = (number(end + 10, 2), number(end + 16, 4));
    let mut entries = vec![];
    for _ in 0..count {
        let (method, size, name, extra, comment, local) =
            (number(at + 10, 2), number(at + 20, 4), number(at + 28, 2), number(at + 30, 2), number(at + 32, 2), number(at + 42, 4));
        let start = local + 30 + number(local + 26, 2) + number(local + 28, 2);
        let mut content = bytes[start..start + size].to_vec();
        if method == 8 {
            let packed = std::mem::take(&mut content);
            DeflateDecoder::new(&*packed).read_to_end(&mut content).unwrap();
        }
        entries.push((String::from_utf8(bytes[at + 46..at + 46 + name].to_vec()).unwrap(), content));
        at += 46 + name + extra + comment;
    }
    entries
}

fn mutated_name(name: &str, random: &mut Rng) -> String {
    let mut name = name.as_bytes().to_vec();
    mutate::mutate(&mut name, &[b"data.pkl/byteorder.npy/../".to_vec()], random);
    String::from_utf8_lossy(&name).into_owned()
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

#[test]
fn mutations_inside_a_pth_archive_with_right_checksums_give_a_state_dict_or_an_error_in_proportion() {
    run_inside("inside .pth", &["plain.pth", "checkpoint.pth", "protocol4.pth", "module.pth", "unsigned.pth"]);
}

#[test]
fn mutations_inside_an_npz_archive_with_right_checksums_give_a_state_dict_or_an_error_in_proportion() {
    run_inside("inside .npz", &["plain.npz", "compressed.npz"]);
}
