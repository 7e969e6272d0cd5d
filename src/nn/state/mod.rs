//! A network's state by name, and the safetensors files that store it.

pub(crate) mod safetensors;
pub(crate) mod state_dict;

pub use state_dict::{LoadReport, StateDict, StateDifference};
