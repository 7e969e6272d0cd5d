//! Transforms of pictures by name, for a list in the order of their application.

use convnet::data::{
    ElasticTransform, GaussianBlur, RandomAdjustSharpness, RandomAffine, RandomAutocontrast, RandomEqualize, RandomInvert,
    RandomPerspective, RandomPosterize, RandomRotation, RandomSolarize, Transform,
};

/// A transform and its values, as the list has them: `affine=15:0.1`.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTransform {
    name: &'static str,
    values: Vec<f64>,
}

/// A row of the table of transforms.
struct Row {
    name: &'static str,
    /// The names of the values, with their defaults.
    values: &'static [(&'static str, f64)],
    build: fn(&[f64]) -> Box<dyn Transform>,
}

impl Row {
    /// Returns the defaults as the list has them: `15:0.1`.
    fn defaults(&self) -> String {
        self.values.iter().map(|(_, default)| default.to_string()).collect::<Vec<_>>().join(":")
    }
}

/// Makes a table of rows `name(value = default, …) => transform`, whose values are numbers.
macro_rules! table {
    ($($name:ident($($value:ident = $default:literal),*) => $transform:expr;)*) => {
        &[$(Row {
            name: stringify!($name),
            values: &[$((stringify!($value), $default)),*],
            build: |values| match *values {
                [$($value),*] => Box::new($transform),
                _ => unreachable!("missing values get their defaults, and more are refused"),
            },
        }),*]
    };
}

const TABLE: &[Row] = table! {
    affine(degrees = 15.0, translate = 0.1, scale_from = 0.9, scale_to = 1.1, shear = 0.0) =>
        RandomAffine::new(degrees).translate([translate; 2]).scale([scale_from, scale_to]).shear(shear);
    perspective(probability = 0.5, distortion = 0.5) => RandomPerspective::new(probability).distortion_scale(distortion);
    elastic(alpha = 50.0, sigma = 5.0) => ElasticTransform::new().alpha([alpha; 2]).sigma([sigma; 2]);
    blur(kernel = 5.0, sigma_from = 0.1, sigma_to = 2.0) => GaussianBlur::new(kernel as usize).sigma([sigma_from, sigma_to]);
    invert(probability = 0.5) => RandomInvert::new(probability);
    posterize(bits = 4.0, probability = 0.5) => RandomPosterize::new(bits as u32, probability);
    solarize(threshold = 0.5, probability = 0.5) => RandomSolarize::new(threshold, probability);
    sharpness(factor = 2.0, probability = 0.5) => RandomAdjustSharpness::new(factor, probability);
    autocontrast(probability = 0.5) => RandomAutocontrast::new(probability);
    equalize(probability = 0.5) => RandomEqualize::new(probability);
};

/// The transform with as many values as there are angles.
const ANGLES: &str = "angles";

/// Describes the transforms, for `--help`.
pub fn help() -> String {
    let row = |row: &Row| {
        let names: Vec<String> = row.values.iter().map(|(name, _)| name.replace('_', "-").to_uppercase()).collect();
        format!("{}={} ({})", row.name, names.join(":"), row.defaults())
    };
    let rows: Vec<String> = TABLE.iter().map(row).collect();
    format!(
        "Further random changes, one after the other, after flips and rotation; values that are left out have the defaults in parentheses: \
         {ANGLES}=A:B:… (a rotation by one of these angles), {}",
        rows.join(", ")
    )
}

/// Reads `NAME` or `NAME=VALUE:VALUE…`.
pub fn parse(text: &str) -> Result<NamedTransform, String> {
    let (name, list) = text.split_once('=').unwrap_or((text, ""));
    let numbers = list.split(':').filter(|_| !list.is_empty());
    let number = |text: &str| text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| format!("{text:?} is not a number"));
    let mut values = numbers.map(number).collect::<Result<Vec<f64>, String>>()?;
    if name == ANGLES {
        let missing = "the angles are missing: angles=0:90:180:270".to_string();
        return if values.is_empty() { Err(missing) } else { Ok(NamedTransform { name: ANGLES, values }) };
    }
    let Some(row) = TABLE.iter().find(|row| row.name == name) else {
        let names: Vec<&str> = std::iter::once(ANGLES).chain(TABLE.iter().map(|row| row.name)).collect();
        return Err(format!("there is no transform {name:?}; there are {}", names.join(", ")));
    };
    if values.len() > row.values.len() {
        return Err(format!("{name} takes at most {} values, got {}", row.values.len(), values.len()));
    }
    for (value, (what, _)) in values.iter().zip(row.values).filter(|(_, (what, _))| matches!(*what, "kernel" | "bits")) {
        if value.fract() != 0.0 || !(0.0..=1024.0).contains(value) {
            return Err(format!("{name}: {what} is a whole number up to 1024, got {value}"));
        }
    }
    values.extend(row.values[values.len()..].iter().map(|(_, default)| default));
    Ok(NamedTransform { name: row.name, values })
}

impl NamedTransform {
    /// Makes the transform.
    pub fn build(&self) -> Box<dyn Transform> {
        match TABLE.iter().find(|row| row.name == self.name) {
            Some(row) => (row.build)(&self.values),
            None => Box::new(RandomRotation::of(self.values.iter().copied())),
        }
    }
}
