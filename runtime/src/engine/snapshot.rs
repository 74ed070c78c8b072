//! A slot's state as a value.
//!
//! Recurrent states are copied: a scan cannot be rewound. Latent rows are kept in blocks that snapshots of one history
//! share: a snapshot copies only the rows since the last one of its slot, and restoring it copies back only the blocks
//! that the slot does not still hold in place.

use std::cell::RefCell;
use std::rc::Rc;

use crate::gpu::{Buffer, Gpu, Purpose};
use crate::model::{Carried, Model};
use crate::{Error, Result};

/// A slot as it was after its tokens were read.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) history: History,
    states: Rc<Stored>,
    blocks: Vec<Rc<Block>>,
}

/// What a slot has read and what comes next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Tokens the model has read, in order.
    pub tokens: Vec<u32>,
    /// A sampled token that it has not read yet.
    pub pending: Option<u32>,
    /// Tokens sampled in the answer under way: what the random numbers and penalties count from.
    pub answer_index: u32,
}

/// Latent rows `start..start + len` of every MLA layer, layer after layer.
#[derive(Debug)]
pub(super) struct Block {
    start: usize,
    len: usize,
    rows: Stored,
}

impl Block {
    fn end(&self) -> usize {
        self.start + self.len
    }
}

/// Bytes that were copied off a slot, on the GPU or in host memory.
#[derive(Debug)]
struct Stored {
    place: RefCell<Place>,
}

#[derive(Debug)]
enum Place {
    Gpu(Held),
    Host(Vec<u8>),
}

/// A GPU buffer that leaves the account when it is dropped.
struct Held {
    gpu: Gpu,
    buffer: Buffer,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.buffer.fmt(f)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gpu.release(std::slice::from_ref(&self.buffer));
    }
}

/// A part of a slot: (buffer, byte offset, bytes).
type Range<'a> = (&'a Buffer, u64, u64);

impl Stored {
    /// Copies the ranges, one after the other.
    async fn copy_from(gpu: &Gpu, label: &str, ranges: &[Range<'_>]) -> Result<Self> {
        let size = ranges.iter().map(|r| r.2).sum();
        let buffer = Buffer::new(label, size, Purpose::States);
        gpu.allocate(std::slice::from_ref(&buffer)).await?;
        let mut at = 0;
        let mut copies = Vec::new();
        for (from, offset, size) in ranges {
            copies.push((*from, *offset, &buffer, at, *size));
            at += size;
        }
        gpu.copy(&copies);
        Ok(Self { place: RefCell::new(Place::Gpu(Held { gpu: gpu.clone(), buffer })) })
    }

    /// Copies everything back to where it came from.
    fn copy_to(&self, gpu: &Gpu, ranges: &[Range<'_>]) {
        let mut at = 0;
        match &*self.place.borrow() {
            Place::Gpu(held) => {
                let mut copies = Vec::new();
                for (to, offset, size) in ranges {
                    copies.push((&held.buffer, at, *to, *offset, *size));
                    at += size;
                }
                gpu.copy(&copies);
            }
            Place::Host(bytes) => {
                for (to, offset, size) in ranges {
                    gpu.write(to, *offset, &bytes[at as usize..(at + size) as usize]);
                    at += size;
                }
            }
        }
    }

    fn gpu_bytes(&self) -> u64 {
        match &*self.place.borrow() {
            Place::Gpu(held) => held.buffer.size(),
            Place::Host(_) => 0,
        }
    }

    async fn move_to_host(&self) -> Result<()> {
        let (gpu, buffer) = match &*self.place.borrow() {
            Place::Gpu(held) => (held.gpu.clone(), held.buffer.clone()),
            Place::Host(_) => return Ok(()),
        };
        let bytes = gpu.read(&buffer, 0..buffer.size()).await?;
        *self.place.borrow_mut() = Place::Host(bytes);
        Ok(())
    }
}

impl Snapshot {
    /// Tokens read.
    pub fn tokens(&self) -> &[u32] {
        &self.history.tokens
    }

    /// GPU bytes it holds; blocks that it shares with other snapshots count for each.
    pub fn gpu_bytes(&self) -> u64 {
        self.states.gpu_bytes() + self.blocks.iter().map(|b| b.rows.gpu_bytes()).sum::<u64>()
    }

    /// Moves it to host memory; it restores as before.
    pub async fn move_to_host(&self) -> Result<()> {
        self.states.move_to_host().await?;
        for block in &self.blocks {
            block.rows.move_to_host().await?;
        }
        Ok(())
    }

    /// Copies a slot. `in_place` are the blocks that hold its first rows; the new one is added.
    pub(super) async fn take(
        model: &Model,
        slot: u32,
        history: &History,
        in_place: &mut Vec<Rc<Block>>,
    ) -> Result<Self> {
        let gpu = model.gpu();
        let states = Rc::new(Stored::copy_from(gpu, "snapshot", &state_ranges(model, slot)).await?);
        let start = in_place.last().map_or(0, |b| b.end());
        let len = history.tokens.len() - start;
        if len > 0 && model.plan().state.position_bytes() > 0 {
            let rows = Stored::copy_from(gpu, "snapshot rows", &row_ranges(model, slot, start, len)).await?;
            in_place.push(Rc::new(Block { start, len, rows }));
        }
        Ok(Self { history: history.clone(), states, blocks: in_place.clone() })
    }

    /// Brings a slot to this state. `in_place` are the blocks that the slot holds, and becomes the snapshot's.
    pub(super) fn restore(&self, model: &Model, slot: u32, in_place: &mut Vec<Rc<Block>>) -> Result<()> {
        let plan = &model.plan().options;
        if self.history.tokens.len() > plan.context as usize {
            let (need, have) = (self.history.tokens.len(), plan.context as usize);
            return Err(Error::Context { need, have, advice: "the snapshot is of a longer context".into() });
        }
        let ranges = state_ranges(model, slot);
        self.states.copy_to(model.gpu(), &ranges);
        let held = self.blocks.iter().zip(&*in_place).take_while(|(a, b)| Rc::ptr_eq(a, b)).count();
        for block in &self.blocks[held..] {
            block.rows.copy_to(model.gpu(), &row_ranges(model, slot, block.start, block.len));
        }
        in_place.clone_from(&self.blocks);
        Ok(())
    }
}

/// The recurrent states of a slot.
fn state_ranges(model: &Model, slot: u32) -> Vec<Range<'_>> {
    let ranges = model.plan().state.layers.iter().filter_map(|carried| match carried {
        Carried::Ssm { buffer, shape } => {
            let bytes = 4 * shape.state() as u64;
            Some((buffer, u64::from(slot) * bytes, bytes))
        }
        Carried::Latents { .. } => None,
    });
    ranges.collect()
}

/// Rows of a slot's latents.
fn row_ranges(model: &Model, slot: u32, start: usize, len: usize) -> Vec<Range<'_>> {
    let ranges = model.plan().state.layers.iter().filter_map(|carried| match carried {
        Carried::Latents { buffer, shape } => {
            let row = 4 * shape.row_words() as u64;
            Some((buffer, u64::from(slot) * shape.slot_bytes() + start as u64 * row, len as u64 * row))
        }
        Carried::Ssm { .. } => None,
    });
    ranges.collect()
}
