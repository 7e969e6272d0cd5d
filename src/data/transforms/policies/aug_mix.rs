//! Mixtures of differently changed copies.

use super::Op::{self, *};
use super::{Look, Space, Step, check_count, look_methods};
use crate::data::transforms::{Fill, ResizeFilter, Transform};
use crate::data::{Image, Rng};
use crate::error::{Error, Result};

look_methods!(AugMix "bilinear");

/// The changes of an AugMix; the first nine unless all are wanted.
const MIXED: [Op; 13] =
    [ShearX, ShearY, TranslateX, TranslateY, Rotate, Posterize, Solarize, AutoContrast, Equalize, Brightness, Color, Contrast, Sharpness];

/// Mixes an image with copies that went through random chains of changes (torchvision's `AugMix`;
/// Hendrycks et al., 2019).
///
/// Masks, boxes and key points stay: the mixture holds the image itself too.
///
/// ```
/// use convnet::data::{AugMix, Image, Rng, Transform};
///
/// let mut image = Image::from_bytes([3, 32, 32], vec![90; 3072])?;
/// AugMix::new().severity(3).apply(&mut image, &mut Rng::new(0))?;
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// Applying it gives [`Error::Argument`] for a severity outside of 1 to 10, more than 256 chains or
/// changes, an α that is not positive, and images that have neither 1 nor 3 channels.
#[derive(Clone, Debug)]
pub struct AugMix {
    severity: usize,
    width: usize,
    depth: usize,
    alpha: f64,
    all_ops: bool,
    look: Look,
}

impl Default for AugMix {
    fn default() -> AugMix {
        AugMix::new()
    }
}

impl AugMix {
    /// Makes a mixture of severity 3, with 3 chains of 1 to 3 changes.
    pub fn new() -> AugMix {
        AugMix { severity: 3, width: 3, depth: 0, alpha: 1.0, all_ops: true, look: Look::new(ResizeFilter::Bilinear) }
    }

    /// Sets how many of 10 magnitudes are drawn from, the smallest first.
    pub fn severity(mut self, severity: usize) -> AugMix {
        self.severity = severity;
        self
    }

    /// Sets the number of chains.
    pub fn mixture_width(mut self, width: usize) -> AugMix {
        self.width = width;
        self
    }

    /// Sets the number of changes in a chain; 0, the default, draws 1 to 3.
    pub fn chain_depth(mut self, depth: usize) -> AugMix {
        self.depth = depth;
        self
    }

    /// Sets the parameter of the distributions of the parts of the mixture; 1 by default.
    pub fn alpha(mut self, alpha: f64) -> AugMix {
        self.alpha = alpha;
        self
    }

    /// Sets whether brightness, colour, contrast and sharpness are among the changes; on by
    /// default.
    pub fn all_ops(mut self, all_ops: bool) -> AugMix {
        self.all_ops = all_ops;
        self
    }

    fn check(&self) -> Result<()> {
        const OP: &str = "aug mix";
        if !(1..=10).contains(&self.severity) {
            return Err(Error::argument(OP, format!("the severity must be from 1 to 10, got {}", self.severity)));
        }
        check_count(OP, "the number of chains", self.width)?;
        check_count(OP, "the number of changes in a chain", self.depth)?;
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return Err(Error::argument(OP, format!("alpha must be positive and finite, got {}", self.alpha)));
        }
        Ok(())
    }
}

/// A drawn mixture.
struct Mixture {
    /// The share of the image itself.
    own: f64,
    /// Chains of changes, with their shares of the rest.
    chains: Vec<(f64, Vec<Step>)>,
}

impl AugMix {
    /// Returns the magnitudes for images of this height and width.
    fn space(size: [usize; 2]) -> Space {
        Space { bits: [4.0; 2], ..Space::relative(size, 1.0 / 3.0) }
    }

    fn draw(&self, size: [usize; 2], rng: &mut Rng) -> Mixture {
        let space = AugMix::space(size);
        let ops = if self.all_ops { &MIXED[..] } else { &MIXED[..9] };
        let own = rng.dirichlet(&[self.alpha; 2])[0];
        let parts = rng.dirichlet(&vec![self.alpha; self.width]);
        let mut chain = || {
            let depth = if self.depth > 0 { self.depth } else { 1 + rng.below(3) };
            let step = |_| {
                let op = ops[rng.below(ops.len())];
                let magnitude = space.magnitude(op, rng.below(self.severity), 10);
                self.look.with_sign(op, magnitude, rng)
            };
            (0..depth).filter_map(step).collect()
        };
        Mixture { own, chains: parts.into_iter().map(|part| (part, chain())).collect() }
    }
}

impl Mixture {
    fn apply(&self, image: &mut Image) -> Result<()> {
        // Numbers of the image's kind: bytes stay from 0 to 255 until the end.
        let white = if image.is_bytes() { 255.0 } else { 1.0 };
        let mut mixture: Vec<f32> = image.pixels().iter().map(|x| self.own as f32 * (x * white)).collect();
        for (part, chain) in &self.chains {
            let mut changed = image.clone();
            chain.iter().try_for_each(|step| step.apply(&mut changed))?;
            let weight = ((1.0 - self.own) * part) as f32;
            mixture.iter_mut().zip(&*changed.pixels()).for_each(|(sum, x)| *sum += weight * (x * white));
        }
        match image.bytes_mut() {
            // Half a thousandth covers what was lost by rounding, so that equal images mix to
            // themselves.
            Some(bytes) => bytes.iter_mut().zip(mixture).for_each(|(x, sum)| *x = (sum + 0.0005) as u8),
            None => image.pixels_mut().copy_from_slice(&mixture),
        }
        Ok(())
    }
}

impl Transform for AugMix {
    fn apply(&self, image: &mut Image, rng: &mut Rng) -> Result<()> {
        self.check()?;
        self.draw(image.size(), rng).apply(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::StateDict;

    /// The shares, and for each change its number, its magnitude and whether it is negative: those
    /// of `tests/fixtures/transforms.py`.
    type Drawn = (f64, [f64; 2], [[(usize, usize, bool); 2]; 2]);

    const CHAINS: [Drawn; 3] = [
        (0.2, [0.7, 0.3], [[(9, 5, false), (6, 4, false)], [(11, 3, true), (10, 5, true)]]),
        (0.05, [0.5, 0.5], [[(7, 0, false), (12, 5, false)], [(2, 3, false), (5, 2, false)]]),
        (0.6, [0.1, 0.9], [[(8, 0, false), (9, 2, true)], [(3, 5, true), (10, 4, false)]]),
    ];

    #[test]
    fn mixture_of_given_chains_is_torchvisions() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/transforms_mixtures.safetensors");
        let fixture = StateDict::load(path).unwrap();
        let bytes = |name: &str| fixture.get(name).unwrap().to_vec::<u8>().unwrap();
        let (look, space) = (Look::new(ResizeFilter::Bilinear), AugMix::space([24, 30]));
        for (number, (own, shares, chains)) in CHAINS.into_iter().enumerate() {
            let step = |(op, bin, negative): (usize, usize, bool)| {
                let magnitude = space.magnitude(MIXED[op], bin, 10);
                look.step(MIXED[op], if negative { -magnitude } else { magnitude })
            };
            let chains = chains.map(|chain| chain.into_iter().filter_map(step).collect());
            let mut image = Image::from_bytes([3, 24, 30], bytes("augmix")).unwrap();
            Mixture { own, chains: shares.into_iter().zip(chains).collect() }.apply(&mut image).unwrap();
            let expected = bytes(&format!("augmix {number}"));
            let worst = image.bytes().unwrap().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
            // torchvision changes tensors here, whose arithmetic rounds otherwise than Pillow's.
            assert!(worst <= Some(1), "{number}: {worst:?}");
        }
    }
}
