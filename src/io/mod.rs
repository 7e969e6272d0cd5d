//! Files below the level of formats: atomic replacement, gzip, text tables, downloads.

pub(crate) mod atomic_file;
#[cfg(feature = "download")]
pub(crate) mod download;
pub(crate) mod gzip;
pub(crate) mod text_table;
