//! Mutations of files, and what is asserted of the functions that read them.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use convnet::data::Rng;
use convnet::memory;

/// How long reading a file, or one operation, may take.
pub const LONGEST: Duration = Duration::from_secs(2);

/// What a file of any length may take in memory.
const BASE: usize = 1 << 20;

/// Held by a test while it limits the memory of tensors, which is a setting of the process.
static LIMITED: Mutex<()> = Mutex::new(());

/// Runs `body` while tensors may take this much more than they do.
pub fn with_limit<R>(bytes: usize, body: impl FnOnce() -> R) -> R {
    let _held = LIMITED.lock().unwrap_or_else(PoisonError::into_inner);
    memory::set_limit(Some(memory::stats().in_use + bytes));
    let result = catch_unwind(AssertUnwindSafe(body));
    memory::set_limit(None);
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

thread_local! {
    /// The bytes that this thread holds, and the most that it held.
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

struct Counting;

// SAFETY: requests go to the system's allocator as they are; counting them asks for no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.with(|held| held.set((held.get().0.saturating_sub(layout.size()), held.get().1)));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

fn take(size: usize) {
    HELD.with(|held| {
        let now = held.get().0.saturating_add(size);
        held.set((now, held.get().1.max(now)));
    });
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Runs `body` and returns its result or its panic, the time that it took, and the most bytes that
/// this thread held besides what it held before.
pub fn measured<R>(body: impl FnOnce() -> R) -> (std::thread::Result<R>, Duration, usize) {
    let before = HELD.with(|held| held.replace((0, 0)).0);
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(body));
    let (time, (_, most)) = (start.elapsed(), HELD.with(|held| held.replace((before, 0))));
    (result, time, most)
}

/// How many mutated files to try.
pub fn inputs() -> usize {
    std::env::var("CONVNET_FUZZ").map_or(300, |inputs| inputs.parse().expect("CONVNET_FUZZ is a number"))
}

/// Reads mutations of the seeds, as [`run_made`] does; `repair` is applied to half of the
/// mutations, to get beyond checksums.
pub fn run(name: &str, seeds: &[Vec<u8>], per_byte: usize, repair: impl Fn(&mut [u8]), read: impl Fn(&[u8]) -> bool) {
    let make = |random: &mut Rng| {
        let mut file = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            mutate(&mut file, seeds, random);
        }
        if random.below(2) == 0 {
            repair(&mut file);
        }
        file
    };
    run_made(name, per_byte, make, read);
}

/// Reads files that `make` makes and asserts that none panics, takes longer than [`LONGEST`] or
/// holds more than `per_byte` bytes of memory for each byte of the file. `read` says whether it
/// could be read.
pub fn run_made(name: &str, per_byte: usize, make: impl Fn(&mut Rng) -> Vec<u8>, read: impl Fn(&[u8]) -> bool) {
    let (mut readable, mut slowest, mut largest) = (0, Duration::ZERO, (0, 0.0f64));
    let inputs = inputs();
    for number in 0..inputs {
        let file = make(&mut Rng::for_sample(12, 0, number as u64));
        let (result, time, most) = measured(|| read(&file));
        let Ok(ok) = result else { panic!("{name}: input {number} panics: {}", file.escape_ascii()) };
        assert!(time < LONGEST, "{name}: input {number} takes {time:?}: {}", file.escape_ascii());
        assert!(
            most <= BASE + per_byte * file.len(),
            "{name}: input {number} of {} bytes holds {most}: {}",
            file.len(),
            file.escape_ascii()
        );
        readable += usize::from(ok);
        slowest = slowest.max(time);
        largest = (largest.0.max(most), largest.1.max(most as f64 / file.len().max(1) as f64));
    }
    let (most, times) = largest;
    println!("{name}: {inputs} inputs, {readable} readable, slowest {slowest:?}, at most {most} bytes held, {times:.0} times the input");
    assert!(readable > 0 && readable < inputs, "{name}: {readable} of {inputs} inputs are readable");
}

/// Changes one place of a file: a bit, a byte, a few bytes removed, repeated or taken from a seed.
pub fn mutate(file: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Rng) {
    if file.is_empty() {
        return file.push(random.bits() as u8);
    }
    let at = random.below(file.len());
    let length = 1 + random.below(8.min(file.len() - at));
    match random.below(8) {
        0 => file[at] ^= 1 << random.below(8),
        1 => file[at] = random.bits() as u8,
        2 => file[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
        // Numbers of several bytes.
        3 => file[at..at + length].fill([0, 0xFF][random.below(2)]),
        4 => drop(file.drain(at..at + length)),
        5 => {
            let again = file[at..at + length].to_vec();
            drop(file.splice(at..at, again));
        }
        6 => {
            let other = &seeds[random.below(seeds.len())];
            let from = random.below(other.len());
            let end = other.len().min(from + 1 + random.below(64));
            drop(file.splice(at..at, other[from..end].iter().copied()));
        }
        _ if random.below(4) == 0 => file.truncate(at),
        _ => file[at] = file[at].wrapping_add([1, 0xFF][random.below(2)]),
    }
}
