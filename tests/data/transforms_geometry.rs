//! Geometric transforms against torchvision's on PIL images, and the distributions of random ones.

use convnet::Tensor;
use convnet::data::{
    Affine, Boxes, Crop, Deterministic, Elastic, ElasticTransform, Geometric, Geometry, HorizontalFlip, Image, KeyPoints, Mask, Pad,
    PaddingMode, Part, Perspective, RandomAffine, RandomCrop, RandomHorizontalFlip, RandomPerspective, RandomResizedCrop, RandomRotation,
    RandomVerticalFlip, Resize, ResizeFilter, ResizedCrop, Rng, Rotate, Transform, VerticalFlip, apply_geometry, five_crop, ten_crop,
};
use convnet::nn::StateDict;

use super::{complaint, image_of};

fn fixture() -> StateDict {
    StateDict::load(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/transforms_geometry.safetensors")).unwrap()
}

fn assert_same(got: &Image, expected: &Image, name: &str) {
    assert_eq!((got.shape(), got.is_bytes()), (expected.shape(), expected.is_bytes()), "{name}");
    let different = got.pixels().iter().zip(expected.pixels().iter()).filter(|(a, b)| a != b).count();
    assert_eq!(different, 0, "values of {name} that differ");
}

const FILTERS: [(&str, ResizeFilter); 3] =
    [("nearest", ResizeFilter::Nearest), ("bilinear", ResizeFilter::Bilinear), ("bicubic", ResizeFilter::Bicubic)];

/// The transforms of the fixture's cases, with fill for this picture.
fn cases(kind: &str) -> Vec<(String, Box<dyn Deterministic>)> {
    let fill = || if kind == "rgb" { vec![200.0, 10.0, 90.0] } else { vec![if kind == "gray" { 77.0 } else { 0.0 }] };
    let mut cases: Vec<(String, Box<dyn Deterministic>)> = Vec::new();
    let mut add = |name: &str, transform: Box<dyn Deterministic>| cases.push((name.to_owned(), transform));
    add("hflip", Box::new(HorizontalFlip));
    add("vflip", Box::new(VerticalFlip));
    add("crop", Box::new(Crop::new(-3, 5, [12, 17])));
    add("crop inside", Box::new(Crop::new(2, 5, [12, 7])));
    add("pad constant", Box::new(Pad::new([3, 1, 0, 5]).fill(fill())));
    add("pad edge", Box::new(Pad::new([3, 1, 0, 5]).mode(PaddingMode::Edge)));
    add("pad reflect", Box::new(Pad::new([45, 20]).mode(PaddingMode::Reflect)));
    add("pad symmetric", Box::new(Pad::new([4, 35, 5, 0]).mode(PaddingMode::Symmetric)));
    add("resize shorter 9 max 11", Box::new(Resize::shorter(9).max_size(11)));
    add("resize nearest", Box::new(Resize::new([23, 13]).interpolation(ResizeFilter::Nearest)));
    for (name, filter) in FILTERS {
        let crop =
            |at: [usize; 2], from: [usize; 2], to: [usize; 2]| Box::new(ResizedCrop::new(at[0], at[1], from, to).interpolation(filter));
        add(&format!("resized crop {name}"), crop([2, 3], [11, 14], [9, 19]));
        add(&format!("resized crop same width {name}"), crop([4, 1], [12, 10], [5, 10]));
        add(&format!("resized crop same height {name}"), crop([4, 3], [10, 14], [10, 9]));
        let rotate = |degrees: f64| Rotate::by(degrees).interpolation(filter).fill(fill());
        add(&format!("rotate 30 {name}"), Box::new(rotate(30.0)));
        add(&format!("rotate -100.5 expand {name}"), Box::new(rotate(-100.5).expand(true)));
        add(&format!("rotate 77 center {name}"), Box::new(rotate(77.0).center([3.0, 4.5])));
        add(&format!("rotate 90 {name}"), Box::new(rotate(90.0).fill(0.0)));
        let affine = Affine::new().interpolation(filter).fill(fill());
        add(&format!("affine scale {name}"), Box::new(affine.clone().translate([1.0, 2.0]).scale(1.7).center([2.0, 5.0])));
        add(&format!("affine {name}"), Box::new(affine.rotate(25.0).translate([3.0, -2.0]).scale(0.8).shear([10.0, -15.0])));
        let perspective =
            Perspective::new([[0.0, 0.0], [15.0, 0.0], [15.0, 12.0], [0.0, 12.0]], [[2.0, 1.0], [13.0, 3.0], [14.0, 10.0], [1.0, 11.0]]);
        add(&format!("perspective {name}"), Box::new(perspective.interpolation(filter).fill(fill())));
    }
    for angle in [90, 180, -90] {
        add(&format!("rotate {angle} expand"), Box::new(Rotate::by(angle.into()).expand(true)));
    }
    cases
}

#[test]
fn fixed_geometry_gives_the_values_of_pillow() {
    let expected = fixture();
    let mut held = 0;
    for kind in ["rgb", "gray", "float"] {
        for (name, transform) in cases(kind) {
            let Some(tensor) = expected.get(&format!("{kind} {name}")) else {
                assert_eq!(kind, "float", "{name}");
                continue;
            };
            let mut got = image_of(expected.get(kind).unwrap());
            got.apply(&*transform).unwrap();
            assert_same(&got, &image_of(tensor), &format!("{kind} {name}"));
            held += 1;
        }
    }
    assert_eq!(held, 2 * 43 + 6, "cases of the fixture");
}

#[test]
fn ten_crops_are_those_of_torchvision() {
    let expected = fixture();
    let picture = image_of(expected.get("rgb").unwrap());
    let flipped = ten_crop(&picture, [7, 9], false).unwrap();
    let [.., a, b, c, d, e] = ten_crop(&picture, [7, 9], true).unwrap();
    for (i, crop) in flipped.iter().chain(&[a, b, c, d, e]).enumerate() {
        assert_same(crop, &image_of(expected.get(&format!("crop {i}")).unwrap()), &format!("crop {i}"));
    }
    for (crop, whole) in five_crop(&picture, [7, 9]).unwrap().iter().zip(&flipped) {
        assert_same(crop, whole, "five crops are the first ones of ten");
    }
    assert!(complaint(five_crop(&picture, [17, 9])).contains("crops of 17×9 are larger than the image of 16×20; resize it first"));
    assert!(complaint(ten_crop(&picture, 0, false)).contains("height and width must be at least 1"));
}

#[test]
fn masks_boxes_and_points_move_with_the_image() {
    let classes: Vec<u8> = (0..20 * 30).map(|i| (i % 251) as u8).collect();
    let transforms: Vec<Box<dyn Geometry>> = vec![
        Box::new(HorizontalFlip),
        Box::new(VerticalFlip),
        Box::new(Crop::new(3, -4, [12, 40]).fill(255.0)),
        Box::new(Pad::new([1, 2, 3, 4]).fill(255.0)),
        Box::new(Pad::new(5).mode(PaddingMode::Symmetric)),
        Box::new(ResizedCrop::new(4, 6, [10, 20], [30, 40]).interpolation(ResizeFilter::Nearest)),
        Box::new(Rotate::by(90.0).expand(true)),
        Box::new(Rotate::by(180.0)),
        Box::new(Rotate::by(270.0).expand(true)),
        Box::new(Rotate::by(33.0).fill(255.0)),
        Box::new(Rotate::by(200.0).expand(true).fill(255.0)),
        Box::new(Affine::new().rotate(10.0).translate([2.0, 1.0]).scale(1.2).shear([5.0, 3.0]).fill(255.0)),
        Box::new(
            Perspective::new([[0.0, 0.0], [29.0, 0.0], [29.0, 19.0], [0.0, 19.0]], [[4.0, 2.0], [25.0, 1.0], [28.0, 18.0], [1.0, 17.0]])
                .interpolation(ResizeFilter::Nearest)
                .fill(255.0),
        ),
    ];
    for transform in &transforms {
        let mut picture = Image::from_bytes([1, 20, 30], classes.clone()).unwrap();
        let mut mask = Mask::new([20, 30], classes.clone()).unwrap();
        // The pixel in row 8 and column 9, and its centre.
        let (mut boxes, mut points) = (Boxes(vec![[9.0, 8.0, 10.0, 9.0]]), KeyPoints(vec![[9.5, 8.5]]));
        let mut parts = [Part::Image(&mut picture), Part::Mask(&mut mask), Part::Boxes(&mut boxes), Part::KeyPoints(&mut points)];
        apply_geometry(&**transform, &mut parts).unwrap();
        assert_eq!(mask.classes(), picture.bytes().unwrap());
        assert_eq!(mask.size(), transform.output_size([20, 30]));
        let (&[x, y], &[left, top, right, bottom]) = (&points.0[0], &boxes.0[0]);
        assert!(left < x && x < right && top < y && y < bottom, "{boxes:?} around {points:?}");
        // The pixel that the point is in shows the one that it was in, or a neighbour where
        // positions are between pixels.
        let shown = mask.classes()[y as usize * mask.size()[1] + x as usize];
        let near = (7..10).flat_map(|row| (8..11).map(move |column| row * 30 + column));
        assert!(near.into_iter().any(|position| classes[position] == shown), "{shown} at {points:?}");
    }
}

fn rng() -> Rng {
    Rng::new(7)
}

/// An image whose pixels tell their row and column.
fn map(height: usize, width: usize) -> Image {
    Image::from_floats([2, height, width], (0..height * width).flat_map(|i| [(i / width) as f32, (i % width) as f32]).collect()).unwrap()
}

#[test]
fn flips_happen_with_their_probability() {
    let count = |transform: &dyn Geometric| {
        let mut rng = rng();
        (0..4000).filter(|_| transform.draw([3, 4, 4], &mut rng).unwrap().is_some()).count() as f64 / 4000.0
    };
    for p in [0.0, 0.3, 0.5, 1.0] {
        // Five standard deviations.
        let tolerance = 5.0 * (p * (1.0 - p) / 4000.0f64).sqrt();
        assert!((count(&RandomHorizontalFlip::new(p)) - p).abs() <= tolerance);
        assert!((count(&RandomVerticalFlip::new(p)) - p).abs() <= tolerance);
    }
    for p in [-0.1, 1.1, f64::NAN] {
        let message = complaint(RandomHorizontalFlip::new(p).apply(&mut map(2, 2), &mut rng()));
        assert!(message.contains("a probability is between 0 and 1"), "{message}");
        assert!(RandomVerticalFlip::new(p).apply(&mut map(2, 2), &mut rng()).is_err());
    }
}

#[test]
fn random_crops_are_at_each_place_equally_often() {
    let (mut rng, crop) = (rng(), RandomCrop::new([3, 4]).padding([1, 0, 0, 2]));
    // The image with its border is 7×9, so that there are 5·6 places.
    let mut counts = [[0; 6]; 5];
    for _ in 0..6000 {
        let mut picture = map(5, 8);
        picture.pixels_mut().iter_mut().for_each(|x| *x += 1.0);
        crop.apply(&mut picture, &mut rng).unwrap();
        assert_eq!(picture.size(), [3, 4]);
        let last_of_first_row = [picture.pixels()[6], picture.pixels()[7]];
        counts[last_of_first_row[0] as usize - 1][last_of_first_row[1] as usize - 3] += 1;
    }
    // 200 expected; five standard deviations of √200.
    assert!(counts.iter().flatten().all(|&count: &i32| (count - 200).abs() < 71), "{counts:?}");
}

#[test]
fn random_crops_pad_small_images_on_request() {
    let crop = RandomCrop::new([6, 5]);
    let message = complaint(crop.apply(&mut map(4, 8), &mut rng()));
    assert!(message.contains("a window of 6×5 is larger than the image of 4×8; add padding"), "{message}");
    for mode in [PaddingMode::Constant, PaddingMode::Edge, PaddingMode::Reflect, PaddingMode::Symmetric] {
        let mut rng = rng();
        for _ in 0..20 {
            // In one step, and in the steps that torchvision takes.
            let start = rng.clone();
            let mut picture = map(2, 8);
            let crop = crop.clone().padding(1).pad_if_needed(true).padding_mode(mode);
            crop.apply(&mut picture, &mut rng).unwrap();
            let mut slow = map(2, 8);
            slow.apply(&Pad::new(1).mode(mode)).unwrap().apply(&Pad::new([0, 2]).mode(mode)).unwrap();
            RandomCrop::new([6, 5]).apply(&mut slow, &mut start.clone()).unwrap();
            assert_same(&picture, &slow, "padded crop");
        }
    }
    assert!(RandomCrop::new(0).apply(&mut map(4, 8), &mut rng()).is_err());
    assert!(RandomCrop::new(usize::MAX).pad_if_needed(true).apply(&mut map(4, 8), &mut rng()).is_err());
    assert!(complaint(RandomCrop::new(2).padding(usize::MAX).apply(&mut map(4, 8), &mut rng())).contains("more than memory can hold"));
}

#[test]
fn random_resized_crops_have_uniform_areas_and_log_uniform_ratios() {
    let (mut rng, crop) = (rng(), RandomResizedCrop::new(16));
    let (height, width) = (400usize, 500usize);
    let (mut areas, mut ratios, mut middles) = (Vec::new(), Vec::new(), Vec::new());
    let corner = |geometry: &dyn Geometry| {
        // The window from where two points of the image go.
        let [[x0, y0], [x1, y1]] = [[0.0, 0.0], [100.0, 100.0]].map(|point| geometry.point(point, [height, width]));
        let (w, h) = (1600.0 / (x1 - x0), 1600.0 / (y1 - y0));
        (-x0 * w / 16.0, -y0 * h / 16.0, w, h)
    };
    for _ in 0..4000 {
        let (x, y, w, h) = corner(&*crop.draw([3, height, width], &mut rng).unwrap().unwrap());
        assert!(x > -0.1 && y > -0.1 && x + w < width as f32 + 0.1 && y + h < height as f32 + 0.1, "{x} {y} {w} {h}");
        areas.push(f64::from(w * h) / (height * width) as f64);
        ratios.push(f64::from(w / h).ln());
        middles.push([f64::from(x + w / 2.0) / width as f64, f64::from(y + h / 2.0) / height as f64]);
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let least = |values: &[f64]| values.iter().copied().fold(f64::MAX, f64::min);
    let most = |values: &[f64]| values.iter().copied().fold(f64::MIN, f64::max);
    // The means of 200,000 draws in NumPy by the rule of torchvision's get_params (windows that do
    // not fit are drawn anew), and five standard deviations of a mean of 4000, from the deviations
    // 0.2270 and 0.1633 of the same draws.
    assert!((mean(&areas) - 0.4532).abs() < 5.0 * 0.2270 / 4000.0f64.sqrt(), "{}", mean(&areas));
    assert!((mean(&ratios) - 0.0281).abs() < 5.0 * 0.1633 / 4000.0f64.sqrt(), "{}", mean(&ratios));
    assert!(least(&areas) > 0.079 && least(&areas) < 0.083 && most(&areas) > 0.97 && most(&areas) <= 1.0);
    // A window's sides are rounded to pixels, of at least 98.
    let end = (4.0f64 / 3.0).ln();
    assert!((least(&ratios) + end).abs() < 0.02 && (most(&ratios) - end).abs() < 0.02, "{} {}", least(&ratios), most(&ratios));
    for axis in 0..2 {
        let middle: Vec<f64> = middles.iter().map(|middle| middle[axis]).collect();
        // Their deviation is at most 0.29.
        assert!((mean(&middle) - 0.5).abs() < 5.0 * 0.29 / 4000.0f64.sqrt());
    }
    // Nothing fits: the largest window in the middle with an allowed ratio.
    let window = |height: usize, width: usize| {
        let crop = RandomResizedCrop::new(16).scale([0.9, 1.0]).draw([3, height, width], &mut rng.clone()).unwrap().unwrap();
        let [[x0, y0], [x1, y1]] = [[0.0, 0.0], [16.0, 16.0]].map(|point| crop.point(point, [height, width]));
        [-x0 / (x1 - x0) * 16.0, -y0 / (y1 - y0) * 16.0, 256.0 / (x1 - x0), 256.0 / (y1 - y0)].map(f32::round)
    };
    assert_eq!(window(30, 90), [25.0, 0.0, 40.0, 30.0]);
    assert_eq!(window(90, 30), [0.0, 25.0, 30.0, 40.0]);
}

#[test]
fn bad_arguments_of_crops_and_borders_are_errors() {
    let apply = |transform: &dyn Deterministic| complaint(map(4, 5).apply(transform).map(|_| ()));
    assert!(apply(&Crop::new(0, 0, [0, 3])).contains("cannot crop to 0×3"));
    assert!(apply(&Crop::new(isize::MAX, isize::MIN, usize::MAX)).contains("more than memory can hold"));
    assert!(apply(&Crop::new(3, 3, 3).fill([1.0, 2.0, 3.0])).contains("3 fill values do not fit an image of 2 channels"));
    assert!(apply(&Pad::new(usize::MAX)).contains("more than memory can hold"));
    assert!(apply(&Pad::new(usize::MAX / 4)).contains("more than memory can hold"));
    assert!(apply(&ResizedCrop::new(2, 0, [3, 3], 8)).contains("a window of 3×3 at row 2 and column 0 reaches beyond the image of 4×5"));
    assert!(apply(&ResizedCrop::new(0, usize::MAX, [3, 3], 8)).contains("reaches beyond"));
    assert!(apply(&ResizedCrop::new(0, 0, [3, 3], 0)).contains("cannot scale"));
    assert!(apply(&Resize::shorter(9).max_size(9)).contains("max_size = 9 must be greater than the length of the shorter side, 9"));
    assert!(apply(&Resize::new(9).max_size(19)).contains("max_size limits Resize::shorter"));
    for mode in [PaddingMode::Edge, PaddingMode::Reflect, PaddingMode::Symmetric] {
        assert!(complaint(map(0, 3).apply(&Pad::new(1).mode(mode)).map(|_| ())).contains("has no pixels to continue with"));
        let mut far = map(1, 1);
        far.apply(&Crop::new(isize::MIN, isize::MAX, 2).padding_mode(mode)).unwrap();
        assert_same(&far, &Image::new(2, 2, 2).unwrap(), "one pixel repeated");
    }
    let draw = |crop: RandomResizedCrop| complaint(crop.apply(&mut map(4, 5), &mut rng()));
    assert!(
        draw(RandomResizedCrop::new(8).scale([0.5, 0.1])).contains("scale takes a smaller and a larger positive number, got [0.5, 0.1]")
    );
    assert!(draw(RandomResizedCrop::new(8).ratio([0.0, 1.0])).contains("ratio takes"));
    assert!(draw(RandomResizedCrop::new(8).ratio([f64::NAN, 1.0])).contains("ratio takes"));
    assert!(draw(RandomResizedCrop::new(0)).contains("cannot scale"));
    assert!(RandomResizedCrop::new(8).apply(&mut map(0, 5), &mut rng()).is_err());
}

/// Returns the matrix of a change of coordinates that has no perspective: what x and y do, and
/// where the origin goes.
fn axes(geometry: &dyn Geometry, size: [usize; 2]) -> [[f64; 2]; 3] {
    let [origin, x, y] = [[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]].map(|point| geometry.point(point, size).map(f64::from));
    let along = |end: [f64; 2]| [(end[0] - origin[0]) / 100.0, (end[1] - origin[1]) / 100.0];
    [along(x), along(y), origin]
}

/// Asserts that numbers are uniform between two: none beyond, some near the ends, the mean in the
/// middle (five standard deviations).
fn assert_uniform(values: &[f64], low: f64, high: f64, what: &str) {
    let (count, span) = (values.len() as f64, high - low);
    let (least, most) = (values.iter().copied().fold(f64::MAX, f64::min), values.iter().copied().fold(f64::MIN, f64::max));
    assert!(least > low - 0.01 * span && least < low + 0.02 * span, "{what}: {least} at {low}");
    assert!(most < high + 0.01 * span && most > high - 0.02 * span, "{what}: {most} at {high}");
    let mean = values.iter().sum::<f64>() / count;
    assert!((mean - (low + high) / 2.0).abs() < 5.0 * span / 12f64.sqrt() / count.sqrt(), "{what}: mean {mean}");
}

#[test]
fn random_rotations_are_uniform_or_one_of_a_list() {
    let (mut rng, size) = (rng(), [200, 300]);
    let mut angles = |rotation: RandomRotation| -> Vec<f64> {
        let draw = |_| {
            let [[x, y], ..] = axes(&*rotation.draw([3, 200, 300], &mut rng).unwrap().unwrap(), size);
            // Counter-clockwise, and y points downwards.
            (-y).atan2(x).to_degrees()
        };
        (0..2000).map(draw).collect()
    };
    assert_uniform(&angles(RandomRotation::new(15.0)), -15.0, 15.0, "angles");
    assert_uniform(&angles(RandomRotation::new([20.0, 50.0]).center([0.0, 3.0])), 20.0, 50.0, "angles");
    let of = angles(RandomRotation::of([90, 180, 270]).expand(true));
    for angle in [90.0, 180.0, 270.0] {
        let count = of.iter().filter(|&&drawn| ((drawn - angle + 1.0).rem_euclid(360.0) - 1.0).abs() < 1e-3).count() as f64;
        assert!((count - 2000.0 / 3.0).abs() < 5.0 * (2000.0f64 * 2.0 / 9.0).sqrt(), "{count} of {angle}");
    }
    // Four quarter turns are nothing.
    let mut picture = map(3, 5);
    for _ in 0..4 {
        RandomRotation::of([90]).expand(true).apply(&mut picture, &mut rng).unwrap();
    }
    assert_same(&picture, &map(3, 5), "four turns");
}

#[test]
fn random_affine_changes_have_uniform_parts() {
    let (mut rng, size) = (rng(), [200, 300]);
    let affine = RandomAffine::new(0.0).translate([0.1, 0.2]).scale([0.5, 1.5]);
    let (mut scales, mut right, mut down, mut shears, mut shears_y) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..2000 {
        let geometry = affine.draw([3, 200, 300], &mut rng).unwrap().unwrap();
        let [[x, _], ..] = axes(&*geometry, size);
        scales.push(x);
        let [x, y] = geometry.point([150.0, 100.0], size).map(f64::from);
        right.push(x - 150.0);
        down.push(y - 100.0);
        let sheared = RandomAffine::new(0.0).shear(10.0).draw([3, 200, 300], &mut rng).unwrap().unwrap();
        let [_, [x, y], _] = axes(&*sheared, size);
        shears.push((-x / y).atan().to_degrees());
        let sheared = RandomAffine::new([0.0, 0.0]).shear_y([5.0, 8.0]).draw([3, 200, 300], &mut rng).unwrap().unwrap();
        let [[x, y], ..] = axes(&*sheared, size);
        shears_y.push((-y / x).atan().to_degrees());
    }
    assert_uniform(&scales, 0.5, 1.5, "scales");
    assert_uniform(&right, -30.0, 30.0, "moves along x");
    assert_uniform(&down, -40.0, 40.0, "moves along y");
    assert_uniform(&shears, -10.0, 10.0, "shears");
    assert_uniform(&shears_y, 5.0, 8.0, "shears along y");
    let whole = |value: &f64| (value - value.round()).abs() < 1e-3;
    assert!(right.iter().all(whole) && down.iter().all(whole), "moves are of whole pixels");
}

#[test]
fn random_perspectives_move_corners_inwards() {
    let (mut rng, size) = (rng(), [101, 201]);
    let perspective = RandomPerspective::new(0.5).distortion_scale(0.4);
    let (mut xs, mut ys, mut count) = (vec![], vec![], 0);
    for _ in 0..4000 {
        let Some(geometry) = perspective.draw([3, 101, 201], &mut rng).unwrap() else { continue };
        count += 1;
        for [x, y] in [[0.0, 0.0], [200.0, 0.0], [200.0, 100.0], [0.0, 100.0]] {
            let [to_x, to_y] = geometry.point([x, y], size);
            xs.push(f64::from(to_x - x).abs());
            ys.push(f64::from(to_y - y).abs());
        }
    }
    assert!((f64::from(count) - 2000.0).abs() < 5.0 * 1000f64.sqrt(), "{count}");
    // Half of 201 is 100 and half of 101 is 50, and each whole number up to 40 % of it is as
    // likely.
    assert_uniform(&xs, 0.0, 40.0, "moves along x");
    assert_uniform(&ys, 0.0, 20.0, "moves along y");
    let mut tiny = map(1, 1);
    RandomPerspective::new(1.0).apply(&mut tiny, &mut rng).unwrap();
    assert_same(&tiny, &map(1, 1), "one pixel");
}

#[test]
fn bad_arguments_of_rotations_affine_changes_and_perspectives_are_errors() {
    let apply = |transform: &dyn Deterministic| complaint(map(4, 5).apply(transform).map(|_| ()));
    assert!(apply(&Rotate::by(f64::NAN)).contains("takes finite numbers, got NaN"));
    assert!(apply(&Rotate::by(1.0).center([0.0, f64::INFINITY])).contains("got inf"));
    assert!(apply(&Rotate::by(1.0).fill([1.0; 3])).contains("3 fill values do not fit an image of 2 channels"));
    assert!(apply(&Affine::new().scale(0.0)).contains("a scale is positive, got 0"));
    assert!(apply(&Affine::new().shear([0.0, f64::NAN])).contains("got NaN"));
    let line = [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [0.0, 3.0]];
    let square = [[0.0, 0.0], [4.0, 0.0], [4.0, 3.0], [0.0, 3.0]];
    assert!(apply(&Perspective::new(square, line)).contains("no three of four points may be on a line"));
    assert!(apply(&Perspective::new([[f64::NAN; 2]; 4], square)).contains("got NaN"));
    // Numbers of any size neither panic nor hang.
    for center in [1e9, -1e300] {
        drop(map(4, 5).apply(&Rotate::by(45.0).center([center, center]).expand(true)).map(|_| ()));
        map(4, 5).apply(&Affine::new().rotate(45.0).center([center, center])).unwrap();
    }
    map(0, 0).apply(&Rotate::by(45.0).expand(true).interpolation(ResizeFilter::Bicubic)).unwrap();
    let draw = |transform: &dyn Transform| complaint(transform.apply(&mut map(4, 5), &mut rng()));
    assert!(draw(&RandomRotation::new(-1.0)).contains("a range of angles goes from a smaller to a larger number, got [1, -1]"));
    assert!(draw(&RandomRotation::of([0.0; 0])).contains("takes at least one angle"));
    assert!(draw(&RandomAffine::new(f64::NAN)).contains("a range of angles"));
    assert!(draw(&RandomAffine::new(0.0).translate([0.0, 1.5])).contains("translate takes parts of the image between 0 and 1, got 1.5"));
    assert!(draw(&RandomAffine::new(0.0).scale([0.0, 0.0])).contains("a scale is positive, got 0"));
    assert!(draw(&RandomAffine::new(0.0).scale([2.0, 1.0])).contains("a range of scales"));
    assert!(draw(&RandomPerspective::new(2.0)).contains("a probability is between 0 and 1"));
    assert!(draw(&RandomPerspective::new(1.0).distortion_scale(-0.1)).contains("distortion_scale is between 0 and 1"));
}

#[test]
fn elastic_deformations_are_those_of_torchvision() {
    let expected = fixture();
    for (kind, fill) in [("rgb", vec![200.0, 10.0, 90.0]), ("gray", vec![77.0])] {
        let elastic = Elastic::new(expected.get(&format!("{kind} displacement")).unwrap()).unwrap().fill(fill);
        for (name, filter) in FILTERS {
            let mut got = image_of(expected.get(kind).unwrap());
            got.apply(&elastic.clone().interpolation(filter)).unwrap();
            let theirs = image_of(expected.get(&format!("{kind} elastic {name}")).unwrap());
            assert_eq!(got.shape(), theirs.shape());
            for (i, (&got, &theirs)) in got.bytes().unwrap().iter().zip(theirs.bytes().unwrap()).enumerate() {
                // torchvision computes in f32, which can round to the neighbour; where the cubic
                // filter leaves the range of bytes it wraps around.
                let limited = filter == ResizeFilter::Bicubic && (got == 0 || got == 255);
                assert!(got.abs_diff(theirs) <= 1 || limited, "{kind} {name}: value {i} is {got}, not {theirs}");
            }
        }
    }
    let field = Tensor::zeros([4, 5, 2]);
    let mut same = map(4, 5);
    same.apply(&Elastic::new(&field).unwrap()).unwrap();
    assert_same(&same, &map(4, 5), "no displacement");
    assert!(
        complaint(map(5, 4).apply(&Elastic::new(&field).unwrap()).map(|_| ()))
            .contains("displacements for an image of 4×5 do not fit one of 5×4")
    );
    assert!(complaint(Elastic::new(&Tensor::zeros([2, 4, 5]))).contains("a field of displacements has shape [H, W, 2], got [2, 4, 5]"));
    let wild = Tensor::from_vec(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX], [1, 2, 2]).unwrap();
    for (_, filter) in FILTERS {
        let mut picture = map(1, 2);
        picture.apply(&Elastic::new(&wild).unwrap().interpolation(filter).fill(255.0)).unwrap();
        assert_eq!(picture.pixels()[..], [1.0; 4]);
    }
}

#[test]
fn random_deformations_are_as_strong_as_alpha_and_as_smooth_as_sigma_say() {
    let (mut rng, size) = (rng(), [64, 64]);
    let transform = ElasticTransform::new().alpha([50.0, 25.0]);
    let (mut squares, mut count) = ([0.0; 2], 0.0);
    for _ in 0..150 {
        let geometry = transform.draw([3, 64, 64], &mut rng).unwrap().unwrap();
        for point in [[16.5f32, 16.5], [48.5, 16.5], [16.5, 48.5], [48.5, 48.5]] {
            let moved = geometry.point(point, size);
            (0..2).for_each(|axis| squares[axis] += f64::from(moved[axis] - point[axis]).powi(2));
            count += 1.0;
        }
    }
    // Uniform numbers of [-1, 1] have the variance 1/3; a Gaussian's squared weights sum to
    // 1 / 2σ√π along each axis; 64 pixels are 64/2 halves, of which alpha/64 is taken.
    let blur = 1.0 / (2.0 * 5.0 * std::f64::consts::PI.sqrt());
    for (axis, alpha) in [50.0, 25.0].into_iter().enumerate() {
        let (deviation, expected) = ((squares[axis] / count).sqrt(), (1.0f64 / 3.0).sqrt() * blur * alpha / 2.0);
        // 600 nearly independent values know their deviation to 1/√1200 of it; five times that.
        assert!((deviation / expected - 1.0).abs() < 5.0 / 1200f64.sqrt(), "{deviation} should be {expected}");
    }
    let (mut picture, mut mask) = (map(9, 7), Mask::new([9, 7], (0..63).collect()).unwrap());
    let strong = ElasticTransform::new().alpha([20.0; 2]).sigma([1.0, 0.0]).fill(255.0).interpolation(ResizeFilter::Nearest);
    strong.apply_to_parts(&mut [Part::Image(&mut picture), Part::Mask(&mut mask)], &mut rng).unwrap();
    for (pixel, &class) in picture.pixels().chunks(2).zip(mask.classes()) {
        let outside = class == Mask::IGNORE && pixel == [1.0, 1.0];
        assert!(outside || pixel == [f32::from(class / 7), f32::from(class % 7)], "{pixel:?} {class}");
    }
    let draw = |transform: ElasticTransform| complaint(transform.apply(&mut map(4, 5), &mut Rng::new(0)));
    assert!(draw(ElasticTransform::new().alpha([f64::NAN, 1.0])).contains("alpha must be finite"));
    assert!(draw(ElasticTransform::new().sigma([1.0, -1.0])).contains("sigma is between 0 and 1000 pixels, got -1"));
    assert!(draw(ElasticTransform::new().sigma([1e9, 1.0])).contains("sigma is between 0 and 1000"));
    ElasticTransform::new().apply(&mut map(0, 5), &mut rng).unwrap();
}
