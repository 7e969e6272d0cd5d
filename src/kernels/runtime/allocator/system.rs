//! System memory: regions of address space whose pages are allocated on first touch, and can be
//! released without releasing the region.

#[cfg(not(all(target_os = "linux", not(miri))))]
use std::alloc::Layout;
use std::ptr::NonNull;

/// The size of a huge page, where the system has them.
pub(crate) const HUGE_PAGE: usize = 2 << 20;
/// The unit in which pages are released.
pub(crate) const PAGE: usize = 4096;

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

/// Releases the pages of a part of a region if the system supports it; they are zeros when they are
/// touched again. Returns whether it succeeded.
///
/// # Safety
/// The part must consist of whole pages of a region and must not be in use.
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
