//! Aligned memory that is used again.
//!
//! A fresh page from the system costs a fault for each 4 KiB, which on large feature maps takes longer than the arithmetic. So a block that
//! is freed waits in a pool. Small ones serve the next request of about their size; large ones are cut from common ground ([`spans`]). The
//! pool is bounded ([`MemoryStats::bound`]): what is in use and what waits together do not exceed the highest use so far by more than a quarter
//! and 32 MiB; beyond that, pages go back to the system before new ones are asked for.
//!
//! A block's bytes are always initialised (zeros when fresh, stale values when recycled), so handing it out as a slice is sound.

mod free_list;
mod limit;
mod system;

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use free_list::FreeList;
use limit::refuse;
pub use limit::{OutOfMemory, limit, set_limit};
pub(crate) use limit::{catching, check};

use super::simd::Scalar;

/// Alignment of every block in bytes: a cache line, and one AVX-512 register.
pub const ALIGNMENT: usize = 64;

/// Blocks of this many bytes and more are cut from regions.
const LARGE: usize = 64 << 10;

/// Blocks of up to this many bytes are not refused at the limit: losses, labels and tensors of a few numbers, which make up next to nothing.
const SMALL: usize = 4 << 10;

/// What recycling may hold beyond the highest use so far, besides a quarter of it: a small network's blocks of all sizes.
const FLOOR: usize = 32 << 20;

/// What the allocator has done since the process started; see [`stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Bytes in tensors that are alive.
    pub in_use: usize,
    /// Bytes that wait to be used again.
    pub idle: usize,
    /// The highest value `in_use` has had.
    pub peak: usize,
    /// Requests that went to the system.
    pub system_allocations: u64,
    /// Requests that a recycled block served.
    pub reuses: u64,
}

impl MemoryStats {
    /// The most that `in_use` and `idle` together may come to: a quarter more than the peak, and 32 MiB.
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
    /// A block of `length` bytes whose content is unspecified (but initialised).
    ///
    /// # Errors
    /// [`OutOfMemory`] when the memory in use would exceed the [`limit`], or the system has no more.
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

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `pointer` owns `capacity >= length` initialised bytes, or `length` is 0.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.length) }
    }

    /// The bytes, for writing.
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

/// Scratch memory for a kernel: a recycled block seen as elements.
pub struct Buffer<T> {
    block: Block,
    element: PhantomData<T>,
}

/// Memory that cannot be had ends the kernel: [`catching`], around it, returns the error.
impl<T: Scalar> Buffer<T> {
    /// `length` elements whose values are unspecified.
    pub fn uninit(length: usize) -> Buffer<T> {
        Buffer::try_uncleared(length).unwrap_or_else(|failure| refuse(failure))
    }

    /// As [`uninit`](Buffer::uninit), for where an error can be returned.
    ///
    /// # Errors
    /// [`OutOfMemory`] when the memory cannot be had.
    pub fn try_uncleared(length: usize) -> Result<Buffer<T>, OutOfMemory> {
        Ok(Buffer { block: Block::uninit(length.saturating_mul(size_of::<T>()))?, element: PhantomData })
    }

    /// These elements.
    pub fn copy_of(elements: &[T]) -> Buffer<T> {
        let mut buffer = Buffer::uninit(elements.len());
        buffer.copy_from_slice(elements);
        buffer
    }

    /// `length` zeros.
    pub fn zeroed(length: usize) -> Buffer<T> {
        let mut buffer = Buffer::uninit(length);
        buffer.block.as_mut_slice().fill(0);
        buffer
    }
}

impl<T: Scalar> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(self.block.as_slice())
    }
}

impl<T: Scalar> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.block.as_mut_slice())
    }
}

/// Elements as they are, or rearranged in scratch memory.
pub(crate) enum Elements<'x, T> {
    Borrowed(&'x [T]),
    Owned(Buffer<T>),
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

/// A type whose dangling pointer is aligned as blocks are.
#[repr(align(64))]
struct Aligned;

struct Idle {
    pointer: NonNull<u8>,
    since: u64,
}

// SAFETY: an idle block is owned by the pool alone.
unsafe impl Send for Idle {}

struct Pool {
    /// Small blocks that wait, by capacity; the last in a row was freed last and is the warmest.
    small: BTreeMap<usize, Vec<Idle>>,
    /// Bytes in them.
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

/// How many bytes this thread has asked for since it started, given back or not.
pub fn requested() -> u64 {
    REQUESTED.get()
}

fn lock() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A block that waits, and its capacity.
    fn take(&mut self, capacity: usize) -> Option<(NonNull<u8>, usize)> {
        let found = if capacity >= LARGE {
            (self.large.take_warm(capacity)?, capacity)
        } else {
            // Of less than twice as many bytes.
            let most = (2 * capacity).min(LARGE);
            let (&found, row) = self.small.range_mut(capacity..most).find(|(_, row)| !row.is_empty())?;
            self.small_idle -= found;
            (row.pop()?.pointer, found)
        };
        self.stats.reuses += 1;
        Some(found)
    }

    /// New memory from the system, after making room for it within the limit; `None` when it has no more.
    fn request(&mut self, capacity: usize, limit: usize) -> Option<NonNull<u8>> {
        let needed = self.stats.in_use + capacity;
        let bound = MemoryStats { peak: self.stats.peak.max(needed), ..self.stats }.bound();
        self.shrink(bound.min(limit).saturating_sub(needed));
        self.stats.system_allocations += 1;
        if capacity >= LARGE {
            return self.large.take_cold(capacity);
        }
        // SAFETY: the layout's size is not zero: `uninit` treats that case itself.
        NonNull::new(unsafe { alloc_zeroed(layout_of(capacity)) })
    }

    fn give_back(&mut self, pointer: NonNull<u8>, capacity: usize) {
        self.stats.in_use -= capacity;
        if capacity >= LARGE {
            return self.large.give_back(pointer, capacity);
        }
        self.clock += 1;
        self.small_idle += capacity;
        self.small.entry(capacity).or_default().push(Idle { pointer, since: self.clock });
    }

    fn idle(&self) -> usize {
        self.small_idle + self.large.idle()
    }

    /// Returns memory to the system until at most `keep` bytes wait: large blocks first, then the small ones that have waited longest.
    fn shrink(&mut self, keep: usize) {
        if self.idle() <= keep {
            return;
        }
        self.large.shrink(keep.saturating_sub(self.small_idle));
        while self.idle() > keep {
            let oldest = self.small.iter_mut().filter(|(_, row)| !row.is_empty()).min_by_key(|(_, row)| row[0].since);
            let Some((&capacity, row)) = oldest else { return };
            let block = row.remove(0);
            self.small_idle -= capacity;
            // SAFETY: the pool owns the block, which was allocated with this layout.
            unsafe { dealloc(block.pointer.as_ptr(), layout_of(capacity)) };
        }
    }
}

fn layout_of(capacity: usize) -> Layout {
    Layout::from_size_align(capacity, ALIGNMENT).expect("a block is smaller than the address space")
}

/// Rounds a size up so that nearly equal requests share blocks: to 64 bytes, from 1 KiB on to an eighth of its power of two; large ones to pages.
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

/// What the allocator holds and has done.
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

/// Returns idle memory to the system until at most `keep` bytes wait, and forgets the peak.
///
/// Recycling keeps in use and idle memory together within [`MemoryStats::bound`]; `trim(0)` after a large job gives back what is idle.
pub fn trim(keep: usize) {
    let mut pool = lock();
    pool.shrink(keep);
    pool.stats.peak = pool.stats.in_use;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_class_wastes_at_most_an_eighth() {
        for length in (1..100_000).step_by(7) {
            let class = size_class(length);
            assert!(class >= length && class.is_multiple_of(ALIGNMENT));
            assert!(class - length <= (length / 8).max(ALIGNMENT), "{length} -> {class}");
        }
    }

    #[test]
    fn blocks_are_aligned_and_as_long_as_asked() {
        for length in [0, 1, 63, 64, 65, 4097] {
            let block = Block::uninit(length).unwrap();
            assert_eq!(block.as_slice().len(), length);
            assert_eq!(block.as_slice().as_ptr() as usize % ALIGNMENT, 0);
        }
    }
}
