//! Prints tensors as NumPy does: aligned columns, large tensors shortened.

use std::fmt;

use super::{Element, Tensor, with_dtype};

/// Tensors with more elements are shortened.
const WHOLE: usize = 1000;
/// Elements shown at each end of a shortened dimension.
const EDGE: usize = 3;
/// The elements of tensors with more dimensions are not shown; printing recurses over dimensions.
const MOST_DIMENSIONS: usize = 64;

/// Prints the elements in brackets, with four digits after the point unless the formatter sets
/// another precision (`{:.2}`), then the shape and dtype. Dimensions of large tensors are shortened
/// to three elements at each end; with more than 64 dimensions no element is shown.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_dtype!(self.dtype(), T => print::<T>(self, f))
    }
}

fn print<T: Element>(tensor: &Tensor, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if tensor.ndim() > MOST_DIMENSIONS {
        return write!(f, "[...]\n{:?} {}", tensor.shape(), tensor.dtype());
    }
    // Without elements there may be any number of empty rows.
    if tensor.numel() == 0 && tensor.shape().iter().map(|&n| n.max(1)).product::<usize>() > WHOLE {
        return write!(f, "[]\n{:?} {}", tensor.shape(), tensor.dtype());
    }
    let view = tensor.view::<T>().map_err(|_| fmt::Error)?;
    let shorten = tensor.numel() > WHOLE;
    let shown: Vec<Vec<usize>> = tensor
        .shape()
        .iter()
        .map(|&n| if shorten && n > 2 * EDGE { (0..EDGE).chain(n - EDGE..n).collect() } else { (0..n).collect() })
        .collect();

    // Notation and width depend only on the elements that are printed.
    let mut values = vec![];
    let mut index = vec![0; tensor.ndim()];
    if tensor.numel() > 0 {
        collect(&shown, 0, &mut index, &mut |at| values.push(view[at]));
    }
    let precision = f.precision().unwrap_or(4);
    let text = Notation::choose(&values, precision);
    let width = values.iter().map(|&x| text.write(x).len()).max().unwrap_or(0);

    let mut cells = values.iter().map(|&x| format!("{:>width$}", text.write(x)));
    brackets(f, &shown, tensor.shape(), 0, &mut cells)?;
    write!(f, "\n{:?} {}", tensor.shape(), tensor.dtype())
}

fn collect(shown: &[Vec<usize>], axis: usize, index: &mut Vec<usize>, visit: &mut impl FnMut(&[usize])) {
    if axis == shown.len() {
        return visit(index);
    }
    for &i in &shown[axis] {
        index[axis] = i;
        collect(shown, axis + 1, index, visit);
    }
}

fn brackets(
    f: &mut fmt::Formatter<'_>,
    shown: &[Vec<usize>],
    shape: &[usize],
    axis: usize,
    cells: &mut impl Iterator<Item = String>,
) -> fmt::Result {
    if axis == shape.len() {
        return f.write_str(&cells.next().unwrap_or_default());
    }
    let last = axis + 1 == shape.len();
    // Each row has a separate line; empty lines separate matrices.
    let separator = if last { ", ".to_owned() } else { format!(",{}{}", "\n".repeat(shape.len() - axis - 1), " ".repeat(axis + 1)) };
    f.write_str("[")?;
    let mut expected = 0;
    for (position, &i) in shown[axis].iter().enumerate() {
        if position > 0 {
            f.write_str(&separator)?;
        }
        if i != expected {
            write!(f, "...{separator}")?;
        }
        expected = i + 1;
        brackets(f, shown, shape, axis + 1, cells)?;
    }
    f.write_str("]")
}

enum Notation {
    Integer,
    Fixed(usize),
    Scientific(usize),
}

impl Notation {
    fn choose<T: Element>(values: &[T], precision: usize) -> Notation {
        if !T::DTYPE.is_float() {
            return Notation::Integer;
        }
        let magnitudes = values.iter().filter_map(|x| x.to_f64()).filter(|x| x.is_finite() && *x != 0.0).map(f64::abs);
        let (low, high) = magnitudes.fold((f64::INFINITY, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
        if high >= 1e8 || low < 1e-4 && high > 0.0 && high < 1e-2 || high / low > 1e8 {
            return Notation::Scientific(precision);
        }
        Notation::Fixed(precision)
    }

    fn write<T: Element>(&self, x: T) -> String {
        match self {
            Notation::Integer => x.to_string(),
            Notation::Fixed(precision) => format!("{x:.precision$}"),
            Notation::Scientific(precision) => format!("{:.precision$e}", x.to_f64().unwrap_or(f64::NAN)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrix_prints_as_aligned_rows() {
        let t = Tensor::from_vec(vec![1.0f32, -20.5, 3.25, 4.0], [2, 2]).unwrap();
        assert_eq!(t.to_string(), "[[  1.0000, -20.5000],\n [  3.2500,   4.0000]]\n[2, 2] f32");
        assert_eq!(format!("{t:.1}"), "[[  1.0, -20.5],\n [  3.2,   4.0]]\n[2, 2] f32");
    }

    #[test]
    fn integers_scalars_and_empty_tensors_print() {
        assert_eq!(Tensor::arange(3).to_string(), "[0, 1, 2]\n[3] i64");
        assert_eq!(Tensor::scalar(7u8).to_string(), "7\n[] u8");
        assert_eq!(Tensor::zeros([0, 3]).to_string(), "[]\n[0, 3] f32");
        assert_eq!(Tensor::zeros([2, 0]).to_string(), "[[],\n []]\n[2, 0] f32");
    }

    #[test]
    fn any_number_of_dimensions_prints() {
        let most = Tensor::ones(vec![1; MOST_DIMENSIONS]).to_string();
        assert!(most.starts_with("[[[[") && most.contains("[1.0000]]]]"), "{most}");
        let text = Tensor::ones(vec![1; 200_000]).to_string();
        assert!(text.starts_with("[...]\n[1, 1, 1,") && text.ends_with(", 1] f32"));
    }

    #[test]
    fn large_tensors_are_shortened_and_channels_last_prints_in_logical_order() {
        let text = Tensor::arange(2000).to_string();
        assert_eq!(text, "[   0,    1,    2, ..., 1997, 1998, 1999]\n[2000] i64");
        let x = Tensor::arange(12).to_format(MemoryFormat::RowMajor).unwrap().with_shape(&[1, 2, 2, 3], MemoryFormat::RowMajor);
        assert_eq!(x.to_string(), x.to_format(MemoryFormat::ChannelsLast).unwrap().to_string());
    }

    use super::super::MemoryFormat;
}
