//! The limit on the memory in use, and the failure of a request.
//!
//! Most systems promise more memory than they have and kill a process that uses it. A request that
//! takes the memory in use beyond the limit is therefore refused before the system is asked.
//! Without [`set_limit`], the limit is the machine's total memory (main memory and swap), or the
//! limit of the process's control group if that is lower.
//!
//! Kernels request scratch memory deep inside parallel regions, where no result can carry an error.
//! There a refusal unwinds, with an [`OutOfMemory`] as its payload, to [`catching`], which turns it
//! into an error; the panic hook does not run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A refused request for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} asked for with {} in use, {}", Bytes(*bytes), Bytes(*in_use), Reason(*limit))]
#[non_exhaustive]
pub struct OutOfMemory {
    /// The number of bytes requested; `usize::MAX` if the number overflows.
    pub bytes: usize,
    /// The number of bytes that were in use, see
    /// [`MemoryStats::in_use`](super::MemoryStats::in_use).
    pub in_use: usize,
    /// The limit that the request would have exceeded; `None` if the system refused.
    pub limit: Option<usize>,
}

/// A number of bytes, displayed in a suitable unit.
struct Bytes(usize);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let unit = (self.0.max(1).ilog2() / 10) as usize;
        match unit {
            0 => write!(f, "{} bytes", self.0),
            _ => write!(f, "{:.1} {}", self.0 as f64 / 1024f64.powi(unit as i32), UNITS[unit]),
        }
    }
}

struct Reason(Option<usize>);

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(limit) => write!(f, "and the limit is {} (memory::set_limit changes it)", Bytes(limit)),
            None => f.write_str("and the system has no more"),
        }
    }
}

/// The value passed to [`set_limit`]; 0 for the default.
static LIMIT: AtomicUsize = AtomicUsize::new(0);

/// Sets how many bytes may be in use at the same time:
/// [`MemoryStats::in_use`](super::MemoryStats::in_use) and scratch memory of operations. A request
/// beyond the limit fails with [`Error::OutOfMemory`](crate::Error::OutOfMemory). `None` returns to
/// the default: the machine's total memory, or the limit of the control group (of a container) if
/// that is lower.
///
/// Memory that is in use already stays allocated, and requests of at most 4 KiB are not refused.
/// Vectors passed to [`Tensor::from_vec`](crate::Tensor::from_vec) are not counted.
///
/// ```
/// use convnet::{Tensor, memory};
///
/// memory::set_limit(Some(memory::stats().in_use + (1 << 20)));
/// assert!(Tensor::zeros([1]).expand([1 << 30]).is_err());
/// memory::set_limit(None);
/// # Ok::<(), convnet::Error>(())
/// ```
pub fn set_limit(bytes: Option<usize>) {
    LIMIT.store(bytes.map_or(0, |bytes| bytes.max(1)), Ordering::Relaxed);
}

/// Returns how many bytes may be in use at the same time; see [`set_limit`].
pub fn limit() -> usize {
    match LIMIT.load(Ordering::Relaxed) {
        0 => {
            static DEFAULT: OnceLock<usize> = OnceLock::new();
            *DEFAULT.get_or_init(|| machine().min(control_group()))
        }
        limit => limit,
    }
}

/// Returns the bytes of main memory.
#[cfg(all(unix, not(target_os = "linux"), not(miri)))]
fn machine() -> usize {
    // SAFETY: the calls only return numbers.
    let [pages, size] = unsafe { [libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)] };
    match (usize::try_from(pages), usize::try_from(size)) {
        (Ok(pages), Ok(size)) if pages > 0 && size > 0 => pages.saturating_mul(size),
        _ => usize::MAX,
    }
}

/// Returns the bytes of main memory and swap.
#[cfg(all(target_os = "linux", not(miri)))]
fn machine() -> usize {
    // SAFETY: the structure consists of numbers, for which zeros are values.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer refers to a structure of the type that is written.
    if unsafe { libc::sysinfo(&raw mut info) } != 0 {
        return usize::MAX;
    }
    let units = (info.totalram as usize).saturating_add(info.totalswap as usize);
    units.saturating_mul(info.mem_unit.max(1) as usize)
}

/// Returns no limit, because the total is unknown; the system itself refuses requests.
#[cfg(any(not(unix), miri))]
fn machine() -> usize {
    usize::MAX
}

/// Returns the lowest limit of the control groups (v1 or v2) that this process is in.
fn control_group() -> usize {
    if cfg!(any(miri, not(target_os = "linux"))) {
        return usize::MAX;
    }
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // Lines such as `0::/user.slice` (version 2) and `4:memory:/docker/…` (version 1).
    let limits = groups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (root, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        // The group itself and all above it limit the process; inside a container only the root may
        // be visible.
        let above = std::path::Path::new(path.trim_start_matches('/')).ancestors();
        above.filter_map(|group| std::fs::read_to_string(std::path::Path::new(root).join(group).join(name)).ok()?.trim().parse().ok()).min()
    });
    limits.min().unwrap_or(usize::MAX)
}

/// Checks whether the limit allows this many bytes now, for memory that is not allocated here:
/// tables and lists.
///
/// # Errors
/// Returns [`OutOfMemory`] if the memory in use would exceed the [`limit`].
pub(crate) fn check(bytes: usize) -> Result<(), OutOfMemory> {
    let (in_use, limit) = (super::lock().stats.in_use, limit());
    if bytes <= limit.saturating_sub(in_use) { Ok(()) } else { Err(OutOfMemory { bytes, in_use, limit: Some(limit) }) }
}

/// Returns an empty list with room for `count` entries, each of which takes this many bytes with
/// all that it holds; `None` when the [`limit`] or the system does not allow them.
pub(crate) fn list<T>(count: usize, bytes: usize) -> Option<Vec<T>> {
    let mut list = Vec::new();
    check(count.checked_mul(bytes)?).ok()?;
    list.try_reserve_exact(count).ok()?;
    Some(list)
}

/// Unwinds out of the kernel that requested memory; [`catching`] returns the failure.
#[cold]
pub(crate) fn refuse(failure: OutOfMemory) -> ! {
    if cfg!(panic = "abort") {
        panic!("out of memory: {failure}");
    }
    resume_unwind(Box::new(failure))
}

/// Runs kernels; returns the error if scratch memory that they request is refused.
pub(crate) fn catching<R>(body: impl FnOnce() -> R) -> Result<R, OutOfMemory> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload: Box<dyn Any + Send>| match payload.downcast::<OutOfMemory>() {
        Ok(failure) => *failure,
        Err(other) => resume_unwind(other),
    })
}

#[cfg(test)]
mod tests {
    use super::super::AlignedVec;
    use super::*;
    use crate::kernels::runtime::parallel;

    #[test]
    fn refused_request_reports_its_size_and_reason() {
        let failure = OutOfMemory { bytes: 3 << 39, in_use: 5 << 10, limit: Some(1 << 30) };
        let expected = "1.5 TiB asked for with 5.0 KiB in use, and the limit is 1.0 GiB (memory::set_limit changes it)";
        assert_eq!(failure.to_string(), expected);
        let failure = OutOfMemory { bytes: usize::MAX, in_use: 0, limit: None };
        assert_eq!(failure.to_string(), "16.0 EiB asked for with 0 bytes in use, and the system has no more");
    }

    #[test]
    fn refused_scratch_memory_is_an_error_on_any_thread() {
        for task_that_asks in 0..16 {
            let result = catching(|| {
                parallel::for_each(16, usize::MAX, |task| {
                    if task == task_that_asks {
                        drop(AlignedVec::<f64>::uninit(usize::MAX / 32));
                    }
                });
            });
            assert_eq!(result.map_err(|failure| failure.bytes), Err(usize::MAX / 32 * 8));
        }
    }

    #[test]
    fn other_panics_propagate() {
        let caught = catch_unwind(|| catching(|| panic!("something else")));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"something else"));
    }
}
