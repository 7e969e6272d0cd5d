//! Lists and folders of pictures with targets and masks, broken files, orientation tags.

use std::fs;
use std::path::{Path, PathBuf};

use convnet::data::{
    Batch, BucketSampler, CenterCrop, DataLoader, Dataset, Image, ImageFolder, ImageList, Mask, OnError, Resize, Rng, SegmentationFolder,
    random_split,
};
use convnet::{Error, Result};

use super::{assert_complains, complaint};

/// A folder with these files in it.
fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    dir
}

/// A PNG file of one gray level.
fn picture(size: [usize; 2], level: u8) -> Vec<u8> {
    Image::from_bytes([1, size[0], size[1]], vec![level; size[0] * size[1]]).unwrap().encode_png().unwrap()
}

fn list(csv: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = folder(&[
        ("list.csv", csv.into()),
        ("a.png", picture([2, 3], 10)),
        ("b.png", picture([2, 3], 20)),
        ("sub/c, \"d\".png", picture([2, 3], 30)),
    ]);
    let path = dir.path().join("list.csv");
    (dir, path)
}

#[test]
fn lists_have_targets_of_all_kinds() {
    let level = |dataset: &dyn Dataset<Sample = (Image, i64)>, index| dataset.get(index, &mut Rng::new(0)).unwrap().0.bytes().unwrap()[0];
    let (dir, path) = list("path,label\na.png,2\r\n\"sub/c, \"\"d\"\".png\",0\n\nb.png, 1");
    let labels = ImageList::class_labels(&path).unwrap();
    assert_eq!((labels.labels(), level(&labels, 1), level(&labels, 2)), (vec![2, 0, 1], 30, 20));
    assert!(labels.classes().is_empty() && labels.name(0).ends_with("a.png"));
    let named = ImageList::options().classes(["x", "y", "z"]).class_labels(&path).unwrap();
    assert_eq!(named.classes(), ["x", "y", "z"]);
    // The list may stand elsewhere, and paths may be absolute.
    let elsewhere = folder(&[("l.tsv", format!("a.png\t1\n{}\t2\n", dir.path().join("b.png").display()).into())]);
    let tabs = ImageList::options().root(dir.path()).delimiter('\t').class_labels(elsewhere.path().join("l.tsv")).unwrap();
    assert_eq!((tabs.labels(), level(&tabs, 1)), (vec![1, 2], 20));

    let (_dir, path) = list("a.png,dog\nb.png,cat\na.png,dog");
    let names = ImageList::class_names(&path).unwrap();
    assert_eq!((names.labels(), names.classes()), (vec![1, 0, 1], vec!["cat".into(), "dog".into()]));
    assert_eq!(ImageList::options().classes(["dog", "cat"]).class_names(&path).unwrap().labels(), [0, 1, 0]);
    let (train, valid) = random_split(names, [2, 1], 0).unwrap();
    assert_eq!((train.len(), valid.classes().len()), (2, 2));

    let (_dir, path) = list("id,file,x,y,cat,dog\n1,a.png,1.5,-2,1,0\n2,b.png,1e3,0,-1,True\n");
    let numbers = ImageList::options().path("file").targets(["y"]).numbers(&path).unwrap();
    assert_eq!(numbers.samples().iter().map(|sample| sample.1).collect::<Vec<_>>(), [-2.0, 0.0]);
    let vectors = ImageList::options().path("file").targets(["y", "x"]).vectors(&path).unwrap();
    let batch = DataLoader::new(vectors, 2).epoch(0).next().unwrap().unwrap();
    assert_eq!((batch.labels.shape(), batch.labels.to_vec::<f32>().unwrap()), (&[2, 2][..], vec![-2.0, 1.5, 0.0, 1000.0]));
    let labels = ImageList::options().path("file").targets(["cat", "dog"]).multi_labels(&path).unwrap();
    assert_eq!(labels.classes(), ["cat", "dog"]);
    assert_eq!(labels.samples().iter().map(|sample| sample.1.clone()).collect::<Vec<_>>(), [[true, false], [false, true]]);

    let (_dir, path) = list("a.png,dog|cat\nb.png,\na.png,owl");
    let labels = ImageList::options().label_separator('|').multi_labels(&path).unwrap();
    assert_eq!(labels.classes(), ["cat", "dog", "owl"]);
    let flags: Vec<_> = labels.samples().iter().map(|sample| sample.1.clone()).collect();
    assert_eq!(flags, [[true, true, false], [false; 3], [false, false, true]]);
    let (_dir, path) = list("a.png,1,2\nb.png,3,4");
    assert_eq!(ImageList::vectors(&path).unwrap().samples()[1].1, [3.0, 4.0]);
}

#[test]
fn bad_lists_are_errors_with_their_line() {
    let labels = |csv: &str| {
        let (_dir, path) = list(csv);
        complaint(ImageList::class_labels(&path))
    };
    let assert_says = |message: String, words: &str| assert!(message.contains("list.csv: ") && message.contains(words), "{message}");
    let missing = labels("path,label\na.png,1\nz.png,1\ny.png,1\n");
    assert_says(missing.clone(), "line 3: there is no file ");
    assert!(missing.contains("z.png, and 1 more are missing"), "{missing}");
    assert_says(labels("a.png,-1"), "line 1: label -1 is not in 0..=");
    assert_says(labels("a.png,1\na.png,dog"), "line 2: `dog` is not a label, a whole number from 0");
    assert_says(labels("a.png,1\na.png,1,2"), "line 2: 3 columns, the first row has 2");
    assert_says(labels("a.png,1,2"), "line 1: 2 columns of targets");
    assert_says(labels("a.png"), "line 1: 0 columns of targets");
    assert_says(labels("a.png,1\n,1"), "line 2: no path");
    assert_says(labels("a.png,1\n\"b.png,1"), "line 2: a quote is opened and not closed");
    assert_says(labels(""), "lists no pictures");
    assert_says(labels("path,label\n"), "lists no pictures");
    let (dir, path) = list("a.png,2");
    assert_says(complaint(ImageList::options().classes(["x", "y"]).class_labels(&path)), "line 1: label 2 is not in 0..=1");
    assert_says(complaint(ImageList::options().classes(["x"]).class_names(&path)), "line 1: `2` is not one of the classes");
    assert_says(complaint(ImageList::options().targets(["label"]).numbers(&path)), "there is no header");
    assert_says(complaint(ImageList::options().header(true).class_labels(&path)), "lists no pictures");
    assert_says(complaint(ImageList::multi_labels(&path)), "`2` is neither 0 nor 1");
    assert_says(complaint(ImageList::options().classes(["x", "y"]).multi_labels(&path)), "1 columns of labels for 2 classes");
    fs::write(&path, "path,kind\na.png,inf").unwrap();
    assert_says(complaint(ImageList::numbers(&path)), "line 2: `inf` is not a finite number");
    assert_says(complaint(ImageList::options().targets(["size"]).numbers(&path)), "no column `size` in the header: path, kind");
    fs::write(&path, b"a.png,1\nb.png,\xff").unwrap();
    assert_says(complaint(ImageList::class_names(&path)), "line 2 is not UTF-8");
    assert_complains(ImageList::numbers(dir.path().join("none.csv")), "none.csv", "");
    assert!(matches!(ImageList::numbers(dir.path()), Err(Error::Io { .. })));
}

/// A PNG file with a palette, of these indices.
fn indexed(size: [usize; 2], depth: png::BitDepth, rows: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size[1] as u32, size[0] as u32);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(depth);
    encoder.set_palette((0..16 * 3).map(|i| (i * 5) as u8).collect::<Vec<u8>>());
    encoder.write_header().unwrap().write_image_data(rows).unwrap();
    file
}

#[test]
fn masks_are_indices_or_gray_samples() {
    let dir = folder(&[
        ("gray.png", Image::from_bytes([1, 1, 4], vec![0, 1, 19, 255]).unwrap().encode_png().unwrap()),
        ("indexed.png", indexed([1, 4], png::BitDepth::Eight, &[3, 0, 15, 7])),
        ("small.png", indexed([2, 3], png::BitDepth::Four, &[0x12, 0xf0, 0x30, 0x40])),
        ("colour.png", Image::new(3, 2, 2).unwrap().encode_png().unwrap()),
        ("text.png", b"text".to_vec()),
    ]);
    let classes = |name: &str| Mask::open(dir.path().join(name)).map(|mask| mask.classes().to_vec());
    assert_eq!(classes("gray.png").unwrap(), [0, 1, 19, 255]);
    assert_eq!(classes("indexed.png").unwrap(), [3, 0, 15, 7]);
    assert_eq!(classes("small.png").unwrap(), [1, 2, 15, 3, 0, 4]);
    // Gray samples of few bits are not scaled to white.
    for (depth, byte, wanted) in [(png::BitDepth::One, 0b0100_0000, [0, 1]), (png::BitDepth::Two, 0b1001_0000, [2, 1])] {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 2, 1);
        encoder.set_depth(depth);
        encoder.write_header().unwrap().write_image_data(&[byte]).unwrap();
        fs::write(dir.path().join("bits.png"), file).unwrap();
        assert_eq!(classes("bits.png").unwrap(), wanted);
    }
    assert_complains(classes("colour.png"), "colour.png", "gray samples of at most 8 bits or with a palette");
    assert_complains(classes("text.png"), "text.png", "not a PNG file");
}

#[test]
fn folders_of_pictures_and_masks_are_paired_by_name() {
    let mask = |class: u8| Image::from_bytes([1, 4, 6], (0..24).map(|i| if i == 0 { class } else { 255 }).collect()).unwrap();
    let dir = folder(&[
        ("images/b.png", picture([4, 6], 20)),
        ("images/a.jpg", Image::new(3, 4, 6).unwrap().encode_jpeg(90).unwrap()),
        ("images/.hidden.png", vec![]),
        ("images/notes.txt", vec![]),
        ("masks/a.png", mask(1).encode_png().unwrap()),
        ("masks/b.png", mask(2).encode_png().unwrap()),
    ]);
    let pairs = SegmentationFolder::new(&dir).unwrap();
    assert_eq!((pairs.len(), pairs.name(1).ends_with("b.png")), (2, true));
    let Batch { images, labels } = DataLoader::new(pairs.clone(), 2).epoch(0).next().unwrap().unwrap();
    assert_eq!((images.shape(), labels.shape()), (&[2, 3, 4, 6][..], &[2, 4, 6][..]));
    assert_eq!(labels.to_vec::<i64>().unwrap()[24..26], [2, 255]);
    let cropped = DataLoader::new(pairs.clone(), 2).transform(CenterCrop::new([2, 2])).epoch(0).next().unwrap().unwrap();
    assert_eq!(cropped.labels.shape(), [2, 2, 2]);
    let error = DataLoader::new(pairs.with_classes(["sky", "sea"]), 2).epoch(0).next().unwrap().unwrap_err().to_string();
    assert!(error.contains("b.png") && error.contains("class 2 is not in 0..=1 (or 255"), "{error}");

    fs::write(dir.path().join("masks/b.png"), picture([6, 4], 0)).unwrap();
    let error = complaint(SegmentationFolder::new(&dir).unwrap().get(1, &mut Rng::new(0)));
    assert!(error.contains("masks/b.png: the mask has 4×6 pixels, its picture 6×4"), "{error}");
    fs::write(dir.path().join("masks/c.png"), "").unwrap();
    assert_complains(SegmentationFolder::new(&dir), "images", "no picture of the same name for ");
    fs::remove_file(dir.path().join("masks/c.png")).unwrap();
    fs::remove_file(dir.path().join("masks/a.png")).unwrap();
    assert_complains(SegmentationFolder::new(&dir), "images/a.jpg", "no mask (a PNG file of the same name) for");
    fs::write(dir.path().join("images/b.jpg"), "").unwrap();
    assert!(complaint(SegmentationFolder::new(&dir)).contains("apart from the extension; rename or remove one"));
    let empty = folder(&[("images/x.txt", vec![]), ("masks/a.png", vec![])]);
    assert_complains(SegmentationFolder::new(&empty), "images", "no pictures here");
    assert!(matches!(SegmentationFolder::new(empty.path().join("images")), Err(Error::Io { .. })));
}

/// The header of a PNG file of 50,000 × 50,000 pixels and no more than that.
fn huge() -> Vec<u8> {
    let mut file = picture([1, 1], 0);
    file[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    let mut crc = flate2::Crc::new();
    crc.update(&file[12..29]);
    file[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    file
}

#[test]
fn broken_pictures_fail_or_are_skipped_or_replaced_and_are_named() {
    let jpeg = Image::new(3, 64, 64).unwrap().encode_jpeg(90).unwrap();
    let dir = folder(&[
        ("cat/1.png", picture([4, 4], 10)),
        ("cat/2.jpg", b"This is a text.".to_vec()),
        ("cat/3.png", huge()),
        ("dog/4.jpg", jpeg[..jpeg.len() / 8].to_vec()),
        ("dog/5.png", picture([4, 4], 50)),
        ("dog/6.jpg", vec![]),
    ]);
    let reasons = [
        ("2.jpg", "neither a JPEG nor a PNG file"),
        ("3.png", "oversized: 50000×50000 pixels, the limit is"),
        ("4.jpg", "truncated"),
        ("6.jpg", "an empty file"),
    ];
    for workers in [0, 2] {
        let loader = DataLoader::new(ImageFolder::new(&dir).unwrap(), 2).transform(Resize::new([4, 4])).workers(workers);
        let error = loader.epoch(0).next().unwrap().unwrap_err().to_string();
        assert!(error.contains(reasons[0].0) && error.contains(reasons[0].1), "{error}");
        for (on_error, wanted) in [(OnError::Skip, vec![vec![0], vec![1]]), (OnError::Replace, vec![vec![0, 1], vec![1, 1], vec![1, 0]])] {
            let loader = loader.clone().on_error(on_error);
            let labels: Vec<Vec<i64>> = loader.epoch(0).map(|batch| batch.unwrap().labels.to_vec().unwrap()).collect();
            assert_eq!(labels, wanted, "{on_error:?}");
            let failures: Vec<String> = loader.failures().iter().map(Error::to_string).collect();
            for (name, reason) in reasons {
                assert!(failures.iter().any(|failure| failure.contains(name) && failure.contains(reason)), "{name}: {failures:?}");
            }
            assert!(loader.failures().is_empty());
        }
    }
}

/// An EXIF block of one tag, the orientation.
fn tags(orientation: u16, big: bool) -> Vec<u8> {
    let short = |value: u16| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let long = |value: u32| if big { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut tags = if big { b"MM".to_vec() } else { b"II".to_vec() };
    tags.extend(short(42));
    tags.extend(long(8));
    tags.extend(short(1));
    tags.extend(short(0x0112));
    tags.extend(short(3));
    tags.extend(long(1));
    tags.extend(short(orientation));
    tags.extend([0; 6]);
    tags
}

/// A PNG file with these EXIF tags before its image data.
fn tagged_png(file: &[u8], tags: &[u8]) -> Vec<u8> {
    let mut chunk = (tags.len() as u32).to_be_bytes().to_vec();
    let body = [b"eXIf", tags].concat();
    let mut crc = flate2::Crc::new();
    crc.update(&body);
    chunk.extend(body);
    chunk.extend(crc.sum().to_be_bytes());
    [&file[..33], &chunk, &file[33..]].concat()
}

fn tagged_jpeg(file: &[u8], tags: &[u8]) -> Vec<u8> {
    let length = (tags.len() as u16 + 8).to_be_bytes();
    [&file[..2], &[0xFF, 0xE1], &length, b"Exif\0\0", tags, &file[2..]].concat()
}

#[test]
fn pictures_are_turned_upright_on_request() {
    // `ImageOps.exif_transpose` of Pillow for 1 2 3 over 4 5 6.
    let wanted: [(u16, [usize; 2], [u8; 6]); 10] = [
        (1, [2, 3], [1, 2, 3, 4, 5, 6]),
        (2, [2, 3], [3, 2, 1, 6, 5, 4]),
        (3, [2, 3], [6, 5, 4, 3, 2, 1]),
        (4, [2, 3], [4, 5, 6, 1, 2, 3]),
        (5, [3, 2], [1, 4, 2, 5, 3, 6]),
        (6, [3, 2], [4, 1, 5, 2, 6, 3]),
        (7, [3, 2], [6, 3, 5, 2, 4, 1]),
        (8, [3, 2], [3, 6, 2, 5, 1, 4]),
        (9, [2, 3], [1, 2, 3, 4, 5, 6]),
        (0, [2, 3], [1, 2, 3, 4, 5, 6]),
    ];
    let file = Image::from_bytes([1, 2, 3], vec![1, 2, 3, 4, 5, 6]).unwrap().encode_png().unwrap();
    let jpeg = Image::new(3, 16, 24).unwrap().encode_jpeg(90).unwrap();
    let dir = folder(&[("c/x.png", vec![]), ("c/x.jpg", vec![]), ("list.csv", b"c/x.png,0".to_vec())]);
    let (png_path, jpeg_path) = (dir.path().join("c/x.png"), dir.path().join("c/x.jpg"));
    let red = |image: &Image| image.bytes().unwrap().iter().copied().step_by(3).collect::<Vec<u8>>();
    for (orientation, size, levels) in wanted {
        for big in [false, true] {
            fs::write(&png_path, tagged_png(&file, &tags(orientation, big))).unwrap();
            fs::write(&jpeg_path, tagged_jpeg(&jpeg, &tags(orientation, big))).unwrap();
            let image = Image::open_upright(&png_path).unwrap();
            assert_eq!((image.size(), red(&image)), (size, levels.to_vec()), "{orientation}");
            assert_eq!(Image::open_upright(&jpeg_path).unwrap().size(), if size[0] == 3 { [24, 16] } else { [16, 24] }, "{orientation}");
            assert_eq!(red(&Image::open(&png_path).unwrap()), [1, 2, 3, 4, 5, 6]);
            for path in [&png_path, &jpeg_path] {
                assert_eq!(Image::size_of_upright(path).unwrap(), Image::open_upright(path).unwrap().size(), "{orientation}");
                assert_eq!(Image::size_of(path).unwrap(), Image::open(path).unwrap().size(), "{orientation}");
            }
        }
    }
    fs::write(&png_path, tagged_png(&file, &tags(6, true))).unwrap();
    let get = |dataset: &dyn Dataset<Sample = (Image, i64)>, index| dataset.get(index, &mut Rng::new(0)).unwrap().0.size();
    let upright = ImageFolder::options().upright(true).open(dir.path()).unwrap();
    assert_eq!((get(&upright, 1), get(&ImageFolder::new(dir.path()).unwrap(), 1)), ([3, 2], [2, 3]));
    assert_eq!((upright.sizes().unwrap(), ImageFolder::new(dir.path()).unwrap().sizes().unwrap()[1]), (vec![[16, 24], [3, 2]], [2, 3]));
    let list = ImageList::options().upright(true).class_labels(dir.path().join("list.csv")).unwrap();
    assert_eq!(get(&list, 0), [3, 2]);
    // Tags that are cut or lie count as none.
    let whole = tags(6, false);
    for length in 0..whole.len() {
        fs::write(&png_path, tagged_png(&file, &whole[..length])).unwrap();
        let upright: Result<Image> = Image::open_upright(&png_path);
        assert!(matches!(upright.unwrap().size(), [2, 3] | [3, 2]), "cut to {length}");
    }
    let mut far = whole;
    far[4..8].fill(0xff);
    fs::write(&png_path, tagged_png(&file, &far)).unwrap();
    assert_eq!(Image::open_upright(&png_path).unwrap().size(), [2, 3]);
    assert!(Image::open_upright(Path::new("none.png")).is_err());
}

#[test]
fn size_is_read_from_the_header_alone() {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images"));
    let paths = fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path());
    let pictures: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|extension| extension != "safetensors")).collect();
    assert!(pictures.len() > 15);
    for path in &pictures {
        assert_eq!(Image::size_of(path).unwrap(), Image::open(path).unwrap().size(), "{}", path.display());
    }
    // Segments of 60 kB before the header of the frame, as cameras write them, and picture data
    // that ends early.
    let jpeg = fs::read(fixtures.join("rgb.jpg")).unwrap();
    let segment = [&[0xFF, 0xE2, 0xEA, 0x62][..], &[0; 60_000]].concat();
    let long = [&jpeg[..2], &segment, &segment, &jpeg[2..]].concat();
    let png = fs::read(fixtures.join("rgb.png")).unwrap();
    let files = [("c/1.jpg", long), ("c/2.jpg", jpeg[..jpeg.len() - 200].to_vec()), ("c/3.png", png[..100].to_vec())];
    let dir = folder(&files);
    let pictures = ImageFolder::new(dir.path()).unwrap();
    assert_eq!(pictures.sizes().unwrap(), [[37, 53]; 3]);
    assert!([1, 2].into_iter().all(|index| pictures.get(index, &mut Rng::new(0)).is_err()), "their data is cut");
    // Buckets of equal sizes: no batch has two of them.
    fs::write(dir.path().join("c/2.jpg"), Image::new(3, 20, 30).unwrap().encode_jpeg(90).unwrap()).unwrap();
    fs::write(dir.path().join("c/3.png"), picture([20, 30], 5)).unwrap();
    let pictures = ImageFolder::new(dir.path()).unwrap();
    let loader = DataLoader::new(pictures.clone(), 3).sampler(BucketSampler::new(pictures.sizes().unwrap()));
    let mut shapes: Vec<Vec<usize>> = loader.epoch(0).map(|batch| batch.unwrap().images.shape().to_vec()).collect();
    shapes.sort();
    assert_eq!(shapes, [[1, 3, 37, 53], [2, 3, 20, 30]]);

    let mut huge = png;
    huge[16..24].copy_from_slice(&[0, 0, 0xC3, 0x50, 0, 0, 0xC3, 0x50]);
    let mut crc = flate2::Crc::new();
    crc.update(&huge[12..29]);
    huge[29..33].copy_from_slice(&crc.sum().to_be_bytes());
    let headless = [&jpeg[..2], &jpeg[jpeg.len() - 2..]].concat();
    for (content, wanted) in [
        (b"a text".to_vec(), "x.jpg: neither a JPEG nor a PNG file"),
        (vec![], "an empty file"),
        (jpeg[..20].to_vec(), "truncated"),
        (headless, "it has no picture"),
        (huge, "oversized: 50000×50000 pixels"),
    ] {
        let dir = folder(&[("c/x.jpg", content)]);
        let path = dir.path().join("c/x.jpg");
        for message in [complaint(Image::size_of(&path)), complaint(Image::size_of_upright(&path))] {
            assert!(message.contains(wanted) && message.contains("x.jpg"), "{message}");
        }
        assert!(complaint(ImageFolder::new(dir.path()).unwrap().sizes()).contains(wanted));
    }
}

#[cfg(feature = "image-formats")]
mod formats {
    use super::*;

    fn fixture(name: &str) -> PathBuf {
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/formats")).join(name)
    }

    #[test]
    fn other_formats_have_the_pixels_of_pillow() {
        let wanted: Vec<u8> = (0..5).flat_map(|y| (0..7).flat_map(move |x| [40 * x, 50 * y, 20 * (x + y)])).collect();
        for name in ["rgb.bmp", "palette.bmp", "palette.gif", "lossless.webp", "turned.webp", "rgb.tiff", "deflate.tiff"] {
            let image = Image::open(fixture(name)).unwrap();
            assert_eq!((image.shape(), image.bytes().unwrap()), ([3, 5, 7], &wanted[..]), "{name}");
            assert_eq!(Image::size_of(fixture(name)).unwrap(), [5, 7], "{name}");
        }
        let gray = Image::open(fixture("gray.tiff")).unwrap();
        assert!(gray.bytes().unwrap().chunks(3).zip(wanted.chunks(3)).all(|(gray, wanted)| gray == [wanted[0]; 3]));
        assert_eq!(Image::open_upright(fixture("turned.webp")).unwrap().size(), [7, 5]);
        assert_eq!(Image::size_of_upright(fixture("turned.webp")).unwrap(), [7, 5]);
        let (lossy, pillow) = (Image::open(fixture("lossy.webp")).unwrap(), Image::open(fixture("lossy.png")).unwrap());
        let worst = lossy.bytes().unwrap().iter().zip(pillow.bytes().unwrap()).map(|(a, b)| a.abs_diff(*b)).max();
        // Two decoders of one format, which round the conversion of colours differently.
        assert!(lossy.shape() == pillow.shape() && worst <= Some(2), "{worst:?}");
    }

    #[test]
    fn folders_list_files_of_other_formats() {
        let dir = folder(&[]);
        fs::create_dir(dir.path().join("class")).unwrap();
        for name in ["rgb.bmp", "palette.gif", "lossless.webp", "rgb.tiff", "lossy.png"] {
            fs::copy(fixture(name), dir.path().join("class").join(name)).unwrap();
        }
        let pictures = ImageFolder::new(&dir).unwrap();
        assert_eq!(pictures.len(), 5);
        let loader = DataLoader::new(pictures, 5).transform(Resize::new([8, 8]));
        assert_eq!(loader.epoch(0).next().unwrap().unwrap().images.shape(), [5, 3, 8, 8]);
    }

    #[test]
    fn damaged_files_of_other_formats_are_errors() {
        let large = {
            let mut file = fs::read(fixture("rgb.bmp")).unwrap();
            file[18..26].copy_from_slice(&[0x00, 0x30, 0, 0, 0x00, 0x30, 0, 0]);
            file
        };
        assert!(complaint(Image::decode(&large)).contains("a BMP file: truncated: "), "12,288 × 12,288 pixels in 200 bytes");
        let dir = folder(&[]);
        let path = dir.path().join("cut");
        for name in ["rgb.bmp", "palette.gif", "lossless.webp", "rgb.tiff", "deflate.tiff", "lossy.webp"] {
            let file = fs::read(fixture(name)).unwrap();
            for length in 0..file.len() {
                // Some ends are not needed. What matters is that nothing panics.
                let _ = Image::decode(&file[..length]);
                fs::write(&path, &file[..length]).unwrap();
                let _ = Image::size_of(&path);
            }
            let mut state = 1u32;
            for _ in 0..200 {
                let mut damaged = file.clone();
                for _ in 0..3 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let at = state as usize % damaged.len();
                    damaged[at] = (state >> 24) as u8;
                }
                if let Ok(image) = Image::decode(&damaged) {
                    assert!(image.bytes().is_some());
                }
            }
            assert!(Image::decode(&file[..file.len() / 2]).is_err(), "{name}");
        }
    }
}
