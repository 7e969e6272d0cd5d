//! Pictures in Parquet files, written by pyarrow (`tests/fixtures/parquet.py`).

use convnet::data::ParquetImages;

use super::*;

const PICTURES: &str = "tests/fixtures/pictures.parquet";
const PLAIN: &str = "tests/fixtures/plain.parquet";

fn brightness(dataset: &ParquetImages, index: usize) -> (u8, i64) {
    let (image, label) = dataset.get(index, &mut rng()).unwrap();
    assert_eq!(image.shape(), [3, 2, 3]);
    ((image.pixels()[17] * 255.0).round() as u8, label)
}

#[test]
fn pictures_labels_and_names_come_from_several_row_groups_and_files() {
    let dataset = ParquetImages::options().cached_groups(1).open([PICTURES, PICTURES]).unwrap();
    assert_eq!((dataset.len(), dataset.classes()), (10, vec!["cat".to_string(), "dog".to_string()]));
    assert_eq!(dataset.labels(), [0, 1, 0, 1, 0, 0, 1, 0, 1, 0]);
    for index in [9, 0, 4, 2, 5, 3, 8, 1, 7, 6] {
        assert_eq!(brightness(&dataset, index), (40 * (index % 5) as u8, (index % 5 % 2) as i64));
    }
    assert_eq!(dataset.name(8), format!("{PICTURES} (row 3)"));
    assert!(complaint(dataset.get(10, &mut rng())).contains("no sample 10"));
}

#[test]
fn plain_pictures_with_named_labels_get_classes_in_order() {
    let dataset = ParquetImages::options().image("picture").label("kind").open([PLAIN]).unwrap();
    assert_eq!((dataset.labels(), dataset.classes()), (vec![1, 0, 1, 0, 1], vec!["ant".to_string(), "owl".to_string()]));
    assert_eq!(brightness(&dataset, 3), (120, 0));
    assert_complains(ParquetImages::open([PLAIN]), PLAIN, "no column `image`; there are picture, kind");
    assert_complains(ParquetImages::open([PICTURES, PLAIN]), PLAIN, "no column");
    assert!(complaint(ParquetImages::open::<&str>([])).contains("at least one file"));
}

#[test]
fn page_that_claims_too_much_and_compression_that_is_not_read_are_errors() {
    let gzip = ParquetImages::options().image("picture").label("kind").open(["tests/fixtures/gzip.parquet"]);
    assert_complains(gzip, "gzip.parquet", "write the file with Snappy");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.parquet");
    let mut bytes = fs::read(PICTURES).unwrap();
    // The first page is at 4. Uncompressed 2³¹ - 1 bytes, compressed 1, a data page of 3 plain
    // values.
    let header = [0x15, 0, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 2, 0x2c, 0x15, 6, 0x15, 0, 0x15, 6, 0x15, 6, 0, 0];
    bytes[4..4 + header.len()].copy_from_slice(&header);
    fs::write(&path, bytes).unwrap();
    let dataset = ParquetImages::open([&path]).unwrap();
    let message = complaint(dataset.get(0, &mut rng()));
    assert!(message.contains("hostile.parquet") && message.contains("more bytes of memory"), "{message}");
}

#[test]
fn workers_read_the_same_batches_as_the_calling_thread() {
    let labels = |workers| {
        let loader = DataLoader::new(ParquetImages::open([PICTURES, PICTURES]).unwrap(), 3).shuffle(1).workers(workers);
        let batches = loader.epoch(0).map(|batch| batch.unwrap());
        batches.map(|batch| batch.images.to_vec::<f32>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(labels(0), labels(3));
}

#[test]
fn damaged_files_are_read_or_are_errors_but_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.parquet");
    let good = fs::read(PICTURES).unwrap();
    let read = |bytes: &[u8]| -> Result<()> {
        fs::write(&path, bytes).unwrap();
        let dataset = ParquetImages::open([&path])?;
        (0..dataset.len()).try_for_each(|index| dataset.get(index, &mut rng()).map(drop))
    };
    read(&good).unwrap();
    for length in (0..good.len()).step_by(7) {
        assert!(read(&good[..length]).is_err(), "{length} bytes");
    }
    let mut errors = 0;
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= [0xff, 1, 0x80][at % 3];
        errors += usize::from(read(&bytes).is_err());
    }
    assert!(errors > good.len() / 4, "{errors} of {} files with a changed byte are errors", good.len());
}
