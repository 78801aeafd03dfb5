//! Puts an instance back to where it began, in place of making another one.
//!
//! A guest cannot tell an instance that was put back from a new one: its memories hold what they held
//! before the first call, byte for byte and with the same size, and so do its mutable globals; the
//! rewriter (`fuse.rs`) has seen to it that it has nothing else which calls could change. What the
//! kernel reports as never written is left alone, so the cost is that of the pages a guest really uses.
//! `docs/adr/0007-rewind.md` has the reasons and the numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::{Global, Instance, Memory, Module, ModuleExport, Store, Val};

use super::fuse;
use super::state::State;
use crate::engine::dirty_pages::{DirtyPages, Holding, PAGE_BYTES};

/// Guests with a larger memory at first always get a new instance: somebody has to look at all of it once.
const INITIAL_BYTES_MAX: usize = 16 << 20;
/// Beyond that many written bytes a new instance is cheaper than clearing this one.
const WRITTEN_BYTES_MAX: usize = 1 << 20;
/// How often an instance is put back. Pages that one large call has written are cleared after every
/// later call too, and go with the instance.
const REWINDS_MAX: u32 = 256;

/// How a plugin's instances are put back.
pub(super) struct Rewinding {
    dirty_pages: Arc<DirtyPages>,
    memories: Vec<ModuleExport>,
    globals: Vec<ModuleExport>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// Taken of one instance; every other one begins the same.
    beginning: Option<Arc<Beginning>>,
    /// Pages with content that calls have been seen to write to: memory and page.
    written: BTreeSet<(usize, usize)>,
}

/// What instances hold before their first call.
struct Beginning {
    memories: Vec<Content>,
    globals: Vec<Val>,
    /// Everything is kept, since no call has shown yet what is written to.
    complete: bool,
}

/// Compared as a whole, which takes a twentieth of what a look at each byte does.
static ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// What a memory holds at first: zeros but for some pages.
struct Content {
    bytes: usize,
    /// Pages that calls write to.
    kept: BTreeMap<usize, Arc<[u8]>>,
    /// The others. Should a call write to one after all, its instance is not put back.
    forgotten: BTreeSet<usize>,
}

/// One instance's part.
pub(super) struct Rewindable {
    memories: Vec<Memory>,
    globals: Vec<Global>,
    beginning: Arc<Beginning>,
    left: u32,
    /// What calls have written since the instance was made, by memory.
    written: Vec<(usize, Range<usize>)>,
}

/// An instance is not put back, and the next call gets a new one. Not an error.
pub(super) struct Worn;

impl Rewinding {
    /// `None` where the rewriter saw state that cannot be put back. The caller answers for the rest: that
    /// instances of `module` begin the same, whenever they are made.
    pub(super) fn plan(module: &Module, dirty_pages: &Arc<DirtyPages>) -> Option<Self> {
        let named = |name: fn(usize) -> String| -> Vec<ModuleExport> {
            (0..).map_while(|index| module.get_export_index(&name(index))).collect()
        };
        let memories = named(fuse::rewound_memory);
        (!memories.is_empty()).then_some(Self {
            dirty_pages: dirty_pages.clone(),
            memories,
            globals: named(fuse::rewound_global),
            known: Mutex::default(),
        })
    }

    /// Prepares an instance that has not been called yet.
    pub(super) fn prepare(&self, instance: &Instance, store: &mut Store<State>) -> Option<Rewindable> {
        let memories = self.memories.iter();
        let memories = memories.map(|id| instance.get_module_export(&mut *store, id)?.into_memory());
        let memories: Vec<Memory> = memories.collect::<Option<_>>()?;
        let globals = self.globals.iter();
        let globals = globals.map(|id| instance.get_module_export(&mut *store, id)?.into_global());
        let globals: Vec<Global> = globals.collect::<Option<_>>()?;
        let known = self.known().beginning.clone();
        let beginning = match known {
            Some(beginning) => beginning,
            None => {
                // Not under the lock: it looks at every byte.
                let beginning = Arc::new(Beginning::of(&memories, &globals, store)?);
                self.known().beginning.get_or_insert(beginning).clone()
            }
        };
        Some(Rewindable { memories, globals, beginning, left: REWINDS_MAX, written: Vec::new() })
    }

    /// Puts an instance back after calls that all went well.
    pub(super) fn rewind(&self, rewindable: &mut Rewindable, store: &mut Store<State>) -> Result<(), Worn> {
        rewindable.left = rewindable.left.checked_sub(1).ok_or(Worn)?;
        self.look(rewindable, store)?;
        let Rewindable { memories, globals, beginning, written, .. } = rewindable;
        if written.iter().map(|(_, stretch)| stretch.len()).sum::<usize>() > WRITTEN_BYTES_MAX {
            return Err(Worn);
        }
        if written.iter().any(|(index, stretch)| beginning.memories[*index].has_forgotten(stretch)) {
            self.forget(beginning, written);
            return Err(Worn);
        }
        for (index, stretch) in &*written {
            beginning.memories[*index].restore(memories[*index].data_mut(&mut *store), stretch.clone());
        }
        for (global, value) in globals.iter().zip(&beginning.globals) {
            global.set(&mut *store, *value).map_err(|_| Worn)?;
        }
        if beginning.complete {
            *beginning = self.reduce(beginning, written);
        }
        Ok(())
    }

    /// Finds out what was written.
    fn look(&self, rewindable: &mut Rewindable, store: &Store<State>) -> Result<(), Worn> {
        let Rewindable { memories, beginning, written, .. } = rewindable;
        written.clear();
        if !self.dirty_pages.are_ours() {
            return Err(Worn);
        }
        for (index, (memory, content)) in memories.iter().zip(&beginning.memories).enumerate() {
            let memory = memory.data(store);
            // It cannot shrink.
            if memory.len() != content.bytes {
                return Err(Worn);
            }
            let scanned = self.dirty_pages.scan(memory, |stretch, holding| {
                // Zeros are what a page without content began with.
                if holding == Holding::Anything || content.has_any(&stretch) {
                    written.push((index, stretch));
                }
            });
            scanned.map_err(|_| Worn)?;
        }
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps only what calls write to, now that one has shown what that is.
    fn reduce(&self, complete: &Beginning, written: &[(usize, Range<usize>)]) -> Arc<Beginning> {
        let mut known = self.known();
        known.note(complete, written);
        let reduced = Arc::new(complete.reduced(&known.written));
        known.beginning = Some(reduced.clone());
        reduced
    }

    /// Has the next new instance looked at again.
    fn forget(&self, beginning: &Beginning, written: &[(usize, Range<usize>)]) {
        let mut known = self.known();
        known.note(beginning, written);
        known.beginning = None;
    }
}

impl Known {
    fn note(&mut self, beginning: &Beginning, written: &[(usize, Range<usize>)]) {
        for (index, stretch) in written {
            let content = &beginning.memories[*index];
            let kept = content.kept.range(pages(stretch)).map(|(page, _)| page);
            let pages = kept.chain(content.forgotten.range(pages(stretch)));
            self.written.extend(pages.map(|page| (*index, *page)));
        }
    }
}

impl Beginning {
    /// `None` for more memory than anybody wants to look at.
    fn of(memories: &[Memory], globals: &[Global], store: &mut Store<State>) -> Option<Self> {
        let bytes: usize = memories.iter().map(|memory| memory.data_size(&*store)).sum();
        if bytes > INITIAL_BYTES_MAX {
            return None;
        }
        let memories = memories.iter().map(|memory| Content::of(memory.data(&*store))).collect();
        let globals = globals.iter().map(|global| global.get(&mut *store)).collect();
        Some(Self { memories, globals, complete: true })
    }

    fn reduced(&self, written: &BTreeSet<(usize, usize)>) -> Self {
        let memories = self.memories.iter().enumerate();
        let memories =
            memories.map(|(index, content)| content.reduced(|page| written.contains(&(index, page))));
        Self { memories: memories.collect(), globals: self.globals.clone(), complete: false }
    }
}

impl Content {
    fn of(memory: &[u8]) -> Self {
        let pages = memory.chunks(PAGE_BYTES).enumerate();
        let kept = pages.filter(|(_, page)| **page != ZEROS[..page.len()]);
        let kept = kept.map(|(index, page)| (index, page.into())).collect();
        Self { bytes: memory.len(), kept, forgotten: BTreeSet::new() }
    }

    fn reduced(&self, is_written: impl Fn(usize) -> bool) -> Self {
        let (kept, forgotten): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.kept.clone().into_iter().partition(|(page, _)| is_written(*page));
        Self { bytes: self.bytes, kept, forgotten: forgotten.into_keys().collect() }
    }

    /// Whether a stretch of pages held anything but zeros.
    fn has_any(&self, stretch: &Range<usize>) -> bool {
        self.kept.range(pages(stretch)).next().is_some() || self.has_forgotten(stretch)
    }

    fn has_forgotten(&self, stretch: &Range<usize>) -> bool {
        self.forgotten.range(pages(stretch)).next().is_some()
    }

    /// Puts back what a stretch of pages held.
    fn restore(&self, memory: &mut [u8], stretch: Range<usize>) {
        let kept = self.kept.range(pages(&stretch));
        memory[stretch].fill(0);
        for (index, page) in kept {
            let start = index * PAGE_BYTES;
            memory[start..start + page.len()].copy_from_slice(page);
        }
    }
}

/// The pages that a stretch of bytes covers.
fn pages(stretch: &Range<usize>) -> Range<usize> {
    stretch.start / PAGE_BYTES..stretch.end.div_ceil(PAGE_BYTES)
}
