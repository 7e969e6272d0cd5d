//! Files of datasets: archives, lists, series, pictures with EXIF, masks, Parquet.

use std::fs;
use std::path::Path;

use convnet::data::{Cifar10, Dataset, ImageList, Rng, SeriesFile};
use convnet::{Error, Result};

use crate::mutate;

/// Writes a file for each input and opens it; an error has to name it.
fn reader<T>(name: &str, open: impl Fn(&Path) -> Result<T>) -> impl Fn(&[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    move |file| {
        fs::create_dir_all(folder.path()).unwrap();
        fs::write(&path, file).unwrap();
        opened(open(&path))
    }
}

fn opened<T>(result: Result<T>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// Appends an entry to a tar archive.
fn entry(archive: &mut Vec<u8>, name: &str, kind: u8, content: &[u8]) {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    archive.extend(header);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

/// Writes the right checksum into every header.
fn with_right_checksums(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + 512) {
        header[148..156].fill(b' ');
        let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let size = std::str::from_utf8(&header[124..135]).ok().and_then(|size| usize::from_str_radix(size, 8).ok());
        let Some(next) = size.and_then(|size| size.checked_next_multiple_of(512)).and_then(|size| at.checked_add(512 + size)) else {
            return;
        };
        at = next;
    }
}

/// A record of CIFAR-10 is a label and a picture of bytes; while the vector that it is read into
/// grows, there are the old and the new one, which is at most twice as large.
const PER_TAR_BYTE: usize = 3 + 2;

#[test]
fn a_mutated_archive_is_a_dataset_or_an_error_in_proportion() {
    let record = |label: u8| [&[label][..], &[7; 3072]].concat();
    let mut whole = Vec::new();
    entry(&mut whole, "cifar-10-batches-bin/", b'5', b"");
    entry(&mut whole, "cifar-10-batches-bin/readme.html", b'0', b"hello");
    entry(&mut whole, "cifar-10-batches-bin/test_batch.bin", b'0', &[record(3), record(9)].concat());
    let mut dotted = Vec::new();
    entry(&mut dotted, "./cifar-10-batches-bin/test_batch.bin", 0, &record(0));
    dotted.extend([0; 1024]);
    let mut seeds = vec![whole, dotted];
    seeds.iter_mut().for_each(|seed| with_right_checksums(seed));
    mutate::run("tar", &seeds, PER_TAR_BYTE, with_right_checksums, reader("archive.tar", |path| Cifar10::test(path)));
}

/// A field of one byte, a comma, is a `String` in a vector that grows.
const PER_LIST_BYTE: usize = 3 * size_of::<String>() + 8;

#[test]
fn a_mutated_list_is_a_dataset_or_an_error_in_proportion() {
    let pictures = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c d"] {
        fs::write(pictures.path().join(name), "").unwrap();
    }
    let seeds = [
        "path,label\na,0\nb,1\n\"c d\",2\n",
        "a;3\r\nb;4\r\n\r\nc d;5",
        "\u{feff}path,x,y\na,1.5,-2e3\nb,0,0\n",
        "path,cat,\"d\"\"og\"\na,1,0\nb,true,false\nc d,-1,1\n",
        "path,names\na,red\nb,\"green\nblue\"\n",
    ];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec());
    let options = ImageList::options().root(pictures.path());
    let open = |path: &Path| {
        let all = [
            options.class_labels(path).map(|list| list.len()),
            options.clone().header(false).delimiter(';').class_names(path).map(|list| list.len()),
            options.vectors(path).map(|list| list.len()),
            options.multi_labels(path).map(|list| list.len()),
        ];
        all.into_iter().find_map(Result::ok).ok_or_else(|| Error::msg("none of the kinds of lists"))
    };
    mutate::run("list", &seeds, PER_LIST_BYTE, |_| {}, reader("list.csv", open));
}

/// A sample takes three bytes at least and is a target with its line in a vector that grows, and a
/// class. A byte that is no UTF-8 becomes three.
const PER_SERIES_BYTE: usize = 3 + 3 * (size_of::<(usize, String)>() + size_of::<String>());

#[test]
fn a_mutated_series_file_is_series_or_an_error_in_proportion() {
    let seeds = [
        "#note\n@problemName x\n@classLabel true up down\n@data\n1,2,3.5:up\n3,?,1:down\n2,4,8:up\n",
        "@targetlabel true\n\n@data\r\n1, 2:3,-4e-1:0.5\r\n5,?:7,8:2\n",
        "@data\n1:a\n2:a\n3:b\n4:b\n5:c",
    ];
    let seeds = seeds.map(|seed| seed.as_bytes().to_vec());
    let open = |path: &Path| {
        let file = SeriesFile::open(path)?;
        assert_eq!(file.series().shape()[0], file.series().numel() / file.series().shape()[1..].iter().product::<usize>());
        file.by_class().or_else(|_| file.by_number())
    };
    mutate::run("series", &seeds, PER_SERIES_BYTE, |_| {}, reader("x.ts", open));
}

#[cfg(feature = "image")]
mod pictures {
    use convnet::data::{Image, Mask};

    use super::*;
    use crate::pictures::{PER_JPEG_BYTE, PER_PNG_BYTE, fixtures, with_right_checksums};

    /// EXIF data whose only tag is the orientation, in either order of bytes.
    fn exif(little: bool) -> Vec<u8> {
        let short = |value: u16| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let long = |value: u32| if little { value.to_le_bytes() } else { value.to_be_bytes() };
        let start: &[u8] = if little { b"Exif\0\0II" } else { b"Exif\0\0MM" };
        let tag = [&short(0x0112)[..], &short(3), &long(1), &short(6), &[0, 0]].concat();
        [start, &short(42), &long(8), &short(1), &tag, &long(0)].concat()
    }

    #[test]
    fn a_mutated_orientation_is_a_picture_or_an_error_in_proportion() {
        let mut seeds = Vec::new();
        for (jpeg, little) in fixtures("jpg", "none").iter().filter(|jpeg| jpeg.len() < 2000).zip([true, false].into_iter().cycle()) {
            let exif = exif(little);
            let length = (2 + exif.len() as u16).to_be_bytes();
            seeds.push([&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat());
        }
        for (png, little) in fixtures("png", "none").iter().zip([true, false].into_iter().cycle()) {
            let exif = &exif(little)[6..];
            let length = (exif.len() as u32).to_be_bytes();
            // After the header, whose chunk has 25 bytes; the checksum is made right below.
            let mut file = [&png[..33], &length, b"eXIf", exif, &[0; 4], &png[33..]].concat();
            with_right_checksums(&mut file);
            seeds.push(file);
        }
        if cfg!(feature = "image-formats") {
            seeds.push(fs::read("tests/fixtures/formats/turned.webp").unwrap());
        }
        assert!(seeds.len() > 5, "{} seeds", seeds.len());
        // A tag is in the first bytes of a file: most mutations are there.
        let make = |random: &mut Rng| {
            let mut file = seeds[random.below(seeds.len())].clone();
            let rest = file.split_off(80.min(file.len()));
            for _ in 0..=random.below(4) {
                mutate::mutate(&mut file, &seeds, random);
            }
            file.extend(rest);
            if file.starts_with(&[0x89]) && random.below(2) == 0 {
                with_right_checksums(&mut file);
            }
            file
        };
        let per_byte = PER_JPEG_BYTE.max(PER_PNG_BYTE);
        // The header states the size of every picture that opens.
        let check = |size: Option<[usize; 2]>, stated: Result<[usize; 2]>| match size {
            Some(size) => assert_eq!(stated.expect("a picture that opens has a size"), size),
            None => drop(opened(stated)),
        };
        let open = |path: &Path| {
            check(Image::open(path).ok().map(|image| image.size()), Image::size_of(path));
            let upright = Image::open_upright(path);
            check(upright.as_ref().ok().map(Image::size), Image::size_of_upright(path));
            upright
        };
        mutate::run_made("EXIF", per_byte, make, reader("picture", open));
    }

    #[test]
    fn a_mutated_mask_is_a_mask_or_an_error_in_proportion() {
        let seeds = fixtures("png", "png");
        mutate::run("mask", &seeds, PER_PNG_BYTE, with_right_checksums, reader("mask.png", |path| Mask::open(path)));
    }
}

#[cfg(feature = "parquet")]
mod parquet {
    use convnet::data::ParquetImages;

    use super::*;
    use crate::pictures::PER_PNG_BYTE;

    /// A byte of Snappy makes 21, of a PNG picture. The crate `parquet` holds as much for each row,
    /// of which there are no more than bytes.
    const PER_PARQUET_BYTE: usize = 21 * PER_PNG_BYTE;

    #[test]
    fn a_mutated_parquet_file_is_a_dataset_or_an_error_in_proportion() {
        // Panics inside of the crate `parquet` are caught; their messages are of no interest.
        let seeds = ["pictures", "plain"].map(|name| fs::read(format!("tests/fixtures/{name}.parquet")).unwrap());
        let open = |path: &Path| {
            let first = ParquetImages::open([path]).or_else(|_| ParquetImages::options().image("picture").label("kind").open([path]))?;
            (0..first.len()).try_for_each(|index| first.get(index, &mut Rng::new(0)).map(drop))
        };
        mutate::run("Parquet", &seeds, PER_PARQUET_BYTE, |_| {}, reader("x.parquet", open));
    }
}
