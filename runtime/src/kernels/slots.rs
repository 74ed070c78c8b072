//! `parts/slots.wgsl`: which slots' cached rows a dispatch binds.

use super::{assert_words, shader};
use crate::gpu::Buffer;

/// What some slots carry, in a buffer of its own: all of them, or as many as one binding holds.
#[derive(Debug, Clone)]
pub struct Slots {
    /// `[count, what a slot carries]`.
    pub buffer: Buffer,
    /// The first of them, of all slots.
    pub first: u32,
    pub count: u32,
}

impl Slots {
    /// `count` slots, which are all.
    pub fn all(buffer: &Buffer, count: u32) -> Self {
        Self { buffer: buffer.clone(), first: 0, count }
    }

    /// The numbers that end the `Params` of a kernel which is joined to the part: `first_slot` and `slots`.
    pub(super) fn params(&self) -> [u32; 2] {
        [self.first, self.count]
    }

    /// Checks that the buffer has so many words for each slot.
    pub(super) fn assert_each(&self, words: usize, what: &str) {
        assert_words(&self.buffer, u64::from(self.count) * words as u64, what);
    }
}

/// The shader part.
pub(super) const SLOTS: &str = shader!("parts/slots.wgsl");
