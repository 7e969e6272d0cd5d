//! Observation of running operations: where time and memory go, which algorithms convolutions use.
//!
//! Operations and layers call [`hooks`]. [`profile()`] and [`explain()`] install observers there;
//! when none is active, a hook costs one thread-local check. [`watch`] passes on the outputs of
//! layers, [`record`] keeps the operations of a run for export.

mod explain;
pub(crate) mod hooks;
mod profile;
pub(crate) mod record;
pub(crate) mod watch;

pub use explain::{ConvChoice, Explanation, explain};
pub(crate) use explain::{describe_convolution, short_size};
pub use profile::{Cost, Profile, ProfileRow, profile};
