//! Options from a TOML file and from the command line.
//!
//! The keys of a file are the long names of options; tables only group them:
//!
//! ```toml
//! model = "cifar_resnet20"
//!
//! [optimizer]
//! optimizer = "sgd"
//! lr = 0.1
//! ```

use std::any::TypeId;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, Parser};
use convnet::Context as _;
use convnet::autograd::Gradients;
use convnet::train::{Callback, RunState};
use toml::{Table, Value};

/// The name of the file with a run's options in its directory.
pub const CONFIG: &str = "config.toml";

/// Options that are not saved: a run that goes on, or is evaluated, has weights in its checkpoints.
const NOT_OF_THE_RUN: [&str; 5] = ["config", "out", "resume", "run", "weights"];

/// Parses the options of the program; ends it with a message when they make no sense.
///
/// Options of the command line win over those of the file that `--config` names. `--run DIR`, and
/// `--out DIR` with `--resume`, take the options with which the run in that directory was started.
pub fn parse<P: Parser>() -> (P, Table) {
    parse_with(&[])
}

/// Parses the options of a program with other defaults, `--name=value`.
pub fn parse_with<P: Parser>(defaults: &[&str]) -> (P, Table) {
    let given: Vec<OsString> = std::env::args_os().collect();
    parse_from(defaults, &given).unwrap_or_else(|error| error.exit())
}

/// Parses options, of which the first one is the program's name.
pub fn parse_from<P: Parser>(defaults: &[&str], given: &[OsString]) -> Result<(P, Table), clap::Error> {
    let command = P::command().args_override_self(true);
    let matches = command.clone().try_get_matches_from(arguments(&command, defaults, given)?)?;
    let options = P::from_arg_matches(&matches).map_err(|error| error.format(&mut command.clone()))?;
    Ok((options, effective(&command, &matches)))
}

/// Writes the options of a run into its directory: beside the old file, which a full disk leaves as
/// it is.
pub fn save(dir: &Path, options: &Table) -> convnet::Result<()> {
    let path = dir.join(CONFIG);
    let new = dir.join(format!("{CONFIG}.new"));
    let write = || fs::create_dir_all(dir).and_then(|()| fs::write(&new, options.to_string())).and_then(|()| fs::rename(&new, &path));
    let written = write().inspect_err(|_| drop(fs::remove_file(&new)));
    written.map_err(|source| convnet::Error::Io { path: path.clone(), source }).context(UNWRITABLE)
}

/// Advice for directories of runs.
pub const UNWRITABLE: &str = "--out has to be a directory that this user may write to, on a disk with room";

/// Writes the options of a run that goes on, once it does: after an error in the options themselves
/// the directory has those that its checkpoints belong to.
pub struct SaveOnce<'a>(pub Option<(&'a Path, &'a Table)>);

impl Callback for SaveOnce<'_> {
    fn before_step(&mut self, _: &mut RunState<'_>, _: &mut Gradients) -> convnet::Result<()> {
        self.0.take().map_or(Ok(()), |(dir, options)| save(dir, options))
    }
}

/// Puts defaults and the options of files before those of the command line, which override them.
fn arguments(command: &Command, defaults: &[&str], given: &[OsString]) -> Result<Vec<OsString>, clap::Error> {
    let mut arguments = given.get(..1).unwrap_or_default().to_vec();
    arguments.extend(defaults.iter().map(OsString::from));
    let file = value_of(given, "--config").map(|path| read(command, &path)).transpose()?;
    let in_file = |name: &str| file.as_ref().and_then(|table| find(table, name));
    let resumes = match switch_of(given, "--resume") {
        Some(resumes) => resumes,
        None => in_file("resume").is_some_and(|value| text_of(value) == "true"),
    };
    let run = value_of(given, "--run").or_else(|| in_file("run").map(|run| PathBuf::from(text_of(run)))).or_else(|| {
        let out = || value_of(given, "--out").or_else(|| in_file("out").map(|out| PathBuf::from(text_of(out))));
        if resumes { out().filter(|dir| dir.join(CONFIG).exists()) } else { None }
    });
    if let Some(dir) = run {
        // Programs have some options in common: each takes those that it knows.
        let known = |name: &str| command.get_arguments().any(|argument| argument.get_long() == Some(name));
        push(&mut arguments, &read(command, &dir.join(CONFIG))?, &known);
    }
    if let Some(table) = &file {
        push(&mut arguments, table, &|_| true);
    }
    arguments.extend(given.iter().skip(1).cloned());
    Ok(arguments)
}

/// Returns whether the command line has an option.
pub fn is_given(name: &str) -> bool {
    value_of(&std::env::args_os().collect::<Vec<_>>(), name).is_some()
}

/// Returns whether a switch is on, by its last mention: `--name`, `--name=true` or `--name=false`.
fn switch_of(given: &[OsString], name: &str) -> Option<bool> {
    let mut values = given.iter().filter_map(|argument| argument.to_str()?.strip_prefix(name));
    values.rfind(|rest| rest.is_empty() || rest.starts_with('=')).map(|rest| matches!(rest, "" | "=true"))
}

/// Returns the value of an option in a file or in one of its tables.
fn find<'t>(table: &'t Table, name: &str) -> Option<&'t Value> {
    table.iter().find_map(|(key, value)| match value {
        Value::Table(table) => find(table, name),
        value => (key.replace('_', "-") == name).then_some(value),
    })
}

/// Returns the value of `--name value` or `--name=value`.
fn value_of(given: &[OsString], name: &str) -> Option<PathBuf> {
    given.iter().enumerate().find_map(|(i, argument)| match argument.to_str()?.strip_prefix(name)? {
        "" => given.get(i + 1).map(PathBuf::from),
        value => value.strip_prefix('=').map(PathBuf::from),
    })
}

fn read(command: &Command, path: &Path) -> Result<Table, clap::Error> {
    let fail = |error: &dyn std::fmt::Display| command.clone().error(ErrorKind::Io, format!("{}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| fail(&error))?;
    text.parse().map_err(|error| fail(&error))
}

fn push(arguments: &mut Vec<OsString>, table: &Table, known: &dyn Fn(&str) -> bool) {
    for (key, value) in table {
        let name = key.replace('_', "-");
        match value {
            Value::Table(table) => push(arguments, table, known),
            value if known(&name) => arguments.push(format!("--{name}={}", text_of(value)).into()),
            _ => {}
        }
    }
}

/// Returns the text of a value as the command line has it.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text_of).collect::<Vec<_>>().join(","),
        value => value.to_string(),
    }
}

/// Returns all options with their values, defaults too.
fn effective(command: &Command, matches: &ArgMatches) -> Table {
    let mut options = Table::new();
    for argument in command.get_arguments() {
        let Some(name) = argument.get_long().filter(|name| !NOT_OF_THE_RUN.contains(name)) else { continue };
        if let Ok(Some(values)) = matches.try_get_raw(argument.get_id().as_str()) {
            let text = values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(",");
            options.insert(name.to_string(), value_in_file(argument, text));
        }
    }
    options
}

/// Returns the value of an option for a file: numbers and truth values without quotes, and as they
/// are the texts that only look like them, such as a directory `007`.
fn value_in_file(argument: &Arg, text: String) -> Value {
    let declared = argument.get_value_parser().type_id();
    let is_integer = [TypeId::of::<u64>(), TypeId::of::<u32>(), TypeId::of::<usize>()].into_iter().any(|integer| declared == integer);
    let value = match text.as_str() {
        text if is_integer => text.parse().map(Value::Integer).ok(),
        text if declared == TypeId::of::<f64>() => text.parse().map(Value::Float).ok(),
        text if declared == TypeId::of::<bool>() => text.parse().map(Value::Boolean).ok(),
        _ => None,
    };
    value.unwrap_or(Value::String(text))
}
