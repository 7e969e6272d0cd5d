//! Evaluates a checkpoint, or weights of another program, on a dataset: accuracy, top-k accuracy,
//! loss, precision, recall, F1, area under the ROC curve and average precision of each class, the
//! confusion matrix, the most frequent mistakes; on request as an HTML report.
//!
//! ```sh
//! cargo run --release --example train -- --out runs/digits
//! cargo run --release --example evaluate -- --run runs/digits      # its best checkpoint on its validation data
//! cargo run --release --example evaluate -- --model resnet18 --weights resnet18-f37072fd.pth --dataset folder --data imagenet/val
//! ```
//!
//! Without a test set, a folder or a list is evaluated as a whole, or with `--run` the part that
//! the run validated on.
//!
//! ```sh
//! cargo run --release --example evaluate -- --run runs/flowers --data more/flowers --report flowers.html
//! ```

#[path = "common/mod.rs"]
mod common;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{ArgAction, Parser};
use common::data::DataOptions;
use common::program::say;
use common::{config, weights_file};
use convnet::data::Batch;
use convnet::nn::Module;
use convnet::train::metrics::{Accuracy, ConfusionMatrix, Mean, Metric, RankingScore};
use convnet::train::{Checkpoints, HtmlReport, WorstSamples};
use convnet::{Error, Result, Tensor, models, no_grad};

/// Evaluate a checkpoint or other weights on a dataset.
#[derive(Parser, Debug)]
struct Options {
    /// Directory of a run of `train`, whose options are the defaults
    #[arg(long, value_name = "DIR")]
    run: Option<PathBuf>,
    /// TOML file with options; those of the command line win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A registered architecture
    #[arg(long, default_value = "lenet5")]
    model: String,
    /// A checkpoint, .pth, .safetensors or .npz [default: the best checkpoint of --run, or its
    /// last]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// The k of the top-k accuracy
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Evaluate on the training pictures
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    on_train: bool,
    /// Number of mistakes to list, the most frequent ones first
    #[arg(long, default_value_t = 10)]
    mistakes: usize,
    /// Write the confusion matrix as a CSV file, a row for each class
    #[arg(long, value_name = "FILE")]
    matrix: Option<PathBuf>,
    /// Write the results as an HTML file, with the worst-classified pictures
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Threads that compute; 0 for one on each core
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[command(flatten)]
    data: DataOptions,
}

fn main() -> ExitCode {
    let (options, _) = config::parse::<Options>();
    common::run(|| evaluate(&options))
}

fn evaluate(options: &Options) -> Result<()> {
    convnet::set_num_threads(options.threads)?;
    let path = weights(options)?;
    // The pictures that a run validated on, unless they are of another dataset.
    let of_run = options.run.is_some() && !config::is_given("--data");
    let splits = if of_run { options.data.open()? } else { options.data.open_to_evaluate()? };
    let (names, classes) = (&splits.classes, splits.classes.len());
    let model = models::create(&options.model, classes)?;
    let weights = weights_file::read(&path)?;
    weights.load_into(&model)?;
    model.eval();

    let target = options.data.target(&options.model, Some(&weights))?;
    let pictures = if options.on_train { splits.train } else { splits.valid };
    let loader = options.data.plain_loader(pictures, &target);
    let (mut matrix, mut top, mut loss) = (ConfusionMatrix::new(classes), Accuracy::top_k(options.top), Mean::default());
    let mut ranking = Ranking::new(loader.dataset().len(), classes);
    let mut worst = WorstSamples::new(32).normalized(target.preprocessing.mean(), target.preprocessing.std());
    let start = Instant::now();
    for batch in loader.epoch(0) {
        let Batch { images, labels } = batch?;
        let logits = no_grad(|| model.forward(&images))?;
        loss.update(f64::from(logits.cross_entropy(&labels)?.item::<f32>()?), labels.numel());
        matrix.update(&logits, &labels)?;
        top.update(&logits, &labels)?;
        ranking.update(&logits, &labels);
        if options.report.is_some() {
            worst.add(&images, &logits, &labels)?;
        }
    }
    let seconds = start.elapsed().as_secs_f64();

    say(matrix.report(names)?);
    let ranks = ranking.of_classes(names);
    match &ranks {
        Ok(ranks) => say(ranks_table(ranks, names)),
        Err(reason) => say(format_args!("without AUC and average precision: {reason}\n")),
    }
    if classes <= 20 {
        say(table(&matrix));
    }
    for (count, label, predicted) in mistakes(&matrix).into_iter().take(options.mistakes) {
        say(format_args!("{count:>6} × {} taken for {}", names[label], names[predicted]));
    }
    if let Some(path) = &options.matrix {
        std::fs::write(path, csv(&matrix, names)).map_err(|source| Error::Io { path: path.clone(), source })?;
    }
    for failure in loader.failures() {
        say(format_args!("left out: {failure}"));
    }
    let samples = matrix.samples();
    say(format_args!("\n{} on {samples} pictures in {seconds:.1} s, {:.0} pictures/s", path.display(), samples as f64 / seconds));
    let mut figures = vec![("loss".to_string(), loss.value())];
    if let Ok(ranks) = &ranks {
        let [area, precision] = means(ranks);
        figures.extend([("mean AUC".to_string(), area), ("mean average precision".to_string(), precision)]);
    }
    figures.extend([(format!("top-{} accuracy", options.top), top.value()), ("accuracy".to_string(), matrix.accuracy())]);
    let figures: Vec<(String, String)> = figures.into_iter().map(|(name, value)| (name, format!("{value:.4}"))).collect();
    figures.iter().for_each(|(name, value)| say(format_args!("{name}: {value}")));
    let Some(file) = &options.report else { return Ok(()) };
    let weights = [("model", options.model.clone()), ("weights", path.display().to_string()), ("pictures", samples.to_string())];
    HtmlReport::new(format!("{} evaluated", options.model))
        .figures(&figures)
        .confusion(&matrix, names)
        .pictures("Worst-classified samples", &worst.pictures(names))
        .configuration(&weights)
        .time(Duration::from_secs_f64(seconds))
        .save(file)
}

/// The most scores that are kept for AUC and average precision, of 16 bytes each.
const MOST_SCORES: usize = 1 << 26;

/// The scores of each class against all others; without them the reason: they are too many to keep,
/// or not numbers.
struct Ranking(std::result::Result<RankingScore, String>);

impl Ranking {
    fn new(samples: usize, classes: usize) -> Ranking {
        match samples.saturating_mul(classes) {
            ..=MOST_SCORES => Ranking(Ok(RankingScore::roc_auc())),
            scores => Ranking(Err(format!("{scores} scores are too many to keep"))),
        }
    }

    fn update(&mut self, logits: &Tensor, labels: &Tensor) {
        let Ok(score) = &mut self.0 else { return };
        if let Err(error) = logits.softmax(-1).and_then(|scores| score.update(&scores, labels)) {
            self.0 = Err(error.to_string());
        }
    }

    /// The area under the ROC curve of each class, and its average precision.
    fn of_classes(&self, names: &[String]) -> std::result::Result<Vec<[f64; 2]>, String> {
        let score = self.0.as_ref()?;
        let of_class = |class| Ok([score.roc_curve(class)?.area(), score.precision_recall_curve(class)?.average_precision()]);
        (0..names.len()).map(of_class).collect::<Result<_>>().map_err(|error| error.to_string())
    }
}

/// The means over the classes that occur.
fn means(ranks: &[[f64; 2]]) -> [f64; 2] {
    let occur: Vec<_> = ranks.iter().filter(|[area, _]| !area.is_nan()).collect();
    [0, 1].map(|i| occur.iter().map(|values| values[i]).sum::<f64>() / occur.len() as f64)
}

/// The ranks of all classes as a table.
fn ranks_table(ranks: &[[f64; 2]], names: &[String]) -> String {
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(5);
    let rows = ranks.iter().zip(names).map(|([area, precision], name)| format!("{name:width$}  {area:6.4}  {precision:17.4}\n"));
    format!("{:width$}  {:>6}  average precision\n", "class", "AUC") + &rows.collect::<String>()
}

fn weights(options: &Options) -> Result<PathBuf> {
    if let Some(path) = &options.weights {
        return Ok(path.clone());
    }
    let Some(run) = &options.run else {
        return Err(Error::msg("which weights? --run DIR of a run of `train`, or --weights FILE"));
    };
    let checkpoints = Checkpoints::in_dir(run.join("checkpoints"));
    let best = checkpoints.best_path();
    match checkpoints.steps()?.last() {
        _ if best.exists() => Ok(best),
        Some(&step) => Ok(checkpoints.path(step)),
        None => Err(Error::msg(format!("{} has no checkpoints", run.display()))),
    }
}

/// The matrix as a table: true classes down, predicted ones across.
fn table(matrix: &ConfusionMatrix) -> String {
    let width = matrix.rows().flatten().max().map_or(1, |most| most.to_string().len()).max(2) + 1;
    let line = |first: &str, cells: Vec<String>| {
        format!("{first:>5} {}\n", cells.iter().map(|cell| format!("{cell:>width$}")).collect::<String>())
    };
    let head = line("", (0..matrix.classes()).map(|class| class.to_string()).collect());
    let rows = matrix.rows().enumerate().map(|(class, row)| line(&class.to_string(), row.iter().map(u64::to_string).collect()));
    std::iter::once(head).chain(rows).collect()
}

/// Classes that are taken for others: the count, the class, the other.
fn mistakes(matrix: &ConfusionMatrix) -> Vec<(u64, usize, usize)> {
    let rows = matrix.rows().enumerate();
    let pairs = rows.flat_map(|(label, row)| row.iter().enumerate().map(move |(predicted, &count)| (count, label, predicted)));
    let mut pairs: Vec<_> = pairs.filter(|&(count, label, predicted)| count > 0 && label != predicted).collect();
    pairs.sort_by_key(|pair| std::cmp::Reverse(pair.0));
    pairs
}

fn csv(matrix: &ConfusionMatrix, names: &[String]) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let head: String = names.iter().map(|name| format!(",{}", quoted(name))).collect();
    let row =
        |(row, name): (&[u64], &String)| format!("{}{}\n", quoted(name), row.iter().map(|count| format!(",{count}")).collect::<String>());
    format!("class{head}\n{}", matrix.rows().zip(names).map(row).collect::<String>())
}
