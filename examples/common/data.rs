//! Datasets by name, and the loaders of their pictures.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{ArgAction, Args, ValueEnum};
use convnet::data::{
    Cached, Cifar10, Cifar100, DataLoader, Dataset, Digits, FashionMnist, IMAGENET_MEAN, IMAGENET_STD, Image, ImageClassification,
    ImageFolder, Mnist, OnError, ResizeFilter, StratifiedSampler, Subset, WeightedSampler, stratified_split,
};
use convnet::{Error, Result, models};

use super::augment::{AugmentOptions, Target};
use super::list::ListOptions;
use super::weights_file::{self, Weights};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// The 8×8 digits that come with the crate
    Digits,
    Mnist,
    FashionMnist,
    Cifar10,
    Cifar100,
    /// A folder of pictures for each class
    Folder,
    /// A CSV file with the path and the class of each picture
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Broken {
    /// The run ends with the error
    Fail,
    /// The picture is left out
    Skip,
    /// The next picture takes its place
    Replace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// All of them in random order
    Shuffled,
    /// The order of the dataset
    Sequential,
    /// Drawn with replacement, all classes equally often
    Weighted,
    /// Each batch has the classes in the dataset's shares
    Stratified,
}

/// Where pictures come from, and how they are loaded.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Data")]
pub struct DataOptions {
    /// Dataset
    #[arg(long, value_enum, default_value = "digits")]
    pub dataset: Source,
    /// Directory or archive of the dataset; the CSV file; of a folder, the one that has the folders
    /// of the classes, or that has `train` and `valid` (or `val`, `test`) with these
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// Folder or CSV file to validate on [default: `valid`, `val` or `test` beside `train`]
    #[arg(long, value_name = "PATH")]
    pub valid_data: Option<PathBuf>,
    /// Share of each class's training pictures to validate on instead of the test set [default: 0;
    /// where there is no test set, 0.1 for training and all pictures for `evaluate`]
    #[arg(long, value_name = "SHARE")]
    pub valid_share: Option<f64>,
    /// Train on this many pictures only: a random part, in which classes have their shares
    #[arg(long, value_name = "PICTURES")]
    pub limit: Option<usize>,
    /// Height and width of the network's input [default: the weights', or the model's]
    #[arg(long, value_name = "PIXELS")]
    pub size: Option<usize>,
    /// Length of the shorter side before the crop to the input's size, with --random-resized-crop
    /// of pictures to validate on only [default: as for the weights, or the size, or 8/7 of it from
    /// 128 on]
    #[arg(long, value_name = "PIXELS")]
    pub resize: Option<usize>,
    /// Filter of the scaling [default: the weights', or bilinear]
    #[arg(long, value_parser = weights_file::filters())]
    pub filter: Option<ResizeFilter>,
    /// Mean of the channels, for the normalisation [default: that of the weights to start from, or
    /// the dataset's]
    #[arg(long, action = clap::ArgAction::Set, value_delimiter = ',', value_name = "R,G,B")]
    pub mean: Vec<f64>,
    /// Standard deviation of the channels [default: like the mean]
    #[arg(long, action = clap::ArgAction::Set, value_delimiter = ',', value_name = "R,G,B")]
    pub std: Vec<f64>,
    /// Pictures in a batch
    #[arg(long, default_value_t = 64)]
    pub batch: usize,
    /// Threads that load pictures; 0 to load them between the steps
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// Batches that are prepared ahead of the step [default: the loader's]
    #[arg(long, value_name = "BATCHES")]
    pub prefetch: Option<usize>,
    /// Order of the training pictures
    #[arg(long, value_enum, default_value = "shuffled")]
    pub sampler: Order,
    /// Keep decoded pictures in memory, up to this size for training and for validation each
    #[arg(long, value_name = "MEGABYTES")]
    pub cache: Option<usize>,
    /// Turn pictures of files as their EXIF orientation says
    #[arg(
        long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false
    )]
    pub upright: bool,
    /// Fetch the dataset into --data first, unless it is there: MNIST, Fashion-MNIST, CIFAR
    #[cfg(feature = "download")]
    #[arg(
        long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false
    )]
    pub download: bool,
    /// What becomes of a picture that cannot be read
    #[arg(long, value_enum, default_value = "fail")]
    pub broken: Broken,
    /// Seed of the weights, the order of the pictures and the augmentation
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub list: ListOptions,
}

pub type Pictures = Arc<dyn Dataset<Sample = (Image, i64)>>;

/// Pictures to train on and to validate on.
pub struct Splits {
    pub train: Pictures,
    /// The labels of the pictures to train on.
    pub labels: Vec<i64>,
    pub valid: Pictures,
    pub classes: Vec<String>,
}

/// Pictures with their labels.
type Labelled = (Pictures, Vec<i64>);

impl DataOptions {
    /// Opens the dataset, to train on it.
    pub fn open(&self) -> Result<Splits> {
        self.splits(Some(0.1))
    }

    /// Opens the dataset, to evaluate on all its pictures where nothing says which of them are to
    /// validate on.
    pub fn open_to_evaluate(&self) -> Result<Splits> {
        self.splits(None)
    }

    /// Opens a dataset. Without a test set, this share of its pictures is to validate on; `None`
    /// for all, which are to train on as well.
    fn splits(&self, without_test_set: Option<f64>) -> Result<Splits> {
        let path = || self.data.clone().ok_or_else(|| Error::msg("--data is missing: the directory of the dataset"));
        macro_rules! published {
            ($dataset:ident, $dir:expr) => {{
                let (train, valid) = ($dataset::train($dir)?, $dataset::test($dir)?);
                let (train_labels, valid_labels) = (train.labels(), valid.labels());
                ((Arc::new(train) as Pictures, train_labels), Some((Arc::new(valid) as Pictures, valid_labels)))
            }};
        }
        #[cfg(feature = "download")]
        if self.download {
            self.fetch(&path()?)?;
        }
        let (train, valid): (Labelled, Option<Labelled>) = match self.dataset {
            Source::Digits => {
                let (train, valid) = (Digits::train(), Digits::test());
                let labels = [train.labels(), valid.labels()];
                let [of_train, of_valid] = labels;
                ((Arc::new(train), of_train), Some((Arc::new(valid), of_valid)))
            }
            Source::Mnist => published!(Mnist, path()?),
            Source::FashionMnist => published!(FashionMnist, path()?),
            Source::Cifar10 => published!(Cifar10, path()?),
            Source::Cifar100 => published!(Cifar100, path()?),
            Source::Folder => {
                let (train, valid) = folders(&path()?, self.valid_data.as_deref());
                (self.folder(&train)?, valid.map(|valid| self.folder(&valid)).transpose()?)
            }
            Source::Csv => {
                let train = self.list(&path()?, None)?;
                // A class without a picture to validate on is no other class.
                let classes = train.0.classes();
                let valid = self.valid_data.as_deref().map(|path| self.list(path, Some(&classes))).transpose()?;
                (train, valid)
            }
        };
        let classes = train.0.classes();
        if let Some((valid, _)) = &valid
            && valid.classes() != classes
        {
            let message = format!("the classes to train on are {classes:?}, those to validate on {:?}", valid.classes());
            return Err(Error::msg(message));
        }
        let (pictures, labels) = train;
        let share = self.valid_share.or(if valid.is_some() { Some(0.0) } else { without_test_set });
        let (train, labels, valid) = match (valid, share) {
            (Some((valid, _)), Some(0.0)) => (pictures, labels, valid),
            (_, None) => (Arc::clone(&pictures), labels, pictures),
            (None, Some(0.0)) => {
                let none = Subset::shared(Arc::clone(&pictures), [])?;
                (pictures, labels, Arc::new(none) as Pictures)
            }
            (_, Some(share)) => {
                let (train, valid) = stratified_split(pictures, &labels, [1.0 - share, share], self.seed)?;
                let labels = train.indices().iter().map(|&index| labels[index]).collect();
                (Arc::new(train) as Pictures, labels, Arc::new(valid) as Pictures)
            }
        };
        let (train, labels) = match self.limit {
            Some(limit) if limit < train.len() => {
                let (part, _) = stratified_split(train, &labels, [limit, labels.len() - limit], self.seed)?;
                let labels = part.indices().iter().map(|&index| labels[index]).collect();
                (Arc::new(part) as Pictures, labels)
            }
            _ => (train, labels),
        };
        let [train, valid] = [train, valid].map(|pictures| match self.cache {
            Some(megabytes) => Arc::new(Cached::new(pictures, megabytes.saturating_mul(1_000_000))) as Pictures,
            None => pictures,
        });
        Ok(Splits { train, labels, valid, classes })
    }

    #[cfg(feature = "download")]
    fn fetch(&self, dir: &Path) -> Result<()> {
        match self.dataset {
            Source::Mnist => Mnist::download(dir),
            Source::FashionMnist => FashionMnist::download(dir),
            Source::Cifar10 => Cifar10::download(dir),
            Source::Cifar100 => Cifar100::download(dir),
            Source::Digits | Source::Folder | Source::Csv => Err(Error::msg("--download fetches MNIST, Fashion-MNIST and CIFAR only")),
        }
    }

    fn folder(&self, dir: &Path) -> Result<Labelled> {
        let folder = ImageFolder::options().upright(self.upright).open(dir)?;
        let labels = folder.labels();
        Ok((Arc::new(folder), labels))
    }

    fn list(&self, path: &Path, classes: Option<&[String]>) -> Result<Labelled> {
        let list = self.list.read(path, self.upright, classes)?;
        let labels = list.labels();
        Ok((Arc::new(list), labels))
    }

    /// Makes loaders of training batches, which are augmented, and of validation batches, for a
    /// network that takes such pictures.
    pub fn loaders(&self, splits: &Splits, target: &Target, augment: &AugmentOptions) -> Result<(DataLoader, DataLoader)> {
        let (seed, classes) = (self.seed, splits.classes.len());
        let train = DataLoader::new(Arc::clone(&splits.train), self.batch).seed(seed).drop_last(splits.train.len() > self.batch);
        let train = match self.sampler {
            Order::Shuffled => train.shuffle(seed),
            Order::Sequential => train,
            Order::Weighted => train.sampler(WeightedSampler::balanced(&splits.labels)),
            Order::Stratified => train.sampler(StratifiedSampler::new(&splits.labels)),
        };
        let train = augment.add_to(self.settings(train), target, classes)?;
        Ok((train, self.plain_loader(Arc::clone(&splits.valid), target)))
    }

    /// Makes a loader in the dataset's order, without augmentation.
    pub fn plain_loader(&self, pictures: Pictures, target: &Target) -> DataLoader {
        target.add_to(self.settings(DataLoader::new(pictures, self.batch)))
    }

    fn settings(&self, loader: DataLoader) -> DataLoader {
        let broken = match self.broken {
            Broken::Fail => OnError::Fail,
            Broken::Skip => OnError::Skip,
            Broken::Replace => OnError::Replace,
        };
        let loader = loader.workers(self.workers).on_error(broken);
        match self.prefetch {
            Some(batches) => loader.prefetch(batches),
            None => loader,
        }
    }

    /// Returns what the input of a registered model looks like: as for the weights to start from;
    /// without any, the dataset's statistics. Options change it.
    pub fn target(&self, model: &str, weights: Option<&Weights>) -> Result<Target> {
        let [channels, height, _] = models::info(model)?.input;
        let of_weights = weights.map(|weights| weights.preprocessing(model)).transpose()?.flatten();
        let usual = of_weights.unwrap_or_else(|| {
            let size = self.size.unwrap_or(height);
            let (mean, std) = self.statistics();
            ImageClassification::new(size).resize(if size < 128 { size } else { size.saturating_mul(8) / 7 }).normalize(mean, std)
        });
        let [_, usual_size, _] = usual.shape();
        let size = self.size.unwrap_or(usual_size);
        let shorter = self.resize.unwrap_or(size.saturating_mul(usual.shorter_side()) / usual_size.max(1));
        if shorter < size {
            return Err(Error::msg(format!(
                "--resize {shorter} is below the input's size, {size}: give both, also where a run's options have one"
            )));
        }
        let filter = self.filter.unwrap_or(usual.filter());
        let [mean, std] =
            [(&self.mean, usual.mean()), (&self.std, usual.std())].map(|(own, usual)| if own.is_empty() { usual } else { own });
        let [mean, std] = [mean, std].map(|values| for_channels(values.to_vec(), channels));
        Ok(Target { channels, preprocessing: ImageClassification::new(size).resize(shorter).interpolation(filter).normalize(mean, std) })
    }

    /// Returns mean and standard deviation of the dataset's channels.
    fn statistics(&self) -> (Vec<f64>, Vec<f64>) {
        match self.dataset {
            Source::Digits => (vec![0.3], vec![0.35]),
            Source::Mnist => (vec![0.1307], vec![0.3081]),
            Source::FashionMnist => (vec![0.2860], vec![0.3530]),
            Source::Cifar10 => (vec![0.4914, 0.4822, 0.4465], vec![0.2470, 0.2435, 0.2616]),
            Source::Cifar100 => (vec![0.5071, 0.4866, 0.4409], vec![0.2673, 0.2564, 0.2762]),
            Source::Folder | Source::Csv => (IMAGENET_MEAN.to_vec(), IMAGENET_STD.to_vec()),
        }
    }
}

/// One value for all channels of a grey dataset, or their mean for a grey network.
fn for_channels(values: Vec<f64>, channels: usize) -> Vec<f64> {
    match (values.len(), channels) {
        (own, wanted) if own == wanted => values,
        (1, wanted) => vec![values[0]; wanted],
        (own, 1) => vec![values.iter().sum::<f64>() / own as f64],
        _ => values,
    }
}

/// Returns the folders to train and to validate on.
fn folders(root: &Path, valid: Option<&Path>) -> (PathBuf, Option<PathBuf>) {
    let train = root.join("train");
    let beside = || ["valid", "val", "test"].into_iter().map(|name| root.join(name)).find(|dir| dir.is_dir());
    match (train.is_dir(), valid) {
        (true, Some(valid)) => (train, Some(valid.to_path_buf())),
        (true, None) => (train, beside()),
        (false, valid) => (root.to_path_buf(), valid.map(Path::to_path_buf)),
    }
}

/// The first pictures of a dataset, with the labels.
pub fn first(pictures: &Pictures, count: usize) -> Result<Pictures> {
    Ok(Arc::new(Subset::shared(Arc::clone(pictures), 0..count.min(pictures.len()))?))
}
