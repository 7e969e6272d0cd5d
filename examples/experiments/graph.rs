//! # A convolution on a graph
//!
//! A convolution sums a pixel's neighbours with shared weights. Kipf and Welling (*Semi-Supervised
//! Classification with Graph Convolutional Networks*, 2017) do the same where neighbours are those
//! of a graph: `H' = tanh(D^-½ (A + I) D^-½ · H · W)`, with the matrix `A` of edges and the numbers
//! of neighbours on the diagonal of `D`. No features of the members are needed: `H` starts as the
//! identity.
//!
//! The 34 members of a karate club (Zachary, 1977) split after a conflict between the instructor,
//! member 1, and the president, member 34. What is claimed: with the two names labelled and no
//! other, the network says of each other member whom he followed, since labels spread along the
//! friendships. Without edges (`A = 0`) nothing spreads, which is the control.
//!
//! Look at: accuracy over ten runs with and without edges, and the picture, the two numbers
//! before the last layer by epoch. The structure is there before any training; two labels turn it.

use convnet::chart::Chart;
use convnet::prelude::*;

use super::lab::{Experiment, Lab, ensure, plus_minus, spread, table};

pub const EXPERIMENT: Experiment =
    Experiment { name: "graph", claim: "a graph convolution predicts how a karate club of 34 splits, from two labels", run };

const MEMBERS: usize = 34;

/// Pairs of members who met outside of the club: for each member, friends of higher numbers.
const FRIENDS: [(usize, &[usize]); 26] = [
    (1, &[2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 18, 20, 22, 32]),
    (2, &[3, 4, 8, 14, 18, 20, 22, 31]),
    (3, &[4, 8, 9, 10, 14, 28, 29, 33]),
    (4, &[8, 13, 14]),
    (5, &[7, 11]),
    (6, &[7, 11, 17]),
    (7, &[17]),
    (9, &[31, 33, 34]),
    (10, &[34]),
    (14, &[34]),
    (15, &[33, 34]),
    (16, &[33, 34]),
    (19, &[33, 34]),
    (20, &[34]),
    (21, &[33, 34]),
    (23, &[33, 34]),
    (24, &[26, 28, 30, 33, 34]),
    (25, &[26, 28, 32]),
    (26, &[32]),
    (27, &[30, 34]),
    (28, &[34]),
    (29, &[32, 34]),
    (30, &[33, 34]),
    (31, &[33, 34]),
    (32, &[33, 34]),
    (33, &[34]),
];

/// The members who followed the president.
const OFFICERS: [usize; 17] = [10, 15, 16, 19, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34];

fn run(lab: &Lab) -> Result<String> {
    let (runs, epochs) = (lab.pick(3, 10), 300);
    let sides = Tensor::from_vec((1..=MEMBERS).map(|member| i64::from(OFFICERS.contains(&member))).collect(), [MEMBERS])?;
    let mut rows = vec![["network", "accuracy on the other 32", "least", "most"].map(String::from)];
    let mut means = [0.0; 2];
    for (i, name) in ["with the 78 friendships", "without"].into_iter().enumerate() {
        let adjacency = normalised(i == 0)?;
        let mut accuracies = Vec::new();
        for seed in lab.seed..lab.seed + runs {
            convnet::manual_seed(seed);
            let network = Network::new(&adjacency);
            let mut charts = Vec::new();
            let drawn: &[usize] = if i == 0 && seed == lab.seed { &[0, 20, 100, epochs] } else { &[] };
            accuracies.push(train(&network, &sides, epochs, |epoch, places| {
                if drawn.contains(&epoch) {
                    charts.push(chart(epoch, places)?);
                }
                Ok(())
            })?);
            if !charts.is_empty() {
                lab.chart("graph.svg", Chart::panels(&charts, 2).title("The karate club before the last layer"))?;
            }
        }
        let [least, most] = [f64::min, f64::max].map(|of| accuracies.iter().copied().reduce(of).unwrap_or(f64::NAN));
        rows.push([name.into(), plus_minus(&accuracies), format!("{least:.3}"), format!("{most:.3}")]);
        means[i] = spread(&accuracies).0;
    }
    table(&rows);
    ensure(means[0] > 0.8, "the labels do not spread along the friendships")?;
    ensure(means[1] < 0.7, "members without friends are told apart")?;
    Ok(format!("accuracy {:.3} from two labels, {runs} runs; without the friendships {:.3}", means[0], means[1]))
}

/// `D^-½ (A + I) D^-½`, `[34, 34]`.
fn normalised(edges: bool) -> Result<Tensor> {
    let mut adjacency = Tensor::eye(MEMBERS).to_vec::<f32>()?;
    for (member, friends) in FRIENDS.iter().filter(|_| edges) {
        for friend in *friends {
            adjacency[(member - 1) * MEMBERS + friend - 1] = 1.0;
            adjacency[(friend - 1) * MEMBERS + member - 1] = 1.0;
        }
    }
    let adjacency = Tensor::from_vec(adjacency, [MEMBERS, MEMBERS])?;
    let scale = adjacency.sum_keepdim(1)?.sqrt()?.recip()?;
    adjacency.mul(&scale)?.mul(&scale.transpose(0, 1)?)
}

/// Adds up each node's neighbours and maps the sums linearly: `Â · x · Wᵀ`.
struct GraphConv {
    linear: Linear,
    adjacency: Tensor,
}

impl Module for GraphConv {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.adjacency.matmul(&self.linear.forward(x)?)
    }

    visit_fields!(linear, skip adjacency);
}

/// Three graph convolutions, as in the paper's appendix, and a linear classifier.
struct Network {
    layers: Vec<GraphConv>,
    classifier: Linear,
}

impl Network {
    fn new(adjacency: &Tensor) -> Network {
        let layer = |inputs, outputs| {
            // The initialisation of Glorot and Bengio (2010), as in the paper.
            let linear = Linear::new(inputs, outputs).bias(false);
            let bound = (6.0 / (inputs + outputs) as f64).sqrt();
            let first = Tensor::rand([outputs, inputs]).mul_scalar(2.0 * bound).sub_scalar(bound);
            linear.weight.set(&first).map(|()| GraphConv { linear, adjacency: adjacency.clone() })
        };
        let layers = [(MEMBERS, 4), (4, 4), (4, 2)].into_iter().filter_map(|(inputs, outputs)| layer(inputs, outputs).ok()).collect();
        Network { layers, classifier: Linear::new(2, 2) }
    }

    /// Places each node in the plane, `[34, 2]`.
    fn embed(&self) -> Result<Tensor> {
        self.layers.iter().try_fold(Tensor::eye(MEMBERS), |x, layer| layer.forward(&x)?.tanh())
    }

    fn parameters(&self) -> Vec<Parameter> {
        let weights = self.layers.iter().flat_map(Module::parameters);
        weights.chain(self.classifier.parameters()).collect()
    }
}

/// Trains with the labels of members 1 and 34 alone; shows the places of all before each epoch and
/// at the end; returns the accuracy on the others.
fn train(network: &Network, sides: &Tensor, epochs: usize, mut show: impl FnMut(usize, &Tensor) -> Result<()>) -> Result<f64> {
    let mut optimizer = Adam::new(network.parameters(), 0.01);
    let labelled = Tensor::from_vec(vec![0i64, MEMBERS as i64 - 1], [2])?;
    for epoch in 0..=epochs {
        let places = network.embed()?;
        show(epoch, &places.detach())?;
        let logits = network.classifier.forward(&places)?;
        if epoch == epochs {
            let right = logits.argmax(1)?.eq(sides)?.narrow(0, 1, MEMBERS - 2)?;
            return Ok(f64::from(right.to_dtype(DType::F32)?.mean(..)?.item::<f32>()?));
        }
        let loss = logits.index_select(0, &labelled)?.cross_entropy(&sides.index_select(0, &labelled)?)?;
        optimizer.step(&loss.backward()?)?;
    }
    Ok(f64::NAN)
}

fn chart(epoch: usize, places: &Tensor) -> Result<Chart> {
    let places: Vec<(f64, f64)> = places.to_vec::<f32>()?.chunks(2).map(|xy| (f64::from(xy[0]), f64::from(xy[1]))).collect();
    let of = |officer: bool| {
        (1..=MEMBERS).filter(|member| OFFICERS.contains(member) == officer).map(|member| places[member - 1]).collect::<Vec<_>>()
    };
    // A gap ends each edge.
    let gap = (f64::NAN, f64::NAN);
    let edges = FRIENDS.iter().flat_map(|(a, friends)| friends.iter().map(|b| (*a, *b)));
    let lines: Vec<(f64, f64)> = edges.flat_map(|(a, b)| [places[a - 1], places[b - 1], gap]).collect();
    Ok(Chart::new(format!("epoch {epoch}"))
        .x("first number")
        .y("second number")
        .points("followed the instructor", of(false))
        .points("followed the president", of(true))
        .curve("friendship", lines))
}
