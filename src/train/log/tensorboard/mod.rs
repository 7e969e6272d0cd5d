//! TensorBoard's event files: records of Protocol Buffers' messages, written by hand after
//! TensorFlow's `event.proto`, `summary.proto` and `graph.proto`.

mod histogram;
mod protobuf;
mod records;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use histogram::histogram_of;
use protobuf::Message;
use records::{FORMAT, GRAPH, STEP, framed, is_graph};

use super::record_file::{RecordFile, records, unwritten};
use super::{LogValue, Logger, seconds_since_1970};
use crate::data::Image;
use crate::error::{Error, Result};
use crate::nn::Module;
use crate::nn::inspect::graph::{self, GraphNode};

/// The start and the end of the names of event files. The end is this crate's: files of other
/// programs in the same folder are never touched.
const PREFIX: &str = "events.out.tfevents.";
const SUFFIX: &str = ".convnet";

/// A log that TensorBoard shows: scalars, images, histograms and texts by step, and the graph of a
/// model.
///
/// Each process writes its own event file into the folder. A name's part before the first `/`
/// groups it: `train/loss` and `train/accuracy` are shown together. Scalars have the precision of
/// `f32`, a limit of the format. Histograms count finite elements only. Run
/// `tensorboard --logdir runs` and open the address that it prints; folders below `runs` are
/// compared as runs.
///
/// ```
/// use convnet::data::Image;
/// use convnet::models::lenet5;
/// use convnet::nn::Module;
/// use convnet::train::{LogValue, Logger, TensorBoard};
///
/// # let dir = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&dir).unwrap();
/// let model = lenet5(10);
/// let mut board = TensorBoard::in_dir("runs/lenet");
/// board.graph(&model, [1, 1, 28, 28])?;
/// for step in 1..=3 {
///     board.log(step, &[("train/loss", LogValue::Scalar(1.0 / step as f64))])?;
/// }
/// let weight = model.named_parameters()[0].1.tensor();
/// let picture = Image::new(1, 28, 28)?;
/// board.log(3, &[("weights/conv1", LogValue::Histogram(&weight)), ("input", LogValue::Image(&picture))])?;
/// board.flush()?;
/// # Ok::<(), convnet::Error>(())
/// ```
pub struct TensorBoard {
    dir: PathBuf,
    file: Option<RecordFile>,
    /// The message of the graph, which a log that begins anew has too.
    graph: Option<Vec<u8>>,
    /// Whether the graph has yet to be written.
    graph_due: bool,
    /// The time in seconds since 1970.
    clock: fn() -> f64,
}

impl TensorBoard {
    /// Logs into this folder, which is created with the first values.
    pub fn in_dir(dir: impl Into<PathBuf>) -> TensorBoard {
        TensorBoard { dir: dir.into(), file: None, graph: None, graph_due: false, clock: seconds_since_1970 }
    }

    /// Adds the graph of a model for inputs of this shape: its layers by path, the operations
    /// between them, and the shapes on the edges. Nothing is computed. It is written with the first
    /// values, or by [`flush`](Logger::flush). A [`Trainer`](crate::train::Trainer) that goes on
    /// with a log that has a graph writes no second one; in a loop by hand each process writes it.
    ///
    /// # Errors
    /// The model's error when it does not accept the shape.
    pub fn graph<M: Module + ?Sized>(&mut self, model: &M, input_shape: impl AsRef<[usize]>) -> Result<()> {
        let mut definition = Message::new();
        for node in graph::of(model.as_module(), input_shape.as_ref())? {
            definition = definition.message(1, node_definition(&node));
        }
        // Without the version of its producer, TensorBoard takes a graph for one of 2015.
        let definition = definition.message(4, Message::new().integer(1, 22));
        (self.graph, self.graph_due) = (Some(definition.into_bytes()), true);
        Ok(())
    }

    fn event(&self, step: u64) -> Message {
        let event = Message::new().double(1, (self.clock)());
        if step == 0 { event } else { event.integer(STEP, step.min(i64::MAX as u64)) }
    }

    fn write(&mut self, event: Message) -> Result<()> {
        self.write_due_graph()?;
        self.append(event)
    }

    fn write_due_graph(&mut self) -> Result<()> {
        match self.graph.as_ref().filter(|_| self.graph_due) {
            Some(graph) => self.append(self.event(0).bytes(GRAPH, graph))?,
            None => return Ok(()),
        }
        self.graph_due = false;
        Ok(())
    }

    fn append(&mut self, event: Message) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let started = self.start()?;
                self.file.insert(started)
            }
        };
        file.append(&framed(&event.into_bytes()))
    }

    /// Starts an event file, whose name is after those that are there.
    fn start(&self) -> Result<RecordFile> {
        fs::create_dir_all(&self.dir).map_err(|error| unwritten(&self.dir, error))?;
        let starts = self.files()?.into_iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_prefix(PREFIX)?.to_string();
            name.split('.').next()?.parse::<u64>().ok()
        });
        let seconds = starts.map(|start| start.saturating_add(1)).max().unwrap_or(0).max((self.clock)() as u64);
        let name = format!("{PREFIX}{seconds:010}.{}{SUFFIX}", std::process::id());
        let mut file = RecordFile::new(self.dir.join(name), FORMAT);
        file.append(&framed(&self.event(0).bytes(3, "brain.Event:2").into_bytes()))?;
        Ok(file)
    }

    /// Returns the event files that this crate wrote into the folder.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unwritten(&self.dir, error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(Error::io(&self.dir))?.path();
            let is_ours = |path: &Path| path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX).map(drop);
            paths.extend(is_ours(&path).map(|()| path));
        }
        paths.sort();
        Ok(paths)
    }
}

impl Logger for TensorBoard {
    fn log(&mut self, step: u64, values: &[(&str, LogValue<'_>)]) -> Result<()> {
        let mut summary = Message::new();
        let mut is_empty = true;
        for (name, value) in values {
            if let Some(value) = summary_value(name, value)? {
                summary = summary.message(1, value);
                is_empty = false;
            }
        }
        if is_empty { Ok(()) } else { self.write(self.event(step).message(5, summary)) }
    }

    fn flush(&mut self) -> Result<()> {
        self.write_due_graph()?;
        self.file.as_mut().map_or(Ok(()), RecordFile::flush)
    }

    fn rewind(&mut self, step: u64) -> Result<()> {
        self.file = None;
        let mut has_graph = false;
        for path in self.files()? {
            if step == 0 {
                fs::remove_file(&path).map_err(|error| unwritten(&path, error))?;
            } else {
                let left = RecordFile::new(path, FORMAT).rewind(step)?;
                has_graph |= records(FORMAT, &left).any(|(at, _)| is_graph(&left[at..]));
            }
        }
        self.graph_due = !has_graph;
        let mut file = self.start()?;
        if step > 0 {
            // Makes a TensorBoard that is running discard later steps as well.
            let start = self.event(step.saturating_add(1)).message(7, Message::new().integer(1, 1));
            file.append(&framed(&start.into_bytes()))?;
        }
        self.file = Some(file);
        self.write_due_graph()
    }
}

/// Returns the message `Summary.Value`; `None` when there is nothing to show.
fn summary_value(name: &str, value: &LogValue<'_>) -> Result<Option<Message>> {
    let message = Message::new().bytes(1, name);
    Ok(Some(match value {
        LogValue::Scalar(value) => message.float(2, *value as f32),
        LogValue::Image(image) => message.message(4, image_message(image)?),
        LogValue::Histogram(tensor) => match histogram_of(tensor) {
            Some(histogram) => message.message(5, histogram),
            None => return Ok(None),
        },
        LogValue::Text(text) => {
            const STRING: u64 = 7;
            const TENSOR: u64 = 2;
            let shape = Message::new().message(2, Message::new().integer(1, 1));
            let tensor = Message::new().integer(1, STRING).message(2, shape).bytes(8, text);
            let plugin = Message::new().bytes(1, "text");
            message.message(8, tensor).message(9, Message::new().message(1, plugin).integer(4, TENSOR))
        }
    }))
}

fn image_message(image: &Image) -> Result<Message> {
    let png = image.encode_png()?;
    // The number of the colour space is that of channels.
    let [channels, height, width] = image.shape().map(|size| size as u64);
    Ok(Message::new().integer(1, height).integer(2, width).integer(3, channels).bytes(4, png))
}

/// Returns the message `NodeDef`.
fn node_definition(node: &GraphNode) -> Message {
    let mut message = Message::new().bytes(1, &node.name).bytes(2, &node.op);
    for input in &node.inputs {
        message = message.bytes(3, input);
    }
    if let Some(shape) = &node.shape {
        let size = |shape: Message, &size: &usize| shape.message(2, Message::new().integer(1, size as u64));
        let list = Message::new().message(7, shape.iter().fold(Message::new(), size));
        message = message.message(5, attribute("_output_shapes", Message::new().message(1, list)));
    }
    if !node.description.is_empty() {
        message = message.message(5, attribute("description", Message::new().bytes(2, &node.description)));
    }
    message
}

/// Returns an entry of the attributes' map.
fn attribute(name: &str, value: Message) -> Message {
    Message::new().bytes(1, name).message(2, value)
}
