//! A network's values by name, and the safetensors files that they are kept in.

pub(crate) mod safetensors;
pub(crate) mod state_dict;

pub use state_dict::{LoadReport, StateDict, StateDifference};
