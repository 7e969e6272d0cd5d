//! Inspection of networks without computing values: the module tree as text, layers with shapes and
//! costs, receptive fields, the graph of operations.

pub(crate) mod display;
pub(crate) mod graph;
pub(crate) mod receptive_field;
pub(crate) mod summary;

#[cfg(test)]
pub(crate) use receptive_field::tests::check as check_fields;
pub use receptive_field::{ReceptiveField, ReceptiveFields};
pub use summary::{Summary, SummaryRow};
