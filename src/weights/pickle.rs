//! A restricted unpickler: it builds tensors, containers, numbers and strings, and nothing else.
//!
//! A pickle is a program for a stack machine that may name any Python function and call it; that is how a pickle runs code. This machine
//! knows a fixed list of names ([`Global`]), none of which does anything but describe data, and stops at the first other one. Objects live
//! in one flat list and refer to each other by index: neither building nor dropping them recurses, and cycles do no harm. Every instruction
//! takes from the [`Budget`], so that a short program cannot build much.
//!
//! Binary protocols (2 to 5) are read; `torch.save` has never written another.

use std::collections::HashMap;

use super::budget::{Budget, Parsed, quoted};
use super::elements::{Kind, MOST_DIMENSIONS, View};

/// What one instruction may allocate: a place on the stack, an object, an entry of the memo, with what growing vectors hold in reserve.
const PER_INSTRUCTION: usize = 384;

/// A Python value; what is larger than a number or a piece of the file is an index of [`Pickle::objects`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A number that nothing here needs: floating point, or beyond 64 bits.
    Number,
    Text(&'a str),
    Bytes,
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
}

/// A run of elements outside the pickle.
#[derive(Clone, Debug)]
pub(super) struct Storage<'a> {
    pub(super) key: &'a str,
    /// `None` for an untyped storage, which counts bytes.
    pub(super) kind: Option<Kind>,
    pub(super) count: usize,
    /// The part that is meant, as offset and count.
    pub(super) window: Option<(usize, usize)>,
}

/// A view of a storage.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    /// The index of its storage in [`Pickle::objects`].
    pub(super) storage: usize,
    pub(super) kind: Kind,
    pub(super) view: View,
}

/// The names that a pickle may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    Size,
    Storage(Option<Kind>),
    Dtype(Kind),
    /// `_rebuild_tensor` and its successors.
    Tensor,
    Parameter,
}

impl Global {
    fn named(module: &str, name: &str) -> Parsed<Global> {
        let refused = || {
            Err(format!(
                "the pickle asks for {}, which is refused: only tensors, containers, numbers and strings are read; save `model.state_dict()` \
             alone, with torch.save or safetensors",
                quoted(&format!("{module}.{name}"))
            ))
        };
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch", "Size") => Global::Size,
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => Global::Tensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Global::Parameter,
            ("torch.storage", "UntypedStorage") | ("torch", "UntypedStorage") => Global::Storage(None),
            ("torch", name) => match (storage_kind(name), dtype_kind(name)) {
                (Some(kind), _) => Global::Storage(Some(kind)),
                (None, Some(kind)) => Global::Dtype(kind),
                (None, None) => return refused(),
            },
            _ => return refused(),
        })
    }
}

fn storage_kind(name: &str) -> Option<Kind> {
    Some(match name.strip_suffix("Storage")? {
        "Half" => Kind::F16,
        "BFloat16" => Kind::Bf16,
        "Float" => Kind::F32,
        "Double" => Kind::F64,
        "Char" => Kind::I8,
        "Short" => Kind::I16,
        "Int" => Kind::I32,
        "Long" => Kind::I64,
        "Byte" => Kind::U8,
        "Bool" => Kind::Bool,
        _ => return None,
    })
}

fn dtype_kind(name: &str) -> Option<Kind> {
    Some(match name {
        "float16" => Kind::F16,
        "bfloat16" => Kind::Bf16,
        "float32" => Kind::F32,
        "float64" => Kind::F64,
        "int8" => Kind::I8,
        "int16" => Kind::I16,
        "int32" => Kind::I32,
        "int64" => Kind::I64,
        "uint8" => Kind::U8,
        "uint16" => Kind::U16,
        "uint32" => Kind::U32,
        "bool" => Kind::Bool,
        _ => return None,
    })
}

/// What a pickle describes.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) root: Value<'a>,
    objects: Vec<Object<'a>>,
}

impl<'a> Pickle<'a> {
    /// The object that a value refers to.
    pub(super) fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(i) => self.objects.get(i),
            _ => None,
        }
    }

    /// The entries of a dict.
    pub(super) fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.object(value) {
            Some(Object::Dict(entries)) => Some(entries),
            _ => None,
        }
    }

    /// The elements of a list or tuple.
    pub(super) fn sequence(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.object(value) {
            Some(Object::Sequence(values)) => Some(values),
            _ => None,
        }
    }

    /// All storages, with repetitions.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// The storage that a tensor is a view of.
    pub(super) fn storage(&self, tensor: &TensorInfo) -> Parsed<&Storage<'a>> {
        match self.objects.get(tensor.storage) {
            Some(Object::Storage(storage)) => Ok(storage),
            _ => Err("a tensor of the pickle has no storage".to_string()),
        }
    }
}

/// Reads one pickle from the front of `bytes`, which moves behind it.
pub(super) fn read<'a>(bytes: &mut &'a [u8], budget: &mut Budget) -> Parsed<Pickle<'a>> {
    let mut machine = Machine { rest: bytes, stack: vec![], marks: vec![], memo: HashMap::new(), objects: vec![] };
    loop {
        budget.take(PER_INSTRUCTION)?;
        if let Some(root) = machine.step(budget)? {
            *bytes = machine.rest;
            return Ok(Pickle { root, objects: machine.objects });
        }
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    objects: Vec<Object<'a>>,
}

impl<'a> Machine<'a> {
    /// One instruction; the result, when it was the last.
    fn step(&mut self, budget: &mut Budget) -> Parsed<Option<Value<'a>>> {
        let [instruction] = self.fixed()?;
        match instruction {
            0x80 => self.protocol()?,
            0x95 => drop(self.fixed::<8>()?),
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => self.stack.push(self.top()?),
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'J' => self.number(i32::from_le_bytes)?,
            b'K' => self.number(u8::from_le_bytes)?,
            b'M' => self.number(u16::from_le_bytes)?,
            b'G' => {
                self.fixed::<8>()?;
                self.stack.push(Value::Number);
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            // Python 2 had one type for both.
            b'T' => self.text_or_bytes(4)?,
            b'U' => self.text_or_bytes(1)?,
            b'B' => self.bytes(4)?,
            b'C' => self.bytes(1)?,
            0x8e | 0x96 => self.bytes(8)?,
            b')' | b']' | 0x8f => self.push(Object::Sequence(vec![])),
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' | b'l' | 0x91 => {
                let values = self.pop_mark()?;
                self.push(Object::Sequence(values));
            }
            b'}' => self.push(Object::Dict(vec![])),
            b'd' => {
                let entries = pairs(&self.pop_mark()?)?;
                self.push(Object::Dict(entries));
            }
            b'a' => {
                let value = self.pop()?;
                self.top_sequence()?.push(value);
            }
            b'e' | 0x90 => {
                let values = self.pop_mark()?;
                self.top_sequence()?.extend(values);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.top_dict()?.push((key, value));
            }
            b'u' => {
                let entries = pairs(&self.pop_mark()?)?;
                self.top_dict()?.extend(entries);
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(Value::Global(Global::named(module, name)?));
            }
            0x93 => {
                let (Value::Text(name), Value::Text(module)) = (self.pop()?, self.pop()?) else {
                    return Err("the pickle asks for something that has no name".to_string());
                };
                self.stack.push(Value::Global(Global::named(module, name)?));
            }
            // The class of an old-style instance; refused, or useless.
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                Global::named(module, name)?;
                return Err(unsupported(instruction));
            }
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                let object = self.call(function, arguments, budget)?;
                self.push(object);
            }
            // Attributes of an OrderedDict or a parameter, such as `_metadata`: not needed.
            b'b' => {
                self.pop()?;
                match self.top_object()? {
                    Object::Dict(_) | Object::Tensor(_) => {}
                    _ => return Err("the pickle sets attributes of something that has none".to_string()),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Object::Storage(storage));
            }
            b'q' => {
                let [key] = self.fixed()?;
                self.memo.insert(u32::from(key), self.top()?);
            }
            b'r' => {
                let key = u32::from_le_bytes(self.fixed()?);
                self.memo.insert(key, self.top()?);
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).map_err(|_| "the pickle's memo is too long")?;
                self.memo.insert(key, self.top()?);
            }
            b'h' => {
                let [key] = self.fixed()?;
                self.recall(u32::from(key))?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.fixed()?);
                self.recall(key)?;
            }
            _ => return Err(unsupported(instruction)),
        }
        Ok(None)
    }

    fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or("the pickle is truncated")?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| "the pickle is truncated".to_string())
    }

    /// As many bytes as a length of `width` bytes says.
    fn counted(&mut self, width: usize) -> Parsed<&'a [u8]> {
        let count = self.take(width)?.iter().rev().fold(0u64, |count, &byte| count << 8 | u64::from(byte));
        self.take(usize::try_from(count).map_err(|_| "the pickle is truncated")?)
    }

    fn line(&mut self) -> Parsed<&'a str> {
        let end = self.rest.iter().position(|&byte| byte == b'\n').ok_or("the pickle is truncated")?;
        let line = self.take(end + 1)?;
        std::str::from_utf8(&line[..end]).map_err(|_| "a name in the pickle is not UTF-8".to_string())
    }

    fn protocol(&mut self) -> Parsed<()> {
        match self.fixed()? {
            [2..=5] => Ok(()),
            [other] => Err(format!("the pickle has protocol {other}; 2 to 5 are read")),
        }
    }

    fn number<const N: usize, T: Into<i64>>(&mut self, decode: impl Fn([u8; N]) -> T) -> Parsed<()> {
        let value = decode(self.fixed()?).into();
        self.stack.push(Value::Int(value));
        Ok(())
    }

    /// Little-endian, two's complement, any length.
    fn long(&mut self, width: usize) -> Parsed<()> {
        let bytes = self.counted(width)?;
        let sign = if bytes.last().is_some_and(|&byte| byte & 0x80 != 0) { 0xff } else { 0 };
        self.stack.push(if bytes.len() > 8 {
            Value::Number
        } else {
            let mut wide = [sign; 8];
            wide[..bytes.len()].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        });
        Ok(())
    }

    fn text(&mut self, width: usize) -> Parsed<()> {
        let text = std::str::from_utf8(self.counted(width)?).map_err(|_| "a string in the pickle is not UTF-8")?;
        self.stack.push(Value::Text(text));
        Ok(())
    }

    fn text_or_bytes(&mut self, width: usize) -> Parsed<()> {
        let value = std::str::from_utf8(self.counted(width)?).map_or(Value::Bytes, Value::Text);
        self.stack.push(value);
        Ok(())
    }

    fn bytes(&mut self, width: usize) -> Parsed<()> {
        self.counted(width)?;
        self.stack.push(Value::Bytes);
        Ok(())
    }

    fn push(&mut self, object: Object<'a>) {
        self.stack.push(Value::Object(self.objects.len()));
        self.objects.push(object);
    }

    fn tuple(&mut self, count: usize) -> Parsed<()> {
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= self.floor()).ok_or_else(underflow)?;
        let values = self.stack.split_off(start);
        self.push(Object::Sequence(values));
        Ok(())
    }

    /// Below this height the stack belongs to an enclosing mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Parsed<Value<'a>> {
        if self.stack.len() <= self.floor() {
            return Err(underflow());
        }
        self.stack.pop().ok_or_else(underflow)
    }

    fn pop_mark(&mut self) -> Parsed<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or_else(underflow)?;
        if mark > self.stack.len() {
            return Err(underflow());
        }
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Parsed<Value<'a>> {
        self.stack.last().copied().ok_or_else(underflow)
    }

    fn top_object(&mut self) -> Parsed<&mut Object<'a>> {
        match self.top()? {
            Value::Object(i) => self.objects.get_mut(i).ok_or_else(underflow),
            _ => Err(wrong_type()),
        }
    }

    fn top_sequence(&mut self) -> Parsed<&mut Vec<Value<'a>>> {
        match self.top_object()? {
            Object::Sequence(values) => Ok(values),
            _ => Err(wrong_type()),
        }
    }

    fn top_dict(&mut self) -> Parsed<&mut Vec<(Value<'a>, Value<'a>)>> {
        match self.top_object()? {
            Object::Dict(entries) => Ok(entries),
            _ => Err(wrong_type()),
        }
    }

    fn recall(&mut self, key: u32) -> Parsed<()> {
        let value = *self.memo.get(&key).ok_or("the pickle recalls what it has not stored")?;
        self.stack.push(value);
        Ok(())
    }

    fn sequence(&self, value: Value<'a>) -> Parsed<&[Value<'a>]> {
        match value {
            Value::Object(i) => match self.objects.get(i) {
                Some(Object::Sequence(values)) => Ok(values),
                _ => Err(wrong_type()),
            },
            _ => Err(wrong_type()),
        }
    }

    fn call(&self, function: Value<'a>, arguments: Value<'a>, budget: &mut Budget) -> Parsed<Object<'a>> {
        let arguments = self.sequence(arguments)?;
        let Value::Global(function) = function else { return Err("the pickle calls something that is no function".to_string()) };
        match (function, arguments) {
            (Global::OrderedDict, []) => Ok(Object::Dict(vec![])),
            (Global::OrderedDict, &[items]) => {
                let items = self.sequence(items)?;
                budget.take(items.len().saturating_mul(PER_INSTRUCTION))?;
                let entry = |&item| match self.sequence(item)? {
                    &[key, value] => Ok((key, value)),
                    _ => Err(wrong_type()),
                };
                Ok(Object::Dict(items.iter().map(entry).collect::<Parsed<_>>()?))
            }
            (Global::Size, &[sizes]) => {
                let sizes = self.sequence(sizes)?;
                budget.take(sizes.len().saturating_mul(PER_INSTRUCTION))?;
                Ok(Object::Sequence(sizes.to_vec()))
            }
            (Global::Tensor, &[storage, offset, size, stride, ref rest @ ..]) => {
                // requires_grad and backward hooks, then a dtype in v3, then metadata.
                let dtype = match rest {
                    [_, _, Value::Global(Global::Dtype(kind)), ..] => Some(*kind),
                    _ => None,
                };
                self.tensor([storage, offset, size, stride], dtype).map(Object::Tensor)
            }
            (Global::Parameter, &[data, ..]) => match data {
                Value::Object(i) => match self.objects.get(i) {
                    Some(Object::Tensor(tensor)) => Ok(Object::Tensor(tensor.clone())),
                    _ => Err(wrong_type()),
                },
                _ => Err(wrong_type()),
            },
            _ => Err(format!("the pickle calls {function:?} with {} arguments", arguments.len())),
        }
    }

    fn tensor(&self, [storage, offset, size, stride]: [Value<'a>; 4], dtype: Option<Kind>) -> Parsed<TensorInfo> {
        let Value::Object(index) = storage else { return Err(wrong_type()) };
        let Some(Object::Storage(storage)) = self.objects.get(index) else { return Err(wrong_type()) };
        let kind = dtype.or(storage.kind).ok_or("a tensor over untyped storage has no dtype")?;
        let dims = |value| -> Parsed<Vec<usize>> {
            let values = self.sequence(value)?;
            // A short program must not copy a long list again and again.
            if values.len() > MOST_DIMENSIONS {
                return Err(format!("a tensor in the pickle has {} dimensions", values.len()));
            }
            values.iter().map(|&value| natural(value)).collect()
        };
        let (shape, strides) = (dims(size)?, dims(stride)?);
        Ok(TensorInfo { storage: index, kind, view: View { offset: natural(offset)?, shape, strides } })
    }

    /// `("storage", type, key, location, count)`; the legacy format adds a window `(key, offset, count)` or `None`.
    fn storage(&self, id: Value<'a>) -> Parsed<Storage<'a>> {
        let (kind, key, count, window) = match *self.sequence(id)? {
            [Value::Text("storage"), Value::Global(Global::Storage(kind)), Value::Text(key), _, count] => (kind, key, count, Value::None),
            [Value::Text("storage"), Value::Global(Global::Storage(kind)), Value::Text(key), _, count, window] => {
                (kind, key, count, window)
            }
            _ => return Err("the pickle refers to something outside that is no tensor storage".to_string()),
        };
        let window = match window {
            Value::None => None,
            window => match *self.sequence(window)? {
                [_, offset, count] => Some((natural(offset)?, natural(count)?)),
                _ => return Err(wrong_type()),
            },
        };
        Ok(Storage { key, kind, count: natural(count)?, window })
    }
}

fn natural(value: Value<'_>) -> Parsed<usize> {
    match value {
        Value::Int(value) => usize::try_from(value).map_err(|_| format!("a size, stride or offset in the pickle is {value}")),
        _ => Err(wrong_type()),
    }
}

fn pairs<'a>(values: &[Value<'a>]) -> Parsed<Vec<(Value<'a>, Value<'a>)>> {
    let (pairs, rest) = values.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("the pickle has a key without a value".to_string());
    }
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}

fn underflow() -> String {
    "the pickle takes more from its stack than it put there".to_string()
}

fn wrong_type() -> String {
    "the pickle has a value of another type than expected".to_string()
}

fn unsupported(instruction: u8) -> String {
    format!("the pickle has the instruction {instruction:#04x}, which torch.save does not write")
}
