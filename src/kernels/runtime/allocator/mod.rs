//! Aligned memory that is reused.
//!
//! A fresh page from the system costs a fault for each 4 KiB, which on large feature maps takes
//! longer than the arithmetic. A freed block is therefore kept in a pool. Small blocks serve the
//! next request of about their size; large ones are sub-allocated from shared regions
//! ([`free_list`]). The pool is bounded ([`MemoryStats::bound`]): memory in use and idle memory
//! together exceed the highest use so far by at most a quarter plus 32 MiB; beyond that, pages are
//! returned to the system before new ones are requested.
//!
//! The bytes of a block are always initialised (zeros when fresh, stale values when recycled), so
//! exposing it as a slice is sound.

mod free_list;
mod limit;
mod system;

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use free_list::FreeList;
use limit::refuse;
pub use limit::{OutOfMemory, limit, set_limit};
pub(crate) use limit::{catching, check, list};

use super::simd::Scalar;

/// The alignment of every block in bytes: a cache line, and one AVX-512 register.
pub const ALIGNMENT: usize = 64;

/// Blocks of at least this many bytes are sub-allocated from regions.
const LARGE: usize = 64 << 10;

/// Blocks of up to this many bytes are not refused at the limit: losses, labels and tensors of a
/// few numbers, whose total is negligible.
const SMALL: usize = 4 << 10;

/// The bytes, besides a quarter of the highest use, that the pool may hold beyond that use:
/// enough for a small network's blocks of all sizes.
const FLOOR: usize = 32 << 20;

/// Statistics of the allocator; see [`stats`]. The counts of requests begin with the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// The bytes of live tensors.
    pub in_use: usize,
    /// The bytes that are kept for reuse.
    pub idle: usize,
    /// The highest value of `in_use` since the process started, or since the last [`trim`].
    pub peak: usize,
    /// The number of requests that went to the system.
    pub system_allocations: u64,
    /// The number of requests that a recycled block served.
    pub reuses: u64,
}

impl MemoryStats {
    /// Returns the largest total of `in_use` and `idle`: a quarter more than the peak, plus 32 MiB.
    pub fn bound(&self) -> usize {
        self.peak + self.peak / 4 + FLOOR
    }
}

/// An aligned run of initialised bytes, recycled when dropped.
pub struct Block {
    pointer: NonNull<u8>,
    length: usize,
    capacity: usize,
}

// SAFETY: a block owns its memory exclusively, as a `Vec<u8>` does.
unsafe impl Send for Block {}
// SAFETY: shared access only reads.
unsafe impl Sync for Block {}

impl Block {
    /// Returns a block of `length` bytes whose content is unspecified (but initialised).
    ///
    /// # Errors
    /// Returns [`OutOfMemory`] if the memory in use would exceed the [`limit`], or the system has
    /// no more.
    pub fn uninit(length: usize) -> Result<Block, OutOfMemory> {
        // A longer block has no size class.
        if length > isize::MAX as usize / 2 {
            return Err(OutOfMemory { bytes: length, in_use: lock().stats.in_use, limit: Some(limit()) });
        }
        let capacity = size_class(length);
        if capacity == 0 {
            return Ok(Block { pointer: NonNull::<Aligned>::dangling().cast(), length: 0, capacity: 0 });
        }
        let limit = limit();
        let mut pool = lock();
        let in_use = pool.stats.in_use;
        if capacity > limit.saturating_sub(in_use) && capacity > SMALL {
            return Err(OutOfMemory { bytes: length, in_use, limit: Some(limit) });
        }
        let found = pool.take(capacity).or_else(|| Some((pool.request(capacity, limit)?, capacity)));
        let (pointer, capacity) = found.ok_or(OutOfMemory { bytes: length, in_use, limit: None })?;
        REQUESTED.set(REQUESTED.get().wrapping_add(length as u64));
        pool.stats.in_use += capacity;
        pool.stats.peak = pool.stats.peak.max(pool.stats.in_use);
        Ok(Block { pointer, length, capacity })
    }

    /// Returns the bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `pointer` owns `capacity >= length` initialised bytes, or `length` is 0.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.length) }
    }

    /// Returns the bytes, for writing.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.length) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.capacity > 0 {
            lock().give_back(self.pointer, self.capacity);
        }
    }
}

/// Scratch memory for a kernel: a recycled block as a slice of elements.
pub struct AlignedVec<T> {
    block: Block,
    element: PhantomData<T>,
}

/// An allocation failure unwinds out of the kernel to [`catching`], which returns the error.
impl<T: Scalar> AlignedVec<T> {
    /// Returns `length` elements whose values are unspecified.
    pub fn uninit(length: usize) -> AlignedVec<T> {
        AlignedVec::try_uninit(length).unwrap_or_else(|failure| refuse(failure))
    }

    /// Returns `length` elements whose values are unspecified, for callers that can return an
    /// error.
    ///
    /// # Errors
    /// Returns [`OutOfMemory`] if the memory is not available.
    pub fn try_uninit(length: usize) -> Result<AlignedVec<T>, OutOfMemory> {
        Ok(AlignedVec { block: Block::uninit(length.saturating_mul(size_of::<T>()))?, element: PhantomData })
    }

    /// Returns a copy of the elements.
    pub fn copy_of(elements: &[T]) -> AlignedVec<T> {
        let mut buffer = AlignedVec::uninit(elements.len());
        buffer.copy_from_slice(elements);
        buffer
    }

    /// Returns `length` zeros.
    pub fn zeroed(length: usize) -> AlignedVec<T> {
        let mut buffer = AlignedVec::uninit(length);
        buffer.block.as_mut_slice().fill(0);
        buffer
    }
}

impl<T: Scalar> Deref for AlignedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(self.block.as_slice())
    }
}

impl<T: Scalar> DerefMut for AlignedVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.block.as_mut_slice())
    }
}

/// Elements, either borrowed as they are or rearranged in scratch memory.
pub(crate) enum Elements<'x, T> {
    Borrowed(&'x [T]),
    Owned(AlignedVec<T>),
}

impl<T: Scalar> Deref for Elements<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Elements::Borrowed(elements) => elements,
            Elements::Owned(elements) => elements,
        }
    }
}

/// A type whose dangling pointer is aligned like a block.
#[repr(align(64))]
struct Aligned;

struct Idle {
    pointer: NonNull<u8>,
    since: u64,
}

// SAFETY: an idle block is owned by the pool alone.
unsafe impl Send for Idle {}

struct Pool {
    /// Idle small blocks by capacity; the last of each queue was freed last and is the most likely
    /// to be in the cache.
    small: BTreeMap<usize, VecDeque<Idle>>,
    /// The number of bytes in idle small blocks.
    small_idle: usize,
    large: FreeList,
    stats: MemoryStats,
    clock: u64,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    small: BTreeMap::new(),
    small_idle: 0,
    large: FreeList::new(),
    stats: MemoryStats { in_use: 0, idle: 0, peak: 0, system_allocations: 0, reuses: 0 },
    clock: 0,
});

thread_local! {
    static REQUESTED: Cell<u64> = const { Cell::new(0) };
}

/// Returns the number of bytes this thread has requested since it started, whether returned since
/// or not.
pub fn requested() -> u64 {
    REQUESTED.get()
}

fn lock() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Takes an idle block from the pool; returns it with its capacity.
    fn take(&mut self, capacity: usize) -> Option<(NonNull<u8>, usize)> {
        let found = if capacity >= LARGE {
            (self.large.take_committed(capacity)?, capacity)
        } else {
            // A block of less than twice as many bytes.
            let most = (2 * capacity).min(LARGE);
            let (&found, row) = self.small.range_mut(capacity..most).find(|(_, row)| !row.is_empty())?;
            self.small_idle -= found;
            (row.pop_back()?.pointer, found)
        };
        self.stats.reuses += 1;
        Some(found)
    }

    /// Requests new memory from the system, after making room for it within the limit; `None` if
    /// the system has no more.
    fn request(&mut self, capacity: usize, limit: usize) -> Option<NonNull<u8>> {
        let needed = self.stats.in_use + capacity;
        let bound = MemoryStats { peak: self.stats.peak.max(needed), ..self.stats }.bound();
        self.shrink(bound.min(limit).saturating_sub(needed));
        self.stats.system_allocations += 1;
        if capacity >= LARGE {
            return self.large.take_uncommitted(capacity);
        }
        // SAFETY: the layout's size is not zero: `uninit` handles that case itself.
        NonNull::new(unsafe { alloc_zeroed(layout_of(capacity)) })
    }

    fn give_back(&mut self, pointer: NonNull<u8>, capacity: usize) {
        self.stats.in_use -= capacity;
        if capacity >= LARGE {
            return self.large.give_back(pointer, capacity);
        }
        self.clock += 1;
        self.small_idle += capacity;
        self.small.entry(capacity).or_default().push_back(Idle { pointer, since: self.clock });
    }

    fn idle(&self) -> usize {
        self.small_idle + self.large.idle()
    }

    /// Returns memory to the system until at most `keep` bytes are idle: large blocks first, then
    /// the small ones that have been idle longest. The time is in proportion to the number of
    /// blocks that are returned.
    fn shrink(&mut self, keep: usize) {
        if self.idle() <= keep {
            return;
        }
        self.large.shrink(keep.saturating_sub(self.small_idle));
        while self.idle() > keep {
            let fronts = self.small.iter_mut().filter_map(|(&capacity, row)| Some((row.front()?.since, capacity, row)));
            let Some((_, capacity, row)) = fronts.min_by_key(|&(since, ..)| since) else { break };
            let Some(block) = row.pop_front() else { break };
            self.small_idle -= capacity;
            // SAFETY: the pool owns the block, which was allocated with this layout.
            unsafe { dealloc(block.pointer.as_ptr(), layout_of(capacity)) };
        }
        self.small.retain(|_, row| !row.is_empty());
    }
}

fn layout_of(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, ALIGNMENT).expect("a block is smaller than the address space")
}

/// Rounds a size up so that nearly equal requests share blocks: to 64 bytes; from 1 KiB on to an
/// eighth of its power of two; large sizes to pages.
fn size_class(length: usize) -> usize {
    if length >= LARGE {
        return FreeList::capacity(length);
    }
    if length <= 1024 {
        return length.next_multiple_of(ALIGNMENT);
    }
    let step = (length / 8 + 1).next_power_of_two() / 2;
    length.next_multiple_of(step.max(ALIGNMENT))
}

/// Returns what the allocator holds, and counts of its requests.
///
/// ```
/// let before = convnet::memory::stats();
/// let x = convnet::Tensor::zeros([1024]);
/// assert!(convnet::memory::stats().peak >= before.in_use + 4096);
/// # drop(x);
/// ```
pub fn stats() -> MemoryStats {
    let pool = lock();
    MemoryStats { idle: pool.idle(), ..pool.stats }
}

/// Resets the peak to the memory in use, and returns idle memory to the system until at most `keep`
/// bytes are idle, and no more than [`MemoryStats::bound`] allows with the new peak.
///
/// Memory in use and idle memory together never exceed [`MemoryStats::bound`]; `trim(0)` after a
/// large job releases all idle memory, except for less than a page beside each block in use.
pub fn trim(keep: usize) {
    let mut pool = lock();
    pool.stats.peak = pool.stats.in_use;
    let room = pool.stats.bound() - pool.stats.in_use;
    pool.shrink(keep.min(room));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_class_wastes_at_most_an_eighth() {
        for length in (1..100_000).step_by(7) {
            let class = size_class(length);
            assert!(class >= length && class.is_multiple_of(ALIGNMENT));
            assert!(class - length <= (length / 8).max(ALIGNMENT), "{length} -> {class}");
        }
    }

    #[test]
    fn blocks_are_aligned_and_have_requested_length() {
        for length in [0, 1, 63, 64, 65, 4097] {
            let block = Block::uninit(length).unwrap();
            assert_eq!(block.as_slice().len(), length);
            assert_eq!(block.as_slice().as_ptr() as usize % ALIGNMENT, 0);
        }
    }
    /// Makes a pool in which `count` small blocks of `capacity` bytes are idle.
    fn idle_pool(count: usize, capacity: usize) -> Pool {
        let (small, stats) = (BTreeMap::new(), MemoryStats { in_use: count * capacity, ..Default::default() });
        let mut pool = Pool { small, small_idle: 0, large: FreeList::new(), stats, clock: 0 };
        let blocks: Vec<_> = (0..count).map(|_| pool.request(capacity, usize::MAX).unwrap()).collect();
        blocks.into_iter().for_each(|block| pool.give_back(block, capacity));
        pool
    }

    #[test]
    fn small_blocks_are_returned_in_time_in_proportion_to_their_number() {
        // With a shift of all blocks for each, 300,000 blocks take half a minute.
        let mut pool = idle_pool(if cfg!(miri) { 100 } else { 300_000 }, 64);
        let start = std::time::Instant::now();
        pool.shrink(0);
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
        assert!(pool.idle() == 0 && pool.small.is_empty());
    }

    #[test]
    fn blocks_that_are_idle_longest_are_returned_first() {
        let mut pool = idle_pool(3, 64);
        let newest = pool.small[&64][2].pointer;
        pool.shrink(64);
        assert_eq!(pool.idle(), 64);
        assert_eq!(pool.take(64), Some((newest, 64)));
        pool.stats.in_use += 64;
        pool.give_back(newest, 64);
        pool.shrink(0);
    }
}
