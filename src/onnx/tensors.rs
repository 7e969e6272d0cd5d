//! Tensors of ONNX files: raw or typed data inside the file, or bytes of a file beside it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use super::element::{ElementType, TOO_LARGE, Value, is_too_large, small_float};
use super::proto::TensorProto;
use super::proto::tensor_proto::DataLocation;
use crate::tensor::Tensor;
use crate::tensor::shape::try_numel;
use crate::weights::alloc_limit::{AllocLimit, Parsed, quoted};
use crate::weights::elements::{self, MOST_DIMENSIONS, StoredDType, View};

/// Returns the shape, if memory could hold its elements.
pub(super) fn shape(dims: &[i64]) -> Parsed<Vec<usize>> {
    let sizes: Option<Vec<usize>> = dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    sizes
        .filter(|sizes| sizes.len() <= MOST_DIMENSIONS && try_numel(sizes).is_some())
        .ok_or_else(|| format!("shape {:?} is not that of a tensor", &dims[..dims.len().min(8)]))
}

/// Reads a tensor; `folder` is where files of external data are.
pub(super) fn value(tensor: &TensorProto, folder: Option<&Path>, limit: &mut AllocLimit) -> Parsed<Value> {
    let element = ElementType::of_code(tensor.data_type)?;
    let shape = shape(&tensor.dims)?;
    if tensor.segment.is_some() {
        return Err("is stored in segments, which are not supported".to_string());
    }
    if tensor.data_location == DataLocation::External as i32 {
        let bytes = external(tensor, folder, element, &shape, limit)?;
        return raw(element, shape, &bytes, limit);
    }
    if !tensor.raw_data.is_empty() {
        return raw(element, shape, &tensor.raw_data, limit);
    }
    let bytes = typed(tensor, element);
    raw(element, shape, &bytes, limit)
}

/// Returns the little-endian bytes of elements that are stored one by one.
fn typed(tensor: &TensorProto, element: ElementType) -> Vec<u8> {
    use ElementType::*;
    match element {
        Float32 => tensor.float_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Float64 => tensor.double_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Int64 => tensor.int64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Uint64 => tensor.uint64_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Uint32 => tensor.uint64_data.iter().flat_map(|&x| (x as u32).to_le_bytes()).collect(),
        Int32 => tensor.int32_data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Float16 | Bfloat16 | Int16 | Uint16 => tensor.int32_data.iter().flat_map(|&x| (x as u16).to_le_bytes()).collect(),
        // Each number holds a byte: one element, or several of less than 8 bits.
        _ => tensor.int32_data.iter().map(|&x| x as u8).collect(),
    }
}

/// Makes the tensor of little-endian elements.
fn raw(element: ElementType, shape: Vec<usize>, bytes: &[u8], limit: &mut AllocLimit) -> Parsed<Value> {
    use ElementType::*;
    let count = try_numel(&shape).unwrap_or(usize::MAX);
    let expected = count.saturating_mul(element.bits() as usize).div_ceil(8);
    if expected != bytes.len() {
        return Err(format!("{} bytes do not make shape {shape:?} of {}", bytes.len(), element.name()));
    }
    let stored = match element {
        Float16 => StoredDType::F16,
        Bfloat16 => StoredDType::Bf16,
        Float32 => StoredDType::F32,
        Float64 => StoredDType::F64,
        Int8 => StoredDType::I8,
        Int16 => StoredDType::I16,
        Int32 => StoredDType::I32,
        Int64 | Uint64 => StoredDType::I64,
        Uint8 => StoredDType::U8,
        Uint16 => StoredDType::U16,
        Uint32 => StoredDType::U32,
        Bool => StoredDType::Bool,
        _ => {
            limit.take(count.saturating_mul(8))?;
            let (bits, per_byte) = (element.bits() as usize, 8 / element.bits() as usize);
            let part = |i: usize| bytes[i / per_byte] >> (bits * (i % per_byte)) & (u8::MAX >> (8 - bits));
            let tensor = if element.is_float() {
                Tensor::from_vec((0..count).map(|i| small_float(element, part(i))).collect(), &shape)
            } else {
                Tensor::from_vec((0..count).map(|i| element.wrap(i64::from(part(i)))).collect::<Vec<i64>>(), &shape)
            };
            return tensor.map(|tensor| Value { tensor, element }).map_err(|error| error.to_string());
        }
    };
    let view = View::dense(shape, false).ok_or("has more elements than memory can hold")?;
    let tensor = elements::tensor(stored, &view, bytes, limit)?;
    match is_too_large(&tensor, element) {
        Ok(false) => Ok(Value { tensor, element }),
        Ok(true) => Err(TOO_LARGE.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the path of a file of external data: a relative path below the model's folder, also
/// after links are followed.
fn external_path(folder: &Path, location: &str) -> Parsed<PathBuf> {
    let refused = || format!("its data are at {}, outside the model's folder", quoted(location));
    let relative = Path::new(location);
    if location.is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(refused());
    }
    let unreadable = |error: std::io::Error| format!("its data at {}: {error}", quoted(location));
    let path = folder.join(relative).canonicalize().map_err(unreadable)?;
    let folder = folder.canonicalize().map_err(unreadable)?;
    if path.starts_with(folder) { Ok(path) } else { Err(refused()) }
}

/// Returns a tensor whose data are those of a file beside the model as one that holds them.
pub(super) fn with_data(tensor: TensorProto, folder: Option<&Path>, limit: &mut AllocLimit) -> Parsed<TensorProto> {
    if tensor.data_location != DataLocation::External as i32 {
        return Ok(tensor);
    }
    let bytes = external(&tensor, folder, ElementType::of_code(tensor.data_type)?, &shape(&tensor.dims)?, limit)?;
    limit.take(bytes.len())?;
    Ok(TensorProto { raw_data: bytes.into(), data_location: DataLocation::Default as i32, external_data: vec![], ..tensor })
}

/// Reads the bytes of a tensor from a file beside the model.
fn external(tensor: &TensorProto, folder: Option<&Path>, element: ElementType, shape: &[usize], limit: &mut AllocLimit) -> Parsed<Vec<u8>> {
    let entry = |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let number = |key: &str| {
        entry(key).map(|text| text.parse::<u64>().map_err(|_| format!("its {key} {} is not a number", quoted(text)))).transpose()
    };
    let folder = folder.ok_or("has external data, in another file, and the model was read from bytes; import it from its path")?;
    let location = entry("location").ok_or("has external data without a location")?;
    let path = external_path(folder, location)?;
    let count = try_numel(shape).unwrap_or(usize::MAX) as u64;
    let expected = count.saturating_mul(u64::from(element.bits())).div_ceil(8);
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?.unwrap_or(expected));
    let unreadable = |error: std::io::Error| format!("its data at {}: {error}", quoted(location));
    // Before the file is opened: a pipe would wait for a writer.
    let metadata = path.metadata().map_err(unreadable)?;
    let end = offset.checked_add(length).filter(|&end| metadata.is_file() && end <= metadata.len());
    if end.is_none() || length != expected {
        let size = metadata.len();
        return Err(format!("{length} bytes from {offset} of {} ({size} bytes) do not make shape {shape:?}", quoted(location)));
    }
    // The file justifies the memory, whatever the model's own length.
    limit.add_file(path.clone(), metadata.len());
    let length = length as usize;
    limit.take(length)?;
    let mut bytes = vec![];
    bytes.try_reserve_exact(length).map_err(|_| format!("its {length} bytes do not fit into memory"))?;
    let mut file = File::open(&path).map_err(unreadable)?;
    file.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
    file.take(length as u64).read_to_end(&mut bytes).map_err(unreadable)?;
    limit.give_back(length);
    if bytes.len() == length { Ok(bytes) } else { Err(format!("its data at {} end early", quoted(location))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::StringStringEntryProto;
    use crate::onnx::proto::tensor_proto::DataType;

    fn read(tensor: &TensorProto, folder: Option<&Path>) -> Parsed<Value> {
        value(tensor, folder, &mut AllocLimit::new(64))
    }

    #[test]
    fn typed_raw_and_packed_elements_read_as_their_numbers() {
        let tensor = |code: DataType, dims: &[i64]| TensorProto { dims: dims.to_vec(), data_type: code as i32, ..Default::default() };
        let halves = TensorProto { int32_data: vec![0x3c00, 0xc000], ..tensor(DataType::Float16, &[2]) };
        assert_eq!(read(&halves, None).unwrap().floats().unwrap(), [1.0, -2.0]);
        let nibbles = TensorProto { raw_data: vec![0x8f, 0x07].into(), ..tensor(DataType::Int4, &[3]) };
        assert_eq!(read(&nibbles, None).unwrap().ints().unwrap(), [-1, -8, 7]);
        let bytes = TensorProto { int32_data: vec![-1, 127], ..tensor(DataType::Int8, &[2]) };
        assert_eq!(read(&bytes, None).unwrap().ints().unwrap(), [-1, 127]);
        let wide = TensorProto { uint64_data: vec![u64::from(u32::MAX)], ..tensor(DataType::Uint32, &[]) };
        assert_eq!(read(&wide, None).unwrap().ints().unwrap(), [4294967295]);
        for hostile in [vec![-1], vec![1 << 60], vec![1 << 31, 1 << 31], vec![3], vec![1; 65]] {
            assert!(read(&TensorProto { float_data: vec![1.0], ..tensor(DataType::Float, &hostile) }, None).is_err());
        }
    }

    #[test]
    fn external_data_stay_inside_the_folder_of_the_model() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("model")).unwrap();
        let inside = folder.path().join("model");
        for place in [folder.path().join("secret"), inside.join("data")] {
            std::fs::write(place, [0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
        }
        let at = |location: &str, offset: &str| TensorProto {
            dims: vec![1],
            data_type: DataType::Float as i32,
            data_location: DataLocation::External as i32,
            external_data: [("location", location), ("offset", offset)]
                .map(|(key, value)| StringStringEntryProto { key: key.into(), value: value.into() })
                .to_vec(),
            ..Default::default()
        };
        assert_eq!(read(&at("data", "4"), Some(&inside)).unwrap().floats().unwrap(), [2.0]);
        let absolute = folder.path().join("secret").display().to_string();
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path().join("secret"), inside.join("link")).unwrap();
        #[cfg(unix)]
        assert!(std::process::Command::new("mkfifo").arg(inside.join("pipe")).status().unwrap().success());
        for (location, offset) in [
            ("pipe", "0"),
            ("../secret", "0"),
            (absolute.as_str(), "0"),
            ("link", "0"),
            ("data", "8"),
            ("data", "18446744073709551615"),
            ("data", "x"),
            ("", "0"),
        ] {
            assert!(read(&at(location, offset), Some(&inside)).is_err(), "{location}");
        }
    }

    #[test]
    fn a_file_of_external_data_justifies_its_length_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("data"), vec![0u8; 1 << 20]).unwrap();
        let tensor = TensorProto {
            dims: vec![1 << 18],
            data_type: DataType::Float as i32,
            data_location: DataLocation::External as i32,
            external_data: vec![StringStringEntryProto { key: "location".into(), value: "data".into() }],
            ..Default::default()
        };
        let mut limit = AllocLimit::new(64);
        let read = (0..200).take_while(|_| value(&tensor, Some(folder.path()), &mut limit).is_ok()).count();
        assert!((64..80).contains(&read), "the file was read {read} times");
    }
}
