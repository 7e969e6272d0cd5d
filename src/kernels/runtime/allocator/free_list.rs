//! Large blocks, sub-allocated from shared regions: best fit (the smallest sufficient free span),
//! with adjacent free spans merged.
//!
//! A network's blocks are allocated and freed in all sizes. Kept by size, each would wait for the
//! next request of exactly its size while other requests go to the system; with shared regions, the
//! memory that one layer frees serves the next.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::ptr::NonNull;

use super::system::{self, HUGE_PAGE};

/// The unit of the lengths of blocks. A block may begin and end within a page of the system, whose
/// pages are larger on some machines.
const UNIT: usize = 4 << 10;

/// The smallest amount of address space that is reserved at a time; its pages are allocated on
/// first touch.
const REGION: usize = if cfg!(miri) { HUGE_PAGE } else { 128 << 20 };

/// Free spans of one kind, indexed by address and by (length, address).
#[derive(Default)]
struct Free {
    by_address: BTreeMap<usize, usize>,
    by_length: BTreeSet<(usize, usize)>,
    bytes: usize,
}

impl Free {
    /// Adds a span, merged with its free neighbours in the same region.
    fn insert(&mut self, mut address: usize, mut length: usize, region: &Region) {
        let before = self.by_address.range(region.start..address).next_back().map(|(&at, &length)| (at, length));
        if let Some((at, before)) = before.filter(|&(at, before)| at + before == address) {
            self.remove(at, before);
            (address, length) = (at, before + length);
        }
        if let Some(&after) = self.by_address.get(&(address + length)).filter(|_| address + length < region.start + region.length) {
            self.remove(address + length, after);
            length += after;
        }
        self.by_address.insert(address, length);
        self.by_length.insert((length, address));
        self.bytes += length;
    }

    fn remove(&mut self, address: usize, length: usize) {
        self.by_address.remove(&address);
        self.by_length.remove(&(length, address));
        self.bytes -= length;
    }

    /// Returns the shortest span of at least this length.
    fn best(&self, length: usize) -> Option<(usize, usize)> {
        self.by_length.range((length, 0)..).next().map(|&(length, address)| (address, length))
    }
}

#[derive(Clone, Copy)]
struct Region {
    pointer: NonNull<u8>,
    start: usize,
    length: usize,
}

// SAFETY: the pointer only identifies the region; the owner of a block in it owns that block alone.
unsafe impl Send for Region {}

/// All regions and their free spans.
#[derive(Default)]
pub(crate) struct FreeList {
    /// Indexed by address.
    regions: BTreeMap<usize, Region>,
    /// Free spans whose pages have been touched.
    committed: Free,
    /// Free spans without pages.
    uncommitted: Free,
}

impl FreeList {
    pub(crate) const fn new() -> FreeList {
        const NONE: Free = Free { by_address: BTreeMap::new(), by_length: BTreeSet::new(), bytes: 0 };
        FreeList { regions: BTreeMap::new(), committed: NONE, uncommitted: NONE }
    }

    /// Returns the length of the block that serves a request.
    pub(crate) fn capacity(length: usize) -> usize {
        length.next_multiple_of(UNIT)
    }

    /// Returns the number of free bytes that have pages.
    pub(crate) fn idle(&self) -> usize {
        self.committed.bytes
    }

    /// Takes a block that has its pages already.
    pub(crate) fn take_committed(&mut self, capacity: usize) -> Option<NonNull<u8>> {
        let (address, length) = self.committed.best(capacity)?;
        self.committed.remove(address, length);
        let region = self.region(address);
        if length > capacity {
            self.committed.insert(address + capacity, length - capacity, &region);
        }
        Some(region.at(address))
    }

    /// Takes a block whose pages are allocated on first touch; `None` if the system has no more
    /// address space.
    pub(crate) fn take_uncommitted(&mut self, capacity: usize) -> Option<NonNull<u8>> {
        if self.uncommitted.best(capacity).is_none() {
            let length = capacity.max(REGION).next_multiple_of(HUGE_PAGE);
            let pointer = system::map(length)?;
            let region = Region { pointer, start: pointer.addr().get(), length };
            self.regions.insert(region.start, region);
            self.uncommitted.insert(region.start, length, &region);
        }
        let (address, length) = self.uncommitted.best(capacity)?;
        self.uncommitted.remove(address, length);
        let region = self.region(address);
        if length > capacity {
            self.uncommitted.insert(address + capacity, length - capacity, &region);
        }
        Some(region.at(address))
    }

    /// Takes a block back.
    pub(crate) fn give_back(&mut self, pointer: NonNull<u8>, capacity: usize) {
        let address = pointer.addr().get();
        let region = self.region(address);
        self.committed.insert(address, capacity, &region);
    }

    /// Releases pages to the system until at most `keep` free bytes have pages, the longest spans
    /// first; entirely free regions are unmapped. A page that a block in use shares with a free
    /// span stays.
    pub(crate) fn shrink(&mut self, keep: usize) {
        self.shrink_by(system::page(), keep);
    }

    /// Shrinks as [`shrink`](Self::shrink) does, on a system whose pages have `page` bytes or
    /// fewer.
    fn shrink_by(&mut self, page: usize, keep: usize) {
        let mut next = self.committed.by_length.last().copied();
        while let Some((length, address)) = next.filter(|_| self.committed.bytes > keep) {
            let (region, end) = (self.region(address), address + length);
            if length == region.length {
                self.committed.remove(address, length);
                self.regions.remove(&region.start);
                // SAFETY: the whole region is free.
                unsafe { system::unmap(region.pointer, region.length) };
            } else {
                // A page at an end of the span may extend into free memory without pages.
                let pages = system::whole_pages(&self.free_around(address..end, &region), page);
                let released = address.max(pages.start)..end.min(pages.end);
                if !released.is_empty() {
                    let start = released.start / page * page;
                    let length = released.end.next_multiple_of(page) - start;
                    // SAFETY: all bytes of these pages are free.
                    if unsafe { !system::discard(region.at(start), length) } {
                        // Only whole regions can be released on this system, and no span is longer
                        // than this one.
                        return;
                    }
                    self.committed.remove(address, end - address);
                    for rest in [address..released.start, released.end..end] {
                        if !rest.is_empty() {
                            self.committed.insert(rest.start, rest.len(), &region);
                        }
                    }
                    self.uncommitted.insert(released.start, released.len(), &region);
                }
            }
            next = self.committed.by_length.range(..(length, address)).next_back().copied();
        }
        let whole: Vec<Region> =
            self.regions.values().filter(|r| self.uncommitted.by_address.get(&r.start) == Some(&r.length)).copied().collect();
        for region in whole {
            self.uncommitted.remove(region.start, region.length);
            self.regions.remove(&region.start);
            // SAFETY: the whole region is free.
            unsafe { system::unmap(region.pointer, region.length) };
        }
    }

    /// Returns a free span with the spans without pages that are adjacent to it.
    fn free_around(&self, span: Range<usize>, region: &Region) -> Range<usize> {
        let free = &self.uncommitted.by_address;
        let before = free.range(region.start..span.start).next_back().filter(|&(&at, &length)| at + length == span.start);
        let after = free.get(&span.end).filter(|_| span.end < region.start + region.length);
        before.map_or(span.start, |(&at, _)| at)..span.end + after.unwrap_or(&0)
    }

    fn region(&self, address: usize) -> Region {
        *self.regions.range(..=address).next_back().expect("every span lies in a region").1
    }
}

impl Region {
    fn at(&self, address: usize) -> NonNull<u8> {
        // SAFETY: the address is in the region.
        unsafe { self.pointer.add(address - self.start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freed_neighbours_merge_and_serve_longer_block() {
        let mut spans = FreeList::new();
        let blocks: Vec<_> = (0..4).map(|_| spans.take_uncommitted(UNIT).unwrap()).collect();
        assert!(spans.take_committed(UNIT).is_none());
        for &at in [blocks[0], blocks[2], blocks[1]].iter() {
            spans.give_back(at, UNIT);
        }
        assert_eq!(spans.idle(), 3 * UNIT);
        assert_eq!(spans.take_committed(3 * UNIT), Some(blocks[0]));
        spans.give_back(blocks[0], 3 * UNIT);
        // The shortest sufficient span is cut.
        spans.take_uncommitted(UNIT).unwrap();
        assert_eq!(spans.take_committed(UNIT), Some(blocks[0]));
        assert_eq!(spans.idle(), 2 * UNIT);
    }

    #[test]
    fn released_pages_return_as_zeros() {
        let (mut spans, page) = (FreeList::new(), system::page());
        let (kept, block) = (spans.take_uncommitted(page).unwrap(), spans.take_uncommitted(4 * page).unwrap());
        // SAFETY: the block has four pages.
        unsafe { block.write_bytes(7, 4 * page) };
        spans.give_back(block, 4 * page);
        spans.shrink(0);
        assert!(spans.idle() == 0 || !cfg!(all(target_os = "linux", not(miri))));
        let again = spans.take_committed(4 * page).unwrap_or_else(|| spans.take_uncommitted(4 * page).unwrap());
        // SAFETY: as above; on every system the bytes are initialised.
        let bytes = unsafe { std::slice::from_raw_parts(again.as_ptr(), 4 * page) };
        assert!(!cfg!(all(target_os = "linux", not(miri))) || bytes.iter().all(|&byte| byte == 0));
        spans.give_back(again, 4 * page);
        spans.give_back(kept, page);
        spans.shrink(0);
        assert!(spans.regions.is_empty() || !cfg!(all(target_os = "linux", not(miri))));
    }
    #[test]
    #[cfg(all(target_os = "linux", not(miri)))]
    fn pages_that_live_blocks_share_are_not_released() {
        // As on systems with larger pages; each is a whole number of this system's.
        let (mut spans, page) = (FreeList::new(), 16 * system::page());
        let [long, short] = [page + UNIT, 3 * UNIT];
        // The next block starts with a page.
        let start = spans.take_uncommitted(UNIT).unwrap().addr().get() + UNIT;
        if !start.is_multiple_of(page) {
            spans.take_uncommitted(start.next_multiple_of(page) - start).unwrap();
        }
        let blocks = [long, short, long, page].map(|length| (spans.take_uncommitted(length).unwrap(), length));
        for (block, length) in blocks {
            // SAFETY: the block has this length.
            unsafe { block.write_bytes(7, length) };
        }
        spans.give_back(blocks[0].0, long);
        spans.give_back(blocks[2].0, long);
        spans.shrink_by(page, 0);
        // Of the first block its first page; of the third none is whole: it begins and ends in
        // pages of blocks in use.
        let released = |block: NonNull<u8>, length: usize| {
            // SAFETY: the test owns the region; all blocks have been written.
            let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), length) };
            bytes.iter().filter(|&&byte| byte == 0).count()
        };
        assert_eq!(blocks.map(|(block, length)| released(block, length)), [page, 0, 0, 0]);
        assert_eq!(spans.idle(), UNIT + long);
        // The fourth block ends in a page whose rest has never been in use.
        spans.give_back(blocks[3].0, page);
        spans.shrink_by(page, 0);
        assert_eq!(spans.idle(), UNIT + page - 4 * UNIT);
        spans.give_back(blocks[1].0, short);
        spans.shrink_by(page, 0);
        assert_eq!(spans.idle(), 0);
    }
}
