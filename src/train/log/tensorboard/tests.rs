use super::*;

use crate::data::{Batch, DataLoader, Digits};
use crate::models::{cifar_resnet20, resnet18};
use crate::nn::inspect::graph::{self, GraphNode};
use crate::nn::{Conv2d, Flatten, Linear, ReLU, Sequential};
use crate::optim::Sgd;
use crate::tensor::Tensor;
use crate::train::{Checkpoints, Step, Trainer};

/// What TensorBoard reads in this file, `tests/fixtures/event_files.py` checks.
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/event_files/events.out.tfevents.1700000000.1.convnet");

fn file_in(dir: &Path) -> PathBuf {
    let files = TensorBoard::in_dir(dir).files().unwrap();
    files.last().expect("a file was written").clone()
}

/// Sums of the steps of all whole records, those without a step as 0.
fn steps_in(path: &Path) -> Vec<u64> {
    let bytes = fs::read(path).unwrap();
    super::super::record_file::records(FORMAT, &bytes).map(|(_, record)| record.step.unwrap_or(0)).collect()
}

#[test]
fn event_file_is_the_one_that_tensorboard_was_seen_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::in_dir(dir.path());
    board.clock = || 1.7e9;
    let net = Sequential::new().push(Conv2d::new(3, 4, 3)).push(ReLU).push(Flatten).push_named("fc", Linear::new(144, 10));
    board.graph(&net, [1, 3, 8, 8]).unwrap();
    for step in [1, 2, 300] {
        board.log(step, &[("train/loss", LogValue::Scalar(1.0 / step as f64)), ("valid/loss", LogValue::Scalar(f64::NAN))]).unwrap();
    }
    let image = Image::from_bytes([3, 1, 2], vec![255, 0, 0, 0, 0, 255]).unwrap();
    let ramp = Tensor::from_vec((0..60).map(f64::from).collect(), [60]).unwrap();
    let values = [("picture", LogValue::Image(&image)), ("ramp", LogValue::Histogram(&ramp)), ("note", LogValue::Text("*Grüße*"))];
    board.log(300, &values).unwrap();
    board.flush().unwrap();
    let written = fs::read(file_in(dir.path())).unwrap();
    if std::env::var_os("CONVNET_WRITE_FIXTURES").is_some() {
        fs::write(FIXTURE, &written).unwrap();
    }
    assert!(written == fs::read(FIXTURE).unwrap(), "CONVNET_WRITE_FIXTURES=1 writes the file anew; then run tests/fixtures/event_files.py");
}

#[test]
fn rewinding_discards_later_steps_and_incomplete_records_of_all_earlier_processes() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("events.out.tfevents.1.other"), "of another program").unwrap();
    let mut first = TensorBoard::in_dir(dir.path());
    (1..=5).for_each(|step| first.log(step, &[("loss", LogValue::Scalar(0.5))]).unwrap());
    let path = file_in(dir.path());
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();

    let mut second = TensorBoard::in_dir(dir.path());
    second.rewind(3).unwrap();
    second.log(4, &[("loss", LogValue::Scalar(0.25))]).unwrap();
    assert_eq!(steps_in(&path), [0, 1, 2, 3]);
    assert!(whole.starts_with(&fs::read(&path).unwrap()));
    let next = file_in(dir.path());
    assert!(next > path, "TensorBoard reads the files in the order of their names");
    assert_eq!(steps_in(&next), [0, 4, 4]);

    let mut third = TensorBoard::in_dir(dir.path());
    third.rewind(0).unwrap();
    assert_eq!(third.files().unwrap().len(), 1);
    assert_eq!(steps_in(&file_in(dir.path())), [0]);
    assert!(dir.path().join("events.out.tfevents.1.other").exists());
}

#[test]
fn graph_of_a_model_is_one_event_and_a_wrong_shape_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::in_dir(dir.path().join("run"));
    let model = cifar_resnet20(10);
    assert!(board.graph(&model, [1, 5, 32, 32]).is_err());
    assert!(!dir.path().join("run").exists());
    board.graph(&model, [1, 3, 32, 32]).unwrap();
    board.flush().unwrap();
    let bytes = fs::read(file_in(&dir.path().join("run"))).unwrap();
    let contains = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(contains("layer2/0/conv1") && contains("Conv2d 16→32") && contains("_output_shapes"));
    assert_eq!(steps_in(&file_in(&dir.path().join("run"))), [0, 0]);
}

#[test]
fn run_that_begins_anew_has_the_graph_and_no_earlier_step() {
    let dir = tempfile::tempdir().unwrap();
    TensorBoard::in_dir(dir.path()).log(9, &[("loss", LogValue::Scalar(0.5))]).unwrap();
    let model = Sequential::new().push(Flatten).push_named("fc", Linear::new(64, 10));
    let run = |steps, resume: bool, dir: &Path| {
        let mut board = TensorBoard::in_dir(dir);
        board.graph(&model, [1, 1, 8, 8]).unwrap();
        let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1)).steps(steps).log_every(1).progress(false);
        let trainer = trainer.log(board).checkpoints(Checkpoints::in_dir(dir.join("checkpoints"))).resume(resume);
        let step = |model: &Sequential, Batch { images, labels }: &Batch| Ok(Step::new(model.forward(images)?.cross_entropy(labels)?));
        trainer.fit(&DataLoader::new(Digits::train(), 64), None, step).unwrap();
        let files = TensorBoard::in_dir(dir).files().unwrap();
        files.iter().flat_map(|path| fs::read(path).unwrap()).collect::<Vec<u8>>()
    };
    let count = |bytes: &[u8], text: &str| bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count();
    let bytes = run(2, false, dir.path());
    assert_eq!(count(&bytes, "Linear 64"), 1);
    assert_eq!(steps_in(&file_in(dir.path())), [0, 0, 1, 2, 2], "version, graph, the steps, the end of the run");
    // A run that goes on keeps the graph of the process before.
    assert_eq!(count(&run(3, true, dir.path()), "Linear 64"), 1);
    assert_eq!(count(&run(4, true, dir.path()), "Linear 64"), 1);
    // One that is asked to go on, and finds nothing to go on from, has it too.
    let another = tempfile::tempdir().unwrap();
    assert_eq!(count(&run(2, true, another.path()), "Linear 64"), 1);
    // The log of a run without a graph gets one when the run goes on.
    for path in TensorBoard::in_dir(another.path()).files().unwrap() {
        fs::remove_file(path).unwrap();
    }
    assert_eq!(count(&run(3, true, another.path()), "Linear 64"), 1);
}

#[test]
fn values_without_anything_to_show_write_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = TensorBoard::in_dir(dir.path());
    let nothing = Tensor::full([3], f64::NAN, crate::DType::F32);
    board.log(1, &[("h", LogValue::Histogram(&nothing))]).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn folder_that_cannot_be_written_is_an_error_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = TensorBoard::in_dir(dir.path().join("file/run")).rewind(0).unwrap_err().to_string();
    assert!(error.contains("the log cannot be written") && error.contains("choose another name"), "{error}");
}

fn inputs_of<'a>(nodes: &'a [GraphNode], name: &str) -> Vec<&'a str> {
    let node = nodes.iter().find(|node| node.name == name).unwrap_or_else(|| panic!("no {name}"));
    node.inputs.iter().map(String::as_str).collect()
}

#[test]
fn residual_network_has_an_edge_for_each_branch() {
    let nodes = graph::of(&resnet18(10), &[1, 3, 64, 64]).unwrap();
    assert_eq!((nodes[0].name.as_str(), nodes[0].shape.as_deref()), ("input", Some(&[1, 3, 64, 64][..])));
    assert_eq!(inputs_of(&nodes, "conv1"), ["input"]);
    assert_eq!(inputs_of(&nodes, "bn1"), ["conv1"]);
    let joined: Vec<&GraphNode> = nodes.iter().filter(|node| node.inputs.len() == 2).collect();
    assert_eq!(joined.len(), 8, "one sum for each of the eight blocks");
    // Layers run one by one here: the shortcut is an operation of the block.
    assert_eq!(joined[2].name, "layer2/0/add");
    assert_eq!(joined[2].inputs, ["layer2/0/bn2", "layer2/0/downsample/1"]);
    let fc = nodes.last().unwrap();
    assert_eq!((fc.name.as_str(), fc.op.as_str(), fc.shape.as_deref()), ("fc", "Linear", Some(&[1, 10][..])));
    assert!(fc.description.starts_with("Linear 512"));
}

#[test]
fn shape_that_does_not_fit_is_the_error_of_the_layer() {
    let error = graph::of(&resnet18(10), &[1, 1, 64, 64]).err().expect("one channel instead of three").to_string();
    assert!(error.contains("conv1"), "{error}");
}
