#![no_main]

use convnet::data::SeriesFile;
use convnet_fuzz::{explained, read_file, visit};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| match read_file(bytes, "ts", |path| SeriesFile::open(path)) {
    Ok(file) => {
        visit(file.series());
        let errors = [file.labels().err(), file.numbers().err()];
        errors.iter().flatten().for_each(explained);
    }
    Err(error) => explained(&error),
});
