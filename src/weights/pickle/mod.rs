//! A restricted unpickler: it builds tensors, containers, numbers and strings, and nothing else.
//!
//! A pickle is a program for a stack machine that may name any Python function and call it; this is
//! how a pickle runs code. This machine knows a fixed list of names ([`Global`]), which only
//! describe data. The result of any other name, such as `os.system`, is an inert [`Instance`]:
//! nothing is run, and a tensor that depends on one is not read. Objects are in one flat list and
//! refer to each other by index: neither building nor dropping them recurses, and cycles do no
//! harm. Every instruction takes from the [`AllocLimit`], so that a short program cannot build
//! much.
//!
//! Binary protocols (2 to 5) are read; `torch.save` has never written another.

mod globals;
mod machine;
mod plain;
mod rebuild;

pub(super) use globals::Global;
pub(super) use machine::read;
pub(crate) use plain::{Plain, read_dict};

use super::alloc_limit::{Parsed, quoted};
use super::elements::{NamedDType, StoredDType, View};

/// A Python value; values larger than a number or a piece of the file are indices of
/// [`Pickle::objects`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A number that nothing here needs: floating point, or beyond 64 bits.
    Number,
    Text(&'a str),
    Bytes(&'a [u8]),
    Global(Global),
    Object(usize),
}

/// A Python object.
#[derive(Debug)]
pub(super) enum Object<'a> {
    /// A tuple, a list or a set.
    Sequence(Vec<Value<'a>>),
    /// Pairs in order of insertion; of equal keys the last counts.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    Storage(Storage<'a>),
    Tensor(TensorInfo),
    /// A tensor or storage that is not read, with the reason.
    Unreadable(String),
    Instance(Instance<'a>),
}

/// A run of elements outside the pickle.
#[derive(Clone, Debug)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    /// `None` for an untyped storage, which counts bytes.
    pub(super) kind: Option<NamedDType>,
    pub(super) count: usize,
    /// The part that is meant, as offset and count.
    pub(super) window: Option<(usize, usize)>,
}

/// A view of a storage.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    /// The index of its storage in [`Pickle::objects`].
    pub(super) storage: usize,
    pub(super) kind: StoredDType,
    pub(super) view: View,
}

/// The result of an unknown class or function, of which only the attributes and items from the
/// pickle are known.
#[derive(Debug)]
pub(super) struct Instance<'a> {
    /// The index of its class in the pickle's names.
    class: u32,
    /// Its attributes, usually a dict.
    state: Option<Value<'a>>,
    /// Its items, when it is a mapping.
    entries: Vec<(Value<'a>, Value<'a>)>,
}

/// The content of a pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) root: Value<'a>,
    objects: Vec<Object<'a>>,
    /// The unknown names, module and name.
    names: Vec<(&'a str, &'a str)>,
}

impl<'a> Pickle<'a> {
    /// Returns the object that a value refers to.
    pub(super) fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(i) => self.objects.get(i),
            _ => None,
        }
    }

    /// Returns the entries of a dict, or of an object that is used as one.
    pub(super) fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.object(value) {
            Some(Object::Dict(entries)) => Some(entries),
            Some(Object::Instance(instance)) if !instance.entries.is_empty() => Some(&instance.entries),
            _ => None,
        }
    }

    /// Returns the attributes of an object of an unknown class.
    pub(super) fn attributes(&self, instance: &Instance<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        let state = instance.state?;
        // Attributes and slots.
        match self.sequence(state) {
            Some(&[attributes, _]) => self.dict(attributes),
            _ => self.dict(state),
        }
    }

    /// Returns the first unknown names, for a message.
    pub(super) fn unknown_names(&self) -> Vec<String> {
        self.names.iter().take(3).map(|(module, name)| quoted(&format!("{module}.{name}"))).collect()
    }

    /// Returns the elements of a list or tuple.
    pub(super) fn sequence(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.object(value) {
            Some(Object::Sequence(values)) => Some(values),
            _ => None,
        }
    }

    /// Returns all storages, with repetitions.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// Returns the storage that a tensor is a view of.
    pub(super) fn storage(&self, tensor: &TensorInfo) -> Parsed<&Storage<'a>> {
        match self.objects.get(tensor.storage) {
            Some(Object::Storage(storage)) => Ok(storage),
            _ => Err("a tensor of the pickle has no storage".to_string()),
        }
    }
}
