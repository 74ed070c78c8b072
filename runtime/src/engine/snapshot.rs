//! A slot's state as a value.
//!
//! Recurrent states are copied: a scan cannot be rewound. Latent rows are kept in blocks that snapshots of one history
//! share: a snapshot copies only the rows since the last one of its slot, and restoring it copies back only the blocks
//! that the slot does not still hold in place.

use std::cell::RefCell;
use std::rc::Rc;

use crate::gpu::{Buffer, Gpu, Purpose};
use crate::model::{Kept, Model};
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

/// Bytes that were copied off a slot: on the GPU, in host memory, or both.
#[derive(Debug)]
struct Stored {
    gpu: RefCell<Option<Held>>,
    host: RefCell<Option<Vec<u8>>>,
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
        let held = Held { gpu: gpu.clone(), buffer };
        Ok(Self { gpu: RefCell::new(Some(held)), host: RefCell::new(None) })
    }

    /// Copies everything back to where it came from.
    fn copy_to(&self, gpu: &Gpu, ranges: &[Range<'_>]) -> Result<()> {
        let mut at = 0;
        if let Some(held) = &*self.gpu.borrow() {
            let mut copies = Vec::new();
            for (to, offset, size) in ranges {
                copies.push((&held.buffer, at, *to, *offset, *size));
                at += size;
            }
            gpu.copy(&copies);
        } else if let Some(bytes) = &*self.host.borrow() {
            for (to, offset, size) in ranges {
                gpu.write(to, *offset, &bytes[at as usize..(at + size) as usize]);
                at += size;
            }
        } else {
            return Err(Error::Snapshot("it was lost with the GPU that held it".into()));
        }
        Ok(())
    }

    fn gpu_bytes(&self) -> u64 {
        self.gpu.borrow().as_ref().map_or(0, |held| held.buffer.size())
    }

    fn host_bytes(&self) -> u64 {
        self.host.borrow().as_ref().map_or(0, |bytes| bytes.len() as u64)
    }

    async fn mirror(&self) -> Result<()> {
        let (gpu, buffer) = match &*self.gpu.borrow() {
            Some(held) if self.host.borrow().is_none() => (held.gpu.clone(), held.buffer.clone()),
            _ => return Ok(()),
        };
        let bytes = gpu.read(&buffer, 0..buffer.size()).await?;
        *self.host.borrow_mut() = Some(bytes);
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
        self.stored().map(Stored::gpu_bytes).sum()
    }

    /// Bytes it holds in host memory, counted in the same way.
    pub fn host_bytes(&self) -> u64 {
        self.stored().map(Stored::host_bytes).sum()
    }

    /// Copies it to host memory too, where it outlives its GPU.
    pub async fn mirror(&self) -> Result<()> {
        for stored in self.stored() {
            stored.mirror().await?;
        }
        Ok(())
    }

    /// Gives back the GPU memory of what was mirrored.
    pub fn leave_gpu(&self) {
        for stored in self.stored().filter(|s| s.host_bytes() > 0) {
            stored.gpu.borrow_mut().take();
        }
    }

    /// Gives back the host memory of what is on the GPU and shared with none of `others`.
    pub(super) fn leave_host(&self, others: &[&Snapshot]) {
        for stored in self.stored().filter(|s| s.gpu_bytes() > 0) {
            if !others.iter().any(|other| other.stored().any(|s| std::ptr::eq(s, stored))) {
                stored.host.borrow_mut().take();
            }
        }
    }

    /// Forgets what was on a GPU that is gone.
    pub(super) fn lose_gpu(&self) {
        for stored in self.stored() {
            stored.gpu.borrow_mut().take();
        }
    }

    /// Whether it can be restored.
    pub fn is_held(&self) -> bool {
        self.stored().all(|s| s.gpu_bytes() > 0 || s.host_bytes() > 0)
    }

    fn stored(&self) -> impl Iterator<Item = &Stored> {
        std::iter::once(&*self.states).chain(self.blocks.iter().map(|b| &b.rows))
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
        self.states.copy_to(model.gpu(), &ranges)?;
        let held = self.blocks.iter().zip(&*in_place).take_while(|(a, b)| Rc::ptr_eq(a, b)).count();
        for block in &self.blocks[held..] {
            block.rows.copy_to(model.gpu(), &row_ranges(model, slot, block.start, block.len))?;
        }
        in_place.clone_from(&self.blocks);
        Ok(())
    }

    /// Brings a slot to this state and goes on with its cached rows, over and over, to `depth` positions.
    pub(super) fn repeat(&self, model: &Model, slot: u32, depth: usize) -> Result<()> {
        let (len, context) = (self.history.tokens.len(), model.plan().options.context as usize);
        if depth > context {
            let advice = "load with a longer context".into();
            return Err(Error::Context { need: depth, have: context, advice });
        }
        if len == 0 || len > depth {
            return Err(Error::Snapshot(format!("of {len} tokens, which cannot fill {depth} positions")));
        }
        self.states.copy_to(model.gpu(), &state_ranges(model, slot))?;
        for first in (0..depth).step_by(len) {
            // The last copy lies over the end of the one before it.
            let first = first.min(depth - len);
            for block in &self.blocks {
                block.rows.copy_to(model.gpu(), &row_ranges(model, slot, first + block.start, block.len))?;
            }
        }
        Ok(())
    }
}

/// The recurrent states of a slot.
fn state_ranges(model: &Model, slot: u32) -> Vec<Range<'_>> {
    let ranges = model.plan().state.layers.iter().filter_map(|carried| match carried.kept {
        Kept::Whole { bytes } => {
            let (buffer, offset) = carried.of_slot(slot);
            Some((buffer, offset, bytes))
        }
        Kept::Rows { .. } => None,
    });
    ranges.collect()
}

/// Cached rows of a slot.
fn row_ranges(model: &Model, slot: u32, start: usize, len: usize) -> Vec<Range<'_>> {
    let ranges = model.plan().state.layers.iter().filter_map(|carried| match carried.kept {
        Kept::Rows { bytes, .. } => {
            let (buffer, offset) = carried.of_slot(slot);
            Some((buffer, offset + start as u64 * bytes, len as u64 * bytes))
        }
        Kept::Whole { .. } => None,
    });
    ranges.collect()
}
