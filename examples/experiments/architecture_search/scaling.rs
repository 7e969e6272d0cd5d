//! EfficientNet's grid over depth, width and resolution.

use convnet::models::MBConvOptions;
use convnet::prelude::*;

use super::Trainings;
use super::space::block;
use crate::lab::{plus_minus, spread, table};

/// The choices for β and γ.
const FACTORS: [f64; 4] = [1.0, 1.2, 1.414, 1.6];

/// Trains the small network and all choices of α, β, γ that cost about twice as much.
pub fn scale(trainings: &Trainings, seed: u64, seeds: u64) -> Result<String> {
    let mut rows = vec![["α depth", "β width", "γ resolution", "α·β²·γ²", "cost, measured", "accuracy"].map(String::from)];
    let measure = |[alpha, beta, gamma]: [f64; 3]| -> Result<(Vec<f64>, f64)> {
        let size = (trainings.size as f64 * gamma).round() as usize;
        let wide = |channels: f64| (channels * beta).round() as usize;
        let mut blocks = Vec::new();
        for (stage, width) in [12.0, 24.0].into_iter().enumerate() {
            for repeat in 0..(2.0 * alpha).round() as usize {
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
    let (mut best, mut name) = (0.0, String::new());
    let grid = [1.0, 1.5, 2.0, 2.5].into_iter().flat_map(|alpha| FACTORS.map(|beta| FACTORS.map(|gamma| [alpha, beta, gamma]))).flatten();
    for factors in grid {
        let [alpha, beta, gamma] = factors;
        let product: f64 = alpha * beta * beta * gamma * gamma;
        if (product - 2.0).abs() > 0.2 {
            continue;
        }
        let (accuracies, cost) = measure(factors)?;
        let [a, b, c] = factors.map(|factor| factor.to_string());
        if spread(&accuracies).0 > best {
            (best, name) = (spread(&accuracies).0, format!("{a}, {b}, {c}"));
        }
        rows.push([a, b, c, format!("{product:.2}"), format!("{:.2}", cost / base_cost), plus_minus(&accuracies)]);
    }
    table(&rows);
    Ok(format!("best α, β, γ: {name} with {best:.3}, unscaled {:.3}", spread(&unscaled).0))
}
