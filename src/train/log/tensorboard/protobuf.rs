//! Messages in Protocol Buffers' wire format, written by field number.

/// A message that is being written.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

/// The wire types that are used here.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    pub(super) fn new() -> Message {
        Message::default()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn push_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tagged(mut self, field: u64, wire_type: u64) -> Message {
        self.push_varint(field << 3 | wire_type);
        self
    }

    pub(super) fn integer(self, field: u64, value: u64) -> Message {
        let mut message = self.tagged(field, VARINT);
        message.push_varint(value);
        message
    }

    pub(super) fn double(self, field: u64, value: f64) -> Message {
        let mut message = self.tagged(field, FIXED64);
        message.0.extend_from_slice(&value.to_le_bytes());
        message
    }

    pub(super) fn float(self, field: u64, value: f32) -> Message {
        let mut message = self.tagged(field, FIXED32);
        message.0.extend_from_slice(&value.to_le_bytes());
        message
    }

    /// Writes bytes, or a text, or a message that is complete.
    pub(super) fn bytes(self, field: u64, value: impl AsRef<[u8]>) -> Message {
        let mut message = self.tagged(field, BYTES);
        message.push_varint(value.as_ref().len() as u64);
        message.0.extend_from_slice(value.as_ref());
        message
    }

    pub(super) fn message(self, field: u64, value: Message) -> Message {
        self.bytes(field, value.0)
    }

    pub(super) fn doubles(self, field: u64, values: &[f64]) -> Message {
        let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.bytes(field, packed)
    }
}

/// Returns the value of an integer field of a message; `None` when it is absent or the message is
/// damaged before it.
pub(super) fn find_integer(message: &[u8], wanted: u64) -> Option<u64> {
    let mut rest = message;
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        match tag & 7 {
            VARINT => {
                let value = take_varint(&mut rest)?;
                if tag >> 3 == wanted {
                    return Some(value);
                }
            }
            FIXED64 => rest = rest.get(8..)?,
            BYTES => {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            FIXED32 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    None
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_bytes_of_the_encoding_guide() {
        // The examples of <https://protobuf.dev/programming-guides/encoding>.
        assert_eq!(Message::new().integer(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::new().bytes(2, "testing").into_bytes(), *b"\x12\x07testing");
        assert_eq!(Message::new().message(3, Message::new().integer(1, 150)).into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }

    #[test]
    fn integer_is_found_behind_fields_of_every_type_and_damage_is_no_panic() {
        let message = Message::new().double(1, 0.5).float(9, 1.0).bytes(3, [0; 200]).doubles(4, &[1.0]).integer(2, u64::MAX).into_bytes();
        assert_eq!(find_integer(&message, 2), Some(u64::MAX));
        assert_eq!(find_integer(&message, 5), None);
        (0..message.len()).for_each(|cut| assert_eq!(find_integer(&message[..cut], 2), None));
        assert_eq!(find_integer(&[0xFF; 30], 2), None);
    }
}
