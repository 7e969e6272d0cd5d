//! CIFAR, parts of datasets, tables of tensors, lists and folders of pictures, on files made here.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use convnet::data::{
    Cached, Cifar10, Cifar100, Collate, Concat, DataLoader, Dataset, Digits, Image, Rng, Subset, TensorDataset, k_folds, random_split,
    stratified_k_folds, stratified_split,
};
use convnet::{DType, Error, Result, Tensor};

use super::{assert_complains, complaint, gzip};

/// A byte of picture `number` of a file that begins with `start`.
fn pixel(start: u8, number: usize, at: usize) -> u8 {
    (usize::from(start) + 7 * number + at) as u8
}

fn planes(start: u8, number: usize) -> Vec<u8> {
    (0..3072).map(|at| pixel(start, number, at)).collect()
}

/// Records of these labels in front of pictures.
fn binary(start: u8, labels: &[&[u8]]) -> Vec<u8> {
    labels.iter().enumerate().flat_map(|(number, labels)| [labels.to_vec(), planes(start, number)].concat()).collect()
}

fn pickled_text(text: &[u8]) -> Vec<u8> {
    [&[b'U', text.len() as u8], text].concat()
}

/// A batch as Python 2 pickled it (protocol 2): a dict with lists of labels and an array of bytes.
fn python2(start: u8, labels: &[(&str, &[u8])]) -> Vec<u8> {
    let count = labels[0].1.len();
    let mut file = b"\x80\x02}q\x01(".to_vec();
    for (key, labels) in labels {
        file.extend(pickled_text(key.as_bytes()));
        file.extend(b"](");
        labels.iter().for_each(|&label| file.extend([b'K', label]));
        file.push(b'e');
    }
    file.extend(pickled_text(b"data"));
    file.extend(b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nK\0\x85U\x01b\x87R(K\x01K");
    file.push(count as u8);
    file.extend(b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89T");
    let pixels: Vec<u8> = (0..count).flat_map(|number| planes(start, number)).collect();
    file.extend((pixels.len() as u32).to_le_bytes());
    file.extend(pixels);
    file.extend(b"tbu.");
    file
}

/// A tar archive of these files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[156] = if name.ends_with('/') { b'5' } else { b'0' };
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend(header);
        archive.extend(*content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn labels_of<T>(dataset: &dyn Dataset<Sample = (T, i64)>) -> Vec<i64> {
    (0..dataset.len()).map(|index| dataset.get(index, &mut Rng::new(0)).unwrap().1).collect()
}

/// Asserts that the pixels of a sample are those of a picture of [`planes`], channels side by side.
fn assert_picture(dataset: &dyn Dataset<Sample = (Image, i64)>, index: usize, start: u8, number: usize) {
    let image = dataset.get(index, &mut Rng::new(0)).unwrap().0;
    assert_eq!(image.shape(), [3, 32, 32]);
    let wanted: Vec<u8> = (0..1024).flat_map(|at| [0, 1024, 2048].map(|plane| pixel(start, number, plane + at))).collect();
    assert!(image.bytes().unwrap() == wanted, "sample {index}");
}

fn write(folder: &Path, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

#[test]
fn cifar10_is_read_from_archive_and_folder_in_both_distributions() {
    let train = |i: u8| [3, i];
    let bin: Vec<(String, Vec<u8>)> = (1..=5)
        .map(|i| (format!("cifar-10-batches-bin/data_batch_{i}.bin"), binary(i, &train(i).each_ref().map(std::slice::from_ref))))
        .chain([("cifar-10-batches-bin/test_batch.bin".into(), binary(100, &[&[9]]))])
        .collect();
    let py: Vec<(String, Vec<u8>)> = (1..=5)
        .map(|i| (format!("cifar-10-batches-py/data_batch_{i}"), python2(i, &[("labels", &train(i))])))
        .chain([("cifar-10-batches-py/test_batch".into(), python2(100, &[("labels", &[9])]))])
        .collect();
    for (files, archive) in [(bin, "cifar-10-binary.tar.gz"), (py, "cifar-10-python.tar.gz")] {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("unpacked"), &files);
        let inner = dir.path().join("unpacked").join(files[0].0.split('/').next().unwrap());
        let entries: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (name.as_str(), &content[..])).collect();
        fs::write(dir.path().join(archive), gzip(&tar(&entries))).unwrap();
        fs::write(dir.path().join("plain.tar"), tar(&entries)).unwrap();
        let places = [dir.path().join("unpacked"), inner, dir.path().to_path_buf(), dir.path().join(archive), dir.path().join("plain.tar")];
        for place in places {
            let train = Cifar10::train(&place).unwrap();
            assert_eq!(labels_of(&train), [3, 1, 3, 2, 3, 3, 3, 4, 3, 5], "{place:?}");
            assert_eq!((train.labels(), train.classes()[3].as_str()), (labels_of(&train), "cat"));
            assert_picture(&train, 9, 5, 1);
            let test = Cifar10::test(&place).unwrap();
            assert_eq!((labels_of(&test), test.classes()[9].as_str()), (vec![9], "truck"));
            assert_picture(&test, 0, 100, 0);
        }
    }
}

#[test]
fn cifar10_of_python_3_is_read_in_each_protocol() {
    let dir = tempfile::tempdir().unwrap();
    for protocol in 2..=5 {
        fs::copy(format!("tests/fixtures/cifar_batch_{protocol}.pickle"), dir.path().join("test_batch")).unwrap();
        let test = Cifar10::test(&dir).unwrap_or_else(|error| panic!("protocol {protocol}: {error}"));
        assert_eq!(labels_of(&test), [3, 9]);
        let image = test.get(1, &mut Rng::new(0)).unwrap().0;
        assert_eq!(image.bytes().unwrap()[..3], [3072 % 251, 4096 % 251, 5120 % 251].map(|byte| byte as u8));
    }
}

#[test]
fn cifar100_has_labels_of_classes_and_of_groups() {
    let files = [
        ("cifar-100-binary/train.bin".to_string(), binary(0, &[&[19, 85], &[1, 91]])),
        ("cifar-100-python/test".to_string(), python2(7, &[("coarse_labels", &[19, 1]), ("fine_labels", &[85, 91])])),
    ];
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &files);
    for dataset in [Cifar100::train(&dir).unwrap(), Cifar100::test(&dir).unwrap()] {
        assert_eq!(labels_of(&dataset), [85, 91]);
        assert_eq!((dataset.classes().len(), dataset.classes()[91].as_str(), dataset.classes()[85].as_str()), (100, "trout", "tank"));
        let coarse = dataset.fine().coarse();
        assert_eq!((labels_of(&coarse), coarse.labels()), (vec![19, 1], vec![19, 1]));
        assert_eq!((coarse.classes().len(), coarse.classes()[1].as_str(), coarse.classes()[19].as_str()), (20, "fish", "vehicles_2"));
        assert_eq!(labels_of(&coarse.coarse().fine()), [85, 91]);
    }
}

#[test]
fn bad_files_of_cifar_are_errors_that_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().to_str().unwrap();
    assert_complains(Cifar10::train(&dir), empty, "`Cifar10::download` (feature `download`) fetches the dataset");
    let with = |name: &str, content: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), content).unwrap();
        (Cifar10::test(&dir).map(drop), Cifar100::test(&dir).map(drop))
    };
    let whole = binary(0, &[&[1], &[2]]);
    assert_complains(with("test_batch.bin", &whole[..3073 + 500]).0, "test_batch.bin", "3573 bytes are not whole records of 3073");
    assert_complains(with("test_batch.bin", b"").0, "test_batch.bin", "0 bytes are not whole records");
    assert_complains(with("test_batch.bin", &binary(0, &[&[1], &[10]])).0, "test_batch.bin", "label 10 of sample 1 is not in 0..=9");
    assert_complains(with("test.bin", &binary(0, &[&[20, 0]])).1, "test.bin", "label 20 of sample 0 is not in 0..=19");
    assert_complains(with("test.bin", &binary(0, &[&[0, 100]])).1, "test.bin", "label 100 of sample 0 is not in 0..=99");
    assert_complains(with("test_batch", &python2(0, &[("labels", &[10])])).0, "test_batch", "label 10 of sample 0 is not in 0..=9");
    assert_complains(with("test_batch", &python2(0, &[("wrong", &[1])])).0, "test_batch", "no list of numbers `labels`");
    assert_complains(with("test", &python2(0, &[("fine_labels", &[1]), ("coarse_labels", &[1, 2])])).1, "test", "1 pictures, but 2");
    assert_complains(with("test_batch", b"\x80\x02cos\nsystem\nU\x02ls\x85R.").0, "test_batch", "the pickle holds no dict");

    // All beginnings of a pickle, and of an archive.
    let pickle = python2(0, &[("labels", &[1])]);
    for length in (0..pickle.len()).step_by(97) {
        assert!(matches!(with("test_batch", &pickle[..length]).0, Err(Error::Format { .. })), "cut to {length}");
    }
    let archive = gzip(&tar(&[("cifar-10-batches-bin/", b""), ("cifar-10-batches-bin/test_batch.bin", &whole)]));
    let read = |content: &[u8]| with("cifar-10-binary.tar.gz", content).0;
    read(&archive).unwrap();
    for length in (2..archive.len()).step_by(7) {
        assert_complains(read(&archive[..length]), "cifar-10-binary.tar.gz", "truncated");
    }
    let mut damaged = archive.clone();
    let end = damaged.len() - 6;
    damaged[end] ^= 1;
    assert_complains(read(&damaged), "cifar-10-binary.tar.gz", "damaged");
    assert_complains(read(&gzip(&[b'x'; 2000])), "cifar-10-binary.tar.gz", "not a tar archive");
    let other = tar(&[("photos/1.jpg", b"")]);
    assert_complains(read(&gzip(&other)), "cifar-10-binary.tar.gz", "without cifar-10-batches-bin/test_batch.bin");
    // The header promises far more than there is.
    let mut liar = tar(&[("cifar-10-batches-bin/test_batch.bin", b"x")]);
    liar[124..135].copy_from_slice(b"77777777777");
    liar[148..156].fill(b' ');
    let sum: u32 = liar[..512].iter().map(|&byte| u32::from(byte)).sum();
    liar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_complains(read(&gzip(&liar)), "cifar-10-binary.tar.gz", "truncated");
}

/// A dataset of numbers, which are their own labels modulo 10.
struct Numbers(usize);

impl Dataset for Numbers {
    type Sample = i64;

    fn len(&self) -> usize {
        self.0
    }

    fn get(&self, index: usize, _: &mut Rng) -> Result<i64> {
        Ok(index as i64)
    }

    fn name(&self, index: usize) -> String {
        format!("number {index}")
    }
}

fn all(dataset: &dyn Dataset<Sample = i64>) -> Vec<i64> {
    (0..dataset.len()).map(|index| dataset.get(index, &mut Rng::new(0)).unwrap()).collect()
}

#[test]
fn random_split_gives_each_sample_to_one_part() {
    let (train, valid) = random_split(Numbers(1001), [0.9, 0.1], 0).unwrap();
    // Rounded down, 900 and 100; the one left goes to the first part.
    assert_eq!((train.len(), valid.len()), (901, 100));
    let both: HashSet<i64> = all(&train).into_iter().chain(all(&valid)).collect();
    assert_eq!(both.len(), 1001);
    assert_eq!(valid.name(0), format!("number {}", all(&valid)[0]));
    let again = random_split(Numbers(1001), [0.9, 0.1], 0).unwrap();
    assert!(again.1.indices() == valid.indices(), "the seed decides");
    assert!(random_split(Numbers(1001), [0.9, 0.1], 1).unwrap().1.indices() != valid.indices());
    // The mean of 100 of 0..1001 without replacement: 500 ± 27.4; six of them.
    let mean = all(&valid).iter().sum::<i64>() as f64 / 100.0;
    assert!((mean - 500.0).abs() < 165.0, "{mean}");

    let (a, b, c) = random_split(Numbers(10), [1.0 / 3.0; 3], 0).unwrap();
    assert_eq!([a.len(), b.len(), c.len()], [4, 3, 3]);
    let (a, b, c, d) = random_split(Numbers(10), [4, 3, 3, 0], 0).unwrap();
    assert_eq!([a.len(), b.len(), c.len(), d.len()], [4, 3, 3, 0]);
    let tenths = random_split(Numbers(25), &[0.1; 10][..], 0).unwrap();
    assert_eq!(tenths.iter().map(Dataset::len).collect::<Vec<_>>(), [3, 3, 3, 3, 3, 2, 2, 2, 2, 2]);
    let parts = random_split(Numbers(5), vec![5usize], 0).unwrap();
    assert_eq!(parts[0].len(), 5);
}

#[test]
fn sizes_that_make_no_sense_are_errors() {
    let shares = |sizes: &[f64]| complaint(random_split(Numbers(10), sizes, 0));
    for sizes in [&[0.9, 0.2][..], &[0.9], &[], &[1.5, -0.5], &[f64::NAN, 0.5], &[f64::INFINITY]] {
        assert!(shares(sizes).contains("add up to 1"), "{sizes:?}");
    }
    assert!(shares(&[0.95, 0.05]).contains("part 1, a share of 0.05 of 10 samples, would be empty"));
    let counts = complaint(random_split(Numbers(10), [usize::MAX, 11], 0));
    assert!(counts.contains("the dataset 10"), "{counts}");
    assert!(complaint(stratified_split(Numbers(3), &[0, 1], [0.5, 0.5], 0)).contains("2 labels for 3 samples"));
    for k in [0, 1, 11] {
        assert!(matches!(k_folds(Numbers(10), k, 0), Err(Error::Argument { .. })), "{k}");
    }
    assert!(complaint(Subset::new(Numbers(10), [0, 10])).contains("there is no sample 10, the dataset has 10"));
}

#[test]
fn stratified_parts_have_the_shares_of_the_classes() {
    let labels: Vec<i64> = (0..1000).map(|i| i64::from(i % 10 == 0) + i64::from(i % 50 == 0)).collect();
    let share = |part: &Subset<Numbers>, class: i64| part.indices().iter().filter(|&&index| labels[index] == class).count();
    let (train, valid) = stratified_split(Numbers(1000), &labels, [0.8, 0.2], 3).unwrap();
    assert_eq!((train.len(), valid.len()), (800, 200));
    // Of classes of 900, 80 and 20; a cut may be off by one.
    for (class, wanted) in [(0, 180), (1, 16), (2, 4)] {
        assert!(share(&valid, class).abs_diff(wanted) <= 1, "{} of class {class}", share(&valid, class));
    }
    for (train, valid) in stratified_k_folds(Numbers(1000), &labels, 5, 0).unwrap() {
        assert!(train.len() == 800 && share(&valid, 2).abs_diff(4) <= 1 && share(&valid, 1).abs_diff(16) <= 2);
    }
}

#[test]
fn folds_validate_each_sample_once() {
    let mut seen = [0; 103];
    for (train, valid) in k_folds(Numbers(103), 4, 9).unwrap() {
        assert!((25..=26).contains(&valid.len()) && train.len() + valid.len() == 103);
        all(&valid).iter().for_each(|&i| seen[i as usize] += 1);
        let both: HashSet<i64> = all(&train).into_iter().chain(all(&valid)).collect();
        assert_eq!(both.len(), 103);
    }
    assert_eq!(seen, [1; 103]);
}

#[test]
fn datasets_follow_each_other() {
    let both = Concat::new([Numbers(3), Numbers(0), Numbers(2)]).unwrap();
    assert_eq!((all(&both), both.name(4)), (vec![0, 1, 2, 0, 1], "number 1".into()));
    assert!(both.get(5, &mut Rng::new(0)).unwrap_err().to_string().contains("there is no sample 5, the dataset has 5"));
    assert!(Concat::new(Vec::<Numbers>::new()).unwrap().is_empty());
    let boxed: [Box<dyn Dataset<Sample = i64>>; 2] = [Box::new(Numbers(2)), Box::new(Subset::new(Numbers(9), [8]).unwrap())];
    assert_eq!(all(&Concat::new(boxed).unwrap()), [0, 1, 8]);
    assert_eq!(Concat::new([Digits::train(), Digits::test()]).unwrap().classes().len(), 10);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &[("test.bin".into(), binary(0, &[&[1, 2]]))]);
    let other = Cifar100::test(&dir).unwrap();
    let message = complaint(Concat::new([other.clone().coarse(), other]));
    assert!(message.contains("dataset 1 has other classes than dataset 0 (`aquatic_mammals` against `apple`)"), "{message}");
}

#[test]
fn parts_go_through_the_loader() {
    let (train, valid) = random_split(Digits::train(), [0.9, 0.1], 0).unwrap();
    let loader = DataLoader::new(train, 100).shuffle(0).workers(2);
    assert_eq!(loader.epoch(0).map(|batch| batch.unwrap().labels.shape()[0]).sum::<usize>(), 1295);
    assert_eq!(DataLoader::new(valid, 143).epoch(0).next().unwrap().unwrap().images.shape(), [143, 1, 8, 8]);
}

#[test]
fn rows_of_tensors_are_samples() {
    let inputs = Tensor::from_vec((0..24).map(|i| i as f32).collect(), [3, 2, 2, 2]).unwrap().with_grad();
    let targets = Tensor::from_vec(vec![7i64, 8, 9], [3]).unwrap();
    let dataset = TensorDataset::new(inputs.clone(), targets.clone()).unwrap();
    let (input, target) = dataset.get(1, &mut Rng::new(0)).unwrap();
    assert_eq!((input.shape(), input.to_vec::<f32>().unwrap()[0]), (&[2, 2, 2][..], 8.0));
    assert!(target.shape().is_empty() && target.item::<i64>().unwrap() == 8 && target.dtype() == DType::I64);
    let batch = DataLoader::new(dataset.clone(), 3).epoch(0).next().unwrap().unwrap();
    assert!(batch.0 == inputs && batch.1 == targets);
    assert!(dataset.get(3, &mut Rng::new(0)).unwrap_err().to_string().contains("there is no sample 3"));
    for (a, b) in [(inputs.clone(), Tensor::zeros([2])), (Tensor::ones([]), Tensor::ones([])), (inputs, Tensor::ones([]))] {
        assert!(complaint(TensorDataset::new(a, b)).contains("need one first dimension"));
    }
    assert!(TensorDataset::new(Tensor::zeros([0, 4]), Tensor::zeros([0])).unwrap().is_empty());
}

#[test]
fn any_number_of_tensors_is_a_dataset() {
    let rows = |width: usize| Tensor::from_vec((0..4 * width).map(|i| i as f32).collect(), [4, width]).unwrap();
    let (a, b, c, d) = (rows(2), rows(3), Tensor::from_vec(vec![5i64, 6, 7, 8], [4]).unwrap(), rows(1));
    let whole = |tensor: &Tensor| tensor.narrow(0, 0, 4).unwrap();
    let alone = TensorDataset::of(a.clone()).unwrap();
    assert_eq!(alone.get(3, &mut Rng::new(0)).unwrap().to_vec::<f32>().unwrap(), [6.0, 7.0]);
    let loader = DataLoader::new(alone, 3);
    let batches: Vec<Tensor> = loader.epoch(0).map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(|batch| batch.shape().to_vec()).collect::<Vec<_>>(), [[3, 2], [1, 2]]);

    let three = TensorDataset::of((a.clone(), b.clone(), c.clone())).unwrap();
    let (x, y, z) = DataLoader::new(three, 4).epoch(0).next().unwrap().unwrap();
    assert!(x == whole(&a) && y == whole(&b) && z == whole(&c));
    let four = TensorDataset::of((a.clone(), b.clone(), c.clone(), d.clone())).unwrap();
    let (x, y, z, w) = DataLoader::new(four, 4).epoch(0).next().unwrap().unwrap();
    assert!(x == whole(&a) && y == whole(&b) && z == whole(&c) && w == whole(&d));
    let list = TensorDataset::of(vec![c.clone(), d.clone()]).unwrap();
    assert!(Cached::new(list.clone(), 1000).get(1, &mut Rng::new(0)).unwrap()[0].item::<i64>().unwrap() == 6);
    let batch = DataLoader::new(list, 4).epoch(0).next().unwrap().unwrap();
    assert!(batch.len() == 2 && batch[0] == whole(&c) && batch[1] == whole(&d));

    assert!(complaint(TensorDataset::of((a, Tensor::zeros([3]), d))).contains("[[4, 2], [3], [4, 1]] need one first dimension"));
    assert!(complaint(TensorDataset::of(Tensor::ones([]))).contains("need one first dimension"));
    assert!(complaint(TensorDataset::of(Vec::<Tensor>::new())).contains("need one first dimension"));
    assert!(complaint(Vec::collate(vec![vec![b], vec![]])).contains("the number of tensors of sample 1 of the batch is 0, the first is 1"));
}

#[test]
fn several_images_are_a_sample() {
    let numbers = |start: u8| Image::from_bytes([2, 1, 2], (start..start + 4).collect()).unwrap();
    let samples = vec![(vec![numbers(0), numbers(4)], 7i64), (vec![numbers(8), numbers(12)], 8)];
    let (images, labels) = Collate::collate(samples.clone()).unwrap();
    assert_eq!((images.shape(), labels.to_vec::<i64>().unwrap()), (&[2, 2, 2, 1, 2][..], vec![7, 8]));
    let bytes: Vec<u8> = images.to_vec::<f32>().unwrap().iter().map(|value| (value * 255.0).round() as u8).collect();
    // Each image in planes of its channels.
    assert_eq!(bytes, [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15]);
    assert_eq!(samples.clone().remove(0).parts().len(), 2);
    assert_eq!(Vec::<Image>::collate(vec![vec![]]).unwrap().shape()[..2], [1, 0]);
    let uneven = vec![samples[0].0.clone(), vec![numbers(0)]];
    assert!(complaint(Vec::<Image>::collate(uneven)).contains("the number of images of sample 1 of the batch is 1, the first is 2"));
}

#[test]
fn mapped_samples_draw_from_their_generator() {
    let mapped = Numbers(4).map(|number, rng| Ok((number as f64, rng.unit())));
    assert_eq!((mapped.len(), mapped.name(2)), (4, "number 2".into()));
    assert_eq!(mapped.get(2, &mut Rng::new(5)).unwrap(), (2.0, Rng::new(5).unit()));
    let failing = Numbers(4).map(|number, _| if number == 1 { Err(Error::msg("odd")) } else { Ok(number) });
    let error = DataLoader::new(failing, 4).epoch(0).next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "sample 1 (number 1): odd");
}

#[test]
fn cached_samples_are_read_once_within_the_limit() {
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = |samples| {
        let reads = Arc::clone(&reads);
        Numbers(samples).map(move |number, _| {
            reads.fetch_add(1, Ordering::Relaxed);
            Ok((Image::from_bytes([3, 20, 20], vec![number as u8; 1200])?, number))
        })
    };
    let epochs = |cached: Arc<dyn Dataset<Sample = (Image, i64)>>, workers| {
        let loader = DataLoader::new(cached, 4).workers(workers);
        for epoch in 0..3 {
            let labels: Vec<i64> = loader.epoch(epoch).flat_map(|batch| batch.unwrap().labels.to_vec::<i64>().unwrap()).collect();
            assert!(labels.into_iter().eq(0..10));
        }
        reads.swap(0, Ordering::Relaxed)
    };
    for workers in [0, 2] {
        let all = Arc::new(Cached::new(counted(10), 1 << 20));
        assert_eq!(epochs(all.clone(), workers), 10);
        let (samples, bytes) = all.usage();
        assert!(samples == 10 && (12_000..14_000).contains(&bytes), "{bytes} bytes for 10 times 1,200");
        let half = Arc::new(Cached::new(counted(10), bytes / 2));
        assert_eq!(epochs(half.clone(), workers), 5 + 3 * 5, "five are kept");
        assert!(half.usage() == (5, bytes / 2));
        assert_eq!(epochs(Arc::new(Cached::new(counted(10), 0)), workers), 30);
    }
    let sizes =
        [(Tensor::zeros([10, 10]), vec![0.0f64; 10]).size_in_memory(), (Image::new(1, 10, 10).unwrap(), vec![true; 80]).size_in_memory()];
    assert!((480..700).contains(&sizes[0]) && (480..700).contains(&sizes[1]), "{sizes:?}");
}
