//! Multi-head Latent Attention, absorbed (Zebra-Llama paper, section 3; DeepSeek-V2, section 2.1): what is cached of a
//! token is one row [latent | roped k_pe] that all heads share, and queries are taken into the latent's space.

use super::work::Work;
use super::{Pass, PlanOptions, Tensors};
use crate::config::MlaConfig;
use crate::gpu::{Buffer, Dispatch};
use crate::kernels::Matrix;
use crate::kernels::matmul::{Epilogue, MatMul};
use crate::kernels::mla_attend::MlaAttend;
use crate::kernels::mla_combine::MlaCombine;
use crate::kernels::mla_latent::{CacheShape, MlaLatent};
use crate::kernels::mla_query::{MlaHeads, MlaQuery};
use crate::kernels::rmsnorm::{Columns, RmsNorm};

/// Epsilon of the norms on q_a and the latent, where a checkpoint has them (DeepSeek's, not the model's own).
const LORA_NORM_EPS: f32 = 1e-6;

/// The cache of one layer.
pub fn cache_shape(config: &MlaConfig, options: &PlanOptions) -> CacheShape {
    CacheShape {
        format: options.cache,
        latent: config.kv_lora_rank,
        rope: config.qk_rope_head_dim,
        context: options.context as usize,
    }
}

/// Weights of one layer's mixer.
#[derive(Debug)]
pub struct Mla {
    heads: MlaHeads,
    cache: CacheShape,
    scale: f32,
    /// Rows of q_a before the latent in `a_proj`, padded; 0 without a q rank.
    latent_offset: usize,
    /// [q_a_proj; kv_a_proj_with_mqa], or [kv_a_proj_with_mqa] alone.
    a_proj: Matrix,
    /// q_b_proj from q_a, or q_proj from the hidden state.
    q_proj: Matrix,
    kv_b_proj: Matrix,
    out_proj: Matrix,
    q_norm: Option<Buffer>,
    kv_norm: Option<Buffer>,
    q_rank: Option<usize>,
}

impl Mla {
    /// `prefix` is `"model.layers.N.mla."`.
    pub fn new(config: &MlaConfig, options: &PlanOptions, hidden: usize, prefix: &str, tensors: &mut Tensors) -> Self {
        let heads = MlaHeads {
            heads: config.heads,
            kv_heads: config.kv_heads,
            nope: config.qk_nope_head_dim,
            v: config.v_head_dim,
        };
        let name = |tail: &str| format!("{prefix}{tail}");
        let kv_a = (name("kv_a_proj_with_mqa.weight"), config.kv_lora_rank + config.qk_rope_head_dim);
        let q_width = config.heads * (config.qk_nope_head_dim + config.qk_rope_head_dim);
        let (a_proj, q_proj, latent_offset) = match config.q_lora_rank {
            Some(rank) => {
                let parts = [(&*name("q_a_proj.weight"), rank), (&*kv_a.0, kv_a.1)];
                (
                    tensors.stacked(&name("a_proj.weight"), &parts, hidden, 32),
                    tensors.matrix(&name("q_b_proj.weight"), q_width, rank),
                    rank.next_multiple_of(32),
                )
            }
            None => {
                (tensors.matrix(&kv_a.0, kv_a.1, hidden), tensors.matrix(&name("q_proj.weight"), q_width, hidden), 0)
            }
        };
        let norm = |tensors: &mut Tensors, tail: &str, width: usize| {
            config.lora_layer_norm.then(|| tensors.vector(&name(tail), &[width]))
        };
        Self {
            heads,
            cache: cache_shape(config, options),
            scale: config.rope.softmax_scale,
            latent_offset,
            a_proj,
            q_proj,
            kv_b_proj: tensors.matrix(
                &name("kv_b_proj.weight"),
                config.kv_heads * (config.qk_nope_head_dim + config.v_head_dim),
                config.kv_lora_rank,
            ),
            out_proj: tensors.matrix(&name("out_proj.weight"), hidden, config.heads * config.v_head_dim),
            q_norm: config.q_lora_rank.and_then(|rank| norm(tensors, "q_a_layernorm.weight", rank)),
            kv_norm: norm(tensors, "kv_a_layernorm.weight", config.kv_lora_rank),
            q_rank: config.q_lora_rank,
        }
    }

    /// `x += out_proj(attention(n))`, appending to the cache on the way.
    pub fn dispatches(
        &self,
        label: &str,
        work: &Work,
        turns: &Buffer,
        latents: &Buffer,
        options: &PlanOptions,
        pass: Pass,
    ) -> Vec<Dispatch> {
        let step = &work.step;
        let (s, h, target) = (self.cache, self.heads, pass.target);
        let matmul = |tail: &str, x: Columns<'_>, weight: &Matrix, y: Columns<'_>, epilogue: Epilogue| {
            MatMul { step, x, weight, y, epilogue, logit_rows: false }.dispatches(
                &format!("{label}.{tail}"),
                pass.width,
                target,
            )
        };
        let norm = |tail: &str, x: Columns<'_>, weight: &Buffer, y: Columns<'_>, width: usize| {
            RmsNorm { step, x, weight, y, width, eps: LORA_NORM_EPS, logit_rows: false }
                .dispatch(&format!("{label}.{tail}"), target)
        };

        // q_a and [latent | k_pe] in one product.
        let a = work.wide.strided(self.a_proj.n());
        let mut all = matmul("a_proj", work.n.all(), &self.a_proj, a, Epilogue::Store);
        let mut q_a = a;
        let mut c = Columns { offset: self.latent_offset, ..a };
        let k_pe = Columns { offset: self.latent_offset + s.latent, ..a };
        if let (Some(weight), Some(rank)) = (&self.q_norm, self.q_rank) {
            q_a = work.q_a.strided(rank);
            all.push(norm("q_a_layernorm", a, weight, q_a, rank));
        }
        if let Some(weight) = &self.kv_norm {
            let normed = work.latent.strided(s.latent);
            all.push(norm("kv_a_layernorm", c, weight, normed, s.latent));
            c = normed;
        }
        let x = if self.q_rank.is_some() { q_a } else { work.n.all() };
        let q = work.q.strided(self.q_proj.n());
        all.extend(matmul("q_proj", x, &self.q_proj, q, Epilogue::Store));

        all.push(MlaLatent { step, shape: s, c, k_pe, turns, latents }.dispatch(label, target));
        all.push(
            MlaQuery {
                step,
                shape: s,
                heads: h,
                q: q.buffer,
                q_stride: q.stride,
                turns,
                kv_b: &self.kv_b_proj,
                scale: self.scale,
                query: &work.query,
            }
            .dispatch(label, target),
        );
        let spans = options.spans(pass.is_wide());
        let (sums, weights) = (&work.sums, &work.weights);
        let query = &work.query;
        all.push(
            MlaAttend { step, shape: s, heads: h.heads, spans, query, latents, sums, weights }.dispatch(label, target),
        );
        let o = work.heads.strided(h.heads * h.v);
        all.push(
            MlaCombine {
                step,
                shape: s,
                heads: h,
                spans,
                sums,
                weights,
                kv_b: &self.kv_b_proj,
                o: o.buffer,
                o_stride: o.stride,
            }
            .dispatch(label, target),
        );
        all.extend(matmul("out_proj", o, &self.out_proj, work.x.all(), Epilogue::Add));
        all
    }
}
