//! EfficientNet's grid over depth, width and resolution.

use convnet::models::MBConvOptions;
use convnet::prelude::*;

use super::Trainings;
use super::space::block;
use crate::lab::{plus_minus, spread, table};

/// The blocks in a stage of the small network: α is a multiple of a quarter.
const REPEATS: f64 = 4.0;

/// The choices for α.
const DEPTHS: [f64; 5] = [1.0, 1.25, 1.5, 1.75, 2.0];

/// The choices for β.
const WIDTHS: [f64; 4] = [1.0, 1.1, 1.2, 1.4];

/// The choices for γ. With these, three of the nine networks of about twice the cost have all three
/// factors above 1.
const RESOLUTIONS: [f64; 4] = [1.0, 1.05, 1.15, 1.4];

/// Trains the small network and all choices of α, β, γ that cost about twice as much.
pub fn scale(trainings: &Trainings, seed: u64, seeds: u64) -> Result<String> {
    let mut rows = vec![["α depth", "β width", "γ resolution", "α·β²·γ²", "cost, measured", "accuracy"].map(String::from)];
    let measure = |[alpha, beta, gamma]: [f64; 3]| -> Result<(Vec<f64>, f64)> {
        let size = (trainings.size as f64 * gamma).round() as usize;
        let wide = |channels: f64| (channels * beta).round() as usize;
        let mut blocks = Vec::new();
        for (stage, width) in [12.0, 24.0].into_iter().enumerate() {
            for repeat in 0..(REPEATS * alpha) as usize {
                let inputs = blocks.last().map_or(wide(8.0), |block: &MBConvOptions| block.outputs);
                let stride = if repeat == 0 && (stage == 1 || trainings.size > 8) { 2 } else { 1 };
                blocks.push(block(inputs, wide(width), 3, 3, stride, false));
            }
        }
        let trained = (seed..seed + seeds).map(|seed| trainings.run(&blocks, size, seed)).collect::<Result<Vec<_>>>()?;
        Ok((trained.iter().map(|trained| trained.accuracy).collect(), trained[0].cost))
    };
    let (unscaled, base_cost) = measure([1.0; 3])?;
    rows.push(["1", "1", "1", "1", "1.00", &plus_minus(&unscaled)].map(String::from));
    // The best with one factor above 1, with two, and with all three.
    let mut best = [(0.0, [1.0; 3]); 3];
    let grid = DEPTHS.into_iter().flat_map(|alpha| WIDTHS.map(|beta| RESOLUTIONS.map(|gamma| [alpha, beta, gamma]))).flatten();
    for factors in grid {
        let [alpha, beta, gamma] = factors;
        let product: f64 = alpha * beta * beta * gamma * gamma;
        if (product - 2.0).abs() > 0.1 {
            continue;
        }
        let (accuracies, cost) = measure(factors)?;
        let scaled = &mut best[factors.iter().filter(|&&factor| factor > 1.0).count() - 1];
        if spread(&accuracies).0 > scaled.0 {
            *scaled = (spread(&accuracies).0, factors);
        }
        let [a, b, c] = factors.map(|factor| factor.to_string());
        rows.push([a, b, c, format!("{product:.2}"), format!("{:.2}", cost / base_cost), plus_minus(&accuracies)]);
    }
    table(&rows);
    let figures = ["one factor", "two", "all three"]
        .iter()
        .zip(best)
        .map(|(which, (accuracy, [a, b, c]))| format!("{which} {accuracy:.3} (α {a}, β {b}, γ {c})"));
    Ok(format!("unscaled {:.3}, best with {}", spread(&unscaled).0, figures.collect::<Vec<_>>().join(", ")))
}
