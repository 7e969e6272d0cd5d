//! Defines a conversion of small arrays and a sort, both of which take little time to compile.

use std::cmp::Ordering;

/// Arrays of a few elements, each of which a closure converts.
pub trait MapEach<T> {
    /// An array of the same length of other elements.
    type Of<V>;

    /// Returns the results of `f` for the elements in order, like the arrays' own `map`. That
    /// function also drops what it has made when `f` panics half-way; the compiler starts with a
    /// tenth of the code for this one.
    fn map_each<V>(self, f: impl FnMut(T) -> V) -> Self::Of<V>;
}

macro_rules! arrays {
    ($($length:literal: $($element:ident)*;)*) => {$(
        impl<T> MapEach<T> for [T; $length] {
            type Of<V> = [V; $length];

            #[inline(always)]
            fn map_each<V>(self, mut f: impl FnMut(T) -> V) -> [V; $length] {
                let [$($element),*] = self;
                [$(f($element)),*]
            }
        }
    )*};
}
arrays! {
    2: a b;
    3: a b c;
    4: a b c d;
    5: a b c d e;
    6: a b c d e f;
    7: a b c d e f g;
    9: a b c d e f g h i;
    10: a b c d e f g h i j;
}

/// Sorts a list as `slice::sort_by` does: equal items keep their order. That function is compiled
/// for each type and comparison; here all share a sort of positions, after which the items are
/// swapped to their places. For lists whose sorting takes little of the time.
pub fn sort_by<T>(items: &mut [T], mut compare: impl FnMut(&T, &T) -> Ordering) {
    let mut order = sorted_positions(items.len(), &mut |a, b| compare(&items[a], &items[b]));
    for start in 0..order.len() {
        // Follows the cycle of items that take each other's places.
        let mut to = start;
        while order[to] != start {
            let from = order[to];
            items.swap(to, from);
            order[to] = to;
            to = from;
        }
        order[to] = to;
    }
}

fn sorted_positions(count: usize, compare: &mut dyn FnMut(usize, usize) -> Ordering) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| compare(a, b));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sort_orders_items_and_keeps_equal_ones_in_order() {
        // Multiples of 7 modulo 101 are a permutation; the tens digit is the key.
        let items: Vec<usize> = (0..101).map(|i| i * 7 % 101).collect();
        let (mut found, mut expected) = (items.clone(), items);
        sort_by(&mut found, |a, b| (a / 10).cmp(&(b / 10)));
        expected.sort_by_key(|item| item / 10);
        assert_eq!(found, expected);
        sort_by(&mut found[..0], usize::cmp);
    }
}
