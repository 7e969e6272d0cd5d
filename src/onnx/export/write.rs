//! The file. The messages of nodes are encoded by `prost`; the initialisers' elements, which make
//! up most of it, go to the file one tensor at a time, so that no second copy of the weights is in
//! memory.

use std::io::{self, Write};
use std::path::Path;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::OP;
use super::call::type_number;
use super::graph::{Attribute, Graph, Node, Port, Size};
use crate::error::{Error, Result};
use crate::io::atomic_file::write_atomically;
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::onnx::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, tensor_proto::DataLocation, tensor_shape_proto, type_proto,
};
use crate::tensor::{MemoryFormat, Tensor, with_dtype};

/// The most bytes of one file: a protocol buffer has no more than 2 GiB, and the nodes need some.
const MOST: usize = (1 << 31) - (64 << 20);

/// Tensors of fewer bytes stay in the model's file, beside external data.
const LEAST_EXTERNAL: usize = 1024;

/// Where tensors begin in a file of external data: at multiples of this, so that it can be mapped.
const ALIGNMENT: usize = 4096;

/// What a file says about itself.
pub(super) struct Header<'a> {
    pub(super) version: i64,
    pub(super) opset: i64,
    pub(super) name: &'a str,
    pub(super) metadata: &'a [(String, String)],
}

/// The numbers of fields in ONNX's messages.
const GRAPH_IN_MODEL: u32 = 7;
const INITIALISER_IN_GRAPH: u32 = 5;
const RAW_DATA_IN_TENSOR: u32 = 9;

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: key.to_string(), value: value.to_string() }
}

fn node(node: &Node) -> NodeProto {
    let attribute = |(name, value): &(&'static str, Attribute)| {
        let named = AttributeProto { name: (*name).to_string(), ..Default::default() };
        match value {
            Attribute::Int(i) => AttributeProto { r#type: AttributeType::Int as i32, i: *i, ..named },
            Attribute::Ints(ints) => AttributeProto { r#type: AttributeType::Ints as i32, ints: ints.clone(), ..named },
            Attribute::Float(f) => AttributeProto { r#type: AttributeType::Float as i32, f: *f, ..named },
            Attribute::Text(text) => {
                AttributeProto { r#type: AttributeType::String as i32, s: prost::bytes::Bytes::from_static(text.as_bytes()), ..named }
            }
        }
    };
    NodeProto {
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        name: node.name.clone(),
        op_type: node.op.to_string(),
        attribute: node.attributes.iter().map(attribute).collect(),
        ..Default::default()
    }
}

fn port(port: &Port) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension};
    let size = |size: &Size| Dimension {
        value: Some(match size {
            Size::Fixed(size) => dimension::Value::DimValue(*size as i64),
            Size::Named(name) => dimension::Value::DimParam(name.clone()),
        }),
        ..Default::default()
    };
    let shape = Some(TensorShapeProto { dim: port.sizes.iter().map(size).collect() });
    let tensor = type_proto::Tensor { elem_type: type_number(port.dtype) as i32, shape };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto { name: port.name.clone(), r#type: Some(TypeProto { value, ..Default::default() }), ..Default::default() }
}

fn bytes_of(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.dtype().size()
}

/// Where the elements of an initialiser are in the file of external data.
type Place = Option<usize>;

/// Writes the elements in row-major order; numbers are little-endian in ONNX.
fn elements(tensor: &Tensor, out: &mut dyn Write) -> io::Result<()> {
    let tensor = tensor.to_format(MemoryFormat::RowMajor).map_err(io::Error::other)?;
    if cfg!(target_endian = "big") {
        return with_dtype!(tensor.dtype(), T => tensor.data::<T>().iter().try_for_each(|value| out.write_all(&value.to_le_bytes())));
    }
    with_dtype!(tensor.dtype(), T => out.write_all(bytemuck::cast_slice(tensor.data::<T>())))
}

/// Returns the message of a tensor without its elements.
fn tensor_header(name: &str, tensor: &Tensor, place: Place, data: &str) -> TensorProto {
    let mut header = TensorProto {
        dims: tensor.shape().iter().map(|&size| size as i64).collect(),
        data_type: type_number(tensor.dtype()) as i32,
        name: name.to_string(),
        ..Default::default()
    };
    if let Some(offset) = place {
        let (offset, length) = (offset.to_string(), bytes_of(tensor).to_string());
        header.data_location = DataLocation::External as i32;
        header.external_data = vec![entry("location", data), entry("offset", &offset), entry("length", &length)];
    }
    header
}

/// Returns the number of bytes of a field of this length, with its key.
fn field_length(field: u32, length: usize) -> usize {
    prost::encoding::key_len(field) + encoded_len_varint(length as u64) + length
}

fn write_key(field: u32, length: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut key = vec![];
    encode_key(field, WireType::LengthDelimited, &mut key);
    encode_varint(length as u64, &mut key);
    out.write_all(&key)
}

/// Writes the graph to `path`, and external data beside it.
///
/// # Errors
/// [`Error::Io`] when a file cannot be written; [`Error::Argument`] when the path has no file name.
pub(super) fn write(header: &Header<'_>, graph: Graph, external: bool, path: &Path) -> Result<()> {
    let Some(file) = path.file_name() else {
        return Err(Error::argument(OP, format!("{} is no path of a file", path.display())));
    };
    let total: usize = graph.initialisers.iter().map(|(_, tensor)| bytes_of(tensor)).sum();
    let external = external || total > MOST;
    let data_name = format!("{}.data", file.to_string_lossy());
    let mut end = 0usize;
    let places: Vec<Place> = graph
        .initialisers
        .iter()
        .map(|(_, tensor)| {
            let length = bytes_of(tensor);
            (external && length >= LEAST_EXTERNAL).then(|| {
                let offset = end.next_multiple_of(ALIGNMENT);
                end = offset + length;
                offset
            })
        })
        .collect();
    if end > 0 {
        // First the data: a model whose data are missing must not appear.
        write_atomically(&path.with_file_name(&data_name), |out| {
            let mut at = 0;
            for ((_, tensor), place) in graph.initialisers.iter().zip(&places) {
                if let Some(offset) = *place {
                    out.write_all(&vec![0; offset - at])?;
                    elements(tensor, out)?;
                    at = offset + bytes_of(tensor);
                }
            }
            Ok(())
        })?;
    }
    let headers: Vec<TensorProto> =
        graph.initialisers.iter().zip(&places).map(|((name, tensor), place)| tensor_header(name, tensor, *place, &data_name)).collect();
    let length = |at: usize| {
        let raw = if places[at].is_some() { 0 } else { field_length(RAW_DATA_IN_TENSOR, bytes_of(&graph.initialisers[at].1)) };
        headers[at].encoded_len() + raw
    };
    let body = GraphProto {
        node: graph.nodes.iter().map(node).collect(),
        name: header.name.to_string(),
        input: graph.inputs.iter().map(port).collect(),
        output: graph.outputs.iter().map(port).collect(),
        ..Default::default()
    };
    let model = ModelProto {
        ir_version: header.version,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: header.opset }],
        producer_name: env!("CARGO_PKG_NAME").to_string(),
        producer_version: env!("CARGO_PKG_VERSION").to_string(),
        metadata_props: header.metadata.iter().map(|(key, value)| entry(key, value)).collect(),
        ..Default::default()
    };
    let initialisers: usize = (0..headers.len()).map(|at| field_length(INITIALISER_IN_GRAPH, length(at))).sum();
    write_atomically(path, |out| {
        // Fields of a message may stand in any order.
        out.write_all(&model.encode_to_vec())?;
        write_key(GRAPH_IN_MODEL, body.encoded_len() + initialisers, out)?;
        out.write_all(&body.encode_to_vec())?;
        for (at, header) in headers.iter().enumerate() {
            write_key(INITIALISER_IN_GRAPH, length(at), out)?;
            out.write_all(&header.encode_to_vec())?;
            if places[at].is_none() {
                let tensor = &graph.initialisers[at].1;
                write_key(RAW_DATA_IN_TENSOR, bytes_of(tensor), out)?;
                elements(tensor, out)?;
            }
        }
        Ok(())
    })
}
