//! `mla_latent.wgsl`: appends a row's latent and roped k_pe to its slot's cache.

use super::rmsnorm::Columns;
use super::slots::{SLOTS, Slots};
use super::{STEP, Target, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

const WG: u32 = 128;

/// How cached latents are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheFormat {
    F32,
    F16,
    /// int8 with an f16 scale for each 32 columns; a roped k_pe of latent attention in f16.
    Q8,
}

impl CacheFormat {
    /// The name used on the command line.
    pub fn name(self) -> &'static str {
        match self {
            CacheFormat::F32 => "f32",
            CacheFormat::F16 => "f16",
            CacheFormat::Q8 => "q8",
        }
    }
}

/// The numbers of a cache. A position has a row for each kv head; of a row's columns the first are what values are of, and
/// the last are the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    pub format: CacheFormat,
    /// Columns in the format: kv_lora_rank; for grouped queries a value, padded, and a key.
    pub latent: usize,
    /// Columns after them, which [`CacheFormat::Q8`] keeps in f16: qk_rope_head_dim, or none.
    pub rope: usize,
    /// Positions of a slot.
    pub context: usize,
    /// Rows of a position.
    pub kv_heads: usize,
    /// Columns of a value, from the first on.
    pub values: usize,
    /// The first column of a key: whole quads, and for [`CacheFormat::Q8`] whole groups.
    pub keys_from: usize,
}

impl CacheShape {
    /// Of latent attention: all heads share a row `[latent | roped k_pe]`, which is their key, and its latent their value.
    pub fn mla(format: CacheFormat, latent: usize, rope: usize, context: usize) -> Self {
        Self { format, latent, rope, context, kv_heads: 1, values: latent, keys_from: 0 }
    }

    /// Of grouped queries: `[v | k]` for each kv head. A group of int8, or a cooperative matrix, has columns of one of them.
    pub fn gqa(format: CacheFormat, kv_heads: usize, head_dim: usize, v_head_dim: usize, context: usize) -> Self {
        let whole = match format {
            CacheFormat::F32 => 4,
            CacheFormat::F16 => 16,
            CacheFormat::Q8 => 32,
        };
        let keys_from = v_head_dim.next_multiple_of(whole);
        Self { format, latent: keys_from + head_dim, rope: 0, context, kv_heads, values: v_head_dim, keys_from }
    }

    /// Quads of a key, and so of a query.
    pub fn key_quads(&self) -> usize {
        self.row_quads() - self.keys_from / 4
    }

    /// Quads of a value, and so of a sum of values.
    pub fn value_quads(&self) -> usize {
        self.values.div_ceil(4)
    }

    /// u32 of a position.
    pub fn position_words(&self) -> usize {
        self.kv_heads * self.row_words()
    }

    pub fn latent_quads(&self) -> usize {
        self.latent.div_ceil(4)
    }

    pub fn rope_quads(&self) -> usize {
        self.rope.div_ceil(4)
    }

    /// Quads of an unpacked cached row.
    pub fn row_quads(&self) -> usize {
        self.latent_quads() + self.rope_quads()
    }

    /// u32 of a cached row: whole loads of 16 bytes, the last words zero where the numbers do not fill them.
    pub fn row_words(&self) -> usize {
        let words = match self.format {
            CacheFormat::F32 => 4 * self.row_quads(),
            CacheFormat::F16 => 2 * self.row_quads(),
            CacheFormat::Q8 => self.latent_quads() + self.latent_quads().div_ceil(16) + 2 * self.rope_quads(),
        };
        words.next_multiple_of(4)
    }

    /// Bytes of a slot.
    pub fn slot_bytes(&self) -> u64 {
        4 * self.position_words() as u64 * self.context as u64
    }

    /// The shader part that reads a row.
    pub(crate) fn source(&self) -> &'static str {
        match self.format {
            CacheFormat::F32 => shader!("parts/cache_f32.wgsl"),
            CacheFormat::F16 => shader!("parts/cache_f16.wgsl"),
            CacheFormat::Q8 => shader!("parts/cache_q8.wgsl"),
        }
    }

    /// The shader part that reads rows as f16, for cooperative matrices: not of f32.
    pub(crate) fn coop_source(&self) -> &'static str {
        if self.format == CacheFormat::Q8 {
            shader!("parts/coop_cache_q8.wgsl")
        } else {
            shader!("parts/coop_cache_f16.wgsl")
        }
    }

    /// The shader part that writes a row.
    pub(crate) fn store_source(&self) -> &'static str {
        match self.format {
            CacheFormat::F32 => shader!("parts/cache_store_f32.wgsl"),
            CacheFormat::F16 => shader!("parts/cache_store_f16.wgsl"),
            CacheFormat::Q8 => shader!("parts/cache_store_q8.wgsl"),
        }
    }
}

/// `latents[slot, position] = [c | rope(k_pe)]`.
#[derive(Debug)]
pub struct MlaLatent<'a> {
    pub step: &'a Buffer,
    pub shape: CacheShape,
    /// Rows that hold the latent.
    pub c: Columns<'a>,
    /// Rows that hold k_pe; another buffer than `c`'s only when the latent was normed.
    pub k_pe: Columns<'a>,
    /// See [`super::rope::turns`].
    pub turns: &'a Buffer,
    /// `[context, row_words]` of each slot.
    pub latents: &'a Slots,
}

impl MlaLatent<'_> {
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let s = self.shape;
        assert!(self.c.offset + s.latent <= self.c.stride, "{label}: the latent ends outside of its row");
        assert!(self.k_pe.offset + s.rope <= self.k_pe.stride, "{label}: k_pe ends outside of its row");
        self.latents.assert_each(s.row_words() * s.context, "mla_latent.latents");
        let [first_slot, slots] = self.latents.params();
        let params = [
            s.latent as u32,
            s.rope as u32,
            s.latent_quads() as u32,
            s.rope_quads() as u32,
            self.c.stride as u32,
            self.c.offset as u32,
            self.k_pe.stride as u32,
            self.k_pe.offset as u32,
            s.row_words() as u32,
            s.context as u32,
            first_slot,
            slots,
        ];
        dispatch(
            label,
            "mla_latent",
            vec![shader!("mla_latent.wgsl"), shader!("parts/rope.wgsl"), s.store_source(), SLOTS, STEP],
            target.constants(vec![("WG", f64::from(WG)), ("ROW_QUADS", s.row_quads() as f64)]),
            &params,
            bindings(self.step, &[self.c.buffer, self.k_pe.buffer, self.turns], &[&self.latents.buffer]),
            Grid::new(Extent::Fixed(1), Extent::Rows { per: 1 }),
        )
        .costs(Cost { row_bytes: 4 * (s.latent + s.rope + s.row_words()), ..Cost::default() })
    }
}
