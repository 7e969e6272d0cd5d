//! Lists of pictures in CSV files.

use std::path::{Path, PathBuf};

use clap::Args;
use convnet::Result;
use convnet::data::ImageList;

/// How a list of pictures is written.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Lists (--dataset csv)")]
pub struct ListOptions {
    /// What separates columns [default: a comma]
    #[arg(long, value_name = "CHARACTER")]
    pub csv_delimiter: Option<char>,
    /// Whether the first row names the columns [default: when its path has no extension]
    #[arg(long, value_name = "true|false")]
    pub csv_header: Option<bool>,
    /// Column of the paths, by its name in the header [default: the first one]
    #[arg(long, value_name = "COLUMN")]
    pub csv_path: Option<String>,
    /// Column of the classes, by its name in the header [default: the other one]
    #[arg(long, value_name = "COLUMN")]
    pub csv_target: Option<String>,
    /// Folder that paths are relative to [default: that of the list]
    #[arg(long, value_name = "DIR")]
    pub csv_root: Option<PathBuf>,
}

impl ListOptions {
    /// Reads a list; its classes are those that it names, unless they are known.
    pub fn read(&self, path: &Path, upright: bool, classes: Option<&[String]>) -> Result<ImageList> {
        let mut options = ImageList::options().upright(upright);
        if let Some(delimiter) = self.csv_delimiter {
            options = options.delimiter(delimiter);
        }
        if let Some(header) = self.csv_header {
            options = options.header(header);
        }
        if let Some(column) = &self.csv_path {
            options = options.path(column);
        }
        if let Some(column) = &self.csv_target {
            options = options.targets([column]);
        }
        if let Some(root) = &self.csv_root {
            options = options.root(root);
        }
        if let Some(classes) = classes {
            options = options.classes(classes);
        }
        options.class_names(path)
    }
}
