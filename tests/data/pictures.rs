//! Pictures from files, against Pillow's and torchvision's numbers (`fixtures/images.py`), and
//! hostile files.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use convnet::data::{
    CenterCrop, DataLoader, Dataset, Grayscale, IMAGENET_CLASSES, Image, ImageClassification, ImageFolder, Resize, ResizeFilter, Rng,
    Transform,
};
use convnet::nn::StateDict;
use convnet::{DType, Error, Tensor};

/// How many of the odd files Pillow opens, and how many it refuses.
const ODD_FILES: (usize, usize) = (75, 10);

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/images")).join(name)
}

fn expected() -> StateDict {
    StateDict::load(fixture("expected.safetensors")).unwrap()
}

fn odd() -> StateDict {
    StateDict::load(fixture("odd.safetensors")).unwrap()
}

fn levels(image: &Image) -> Vec<u8> {
    assert!(image.is_bytes());
    image.pixels().iter().map(|x| (x * 255.0).round() as u8).collect()
}

/// Asserts that an image is the expected one, `[H, W, C]` or `[H, W]` of bytes, to the bit.
fn assert_is(image: &Image, expected: &Tensor, name: &str) {
    assert_eq!(expected.dtype(), DType::U8);
    let [channels, height, width] = image.shape();
    assert_eq!(expected.shape()[..2], [height, width], "{name}");
    let (found, expected) = (levels(image), expected.to_vec::<u8>().unwrap());
    assert_eq!(found.len(), expected.len(), "{name}");
    if let Some(i) = (0..found.len()).find(|&i| found[i] != expected[i]) {
        let (y, x) = (i / channels / width, i / channels % width);
        panic!("{name}: {} in place of {} at row {y}, column {x}", found[i], expected[i]);
    }
}

fn applied(transform: &dyn Transform, image: &Image) -> Image {
    let mut image = image.clone();
    transform.apply(&mut image, &mut Rng::new(0)).unwrap();
    image
}

#[test]
fn every_kind_of_file_decodes_to_pillows_pixels() {
    let mut files = 0;
    for (key, pixels) in expected() {
        let Some(name) = key.strip_suffix(" decoded") else { continue };
        assert_is(&Image::open(fixture(name)).unwrap(), &pixels, name);
        assert_is(&Image::decode(&fs::read(fixture(name)).unwrap()).unwrap(), &pixels, name);
        files += 1;
    }
    assert_eq!(files, 18);
}

#[test]
fn odd_and_damaged_files_open_where_pillow_opens_them_with_its_pixels() {
    let odd = odd();
    let (mut opened, mut refused) = (0, 0);
    for (key, content) in odd.iter() {
        let Some(name) = key.strip_suffix(" file") else { continue };
        let image = Image::decode(&content.to_vec::<u8>().unwrap());
        match odd.get(&format!("{name} decoded")) {
            Some(pixels) => {
                let image = image.unwrap_or_else(|error| panic!("{name}: {error}"));
                let found = [image.height() as i64, image.width() as i64, i64::from(crc(&levels(&image)))];
                assert_eq!(found, pixels.to_vec::<i64>().unwrap()[..], "{name}");
                opened += 1;
            }
            None => {
                assert!(image.is_err(), "{name}");
                refused += 1;
            }
        }
    }
    assert_eq!((opened, refused), ODD_FILES);
}

#[test]
fn bytes_and_floats_of_any_size_are_scaled_to_pillows_values_in_its_order_of_passes() {
    let cases = StateDict::load(fixture("resize.safetensors")).unwrap();
    let (mut floats, mut columns_first) = (0, 0);
    for (key, from) in cases.iter() {
        let Some(name) = key.strip_suffix(" from") else { continue };
        let words: Vec<&str> = name.split(' ').collect();
        let [to_height, to_width] = [1, 2].map(|i| words[i].parse::<usize>().unwrap());
        let filter = if words[0] == "bicubic" { ResizeFilter::Bicubic } else { ResizeFilter::Bilinear };
        let [height, width] = [from.shape()[0], from.shape()[1]];
        let planes = from.reshape([height as isize, width as isize, -1]).unwrap().permute([2, 0, 1]).unwrap();
        let image = Image::from_tensor(&planes).unwrap();
        let image = applied(&Resize::new([to_height, to_width]).interpolation(filter), &image);
        let expected = cases.get(&format!("{name} to")).unwrap();
        if expected.dtype() == DType::F32 {
            assert_eq!(image.pixels(), expected.to_vec::<f32>().unwrap(), "{name}");
            floats += 1;
        } else {
            assert_is(&image, expected, name);
        }
        columns_first += usize::from(height > to_height && height + 2 * to_width > to_height + 2 * width);
    }
    assert_eq!((cases.len(), floats), (2 * 90, 30));
    assert!(columns_first > 30, "{columns_first}");
}

#[test]
fn pictures_are_scaled_and_cropped_to_pillows_pixels() {
    let mut cases = 0;
    for (key, pixels) in expected() {
        let words: Vec<&str> = key.split(' ').collect();
        let number = |i: usize| words[i].parse::<usize>().unwrap();
        let transform: Box<dyn Transform> = match words[1] {
            "shorter" => Box::new(Resize::shorter(number(2))),
            "bicubic" => Box::new(Resize::shorter(number(2)).interpolation(ResizeFilter::Bicubic)),
            "to" => Box::new(Resize::new([number(2), number(3)])),
            "gray" => Box::new(Grayscale),
            "crop" => Box::new(CenterCrop::new([number(2), number(3)])),
            _ => continue,
        };
        assert_is(&applied(&transform, &Image::open(fixture(words[0])).unwrap()), &pixels, &key);
        cases += 1;
    }
    assert_eq!(cases, 3 * 11);
}

#[test]
fn preset_gives_torchvisions_numbers() {
    for name in ["420.jpg", "progressive.jpg", "rgb.png"] {
        let image = applied(&ImageClassification::new(24).resize(28), &Image::open(fixture(name)).unwrap());
        assert_eq!(image.shape(), [3, 24, 24]);
        let expected = expected().get(&format!("{name} preset")).unwrap().to_vec::<f32>().unwrap();
        // A quotient, a difference and a quotient of numbers up to 3: a unit or two in the last
        // place of f32.
        assert!(approx::abs_diff_eq!(image.pixels()[..], expected[..], epsilon = 1e-6), "{name}");
    }
}

#[test]
fn image_knows_whether_it_is_of_bytes() {
    let mut image = Image::open(fixture("rgb.png")).unwrap();
    assert!(image.is_bytes());
    for transform in [&Resize::new([9, 8]) as &dyn Transform, &CenterCrop::new([60, 60]), &Grayscale] {
        assert!(applied(transform, &image).is_bytes());
    }
    image = Image::from_tensor(&Tensor::full([3, 2, 2], 0.3, DType::F32)).unwrap();
    assert!(!image.is_bytes());
    image = Image::from_tensor(&Tensor::from_vec(vec![7u8; 12], [3, 2, 2]).unwrap()).unwrap();
    assert!(image.is_bytes());
    image.pixels_mut()[0] = 0.3;
    assert!(!image.is_bytes());
    // A mean is not rounded.
    image.pixels_mut().copy_from_slice(&[0.0, 0.0, 0.0, 0.1, 0.1, 0.1, 0.0, 0.0, 0.0, 0.1, 0.1, 0.1]);
    assert_eq!(applied(&Resize::new([1, 1]), &image).pixels()[..], [0.05; 3]);
    approx::assert_abs_diff_eq!(applied(&Grayscale, &image).pixels()[1], 0.1 * (0.2989 + 0.587 + 0.114), epsilon = 1e-7);
}

fn refused(bytes: &[u8]) -> String {
    match Image::decode(bytes) {
        Err(Error::Value { message, .. }) => message,
        other => panic!("{:?}", other.map(|image| image.shape())),
    }
}

#[test]
fn truncated_picture_is_an_error_wherever_it_ends() {
    for name in ["420.jpg", "progressive.jpg", "restarts.jpg", "tiny.jpg", "rgb.png", "palette.png"] {
        let bytes = fs::read(fixture(name)).unwrap();
        // As in Pillow, a PNG file is complete when its rows are: what follows are checksums of 4
        // bytes each and the last chunk of 12 bytes, and a few bytes of compressed data may only
        // end the stream. A JPEG file with a single scan is complete without its end marker.
        let end = bytes.len()
            - if name.ends_with(".png") {
                12 + 4 + 4 + 4
            } else if name == "progressive.jpg" {
                0
            } else {
                2
            };
        for length in 0..end {
            assert!(Image::decode(&bytes[..length]).is_err(), "{name} of {length} bytes");
        }
    }
}

#[test]
fn headers_of_huge_pictures_are_refused_before_memory_is_allocated() {
    let mut jpeg = fs::read(fixture("420.jpg")).unwrap();
    let frame = jpeg.windows(2).position(|bytes| bytes == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xFF);
    let limit = "the limit is 178956970 (data::set_max_pixels)";
    assert!(refused(&jpeg).contains(&format!("oversized: 65535×65535 pixels, {limit}")), "{}", refused(&jpeg));
    jpeg[frame + 5..frame + 7].fill(0);
    assert!(refused(&jpeg).contains("no pixels"));

    // A size that the limit allows, but not the data; Huffman and arithmetic codes, 114 bytes and
    // two thousand.
    for (marker, [high, low], padding) in [(0xC0, [0x0F, 0xFF], 0), (0xC2, [0x27, 0x10], 0), (0xC9, [0x27, 0x10], 2000)] {
        let mut jpeg = nothing_new(16, 1);
        let frame = jpeg.windows(2).position(|bytes| bytes == [0xFF, 0xC2]).unwrap();
        jpeg[frame + 1] = marker;
        jpeg[frame + 5..frame + 9].copy_from_slice(&[high, low, high, low]);
        jpeg.splice(frame + 30..frame + 30, vec![0; padding]);
        assert!(refused(&jpeg).contains("cannot hold a picture"), "{}", refused(&jpeg));
    }

    let mut png = fs::read(fixture("rgb.png")).unwrap();
    let mut sized = |width: u32, height: u32| {
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        let checksum = crc(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        refused(&png)
    };
    assert!(sized(60_000, 60_000).contains(&format!("oversized: 60000×60000 pixels, {limit}")));
    assert!(sized(u32::MAX, u32::MAX).contains("oversized"));
    assert!(sized(12_000, 12_000).contains("cannot hold"));
}

/// A PNG file of samples of 16 bits in one row; `interlaced` files have two columns.
fn png_of_16_bits(colour: u8, channels: usize, interlaced: bool, samples: &[u16]) -> Vec<u8> {
    let chunk = |name: &[u8; 4], body: &[u8]| {
        let named = [&name[..], body].concat();
        [&(body.len() as u32).to_be_bytes(), &named[..], &crc(&named).to_be_bytes()].concat()
    };
    let width = samples.len() / channels;
    let header = [&(width as u32).to_be_bytes()[..], &[0, 0, 0, 1, 16, colour, 0, 0, u8::from(interlaced)]].concat();
    let mut encoder = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::fast());
    for row in samples.chunks(if interlaced { channels } else { samples.len() }) {
        let row: Vec<u8> = row.iter().flat_map(|sample| sample.to_be_bytes()).collect();
        encoder.write_all(&[&[0][..], &row].concat()).unwrap();
    }
    let signature = b"\x89PNG\r\n\x1a\n".to_vec();
    [signature, chunk(b"IHDR", &header), chunk(b"IDAT", &encoder.finish().unwrap()), chunk(b"IEND", b"")].concat()
}

#[test]
fn png_files_of_16_bits_have_pillows_8_bits() {
    // The levels are those of `Image.open(file).convert("RGB")` in Pillow 13.0.0.
    let samples = [0, 1, 127, 128, 255, 256, 257, 511, 0x7FFF, 0x8000, 0xFF00, 0xFFFF];
    let clipped = [0, 1, 127, 128, 255, 255, 255, 255, 255, 255, 255, 255];
    let upper = [0, 0, 0, 0, 0, 1, 1, 1, 127, 128, 255, 255];
    // Red, of which green and blue are copies.
    let decoded = |colour, channels, interlaced, samples: &[u16]| {
        let levels = levels(&Image::decode(&png_of_16_bits(colour, channels, interlaced, samples)).unwrap());
        let (pixels, _) = levels.as_chunks::<3>();
        pixels.iter().inspect(|pixel| assert_eq!([pixel[0]; 3], **pixel)).map(|pixel| pixel[0]).collect::<Vec<_>>()
    };
    assert_eq!(decoded(0, 1, false, &samples), clipped, "gray");
    assert_eq!(decoded(0, 1, true, &[3, 256]), [3, 255], "gray, interlaced");
    let with_alpha: Vec<u16> = samples.iter().flat_map(|&sample| [sample, 0x1234]).collect();
    assert_eq!(decoded(4, 2, false, &with_alpha), upper, "gray with alpha");
    let colours: Vec<u16> = samples.iter().flat_map(|&sample| [sample; 3]).collect();
    assert_eq!(decoded(2, 3, false, &colours), upper, "red, green, blue");
    let colours: Vec<u16> = samples.iter().flat_map(|&sample| [sample, sample, sample, 0x1234]).collect();
    assert_eq!(decoded(6, 4, false, &colours), upper, "red, green, blue, alpha");
}

/// PNG's checksum.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A picture of this size, in `scans` scans of 30 bytes that state for every block that nothing
/// changes in it.
fn nothing_new(size: u16, scans: usize) -> Vec<u8> {
    let [high, low] = size.to_be_bytes();
    let mut bytes = vec![0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0];
    bytes.extend([1; 64]);
    bytes.extend([0xFF, 0xC2, 0, 11, 8, high, low, high, low, 1, 1, 0x11, 0]);
    // One code of one bit: the next 2^14 blocks and as many more as 14 bits say.
    bytes.extend([0xFF, 0xC4, 0, 20, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xE0]);
    for _ in 0..scans {
        bytes.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, 1, 63, 0x10]);
        bytes.extend([0; 30]);
    }
    bytes.extend([0xFF, 0xD9]);
    bytes
}

#[test]
fn scans_without_end_are_refused() {
    let image = Image::decode(&nothing_new(1023, 100)).unwrap();
    assert!(image.shape() == [3, 1023, 1023] && levels(&image).iter().all(|&level| level == 128));
    assert!(refused(&nothing_new(1023, 101)).contains("more than 100 scans"));
    // 65,536 blocks, which 8 KiB may hold: 80 scans of them are 5.2 million.
    let mut large = nothing_new(2047, 80);
    let end = large.len() - 2;
    large.splice(end..end, [0; 6000]);
    assert!(refused(&large).contains("its scans walk more blocks than 9"), "{}", refused(&large));
}

#[test]
fn scan_after_a_complete_one_is_refused_as_pillow_does() {
    let jpeg = fs::read(fixture("444.jpg")).unwrap();
    let scan = jpeg.windows(2).position(|bytes| bytes == [0xFF, 0xDA]).unwrap();
    let twice = [&jpeg[..jpeg.len() - 2], &jpeg[scan..]].concat();
    assert!(refused(&twice).contains("a scan follows one that has the whole picture"));
}

#[test]
fn white_picture_of_36_million_pixels_opens_by_default() {
    let row = vec![255; 6000];
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 6000, 6000);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(&row.repeat(6000)).unwrap();
    assert_eq!(convnet::data::max_pixels(), 178_956_970);
    let image = Image::decode(&file).unwrap();
    assert!(image.shape() == [3, 6000, 6000] && image.pixels().iter().all(|&level| level == 1.0));
}

#[test]
fn other_kinds_of_file_are_recognised() {
    assert_eq!(refused(b""), "an empty file");
    assert_eq!(refused(b"text"), "neither a JPEG nor a PNG file");
    let mut lossless = fs::read(fixture("gray.jpg")).unwrap();
    let frame = lossless.windows(2).position(|bytes| bytes == [0xFF, 0xC0]).unwrap();
    lossless[frame + 1] = 0xC3;
    assert!(refused(&lossless).contains("lossless or hierarchical coding (marker C3) is not read"));
    let error = Image::open(fixture("missing.jpg")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("missing.jpg"));
    let error = Image::open(fixture("expected.safetensors")).unwrap_err();
    assert!(matches!(error, Error::Format { .. }) && error.to_string().contains("expected.safetensors: neither a JPEG"), "{error}");
    assert!(Image::open(fixture("")).is_err());
}

#[test]
fn thin_picture_is_not_scaled_to_gigabytes() {
    let thin = || Image::new(3, 65_535, 1).unwrap();
    let message = thin().apply(&Resize::shorter(256)).unwrap_err().to_string();
    assert!(message.contains("it is too thin"), "{message}");
    // Columns come first, so that the image between the passes is no larger than the result.
    thin().apply(&Resize::new([224, 600])).unwrap();
    thin().apply(&Resize::new([224, 224])).unwrap();
    assert!(thin().apply(&CenterCrop::new([0, 3])).is_err());
    assert!(thin().apply(&CenterCrop::new([usize::MAX, 3])).is_err());
    assert!(thin().apply(&Resize::shorter(usize::MAX)).is_err());
    assert!(Image::new(2, 4, 4).unwrap().apply(&Grayscale).is_err());
}

/// A folder of pictures, listed by path below it and by fixture.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, name) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(fixture(name), path).unwrap();
    }
    dir
}

/// The paths below the root, and the labels.
fn samples(pictures: &ImageFolder, root: &tempfile::TempDir) -> Vec<(String, i64)> {
    let below = |path: &std::path::Path| path.strip_prefix(root.path()).unwrap().to_str().unwrap().replace('\\', "/");
    pictures.samples().iter().map(|(path, label)| (below(path), *label)).collect()
}

/// What torchvision 0.29's `ImageFolder` gives for these files, except that it takes the names with
/// a dot too: `[path for path, _ in ImageFolder(root).samples]`.
#[test]
fn samples_come_in_torchvisions_order() {
    let expected = [
        "b/2.jpg",
        "b/B.jpg",
        "b/a.jpg",
        "b/a0.jpg",
        "b/a/1.jpg",
        "b/a b/4.jpg",
        "b/a-b/3.jpg",
        "b/a.d/1.jpg",
        "b/a/x/2.jpg",
        "b/a0/0.jpg",
        "b/a\u{e9}/9.jpg",
    ];
    let dotted = [".git/1.jpg", "b/._2.jpg", "b/.thumbnails/2.jpg", ".hidden.jpg"];
    let dir = folder(&[&expected[..], &dotted].concat().into_iter().map(|path| (path, "tiny.jpg")).rev().collect::<Vec<_>>());
    let pictures = ImageFolder::new(dir.path()).unwrap();
    assert_eq!(pictures.classes(), ["b"]);
    assert_eq!(samples(&pictures, &dir), expected.map(|path| (path.to_string(), 0)));
}

#[cfg(unix)]
#[test]
fn each_link_to_a_folder_is_walked_and_circles_end() {
    use std::os::unix::fs::symlink;
    let dir = folder(&[("a/1.jpg", "tiny.jpg"), ("a/sub/2.jpg", "tiny.jpg"), ("b/3.jpg", "tiny.jpg")]);
    let link = |target: &str, name: &str| symlink(target, dir.path().join(name)).unwrap();
    link("sub", "a/first");
    link("sub", "a/second");
    link("1.jpg", "a/one.jpg");
    link("a", "c"); // a class that is a link
    link("..", "a/sub/circle");
    link("../..", "a/sub/root");
    link(".", "b/self");
    link("nowhere", "b/dangling");
    link("round.jpg", "b/round.jpg");
    let a = ["1.jpg", "one.jpg", "first/2.jpg", "second/2.jpg", "sub/2.jpg"];
    let expected: Vec<(String, i64)> = (a.iter().map(|path| (format!("a/{path}"), 0)))
        .chain([("b/3.jpg".to_string(), 1)])
        .chain(a.iter().map(|path| (format!("c/{path}"), 2)))
        .collect();
    assert_eq!(samples(&ImageFolder::new(dir.path()).unwrap(), &dir), expected);
}

#[cfg(unix)]
#[test]
fn links_that_multiply_without_bound_are_an_error() {
    let dir = folder(&[("a/0/1.jpg", "tiny.jpg")]);
    // Two links in each folder to the next one: 2³⁰ paths.
    for level in 0..30 {
        let (here, next) = (dir.path().join(format!("a/{level}")), dir.path().join(format!("a/{}", level + 1)));
        fs::create_dir_all(&next).unwrap();
        for name in ["x", "y"] {
            std::os::unix::fs::symlink(&next, here.join(name)).unwrap();
        }
    }
    let error = ImageFolder::new(dir.path()).unwrap_err().to_string();
    assert!(error.contains("links lead to this folder more than 1000 times"), "{error}");
}

#[test]
fn predicate_chooses_files_and_empty_classes_are_allowed_on_request() {
    let dir = folder(&[("cat/1.jpg", "tiny.jpg"), ("cat/2.picture", "tiny.jpg"), ("dog/1.txt", "tiny.jpg"), ("eel/1.txt", "tiny.jpg")]);
    let complaint = ImageFolder::new(dir.path()).unwrap_err().to_string();
    let extensions =
        if cfg!(feature = "image-formats") { ".jpg, .jpeg, .png, .bmp, .gif, .tif, .tiff or .webp" } else { ".jpg, .jpeg or .png" };
    let expected = format!("no {extensions} file for the classes dog, eel;");
    assert!(complaint.contains(&expected) && complaint.contains("allow_empty"), "{complaint}");
    let some = ImageFolder::options().allow_empty(true).open(dir.path()).unwrap();
    assert_eq!((some.classes(), samples(&some, &dir)), (["cat", "dog", "eel"].map(String::from).to_vec(), vec![("cat/1.jpg".into(), 0)]));
    let own = ImageFolder::options().is_valid_file(|path| !path.ends_with("1.jpg"));
    assert_eq!(
        samples(&own.open(dir.path()).unwrap(), &dir),
        [("cat/2.picture", 0), ("dog/1.txt", 1), ("eel/1.txt", 2)].map(|(p, l)| (p.to_string(), l))
    );
    let none = ImageFolder::options().is_valid_file(|_| false);
    assert!(none.open(dir.path()).unwrap_err().to_string().contains("no file that `is_valid_file` accepts for the classes cat, dog, eel;"));
    assert_eq!(none.allow_empty(true).open(dir.path()).unwrap().len(), 0);
}

#[test]
fn folders_are_classes_in_order_and_files_in_subfolders_belong_to_them() {
    let dir = folder(&[
        ("dog/2.jpg", "420.jpg"),
        ("dog/10.jpg", "422.jpg"),
        ("dog/b/a.PNG", "rgb.png"),
        ("dog/a/z.jpeg", "444.jpg"),
        ("cat/x.png", "gray.png"),
        ("Zebra/x.jpg", "gray.jpg"),
        ("cat/notes.txt", "gray.png"),
        ("top.jpg", "gray.jpg"),
    ]);
    let pictures = ImageFolder::new(dir.path()).unwrap();
    assert_eq!(pictures.classes(), ["Zebra", "cat", "dog"]);
    let samples = samples(&pictures, &dir);
    let expected = [("Zebra/x.jpg", 0), ("cat/x.png", 1), ("dog/10.jpg", 2), ("dog/2.jpg", 2), ("dog/a/z.jpeg", 2), ("dog/b/a.PNG", 2)];
    assert_eq!(samples, expected.map(|(path, label)| (path.to_string(), label)));
    let (image, label) = pictures.get(5, &mut Rng::new(0)).unwrap();
    assert_eq!((image.shape(), label), ([3, 37, 53], 2));
    assert!(pictures.get(6, &mut Rng::new(0)).unwrap_err().to_string().contains("there is no sample 6, the dataset has 6"));
}

#[test]
fn pictures_of_a_folder_come_in_the_same_batches_with_any_number_of_workers() {
    let dir = folder(&[("a/1.jpg", "420.jpg"), ("a/2.jpg", "progressive.jpg"), ("b/1.png", "rgb.png"), ("b/2.jpg", "cmyk.jpg")]);
    let batches = |workers| {
        let loader = DataLoader::new(ImageFolder::new(dir.path()).unwrap(), 3).shuffle(1).workers(workers);
        let loader = loader.transform((Resize::shorter(32), CenterCrop::new([30, 30])));
        let all = loader.epoch(0).map(|batch| batch.unwrap());
        all.map(|batch| (batch.images.to_vec::<f32>().unwrap(), batch.labels.to_vec::<i64>().unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(batches(0).len(), 2);
    assert!(batches(0) == batches(2));
}

#[test]
fn folders_without_classes_and_files_that_are_no_pictures_are_errors_that_name_them() {
    let complaint = |dir: &tempfile::TempDir| ImageFolder::new(dir.path()).unwrap_err().to_string();
    assert!(complaint(&folder(&[])).contains("no folders of classes"));
    assert!(complaint(&folder(&[("a/1.jpg", "420.jpg"), ("b/1.txt", "420.jpg")])).contains("for the classes b;"));
    assert!(matches!(ImageFolder::new(fixture("nowhere")), Err(Error::Io { .. })));
    let dir = folder(&[("a/1.jpg", "420.jpg"), ("a/2.jpg", "expected.safetensors")]);
    let error = DataLoader::new(ImageFolder::new(dir.path()).unwrap(), 2).workers(1).epoch(0).next().unwrap().unwrap_err().to_string();
    assert!(error.starts_with("sample 1: ") && error.contains("2.jpg: neither a JPEG nor a PNG file"), "{error}");
}

/// On real files, in `data/cifar10` or the directory that `CONVNET_CIFAR10_JPEG` names.
#[test]
#[ignore = "needs data/cifar10 or CONVNET_CIFAR10_JPEG with test/CLASS/NNNN.jpg"]
fn real_pictures_are_read_in_order_on_the_loaders_threads() {
    let dir = std::env::var_os("CONVNET_CIFAR10_JPEG").map_or_else(|| PathBuf::from("data/cifar10"), PathBuf::from).join("test");
    let test = ImageFolder::new(dir).unwrap();
    let classes = test.classes();
    assert!(classes.len() == 10 && classes[0] == "airplane" && classes[9] == "truck", "{classes:?}");
    let (count, mut seen) = (test.len(), [0; 10]);
    for batch in DataLoader::new(test, 250).workers(2).epoch(0) {
        let batch = batch.unwrap();
        assert_eq!(batch.images.shape()[1..], [3, 32, 32]);
        batch.labels.to_vec::<i64>().unwrap().into_iter().for_each(|label| seen[label as usize] += 1);
    }
    assert_eq!((count, seen), (10_000, [1000; 10]));
}

#[test]
fn imagenets_classes_are_in_the_order_of_labels() {
    let known = [(0, "tench"), (1, "goldfish"), (281, "tabby"), (638, "maillot"), (639, "maillot tank suit"), (999, "toilet tissue")];
    for (label, name) in known {
        assert_eq!(IMAGENET_CLASSES[label], name);
    }
}
