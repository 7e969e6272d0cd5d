#![no_main]

use std::sync::LazyLock;
use std::{env, fs, process};

use convnet::data::{Dataset, ImageList, ImageListOptions};
use convnet_fuzz::{explained, read_file};

/// Paths are relative to a folder with the files `a` and `b`.
static OPTIONS: LazyLock<ImageListOptions> = LazyLock::new(|| {
    let folder = env::temp_dir().join(format!("convnet-fuzz-{}-pictures", process::id()));
    fs::create_dir_all(&folder).expect("the temporary folder can be written to");
    ["a", "b"].into_iter().for_each(|name| fs::write(folder.join(name), "").expect("the folder can be written to"));
    ImageList::options().root(folder)
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| read_file(bytes, "csv", |path| {
    let all = [
        OPTIONS.class_labels(path).map(|list| list.len()),
        OPTIONS.class_names(path).map(|list| list.len()),
        OPTIONS.vectors(path).map(|list| list.len()),
        OPTIONS.multi_labels(path).map(|list| list.len()),
    ];
    all.iter().filter_map(|list| list.as_ref().err()).for_each(explained);
}));
