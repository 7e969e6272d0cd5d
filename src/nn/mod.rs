//! Layers, and what networks are put together with.

mod parameter;

pub use parameter::Parameter;
