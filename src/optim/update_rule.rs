//! The interface between an optimiser's options and its groups of parameters.

use std::fmt;

use crate::error::Result;
use crate::kernels::runtime::simd::Real;

/// Declares the options of an optimiser: the struct, `new` with the defaults, a setter for each
/// option, and [`Options`], so that none of them can be forgotten.
///
/// Options are numbers, flags (`bool`) and the two betas (`[f64; 2]`). The docs of an option are
/// those of its field and of its setter. Some optimisers come in two forms, by a constant flag.
macro_rules! options {
    (
        $(#[$of_struct:meta])*
        $options:ident $(<const $form:ident>)?
        $(#[$of_new:meta])*
        new {
            $($(#[$doc:meta])* $name:ident: $kind:tt = $default:expr,)*
        }
    ) => {
        $(#[$of_struct])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $options $(<const $form: bool>)? {
            /// The learning rate, at least 0.
            pub learning_rate: f64,
            $($(#[$doc])* pub $name: $kind,)*
            /// Whether the loss is to grow: gradients count with the opposite sign; false by
            /// default.
            pub maximize: bool,
        }

        impl $(<const $form: bool>)? $crate::optim::GroupedOptimizer<$options $(<$form>)?> {
            $(#[$of_new])*
            pub fn new(parameters: impl IntoIterator<Item = $crate::nn::Parameter>, learning_rate: f64) -> Self {
                Self::with_options(parameters, $options { learning_rate, $($name: $default,)* maximize: false })
            }

            /// Sets `maximize`: whether the loss is to grow. Gradients then count with the opposite
            /// sign; weight decay still makes weights smaller.
            #[must_use]
            pub fn maximize(self, maximize: bool) -> Self {
                self.set(|options| options.maximize = maximize)
            }

            $($crate::optim::update_rule::options! { @setter $(#[$doc])* $name $kind })*
        }

        impl $(<const $form: bool>)? $crate::optim::update_rule::Options for $options $(<$form>)? {
            fn learning_rate(&mut self) -> &mut f64 {
                &mut self.learning_rate
            }

            fn visit(&mut self, visitor: &mut dyn FnMut(&'static str, &mut f64)) {
                visitor("learning_rate", &mut self.learning_rate);
                $($crate::optim::update_rule::options! { @visit self visitor $name $kind })*
                $crate::optim::update_rule::options! { @visit self visitor maximize bool }
            }

            fn maximize(&self) -> bool {
                self.maximize
            }
        }
    };

    (@setter $(#[$doc:meta])* $name:ident [f64; 2]) => {
        #[doc = concat!("Sets `", stringify!($name), "`.")]
        #[doc = ""]
        $(#[$doc])*
        #[must_use]
        pub fn $name(self, first: f64, second: f64) -> Self {
            self.set(|options| options.$name = [first, second])
        }
    };
    (@setter $(#[$doc:meta])* $name:ident $kind:tt) => {
        #[doc = concat!("Sets `", stringify!($name), "`.")]
        #[doc = ""]
        $(#[$doc])*
        #[must_use]
        pub fn $name(self, $name: $kind) -> Self {
            self.set(|options| options.$name = $name)
        }
    };

    (@visit $self:ident $visitor:ident $name:ident f64) => {
        $visitor(stringify!($name), &mut $self.$name);
    };
    (@visit $self:ident $visitor:ident $name:ident bool) => {
        let mut value = f64::from(u8::from($self.$name));
        $visitor(stringify!($name), &mut value);
        $self.$name = value != 0.0;
    };
    (@visit $self:ident $visitor:ident betas [f64; 2]) => {
        $visitor("beta1", &mut $self.betas[0]);
        $visitor("beta2", &mut $self.betas[1]);
    };
}

pub(crate) use options;

/// The largest number of state tensors of a parameter.
pub(crate) const MAX_SLOTS: usize = 3;

/// The progress of a parameter.
pub struct Progress {
    /// The number of updates of this parameter, this one included.
    pub(crate) step: u64,
    /// Whether the state tensors were made for this update.
    pub(crate) fresh: bool,
    /// The number that a rule with a [`NUMBER`](UpdateRule::NUMBER) keeps; 1 at first.
    pub(crate) number: f64,
    /// The factor of the gradient by which [`max_norm`](UpdateRule::max_norm) is kept.
    pub(crate) clip: f64,
}

/// The options of an optimiser as numbers with names; implemented by the macro [`options`].
pub trait Options {
    /// Returns the learning rate.
    fn learning_rate(&mut self) -> &mut f64;
    /// Returns whether gradients count with the opposite sign.
    fn maximize(&self) -> bool;
    /// Calls the visitor with each option and its name; flags are 0 and 1.
    fn visit(&mut self, visitor: &mut dyn FnMut(&'static str, &mut f64));
}

/// The update of an optimiser with its options.
pub trait UpdateRule: Options + Clone + Send + fmt::Debug + 'static {
    /// The optimiser's name in messages and snapshots.
    const NAME: &'static str;
    /// Names of the state tensors.
    const SLOTS: &'static [&'static str];
    /// The name of a number that is kept for each parameter beside the state tensors, if any.
    const NUMBER: Option<&'static str> = None;

    /// Checks that all options are in range.
    fn check(&self) -> Result<()>;
    /// Returns which of the state tensors these options need.
    fn needs(&self) -> [bool; MAX_SLOTS];
    /// Returns the initial value of the state tensors.
    fn initial(&self) -> f64 {
        0.0
    }
    /// Returns the largest norm of the gradients of all groups together; the update scales larger
    /// ones down by [`Progress::clip`].
    fn max_norm(&self) -> f64 {
        f64::INFINITY
    }
    /// Returns the momentum or its counterpart.
    fn momentum(&mut self) -> Option<&mut f64> {
        None
    }
    /// Updates one parameter in place; state tensors that are not needed are empty.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) when memory cannot hold temporary data.
    fn update<T: Real>(&self, progress: &mut Progress, parameter: &mut [T], gradient: &[T], state: [&mut [T]; MAX_SLOTS]) -> Result<()>;
}
