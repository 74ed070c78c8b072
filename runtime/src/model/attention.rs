//! Grouped-query attention (Llama 3; Ainslie et al., "GQA"): of a token a key and a value are cached for each kv head,
//! which some query heads share.

use super::PlanOptions;
use super::mixer::{CacheTensor, Maker, Mixer, Place};
use super::state::Kept;
use super::work::Room;
use crate::Result;
use crate::config::AttentionConfig;
use crate::gpu::{Buffer, Dispatch, Limits};
use crate::kernels::gqa_append::GqaAppend;
use crate::kernels::gqa_attend;
use crate::kernels::gqa_combine::GqaCombine;
use crate::kernels::mla_attend::MlaAttend;
use crate::kernels::mla_attend_coop::{self, StepRows};
use crate::kernels::mla_latent::CacheShape;
use crate::kernels::product::{Epilogue, Product};
use crate::kernels::{Matrix, Target};

/// Weights of one layer's mixer.
#[derive(Debug)]
pub struct Attention {
    heads: usize,
    head_dim: usize,
    rotary: usize,
    scale: f32,
    cache: CacheShape,
    /// [q_proj; k_proj; v_proj].
    qkv_proj: Matrix,
    o_proj: Matrix,
    /// The table of its rotary embedding.
    turns: Buffer,
}

impl Attention {
    /// `prefix` is `"model.layers.N.self_attn."`.
    pub fn new(config: &AttentionConfig, prefix: &str, layer: usize, maker: &mut Maker<'_>) -> Result<Self> {
        let &AttentionConfig { heads, kv_heads, head_dim, rotary, .. } = config;
        let cache = CacheShape::gqa(maker.options.cache, kv_heads, head_dim, head_dim, maker.options.context as usize);
        maker.check_cache(layer, &format!("{prefix}v_proj.weight"), cache, heads)?;
        let turns = maker.turns(&config.rope);
        let (hidden, tensors) = (maker.hidden, &mut *maker.tensors);
        let name = |tail: &str| format!("{prefix}{tail}.weight");
        let parts = [("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)];
        let parts = parts.map(|(tail, heads)| (name(tail), heads * head_dim));
        let parts = parts.each_ref().map(|(name, rows)| (name.as_str(), *rows));
        Ok(Self {
            heads,
            head_dim,
            rotary,
            scale: config.rope.softmax_scale,
            cache,
            qkv_proj: tensors.stacked(&name("qkv_proj"), &parts, hidden, 1),
            o_proj: tensors.matrix(&name("o_proj"), hidden, heads * head_dim),
            turns,
        })
    }
}

impl Mixer for Attention {
    fn kept(&self) -> Kept {
        Kept::Rows { bytes: 4 * self.cache.position_words() as u64, context: self.cache.context as u32 }
    }

    fn room(&self, options: &PlanOptions, _: &Limits) -> Room {
        let parts = self.heads * options.most_spans();
        Room {
            wide: self.qkv_proj.n(),
            heads: self.heads * self.head_dim,
            query: 4 * self.heads * self.cache.key_quads(),
            sums: 4 * parts * self.cache.value_quads(),
            weights: 2 * parts,
            ..Room::default()
        }
    }

    fn can_code(&self, target: Target) -> bool {
        Product::can_code(&self.o_proj, Epilogue::Add, target)
    }

    /// `x += o_proj(attention(n))`, n = norm(x), appending to the cache on the way.
    fn dispatches(&self, at: &Place<'_>) -> Vec<Dispatch> {
        let Place { label, work, input, next, state, options, pass } = *at;
        let (step, shape, heads, target) = (&work.step, self.cache, self.heads, pass.target);
        let product =
            |tail: &str, product: Product<'_>| product.dispatches(&format!("{label}.{tail}"), pass.width, target);
        let qkv = work.wide.strided(self.qkv_proj.n());
        let mut all = product("qkv_proj", work.product_of(input, &self.qkv_proj, qkv, Epilogue::Store));
        let query = &work.query;
        all.extend(state.dispatches(|slots| {
            GqaAppend {
                step,
                shape,
                // The first turns all queries.
                heads: if slots.first == 0 { heads } else { 0 },
                rope: self.rotary,
                q: qkv,
                k_offset: heads * self.head_dim,
                v_offset: (heads + shape.kv_heads) * self.head_dim,
                turns: &self.turns,
                scale: self.scale,
                query,
                latents: slots,
            }
            .dispatch(label, target)
        }));
        // Rows of a prompt share what they read, and one order of summation is mla_attend's.
        let apart = !pass.is_chunked() && !target.twins.plain && gqa_attend::fits(shape, target);
        let mut spans = options.spans(pass.is_wide());
        if apart {
            spans = gqa_attend::spans(shape, spans);
        }
        let (sums, weights) = (&work.sums, &work.weights);
        let rows = if pass.is_chunked() { StepRows::Runs } else { StepRows::Apart };
        all.extend(state.dispatches(|latents| {
            let attend = MlaAttend { step, shape, heads, spans, query, latents, sums, weights };
            if apart {
                gqa_attend::dispatch(&attend, label, target)
            } else {
                mla_attend_coop::attend(&attend, label, rows, target)
            }
        }));
        let o = work.heads.strided(heads * self.head_dim);
        let codes = pass.codes(work, GqaCombine::can_code(shape)).map(|c| c.codes);
        let combine = GqaCombine { step, shape, heads, spans, sums, weights, o: o.buffer, o_stride: o.stride, codes };
        all.push(combine.dispatch(label, target));
        let o_proj = work.product(o, None, &self.o_proj, work.x.all(), Epilogue::Add);
        all.extend(product("o_proj", Product { x_codes: codes, y_codes: pass.codes_of_x(work, next), ..o_proj }));
        all
    }

    /// `[kv_heads, length, head_dim]`, keys roped.
    fn cache(&self, words: &[f32], length: usize) -> Vec<CacheTensor> {
        let s = self.cache;
        let tensor = |name, first: usize| {
            let row = |head: usize, p: usize| &words[p * s.position_words() + head * s.row_words() + first..];
            let rows = (0..s.kv_heads).flat_map(|head| (0..length).map(move |p| (head, p)));
            let values = rows.flat_map(|(head, p)| row(head, p)[..self.head_dim].to_vec()).collect();
            (name, vec![s.kv_heads, length, self.head_dim], values)
        };
        vec![tensor("k", s.keys_from), tensor("v", 0)]
    }
}
