//! Draws a picture under each transform, side by side, to see what an augmentation does.
//!
//! ```sh
//! cargo run --release --example augment -- --image cat.jpg --out sheet.png
//! cargo run --release --example augment -- --image cat.jpg --transform RandAugment --columns 12
//! ```
//!
//! Each row of the sheet is a transform, whose name stands above it, under several seeds; without
//! chance, with several arguments. The first column is the picture itself.

#[path = "common/program.rs"]
mod program;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use convnet::Tensor;
use convnet::data::{
    AugMix, AutoAugment, AutoAugmentPolicy, Batch, BatchTransform, CenterCrop, Collate, ColorJitter, CutMix, ElasticTransform,
    GaussianBlur, Grayscale, Image, MixUp, Pad, PaddingMode, RandAugment, RandomAdjustSharpness, RandomAffine, RandomApply,
    RandomAutocontrast, RandomChoice, RandomCrop, RandomEqualize, RandomErasing, RandomGrayscale, RandomHorizontalFlip, RandomInvert,
    RandomOrder, RandomPerspective, RandomPosterize, RandomResizedCrop, RandomRotation, RandomSolarize, RandomVerticalFlip, Resize,
    ResizeFilter, Rng, Transform, TrivialAugmentWide, five_crop, ten_crop,
};
use program::say;

/// Draw a picture under each transform.
#[derive(Parser)]
struct Options {
    /// A JPEG or PNG file [default: a drawn test picture]
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Where to write the sheet, as PNG or JPEG
    #[arg(long, value_name = "FILE", default_value = "out/augment.png")]
    out: PathBuf,
    /// The seed of all random numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Draw only this transform; may be given several times
    #[arg(long, value_name = "NAME")]
    transform: Vec<String>,
    /// Height and width of a picture in the sheet
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(8..=1024))]
    size: u16,
    /// Pictures in a row, beside the original
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=100))]
    columns: u16,
}

/// Pixels between the pictures of the sheet.
const GAP: usize = 4;

type Fallible<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    program::run(|| run(&Options::parse()))
}

fn run(options: &Options) -> Fallible<()> {
    let size = usize::from(options.size);
    let mut picture = match &options.image {
        Some(path) => Image::open(path)?,
        None => test_picture(),
    };
    if picture.channels() != 3 {
        picture.apply(&Grayscale)?;
    }
    picture.apply(&(Resize::shorter(size), CenterCrop::new([size, size])))?;
    let rows = chosen(transforms(size), &options.transform)?;

    let columns = 1 + usize::from(options.columns);
    let width = columns * (size + GAP) + GAP;
    let mut sheet = Vec::new();
    for (row, (name, change)) in rows.iter().enumerate() {
        let generator = |column: usize| Rng::for_sample(options.seed, row as u64, column as u64);
        let mut pictures = vec![picture.clone()];
        pictures.extend(change.pictures(&picture, columns - 1, &generator)?);
        for changed in &mut pictures {
            changed.apply(&CenterCrop::new([size, size]))?;
        }
        let differing = pictures[1..].iter().filter(|changed| changed.pixels() != pictures[0].pixels()).count();
        say(format_args!("row {:>2}: {name}, {differing} of {} pictures changed", row + 1, pictures.len() - 1));
        // Black fills the last row up.
        pictures.resize(pictures.len().next_multiple_of(columns), Image::new(3, size, size)?);
        sheet.extend(lettering(name, width));
        sheet.extend_from_slice(Image::grid(&pictures, columns, GAP)?.bytes().ok_or("the pictures are not of bytes")?);
    }
    let height = sheet.len() / (3 * width);
    if let Some(folder) = options.out.parent() {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    Image::from_bytes([3, height, width], sheet)?.save(&options.out)?;
    say(format_args!("wrote {}", options.out.display()));
    Ok(())
}

type Named = (&'static str, Change);

/// What a row of the sheet shows.
enum Change {
    /// A transform with several seeds.
    Random(Box<dyn Transform>),
    /// A transform with several arguments.
    Fixed(Vec<Box<dyn Transform>>),
    /// Parts of the picture.
    Parts(fn(&Image) -> convnet::Result<Vec<Image>>),
    /// The picture mixed with another one, with several seeds.
    Mixed(Box<dyn BatchTransform<Batch>>),
}

impl Change {
    fn pictures(&self, picture: &Image, columns: usize, generator: &dyn Fn(usize) -> Rng) -> convnet::Result<Vec<Image>> {
        let changed = |transform: &dyn Transform, column: usize| {
            let mut changed = picture.clone();
            transform.apply(&mut changed, &mut generator(column)).map(|()| changed)
        };
        match self {
            Change::Random(transform) => (1..=columns).map(|column| changed(&**transform, column)).collect(),
            Change::Fixed(transforms) => transforms.iter().map(|transform| changed(&**transform, 0)).collect(),
            Change::Parts(parts) => parts(picture),
            Change::Mixed(mixture) => {
                let mixed = |column: usize| {
                    let images = Image::collate(vec![picture.clone(), stripes(picture.size())?])?;
                    let batch = Batch { images, labels: Tensor::from_vec(vec![0i64, 1], [2])? };
                    let images = mixture.apply(batch, &mut generator(column))?.images;
                    Image::from_tensor(&images.narrow(0, 0, 1)?.squeeze(0)?).map(|image| image.to_bytes())
                };
                (1..=columns).map(mixed).collect()
            }
        }
    }
}

/// Makes all transforms, with the arguments that papers use, or with the change always applied.
fn transforms(size: usize) -> Vec<Named> {
    fn random(name: &'static str, transform: impl Transform + 'static) -> Named {
        (name, Change::Random(Box::new(transform)))
    }
    fn fixed<T: Transform + 'static>(name: &'static str, transforms: impl IntoIterator<Item = T>) -> Named {
        (name, Change::Fixed(transforms.into_iter().map(|transform| Box::new(transform) as Box<dyn Transform>).collect()))
    }
    let modes = [PaddingMode::Constant, PaddingMode::Edge, PaddingMode::Reflect, PaddingMode::Symmetric];
    let filters = [ResizeFilter::Nearest, ResizeFilter::Bilinear, ResizeFilter::Bicubic];
    let (jitter, blur) = (ColorJitter::new().brightness(0.4).hue(0.1), GaussianBlur::new(7).sigma([0.1, 3.0]));
    vec![
        // Small, so that the enlargement shows how the pixels were weighted.
        fixed("Resize", filters.map(|filter| (Resize::new(size / 4), Resize::new(size).interpolation(filter)))),
        fixed("CenterCrop", [2, 3, 4].map(|part| CenterCrop::new(size * part / 5))),
        fixed("Pad", modes.map(|mode| (Pad::new(size / 4).mode(mode), Resize::new(size)))),
        ("FiveCrop", Change::Parts(|image| Ok(five_crop(image, image.height() * 5 / 8)?.to_vec()))),
        ("TenCrop", Change::Parts(|image| Ok(ten_crop(image, image.height() * 5 / 8, false)?.to_vec()))),
        random("RandomCrop", RandomCrop::new(size).padding(size / 8)),
        random("RandomResizedCrop", RandomResizedCrop::new(size)),
        random("RandomHorizontalFlip", RandomHorizontalFlip::new(0.5)),
        random("RandomVerticalFlip", RandomVerticalFlip::new(0.5)),
        random("RandomRotation", RandomRotation::new(30.0)),
        random("RandomRotation", RandomRotation::of([90, 180, 270])),
        random("RandomAffine", RandomAffine::new(15.0).translate([0.1, 0.1]).scale([0.8, 1.2]).shear(10.0)),
        random("RandomPerspective", RandomPerspective::new(1.0).distortion_scale(0.5)),
        random("ElasticTransform", ElasticTransform::new()),
        random("ColorJitter", ColorJitter::new().brightness(0.4).contrast(0.4).saturation(0.4).hue(0.1)),
        random("RandomGrayscale", RandomGrayscale::new(0.5)),
        random("RandomInvert", RandomInvert::new(0.5)),
        random("RandomPosterize", RandomPosterize::new(2, 0.5)),
        random("RandomSolarize", RandomSolarize::new(128.0, 0.5)),
        random("RandomAdjustSharpness", RandomAdjustSharpness::new(3.0, 0.5)),
        random("RandomAutocontrast", RandomAutocontrast::new(0.5)),
        random("RandomEqualize", RandomEqualize::new(0.5)),
        random("GaussianBlur", blur),
        random("RandomErasing", RandomErasing::new(1.0)),
        random("RandomApply", RandomApply::new((jitter, blur), 0.5)),
        random("RandomChoice", RandomChoice::new().push(RandomInvert::new(1.0)).push(RandomEqualize::new(1.0)).push(blur)),
        random("RandomOrder", RandomOrder::new().push(RandomPosterize::new(2, 1.0)).push(RandomRotation::new(45.0)).push(jitter)),
        random("RandAugment", RandAugment::new()),
        random("TrivialAugmentWide", TrivialAugmentWide::new()),
        random("AutoAugment", AutoAugment::new(AutoAugmentPolicy::ImageNet)),
        random("AugMix", AugMix::new()),
        ("MixUp", Change::Mixed(Box::new(MixUp::new(1.0, 2)))),
        ("CutMix", Change::Mixed(Box::new(CutMix::new(1.0, 2)))),
    ]
}

/// Draws the picture that others are mixed with.
fn stripes([height, width]: [usize; 2]) -> convnet::Result<Image> {
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x + y) / 8 % 2 == 0));
    Image::from_bytes([3, height, width], pixels.flat_map(|bright| if bright { [250, 210, 60] } else { [90, 20, 110] }).collect())
}

/// Keeps the transforms of these names; all when there are none.
fn chosen(all: Vec<Named>, names: &[String]) -> Fallible<Vec<Named>> {
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|(known, _)| known != name)) {
        let known: Vec<&str> = all.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no transform {unknown}; there are {}", known.join(", ")).into());
    }
    Ok(all.into_iter().filter(|(name, _)| names.is_empty() || names.iter().any(|wanted| wanted == name)).collect())
}

/// Draws a picture with an edge, gradients and colours.
fn test_picture() -> Image {
    let pixel = |y: usize, x: usize| -> [u8; 3] {
        let (dy, dx) = (y as f32 - 120.0, x as f32 - 100.0);
        match (dy * dy + dx * dx).sqrt() {
            r if r < 60.0 => [230, 80, 50],
            r if r < 66.0 => [20, 20, 30],
            _ if (x / 32 + y / 32).is_multiple_of(2) => [60, (x / 2) as u8 + 60, 190],
            _ => [(y / 2) as u8 + 90, 170, 90],
        }
    };
    let bytes = (0..256).flat_map(|y| (0..256).flat_map(move |x| pixel(y, x))).collect();
    Image::from_bytes([3, 256, 256], bytes).expect("three bytes for each pixel")
}

/// The letters of names, five columns of seven pixels each; the lowest bit is at the top.
#[rustfmt::skip]
const LETTERS: [[u8; 5]; 52] = [
    [0x7e, 0x11, 0x11, 0x11, 0x7e], [0x7f, 0x49, 0x49, 0x49, 0x36], [0x3e, 0x41, 0x41, 0x41, 0x22], [0x7f, 0x41, 0x41, 0x22, 0x1c],
    [0x7f, 0x49, 0x49, 0x49, 0x41], [0x7f, 0x09, 0x09, 0x09, 0x01], [0x3e, 0x41, 0x49, 0x49, 0x7a], [0x7f, 0x08, 0x08, 0x08, 0x7f],
    [0x00, 0x41, 0x7f, 0x41, 0x00], [0x20, 0x40, 0x41, 0x3f, 0x01], [0x7f, 0x08, 0x14, 0x22, 0x41], [0x7f, 0x40, 0x40, 0x40, 0x40],
    [0x7f, 0x02, 0x0c, 0x02, 0x7f], [0x7f, 0x04, 0x08, 0x10, 0x7f], [0x3e, 0x41, 0x41, 0x41, 0x3e], [0x7f, 0x09, 0x09, 0x09, 0x06],
    [0x3e, 0x41, 0x51, 0x21, 0x5e], [0x7f, 0x09, 0x19, 0x29, 0x46], [0x46, 0x49, 0x49, 0x49, 0x31], [0x01, 0x01, 0x7f, 0x01, 0x01],
    [0x3f, 0x40, 0x40, 0x40, 0x3f], [0x1f, 0x20, 0x40, 0x20, 0x1f], [0x3f, 0x40, 0x38, 0x40, 0x3f], [0x63, 0x14, 0x08, 0x14, 0x63],
    [0x07, 0x08, 0x70, 0x08, 0x07], [0x61, 0x51, 0x49, 0x45, 0x43],
    [0x20, 0x54, 0x54, 0x54, 0x78], [0x7f, 0x48, 0x44, 0x44, 0x38], [0x38, 0x44, 0x44, 0x44, 0x20], [0x38, 0x44, 0x44, 0x48, 0x7f],
    [0x38, 0x54, 0x54, 0x54, 0x18], [0x08, 0x7e, 0x09, 0x01, 0x02], [0x0c, 0x52, 0x52, 0x52, 0x3e], [0x7f, 0x08, 0x04, 0x04, 0x78],
    [0x00, 0x44, 0x7d, 0x40, 0x00], [0x20, 0x40, 0x44, 0x3d, 0x00], [0x7f, 0x10, 0x28, 0x44, 0x00], [0x00, 0x41, 0x7f, 0x40, 0x00],
    [0x7c, 0x04, 0x18, 0x04, 0x78], [0x7c, 0x08, 0x04, 0x04, 0x78], [0x38, 0x44, 0x44, 0x44, 0x38], [0x7c, 0x14, 0x14, 0x14, 0x08],
    [0x08, 0x14, 0x14, 0x18, 0x7c], [0x7c, 0x08, 0x04, 0x04, 0x08], [0x48, 0x54, 0x54, 0x54, 0x20], [0x04, 0x3f, 0x44, 0x40, 0x20],
    [0x3c, 0x40, 0x40, 0x20, 0x7c], [0x1c, 0x20, 0x40, 0x20, 0x1c], [0x3c, 0x40, 0x30, 0x40, 0x3c], [0x44, 0x28, 0x10, 0x28, 0x44],
    [0x0c, 0x50, 0x50, 0x50, 0x3c], [0x44, 0x64, 0x54, 0x4c, 0x44],
];

/// Returns the pixels of a strip of this width with a name in white on black; what does not fit is
/// cut off.
fn lettering(name: &str, width: usize) -> Vec<u8> {
    const SCALE: usize = 2;
    let letters = name.bytes().filter_map(|letter| match letter {
        b'A'..=b'Z' => Some(LETTERS[usize::from(letter - b'A')]),
        b'a'..=b'z' => Some(LETTERS[26 + usize::from(letter - b'a')]),
        _ => None,
    });
    let columns: Vec<u8> = letters.flat_map(|[a, b, c, d, e]| [a, b, c, d, e, 0]).collect();
    // A gap above, none below: that of the pictures follows.
    let white = |y: usize, x: usize| {
        let (row, column) = (y.checked_sub(GAP)? / SCALE, x.checked_sub(GAP)? / SCALE);
        (columns.get(column)? >> row & 1 == 1).then_some(())
    };
    let pixels = (0..GAP + 7 * SCALE).flat_map(|y| (0..width).map(move |x| (y, x)));
    pixels.flat_map(|(y, x)| [if white(y, x).is_some() { 255 } else { 0 }; 3]).collect()
}
