//! Sizes of grouped-query attention, as Llama configures it.

use super::object::Object;
use super::rope::{self, Rope};
use super::{MAX_HEAD_DIM, MAX_HEADS, MAX_WIDTH, TensorList};
use crate::Result;

/// Sizes of one layer of grouped-query attention.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionConfig {
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values; query head h uses kv head h / (heads / kv_heads).
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Columns of a head that are rotated, from the first on: pairs (i, i + rotary / 2).
    pub rotary: usize,
    pub rope: Rope,
}

impl AttentionConfig {
    /// Values cached for a token.
    pub fn cached(&self) -> usize {
        2 * self.kv_heads * self.head_dim
    }

    pub(super) fn tensors(&self, p: &str, hidden: usize, list: &mut TensorList) {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        list.matrix(format!("{p}q_proj.weight"), q, hidden);
        list.matrix(format!("{p}k_proj.weight"), kv, hidden);
        list.matrix(format!("{p}v_proj.weight"), kv, hidden);
        list.matrix(format!("{p}o_proj.weight"), hidden, q);
    }

    /// As `config.json` has it.
    pub(super) fn parse(base: &Object) -> Result<Self> {
        let [heads, kv_heads, head_dim] = heads(base)?;
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(base.wrong("head_dim", "an even number", head_dim));
        }
        Ok(Self { heads, kv_heads, head_dim, rotary: head_dim, rope: rope::llama(base, head_dim, head_dim)? })
    }
}

/// Query heads, kv heads, and the width of each.
pub(super) fn heads(base: &Object) -> Result<[usize; 3]> {
    let heads = base.size("num_attention_heads", MAX_HEADS)?;
    let kv_heads = base.optional_size("num_key_value_heads", MAX_HEADS)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return Err(base.wrong("num_key_value_heads", format!("a divisor of the {heads} query heads"), kv_heads));
    }
    let head_dim = match base.optional_size("head_dim", MAX_HEAD_DIM)? {
        Some(head_dim) => head_dim,
        None => base.size("hidden_size", MAX_WIDTH)? / heads,
    };
    Ok([heads, kv_heads, head_dim])
}
