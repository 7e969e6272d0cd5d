//! Dicts of numbers and of NumPy arrays of bytes, as datasets are pickled by Python 2 and 3.

use std::borrow::Cow;

use super::machine::read;
use super::{Instance, Object, Pickle, Value};
use crate::weights::alloc_limit::{AllocLimit, Parsed};

/// A value of a pickled dict.
#[derive(Debug)]
pub(crate) enum Plain<'a> {
    /// A list of whole numbers.
    Ints(Vec<i64>),
    /// An array of bytes in the order of C.
    Bytes { shape: Vec<usize>, data: Cow<'a, [u8]> },
    /// Anything else.
    Other,
}

/// Reads a pickle whose root is a dict; entries whose keys are not strings are left out.
pub(crate) fn read_dict<'a>(mut bytes: &'a [u8]) -> Parsed<Vec<(String, Plain<'a>)>> {
    let mut budget = AllocLimit::new(bytes.len());
    let pickle = read(&mut bytes, &mut budget)?;
    let entries = pickle.dict(pickle.root).ok_or("the pickle holds no dict")?;
    let mut plain = Vec::new();
    for &(key, value) in entries {
        if let Some(key) = bytes_of(&pickle, key, &mut budget)?.and_then(|key| String::from_utf8(key.into_owned()).ok()) {
            // A short pickle may list one long list many times.
            budget.take(key.len() + pickle.sequence(value).map_or(0, |values| 2 * size_of::<i64>() * values.len()))?;
            plain.push((key, plain_of(&pickle, value, &mut budget)?));
        }
    }
    Ok(plain)
}

/// Returns bytes. Python 2 had one type for strings and bytes; Python 3 writes bytes in protocol 2
/// as a text of characters up to 255, and a call that encodes it.
fn bytes_of<'a>(pickle: &Pickle<'a>, value: Value<'a>, budget: &mut AllocLimit) -> Parsed<Option<Cow<'a, [u8]>>> {
    Ok(match (value, pickle.object(value)) {
        (Value::Text(text), _) => Some(text.as_bytes().into()),
        (Value::Bytes(bytes), _) => Some(bytes.into()),
        (_, Some(Object::Instance(Instance { state: Some(Value::Text(text)), .. }))) => {
            budget.take(text.len())?;
            text.chars().map(|character| u8::try_from(character).ok()).collect::<Option<Vec<u8>>>().map(Cow::from)
        }
        _ => None,
    })
}

fn plain_of<'a>(pickle: &Pickle<'a>, value: Value<'a>, budget: &mut AllocLimit) -> Parsed<Plain<'a>> {
    if let Some(values) = pickle.sequence(value) {
        return Ok(ints(values).map_or(Plain::Other, Plain::Ints));
    }
    let Some((shape, elements)) = array(pickle, value) else { return Ok(Plain::Other) };
    let count = shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
    let data = bytes_of(pickle, elements, budget)?.filter(|data| count == Some(data.len()));
    Ok(data.map_or(Plain::Other, |data| Plain::Bytes { shape, data }))
}

fn ints(values: &[Value<'_>]) -> Option<Vec<i64>> {
    let int = |value: &Value<'_>| match *value {
        Value::Int(int) => Some(int),
        _ => None,
    };
    values.iter().map(int).collect()
}

/// Returns the shape and the elements of an array: an object whose state is a version, the shape,
/// the dtype, whether the order is that of Fortran, and the elements (`numpy.ndarray.__reduce__`).
/// The dtype is checked by the number of elements.
fn array<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<(Vec<usize>, Value<'a>)> {
    let Some(Object::Instance(instance)) = pickle.object(value) else { return None };
    let &[_, shape, _, Value::Bool(false), elements] = pickle.sequence(instance.state?)? else { return None };
    let shape: Option<Vec<usize>> = ints(pickle.sequence(shape)?)?.into_iter().map(|size| size.try_into().ok()).collect();
    Some((shape?, elements))
}
