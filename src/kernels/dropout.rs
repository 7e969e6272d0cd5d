//! Random masks for dropout.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

use super::runtime::parallel;

/// The number of elements that one stream of random bits decides.
const GRAIN: usize = 16 * 1024;

/// Fills `mask` with 1 where an element is kept and 0 where it is dropped; elements are dropped
/// with probability `p`.
///
/// Each run of elements has a separate stream under one key, so the mask does not depend on which
/// thread fills which part.
pub fn mask(key: [u8; 32], p: f64, mask: &mut [u8]) {
    // Up to 2³², which drops everything.
    let threshold = (p * 4_294_967_296.0) as u64;
    let work = mask.len() * 4;
    parallel::chunks_mut(mask, GRAIN, work, |task, mask| {
        let mut generator = ChaCha8Rng::from_seed(key);
        generator.set_stream(task as u64);
        let mut bytes = [0; 4 * 256];
        for mask in mask.chunks_mut(256) {
            let bytes = &mut bytes[..4 * mask.len()];
            generator.fill_bytes(bytes);
            for (keep, random) in mask.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *keep = u8::from(u64::from(u32::from_le_bytes(*random)) >= threshold);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_pinned() {
        // A change of these bits would change every seeded training run with dropout.
        let mut kept = [0; 40];
        mask([7; 32], 0.5, &mut kept);
        let pinned = "0011000011100101111100111111101000101000";
        assert!(kept.iter().zip(pinned.bytes()).all(|(kept, pinned)| kept + b'0' == pinned), "{kept:?}");
    }
}
