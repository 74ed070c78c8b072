//! Buffers that know their size and purpose before they exist.

use std::cell::OnceCell;
use std::fmt;
use std::rc::Rc;

/// What a buffer's memory is for, as `info` and `bench` report it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Weights, scales and norms.
    Weights,
    /// Cached latents of the MLA layers.
    Latents,
    /// Recurrent and convolution states of the Mamba2 layers.
    States,
    /// Rows on their way through a step, and logits.
    Activations,
    /// Step tables, sampling settings, parameters and readback.
    Control,
}

impl Purpose {
    /// Every purpose, in the order reports use.
    pub const ALL: [Purpose; 5] =
        [Purpose::Weights, Purpose::Latents, Purpose::States, Purpose::Activations, Purpose::Control];

    /// The lower-case name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Purpose::Weights => "weights",
            Purpose::Latents => "latents",
            Purpose::States => "states",
            Purpose::Activations => "activations",
            Purpose::Control => "control",
        }
    }
}

/// A storage buffer: a label, a size in bytes (a multiple of 4) and a purpose; the GPU's own buffer once allocated.
/// Clones are the same buffer.
#[derive(Clone)]
pub struct Buffer(Rc<Inner>);

struct Inner {
    label: String,
    size: u64,
    purpose: Purpose,
    raw: OnceCell<wgpu::Buffer>,
}

impl Buffer {
    /// Describes a buffer of at least `size` bytes (rounded up to 16, which is also the least a binding may have).
    pub fn new(label: impl Into<String>, size: u64, purpose: Purpose) -> Self {
        let size = size.next_multiple_of(16).max(16);
        Self(Rc::new(Inner { label: label.into(), size, purpose, raw: OnceCell::new() }))
    }

    /// The name used in errors and GPU captures.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// What the memory is for.
    pub fn purpose(&self) -> Purpose {
        self.0.purpose
    }

    /// Whether both names mean one buffer.
    pub fn same(&self, other: &Buffer) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether the GPU's buffer has been made.
    pub fn is_allocated(&self) -> bool {
        self.0.raw.get().is_some()
    }

    pub(super) fn set_raw(&self, raw: wgpu::Buffer) {
        assert!(self.0.raw.set(raw).is_ok(), "buffer {} was allocated twice", self.0.label);
    }

    /// The GPU's buffer.
    ///
    /// # Panics
    /// When the buffer was never allocated: a defect of the plan, not of a user.
    pub(super) fn raw(&self) -> &wgpu::Buffer {
        match self.0.raw.get() {
            Some(raw) => raw,
            None => panic!("buffer {} is used before it was allocated", self.0.label),
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}, {} bytes)", self.0.label, self.0.size)
    }
}
