//! Macros that implement the common parts of modules.

/// Lists all fields of a module; one that is left out does not compile.
///
/// In an `impl Module` block it writes everything but [`forward`](crate::nn::Module::forward): how
/// the module is visited, how its parts are reached and replaced by path, and how it is copied.
///
/// - `conv` is a module, parameter or buffer (or an option of one), or a training switch, under its
///   own name;
/// - `shortcut => "downsample"` has this name in state dicts;
/// - `skip options`, or `skip(options, inputs)` for several, are none of these; a copy of the
///   module gets a clone of them;
/// - `each blocks => |i| format!("block{}", i + 1)` is a vector whose modules are children of this
///   module, named by their indices;
/// - `layer path` is the [`LayerPath`](crate::nn::LayerPath) of a leaf module, which also
///   implements [`Layer`](crate::nn::Layer).
///
/// ```
/// use convnet::prelude::*;
///
/// struct Scaled {
///     conv: Conv2d,
///     shortcut: Option<Conv2d>,
///     gain: Parameter,
///     inputs: usize,
/// }
///
/// impl Module for Scaled {
///     fn forward(&self, x: &Tensor) -> Result<Tensor> {
///         x.apply(&self.conv)?.mul(&self.gain.tensor())?.add(&x.apply(&self.shortcut)?)
///     }
///
///     visit_fields!(conv, shortcut => "downsample", gain, skip inputs);
/// }
///
/// let block = Scaled { conv: Conv2d::new(4, 4, 1), shortcut: None, gain: Parameter::new(Tensor::ones([1])), inputs: 4 };
/// let names: Vec<String> = block.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["conv.weight", "conv.bias", "gain"]);
/// assert!(block.get("conv").is_some());
/// let copy = block.deep_clone()?;
/// assert_eq!(copy.inputs, 4);
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// A field that is left out does not compile:
///
/// ```compile_fail,E0063
/// use convnet::prelude::*;
///
/// struct Net {
///     conv: Conv2d,
///     forgotten: Linear,
/// }
///
/// impl Module for Net {
///     fn forward(&self, x: &Tensor) -> Result<Tensor> {
///         x.apply(&self.conv)?.flatten(1, -1)?.apply(&self.forgotten)
///     }
///
///     visit_fields!(conv);
/// }
/// ```
///
/// A module that has to do more in [`visit`](crate::nn::Module::visit) implements that method
/// itself, and can list fields inside it, `self` and the visitor first: `visit_fields!(visitor,
/// self; conv, skip inputs)`. Parts of such a module are neither reached by path nor copied, unless
/// it also implements [`parts`](crate::nn::Module::parts),
/// [`parts_mut`](crate::nn::Module::parts_mut) and [`copy_with`](crate::nn::Module::copy_with).
/// This form has to name every field too:
///
/// ```compile_fail,E0027
/// use convnet::prelude::*;
///
/// struct Net {
///     conv: Conv2d,
///     forgotten: Linear,
/// }
///
/// impl Module for Net {
///     fn forward(&self, x: &Tensor) -> Result<Tensor> {
///         x.apply(&self.conv)
///     }
///
///     fn visit(&self, v: &mut Visitor<'_>) {
///         visit_fields!(v, self; conv);
///     }
/// }
/// ```
#[macro_export]
macro_rules! visit_fields {
    // One field at a time into `{kind field …}`.
    (@list $then:tt [$($done:tt)*]) => {
        $crate::visit_fields!(@emit $then $($done)*);
    };
    (@list $then:tt [$($done:tt)*] skip ($($field:tt),* $(,)?) $(, $($rest:tt)*)?) => {
        $crate::visit_fields!(@list $then [$($done)* $({skip $field})*] $($($rest)*)?);
    };
    (@list $then:tt [$($done:tt)*] skip $field:tt $(, $($rest:tt)*)?) => {
        $crate::visit_fields!(@list $then [$($done)* {skip $field}] $($($rest)*)?);
    };
    (@list $then:tt [$($done:tt)*] layer $field:tt $(, $($rest:tt)*)?) => {
        $crate::visit_fields!(@list $then [$($done)* {layer $field}] $($($rest)*)?);
    };
    (@list $then:tt [$($done:tt)*] each $field:tt => |$index:ident| $name:expr $(, $($rest:tt)*)?) => {
        $crate::visit_fields!(@list $then [$($done)* {each $field $index $name}] $($($rest)*)?);
    };
    (@list $then:tt [$($done:tt)*] $field:tt => $name:expr $(, $($rest:tt)*)?) => {
        $crate::visit_fields!(@list $then [$($done)* {field $field $name}] $($($rest)*)?);
    };
    (@list $then:tt [$($done:tt)*] $field:tt $(, $($rest:tt)*)?) => {
        $crate::visit_fields!(@list $then [$($done)* {field $field stringify!($field)}] $($($rest)*)?);
    };

    (@emit {walk $visitor:tt $this:tt} $({$kind:tt $field:tt $($rest:tt)*})*) => {{
        // Without `..`: every field has to be named.
        let Self { $($field: _),* } = $this;
        $($crate::visit_fields!(@visit $visitor $this $kind $field $($rest)*);)*
    }};
    (@emit {methods} $({$kind:tt $field:tt $($rest:tt)*})*) => {
        fn visit(&self, visitor: &mut $crate::nn::Visitor<'_>) {
            let _ = &visitor;
            $($crate::visit_fields!(@visit visitor self $kind $field $($rest)*);)*
        }

        fn parts<'m>(&'m self, parts: &mut $crate::nn::Parts<'m>) {
            let _ = &parts;
            $($crate::visit_fields!(@part parts self $kind $field $($rest)*);)*
        }

        fn parts_mut<'m>(&'m mut self, parts: &mut $crate::nn::PartsMut<'m>) {
            let _ = &parts;
            $($crate::visit_fields!(@part_mut parts self $kind $field $($rest)*);)*
        }

        fn copy_with(&self, copier: &mut $crate::nn::Copier) -> $crate::Result<::std::boxed::Box<dyn $crate::nn::Module>> {
            let _ = &copier;
            // Without `..`: every field has to be named.
            Ok(::std::boxed::Box::new(Self {
                $($field: $crate::visit_fields!(@copy copier self $kind $field $($rest)*),)*
            }))
        }
    };

    (@visit $visitor:tt $this:tt field $field:tt $name:expr) => {
        $visitor.field($name, &$this.$field)
    };
    (@visit $visitor:tt $this:tt skip $field:tt) => {};
    (@visit $visitor:tt $this:tt layer $field:tt) => {
        $visitor.layer(&$this.$field, $this)
    };
    (@visit $visitor:tt $this:tt each $field:tt $index:ident $name:expr) => {
        for ($index, child) in $this.$field.iter().enumerate() {
            $visitor.field(&::std::string::String::from($name), child);
        }
    };

    (@part $parts:tt $this:tt field $field:tt $name:expr) => {
        $parts.field($name, &$this.$field)
    };
    (@part $parts:tt $this:tt each $field:tt $index:ident $name:expr) => {
        for ($index, child) in $this.$field.iter().enumerate() {
            $parts.field(&::std::string::String::from($name), child);
        }
    };
    (@part $parts:tt $this:tt $kind:tt $field:tt) => {};

    (@part_mut $parts:tt $this:tt field $field:tt $name:expr) => {
        $parts.field($name, &mut $this.$field)
    };
    (@part_mut $parts:tt $this:tt each $field:tt $index:ident $name:expr) => {
        for ($index, child) in $this.$field.iter_mut().enumerate() {
            $parts.field(&::std::string::String::from($name), child);
        }
    };
    (@part_mut $parts:tt $this:tt $kind:tt $field:tt) => {};

    (@copy $copier:tt $this:tt field $field:tt $name:expr) => {
        $copier.field(&$this.$field)?
    };
    (@copy $copier:tt $this:tt each $field:tt $index:ident $name:expr) => {
        $this.$field.iter().map(|child| $copier.field(child)).collect::<$crate::Result<::std::vec::Vec<_>>>()?
    };
    (@copy $copier:tt $this:tt $kind:tt $field:tt) => {
        ::std::clone::Clone::clone(&$this.$field)
    };

    ($visitor:ident, $this:ident; $($fields:tt)*) => {
        $crate::visit_fields!(@list {walk $visitor $this} [] $($fields)*);
    };
    ($($fields:tt)*) => {
        $crate::visit_fields!(@list {methods} [] $($fields)*);
    };
}

/// Writes what [`visit_fields!`] writes, for a module whose children have computed names or are
/// optional. Takes a pattern that destructures the module, code that names its fields and works on
/// shared and on mutable references alike, and a copy built from these fields.
macro_rules! visit_with {
    (|$pattern:pat_param, $visitor:ident| $walk:block, |$copier:ident| $copy:block) => {
        #[allow(unused_variables)]
        fn visit(&self, $visitor: &mut crate::nn::Visitor<'_>) {
            let $pattern = self;
            $walk
        }

        #[allow(unused_variables)]
        fn parts<'m>(&'m self, $visitor: &mut crate::nn::Parts<'m>) {
            let $pattern = self;
            $walk
        }

        #[allow(unused_variables)]
        fn parts_mut<'m>(&'m mut self, $visitor: &mut crate::nn::PartsMut<'m>) {
            let $pattern = self;
            $walk
        }

        fn copy_with(&self, $copier: &mut crate::nn::Copier) -> crate::Result<Box<dyn crate::nn::Module>> {
            let $pattern = self;
            Ok(Box::new($copy))
        }
    };
}
pub(crate) use visit_with;

/// Implements the two traits of a layer without parameters, whose fields besides the path are
/// options.
macro_rules! stateless {
    ($($name:ident { $($option:ident),* }, |$layer:ident| $describe:expr, |$x:ident| $forward:expr;)*) => {$(
        impl crate::nn::Layer for $name {
            fn describe(&self) -> String {
                let $layer = self;
                $describe
            }
        }

        impl crate::nn::Module for $name {
            fn forward(&self, $x: &crate::Tensor) -> crate::Result<crate::Tensor> {
                let $layer = self;
                self.path.scope(self, $x, || $forward)
            }

            crate::visit_fields!(layer path, skip($($option),*));
        }
    )*};
}
pub(crate) use stateless;

/// Defines a layer without options: the type, and a constant of the same name, each use of which is
/// a new layer.
macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident, |$x:ident| $forward:expr;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Default)]
            pub struct $name {
                path: crate::nn::LayerPath,
            }

            #[doc = concat!("A new [`struct@", stringify!($name), "`].")]
            // Each use of the constant is a new layer with its own path, as intended.
            #[allow(non_upper_case_globals, clippy::declare_interior_mutable_const)]
            pub const $name: $name = $name { path: crate::nn::LayerPath::new() };
        )*
        crate::nn::module::macros::stateless! {
            $($name {}, |_layer| stringify!($name).to_string(), |$x| $forward;)*
        }
    };
}
pub(crate) use plain;
