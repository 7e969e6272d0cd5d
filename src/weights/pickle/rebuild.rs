//! Calls and attributes: how a pickle describes tensors, containers and everything else.
//!
//! A tensor that is made in an unknown way becomes [`Object::Unreadable`] with the reason, not an
//! error: it matters only if the tensor is wanted. The result of an unknown name becomes an
//! [`Instance`], which does nothing.

use super::super::elements::{MOST_DIMENSIONS, NamedDType, Unread, View};
use super::machine::{Machine, PER_OBJECT, PER_VALUE, wrong_type};
use super::{Global, Instance, Object, Storage, TensorInfo, Value};
use crate::weights::alloc_limit::{AllocLimit, Parsed, quoted};

/// Longer names of storages are refused: a short program could have them hashed again and again.
const LONGEST_KEY: usize = 1024;

/// The reason why a tensor that was made without arguments is not read, unless it gets its data
/// afterwards.
const NO_DATA: &str = "has no data";

impl<'a> Machine<'a> {
    /// Calls a function or class.
    pub(super) fn call(&mut self, function: Value<'a>, arguments: Value<'a>, budget: &mut AllocLimit) -> Parsed<()> {
        let function = match function {
            Value::Global(function) => function,
            // An instance that is called, such as a `functools.partial`.
            Value::Object(i) => match self.objects.get(i) {
                Some(Object::Instance(instance)) => Global::Unknown(instance.class),
                Some(Object::Unreadable(reason)) => {
                    let object = self.unreadable(reason.clone(), budget)?;
                    return self.push(object, budget);
                }
                _ => return Err(not_callable()),
            },
            _ => return Err(not_callable()),
        };
        let object = match function {
            Global::Unknown(class) if self.is_about_elements(arguments) => self.unreadable(self.depends_on(class), budget)?,
            Global::Unknown(class) => {
                let state = self.state_of_call(class, arguments, budget)?;
                Object::Instance(Instance { class, state, entries: vec![] })
            }
            Global::Dict => Object::Dict(self.copied_entries(arguments, budget)?),
            Global::Sequence => Object::Sequence(self.copied_values(arguments, budget)?),
            _ => match self.sequence(arguments).and_then(|arguments| self.tensor_of(function, arguments)) {
                Ok(tensor) => Object::Tensor(tensor),
                Err(reason) => self.unreadable(reason, budget)?,
            },
        };
        self.push(object, budget)
    }

    /// Returns what is known of an object that Python 3 makes by a call, without attributes: the
    /// text that bytes are (protocol 2), and the state of a NumPy array (protocol 5).
    fn state_of_call(&mut self, class: u32, arguments: Value<'a>, budget: &mut AllocLimit) -> Parsed<Option<Value<'a>>> {
        let Some(&(module, name)) = self.names.get(class as usize) else { return Ok(None) };
        match (module, name, self.sequence(arguments)) {
            ("_codecs", "encode", Ok(&[text @ Value::Text(_), Value::Text("latin1")])) => Ok(Some(text)),
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer", Ok(&[buffer, dtype, shape, Value::Text(order)])) => {
                let state = vec![Value::None, shape, dtype, Value::Bool(order == "F"), buffer];
                budget.take(PER_OBJECT + state.len() * PER_VALUE)?;
                self.objects.push(Object::Sequence(state));
                Ok(Some(Value::Object(self.objects.len() - 1)))
            }
            _ => Ok(None),
        }
    }

    /// Sets the attributes of the object on top of the stack. Those of containers and tensors, such
    /// as `_metadata`, are not needed.
    pub(super) fn build(&mut self, state: Value<'a>, budget: &mut AllocLimit) -> Parsed<()> {
        let Value::Object(at) = self.top()? else { return Ok(()) };
        match self.objects.get_mut(at) {
            Some(Object::Instance(instance)) => instance.state = Some(state),
            // Before PyTorch 0.4, a tensor was made empty and got its storage here, and a parameter
            // its tensor.
            Some(Object::Unreadable(reason)) if reason == NO_DATA => {
                let tensor = match self.sequence(state) {
                    Ok(&[storage, offset, size, stride, ..]) if !self.is_tensor(storage) => {
                        self.tensor([storage, offset, size, stride], None, false)
                    }
                    Ok(&[data, ..]) => self.tensor_behind(data),
                    // Attributes of an empty tensor.
                    _ => return Ok(()),
                };
                self.objects[at] = match tensor {
                    Ok(tensor) => Object::Tensor(tensor),
                    Err(reason) => self.unreadable(reason, budget)?,
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// Pushes the object of a persistent id: a storage, or in old files a class with its source.
    pub(super) fn persistent(&mut self, id: Value<'a>, budget: &mut AllocLimit) -> Parsed<()> {
        if let Ok(&[Value::Text("module"), class @ Value::Global(_), ..]) = self.sequence(id) {
            self.stack.push(class);
            return Ok(());
        }
        let object = match self.storage(id) {
            Ok(storage) => Object::Storage(storage),
            Err(reason) => self.unreadable(reason, budget)?,
        };
        self.push(object, budget)
    }

    /// Returns whether an argument is a tensor or a storage: the result of an unknown function is
    /// then taken for a tensor. Only the first arguments are checked, as a short program may call
    /// many functions with one long list.
    fn is_about_elements(&self, arguments: Value<'a>) -> bool {
        let arguments = self.sequence(arguments).unwrap_or_default();
        let holds_elements = |&value| matches!(self.object(value), Some(Object::Tensor(_) | Object::Storage(_) | Object::Unreadable(_)));
        arguments.iter().take(8).any(holds_elements)
    }

    fn unreadable(&self, reason: String, budget: &mut AllocLimit) -> Parsed<Object<'a>> {
        budget.take(2 * reason.len())?;
        Ok(Object::Unreadable(reason))
    }

    /// Returns the entries of a mapping that is made from another, or from a list of pairs.
    fn copied_entries(&self, arguments: Value<'a>, budget: &mut AllocLimit) -> Parsed<Vec<(Value<'a>, Value<'a>)>> {
        // A defaultdict's first argument is a function.
        let Some(&source @ Value::Object(at)) = self.sequence(arguments)?.last() else { return Ok(vec![]) };
        if let Some(Object::Dict(entries)) = self.objects.get(at) {
            budget.take(entries.len().saturating_mul(2 * PER_VALUE))?;
            return Ok(entries.clone());
        }
        let Ok(items) = self.sequence(source) else { return Ok(vec![]) };
        budget.take(items.len().saturating_mul(2 * PER_VALUE))?;
        // Nothing is known about the result of an unknown function.
        let entry = |&item| match self.sequence(item) {
            Ok(&[key, value]) => Some((key, value)),
            _ => None,
        };
        Ok(items.iter().filter_map(entry).collect())
    }

    fn copied_values(&self, arguments: Value<'a>, budget: &mut AllocLimit) -> Parsed<Vec<Value<'a>>> {
        let values = match *self.sequence(arguments)? {
            [source] => self.sequence(source).unwrap_or_default(),
            _ => &[],
        };
        budget.take(values.len().saturating_mul(PER_VALUE))?;
        Ok(values.to_vec())
    }

    /// Returns the tensor that a function makes from its arguments, or why it is not read.
    fn tensor_of(&self, function: Global, arguments: &[Value<'a>]) -> Parsed<TensorInfo> {
        match (function, arguments) {
            (Global::Tensor, &[storage, offset, size, stride, ref rest @ ..]) => {
                // `requires_grad` and backward hooks, then a dtype in v3, then metadata.
                let (dtype, metadata) = match *rest {
                    [_, _, Value::Global(Global::Dtype(kind)), ref metadata @ ..] => (Some(kind), metadata),
                    [_, _, ref metadata @ ..] => (None, metadata),
                    _ => (None, &[][..]),
                };
                let negated = self.negative_bit(metadata)?;
                self.tensor([storage, offset, size, stride], dtype, negated)
            }
            (Global::Wrapper | Global::TensorClass, &[data, ..]) => self.tensor_behind(data),
            (Global::TensorClass, []) => Err(NO_DATA.to_string()),
            // One level: a list that contains itself would go on for ever.
            (Global::FromType, &[Value::Global(inner @ (Global::Tensor | Global::Wrapper | Global::NotRead(_))), _, arguments, ..]) => {
                self.tensor_of(inner, self.sequence(arguments)?)
            }
            (Global::FromType, &[Value::Global(Global::Unknown(class)), ..]) => Err(self.depends_on(class)),
            (Global::NotRead(reason), _) => Err(reason.to_string()),
            _ => Err(format!("is made by {function:?} with {} arguments, which is not understood", arguments.len())),
        }
    }

    /// Returns the tensor that an argument is, or why it is none.
    fn tensor_behind(&self, value: Value<'a>) -> Parsed<TensorInfo> {
        match self.object(value) {
            Some(Object::Tensor(tensor)) => Ok(tensor.clone()),
            _ => Err(self.mismatch(value)),
        }
    }

    /// Returns a bit of a tensor beside its storage: `{"neg": True}` means that the elements' signs
    /// are inverted.
    fn negative_bit(&self, metadata: &[Value<'a>]) -> Parsed<bool> {
        let entries = match *metadata {
            [] | [Value::None] => return Ok(false),
            [metadata] => match self.object(metadata) {
                Some(Object::Dict(entries)) => entries,
                _ => return Err("has metadata that are not understood".to_string()),
            },
            _ => return Err(format!("has {} arguments after the known ones", metadata.len())),
        };
        let mut negated = false;
        // Of `neg` and `conj`; a longer dict is not understood and would be read again for each
        // tensor.
        if entries.len() > 2 {
            return Err(format!("has {} metadata, of which `neg` and `conj` are understood", entries.len()));
        }
        for &entry in entries {
            match entry {
                (Value::Text("neg"), Value::Bool(bit)) => negated = bit,
                (Value::Text("conj"), Value::Bool(false)) => {}
                (Value::Text("conj"), _) => return Err("has the conjugate bit; save it after `.resolve_conj()`".to_string()),
                (Value::Text(key), _) => return Err(format!("has the metadata {}, which are not understood", quoted(key))),
                _ => return Err("has metadata that are not understood".to_string()),
            }
        }
        Ok(negated)
    }

    fn is_tensor(&self, value: Value<'a>) -> bool {
        matches!(self.object(value), Some(Object::Tensor(_)))
    }

    fn tensor(&self, [storage, offset, size, stride]: [Value<'a>; 4], dtype: Option<NamedDType>, negated: bool) -> Parsed<TensorInfo> {
        let (index, storage) = match (storage, self.object(storage)) {
            (Value::Object(index), Some(Object::Storage(storage))) => (index, storage),
            _ => return Err(self.mismatch(storage)),
        };
        let kind = dtype.or(storage.kind).ok_or("lies in an untyped storage and has no dtype")?.map_err(Unread::reason)?;
        if negated && !kind.is_float() {
            return Err(format!("has the negative bit over {kind:?}; save it after `.resolve_neg()`"));
        }
        let dims = |value| -> Parsed<Vec<usize>> {
            let values = self.sequence(value)?;
            // A short program must not copy a long list again and again.
            if values.len() > MOST_DIMENSIONS {
                return Err(format!("has {} dimensions", values.len()));
            }
            values.iter().map(|&value| self.natural(value)).collect()
        };
        let (shape, strides) = (dims(size)?, dims(stride)?);
        Ok(TensorInfo { storage: index, kind, view: View { offset: self.natural(offset)?, shape, strides, negated } })
    }

    /// Reads `("storage", type, key, location, count)`; the legacy format adds a window `(key,
    /// offset, count)` or `None`.
    fn storage(&self, id: Value<'a>) -> Parsed<Storage<'a>> {
        let (kind, key, count, window) = match *self.sequence(id)? {
            [Value::Text("storage"), Value::Global(Global::Storage(kind)), Value::Text(key), _, count] => (kind, key, count, Value::None),
            [Value::Text("storage"), Value::Global(Global::Storage(kind)), Value::Text(key), _, count, window] => {
                (kind, key, count, window)
            }
            [Value::Text("storage"), Value::Global(Global::Unknown(class)), ..] => return Err(self.depends_on(class)),
            _ => return Err("refers to something outside the pickle that is no tensor storage".to_string()),
        };
        if key.len() > LONGEST_KEY {
            return Err(format!("has a storage whose name has {} bytes", key.len()));
        }
        let window = match window {
            Value::None => None,
            window => match *self.sequence(window)? {
                [_, offset, count] => Some((self.natural(offset)?, self.natural(count)?)),
                _ => return Err(wrong_type()),
            },
        };
        Ok(Storage { key, kind, count: self.natural(count)?, window })
    }

    /// Reads a size, stride, offset or count.
    fn natural(&self, value: Value<'a>) -> Parsed<usize> {
        match value {
            Value::Int(value) => usize::try_from(value).map_err(|_| format!("has a size, stride or offset of {value}")),
            _ => Err(self.mismatch(value)),
        }
    }
}

fn not_callable() -> String {
    "the pickle calls something that is no function".to_string()
}
