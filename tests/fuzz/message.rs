//! ONNX messages as trees, and changes to one field of them: mutations of the bytes rarely give a
//! file that still is a message.

use convnet::data::Rng;

/// What a message is, by which its fields are known.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Dimension,
    Function,
    Opset,
}

use Kind::*;

/// The fields that hold messages.
const MESSAGES: &[(Kind, u64, Kind)] = &[
    (Model, 7, Graph),
    (Model, 8, Opset),
    (Model, 25, Function),
    (Graph, 1, Node),
    (Graph, 5, Tensor),
    (Graph, 11, ValueInfo),
    (Graph, 12, ValueInfo),
    (Node, 5, Attribute),
    (Attribute, 5, Tensor),
    (Attribute, 6, Graph),
    (ValueInfo, 2, Type),
    (Type, 1, TensorType),
    (TensorType, 2, Shape),
    (Shape, 1, Dimension),
    (Function, 7, Node),
    (Function, 9, Opset),
];

/// The fields that hold lists of numbers: dimensions, numbers of tensors and of attributes.
const LISTS: &[(Kind, u64)] = &[(Tensor, 1), (Tensor, 5), (Tensor, 7), (Attribute, 8)];

/// The fields that name values.
const VALUES: &[(Kind, u64)] = &[(Node, 1), (Node, 2), (Tensor, 8), (ValueInfo, 1), (Function, 4), (Function, 5)];

#[derive(Clone)]
enum Part {
    Number(u64),
    List(Vec<u64>),
    /// 4 or 8 bytes.
    Fixed(Vec<u8>),
    Bytes(Vec<u8>),
    Message(Message),
}

/// A message of a known kind.
#[derive(Clone)]
pub struct Message {
    kind: Kind,
    fields: Vec<(u64, Part)>,
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let length = 1 + bytes.iter().position(|byte| byte & 0x80 == 0).unwrap();
    take(bytes, length).iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
}

fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

impl Message {
    /// Reads a file that is valid.
    pub fn model(bytes: &[u8]) -> Message {
        Message::read(Model, bytes)
    }

    fn read(kind: Kind, mut bytes: &[u8]) -> Message {
        let mut fields = vec![];
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let (field, wire) = (tag >> 3, tag & 7);
            let part = match wire {
                0 => Part::Number(varint(&mut bytes)),
                1 => Part::Fixed(take(&mut bytes, 8).to_vec()),
                5 => Part::Fixed(take(&mut bytes, 4).to_vec()),
                _ => {
                    let length = varint(&mut bytes) as usize;
                    let mut content = take(&mut bytes, length);
                    match MESSAGES.iter().find(|row| (row.0, row.1) == (kind, field)) {
                        Some(&(_, _, inner)) => Part::Message(Message::read(inner, content)),
                        None if LISTS.contains(&(kind, field)) => {
                            let mut numbers = vec![];
                            while !content.is_empty() {
                                numbers.push(varint(&mut content));
                            }
                            Part::List(numbers)
                        }
                        None => Part::Bytes(content.to_vec()),
                    }
                }
            };
            fields.push((field, part));
        }
        Message { kind, fields }
    }

    /// Returns the bytes of a file.
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![];
        for (field, part) in &self.fields {
            let (wire, content) = match part {
                Part::Number(number) => {
                    write_varint(field << 3, &mut out);
                    write_varint(*number, &mut out);
                    continue;
                }
                Part::Fixed(bytes) => {
                    write_varint(field << 3 | if bytes.len() == 8 { 1 } else { 5 }, &mut out);
                    out.extend(bytes);
                    continue;
                }
                Part::Bytes(bytes) => (2, bytes.clone()),
                Part::Message(message) => (2, message.write()),
                Part::List(numbers) => {
                    let mut content = vec![];
                    numbers.iter().for_each(|&number| write_varint(number, &mut content));
                    (2, content)
                }
            };
            write_varint(field << 3 | wire, &mut out);
            write_varint(content.len() as u64, &mut out);
            out.extend(content);
        }
        out
    }

    /// Calls `see` with this message and all inside it.
    fn walk(&mut self, see: &mut impl FnMut(&mut Message)) {
        see(self);
        for (_, part) in &mut self.fields {
            if let Part::Message(inner) = part {
                inner.walk(see);
            }
        }
    }

    /// Calls `change` with one of the parts that `choose` names, by the message's kind and the
    /// field; returns whether there is one.
    fn change(&mut self, random: &mut Rng, choose: impl Fn(Kind, u64, &Part) -> bool, change: impl FnOnce(&mut Part, &mut Rng)) -> bool {
        let mut count = 0;
        self.walk(&mut |message| count += message.fields.iter().filter(|(field, part)| choose(message.kind, *field, part)).count());
        if count == 0 {
            return false;
        }
        let (chosen, mut change, mut at) = (random.below(count), Some(change), 0);
        self.walk(&mut |message| {
            let kind = message.kind;
            for (_, part) in message.fields.iter_mut().filter(|(field, part)| choose(kind, *field, part)) {
                if at == chosen
                    && let Some(change) = change.take()
                {
                    change(part, random);
                }
                at += 1;
            }
        });
        true
    }

    fn texts(&mut self, wanted: &[(Kind, u64)]) -> Vec<Vec<u8>> {
        let mut found = vec![];
        self.walk(&mut |message| {
            for (field, part) in &message.fields {
                if let (true, Part::Bytes(text)) = (wanted.contains(&(message.kind, *field)), part) {
                    found.push(text.clone());
                }
            }
        });
        found
    }

    /// Changes one place: a number, an edge between nodes, an operator, a field that is left out,
    /// repeated or taken from another file, or a node that becomes a function.
    pub fn mutate(&mut self, others: &[Message], random: &mut Rng) {
        let mut other = others[random.below(others.len())].clone();
        let done = match random.below(14) {
            0..=3 => self.change(
                random,
                |kind, field, part| match part {
                    Part::Number(_) => {
                        matches!((kind, field), (Attribute, 3) | (Dimension, 1) | (Tensor, 2) | (TensorType, 1) | (Opset, 2))
                    }
                    Part::List(numbers) => !numbers.is_empty(),
                    _ => false,
                },
                |part, random| match part {
                    Part::Number(old) => *old = number(*old, random),
                    Part::List(numbers) => {
                        let at = random.below(numbers.len());
                        match random.below(6) {
                            0 => drop(numbers.remove(at)),
                            1 => numbers.push(numbers[at]),
                            _ => numbers[at] = number(numbers[at], random),
                        }
                    }
                    _ => {}
                },
            ),
            4 | 5 => {
                let mut names = self.texts(VALUES);
                names.push(vec![]);
                let name = names[random.below(names.len())].clone();
                self.change(random, |kind, field, _| VALUES.contains(&(kind, field)), |part, _| *part = Part::Bytes(name))
            }
            6 => {
                let names = other.texts(&[(Node, 4), (Attribute, 1)]);
                let name = names[random.below(names.len())].clone();
                self.change(random, |kind, field, _| (kind, field) == (Node, 4), |part, _| *part = Part::Bytes(name))
            }
            7 => {
                let numbers = [0.0, -1.0, 0.5, 1e-30, 3e38, f32::INFINITY, f32::NAN];
                let bytes = numbers[random.below(numbers.len())].to_le_bytes().to_vec();
                self.change(random, |kind, field, _| (kind, field) == (Attribute, 2), |part, _| *part = Part::Fixed(bytes))
            }
            8 | 9 => false,
            10 => self.change(
                random,
                |kind, field, _| matches!((kind, field), (Attribute, 4 | 5)),
                |part, random| match part {
                    Part::Bytes(text) => crate::mutate::mutate(text, &[b"linear".to_vec(), b"SAME_LOWER".to_vec()], random),
                    Part::Message(tensor) => tensor.fields.retain(|&(field, _)| field != 9),
                    _ => {}
                },
            ),
            // The data of initialisers and constants.
            11 | 12 => self.change(
                random,
                |kind, field, _| matches!((kind, field), (Tensor, 4 | 9)),
                |part, random| {
                    let Part::Bytes(data) = part else { return };
                    let width = [4, 8][random.below(2)];
                    let value = if width == 4 {
                        let numbers = [0.0, -1.0, 0.3, 1e-30, 1e9, 3e38, f32::INFINITY, f32::NAN];
                        numbers[random.below(numbers.len())].to_le_bytes().to_vec()
                    } else {
                        number(1, random).to_le_bytes().to_vec()
                    };
                    if data.len() >= width {
                        let at = random.below(data.len() / width) * width;
                        data[at..at + width].copy_from_slice(&value);
                    }
                },
            ),
            _ => {
                self.outline(random);
                true
            }
        };
        if !done {
            self.restructure(&mut other, random);
        }
    }

    /// Leaves a field of a message out, repeats it, swaps two, or adds one of another file's.
    fn restructure(&mut self, other: &mut Message, random: &mut Rng) {
        let (mut count, mut others) = (0, vec![]);
        self.walk(&mut |message| count += usize::from(!message.fields.is_empty()));
        other.walk(&mut |message| others.extend(message.fields.iter().map(|field| (message.kind, field.clone()))));
        let (chosen, mut at) = (random.below(count), 0);
        self.walk(&mut |message| {
            if message.fields.is_empty() {
                return;
            }
            if at == chosen {
                let place = random.below(message.fields.len());
                match random.below(4) {
                    0 => drop(message.fields.remove(place)),
                    1 => message.fields.push(message.fields[place].clone()),
                    2 => {
                        let second = random.below(message.fields.len());
                        message.fields.swap(place, second);
                    }
                    _ => {
                        let like: Vec<_> = others.iter().filter(|(kind, _)| *kind == message.kind).collect();
                        if let Some((_, field)) = like.get(random.below(like.len().max(1))) {
                            message.fields.push(field.clone());
                        }
                    }
                }
            }
            at += 1;
        });
    }

    /// Makes a function of a node's operator: its body is the node. Mutations of names then make
    /// functions that call others, or themselves.
    fn outline(&mut self, random: &mut Rng) {
        let opsets: Vec<_> = self.fields.iter().filter(|(field, _)| *field == 8).map(|(_, part)| (9, part.clone())).collect();
        let Some((_, Part::Message(graph))) = self.fields.iter_mut().find(|(field, _)| *field == 7) else { return };
        let nodes: Vec<usize> = (0..graph.fields.len()).filter(|&at| graph.fields[at].0 == 1).collect();
        if nodes.is_empty() {
            return;
        }
        let Part::Message(node) = &mut graph.fields[nodes[random.below(nodes.len())]].1 else { return };
        // The names of what it reads and makes, its operator, and itself.
        let mut fields = opsets;
        for (field, part) in &node.fields {
            match field {
                1 => fields.push((4, part.clone())),
                2 => fields.push((5, part.clone())),
                4 => fields.push((1, part.clone())),
                _ => {}
            }
        }
        fields.push((7, Part::Message(node.clone())));
        fields.push((10, Part::Bytes(b"own".to_vec())));
        node.fields.retain(|&(field, _)| field != 7);
        node.fields.push((7, Part::Bytes(b"own".to_vec())));
        if random.below(3) == 0 {
            // The body calls the function again.
            let (at, inner) = (fields.len() - 2, node.clone());
            fields[at].1 = Part::Message(inner);
        }
        self.fields.push((25, Part::Message(Message { kind: Function, fields })));
    }
}

/// Returns a number that is wrong in most places, or near the old one.
fn number(old: u64, random: &mut Rng) -> u64 {
    let known = [0, 1, 2, 3, 7, -1, -2, 1 << 16, 1 << 31, 1 << 40, 1 << 60, i64::MAX, i64::MIN];
    match random.below(3) {
        0 => old.wrapping_add([1, u64::MAX][random.below(2)]),
        1 => old.wrapping_mul(2),
        _ => known[random.below(known.len())] as u64,
    }
}
