//! What a slot carries from one step to the next: cached rows of attention layers, states of recurrent ones.

use super::mixer::Mixer;
use crate::gpu::{Buffer, Cost, Dispatch, Limits, Purpose};
use crate::kernels::slots::Slots;
use crate::{Error, Result};

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

/// The carried state of one layer.
#[derive(Debug, Clone)]
pub struct Carried {
    /// In the order of the slots: cached rows are cut where one binding is too small for those of all slots.
    pub pieces: Vec<Slots>,
    pub kept: Kept,
}

impl Carried {
    /// Cuts what `slots` slots of a layer carry, so that no binding is over `most` bytes.
    fn new(layer: usize, kept: Kept, slots: u32, most: u64) -> Result<Self> {
        let slot = kept.slot_bytes();
        let fit = u32::try_from(most / slot.max(1)).unwrap_or(u32::MAX).min(slots);
        let refused = |what: String, need: u64, advice: String| {
            Err(Error::Limit { what, limit: "largest binding".into(), need, have: most, advice })
        };
        let (name, purpose) = match kept {
            Kept::Rows { bytes, context } if fit == 0 => {
                let what = format!("cache of layer {layer} for {context} positions of one slot");
                return refused(what, slot, format!("a context of {} fits", most / bytes));
            }
            Kept::Whole { .. } if fit < slots => {
                let what = format!("states of layer {layer} for {slots} slots");
                return refused(what, u64::from(slots) * slot, format!("{fit} slots fit"));
            }
            Kept::Rows { .. } => ("cache", Purpose::Latents),
            Kept::Whole { .. } => ("state", Purpose::States),
        };
        // As many pieces as must be, of as many slots each as can be the same.
        let each = slots.div_ceil(slots.div_ceil(fit));
        let piece = |first: u32| {
            let count = each.min(slots - first);
            let part = if each < slots { format!("[{first}..{}]", first + count) } else { String::new() };
            let buffer = Buffer::new(format!("layer{layer}.{name}{part}"), u64::from(count) * slot, purpose);
            Slots { buffer, first, count }
        };
        Ok(Self { pieces: (0..slots).step_by(each as usize).map(piece).collect(), kept })
    }

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

    /// The buffer that has a slot, and the byte where the slot begins.
    pub fn of_slot(&self, slot: u32) -> (&Buffer, u64) {
        // All pieces but the last have as many slots as the first.
        let piece = &self.pieces[(slot / self.pieces[0].count) as usize];
        (&piece.buffer, u64::from(slot - piece.first) * self.kept.slot_bytes())
    }

    /// The buffer of all slots, where they are never cut.
    pub(super) fn whole(&self) -> &Buffer {
        assert!(self.pieces.len() == 1, "{:?} is cut", self.kept);
        &self.pieces[0].buffer
    }

    /// A dispatch for each piece. The first tells what all of them cost.
    pub(super) fn dispatches(&self, make: impl Fn(&Slots) -> Dispatch) -> Vec<Dispatch> {
        let mut all: Vec<Dispatch> = self.pieces.iter().map(make).collect();
        for further in all.iter_mut().skip(1) {
            further.forced_by_limits = true;
            further.cost = Cost::default();
        }
        all
    }
}

/// The carried states of all layers.
#[derive(Debug, Clone)]
pub struct State {
    pub layers: Vec<Carried>,
}

impl State {
    /// # Errors
    /// [`Error::Limit`] for a layer that the adapter cannot bind.
    pub(super) fn new<'a>(mixers: impl Iterator<Item = &'a dyn Mixer>, slots: u32, limits: &Limits) -> Result<Self> {
        let most = limits.binding.min(limits.buffer);
        let carried = |(i, mixer): (usize, &dyn Mixer)| Carried::new(i, mixer.kept(), slots, most);
        Ok(Self { layers: mixers.enumerate().map(carried).collect::<Result<_>>()? })
    }

    pub fn buffers(&self) -> Vec<Buffer> {
        self.layers.iter().flat_map(|layer| &layer.pieces).map(|piece| piece.buffer.clone()).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots of each piece.
    fn cut(kept: Kept, slots: u32, most: u64) -> Result<Vec<u32>> {
        let carried = Carried::new(3, kept, slots, most)?;
        let mut next = 0;
        for piece in &carried.pieces {
            assert_eq!(piece.first, next);
            assert_eq!(piece.buffer.size(), u64::from(piece.count) * kept.slot_bytes());
            assert!(piece.buffer.size() <= most);
            for slot in piece.first..piece.first + piece.count {
                let (buffer, offset) = carried.of_slot(slot);
                assert!(buffer.same(&piece.buffer) && offset == u64::from(slot - piece.first) * kept.slot_bytes());
            }
            next += piece.count;
        }
        assert_eq!(next, slots);
        Ok(carried.pieces.iter().map(|piece| piece.count).collect())
    }

    #[test]
    fn rows_are_cut_by_slots() {
        let rows = Kept::Rows { bytes: 64, context: 10 };
        for (slots, most, pieces) in [
            (1, 640, vec![1]),
            (7, 7 * 640, vec![7]),
            (7, 7 * 640 - 1, vec![4, 3]),
            (7, 3 * 640, vec![3, 3, 1]),
            (7, 640, vec![1; 7]),
            (6, 4 * 640, vec![3, 3]),
            (6, 1279, vec![1; 6]),
            (5, u64::MAX, vec![5]),
        ] {
            assert_eq!(cut(rows, slots, most).expect("fits"), pieces, "{slots} slots, {most} bytes");
        }
        // Llama 8B, q8, 32,768 positions in 48 slots, where NVIDIA binds 2 GiB.
        let llama = Kept::Rows { bytes: 8 * 17 * 16, context: 32_768 };
        assert_eq!(cut(llama, 48, (2 << 30) - 1).expect("fits"), [24, 24]);
        let error = cut(rows, 2, 639).expect_err("too small").to_string();
        for part in ["cache of layer 3 for 10 positions of one slot", "640", "639", "a context of 9 fits"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn states_are_not_cut() {
        let state = Kept::Whole { bytes: 4096 };
        assert_eq!(cut(state, 3, 3 * 4096).expect("fits"), [3]);
        for (most, fit) in [(3 * 4096 - 1, 2), (4095, 0)] {
            let error = cut(state, 3, most).expect_err("too small").to_string();
            for part in ["states of layer 3 for 3 slots", "12288", &most.to_string(), &format!("{fit} slots fit")] {
                assert!(error.contains(part), "{error}");
            }
        }
    }
}
