use super::*;

/// A picture with smooth parts, edges and noise, so that each filter is the best of some row.
fn picture(channels: usize, height: usize, width: usize) -> Image {
    let mut noise = 1u32;
    let bytes = (0..height * width * channels).map(|i| {
        let (y, x, c) = (i / (width * channels), i / channels % width, i % channels);
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match y % 6 {
            0 => (x * 5 + c * 40) as u8,
            1 => (noise >> 24) as u8,
            2 => (x * x / 3 + y * 7) as u8,
            3 => ((x / 4 % 2) * 255) as u8,
            _ => (x * 5 + y * 9 + c) as u8,
        }
    });
    Image::from_bytes([channels, height, width], bytes.collect()).unwrap()
}

#[test]
fn png_files_have_the_bytes_of_the_image_for_every_number_of_channels() {
    for (channels, colour) in
        [(1, png::ColorType::Grayscale), (2, png::ColorType::GrayscaleAlpha), (3, png::ColorType::Rgb), (4, png::ColorType::Rgba)]
    {
        for [height, width] in [[1, 1], [1, 9], [7, 1], [37, 53]] {
            let image = picture(channels, height, width);
            let file = image.encode_png().unwrap();
            let mut reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
            let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut bytes).unwrap();
            assert_eq!((info.color_type, info.width, info.height), (colour, width as u32, height as u32));
            assert_eq!(bytes, image.bytes().unwrap());
        }
    }
}

#[test]
fn every_filter_is_chosen_where_it_is_the_best() {
    let mut chosen = [false; 5];
    let image = picture(3, 60, 40);
    let file = image.encode_png().unwrap();
    // The only chunk of image data begins behind the signature and the header's chunk.
    let length = u32::from_be_bytes(file[33..37].try_into().unwrap()) as usize;
    let mut rows = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(&file[41..41 + length]), &mut rows).unwrap();
    rows.chunks(3 * 40 + 1).for_each(|row| chosen[usize::from(row[0])] = true);
    assert_eq!(chosen, [true; 5]);
}

#[test]
fn floats_are_limited_and_rounded_to_255ths() {
    let image = Image::from_floats([1, 1, 5], vec![-1.0, 0.5, 0.999, 7.0, f32::NAN]).unwrap();
    let mut bytes = [1; 5];
    let file = image.encode_png().unwrap();
    png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap().next_frame(&mut bytes).unwrap();
    assert_eq!(bytes, [0, 128, 255, 255, 0]);
}

#[test]
fn shapes_that_a_format_cannot_hold_are_errors() {
    for shape in [[5, 2, 2], [0, 2, 2], [3, 0, 2], [3, 2, 0]] {
        let image = Image::new(shape[0], shape[1], shape[2]).unwrap();
        assert!(matches!(image.encode_png(), Err(Error::Shape { .. })), "{shape:?}");
    }
}

#[test]
fn extension_names_the_format_and_another_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let image = picture(3, 4, 5);
    for name in ["a.tga", "a", ".png"] {
        let error = image.save(folder.path().join(name)).unwrap_err().to_string();
        assert!(error.contains("has to end in .png, .jpg or .jpeg"), "{error}");
    }
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    image.save(folder.path().join("a.PNG")).unwrap();
    assert_eq!(std::fs::read(folder.path().join("a.PNG")).unwrap(), image.encode_png().unwrap());
    let nowhere = image.save(folder.path().join("missing/a.png")).unwrap_err();
    assert!(matches!(nowhere, Error::Io { .. }), "{nowhere}");
}

#[cfg(feature = "image")]
#[test]
fn jpeg_files_open_with_nearly_the_same_colours() {
    let smooth = (0..64 * 48 * 3).map(|i| (i / 3 % 48 * 2 + i / 144 + i % 3 * 30) as u8).collect();
    let image = Image::from_bytes([3, 64, 48], smooth).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The steps of the lowest frequencies at quality 90 are 2 to 4.
    for name in ["a.jpg", "b.jpeg"] {
        image.save(folder.path().join(name)).unwrap();
        let read = Image::open(folder.path().join(name)).unwrap();
        let worst = read.bytes().unwrap().iter().zip(image.bytes().unwrap()).map(|(&a, &b)| a.abs_diff(b)).max();
        assert!(worst <= Some(8), "{worst:?}");
    }
    let gray = picture(1, 9, 17);
    assert_eq!(Image::decode(&gray.encode_jpeg(100).unwrap()).unwrap().shape(), [3, 9, 17]);
    assert!(matches!(gray.encode_jpeg(0), Err(Error::Argument { .. })));
    assert!(matches!(picture(4, 2, 2).encode_jpeg(90), Err(Error::Shape { .. })));
    assert!(matches!(Image::new(1, 1, 65_536).unwrap().encode_jpeg(90), Err(Error::Shape { .. })));
}

#[cfg(feature = "image")]
#[test]
fn png_files_that_are_saved_open_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let image = picture(3, 33, 20);
    image.save(folder.path().join("a.png")).unwrap();
    assert_eq!(Image::open(folder.path().join("a.png")).unwrap().bytes(), image.bytes());
}
