//! NumPy's archives: a zip of `.npy` files, each a text header (a Python dict literal) and the
//! elements.

use std::io::{self, Write};
use std::path::Path;

use super::alloc_limit::{AllocLimit, Parsed, quoted};
use super::elements::{self, StoredDType, View};
use super::zip::{self, Archive, NewEntry};
use crate::error::{Error, Result};
use crate::io::atomic_file::write_atomically;
use crate::nn::StateDict;
use crate::nn::state::safetensors::write_elements;
use crate::tensor::{DType, Tensor};

const MAGIC: &[u8] = b"\x93NUMPY";
const EXTENSION: &str = ".npy";

/// Returns whether an archive holds `.npy` files and nothing else.
pub(super) fn is_npz(archive: &Archive<'_>) -> bool {
    archive.names().all(|name| name.ends_with(EXTENSION))
}

pub(super) fn load(archive: &Archive<'_>, budget: &mut AllocLimit) -> Parsed<StateDict> {
    let mut state = StateDict::new();
    for name in archive.names() {
        let content = archive.read(name, budget)?;
        let array = array(&content, budget).map_err(|message| format!("array {}: {message}", quoted(name)))?;
        if let std::borrow::Cow::Owned(inflated) = content {
            budget.give_back(inflated.len());
        }
        let name = name.strip_suffix(EXTENSION).unwrap_or(name);
        match array {
            Ok(tensor) => drop(state.insert(name, tensor)),
            Err(reason) => state.insert_unreadable(name, reason),
        }
    }
    Ok(state)
}

/// Reads one `.npy` file: its tensor, or why its elements are not read.
pub(super) fn array(bytes: &[u8], budget: &mut AllocLimit) -> Parsed<Parsed<Tensor>> {
    let (header, data) = split(bytes).ok_or("not a .npy file, or truncated")?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is not UTF-8")?;
    let Header { kind, fortran, shape } = match Header::parse(header)? {
        Ok(header) => header,
        Err(reason) => return Ok(Err(reason)),
    };
    let view = View::dense(shape, fortran).ok_or("its shape has more elements than memory can hold")?;
    let expected = view.shape.iter().try_fold(kind.size(), |n, &dim| n.checked_mul(dim));
    if expected != Some(data.len()) {
        return Err(format!("{} bytes do not make shape {:?} of {kind:?}", data.len(), view.shape));
    }
    elements::tensor(kind, &view, data, budget).map(Ok)
}

/// Splits a file into header and elements.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (length, rest) = match version {
        [1, 0] => rest.split_first_chunk().map(|(length, rest)| (u32::from(u16::from_le_bytes(*length)), rest))?,
        [2 | 3, 0] => rest.split_first_chunk().map(|(length, rest)| (u32::from_le_bytes(*length), rest))?,
        _ => return None,
    };
    rest.split_at_checked(usize::try_from(length).ok()?)
}

struct Header {
    kind: StoredDType,
    fortran: bool,
    shape: Vec<usize>,
}

impl Header {
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`
    fn parse(text: &str) -> Parsed<Parsed<Header>> {
        Literal(text).header().ok_or_else(|| format!("its header is damaged: {}", quoted(text)))
    }
}

/// The rest of a Python literal; each method takes something off its front, or returns `None`.
struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    fn header(&mut self) -> Option<Parsed<Header>> {
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        self.token("{")?;
        while self.token("}").is_none() {
            let key = self.string()?;
            self.token(":")?;
            match key {
                "descr" if self.peek("[") => return Some(Err("has named fields, which no tensor has".to_string())),
                "descr" => descr = Some(self.string()?),
                "fortran_order" => fortran = Some(self.token("True").map(|()| true).or_else(|| self.token("False").map(|()| false))?),
                "shape" => shape = Some(self.tuple()?),
                _ => return None,
            }
            if self.token(",").is_none() && !self.peek("}") {
                return None;
            }
        }
        let (descr, fortran, shape) = (descr?, fortran?, shape?);
        self.0.trim().is_empty().then(|| kind(descr).map(|kind| Header { kind, fortran, shape }))
    }

    fn token(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.trim_start().strip_prefix(token)?;
        Some(())
    }

    fn peek(&self, token: &str) -> bool {
        self.0.trim_start().starts_with(token)
    }

    fn string(&mut self) -> Option<&'a str> {
        let quote = if self.peek("'") { "'" } else { "\"" };
        self.token(quote)?;
        let (text, rest) = self.0.split_once(quote)?;
        self.0 = rest;
        Some(text)
    }

    fn tuple(&mut self) -> Option<Vec<usize>> {
        let mut sizes = vec![];
        self.token("(")?;
        while self.token(")").is_none() {
            let text = self.0.trim_start();
            let digits = text.find(|c: char| !c.is_ascii_digit())?;
            sizes.push(text[..digits].parse().ok()?);
            self.0 = &text[digits..];
            // Python 2 marks long integers.
            let _ = self.token("L");
            if sizes.len() > elements::MOST_DIMENSIONS || (self.token(",").is_none() && !self.peek(")")) {
                return None;
            }
        }
        Some(sizes)
    }
}

fn kind(descr: &str) -> Parsed<StoredDType> {
    Ok(match descr {
        "<f2" => StoredDType::F16,
        "<f4" => StoredDType::F32,
        "<f8" => StoredDType::F64,
        "|i1" => StoredDType::I8,
        "<i2" => StoredDType::I16,
        "<i4" => StoredDType::I32,
        "<i8" => StoredDType::I64,
        "|u1" => StoredDType::U8,
        "<u2" => StoredDType::U16,
        "<u4" => StoredDType::U32,
        "|b1" => StoredDType::Bool,
        _ if descr.starts_with('>') => {
            return Err("is big-endian, which is not supported; convert it with `.astype(a.dtype.newbyteorder('<'))`".into());
        }
        _ if descr.starts_with("|O") => return Err("holds Python objects, which are refused; save numeric arrays".into()),
        _ => return Err(format!("dtype {} is not supported; floating point up to f8, bool and integers up to i8 are", quoted(descr))),
    })
}

pub(super) fn save(state: &StateDict, path: &Path) -> Result<()> {
    if let Some((name, reason)) = state.unreadable().next() {
        let message = format!("tensor {} was not read ({reason}) and would be lost; `remove` it from the state dict first", quoted(name));
        return Err(Error::format(path, message));
    }
    let entries: Vec<NewEntry<'_>> = state.iter().map(|(name, tensor)| entry(name, tensor)).collect();
    if zip::length(&entries).is_none() {
        let message = "4 GiB, 65,534 tensors and names of 64 KiB are the limits of this .npz writer; save it as .safetensors";
        return Err(Error::format(path, message));
    }
    write_atomically(path, |out| zip::write(out, &entries))
}

fn entry<'a>(name: &str, tensor: &'a Tensor) -> NewEntry<'a> {
    let header = header(tensor);
    let size = header.len() + tensor.numel() * tensor.dtype().size();
    let content = move |out: &mut dyn Write| -> io::Result<()> {
        out.write_all(&header)?;
        write_elements(out, tensor)
    };
    NewEntry { name: format!("{name}{EXTENSION}"), size, content: Box::new(content) }
}

fn header(tensor: &Tensor) -> Vec<u8> {
    let descr = match tensor.dtype() {
        DType::U8 => "|u1",
        DType::I64 => "<i8",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
    };
    let sizes: String = tensor.shape().iter().map(|dim| format!("{dim}, ")).collect();
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // NumPy aligns the elements to 64 bytes; the header ends with a line feed.
    let before = MAGIC.len() + 2 + 4;
    while !(before + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let mut header = [MAGIC, &[2, 0], &(text.len() as u32).to_le_bytes()].concat();
    header.extend(text.as_bytes());
    header
}
