//! Defines a conversion of small arrays that takes little time to compile.

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
