//! What a slot carries from one step to the next: cached rows of attention layers, states of recurrent ones.

use super::mixer::Mixer;
use crate::gpu::{Buffer, Purpose};

/// How a layer's carried state grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// A row a position, in the order of the positions: kept by length.
    Rows { bytes: u64, context: u32 },
    /// Of one size, overwritten by every token.
    Whole { bytes: u64 },
}

impl Kept {
    /// Bytes of a slot.
    pub fn slot_bytes(self) -> u64 {
        match self {
            Kept::Rows { bytes, context } => bytes * u64::from(context),
            Kept::Whole { bytes } => bytes,
        }
    }
}

/// The carried state of one layer: `[slots, slot_bytes]`.
#[derive(Debug, Clone)]
pub struct Carried {
    pub buffer: Buffer,
    pub kept: Kept,
}

impl Carried {
    /// Bytes that it grows by with each position.
    pub fn position_bytes(&self) -> u64 {
        match self.kept {
            Kept::Rows { bytes, .. } => bytes,
            Kept::Whole { .. } => 0,
        }
    }

    /// Bytes of a slot that every token overwrites.
    pub fn recurrent_bytes(&self) -> u64 {
        match self.kept {
            Kept::Rows { .. } => 0,
            Kept::Whole { bytes } => bytes,
        }
    }

    /// Where a slot's begins.
    pub fn slot_offset(&self, slot: u32) -> u64 {
        u64::from(slot) * self.kept.slot_bytes()
    }
}

/// The carried states of all layers.
#[derive(Debug, Clone)]
pub struct State {
    pub layers: Vec<Carried>,
}

impl State {
    pub(super) fn new<'a>(mixers: impl Iterator<Item = &'a dyn Mixer>, slots: u32) -> Self {
        let layer = |(i, mixer): (usize, &dyn Mixer)| {
            let kept = mixer.kept();
            let (name, purpose) = match kept {
                Kept::Rows { .. } => ("cache", Purpose::Latents),
                Kept::Whole { .. } => ("state", Purpose::States),
            };
            let buffer = Buffer::new(format!("layer{i}.{name}"), u64::from(slots) * kept.slot_bytes(), purpose);
            Carried { buffer, kept }
        };
        Self { layers: mixers.enumerate().map(layer).collect() }
    }

    pub fn buffers(&self) -> Vec<Buffer> {
        self.layers.iter().map(|layer| layer.buffer.clone()).collect()
    }

    /// Bytes of the recurrent states of one slot.
    pub fn recurrent_bytes(&self) -> u64 {
        self.layers.iter().map(Carried::recurrent_bytes).sum()
    }

    /// Bytes of the cached rows of one position.
    pub fn position_bytes(&self) -> u64 {
        self.layers.iter().map(Carried::position_bytes).sum()
    }
}
