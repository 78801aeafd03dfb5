//! Asks the kernel which pages of some memory hold anything that was written.
//!
//! `PAGEMAP_SCAN` (Linux 6.7, `Documentation/admin-guide/mm/pagemap.rst`) walks the page tables. A page
//! counts as dirty when it is this process's own: present *or swapped out*, and neither the zero page nor
//! a page of a mapped file. wasmtime 48 asks for present pages alone and so overlooks what was swapped
//! out or is just being moved (fixed in wasmtime 50, PR 14357), which is why its scan is not used.
#![expect(unsafe_code, reason = "the request is not in any crate; the kernel writes only where it says")]

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Range;

use nix::sys::resource::{UsageWho, getrusage};
use rustix::ioctl::{self, Opcode};

/// What regions are rounded to.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Regions that one request may report.
const REGIONS: usize = 64;

// Of `include/uapi/linux/fs.h`.
const PAGEMAP_SCAN: Opcode = ioctl::opcode::read_write::<Request>(b'f', 16);
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct Request {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Region {
    start: u64,
    end: u64,
    categories: u64,
}

/// This process's page tables.
#[derive(Debug)]
pub(crate) struct DirtyPages {
    pagemap: File,
}

impl DirtyPages {
    /// `None` where the kernel does not answer, or wrongly.
    pub(crate) fn open() -> Option<Self> {
        let this = Self { pagemap: File::open("/proc/self/pagemap").ok()? };
        this.tells_the_truth().then_some(this)
    }

    /// Calls `each` with every stretch of `memory` that was written, in order, as byte offsets. A stretch
    /// may hold more than was written, and nothing is ever left out.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn scan(&self, memory: &[u8], mut each: impl FnMut(Range<usize>)) -> io::Result<()> {
        let base = memory.as_ptr() as u64;
        let end = base + memory.len() as u64;
        let offset = |address: u64| usize::try_from(address.saturating_sub(base)).unwrap_or(usize::MAX);
        let mut regions = [Region::default(); REGIONS];
        let mut from = base - base % PAGE_BYTES as u64;
        while from < end {
            let mut request = Request {
                size: size_of::<Request>() as u64,
                start: from,
                end,
                vec: regions.as_mut_ptr() as u64,
                vec_len: REGIONS as u64,
                category_inverted: PAGE_IS_FILE | PAGE_IS_PFNZERO,
                category_mask: PAGE_IS_FILE | PAGE_IS_PFNZERO,
                category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
                return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
                ..Request::default()
            };
            // SAFETY: the opcode is that of the request, which is laid out as the kernel expects it and
            // points to as many regions as it says. The kernel reads page tables and writes both.
            let found = unsafe { ioctl::ioctl(&self.pagemap, Scan(&mut request)) }?;
            for region in regions.iter().take(found) {
                each(offset(region.start)..offset(region.end.min(end)));
            }
            if request.walk_end <= from {
                return Err(io::Error::other("the walk does not move on"));
            }
            from = request.walk_end;
        }
        Ok(())
    }

    /// Looks whether a page that was written is reported.
    fn tells_the_truth(&self) -> bool {
        let mut memory = vec![0u8; 64 * PAGE_BYTES];
        let middle = 32 * PAGE_BYTES;
        memory[middle] = 1;
        let mut reported = false;
        let scanned = self.scan(&memory, |stretch| reported |= stretch.contains(&middle));
        scanned.is_ok() && reported
    }
}

/// How many page faults a thread has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PageFaults {
    minor: i64,
    major: i64,
}

impl PageFaults {
    fn of_this_thread() -> Option<Self> {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
        Some(Self { minor: usage.minor_page_faults(), major: usage.major_page_faults() })
    }
}

thread_local! {
    /// When this thread last looked.
    static SEEN: Cell<Option<PageFaults>> = const { Cell::new(None) };
}

/// Watches a thread for the first write to a page. Whoever writes to a page that could not be written to
/// before has one fault more: a page that was not there, that was swapped out, or that was shared as
/// zeros or as a file's.
pub(crate) struct Watch(Option<PageFaults>);

impl Watch {
    /// From when this thread last looked, or from now: a fault too many costs a scan, one too few would be
    /// another guest's page.
    pub(crate) fn begin() -> Self {
        Self(SEEN.get().or_else(PageFaults::of_this_thread))
    }

    /// Whether there was none. To be asked on the same thread.
    pub(crate) fn saw_nothing(self) -> bool {
        let now = PageFaults::of_this_thread();
        SEEN.set(now);
        now.is_some() && now == self.0
    }
}

/// The request as an ioctl that answers how many regions it found.
struct Scan<'a>(&'a mut Request);

// SAFETY: the opcode is `PAGEMAP_SCAN`, whose argument is a `pm_scan_arg` that the kernel writes to.
unsafe impl ioctl::Ioctl for Scan<'_> {
    type Output = usize;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        PAGEMAP_SCAN
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(
        found: ioctl::IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<usize> {
        usize::try_from(found).map_err(|_| rustix::io::Errno::INVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages that are reported of a memory in which these were written.
    fn reported(written: &[usize], read: &[usize]) -> Vec<usize> {
        // So large that every allocator maps it anew: nobody has touched its pages.
        let mut memory = vec![0u8; 64 << 20];
        let first = memory.as_ptr().align_offset(PAGE_BYTES);
        let memory = &mut memory[first..first + 512 * PAGE_BYTES];
        for page in written {
            memory[page * PAGE_BYTES + 17] = 1;
        }
        for page in read {
            assert_eq!(std::hint::black_box(memory[page * PAGE_BYTES]), 0);
        }
        let mut pages = Vec::new();
        let dirty_pages = DirtyPages::open().expect("the kernels of the machines that test this have it");
        dirty_pages
            .scan(memory, |stretch| pages.extend(stretch.start / PAGE_BYTES..stretch.end / PAGE_BYTES))
            .unwrap();
        pages
    }

    #[test]
    fn what_was_written_is_reported() {
        // More stretches than one request reports.
        let scattered: Vec<usize> = (0..512).step_by(3).collect();
        for written in [vec![], vec![0], vec![511], vec![5, 6, 7, 300], scattered] {
            assert_eq!(reported(&written, &[2, 400, 511].map(|page| page - page % 3 + 1)), written);
        }
    }
}
