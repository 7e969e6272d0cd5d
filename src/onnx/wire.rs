//! A reader of ONNX messages that refuses files whose decoded form is out of proportion to them.
//!
//! Protocol buffers let an empty message take two bytes, which becomes a struct of hundreds of
//! bytes. So the fields of a file are counted before they are decoded: a table says which fields
//! hold messages, and each is charged the size of its struct.

use std::mem::size_of;

use prost::Message;
use prost::bytes::Bytes;

use super::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, StringStringEntryProto, TensorProto,
    ValueInfoProto,
};
use crate::weights::alloc_limit::{AllocLimit, Parsed};

/// How deep graphs, attributes and types may be nested.
const DEEPEST: usize = 48;

/// The bytes charged for each byte of a message that the table does not take apart. The smallest
/// element of a list takes two bytes and becomes at most 64: names and sizes of dimensions.
const PER_BYTE_OF_OTHERS: usize = 32;

/// The bytes charged for a field that is not a message: a string, a number, packed numbers.
const FIELD: usize = 32;

#[derive(Clone, Copy)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    ValueInfo,
    Function,
    /// A name and a text of metadata, which PyTorch's exporter writes many of.
    Entry,
    Other,
    Plain,
}

impl Kind {
    /// Returns what a field of a message holds.
    fn field(self, field: u64) -> Kind {
        match (self, field) {
            (Kind::Model, 7) => Kind::Graph,
            (Kind::Model, 25) => Kind::Function,
            (Kind::Model, 14) => Kind::Entry,
            (Kind::Model, 8) => Kind::Other,
            (Kind::Graph, 1) => Kind::Node,
            (Kind::Graph, 5) => Kind::Tensor,
            (Kind::Graph, 15) => Kind::Sparse,
            (Kind::Graph, 11..=13) => Kind::ValueInfo,
            (Kind::Graph, 16) => Kind::Entry,
            (Kind::Graph, 14) => Kind::Other,
            (Kind::Node, 5) => Kind::Attribute,
            (Kind::Node, 9) => Kind::Entry,
            (Kind::Attribute, 5 | 10) => Kind::Tensor,
            (Kind::Attribute, 6 | 11) => Kind::Graph,
            (Kind::Attribute, 22 | 23) => Kind::Sparse,
            (Kind::Attribute, 14 | 15) => Kind::Other,
            (Kind::Tensor, 13 | 16) => Kind::Entry,
            (Kind::Tensor, 3) => Kind::Other,
            (Kind::Sparse, 1 | 2) => Kind::Tensor,
            (Kind::ValueInfo, 4) => Kind::Entry,
            (Kind::ValueInfo, 2) => Kind::Other,
            (Kind::Function, 7) => Kind::Node,
            (Kind::Function, 11) => Kind::Attribute,
            (Kind::Function, 12) => Kind::ValueInfo,
            (Kind::Function, 14) => Kind::Entry,
            (Kind::Function, 9) => Kind::Other,
            _ => Kind::Plain,
        }
    }

    /// Returns the bytes that a field takes in memory, besides the messages inside it.
    fn cost(self, length: usize) -> usize {
        let size = match self {
            Kind::Model => size_of::<ModelProto>(),
            Kind::Graph => size_of::<GraphProto>(),
            Kind::Node => size_of::<NodeProto>(),
            Kind::Attribute => size_of::<AttributeProto>(),
            Kind::Tensor => size_of::<TensorProto>(),
            Kind::Sparse => size_of::<SparseTensorProto>(),
            Kind::ValueInfo => size_of::<ValueInfoProto>(),
            Kind::Function => size_of::<FunctionProto>(),
            Kind::Entry => size_of::<StringStringEntryProto>().saturating_add(length),
            Kind::Other => length.saturating_mul(PER_BYTE_OF_OTHERS),
            Kind::Plain => FIELD,
        };
        // Lists grow by doubling.
        size.saturating_mul(2)
    }
}

/// Decodes a model.
pub(super) fn model(bytes: Bytes, limit: &mut AllocLimit) -> Parsed<ModelProto> {
    decode(bytes, Kind::Model, limit)
}

/// Decodes a tensor that is a message by itself, as ONNX's test data are.
pub(super) fn tensor(bytes: Bytes, limit: &mut AllocLimit) -> Parsed<TensorProto> {
    decode(bytes, Kind::Tensor, limit)
}

fn decode<M: Message + Default>(bytes: Bytes, kind: Kind, limit: &mut AllocLimit) -> Parsed<M> {
    count(&bytes, kind, 0, limit)?;
    M::decode(bytes).map_err(|error| format!("not an ONNX message: {error}"))
}

/// Takes what a message decodes to from the limit.
fn count(mut bytes: &[u8], kind: Kind, depth: usize, limit: &mut AllocLimit) -> Parsed<()> {
    if depth > DEEPEST {
        return Err(format!("its messages are nested more than {DEEPEST} deep"));
    }
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        match tag & 7 {
            0 => {
                varint(&mut bytes)?;
                limit.take(Kind::Plain.cost(0))?;
            }
            1 => {
                take(&mut bytes, 8)?;
                limit.take(Kind::Plain.cost(0))?;
            }
            5 => {
                take(&mut bytes, 4)?;
                limit.take(Kind::Plain.cost(0))?;
            }
            2 => {
                let length = varint(&mut bytes)?;
                let content = take(&mut bytes, usize::try_from(length).unwrap_or(usize::MAX))?;
                let child = kind.field(tag >> 3);
                limit.take(child.cost(content.len()))?;
                if !matches!(child, Kind::Plain | Kind::Other) {
                    count(content, child, depth + 1, limit)?;
                }
            }
            _ => return Err("not an ONNX message: a field of an unknown wire type".to_string()),
        }
    }
    Ok(())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Parsed<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or("not an ONNX message, or truncated")?;
    *bytes = rest;
    Ok(taken)
}

fn varint(bytes: &mut &[u8]) -> Parsed<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let &[byte] = take(bytes, 1)? else { break };
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("not an ONNX message: a number of more than 10 bytes".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: Vec<u8>) -> Parsed<ModelProto> {
        let mut limit = AllocLimit::new(bytes.len());
        model(bytes.into(), &mut limit)
    }

    /// A field of this number that holds `content`.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![number << 3 | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut bytes);
        bytes.extend(content);
        bytes
    }

    #[test]
    fn a_model_reads_as_it_was_written() {
        let written = ModelProto {
            ir_version: 8,
            graph: Some(GraphProto { node: vec![NodeProto { op_type: "Relu".into(), ..Default::default() }], ..Default::default() }),
            ..Default::default()
        };
        assert_eq!(read(written.encode_to_vec()).unwrap(), written);
    }

    #[test]
    fn a_million_empty_nodes_or_entries_are_refused_before_they_are_decoded() {
        let nodes = [1 << 3 | 2, 0].repeat(1 << 20);
        assert!(read(field(7, &nodes)).unwrap_err().contains("more memory than"));
        let entries = [9 << 3 | 2, 0].repeat(1 << 20);
        assert!(read(field(7, &field(1, &entries))).unwrap_err().contains("more memory than"));
    }

    #[test]
    fn deep_nesting_and_damage_are_errors() {
        let mut graph = vec![];
        for _ in 0..60 {
            // A graph in an attribute of a node of a graph.
            graph = field(1, &field(5, &field(6, &graph)));
        }
        assert!(read(field(7, &graph)).unwrap_err().contains("nested"));
        for damaged in [&[7 << 3 | 2, 5, 1][..], &[0x80; 12], &[7 << 3 | 2], &[3, 3]] {
            assert!(read(damaged.to_vec()).is_err());
        }
    }
}
