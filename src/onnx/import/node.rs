//! Nodes of a checked graph, and how operators see their inputs and attributes.

use super::operators::Operator;
use crate::error::{Error, Result, short};
use crate::onnx::element::{ElementType, Value};
use crate::onnx::proto::AttributeProto;
use crate::onnx::proto::attribute_proto::AttributeType;
use crate::tensor::{DType, Tensor};
use crate::weights::elements::{MOST_DIMENSIONS, check_rank};

/// An operator with its attributes, and the numbers of the values that it reads and makes.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) op: String,
    /// The version of the operators' set.
    pub(super) version: i64,
    pub(super) attributes: Vec<AttributeProto>,
    pub(super) inputs: Vec<Option<usize>>,
    pub(super) outputs: Vec<Option<usize>>,
    pub(super) operator: Operator,
}

impl Node {
    /// Makes an error about this node's attributes.
    pub(super) fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::argument("onnx", format!("{} `{}`: {message}", short(&self.op), short(&self.name)))
    }

    fn attribute(&self, name: &str, kind: AttributeType) -> Result<Option<&AttributeProto>> {
        match self.attributes.iter().find(|attribute| attribute.name == name) {
            // Writers before IR version 2 leave the type out.
            Some(found) if found.r#type == kind as i32 || found.r#type == 0 => Ok(Some(found)),
            Some(_) => Err(self.error(format!("attribute {name} is not of type {}", kind.as_str_name()))),
            None => Ok(None),
        }
    }

    pub(super) fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.attribute(name, AttributeType::Int)?.map_or(default, |found| found.i))
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    pub(super) fn float(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.attribute(name, AttributeType::Float)?.map_or(default, |found| shortest(found.f)))
    }

    pub(super) fn ints(&self, name: &str) -> Result<Option<&[i64]>> {
        Ok(self.attribute(name, AttributeType::Ints)?.map(|found| found.ints.as_slice()))
    }

    pub(super) fn floats(&self, name: &str) -> Result<Option<&[f32]>> {
        Ok(self.attribute(name, AttributeType::Floats)?.map(|found| found.floats.as_slice()))
    }

    pub(super) fn text(&self, name: &str, default: &'static str) -> Result<&str> {
        match self.attribute(name, AttributeType::String)? {
            Some(found) => std::str::from_utf8(&found.s).map_err(|_| self.error(format!("attribute {name} is not UTF-8"))),
            None => Ok(default),
        }
    }
}

/// Returns the decimal number that a `float` attribute was written from: `1e-5`, not
/// `9.99999974737875e-6`.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// A node with the values of its inputs.
pub(super) struct Call<'a> {
    pub(super) node: &'a Node,
    pub(super) inputs: &'a [Option<Value>],
    pub(super) training: bool,
}

impl Call<'_> {
    /// Returns an input that the operator requires.
    pub(super) fn value(&self, at: usize) -> Result<&Value> {
        self.optional(at).ok_or_else(|| self.node.error(format!("input {at} is missing")))
    }

    pub(super) fn optional(&self, at: usize) -> Option<&Value> {
        self.inputs.get(at).and_then(Option::as_ref)
    }

    /// Returns the tensor of an input that the operator requires.
    pub(super) fn tensor(&self, at: usize) -> Result<&Tensor> {
        Ok(&self.value(at)?.tensor)
    }

    pub(super) fn optional_tensor(&self, at: usize) -> Option<&Tensor> {
        self.optional(at).map(|value| &value.tensor)
    }

    /// Returns a list that is an attribute in old versions and an input in new ones.
    pub(super) fn ints(&self, at: usize, attribute: &str) -> Result<Option<Vec<i64>>> {
        match self.optional(at) {
            Some(value) => value.ints().map(Some),
            None => Ok(self.node.ints(attribute)?.map(<[i64]>::to_vec)),
        }
    }

    /// Returns the result of the first input's element type.
    pub(super) fn like_first(&self, tensor: Tensor) -> Result<Vec<Value>> {
        self.one(tensor, self.value(0)?.element)
    }

    /// Returns a result of the first input's element type that was computed in floating point:
    /// integers without their fraction.
    pub(super) fn number_like_first(&self, y: Tensor) -> Result<Vec<Value>> {
        self.like_first(if self.value(0)?.element.is_float() { y } else { y.to_dtype(DType::I64)? })
    }

    pub(super) fn one(&self, tensor: Tensor, element: ElementType) -> Result<Vec<Value>> {
        Ok(vec![Value::of(tensor, element)?])
    }

    /// Returns a dimension as an index.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let from_start = if axis < 0 { axis.checked_add(rank as i64).unwrap_or(-1) } else { axis };
        usize::try_from(from_start)
            .ok()
            .filter(|&axis| axis < rank)
            .ok_or_else(|| self.node.error(format!("axis {axis} is outside a tensor with {rank} dimensions")))
    }

    /// Returns dimensions as indices; each may be named once.
    pub(super) fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>> {
        check_rank(rank).map_err(|message| self.node.error(message))?;
        let (mut found, mut named) = (vec![], [false; MOST_DIMENSIONS]);
        for &axis in axes {
            let axis = self.axis(axis, rank)?;
            if std::mem::replace(&mut named[axis], true) {
                return Err(self.node.error(format!("axis {axis} is named twice")));
            }
            found.push(axis);
        }
        Ok(found)
    }

    /// Returns whether a later output is read.
    pub(super) fn wants(&self, output: usize) -> bool {
        self.node.outputs.get(output).is_some_and(Option::is_some)
    }
}
