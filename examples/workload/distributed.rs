//! Training steps on the ranks that `mpirun` started: how long they take, what is sent, and a
//! digest of the parameters at the end, which is the same whatever the number of ranks.

use std::hash::{DefaultHasher, Hasher};
use std::time::{Duration, Instant};

use convnet::data::{DataLoader, TensorDataset};
use convnet::nn::{Module, ModuleExt};
use convnet::optim::{Optimizer, Sgd};
use convnet::train::{DataParallel, Distributed, Group};

use crate::model::Subject;
use crate::{Fallible, Options, median};

/// Steps before the ones that are timed.
const WARM_UP: usize = 3;

/// How many numbers of 8 bytes take 4 MiB, the largest message of gradients.
const LARGE: usize = (4 << 20) / 8;

/// Trains a model and prints one line on rank 0.
pub fn print(name: &str, options: &Options) -> Fallible<()> {
    let group = Group::mpi()?;
    let mut settings = Distributed::new(&group).shards(options.shards);
    if options.any_order {
        settings = settings.in_any_order();
    }
    let (model, images, labels) = Subject::new(name, options.batch, options.size, options.classes)?.into_parts()?;
    model.train();
    let loader = DataLoader::new(TensorDataset::new(images, labels)?, options.batch);
    let mut optimizer = Sgd::new(model.parameters(), 1e-3).momentum(0.9).weight_decay(1e-4);
    let mut parallel = DataParallel::new(&model, settings)?;

    let mut seconds = Vec::with_capacity(options.steps);
    let mut before = group.traffic();
    for step in 0..WARM_UP + options.steps {
        if step == WARM_UP {
            before = group.traffic();
        }
        let start = Instant::now();
        // The dataset is one batch, so that an epoch is a step.
        let gradients = parallel.epoch(&loader, 0).next_gradients(|model, (x, y)| model.forward(x)?.cross_entropy(y))?;
        optimizer.step(&gradients.ok_or("the dataset is empty")?)?;
        if step >= WARM_UP {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }

    let after = group.traffic();
    let [small, large] = [sum_seconds(&group, 2)?, sum_seconds(&group, LARGE)?];
    if group.is_first() {
        let each = |total: Duration| 1e3 * total.as_secs_f64() / options.steps as f64;
        let fastest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        println!(
            "{name}, {} images, {} ranks: step {:.2} ms (fastest {:.2}); sent {:.3} MB a step; messages {:.2} ms, waited for {:.2} ms; \
             parameters {:016x}; sums over the ranks of 16 bytes {:.3} ms, of 4 MiB {:.2} ms",
            options.batch,
            group.world(),
            1e3 * median(seconds),
            1e3 * fastest,
            (after.bytes_sent - before.bytes_sent) as f64 / 1e6 / options.steps as f64,
            each(after.communicating - before.communicating),
            each(after.waiting - before.waiting),
            digest(&*model)?,
            1e3 * small,
            1e3 * large,
        );
    }
    Ok(())
}

/// The median time of a sum over all ranks of `count` numbers of 8 bytes.
fn sum_seconds(group: &Group, count: usize) -> convnet::Result<f64> {
    let mut seconds = Vec::new();
    for _ in 0..9 {
        let values = vec![1.0; count];
        let start = Instant::now();
        group.sum(values)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(median(seconds))
}

/// A number that two models share if all bits of their parameters and buffers do.
fn digest(model: &dyn Module) -> convnet::Result<u64> {
    let mut hasher = DefaultHasher::new();
    for (name, tensor) in model.state_dict() {
        hasher.write(name.as_bytes());
        for value in tensor.to_dtype(convnet::DType::F64)?.to_vec::<f64>()? {
            hasher.write_u64(value.to_bits());
        }
    }
    Ok(hasher.finish())
}
