//! Files below the level of formats: whole reads, atomic replacement, gzip, tar, text tables,
//! downloads.

pub(crate) mod atomic_file;
#[cfg(feature = "download")]
pub(crate) mod download;
pub(crate) mod gzip;
mod read;
pub(crate) mod tar;
pub(crate) mod text_table;
mod unwritten;
mod write;

pub(crate) use read::read_file;
#[cfg(feature = "image")]
pub(crate) use read::read_start;
pub(crate) use unwritten::unwritten;
pub(crate) use write::write_file;
