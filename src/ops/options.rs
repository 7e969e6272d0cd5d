//! The constructor and the setters of the options of operations.

/// Gives a struct of options `new`, which returns the default, and a setter for each field. The
/// fields in brackets are heights and widths, whose setters take a [`Pair`](crate::tensor::Pair).
macro_rules! option_setters {
    ($options:ident, [$($pair:ident),*] $(, $name:ident: $type:ty)*) => {
        impl $options {
            /// Returns the default options, to be changed by setters.
            pub fn new() -> $options {
                $options::default()
            }

            $(
                #[doc = concat!("Returns the options with this `", stringify!($pair), "`; a number is for height and width.")]
                #[must_use]
                pub fn $pair(mut self, $pair: impl Into<crate::tensor::Pair>) -> $options {
                    self.$pair = $pair.into().0;
                    self
                }
            )*

            $(
                #[doc = concat!("Returns the options with this `", stringify!($name), "`.")]
                #[must_use]
                pub fn $name(mut self, $name: $type) -> $options {
                    self.$name = $name;
                    self
                }
            )*
        }
    };
}

pub(crate) use option_setters;
