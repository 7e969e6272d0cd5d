//! Dicts of numbers and of NumPy arrays of bytes, as datasets are pickled.

use super::machine::read;
use super::{Object, Pickle, Value};
use crate::weights::alloc_limit::{AllocLimit, Parsed};

/// A value of a pickled dict.
#[derive(Debug)]
pub(crate) enum Plain<'a> {
    /// A list of whole numbers.
    Ints(Vec<i64>),
    /// An array of bytes in the order of C.
    Bytes { shape: Vec<usize>, data: &'a [u8] },
    /// Anything else.
    Other,
}

/// Reads a pickle whose root is a dict; entries whose keys are not strings are left out.
pub(crate) fn read_dict<'a>(mut bytes: &'a [u8]) -> Parsed<Vec<(&'a str, Plain<'a>)>> {
    let mut budget = AllocLimit::new(bytes.len());
    let pickle = read(&mut bytes, &mut budget)?;
    let entries = pickle.dict(pickle.root).ok_or("the pickle holds no dict")?;
    let mut plain = Vec::new();
    for &(key, value) in entries {
        if let Some(key) = bytes_of(key).and_then(|key| std::str::from_utf8(key).ok()) {
            // A short pickle may list one long list many times.
            budget.take(pickle.sequence(value).map_or(0, |values| 2 * size_of::<i64>() * values.len()))?;
            plain.push((key, plain_of(&pickle, value)));
        }
    }
    Ok(plain)
}

/// Python 2 had one type for strings and bytes.
fn bytes_of(value: Value<'_>) -> Option<&[u8]> {
    match value {
        Value::Text(text) => Some(text.as_bytes()),
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

fn plain_of<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Plain<'a> {
    if let Some(values) = pickle.sequence(value) {
        return ints(values).map_or(Plain::Other, Plain::Ints);
    }
    array(pickle, value).unwrap_or(Plain::Other)
}

fn ints(values: &[Value<'_>]) -> Option<Vec<i64>> {
    let int = |value: &Value<'_>| match *value {
        Value::Int(int) => Some(int),
        _ => None,
    };
    values.iter().map(int).collect()
}

/// Returns an array of bytes: an object whose state is a version, the shape, the dtype, whether the
/// order is that of Fortran, and the elements (`numpy.ndarray.__reduce__`). The dtype is checked by
/// the number of elements.
fn array<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<Plain<'a>> {
    let Some(Object::Instance(instance)) = pickle.object(value) else { return None };
    let &[_, shape, _, Value::Bool(false), elements] = pickle.sequence(instance.state?)? else { return None };
    let shape: Option<Vec<usize>> = ints(pickle.sequence(shape)?)?.into_iter().map(|size| size.try_into().ok()).collect();
    let (shape, data) = (shape?, bytes_of(elements)?);
    let count = shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size))?;
    (count == data.len()).then_some(Plain::Bytes { shape, data })
}
