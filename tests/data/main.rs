//! Datasets, transforms and the loader, on files made here and on the embedded digits. With
//! `--ignored`, on real MNIST in `data/mnist` or the directory that `CONVNET_MNIST` names.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use convnet::data::{Batch, Compose, DataLoader, Dataset, Digits, FashionMnist, Image, Mnist, Normalize, Resize, Rng, idx};
use convnet::{DType, Error, Result, Tensor};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

mod datasets;
mod loading;
#[cfg(feature = "parquet")]
mod parquet_files;
#[cfg(feature = "image")]
mod picture_files;
#[cfg(feature = "image")]
mod pictures;
mod transforms_color;
mod transforms_geometry;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn idx_file(code: u8, dims: &[u32], data: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, code, dims.len() as u8];
    dims.iter().for_each(|dim| file.extend(dim.to_be_bytes()));
    file.extend(data);
    file
}

fn images(count: u32) -> Vec<u8> {
    let data: Vec<u8> = (0..count * 6).map(|i| (i % 256) as u8).collect();
    idx_file(8, &[count, 2, 3], &data)
}

fn labels(count: u32) -> Vec<u8> {
    let data: Vec<u8> = (0..count).map(|i| (i % 10) as u8).collect();
    idx_file(8, &[count], &data)
}

/// A directory with a training set of these contents.
fn mnist_dir(images: &[u8], labels: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("train-images-idx3-ubyte"), images).unwrap();
    fs::write(dir.path().join("train-labels-idx1-ubyte"), labels).unwrap();
    dir
}

/// Makes an image of a tensor `[H, W, C]` or `[H, W]`.
fn image_of(tensor: &Tensor) -> Image {
    let shape = [tensor.shape().get(2).copied().unwrap_or(1), tensor.shape()[0], tensor.shape()[1]];
    match tensor.dtype() {
        DType::U8 => Image::from_bytes(shape, tensor.to_vec().unwrap()).unwrap(),
        _ => Image::from_floats(shape, tensor.to_vec().unwrap()).unwrap(),
    }
}

fn complaint<T>(result: Result<T>) -> String {
    result.err().expect("an error").to_string()
}

fn assert_complains<T>(result: Result<T>, path: &str, words: &str) {
    let message = complaint(result);
    assert!(message.contains(path) && message.contains(words), "{message:?} should name {path:?} and say {words:?}");
}

#[test]
fn images_and_labels_come_out_as_they_are_in_the_file() {
    let dir = mnist_dir(&images(25), &labels(25));
    let mnist = Mnist::train(dir.path()).unwrap();
    assert_eq!(mnist.len(), 25);
    assert_eq!(mnist.classes()[7], "7");
    let (image, label) = mnist.get(13, &mut rng()).unwrap();
    assert_eq!((image.shape(), label), ([1, 2, 3], 3));
    let expected: Vec<f32> = (78..84u8).map(|byte| f32::from(byte) / 255.0).collect();
    assert_eq!(image.pixels(), expected);
    assert_eq!(complaint(mnist.get(25, &mut rng())), "Mnist: there is no sample 25, the dataset has 25");
}

#[test]
fn plain_and_gzip_files_are_found_under_each_of_their_names() {
    for folder in ["", "MNIST/raw"] {
        for (dot, gz) in [("-", false), ("-", true), (".", false), (".", true)] {
            let dir = tempfile::tempdir().unwrap();
            let place = dir.path().join(folder);
            fs::create_dir_all(&place).unwrap();
            for (stem, content) in [("t10k-images", images(4)), ("t10k-labels", labels(4))] {
                let kind = if stem.ends_with("images") { "idx3" } else { "idx1" };
                let (content, end) = if gz { (gzip(&content), ".gz") } else { (content, "") };
                fs::write(place.join(format!("{stem}{dot}{kind}-ubyte{end}")), content).unwrap();
            }
            assert_eq!(Mnist::test(dir.path()).unwrap().len(), 4);
            assert_eq!(FashionMnist::test(dir.path()).is_ok(), folder.is_empty());
        }
    }
}

#[test]
fn missing_files_are_an_error_that_says_how_to_get_them() {
    let dir = tempfile::tempdir().unwrap();
    let result = Mnist::train(dir.path());
    assert!(matches!(&result, Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound));
    assert_complains(result, dir.path().to_str().unwrap(), "Mnist::download");
    assert_complains(FashionMnist::test("/nowhere/at/all"), "/nowhere/at/all", "t10k-labels-idx1-ubyte.gz");
}

#[test]
fn a_directory_in_place_of_a_file_is_an_error_unless_there_is_a_file_too() {
    let dir = mnist_dir(&images(3), &labels(3));
    let path = dir.path().join("train-images-idx3-ubyte");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_complains(Mnist::train(dir.path()), "train-images-idx3-ubyte", "this is a directory");
    assert_complains(idx::read(&path), "train-images-idx3-ubyte", "this is a directory");
    fs::write(dir.path().join("train-images.idx3-ubyte"), images(3)).unwrap();
    assert_eq!(Mnist::train(dir.path()).unwrap().len(), 3);
}

#[test]
fn a_damaged_image_file_is_an_error_that_names_it() {
    let good = images(20);
    let mut wrong_magic = good.clone();
    wrong_magic[0] = 0x50;
    let mut wrong_type = good.clone();
    wrong_type[2] = 0x0A;
    let mut lying = good.clone();
    lying[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut flipped = gzip(&good);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let mut checksum = gzip(&good);
    let at = checksum.len() - 6;
    checksum[at] ^= 1;
    let cases: [(&[u8], &str); 16] = [
        (&[], "truncated"),
        (&good[..3], "ends within the IDX header"),
        (&good[..9], "ends within the IDX header"),
        (&good[..good.len() - 1], "truncated: shape [20, 2, 3] takes 120 bytes of data, the file has 119"),
        (&[&good[..], &[0]].concat(), "oversized: shape [20, 2, 3] takes 120 bytes of data, the file has 121"),
        (&wrong_magic, "it starts with [50, 00, 08, 03]"),
        (&wrong_type, "0x0a is no element type"),
        (&lying, "more than the limit"),
        (&labels(20), "expected images as unsigned bytes with 3 dimensions"),
        (&idx_file(0x0B, &[20, 2, 3], &[0; 240]), "the header says I16"),
        (&images(19), "19 images, but 20 labels"),
        (&idx_file(8, &[20, 0, 3], &[]), "no pixels"),
        (&gzip(&good)[..40], "truncated: the gzip stream ends early"),
        (&flipped, "train-images"),
        (&checksum, "the gzip stream is damaged"),
        (&[gzip(&good), b"garbage".to_vec()].concat(), "gzip stream"),
    ];
    for (content, words) in cases {
        let dir = mnist_dir(content, &labels(20));
        assert_complains(Mnist::train(dir.path()), "train-images-idx3-ubyte", words);
    }
}

#[test]
fn a_label_above_nine_is_an_error_that_says_where() {
    let mut wrong = labels(20);
    wrong[8 + 5] = 17;
    let dir = mnist_dir(&images(20), &wrong);
    assert_complains(Mnist::train(dir.path()), "train-labels-idx1-ubyte", "label 17 of sample 5 is not in 0..=9");
}

#[test]
fn a_wrong_header_costs_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lie");
    // 999 MB announced, 16 bytes present: refused before anything is allocated, plain or
    // compressed.
    let lie = idx_file(8, &[999_000, 1000], &[0; 16]);
    fs::write(&path, &lie).unwrap();
    assert_complains(idx::read(&path), "lie", "truncated");
    fs::write(&path, gzip(&lie)).unwrap();
    assert_complains(idx::read(&path), "lie", "a gzip file of this size holds at most");
}

#[test]
fn a_gzip_bomb_is_read_no_further_than_its_header_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb");
    let mut bomb = idx_file(8, &[10], &[0; 10]);
    bomb.resize(64 << 20, 0);
    fs::write(&path, gzip(&bomb)).unwrap();
    assert_complains(idx::read(&path), "bomb", "oversized: it goes on after the 10 bytes");
    let honest = idx_file(8, &[64 << 20], &vec![0; 64 << 20]);
    fs::write(&path, gzip(&honest)).unwrap();
    assert_complains(idx::read_with_limit(&path, 1 << 20), "bomb", "more than the limit of 1048576 bytes");
}

#[test]
fn the_limit_counts_the_bytes_of_the_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for (code, size, becomes) in [(8, 1, 1), (9, 1, 8), (0x0B, 2, 8), (0x0C, 4, 8), (0x0D, 4, 4), (0x0E, 8, 8)] {
        for pack in [|content: Vec<u8>| content, |content: Vec<u8>| gzip(&content)] {
            fs::write(&path, pack(idx_file(code, &[100], &vec![0; 100 * size]))).unwrap();
            assert_eq!(idx::read_with_limit(&path, 100 * becomes).unwrap().numel(), 100, "{code:#x}");
            let message = complaint(idx::read_with_limit(&path, 100 * becomes - 1));
            let limit = format!("more than the limit of {} bytes", 100 * becomes - 1);
            assert!(message.contains(&limit) && message.ends_with("as i64") == (becomes > size as u64), "{message}");
        }
    }
    // 1 MB of gzip that unpacks to what its header says, a GiB of signed bytes, which would take 8
    // GiB: refused by the header.
    fs::write(&path, gzip(&idx_file(9, &[1 << 30], &[0; 1 << 20]))).unwrap();
    assert_complains(idx::read(&path), "file", "more than the limit of 1073741824 bytes as i64");
}

#[test]
fn a_size_of_zero_does_not_allow_huge_other_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let deep = [&[0][..], &[u32::MAX; 254]].concat();
    for dims in [&[0, u32::MAX, u32::MAX][..], &[u32::MAX, u32::MAX, 0], &[0, u32::MAX, 2], &deep] {
        for file in [idx_file(8, dims, &[]), gzip(&idx_file(8, dims, &[]))] {
            fs::write(&path, &file).unwrap();
            assert_complains(idx::read(&path), "file", "more than the limit");
            let dir = mnist_dir(&file, &labels(0));
            assert!(Mnist::train(dir.path()).is_err());
        }
    }
    fs::write(&path, idx_file(8, &[0, 28, 28], &[])).unwrap();
    assert_eq!(idx::read(&path).unwrap().shape(), [0, 28, 28]);
}

#[test]
fn gzip_that_inflates_to_almost_nothing_is_refused_without_reading_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nothing");
    let data = gzip(&idx_file(8, &[10], &[7; 10]));
    let empty = gzip(&[]);
    fs::write(&path, [empty.repeat(500_000), data.clone()].concat()).unwrap();
    assert_complains(idx::read(&path), "nothing", "members or more for 0 bytes of content");
    fs::write(&path, [data.clone(), empty.repeat(500_000)].concat()).unwrap();
    assert_complains(idx::read(&path), "nothing", "members or more for 18 bytes of content");
    // Stored blocks of length 0 within one member.
    let blocks = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255][..], &[0, 0, 0, 0xff, 0xff].repeat(2_000_000)].concat();
    fs::write(&path, blocks).unwrap();
    assert_complains(idx::read(&path), "nothing", "hold next to nothing");
    // A few empty members do no harm.
    fs::write(&path, [empty.repeat(20), data, empty.repeat(20)].concat()).unwrap();
    assert_eq!(idx::read(&path).unwrap().to_vec::<u8>().unwrap(), [7; 10]);
}

#[test]
fn every_element_type_of_idx_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let read = |code, dims: &[u32], data: &[u8]| {
        fs::write(&path, idx_file(code, dims, data)).unwrap();
        idx::read(&path).unwrap()
    };
    assert_eq!(read(8, &[2], &[1, 255]).to_vec::<u8>().unwrap(), [1, 255]);
    assert_eq!(read(9, &[2], &[1, 255]).to_vec::<i64>().unwrap(), [1, -1]);
    assert_eq!(read(0x0B, &[2], &[1, 0, 255, 254]).to_vec::<i64>().unwrap(), [256, -2]);
    assert_eq!(read(0x0C, &[1], &[255, 255, 255, 0]).to_vec::<i64>().unwrap(), [-256]);
    assert_eq!(read(0x0D, &[1, 1], &1.5f32.to_be_bytes()).to_vec::<f32>().unwrap(), [1.5]);
    let double = read(0x0E, &[1, 1, 1], &(-0.1f64).to_be_bytes());
    assert_eq!((double.shape(), double.to_vec::<f64>().unwrap()), (&[1, 1, 1][..], vec![-0.1]));
    assert_eq!(read(8, &[0, 7], &[]).shape(), [0, 7]);
    assert_eq!(read(8, &[], &[3]).item::<u8>().unwrap(), 3);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_make_the_reader_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..64),
        honest in any::<bool>(),
        packed in any::<bool>(),
    ) {
        if honest && bytes.len() > 4 {
            bytes[0] = 0;
            bytes[1] = 0;
            bytes[2] = 8 + bytes[2] % 7;
            bytes[3] %= 4;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), if packed { gzip(&bytes) } else { bytes }).unwrap();
        let _ = idx::read(file.path());
    }

    #[test]
    fn flipping_any_bit_of_a_gzip_file_is_noticed_or_harmless(byte in 0usize..70, bit in 0u8..8) {
        let mut packed = gzip(&labels(20));
        let byte = byte % packed.len();
        packed[byte] ^= 1u8 << bit;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), packed).unwrap();
        // Bits of the gzip header that carry no data (time, system) may flip unnoticed.
        if let Ok(tensor) = idx::read(file.path()) {
            prop_assert_eq!(tensor.to_vec::<u8>().unwrap(), &labels(20)[8..]);
        }
    }
}

#[test]
#[ignore = "needs MNIST in data/mnist or in CONVNET_MNIST"]
fn the_real_mnist_has_its_known_counts_and_mean() {
    let dir = std::env::var_os("CONVNET_MNIST").map_or_else(|| PathBuf::from("data/mnist"), PathBuf::from);
    let (train, test) = (Mnist::train(&dir).unwrap(), Mnist::test(&dir).unwrap());
    assert_eq!((train.len(), test.len()), (60_000, 10_000));
    let mut sum = 0.0;
    let mut counts = [0; 10];
    for batch in DataLoader::new(train, 1000).workers(1).epoch(0) {
        let Batch { images, labels } = batch.unwrap();
        sum += images.to_vec::<f32>().unwrap().into_iter().map(f64::from).sum::<f64>();
        labels.to_vec::<i64>().unwrap().into_iter().for_each(|label| counts[label as usize] += 1);
    }
    // The published mean, to the four digits it is published with.
    approx::assert_abs_diff_eq!(sum / (60_000.0 * 784.0), 0.1307, epsilon = 5e-5);
    assert_eq!(counts, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
}

#[test]
fn the_digits_are_those_of_the_archive() {
    let all = Digits::all();
    assert_eq!((all.len(), Digits::train().len(), Digits::test().len()), (1797, 1438, 359));
    let (image, label) = all.get(0, &mut rng()).unwrap();
    let first_rows = [0.0, 0.0, 5.0, 13.0, 9.0, 1.0, 0.0, 0.0, 0.0, 0.0, 13.0, 15.0, 10.0, 15.0, 5.0, 0.0].map(|x: f32| x / 16.0);
    assert_eq!((&image.pixels()[..16], label), (&first_rows[..], 0));
    // The counts that the archive's documentation gives for its test half.
    let mut counts = [0; 10];
    (0..1797).for_each(|i| counts[all.get(i, &mut rng()).unwrap().1 as usize] += 1);
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
}

#[test]
fn every_fifth_digit_is_for_testing() {
    let (all, train, test) = (Digits::all(), Digits::train(), Digits::test());
    let pixels = |digits: &Digits, i| digits.get(i, &mut rng()).unwrap().0.pixels().to_vec();
    assert_eq!(pixels(&test, 7), pixels(&all, 7 * 5 + 4));
    assert_eq!(pixels(&train, 7), pixels(&all, 8));
}

/// A generator for samples that draw nothing.
fn rng() -> Rng {
    Rng::new(0)
}

/// Samples that differ: the label is the index, pixels count from it.
struct Counting(usize);

impl Dataset for Counting {
    type Sample = (Image, i64);

    fn len(&self) -> usize {
        self.0
    }

    fn get(&self, index: usize, _: &mut Rng) -> Result<(Image, i64)> {
        let pixels = (0..12).map(|i| (index * 12 + i) as f32).collect();
        Ok((Image::from_tensor(&Tensor::from_vec(pixels, [3, 2, 2])?)?, index as i64))
    }
}

fn noise(image: &mut Image, random: &mut Rng) -> Result<()> {
    image.pixels_mut().iter_mut().for_each(|x| *x += random.unit() as f32);
    Ok(())
}

/// All labels and pixels of an epoch.
fn content(loader: &DataLoader, epoch: u64) -> (Vec<Vec<i64>>, Vec<f32>) {
    let batches: Vec<Batch> = loader.epoch(epoch).collect::<Result<_>>().unwrap();
    let labels = batches.iter().map(|batch| batch.labels.to_vec().unwrap()).collect();
    (labels, batches.iter().flat_map(|batch| batch.images.to_vec::<f32>().unwrap()).collect())
}

#[test]
fn batches_come_in_order_and_the_last_may_be_smaller() {
    let loader = DataLoader::new(Counting(10), 4);
    let (labels, pixels) = content(&loader, 0);
    assert_eq!(labels, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
    // Logical order is [C, H, W] for each sample, whatever the memory format.
    assert_eq!(pixels, (0..120).map(|i| i as f32).collect::<Vec<_>>());
    assert_eq!(loader.len(), 3);
    let loader = loader.drop_last(true);
    assert_eq!((loader.len(), content(&loader, 0).0.len()), (2, 2));
    assert_eq!(DataLoader::new(Counting(3), 4).drop_last(true).epoch(0).count(), 0);
    assert_eq!(content(&DataLoader::new(Counting(3), usize::MAX), 0).0, [[0, 1, 2]]);
}

#[test]
fn the_same_seed_gives_the_same_batches_whatever_the_number_of_workers() {
    let loader = |workers| DataLoader::new(Counting(103), 8).shuffle(7).transform(noise).workers(workers);
    let expected = content(&loader(0), 3);
    for workers in [1, 2, 3, 8, 1000] {
        for prefetch in [0, 1, 5] {
            assert!(content(&loader(workers).prefetch(prefetch), 3) == expected, "{workers} workers, {prefetch} ahead");
        }
    }
    assert_ne!(content(&loader(2), 4), expected, "another epoch is in another order");
    assert_ne!(content(&loader(2).shuffle(8), 3), expected, "another seed is another order");
}

#[test]
fn a_shuffled_epoch_has_every_sample_once() {
    let mut labels = content(&DataLoader::new(Counting(1000), 7).shuffle(1).workers(2), 0).0.concat();
    assert!(!labels.is_sorted());
    labels.sort_unstable();
    assert!(labels.into_iter().eq(0..1000));
}

#[test]
fn a_samples_noise_does_not_depend_on_its_place_in_the_epoch() {
    let loader = DataLoader::new(Counting(20), 4).transform(noise);
    let plain = content(&loader, 2).1;
    let (order, shuffled) = content(&loader.clone().shuffle(0), 2);
    for (place, index) in order.concat().into_iter().enumerate() {
        assert_eq!(shuffled[place * 12..][..12], plain[index as usize * 12..][..12]);
    }
    assert_ne!(content(&loader, 3).1, plain, "another epoch draws other noise");
}

#[test]
fn without_samples_there_are_no_batches() {
    for workers in [0, 2] {
        let loader = DataLoader::new(Counting(0), 4).shuffle(0).workers(workers);
        assert!(loader.is_empty() && loader.epoch(0).next().is_none());
    }
}

#[test]
fn batches_of_no_samples_are_an_error() {
    for workers in [0, 2] {
        let loader = DataLoader::new(Counting(5), 0).workers(workers);
        let mut epoch = loader.epoch(0);
        assert_eq!(complaint(epoch.next().unwrap()), "data loader: a batch needs at least one sample, got batches of 0");
        assert!(epoch.next().is_none() && loader.is_empty());
    }
}

/// A dataset that fails at sample 9.
struct Broken(fn() -> Result<(Image, i64)>);

impl Dataset for Broken {
    type Sample = (Image, i64);

    fn len(&self) -> usize {
        100
    }

    fn get(&self, index: usize, rng: &mut Rng) -> Result<(Image, i64)> {
        if index == 9 { (self.0)() } else { Counting(100).get(index, rng) }
    }
}

#[test]
fn what_goes_wrong_in_a_worker_ends_the_epoch_with_an_error() {
    let cases: [(Broken, &str); 5] = [
        (Broken(|| panic!("of all things")), "sample 9: data loader: the dataset or a transform panicked: of all things"),
        (Broken(|| Counting(0).get(0, &mut rng()).and(Err(Error::Training("no luck".into())))), "sample 9: training: no luck"),
        (
            Broken(|| Ok((Image::new(3, 2, 1)?, 0))),
            "batch 2 of samples 8, 9, 10, 11: collate: image 1 of the batch is [3, 2, 1], the first is [3, 2, 2]; `Resize` makes them alike",
        ),
        (
            Broken(|| Ok((Image::from_tensor(&Tensor::zeros([1, 3, 2, 2]))?, 0))),
            "sample 9: image: expected shape [C, H, W], got [1, 3, 2, 2]",
        ),
        (
            Broken(|| Ok((Image::from_tensor(&Tensor::full([3, 2, 2], 0.0, DType::F64))?, 0))),
            "sample 9: image: expected f32 or u8, got f64; convert with `.to_dtype(DType::F32)`",
        ),
    ];
    for (dataset, words) in cases {
        let dataset = Arc::new(dataset);
        for workers in [0, 1, 4] {
            let mut epoch = DataLoader::new(Arc::clone(&dataset), 4).workers(workers).epoch(0);
            assert!(epoch.next().unwrap().is_ok() && epoch.next().unwrap().is_ok());
            let message = complaint(epoch.next().unwrap());
            assert!(message.contains(words), "{message:?} should say {words:?}");
            assert!(epoch.next().is_none(), "nothing follows an error");
        }
    }
}

/// A dataset that counts the samples read and its live handles.
struct Watched(Arc<AtomicUsize>);

impl Dataset for Watched {
    type Sample = (Image, i64);

    fn len(&self) -> usize {
        1_000_000
    }

    fn get(&self, index: usize, rng: &mut Rng) -> Result<(Image, i64)> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Counting(0).get(index, rng)
    }
}

/// A dataset whose images are noise: from the thread's generator, or from the sample's.
struct Noisy {
    of_tensors: bool,
}

impl Dataset for Noisy {
    type Sample = (Image, i64);

    fn len(&self) -> usize {
        50
    }

    fn get(&self, index: usize, rng: &mut Rng) -> Result<(Image, i64)> {
        if self.of_tensors {
            let noise = Tensor::randn([1, 3, 3]).add(&Tensor::rand([1, 3, 3]))?;
            return Ok((Image::from_tensor(&noise)?, index as i64));
        }
        let mut image = Image::new(1, 3, 3)?;
        image.pixels_mut().iter_mut().for_each(|x| *x = rng.unit() as f32);
        Ok((image, index as i64))
    }
}

#[test]
fn a_dataset_that_draws_random_numbers_gives_the_same_bits_whatever_the_number_of_workers() {
    for of_tensors in [false, true] {
        let loader = |workers, seed| DataLoader::new(Noisy { of_tensors }, 7).shuffle(seed).workers(workers).transform(noise);
        let expected = content(&loader(0, 3), 1);
        for workers in [0, 1, 3, 7] {
            assert!(content(&loader(workers, 3), 1) == expected, "{workers} workers, tensors: {of_tensors}");
        }
        // The noise of a sample is the same in another order and differs in another epoch.
        let by_sample = |(labels, pixels): (Vec<Vec<i64>>, Vec<f32>)| {
            let mut rows: Vec<(i64, Vec<f32>)> = labels.concat().into_iter().zip(pixels.chunks(9).map(<[f32]>::to_vec)).collect();
            rows.sort_by_key(|(label, _)| *label);
            rows
        };
        let in_order = DataLoader::new(Noisy { of_tensors }, 7).transform(noise);
        assert!(by_sample(content(&loader(2, 0), 1)) == by_sample(content(&in_order, 1)));
        let (first, other) = (by_sample(expected), by_sample(content(&loader(0, 3), 2)));
        assert!(first.iter().zip(&other).all(|((_, a), (_, b))| a != b));
        assert!((1..first.len()).all(|i| first[i].1 != first[0].1), "samples differ");
    }
}

#[test]
fn a_loader_on_the_calling_thread_leaves_the_threads_generator_where_it_was() {
    let after = |load: bool| {
        convnet::manual_seed(5);
        if load {
            content(&DataLoader::new(Noisy { of_tensors: true }, 7), 0);
        }
        Tensor::randn([4]).to_vec::<f32>().unwrap()
    };
    assert_eq!(after(true), after(false));
}

/// The first batch fails at its second sample, after the second batch has begun, whose samples are
/// slow.
struct Failing {
    asked: Arc<AtomicUsize>,
    begun: std::sync::Barrier,
}

impl Dataset for Failing {
    type Sample = (Image, i64);

    fn len(&self) -> usize {
        2000
    }

    fn get(&self, index: usize, rng: &mut Rng) -> Result<(Image, i64)> {
        match index {
            1 => {
                self.begun.wait();
                return Err(Error::Training("on purpose".into()));
            }
            1000 => {
                self.begun.wait();
            }
            _ => {}
        }
        if index >= 1000 {
            self.asked.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(2));
        }
        Counting(0).get(index, rng)
    }
}

#[test]
fn an_epoch_that_ends_stops_its_workers_between_samples() {
    let asked = Arc::new(AtomicUsize::new(0));
    let dataset = Failing { asked: Arc::clone(&asked), begun: std::sync::Barrier::new(2) };
    // The failure ends the epoch as dropping it does, and waits for the worker that makes the
    // second batch.
    assert!(DataLoader::new(dataset, 1000).workers(2).epoch(0).next().unwrap().is_err());
    // One sample or two; the whole batch takes two seconds, which is the slack for a busy machine.
    assert!(asked.load(Ordering::SeqCst) < 500, "{asked:?}");
    // Dropped before any batch is taken: at 10 ms a sample a batch would take 10 s.
    let slow = |_: &mut Image, _: &mut Rng| {
        std::thread::sleep(Duration::from_millis(10));
        Ok(())
    };
    let start = std::time::Instant::now();
    drop(DataLoader::new(Counting(2000), 1000).workers(2).transform(slow).epoch(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn dropping_an_epoch_early_stops_its_threads() {
    let asked = Arc::new(AtomicUsize::new(0));
    let loader = DataLoader::new(Watched(Arc::clone(&asked)), 10).workers(3);
    let mut epoch = loader.epoch(0);
    epoch.next().unwrap().unwrap();
    drop((epoch, loader));
    // The threads hold the dataset, so they have ended when only this handle is left.
    assert_eq!(Arc::strong_count(&asked), 1);
    assert!(asked.load(Ordering::SeqCst) <= 10 * (1 + 6));
    drop(DataLoader::new(Counting(100), 10).workers(2).epoch(0));
}

#[test]
fn workers_stay_within_the_bound_of_what_is_made_ahead() {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut epoch = DataLoader::new(Watched(Arc::clone(&asked)), 10).workers(2).prefetch(3).epoch(0);
    for taken in 1..=5 {
        epoch.next().unwrap().unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert!(asked.load(Ordering::SeqCst) <= 10 * (taken + 3), "{asked:?} samples after {taken} batches");
    }
}

#[test]
fn bytes_and_floats_from_a_dataset_mean_the_same() {
    let image = Image::from_tensor(&Tensor::from_vec(vec![0u8, 51, 102, 255], [2, 1, 2]).unwrap()).unwrap();
    assert_eq!(image.pixels()[..], [0.0, 0.4, 0.2, 1.0], "channels are side by side");
    assert_eq!(image.to_tensor().to_vec::<f32>().unwrap(), [0.0, 0.2, 0.4, 1.0]);
    assert!(Image::new(usize::MAX, 2, 2).is_err() && Image::new(1 << 20, 1 << 20, 1 << 15).is_err());
}

fn transformed(transform: &dyn convnet::data::Transform, tensor: Tensor) -> Result<Tensor> {
    let mut image = Image::from_tensor(&tensor)?;
    transform.apply(&mut image, &mut rng())?;
    Ok(image.to_tensor())
}

#[test]
fn normalize_treats_each_channel_by_its_own_numbers() {
    let x = Tensor::from_vec(vec![0.5f32, 1.0, 0.25, 0.75, 0.0, 0.125], [3, 1, 2]).unwrap();
    let y = transformed(&Normalize::new([0.5, 0.25, 0.0], [0.5, 0.25, -0.125]), x.clone()).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [0.0, 1.0, 0.0, 2.0, 0.0, -1.0]);
    let gray = transformed(&Normalize::new([0.1307], [0.3081]), Tensor::ones([1, 1, 1])).unwrap();
    assert_eq!(gray.item::<f32>().unwrap(), (1.0 - 0.1307f32) / 0.3081);
    let wrong = |mean: &[f64], std: &[f64]| complaint(transformed(&Normalize::new(mean, std), x.clone()));
    assert_eq!(
        wrong(&[0.5], &[0.5]),
        "normalize: 1 means and 1 standard deviations do not fit an image of 3 channels; give one of each for each channel"
    );
    assert_eq!(
        wrong(&[0.5; 3], &[0.5; 2]),
        "normalize: 3 means and 2 standard deviations do not fit an image of 3 channels; give one of each for each channel"
    );
    assert_eq!(wrong(&[0.5; 3], &[0.5, 0.0, 0.5]), "normalize: a standard deviation must be finite and not zero, got 0");
    assert!(wrong(&[0.5; 3], &[0.5, f64::NAN, 0.5]).contains("got NaN"));
    assert!(wrong(&[0.5, f64::INFINITY, 0.5], &[0.5; 3]).contains("a mean must be finite, got inf"));
}

#[test]
fn resize_agrees_with_torchvision() {
    // torch.nn.functional.interpolate(x, size, mode="bilinear", antialias=True) for x = (arange(2 *
    // 4 * 5) ** 2 % 17) as [1, 2, 4, 5].
    let x: Vec<f32> = (0..40).map(|i| (i * i % 17) as f32).collect();
    let x = Tensor::from_vec(x, [2, 4, 5]).unwrap();
    for (size, expected) in RESIZED {
        let y = transformed(&Resize::new(*size), x.clone()).unwrap();
        assert_eq!(y.shape(), [2, size[0], size[1]]);
        let expected = Tensor::from_slice(expected, y.shape()).unwrap();
        // Sums of at most 20 products near 16: a few units in the last place of f32.
        let agree = approx::abs_diff_eq!(y, expected, epsilon = 1e-5);
        assert!(agree, "{size:?}: {:?}", y.worst_difference(&expected));
    }
    for size in [[0, 3], [3, 0]] {
        assert!(complaint(transformed(&Resize::new(size), x.clone())).contains("cannot scale an image of 4×5 pixels"));
    }
    assert!(transformed(&Resize::new([usize::MAX, usize::MAX]), x).is_err());
}

const RESIZED: &[([usize; 2], &[f32])] = &[
    (
        [4, 5],
        &[
            0.0, 1.0, 4.0, 9.0, 16.0, 8.0, 2.0, 15.0, 13.0, 13.0, 15.0, 2.0, 8.0, 16.0, 9.0, 4.0, 1.0, 0.0, 1.0, 4.0, 9.0, 16.0, 8.0, 2.0,
            15.0, 13.0, 13.0, 15.0, 2.0, 8.0, 16.0, 9.0, 4.0, 1.0, 0.0, 1.0, 4.0, 9.0, 16.0, 8.0,
        ],
    ),
    (
        [7, 9],
        &[
            0.0, 0.333333, 0.888889, 2.333333, 4.0, 6.777778, 9.777778, 13.666667, 16.0, 2.857143, 2.357143, 1.52381, 4.277778, 7.928571,
            9.31746, 10.928571, 13.428571, 14.928571, 7.428571, 5.595238, 2.539683, 7.388889, 14.214286, 13.380952, 12.769841, 13.047619,
            13.214286, 11.5, 8.333333, 3.055556, 6.222222, 11.5, 13.166667, 14.111111, 12.166667, 11.0, 14.214286, 10.119048, 3.293651,
            4.373016, 7.428571, 11.595238, 14.230159, 10.738095, 8.642857, 7.928571, 5.738095, 2.087302, 2.02381, 2.857143, 4.801587,
            6.293651, 5.97619, 5.785714, 4.0, 3.0, 1.333333, 0.555556, 0.0, 0.555556, 1.333333, 3.0, 4.0, 9.0, 11.333333, 15.222222,
            12.444444, 8.0, 4.666667, 3.444444, 10.666667, 15.0, 10.428571, 11.928571, 14.428571, 12.960317, 10.5, 5.777778, 3.166667, 9.0,
            12.5, 12.714286, 12.880952, 13.15873, 13.785714, 14.5, 7.555556, 2.722222, 6.333333, 8.5, 14.5, 13.333333, 11.388889,
            10.333333, 9.5, 5.055556, 1.777778, 3.166667, 4.0, 14.928571, 12.833333, 9.34127, 6.738095, 4.357143, 3.087302, 1.904762,
            1.071429, 0.571429, 6.357143, 6.166667, 5.849206, 6.420635, 7.214286, 9.119048, 10.031746, 6.97619, 5.142857, 1.0, 2.0,
            3.666667, 6.222222, 9.0, 12.888889, 15.111111, 10.666667, 8.0,
        ],
    ),
    ([2, 3], &[3.857143, 8.111111, 12.857143, 5.979592, 5.47619, 8.163265, 12.571429, 9.253968, 6.428571, 8.408163, 7.619048, 5.857143]),
    (
        [3, 8],
        &[
            2.4, 1.91875, 1.675, 5.425, 8.20625, 10.01875, 12.95625, 15.1, 11.5, 7.34375, 2.59375, 8.53125, 12.4375, 14.3125, 12.53125,
            11.0, 7.3, 4.675, 1.36875, 2.05625, 3.36875, 5.30625, 5.5, 5.5, 10.2, 12.34375, 14.7875, 11.6625, 7.56875, 2.50625, 8.13125,
            12.9, 14.5, 12.96875, 10.90625, 9.96875, 7.0, 2.0, 2.90625, 4.0, 5.5, 5.5, 5.625, 6.875, 8.75, 11.25, 8.18125, 5.6,
        ],
    ),
    ([1, 1], &[7.399123, 8.381579]),
];

#[test]
fn transforms_in_a_tuple_in_compose_and_in_separate_calls_are_the_same() {
    let steps = || (Resize::new([6, 6]), Normalize::new([0.3], [0.4]));
    let first = |loader: DataLoader| loader.epoch(0).next().unwrap().unwrap().images.to_vec::<f32>().unwrap();
    let loader = || DataLoader::new(Digits::test(), 8);
    let expected = first(loader().transform(steps()));
    assert_eq!(first(loader().transform(Compose::new().push(steps().0).push(steps().1))), expected);
    assert_eq!(first(loader().transform(steps().0).transform(steps().1)), expected);
}
