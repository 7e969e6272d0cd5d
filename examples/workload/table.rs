//! A table of operations and models: milliseconds, GFLOP/s, and the share of what the machine could
//! do in registers just then.
//!
//! Most machines change their speed from one moment to the next, so each sample is taken between
//! two measurements of the peak, and the share is the median over the samples.

use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use convnet::num_threads;

use crate::model::Subject;
use crate::operation::{BATCH, OPERATIONS, Operation};
use crate::peak::peak;
use crate::{Fallible, machine, median};

/// Models, and how many images a training step has.
const MODELS: [(&str, usize); 7] = [
    ("lenet5", 64),
    ("cifar_resnet20", 128),
    ("resnet18", 16),
    ("resnet50", 8),
    ("densenet121", 8),
    ("mobilenet_v2", 16),
    ("efficientnet_b0", 8),
];

/// Samples of a row, unless they take too long together.
const SAMPLES: usize = 9;
const FEWEST: usize = 3;
const LONG: Duration = Duration::from_millis(600);
/// What a sample takes at least, in seconds; short steps run several times.
const SAMPLE: f64 = 0.01;

pub fn print() -> Fallible<()> {
    // The first rounds wake the cores up.
    let peaks: Vec<f64> = (0..9).map(|_| peak(num_threads())).collect();
    writeln!(stdout(), "{}: multiply-adds in registers reach {:.0} GFLOP/s", machine(), median(peaks))?;
    writeln!(
        stdout(),
        "A multiply-add counts as two operations. Winograd's algorithms do fewer than are counted, so that they may exceed the peak."
    )?;

    heading(&format!("operation, {BATCH} images"), "forward", "backward")?;
    for (spec, size) in OPERATIONS {
        let make = || Operation::parse(spec, BATCH, size);
        row(&format!("{spec} @{size}"), || Ok(make()?.forward()), || Ok(make()?.backward()?))?;
    }
    heading("model", "inference, 1 image", "training step")?;
    for (name, batch) in MODELS {
        let make = |batch| Subject::new(name, batch, None, None);
        row(&format!("{name}, training {batch} images"), || Ok(make(1)?.inference()), || Ok(make(batch)?.training()?))?;
    }
    Ok(())
}

fn heading(what: &str, first: &str, second: &str) -> Fallible<()> {
    writeln!(stdout(), "\n{what:44}{first:^29}{second:^29}")?;
    writeln!(stdout(), "{:44}{:>10}{:>10}{:>9}{:>10}{:>10}{:>9}", "", "ms", "GFLOP/s", "of peak", "ms", "GFLOP/s", "of peak")?;
    Ok(())
}

/// Prints the row as it is measured.
fn row<A, B>(label: &str, first: impl FnOnce() -> Fallible<A>, second: impl FnOnce() -> Fallible<B>) -> Fallible<()>
where
    A: FnMut() -> convnet::Result<()>,
    B: FnMut() -> convnet::Result<()>,
{
    write!(stdout(), "{label:44}")?;
    stdout().flush()?;
    // The first model is dropped before the second is made, so that both are not in memory at once.
    write!(stdout(), "{}", measure(first()?)?)?;
    stdout().flush()?;
    writeln!(stdout(), "{}", measure(second()?)?)?;
    Ok(())
}

/// The cells for a step.
fn measure(mut step: impl FnMut() -> convnet::Result<()>) -> Fallible<String> {
    let (ran, profile) = convnet::profile(&mut step);
    ran?;
    let multiply_adds: u64 = profile.rows.iter().map(|row| row.forward.multiply_adds + row.backward.multiply_adds).sum();
    let gflop = 2e-9 * multiply_adds as f64;

    let start = Instant::now();
    step()?;
    let steps = (SAMPLE / start.elapsed().as_secs_f64()).ceil().clamp(1.0, 1e4) as usize;
    let (mut seconds, mut shares) = (vec![], vec![]);
    let begin = Instant::now();
    let mut before = peak(num_threads());
    while seconds.len() < FEWEST || (seconds.len() < SAMPLES && begin.elapsed() < LONG) {
        let start = Instant::now();
        for _ in 0..steps {
            step()?;
        }
        let of_one = start.elapsed().as_secs_f64() / steps as f64;
        let after = peak(num_threads());
        shares.push(gflop / of_one / ((before + after) / 2.0));
        seconds.push(of_one);
        before = after;
    }
    let (seconds, share) = (median(seconds), 100.0 * median(shares));
    Ok(match multiply_adds {
        0 => format!("{:10.3}{:>10}{:>9}", 1e3 * seconds, "-", "-"),
        _ => format!("{:10.3}{:10.1}{share:7.0} %", 1e3 * seconds, gflop / seconds),
    })
}
