//! The interface between an optimiser's options and its groups of parameters.

use std::fmt;

use crate::error::Result;
use crate::kernels::runtime::simd::Real;

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

/// The options of an optimiser, and its update with them.
pub trait UpdateRule: Clone + Send + fmt::Debug + 'static {
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
    /// Returns the learning rate.
    fn learning_rate(&mut self) -> &mut f64;
    /// Returns the momentum or its counterpart.
    fn momentum(&mut self) -> Option<&mut f64>;
    /// Calls the visitor with each option and its name; flags are 0 and 1.
    fn visit(&mut self, visitor: &mut dyn FnMut(&'static str, &mut f64));
    /// Updates one parameter in place; state tensors that are not needed are empty.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) when memory cannot hold temporary data.
    fn update<T: Real>(&self, progress: &mut Progress, parameter: &mut [T], gradient: &[T], state: [&mut [T]; MAX_SLOTS]) -> Result<()>;
}

/// Calls the visitor with a flag as a number; for [`UpdateRule::visit`].
pub(crate) fn visit_flag(name: &'static str, flag: &mut bool, visitor: &mut dyn FnMut(&'static str, &mut f64)) {
    let mut value = f64::from(u8::from(*flag));
    visitor(name, &mut value);
    *flag = value != 0.0;
}
