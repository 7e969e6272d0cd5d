//! Weights trained elsewhere: files of tensors by name, from PyTorch, NumPy and safetensors.
//!
//! [`load`] recognises a file by its content, not its name:
//!
//! | written by | read |
//! |---|---|
//! | `safetensors.torch.save_file`, [`ModuleExt::save`](crate::nn::ModuleExt::save) | all of it |
//! | `torch.save` (zip archive, or pickles before 1.6) | a state dict, also inside a checkpoint |
//! | `numpy.savez`, `savez_compressed` | all arrays |
//!
//! Half precision becomes `f32`, integers become `i64`, bytes and truth values `u8`. Big-endian
//! files are refused.
//!
//! In what `torch.save` wrote, the state dict may be the file's root or be in it under
//! `state_dict`, `model_state_dict`, `model`, `net`, `network`, `weights`, `model_ema`, `ema`,
//! `params` or `state_dict_ema`; a whole module counts as its state dict. Dicts in dicts get names
//! with dots; what is no tensor is passed over. `_orig_mod.` (`torch.compile`) is taken off
//! wherever it stands in a name, and `module.` (`DataParallel`) where all names start with it, with
//! `AveragedModel`'s `n_averaged`. A tensor of a dtype without a counterpart, a quantized, sparse
//! or nested one, or one that is made in an unknown way does not hinder the others:
//! [`StateDict::try_get`] says why it is not there. Tensors may share a storage and may be strided
//! over it; each comes out dense, equal ones share their memory.
//!
//! **Files are not trusted.** A `.pth` file is a pickle, and a pickle can run any program when
//! Python loads it. Here it is read by a machine that builds tensors, containers, numbers and
//! strings. All other names, `os.system` and `builtins.eval` among them, stand for inert values:
//! nothing is ever run, and only a tensor that depends on such a value is not read, for a reason
//! that has the name. Sizes, offsets and directories are checked against the file, and what a file
//! may make this process allocate is limited to eight times the file's size (the widest conversion)
//! plus 64 MiB.
//!
//! ```
//! use convnet::models::lenet5;
//! use convnet::nn::{Module, ModuleExt};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # std::env::set_current_dir(&folder).unwrap();
//! # convnet::weights::save("lenet5.safetensors", &lenet5(10).state_dict())?;
//! let state = convnet::weights::load("lenet5.safetensors")?; // or lenet5.pth, or lenet5.npz
//! let report = lenet5(10).load_state_dict(&state)?;
//! assert_eq!(report.loaded, 10);
//! convnet::weights::save("lenet5.npz", &state)?;
//! # Ok::<(), convnet::Error>(())
//! ```

pub(crate) mod alloc_limit;
#[cfg(feature = "download")]
mod download;
pub(crate) mod elements;
#[cfg(feature = "hub")]
mod hub;
mod npz;
pub(crate) mod pickle;
mod timm_names;
mod torch;
mod zip;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use alloc_limit::{AllocLimit, Parsed};
#[cfg(feature = "download")]
pub use download::{cache_folder, download, download_into};
#[cfg(feature = "hub")]
pub use hub::{Hub, from_hub};
pub use timm_names::rename;

#[cfg(feature = "download")]
pub use crate::io::download::{Checksum, Download};

use crate::error::{Error, Result, clipped};
use crate::io::read_file;
use crate::nn::StateDict;
use crate::nn::state::safetensors::other_kind;
use crate::tensor::Tensor;

/// Reads a file of weights by its content: safetensors, `.npz`, or a file of `torch.save`. See the
/// [module](self).
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Format`] when it is of another format,
/// damaged, or none of its tensors can be read. Both name the path.
pub fn load(path: impl AsRef<Path>) -> Result<StateDict> {
    let path = path.as_ref();
    if is_safetensors(path) {
        return StateDict::load(path);
    }
    let bytes = read_file(path)?;
    let readable = |state: StateDict| state.check_readable().map(|()| state);
    parse(&bytes).and_then(readable).map_err(|message| Error::format(path, clipped(&message)))
}

/// Reads a `.npy` file, the one array that `numpy.save` writes.
///
/// ```no_run
/// let patches = convnet::weights::load_npy("patches.npy")?;
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] when the file cannot be read; [`Error::Format`] when it is of another format,
/// damaged, or its elements are of a type without a counterpart. Both name the path.
pub fn load_npy(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    let bytes = read_file(path)?;
    let tensor = npz::array(&bytes, &mut AllocLimit::new(bytes.len())).and_then(|array| array);
    tensor.map_err(|message| Error::format(path, clipped(&message)))
}

/// A safetensors file starts with the length of its header, which starts with a brace.
fn is_safetensors(path: &Path) -> bool {
    let mut start = [0; 9];
    path.is_file() && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start[8] == b'{' && start[7] == 0
}

fn parse(bytes: &[u8]) -> Parsed<StateDict> {
    let mut budget = AllocLimit::new(bytes.len());
    match bytes {
        [b'P', b'K', 3 | 5, ..] => {
            let archive = zip::Archive::parse(bytes)?;
            match torch::archive_prefix(&archive) {
                Some(prefix) => torch::load_archive(&archive, prefix, &mut budget),
                None if npz::is_npz(&archive) => npz::load(&archive, &mut budget),
                None => Err("a zip archive that neither torch.save nor numpy.savez wrote".to_string()),
            }
        }
        [0x80, ..] => torch::load_legacy(bytes, &mut budget),
        [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => {
            Err("one array without a name; read it with `weights::load_npy`, or save it with `numpy.savez(path, name=array)`".to_string())
        }
        [0x89, b'H', b'D', b'F', ..] => Err("an HDF5 file, which is not read; save the weights as safetensors or .npz".to_string()),
        [] => Err("an empty file".to_string()),
        [b'v' | b'<' | b' ' | b'\t' | b'\r' | b'\n', ..] if other_kind(bytes).is_some() => {
            Err(other_kind(bytes).unwrap_or_default().to_string())
        }
        _ => Err("neither safetensors nor .npz nor what torch.save writes".to_string()),
    }
}

/// Writes a state dict beside the target, synced, then renamed; `.safetensors` or `.npz`, by the
/// name's extension. Python's `safetensors` and `numpy.load` read them. Links, permissions and
/// crashes are treated as by [`StateDict::save`].
///
/// # Errors
/// [`Error::Io`] with the path; [`Error::Format`] for another extension, and for more than an
/// `.npz` file can hold here (4 GiB).
pub fn save(path: impl AsRef<Path>, state: &StateDict) -> Result<()> {
    let path = path.as_ref();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "safetensors" => state.save(path),
        "npz" => npz::save(state, path),
        _ => Err(Error::format(path, format!("cannot be saved as `.{extension}`; name it .safetensors or .npz"))),
    }
}
