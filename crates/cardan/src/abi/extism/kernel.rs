//! The host's side of the kernel's memory.
//!
//! The same allocator as `kernel.wat`, word for word, on the bytes of its memory. Host functions run
//! inside a guest's call, suspended or not, and wasmtime lets nobody enter WebAssembly there; and a call
//! into WebAssembly would cost more than the work. A property test holds the two together.
//!
//! Guests can write over everything but the first 512 bytes, so nothing read here is trusted: every
//! offset goes through a checked slice.

#[cfg(test)]
mod tests;

use wasmtime::{AsContext, AsContextMut, Memory};

const POSITION: usize = 8;
const ERROR: usize = 16;
const INPUT_OFFSET: usize = 24;
const INPUT_LENGTH: usize = 32;
const OUTPUT_OFFSET: usize = 40;
const OUTPUT_LENGTH: usize = 48;
const NONEMPTY: usize = 56;
const HEADS: usize = 64;
const RETIRED: usize = 320;
/// First address that guests may load from and store to.
const VISIBLE: u64 = 512;
const HEADER: u64 = 16;
const LIVE: u64 = 0x6d61_6452_6143_6c76;
const PAGE: u64 = 1 << 16;
/// Largest allocation, and the end of the bump area.
const ALLOC_MAX: u64 = 0xffff_0000;
const END_MAX: u64 = 0xffff_fff8;

/// The memory of one instance's kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel {
    memory: Memory,
}

impl Kernel {
    pub(super) fn new(memory: Memory) -> Self {
        Self { memory }
    }

    pub(super) fn memory(self) -> Memory {
        self.memory
    }

    /// Starts a call: forgets everything of the last one and hands over the input. `false` when there is
    /// no room for it.
    pub(super) fn begin(self, mut store: impl AsContextMut, input: &[u8]) -> wasmtime::Result<bool> {
        reset(self.memory.data_mut(&mut store));
        if input.is_empty() {
            return Ok(true);
        }
        let at = self.store_bytes(&mut store, input)?;
        let bytes = self.memory.data_mut(&mut store);
        put(bytes, INPUT_OFFSET, at);
        put(bytes, INPUT_LENGTH, if at == 0 { 0 } else { input.len() as u64 });
        Ok(at != 0)
    }

    /// Copies `bytes` into a new block and returns its handle; 0 when there are none, or no room.
    pub(super) fn store_bytes(self, mut store: impl AsContextMut, bytes: &[u8]) -> wasmtime::Result<u64> {
        let at = self.alloc(&mut store, bytes.len() as u64)?;
        if let Some(block) = slice_mut(self.memory.data_mut(&mut store), at, bytes.len() as u64) {
            block.copy_from_slice(bytes);
        }
        Ok(at)
    }

    /// A new block of `length` bytes; 0 when there is no room.
    ///
    /// # Errors
    ///
    /// When a limiter refused to grow the memory in a way that ends the call.
    pub(super) fn alloc(self, mut store: impl AsContextMut, length: u64) -> wasmtime::Result<u64> {
        if length == 0 || length > ALLOC_MAX {
            return Ok(0);
        }
        let size = (length + 7) & !7;
        let reused = reuse(self.memory.data_mut(&mut store), size);
        let handle = match reused {
            Some(handle) => handle,
            None => self.bump(&mut store, size)?,
        };
        if handle != 0 {
            let bytes = self.memory.data_mut(&mut store);
            put(bytes, index(handle - HEADER), handle ^ LIVE);
            put_u32(bytes, index(handle - 4), length);
        }
        Ok(handle)
    }

    fn bump(self, mut store: impl AsContextMut, size: u64) -> wasmtime::Result<u64> {
        let position = get(self.memory.data(&store), POSITION).max(VISIBLE);
        let Some(end) = position.checked_add(HEADER + size).filter(|&end| end <= END_MAX) else {
            return Ok(0);
        };
        let have = self.memory.data_size(&store) as u64;
        if end > have {
            let bytes = self.memory.data_mut(&mut store);
            if release(bytes)
                && let Some(handle) = reuse(bytes, size)
            {
                return Ok(handle);
            }
            let grown = self.memory.grow(&mut store, (end - have).div_ceil(PAGE));
            if let Err(error) = grown {
                // A limiter's own error ends the call; that the memory is full does not.
                return if error.is::<crate::limits::Exceeded>() { Err(error) } else { Ok(0) };
            }
        }
        let bytes = self.memory.data_mut(&mut store);
        put(bytes, POSITION, end);
        put_u32(bytes, index(position + HEADER - 8), size);
        Ok(position + HEADER)
    }

    /// Length of the block with this handle; `None` unless it is live.
    pub(super) fn length(self, store: impl AsContext, handle: u64) -> Option<u64> {
        live(self.memory.data(&store), handle)
    }

    /// Gives a block back. Anything but a live handle is ignored. The guest may free it once more, so it
    /// is not reused while there is other room.
    pub(super) fn free(self, mut store: impl AsContextMut, handle: u64) {
        let bytes = self.memory.data_mut(&mut store);
        if live(bytes, handle).is_none() {
            return;
        }
        put(bytes, index(handle - HEADER), 0);
        if get(bytes, INPUT_OFFSET) == handle {
            put(bytes, INPUT_LENGTH, 0);
        }
        let next = get_u32(bytes, RETIRED);
        put_u32(bytes, index(handle - HEADER), next);
        put_u32(bytes, RETIRED, handle);
    }

    /// The bytes of a live block; `None` for anything else.
    pub(super) fn block<'a, T: 'static>(
        self,
        store: impl Into<wasmtime::StoreContext<'a, T>>,
        handle: u64,
    ) -> Option<&'a [u8]> {
        let bytes = self.memory.data(store);
        slice(bytes, handle, live(bytes, handle)?)
    }

    /// What the guest set as its output, as far as it lies inside the memory.
    pub(super) fn output<'a, T: 'static>(self, store: impl Into<wasmtime::StoreContext<'a, T>>) -> &'a [u8] {
        let bytes = self.memory.data(store);
        slice(bytes, get(bytes, OUTPUT_OFFSET), get(bytes, OUTPUT_LENGTH)).unwrap_or_default()
    }

    /// What the guest set as its error: nothing, or the bytes of the block, none if it is no block.
    pub(super) fn error<'a, T: 'static>(
        self,
        store: impl Into<wasmtime::StoreContext<'a, T>>,
    ) -> Option<&'a [u8]> {
        let bytes = self.memory.data(store);
        match get(bytes, ERROR) {
            0 => None,
            handle => {
                let length = live(bytes, handle).unwrap_or(0);
                Some(slice(bytes, handle, length).unwrap_or_default())
            }
        }
    }
}

fn reset(bytes: &mut [u8]) {
    let used = index(get(bytes, POSITION).max(VISIBLE)).min(bytes.len());
    bytes[..used].fill(0);
}

fn live(bytes: &[u8], handle: u64) -> Option<u64> {
    let tag = handle.checked_sub(HEADER).filter(|&tag| tag >= VISIBLE)?;
    let header = slice(bytes, tag, HEADER + 8)?;
    (get(header, 0) == handle ^ LIVE).then(|| get_u32(header, 12))
}

/// Makes the blocks that the host has freed available. Returns whether there were any.
fn release(bytes: &mut [u8]) -> bool {
    let mut handle = get_u32(bytes, RETIRED);
    put_u32(bytes, RETIRED, 0);
    let any = handle != 0;
    // A list that the guest has tied into a ring ends where no more blocks would have room.
    for _ in 0..bytes.len() / index(HEADER + 8) {
        if handle < VISIBLE + HEADER || slice(bytes, handle, 8).is_none() {
            break;
        }
        let next = get_u32(bytes, index(handle - HEADER));
        push(bytes, handle);
        handle = next;
    }
    any
}

/// Puts a block that is no longer live onto the list for its size.
fn push(bytes: &mut [u8], handle: u64) {
    let class = class(get_u32(bytes, index(handle - 8)) | 8);
    let next = get_u32(bytes, head(class));
    put_u32(bytes, index(handle - HEADER), next);
    put_u32(bytes, head(class), handle);
    let nonempty = get(bytes, NONEMPTY) | 1 << class;
    put(bytes, NONEMPTY, nonempty);
}

/// Takes a free block of at least `size` bytes and at most about twice that.
fn reuse(bytes: &mut [u8], size: u64) -> Option<u64> {
    let class = class(size);
    let mut candidates = get(bytes, NONEMPTY) & (7 << class);
    // In the request's own list only the first block is looked at, and it may be too small.
    if candidates & (1 << class) != 0 {
        let first = get_u32(bytes, head(class));
        if get_u32(bytes, index(first.checked_sub(8)?)) >= size {
            return pop(bytes, class);
        }
        candidates &= candidates - 1;
    }
    if candidates == 0 { None } else { pop(bytes, u64::from(candidates.trailing_zeros())) }
}

fn pop(bytes: &mut [u8], class: u64) -> Option<u64> {
    let handle = get_u32(bytes, head(class));
    // A list that the guest has overwritten ends here.
    let valid = handle >= VISIBLE + HEADER && slice(bytes, handle, 8).is_some();
    let next = if valid { get_u32(bytes, index(handle - HEADER)) } else { 0 };
    put_u32(bytes, head(class), next);
    if next == 0 {
        let nonempty = get(bytes, NONEMPTY) & !(1 << class);
        put(bytes, NONEMPTY, nonempty);
    }
    valid.then_some(handle)
}

/// The free list for blocks of `size` bytes: twice the logarithm, plus the next bit.
fn class(size: u64) -> u64 {
    let log = u64::from(size.max(8).ilog2());
    (log - 3) * 2 + (size >> (log - 1) & 1)
}

fn head(class: u64) -> usize {
    HEADS + index(class & 63) * 4
}

/// Offsets beyond what an address can be end up outside every memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn slice(bytes: &[u8], at: u64, length: u64) -> Option<&[u8]> {
    bytes.get(index(at)..)?.get(..index(length))
}

fn slice_mut(bytes: &mut [u8], at: u64, length: u64) -> Option<&mut [u8]> {
    if at == 0 {
        return None;
    }
    bytes.get_mut(index(at)..)?.get_mut(..index(length))
}

fn get(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    word.map_or(0, |word| u64::from_le_bytes(*word))
}

fn get_u32(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    word.map_or(0, |word| u64::from(u32::from_le_bytes(*word)))
}

fn put(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(word) = bytes.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut()) {
        *word = value.to_le_bytes();
    }
}

fn put_u32(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(word) = bytes.get_mut(at..).and_then(|bytes| bytes.first_chunk_mut()) {
        *word = u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    }
}
