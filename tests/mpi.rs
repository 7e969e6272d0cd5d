//! Training by processes that `mpirun` starts. Each test starts this program again, as ranks that
//! run `rank`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use convnet::data::{Batch, Digits, Rng};
use convnet::prelude::*;
use convnet::train::{Callback, Checkpoint, Checkpoints, Distributed, Group, RunState, Step, Trainer};

/// The variable that says what a rank does in which directory: `TASK STEP DIR`.
const TASK: &str = "CONVNET_TEST_OF_MPI";

const STEPS: u64 = 24;

/// Starts ranks and waits for their end.
fn mpirun(ranks: usize, task: &str, step: u64, dir: &Path) -> Output {
    start(ranks, task, step, dir).output().expect("mpirun starts: Open MPI or MPICH is installed")
}

/// Returns the command that starts ranks.
fn start(ranks: usize, task: &str, step: u64, dir: &Path) -> Command {
    let mut command = Command::new("mpirun");
    command.arg("-n").arg(ranks.to_string()).arg(env::current_exe().unwrap()).args(["a_rank_does_its_task", "--exact", "--nocapture"]);
    // More ranks than cores, as root in a container.
    let settings = [("OMPI_MCA_rmaps_base_oversubscribe", "1"), ("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")];
    command.envs(settings).env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe").env("RAYON_NUM_THREADS", "1");
    command.env(TASK, format!("{task} {step} {}", dir.display())).stdin(Stdio::null());
    command
}

/// Returns what ranks and `mpirun` print.
fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Returns the checksums of parameters that the ranks print, which are equal.
fn bits(output: &Output) -> String {
    let text = text(output);
    assert!(output.status.success(), "{text}");
    let mut bits: Vec<&str> = text.lines().filter_map(|line| line.trim().split_once("bits ").map(|(_, bits)| bits)).collect();
    bits.dedup();
    assert_eq!(bits.len(), 1, "{text}");
    bits[0].to_string()
}

/// What a test's ranks do; nothing when it is run as a test.
#[test]
fn a_rank_does_its_task() {
    let Ok(task) = env::var(TASK) else { return };
    let mut words = task.splitn(3, ' ');
    let (task, step, dir) = (words.next().unwrap(), words.next().unwrap().parse().unwrap(), words.next().unwrap());
    let group = Group::mpi_within(Duration::from_secs(if task.starts_with("hang") { 1 } else { 60 })).unwrap();
    std::fs::write(pid_file(Path::new(dir), group.rank()), format!("{}\n", std::process::id())).unwrap();
    convnet::manual_seed(0);
    let conv = Sequential::new().push(Conv2d::new(1, 8, 3)).push(BatchNorm2d::new(8)).push(ReLU);
    let model = conv.push(Flatten).push(Dropout::new(0.1)).push(Linear::new(8 * 36, 10));
    let mut distributed = Distributed::new(&group).bucket_bytes(1000);
    if task.ends_with("unordered") {
        distributed = distributed.in_any_order();
    }
    let trainer = Trainer::new(&model, Sgd::new(model.parameters(), 0.1).momentum(0.9))
        .distributed(distributed)
        .checkpoints(Checkpoints::in_dir(dir).every_steps(1))
        .steps(STEPS)
        .resume(true)
        .progress(false)
        .callback(Disturbance { task, step, rank: group.rank() });
    let train = DataLoader::new(Digits::train(), 64).shuffle(0);
    let report = trainer.fit(&train, None, |model, Batch { images, labels }| Ok(Step::new(model.forward(images)?.cross_entropy(labels)?)));
    if let Err(error) = report {
        println!("{error}");
        std::process::exit(1);
    }
    let sum = model.parameters().into_iter().flat_map(|parameter| parameter.tensor().to_vec::<f32>().unwrap());
    let sum = sum.fold(0u64, |sum, value| sum.wrapping_mul(1_099_511_628_211) ^ u64::from(value.to_bits()));
    println!("bits {sum:016x}");
}

/// What happens to the last rank at a step.
struct Disturbance<'a> {
    task: &'a str,
    step: u64,
    rank: usize,
}

impl Callback for Disturbance<'_> {
    fn before_step(&mut self, state: &mut RunState<'_>, _: &mut convnet::autograd::Gradients) -> convnet::Result<()> {
        if self.rank != 1 || state.step != self.step {
            return Ok(());
        }
        match self.task {
            "fail" => return Err(convnet::Error::msg("its disk is on fire")),
            "hang" | "hang-unordered" => std::thread::sleep(Duration::from_secs(600)),
            _ => {}
        }
        Ok(())
    }
}

#[test]
fn one_two_and_four_processes_give_the_same_bits() {
    let found = [1, 2, 4].map(|ranks| bits(&mpirun(ranks, "train", 0, tempfile::tempdir().unwrap().path())));
    assert!(found[0] == found[1] && found[0] == found[2], "{found:?}");
    // Any order: the processes agree with each other, in a number that does not divide the shards.
    bits(&mpirun(3, "unordered", 0, tempfile::tempdir().unwrap().path()));
}

/// The file in which a rank writes the number of its process.
fn pid_file(dir: &Path, rank: usize) -> PathBuf {
    dir.join(format!("pid-{rank}"))
}

/// Waits until all ranks have begun and returns the numbers of their processes.
fn pids(dir: &Path, ranks: usize) -> Vec<u32> {
    let start = Instant::now();
    let pid = |rank| loop {
        // A line: the file may be there before the number is.
        let written = std::fs::read_to_string(pid_file(dir, rank)).unwrap_or_default();
        if let Some(pid) = written.strip_suffix('\n') {
            break pid.parse().unwrap();
        }
        assert!(start.elapsed() < Duration::from_secs(120), "rank {rank} does not begin");
        std::thread::sleep(Duration::from_millis(1));
    };
    (0..ranks).map(pid).collect()
}

#[test]
fn process_killed_at_any_instant_is_named_and_the_run_goes_on_to_the_same_bits() {
    const KILLS: usize = 10;
    let seed = UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = Rng::new(seed);
    // How long the ranks run: the instants are spread over it.
    let undisturbed = [2, 4].map(|ranks| {
        let dir = tempfile::tempdir().unwrap();
        let run = start(ranks, "train", 0, dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        pids(dir.path(), ranks);
        let begun = Instant::now();
        let bits = bits(&run.wait_with_output().unwrap());
        (ranks, begun.elapsed().as_secs_f64(), bits)
    });
    let expected = &undisturbed[0].2;
    assert_eq!(&undisturbed[1].2, expected);
    let mut killed = 0;
    for attempt in 0.. {
        assert!(attempt < 10 * KILLS, "seed {seed}: {killed} of {attempt} kills came before the end");
        let dir = tempfile::tempdir().unwrap();
        let &(ranks, longest, _) = &undisturbed[random.below(2)];
        let mut run = start(ranks, "train", 0, dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pids = pids(dir.path(), ranks);
        let (rank, wait) = (random.below(ranks), random.uniform(0.0, longest));
        std::thread::sleep(Duration::from_secs_f64(wait));
        let signalled = run.try_wait().unwrap().is_none()
            && Command::new("kill").args(["-9", &pids[rank].to_string()]).stderr(Stdio::null()).status().unwrap().success();
        let ended = run.wait_with_output().unwrap();
        let place = format!("seed {seed}, rank {rank} of {ranks} after {:.0} ms", 1000.0 * wait);
        if ended.status.success() {
            // The kill came after the end of the training.
            assert_eq!(&bits(&ended), expected, "{place}");
            continue;
        }
        assert!(signalled, "{place}: {}", text(&ended));
        // `mpirun` ends the others at once, before they miss a message, so what names the rank is
        // its own notice; that of MPICH has the number of the process alone.
        let named = [format!("process rank {rank} with PID"), format!("PID {}", pids[rank])];
        assert!(named.iter().any(|name| text(&ended).contains(name)), "{place}: {}", text(&ended));
        let checkpoints = Checkpoints::in_dir(dir.path());
        for step in checkpoints.steps().unwrap() {
            let whole = Checkpoint::load(checkpoints.path(step)).unwrap();
            assert_eq!(whole.count("step").unwrap(), step, "{place}");
        }
        let last = checkpoints.steps().unwrap().into_iter().max();
        println!("{place}: the last checkpoint is {last:?}");
        assert_eq!(&bits(&mpirun([1, 2, 4][random.below(3)], "train", 0, dir.path())), expected, "{place}");
        killed += 1;
        if killed == KILLS {
            break;
        }
    }
}

#[test]
fn process_that_fails_or_hangs_is_named() {
    let cases = [
        ("fail", 2, "rank 1: its disk is on fire"),
        ("hang", 2, "rank 1 has sent nothing for 1s"),
        ("hang-unordered", 2, "rank 1 has sent nothing for 1s"),
        // Some ranks wait for one that waits itself.
        ("hang", 4, "rank 1 has sent nothing for 1s"),
        ("hang-unordered", 3, "rank 1 has sent nothing for 1s"),
        ("hang-unordered", 4, "rank 1 has sent nothing for 1s"),
    ];
    for (task, ranks, expected) in cases {
        let ended = mpirun(ranks, task, 4, tempfile::tempdir().unwrap().path());
        let text = text(&ended);
        assert!(!ended.status.success() && text.contains(expected), "{task}, {ranks} ranks: {text}");
        let named_wrongly = ["rank 0 has sent", "rank 2 has sent", "rank 3 has sent", "the ranks"];
        assert!(!named_wrongly.iter().any(|wrong| text.contains(wrong)), "{task}, {ranks} ranks: {text}");
    }
}
