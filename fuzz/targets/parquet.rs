#![no_main]

use std::panic;
use std::sync::Once;

use convnet::data::{Dataset, ParquetImages, Rng};
use convnet_fuzz::{explained, read_file};

/// Panics inside of the crate `parquet` are caught and become errors: they must not end the process
/// from the hook. Others still end it.
static HOOK: Once = Once::new();

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    HOOK.call_once(|| panic::set_hook(Box::new(|_| {})));
    match read_file(bytes, "parquet", |path| ParquetImages::open([path])) {
        Ok(dataset) => {
            let errors = (0..dataset.len()).filter_map(|index| dataset.get(index, &mut Rng::new(0)).err());
            errors.for_each(|error| explained(&error));
        }
        Err(error) => explained(&error),
    }
});
