//! The safetensors format: a length, a JSON header, then the tensors' bytes, little-endian, without
//! gaps.
//!
//! The `safetensors` crate reads and checks the header: every tensor's bytes are inside the file,
//! follow one another, and match its shape and dtype in number. So no allocation here is larger
//! than the file.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::state_dict::StateDict;
use crate::error::{Error, Result, clipped, short};
use crate::io::atomic_file::write_atomically;
use crate::io::read_file;
use crate::kernels::runtime::arrays::sort_by;
use crate::tensor::bytes::{self, StoredDType, View};
use crate::tensor::{DType, MemoryFormat, Tensor, shape, with_dtype};

/// The largest header that readers accept.
const LONGEST_HEADER: usize = 100_000_000;

pub(crate) fn save(state: &StateDict, path: &Path) -> Result<()> {
    save_with_metadata(state, &[], path)
}

/// Writes a file with texts in its metadata.
pub(crate) fn save_with_metadata(state: &StateDict, metadata: &[(&str, &str)], path: &Path) -> Result<()> {
    let (header, tensors) = laid_out(state, metadata, path)?;
    write_atomically(path, |out| write_to(out, &header, &tensors))
}

/// Returns the bytes of a file with texts in its metadata; `path` is what errors name.
pub(crate) fn to_bytes(state: &StateDict, metadata: &[(&str, &str)], path: &Path) -> Result<Vec<u8>> {
    let (header, tensors) = laid_out(state, metadata, path)?;
    let mut bytes = Vec::new();
    write_to(&mut bytes, &header, &tensors).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    Ok(bytes)
}

/// Returns the header of a file and the tensors in their order.
fn laid_out<'s>(state: &'s StateDict, metadata: &[(&str, &str)], path: &Path) -> Result<(String, Vec<(&'s str, &'s Tensor)>)> {
    if state.contains_key("__metadata__") {
        return Err(Error::format(path, "a tensor cannot be called `__metadata__` in a safetensors file; rename it"));
    }
    if let Some((name, reason)) = state.unreadable().next() {
        let message = format!("tensor {} was not read ({reason}) and would be lost; `remove` it from the state dict first", short(name));
        return Err(Error::format(path, message));
    }
    // Wide types come first, which keeps every tensor aligned; Python's readers rely on this.
    let mut tensors: Vec<(&str, &Tensor)> = state.iter().collect();
    sort_by(&mut tensors, |(_, a), (_, b)| b.dtype().size().cmp(&a.dtype().size()));
    let header = header(&tensors, metadata);
    if header.len() > LONGEST_HEADER {
        return Err(Error::format(path, format!("a header of {} bytes is longer than readers accept", header.len())));
    }
    Ok((header, tensors))
}

fn write_to(out: &mut dyn Write, header: &str, tensors: &[(&str, &Tensor)]) -> io::Result<()> {
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    tensors.iter().try_for_each(|(_, tensor)| write_elements(out, tensor))
}

fn header(tensors: &[(&str, &Tensor)], metadata: &[(&str, &str)]) -> String {
    let mut header = String::from(r#"{"__metadata__":{"format":"pt""#);
    for &(key, value) in metadata {
        header.push_str(&format!(",{}:{}", serde_json::Value::from(key), serde_json::Value::from(value)));
    }
    header.push('}');
    let mut offset = 0;
    for (name, tensor) in tensors {
        let dtype = match tensor.dtype() {
            DType::U8 => "U8",
            DType::I64 => "I64",
            DType::F32 => "F32",
            DType::F64 => "F64",
        };
        let end = offset + tensor.numel() * tensor.dtype().size();
        let (name, shape) = (serde_json::Value::from(*name), tensor.shape());
        header.push_str(&format!(r#",{name}:{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{offset},{end}]}}"#));
        offset = end;
    }
    header.push('}');
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    header
}

/// Writes the elements in row-major order, little-endian.
pub(crate) fn write_elements(out: &mut dyn Write, tensor: &Tensor) -> io::Result<()> {
    let tensor = tensor.to_format(MemoryFormat::RowMajor).map_err(io::Error::other)?;
    with_dtype!(tensor.dtype(), T => {
        let data = tensor.data::<T>();
        if cfg!(target_endian = "little") {
            return out.write_all(bytemuck::cast_slice(data));
        }
        data.iter().try_for_each(|x| out.write_all(x.to_le_bytes().as_ref()))
    })
}

pub(crate) fn load(path: &Path) -> Result<StateDict> {
    load_with_metadata(path).map(|(state, _)| state)
}

/// Reads a file with the texts of its metadata.
pub(crate) fn load_with_metadata(path: &Path) -> Result<(StateDict, HashMap<String, String>)> {
    from_bytes(&read_file(path)?, path)
}

/// Reads the bytes of a file; `path` is what errors name.
pub(crate) fn from_bytes(bytes: &[u8], path: &Path) -> Result<(StateDict, HashMap<String, String>)> {
    if let Some(what) = other_kind(bytes) {
        return Err(Error::format(path, format!("not a safetensors file: {what}")));
    }
    let malformed = |error| Error::format(path, clipped(&format!("not a safetensors file: {error}")));
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
    let data = &bytes[size_of::<u64>() + header..];
    let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
    sort_by(&mut tensors, |(a_name, a), (b_name, b)| (a.data_offsets, a_name).cmp(&(b.data_offsets, b_name)));
    let mut state = StateDict::new();
    for (name, info) in tensors {
        let fail = |message: &str| Error::format(path, clipped(&format!("tensor {}: {message}", short(&name))));
        if shape::try_numel(&info.shape).is_none() {
            return Err(fail(&format!("shape {:?} has more elements than memory can hold", info.shape)));
        }
        let bytes = data.get(info.data_offsets.0..info.data_offsets.1).ok_or_else(|| fail("its data lie outside the file"))?;
        let Some(kind) = stored(info.dtype) else {
            let reason = format!("dtype {:?} is not supported; F64, F32, F16, BF16, BOOL and integers up to I64 are", info.dtype);
            state.insert_unreadable(name, reason);
            continue;
        };
        let tensor = decode(kind, &info.shape, bytes).map_err(|message| fail(&message))?;
        state.insert(name, tensor);
    }
    let texts = metadata.metadata().iter().flatten();
    restore_tied(&mut state, texts.clone());
    state.check_readable().map_err(|message| Error::format(path, message))?;
    // The crate's map is of another type when its feature `std` is off.
    Ok((state, texts.map(|(key, text)| (key.clone(), text.clone())).collect()))
}

/// Hugging Face's convention: of tensors that share memory one is stored, and the metadata maps
/// each other name to its name.
fn restore_tied<'a>(state: &mut StateDict, metadata: impl Iterator<Item = (&'a String, &'a String)>) {
    let mut tied: Vec<_> = metadata.filter(|(removed, _)| !state.contains_key(removed)).collect();
    sort_by(&mut tied, |a, b| a.cmp(b));
    // All are looked up before any is added, since a name must refer to a stored tensor.
    let tied: Vec<_> = tied.into_iter().filter_map(|(removed, kept)| Some((removed.clone(), state.get(kept)?.clone()))).collect();
    for (name, tensor) in tied {
        state.insert(name, tensor);
    }
}

/// Identifies a file that cannot be in the safetensors format, and describes how to load it.
pub(crate) fn other_kind(bytes: &[u8]) -> Option<&'static str> {
    let start = &bytes[..bytes.len().min(512)];
    let text = start.trim_ascii_start().to_ascii_lowercase();
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") || start.starts_with(b"\x80") && start.get(7) != Some(&0) {
        Some("it looks like what torch.save or numpy.savez writes; read it with `weights::load` and then `load_state_dict`")
    } else if start.starts_with(b"version https://git-lfs") {
        Some("a Git LFS pointer in place of the file; run `git lfs pull` in its repository, or download the file itself")
    } else if text.starts_with(b"<!doctype html") || text.starts_with(b"<html") || text.starts_with(b"<?xml") {
        Some("an HTML or XML page in place of the file; the address led to a page, not to the download")
    } else {
        None
    }
}

/// The element type of a dtype that is read, else `None`.
fn stored(dtype: Dtype) -> Option<StoredDType> {
    Some(match dtype {
        Dtype::F64 => StoredDType::F64,
        Dtype::F32 => StoredDType::F32,
        Dtype::F16 => StoredDType::F16,
        Dtype::BF16 => StoredDType::Bf16,
        Dtype::BOOL => StoredDType::Bool,
        Dtype::U8 => StoredDType::U8,
        Dtype::I8 => StoredDType::I8,
        Dtype::U16 => StoredDType::U16,
        Dtype::I16 => StoredDType::I16,
        Dtype::U32 => StoredDType::U32,
        Dtype::I32 => StoredDType::I32,
        Dtype::I64 => StoredDType::I64,
        _ => return None,
    })
}

fn decode(kind: StoredDType, shape: &[usize], content: &[u8]) -> Result<Tensor, String> {
    let wrong = || format!("{} bytes do not make shape {shape:?}", content.len());
    let view = View::dense(shape.to_vec(), false).ok_or_else(wrong)?;
    if shape::try_numel(shape).and_then(|count| count.checked_mul(kind.size())) != Some(content.len()) {
        return Err(wrong());
    }
    bytes::decode(kind, &view, content)
}
