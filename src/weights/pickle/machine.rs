//! The stack machine that runs the instructions of a pickle.

use std::collections::HashMap;

use super::globals;
use super::{Global, Instance, Object, Pickle, Value};
use crate::weights::alloc_limit::{AllocLimit, Parsed, quoted};

/// The memory of a value in a container: its place, twice when a vector grows, for a moment three
/// times.
pub(super) const PER_VALUE: usize = 3 * size_of::<Value<'static>>();

/// The memory of one instruction besides an object: places on the stack and in a container.
const PER_INSTRUCTION: usize = 2 * PER_VALUE + 16;

/// The memory of an object in the list of objects.
pub(super) const PER_OBJECT: usize = 3 * size_of::<Object<'static>>();

/// The memory of an entry of the memo or a name, in a hash map that grows.
const PER_ENTRY: usize = 160;

/// Reads one pickle from the front of `bytes`, which moves behind it.
pub(in crate::weights) fn read<'a>(bytes: &mut &'a [u8], budget: &mut AllocLimit) -> Parsed<Pickle<'a>> {
    let mut machine = Machine {
        rest: bytes,
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
        objects: vec![],
        names: vec![],
        known_names: HashMap::new(),
    };
    loop {
        budget.take(PER_INSTRUCTION)?;
        if let Some(root) = machine.step(budget)? {
            *bytes = machine.rest;
            return Ok(Pickle { root, objects: machine.objects, names: machine.names });
        }
    }
}

/// The state of the stack machine while it reads a pickle.
pub(super) struct Machine<'a> {
    rest: &'a [u8],
    pub(super) stack: Vec<Value<'a>>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    pub(super) objects: Vec<Object<'a>>,
    /// Unknown names in order of appearance, and where each stands.
    pub(super) names: Vec<(&'a str, &'a str)>,
    known_names: HashMap<(&'a str, &'a str), u32>,
}

impl<'a> Machine<'a> {
    /// Runs one instruction; returns the result, when it was the last.
    fn step(&mut self, budget: &mut AllocLimit) -> Parsed<Option<Value<'a>>> {
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
            b')' | b']' | 0x8f => self.push(Object::Sequence(vec![]), budget)?,
            0x85 => self.tuple(1, budget)?,
            0x86 => self.tuple(2, budget)?,
            0x87 => self.tuple(3, budget)?,
            b't' | b'l' | 0x91 => {
                let values = self.pop_mark()?;
                self.push(Object::Sequence(values), budget)?;
            }
            b'}' => self.push(Object::Dict(vec![]), budget)?,
            b'd' => {
                let entries = pairs(&self.pop_mark()?)?;
                self.push(Object::Dict(entries), budget)?;
            }
            b'a' => {
                let value = self.pop()?;
                self.append(&[value])?;
            }
            b'e' | 0x90 => {
                let values = self.pop_mark()?;
                self.append(&values)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.put(&[(key, value)])?;
            }
            b'u' => {
                let entries = pairs(&self.pop_mark()?)?;
                self.put(&entries)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.name(module, name, budget)?;
            }
            0x93 => {
                let (Value::Text(name), Value::Text(module)) = (self.pop()?, self.pop()?) else {
                    return Err("the pickle asks for something that has no name".to_string());
                };
                self.name(module, name, budget)?;
            }
            b'R' | 0x81 => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.call(function, arguments, budget)?;
            }
            // With keyword arguments, which nothing that is read takes.
            0x92 => {
                let (_, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(class, arguments, budget)?;
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state, budget)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.persistent(id, budget)?;
            }
            b'q' => {
                let [key] = self.fixed()?;
                self.remember(u32::from(key), budget)?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.fixed()?);
                self.remember(key, budget)?;
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).map_err(|_| "the pickle's memo is too long")?;
                self.remember(key, budget)?;
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

    /// Returns as many bytes as a length of `width` bytes says.
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

    /// Reads a number in little-endian two's complement of any length.
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
        let bytes = self.counted(width)?;
        let value = std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text);
        self.stack.push(value);
        Ok(())
    }

    fn bytes(&mut self, width: usize) -> Parsed<()> {
        let bytes = self.counted(width)?;
        self.stack.push(Value::Bytes(bytes));
        Ok(())
    }

    pub(super) fn push(&mut self, object: Object<'a>, budget: &mut AllocLimit) -> Parsed<()> {
        budget.take(PER_OBJECT)?;
        self.stack.push(Value::Object(self.objects.len()));
        self.objects.push(object);
        Ok(())
    }

    /// Pushes the meaning of a name.
    fn name(&mut self, module: &'a str, name: &'a str, budget: &mut AllocLimit) -> Parsed<()> {
        // Hashed below; a memoized name costs the file two bytes.
        budget.take(PER_ENTRY + module.len() + name.len())?;
        let global = match globals::lookup(module, name) {
            Some(global) => global,
            None => {
                let next = u32::try_from(self.names.len()).map_err(|_| "the pickle has too many names")?;
                let index = *self.known_names.entry((module, name)).or_insert(next);
                if index == next {
                    self.names.push((module, name));
                }
                Global::Unknown(index)
            }
        };
        self.stack.push(Value::Global(global));
        Ok(())
    }

    fn tuple(&mut self, count: usize, budget: &mut AllocLimit) -> Parsed<()> {
        let start = self.stack.len().checked_sub(count).filter(|&start| start >= self.floor()).ok_or_else(underflow)?;
        let values = self.stack.split_off(start);
        self.push(Object::Sequence(values), budget)
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

    pub(super) fn top(&self) -> Parsed<Value<'a>> {
        self.stack.last().copied().ok_or_else(underflow)
    }

    fn top_object(&mut self) -> Parsed<&mut Object<'a>> {
        match self.top()? {
            Value::Object(i) => self.objects.get_mut(i).ok_or_else(underflow),
            _ => Err(wrong_type()),
        }
    }

    /// Appends to the list on top of the stack. Items of an object of an unknown class are not
    /// kept.
    fn append(&mut self, values: &[Value<'a>]) -> Parsed<()> {
        match self.top_object()? {
            Object::Sequence(list) => list.extend_from_slice(values),
            Object::Instance(_) | Object::Unreadable(_) => {}
            _ => return Err(wrong_type()),
        }
        Ok(())
    }

    /// Adds entries to the mapping on top of the stack.
    fn put(&mut self, new: &[(Value<'a>, Value<'a>)]) -> Parsed<()> {
        match self.top_object()? {
            Object::Dict(entries) | Object::Instance(Instance { entries, .. }) => entries.extend_from_slice(new),
            Object::Unreadable(_) => {}
            _ => return Err(wrong_type()),
        }
        Ok(())
    }

    fn remember(&mut self, key: u32, budget: &mut AllocLimit) -> Parsed<()> {
        budget.take(PER_ENTRY)?;
        self.memo.insert(key, self.top()?);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Parsed<()> {
        let value = *self.memo.get(&key).ok_or("the pickle recalls what it has not stored")?;
        self.stack.push(value);
        Ok(())
    }

    pub(super) fn sequence(&self, value: Value<'a>) -> Parsed<&[Value<'a>]> {
        match self.object(value) {
            Some(Object::Sequence(values)) => Ok(values),
            _ => Err(self.mismatch(value)),
        }
    }

    /// Returns why a value is not the expected one.
    pub(super) fn mismatch(&self, value: Value<'a>) -> String {
        match (value, self.object(value)) {
            (Value::Global(Global::Unknown(name)), _) => self.depends_on(name),
            (_, Some(Object::Instance(instance))) => self.depends_on(instance.class),
            (_, Some(Object::Unreadable(reason))) => reason.clone(),
            _ => wrong_type(),
        }
    }

    /// Returns the message that something is made with an unknown name.
    pub(super) fn depends_on(&self, name: u32) -> String {
        match self.names.get(name as usize) {
            Some((module, name)) => format!("depends on {}, which is not read", quoted(&format!("{module}.{name}"))),
            None => wrong_type(),
        }
    }

    pub(super) fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(i) => self.objects.get(i),
            _ => None,
        }
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

pub(super) fn wrong_type() -> String {
    "the pickle has a value of another type than expected".to_string()
}

fn unsupported(instruction: u8) -> String {
    format!("the pickle has the instruction {instruction:#04x}, which torch.save does not write")
}
