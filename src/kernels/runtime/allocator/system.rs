//! Memory from the system: regions of address space whose pages come when they are touched, and can be given back without giving up the region.

#[cfg(not(all(target_os = "linux", not(miri))))]
use std::alloc::Layout;
use std::ptr::NonNull;

/// A huge page, where the system has them.
pub(crate) const HUGE_PAGE: usize = 2 << 20;
/// The unit in which pages are given back.
pub(crate) const PAGE: usize = 4096;

#[cfg(not(all(target_os = "linux", not(miri))))]
fn layout_of(length: usize) -> Layout {
    Layout::from_size_align(length, HUGE_PAGE).expect("a region is smaller than the address space")
}

/// A region of zeros; `None` when the system has no more. The system is asked for huge pages: a map of tens of MiB otherwise has more
/// pages than the processor can remember, and each costs a fault when it is new.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn map(length: usize) -> Option<NonNull<u8>> {
    // SAFETY: a new private mapping touches nobody's memory.
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

/// A region of zeros; `None` when the system has no more.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn map(length: usize) -> Option<NonNull<u8>> {
    // SAFETY: the length is not zero.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(layout_of(length)) })
}

/// Gives a region back.
///
/// # Safety
/// [`map`] made it with this length, and nobody uses it any more.
pub(crate) unsafe fn unmap(pointer: NonNull<u8>, length: usize) {
    // SAFETY: by this function's contract.
    unsafe {
        #[cfg(all(target_os = "linux", not(miri)))]
        libc::munmap(pointer.as_ptr().cast(), length);
        #[cfg(not(all(target_os = "linux", not(miri))))]
        std::alloc::dealloc(pointer.as_ptr(), layout_of(length));
    }
}

/// Gives the pages of a part of a region back, if the system can; they are zeros when they are touched again. Returns whether it could.
///
/// # Safety
/// The part consists of whole pages of a region, and nobody uses it.
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
