//! Asks the kernel which pages of some memory hold anything that was written.
//!
//! `PAGEMAP_SCAN` (Linux 6.7, `Documentation/admin-guide/mm/pagemap.rst`) walks the page tables. A page
//! counts as written when it is this process's own: present *or swapped out*, and no page of a mapped file.
//! wasmtime 48 asks for present pages alone and so overlooks what was swapped out or is just being moved
//! (fixed in wasmtime 50, PR 14357), which is why its scan is not used.
#![expect(unsafe_code, reason = "the request is not in any crate; the kernel writes only where it says")]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd as _;

/// What regions are rounded to.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Regions that one request may report.
const REGIONS: usize = 64;

// Of `include/uapi/linux/fs.h`.
nix::ioctl_readwrite!(pagemap_scan, b'f', 16, Request);
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Request {
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

/// What is known of a stretch of pages that are this process's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holding {
    /// Whatever was written.
    Anything,
    /// Nothing but zeros: only read so far, or written and then found to be zero (by KSM, or when a huge
    /// page is split).
    Zeros,
}

/// This process's page tables.
#[derive(Debug)]
pub(crate) struct DirtyPages {
    pagemap: File,
    /// Whose page tables they are: a child that was forked off has others.
    process: u32,
}

impl DirtyPages {
    /// `None` where the kernel does not answer, or wrongly.
    pub(crate) fn open() -> Option<Self> {
        let this = Self { pagemap: File::open("/proc/self/pagemap").ok()?, process: std::process::id() };
        this.tells_the_truth().then_some(this)
    }

    /// Whether this process is the one that opened it.
    pub(crate) fn are_ours(&self) -> bool {
        self.process == std::process::id()
    }

    /// Calls `each` with every stretch of `memory` that was written or read, in order, as byte offsets. A
    /// stretch may hold more than was written, and nothing that was is ever left out.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(crate) fn scan(&self, memory: &[u8], mut each: impl FnMut(Range<usize>, Holding)) -> io::Result<()> {
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
                category_inverted: PAGE_IS_FILE,
                category_mask: PAGE_IS_FILE,
                category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
                return_mask: PAGE_IS_PFNZERO,
                ..Request::default()
            };
            // SAFETY: the request is laid out as the kernel expects it, and points to as many regions as it
            // says. The kernel reads page tables and writes both.
            let found = unsafe { pagemap_scan(self.pagemap.as_raw_fd(), &raw mut request) }?;
            for region in regions.iter().take(usize::try_from(found).unwrap_or(0)) {
                let zeros = region.categories & PAGE_IS_PFNZERO != 0;
                let holding = if zeros { Holding::Zeros } else { Holding::Anything };
                each(offset(region.start)..offset(region.end.min(end)), holding);
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
        let scanned = self.scan(&memory, |stretch, holding| {
            reported |= holding == Holding::Anything && stretch.contains(&middle);
        });
        scanned.is_ok() && reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages that are reported of a memory in which these were written, and these only read.
    fn reported(written: &[usize], read: &[usize]) -> (Vec<usize>, Vec<usize>) {
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
        let (mut anything, mut zeros) = (Vec::new(), Vec::new());
        let dirty_pages = DirtyPages::open().expect("the kernels of the machines that test this have it");
        dirty_pages
            .scan(memory, |stretch, holding| {
                let pages = stretch.start / PAGE_BYTES..stretch.end / PAGE_BYTES;
                if holding == Holding::Zeros { zeros.extend(pages) } else { anything.extend(pages) }
            })
            .unwrap();
        (anything, zeros)
    }

    #[test]
    fn what_was_written_is_reported() {
        // More stretches than one request reports.
        let scattered: Vec<usize> = (0..512).step_by(3).collect();
        let read = [1, 400, 511 - 1].map(|page| page - page % 3 + 1).to_vec();
        for written in [vec![], vec![0], vec![511], vec![5, 6, 7, 300], scattered] {
            let untouched: Vec<usize> = read.iter().copied().filter(|page| !written.contains(page)).collect();
            assert_eq!(reported(&written, &untouched), (written, untouched));
        }
    }
}
