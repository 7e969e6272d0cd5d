//! Einstein's sum convention.

use super::Operator::General;
use super::{Table, as_float};
use crate::error::Result;
use crate::onnx::element::Value;
use crate::onnx::import::node::{Call, Node};
use crate::tensor::Tensor;

pub(super) const TABLE: Table = &[("Einsum", General(einsum))];

/// The name of a dimension: a letter, or its place from the right among those that `...` stands
/// for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Rest(std::cmp::Reverse<usize>),
    Letter(char),
}

/// A tensor with a label for each dimension.
struct Term {
    x: Tensor,
    labels: Vec<Label>,
}

/// Reads the labels of a part of the equation, in which `...` stands for `rest` dimensions.
fn labels(node: &Node, part: &str, rest: usize) -> Result<Vec<Label>> {
    let mut labels = vec![];
    let (before, after) = part.split_once("...").map_or((part, None), |(before, after)| (before, Some(after)));
    let letters = |text: &str| text.chars().map(Label::Letter).collect::<Vec<_>>();
    labels.extend(letters(before));
    if let Some(after) = after {
        labels.extend((0..rest).rev().map(|place| Label::Rest(std::cmp::Reverse(place))));
        labels.extend(letters(after));
    }
    match labels.iter().all(|label| matches!(label, Label::Rest(_) | Label::Letter('a'..='z' | 'A'..='Z'))) {
        true => Ok(labels),
        false => Err(node.error(format!("{:?} in the equation are not letters and `...`", crate::error::short(part)))),
    }
}

/// Sums products of elements over the labels that the result does not have (NumPy's `einsum`). From
/// the first operand to the last, two become one by a matrix product.
fn einsum(call: &Call<'_>) -> Result<Vec<Value>> {
    let node = call.node;
    let equation: String = node.text("equation", "")?.split_whitespace().collect();
    let (left, right) = equation.split_once("->").map_or((equation.as_str(), None), |(left, right)| (left, Some(right)));
    let parts: Vec<&str> = left.split(',').collect();
    if parts.len() != call.inputs.len() {
        return Err(node.error(format!("the equation has {} operands, the node {}", parts.len(), call.inputs.len())));
    }
    let (mut terms, mut most) = (vec![], 0);
    for (at, part) in parts.iter().enumerate() {
        let x = as_float(call.tensor(at)?)?;
        let letters = labels(node, part, 0)?.len();
        let rest = if part.contains("...") { x.ndim().saturating_sub(letters) } else { 0 };
        let labels = labels(node, part, rest)?;
        if labels.len() != x.ndim() {
            return Err(node.error(format!("{part:?} in the equation does not fit shape {:?}", x.shape())));
        }
        most = most.max(rest);
        terms.push(diagonal(node, Term { x, labels })?);
    }
    let mut all: Vec<(Label, usize)> =
        terms.iter().flat_map(|term| term.labels.iter().copied().zip(term.x.shape().iter().copied())).collect();
    all.sort();
    let result = match right {
        Some(right) => labels(node, right, most)?,
        // Without a result: the labels that occur once, in order.
        None => {
            let counted = left.chars().filter(|symbol| symbol.is_alphabetic());
            let once = |label: &Label| match label {
                Label::Rest(_) => true,
                Label::Letter(letter) => counted.clone().filter(|other| other == letter).count() == 1,
            };
            let mut labels: Vec<Label> = all.iter().map(|&(label, _)| label).filter(once).collect();
            labels.dedup();
            labels
        }
    };
    let size = |label: Label| all.iter().filter(|(other, _)| *other == label).map(|&(_, size)| size).find(|&size| size != 1).unwrap_or(1);
    if let Some(&(_, wrong)) = all.iter().find(|&&(label, found)| found != 1 && found != size(label)) {
        return Err(node.error(format!("a label of {equation:?} is of size {wrong} and of another size")));
    }
    let known = result.iter().enumerate().all(|(at, label)| !result[..at].contains(label) && all.iter().any(|(other, _)| other == label));
    if !known {
        return Err(node.error(format!("the labels of the result of {equation:?} are not different ones of the operands")));
    }
    // A dimension of size 1 where others have more is repeated: it adds nothing to the products.
    for term in &mut terms {
        let repeated = |&at: &usize| term.x.shape()[at] == 1 && size(term.labels[at]) != 1;
        let dims: Vec<usize> = (0..term.labels.len()).filter(repeated).collect();
        term.x = term.x.squeeze(&dims[..])?;
        term.labels = (0..term.labels.len()).filter(|at| !dims.contains(at)).map(|at| term.labels[at]).collect();
    }
    let mut terms = terms.into_iter();
    let mut whole = terms.next().ok_or_else(|| node.error("has no operands"))?;
    while let Some(next) = terms.next() {
        let needed = |label: &Label| result.contains(label) || terms.as_slice().iter().any(|term| term.labels.contains(label));
        whole = product(node, whole, next, needed)?;
    }
    let whole = summed(whole, |label| result.contains(label))?;
    let y = arranged(&whole, &result)?;
    call.number_like_first(y)
}

/// Keeps the elements whose positions along dimensions of the same label are the same.
fn diagonal(node: &Node, mut term: Term) -> Result<Term> {
    while let Some(second) = (0..term.labels.len()).find(|&at| term.labels[..at].contains(&term.labels[at])) {
        let first = term.labels.iter().position(|label| *label == term.labels[second]).unwrap_or(0);
        let n = term.x.shape()[first];
        if term.x.shape()[second] != n {
            return Err(node.error(format!("one label stands for two sizes of shape {:?}", term.x.shape())));
        }
        let mut order: Vec<usize> = (0..term.labels.len()).filter(|at| ![first, second].contains(at)).collect();
        let kept: Vec<usize> = order.iter().map(|&at| term.x.shape()[at]).collect();
        let label = term.labels[first];
        let labels: Vec<Label> = order.iter().map(|&at| term.labels[at]).chain([label]).collect();
        order.extend([first, second]);
        let flat = term.x.permute(&order)?.reshape([kept, vec![n * n]].concat())?;
        let places: Vec<i64> = (0..n).map(|at| (at * (n + 1)) as i64).collect();
        term = Term { x: flat.index_select(-1, &Tensor::from_vec(places, [n])?)?, labels };
    }
    Ok(term)
}

/// Sums over the labels that are not needed.
fn summed(term: Term, needed: impl Fn(&Label) -> bool) -> Result<Term> {
    let dims: Vec<usize> = (0..term.labels.len()).filter(|&at| !needed(&term.labels[at])).collect();
    if dims.is_empty() {
        return Ok(term);
    }
    let x = term.x.sum(&dims[..])?;
    Ok(Term { x, labels: term.labels.into_iter().filter(needed).collect() })
}

/// Returns the tensor with its dimensions in the order of these labels, which are all of the
/// term's.
fn arranged(term: &Term, order: &[Label]) -> Result<Tensor> {
    let places: Vec<usize> = order.iter().filter_map(|label| term.labels.iter().position(|other| other == label)).collect();
    term.x.permute(places)
}

/// Multiplies two terms, and sums over the labels that are no longer needed.
fn product(node: &Node, a: Term, b: Term, needed: impl Fn(&Label) -> bool) -> Result<Term> {
    let a = summed(a, |label| needed(label) || b.labels.contains(label))?;
    let b = summed(b, |label| needed(label) || a.labels.contains(label))?;
    let of = |term: &Term, wanted: &dyn Fn(&Label) -> bool| -> Vec<Label> { term.labels.iter().copied().filter(wanted).collect() };
    let both = of(&a, &|label| b.labels.contains(label));
    let (batch, inner): (Vec<Label>, Vec<Label>) = both.into_iter().partition(|label| needed(label));
    let (rows, columns) = (of(&a, &|label| !b.labels.contains(label)), of(&b, &|label| !a.labels.contains(label)));
    let size = |term: &Term, label: &Label| term.labels.iter().position(|other| other == label).map_or(1, |at| term.x.shape()[at] as i64);
    let count = |term: &Term, labels: &[Label]| {
        let sizes = labels.iter().map(|label| size(term, label));
        sizes.clone().try_fold(1i64, i64::checked_mul).ok_or_else(|| node.error("a product of sizes is too large"))
    };
    let (n, k) = (count(&a, &batch)?, count(&a, &inner)?);
    let left = arranged(&a, &[&batch[..], &rows, &inner].concat())?.reshape([n, count(&a, &rows)?, k])?;
    let right = arranged(&b, &[&batch[..], &inner, &columns].concat())?.reshape([n, k, count(&b, &columns)?])?;
    let sizes: Vec<i64> =
        batch.iter().chain(&rows).map(|label| size(&a, label)).chain(columns.iter().map(|label| size(&b, label))).collect();
    Ok(Term { x: left.matmul(&right)?.reshape(sizes)?, labels: [batch, rows, columns].concat() })
}
