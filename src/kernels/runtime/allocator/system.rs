//! System memory: regions of address space whose pages are allocated on first touch, and can be
//! released without releasing the region.

#[cfg(not(all(target_os = "linux", not(miri))))]
use std::alloc::Layout;
use std::ops::Range;
use std::ptr::NonNull;
#[cfg(all(unix, not(miri)))]
use std::sync::OnceLock;

/// The size of a huge page, where the system has them.
pub(crate) const HUGE_PAGE: usize = 2 << 20;

#[cfg(not(all(target_os = "linux", not(miri))))]
fn layout_of(length: usize) -> Layout {
    Layout::from_size_align(length, HUGE_PAGE).expect("a region is smaller than the address space")
}

/// Returns a region of zeros; `None` if the system has no more. Huge pages are requested: a map of
/// tens of MiB otherwise has more pages than the processor's TLB holds, and each new page costs a
/// fault.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn map(length: usize) -> Option<NonNull<u8>> {
    // SAFETY: a new private mapping touches no existing memory.
    let pointer = unsafe {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        libc::mmap(std::ptr::null_mut(), length, access, kind, -1, 0)
    };
    if pointer == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: advice on the mapping just made; a refusal does no harm.
    unsafe { libc::madvise(pointer, length, libc::MADV_HUGEPAGE) };
    NonNull::new(pointer.cast())
}

/// Returns a region of zeros; `None` if the system has no more.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn map(length: usize) -> Option<NonNull<u8>> {
    // SAFETY: the length is not zero.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(layout_of(length)) })
}

/// Releases a region.
///
/// # Safety
/// The region must come from [`map`] with this length and must not be in use.
pub(crate) unsafe fn unmap(pointer: NonNull<u8>, length: usize) {
    // SAFETY: by this function's contract.
    unsafe {
        #[cfg(all(target_os = "linux", not(miri)))]
        libc::munmap(pointer.as_ptr().cast(), length);
        #[cfg(not(all(target_os = "linux", not(miri))))]
        std::alloc::dealloc(pointer.as_ptr(), layout_of(length));
    }
}

/// Returns the size of a page, a power of two: 4, 16 or 64 KiB on today's systems.
#[cfg(all(unix, not(miri)))]
pub(crate) fn page() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: the call only returns a number.
        let size = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) });
        // If it is unknown: a multiple of every size.
        size.ok().filter(|size| size.is_power_of_two()).unwrap_or(HUGE_PAGE)
    })
}

/// Returns the size of a page where [`discard`] releases none: it is not used.
#[cfg(not(all(unix, not(miri))))]
pub(crate) fn page() -> usize {
    HUGE_PAGE
}

/// Returns the whole pages of a range of addresses; empty if it contains none.
pub(crate) fn whole_pages(addresses: &Range<usize>, page: usize) -> Range<usize> {
    let (start, end) = (addresses.start.next_multiple_of(page), addresses.end / page * page);
    start..end.max(start)
}

/// Releases the pages of a part of a region if the system supports it; they are zeros when they are
/// touched again. Returns whether it succeeded.
///
/// # Safety
/// The part must consist of whole [pages](page) of a region and must not be in use.
pub(crate) unsafe fn discard(pointer: NonNull<u8>, length: usize) -> bool {
    #[cfg(all(target_os = "linux", not(miri)))]
    // SAFETY: by this function's contract.
    return unsafe { libc::madvise(pointer.as_ptr().cast(), length, libc::MADV_DONTNEED) == 0 };
    #[cfg(not(all(target_os = "linux", not(miri))))]
    {
        let _ = (pointer, length);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_that_is_no_whole_number_of_pages_is_rounded_inward() {
        for page in [4 << 10, 16 << 10, 64 << 10] {
            assert_eq!(whole_pages(&(page..3 * page), page), page..3 * page);
            assert_eq!(whole_pages(&(page - 1..3 * page + 1), page), page..3 * page);
            assert_eq!(whole_pages(&(page + 1..3 * page + 1), page), 2 * page..3 * page);
            assert!(whole_pages(&(page + 1..2 * page + 1), page).is_empty());
            assert!(whole_pages(&(page + 1..page + 2), page).is_empty());
        }
    }

    #[test]
    fn page_is_what_the_system_says() {
        assert!(page().is_power_of_two() && HUGE_PAGE.is_multiple_of(page()));
        #[cfg(target_os = "linux")]
        if let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") {
            let size = maps.lines().find_map(|line| line.strip_prefix("MMUPageSize:")?.trim().strip_suffix("kB")?.trim().parse().ok());
            assert!(size.is_none_or(|size: usize| size << 10 == page()), "{size:?} KiB, not {}", page());
        }
    }
}
