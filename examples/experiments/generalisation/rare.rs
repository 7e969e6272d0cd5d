//! Classes that are rare in training.

use convnet::{Result, Tensor};

use super::{Balance, PLAIN, Recipe, Study};
use crate::lab::{accuracy_of, of_each_class, plus_minus, say, spread, table};

/// Trains on classes 5 to 9 with a twentieth of the pictures of the others; returns the accuracy on
/// the rare ones with no remedy, weights in the loss, and a weighted sampler.
pub fn rare_classes(study: &Study, order: &[usize], of_class: usize, seeds: std::ops::Range<u64>) -> Result<[f64; 3]> {
    let counts = std::array::from_fn(|class| if class < 5 { of_class } else { of_class / 20 });
    let unequal = of_each_class(&study.digits.train, order, counts)?;
    say(format_args!("\n{of_class} digits each of 0 to 4, {} each of 5 to 9: test accuracy", of_class / 20));
    let labels = study.test.1.to_vec::<i64>()?;
    let mut rows = vec![["remedy", "0 to 4", "5 to 9", "mean of both"].map(String::from)];
    let mut rare = [0.0; 3];
    let remedies = [("none", Balance::None), ("weights in the loss", Balance::Loss), ("weighted sampler", Balance::Sampler)];
    for (i, (name, balance)) in remedies.into_iter().enumerate() {
        let mut sides = [vec![], vec![]];
        for seed in seeds.clone() {
            let (_, net) = study.train(&unequal, Recipe { balance, ..PLAIN }, seed)?;
            for (side, results) in sides.iter_mut().enumerate() {
                let chosen: Vec<i64> = (0..).zip(&labels).filter(|(_, label)| (**label >= 5) == (side == 1)).map(|(i, _)| i).collect();
                let chosen = Tensor::from_vec(chosen.clone(), [chosen.len()])?;
                results.push(accuracy_of(&net, &study.test.0.index_select(0, &chosen)?, &study.test.1.index_select(0, &chosen)?)?);
            }
        }
        rare[i] = spread(&sides[1]).0;
        let mean = (spread(&sides[0]).0 + rare[i]) / 2.0;
        rows.push([name.to_string(), plus_minus(&sides[0]), plus_minus(&sides[1]), format!("{mean:.3}")]);
    }
    table(&rows);
    Ok(rare)
}
