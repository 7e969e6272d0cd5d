//! Mutated files: whatever a file holds, reading it gives a value or an error, in time and memory in
//! proportion to its length. The seed is fixed. An ordinary run takes a few hundred files of each
//! kind; this takes 20,000 and prints figures:
//!
//! ```text
//! CONVNET_FUZZ=20000 cargo test --all-features --test fuzz -- --nocapture
//! ```

mod idx;
mod mutate;
#[cfg(feature = "image")]
mod pictures;
