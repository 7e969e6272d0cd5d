//! LeCun's networks of 1989 and 1998 beside today's LeNet.
//!
//! The network of 1989 read zip codes with 9,760 parameters: strides, tanh, squared error (LeCun et
//! al., 1989). LeNet-5 of 1998 has trainable subsampling, a table that says which maps a map of the
//! third layer reads, and an output that measures the distance to a bitmap of each digit (LeCun et
//! al., 1998); it had 0.95 % errors on MNIST after 20 epochs, and 0.8 % with distorted digits. What
//! carries the name today has ReLU, max pooling, all connections, and cross-entropy.
//!
//! The claim is that the later changes made training simpler and faster rather than the network
//! much more accurate. The program trains all three on the same digits with the same optimiser
//! (Adam with a falling rate), each with the loss of its time, and prints errors, parameters and
//! seconds.
//!
//! What to look at: errors beside parameters, and the seconds: tanh on every pixel and two layers
//! of means cost more time than ReLU and max pooling.

use std::time::Instant;

use convnet::chart::Chart;
use convnet::data::{Dataset, Image};
use convnet::models::{self, LeNet1998};
use convnet::nn::Module;
use convnet::optim::{Adam, Optimizer};
use convnet::{Result, Tensor, manual_seed};

use super::lab::{Experiment, Lab, accuracy_of, ensure, say, shuffled, spread, table, tensors};

pub const EXPERIMENT: Experiment =
    Experiment { name: "lenet_history", claim: "LeNet's successors are simpler and faster, and not much more accurate", run };

/// The loss of a network's time for its outputs and the labels.
fn loss(name: &str, y: &Tensor, labels: &Tensor) -> Result<Tensor> {
    match name {
        // 1 for the class, −1 for the others.
        "lenet_1989" => y.mse_loss(&labels.one_hot(10)?.to_dtype(y.dtype())?.mul_scalar(2.0).sub_scalar(1.0)),
        "lenet5_1998" => LeNet1998::loss(y, labels, 0.1),
        _ => y.cross_entropy(labels),
    }
}

fn run(lab: &Lab) -> Result<String> {
    let data = lab.digits()?;
    let (seeds, epochs) = lab.pick((1, 16), (3, 5));
    let (train, test) = (lab.pick(1000, 20_000).min(data.train.len()), lab.pick(359, 10_000).min(data.test.len()));
    let mut rows = vec![["network", "test error, %", "deviation", "parameters", "multiply-adds", "seconds"].map(String::from)];
    let mut bars = [vec![], vec![], vec![]];
    let mut codes = vec![];
    for name in ["lenet_1989", "lenet5_1998", "lenet5"] {
        let info = models::info(name)?;
        let (images, labels) = tensors(&data.train, 0..train, models::preprocessing(name)?)?;
        let (test_images, test_labels) = tensors(&data.test, 0..test, models::preprocessing(name)?)?;
        let (mut errors, mut seconds) = (vec![], vec![]);
        for seed in 0..seeds {
            manual_seed(lab.seed + seed);
            let net = models::create(name, 10)?;
            let mut optimizer = Adam::new(net.parameters(), 2e-3);
            let (steps, mut step, start) = (epochs * train.div_ceil(64), 0, Instant::now());
            for _ in 0..epochs {
                for (x, y) in shuffled(&images, &labels, 64)? {
                    optimizer.set_learning_rate(0, 2e-3 * (1.0 - step as f64 / steps as f64))?;
                    optimizer.step(&loss(name, &net.forward(&x)?, &y)?.backward()?)?;
                    step += 1;
                }
            }
            seconds.push(start.elapsed().as_secs_f64());
            errors.push(100.0 * (1.0 - accuracy_of(&net, &test_images, &test_labels)?));
            if name == "lenet5_1998" && seed == 0 {
                codes = net.named_buffers().into_iter().map(|(_, buffer)| buffer.tensor()).collect();
            }
        }
        let ((error, deviation), (time, _)) = (spread(&errors), spread(&seconds));
        rows.push([
            name.to_string(),
            format!("{error:.2}"),
            format!("{deviation:.2}"),
            info.parameters().to_string(),
            info.multiply_adds()?.to_string(),
            format!("{time:.1}"),
        ]);
        bars.iter_mut().zip([error, info.parameters() as f64, time]).for_each(|(bars, value)| bars.push((name, value)));
    }
    say(format_args!("{train} of {}, {epochs} epochs, {seeds} seed(s)", data.name));
    table(&rows);
    if let [codes] = &codes[..] {
        let bitmaps = (0..10).map(|class| Image::from_tensor(&codes.narrow(0, class, 1)?.reshape([1, 12, 7])?.neg().clamp(0.0, 1.0)?));
        lab.save("lenet_history_codes.png", &Image::grid(&bitmaps.collect::<Result<Vec<_>>>()?, 10, 2)?)?;
    }
    let titles = ["Test error, %", "Parameters", "Seconds of training"];
    let charts: Vec<Chart> =
        titles.iter().zip(&bars).map(|(title, bars)| Chart::new(*title).x("network").y(*title).bars("", bars.iter().copied())).collect();
    lab.chart("lenet_history.svg", Chart::panels(&charts, 1))?;
    let [old, middle, new] = [0, 1, 2].map(|i| bars[0][i].1);
    ensure(old.max(middle).max(new) < lab.pick(25.0, 6.0), format_args!("errors are {old:.2}, {middle:.2} and {new:.2}%"))?;
    Ok(format!("test error {old:.2}% in 1989's network, {middle:.2}% in 1998's, {new:.2}% in today's"))
}
