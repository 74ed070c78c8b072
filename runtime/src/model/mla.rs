//! Multi-head Latent Attention, absorbed (Zebra-Llama paper, section 3; DeepSeek-V2, section 2.1): what is cached of a
//! token is one row [latent | roped k_pe] that all heads share, and queries are taken into the latent's space.

use super::mixer::{CacheTensor, Maker, Mixer, Place};
use super::norm::Input;
use super::state::Kept;
use super::work::Room;
use super::{PlanOptions, Tensors};
use crate::Result;
use crate::config::MlaConfig;
use crate::gpu::{Buffer, Dispatch, Limits};
use crate::kernels::mla_attend::MlaAttend;
use crate::kernels::mla_attend_coop::{self, StepRows};
use crate::kernels::mla_combine::MlaCombine;
use crate::kernels::mla_latent::{CacheShape, MlaLatent};
use crate::kernels::mla_project::MlaProject;
use crate::kernels::mla_query::{MlaHeads, MlaQuery};
use crate::kernels::product::{Epilogue, Norm, Product};
use crate::kernels::rmsnorm::{Columns, RmsNorm};
use crate::kernels::slots::Slots;
use crate::kernels::{Matrix, Target};

/// Epsilon of the norms on q_a and the latent, where a checkpoint has them (DeepSeek's, not the model's own).
const LORA_NORM_EPS: f32 = 1e-6;

/// The cache of one layer.
fn cache_shape(config: &MlaConfig, options: &PlanOptions) -> CacheShape {
    CacheShape::mla(options.cache, config.kv_lora_rank, config.qk_rope_head_dim, options.context as usize)
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
    /// The table of its rotary embedding.
    turns: Buffer,
}

impl Mla {
    /// `prefix` is `"model.layers.N.mla."`.
    pub fn new(config: &MlaConfig, prefix: &str, layer: usize, maker: &mut Maker<'_>) -> Result<Self> {
        let cache = cache_shape(config, maker.options);
        maker.check_cache(layer, &format!("{prefix}kv_b_proj.weight"), cache, config.heads)?;
        let turns = maker.turns(&config.rope);
        let (hidden, tensors) = (maker.hidden, &mut *maker.tensors);
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
        Ok(Self {
            heads,
            cache,
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
            turns,
        })
    }
}

impl Mixer for Mla {
    fn kept(&self) -> Kept {
        Kept::Rows { bytes: 4 * self.cache.position_words() as u64, context: self.cache.context as u32 }
    }

    fn room(&self, options: &PlanOptions, _: &Limits) -> Room {
        let (s, h) = (self.cache, self.heads);
        let parts = h.heads * options.most_spans();
        Room {
            n: self.q_rank.unwrap_or(0),
            wide: self.a_proj.n(),
            coded: self.a_proj.n(),
            heads: h.heads * h.v,
            q: h.heads * (h.nope + s.rope),
            latent: if self.kv_norm.is_some() { s.latent } else { 0 },
            query: 4 * h.heads * s.row_quads(),
            sums: 4 * parts * s.latent_quads(),
            weights: 2 * parts,
            ..Room::default()
        }
    }

    fn can_code(&self, target: Target) -> bool {
        Product::can_code(&self.out_proj, Epilogue::Add, target)
    }

    /// `x += out_proj(attention(n))`, n = norm(x), appending to the cache on the way.
    fn dispatches(&self, at: &Place<'_>) -> Vec<Dispatch> {
        let Place { label, work, input, next, state, options, pass } = *at;
        let turns = &self.turns;
        let step = &work.step;
        let (s, h, target) = (self.cache, self.heads, pass.target);
        let product =
            |tail: &str, product: Product<'_>| product.dispatches(&format!("{label}.{tail}"), pass.width, target);

        // q_a and [latent | k_pe] in one product.
        let a = work.wide.strided(self.a_proj.n());
        let at_once = !pass.is_wide() && !target.twins.plain && self.q_rank.is_some() && self.kv_norm.is_none();
        let fits = |coded| at_once && MlaProject::fits(&self.q_proj, &self.kv_b_proj, h, s, coded, target);
        let y_codes = pass.codes(work, fits(true) && Product::can_code(&self.a_proj, Epilogue::Store, target));
        let a_proj = work.product_of(input, &self.a_proj, a, Epilogue::Store);
        let mut all = product("a_proj", Product { y_codes, ..a_proj });
        let a_codes = y_codes.map(|c| c.codes);
        let (c_offset, k_offset) = (self.latent_offset, self.latent_offset + s.latent);
        let (query, scale) = (&work.query, self.scale);
        let (q_b, kv_b) = (&self.q_proj, &self.kv_b_proj);
        if a_codes.is_some() || fits(false) {
            let (c, k_pe) = (Columns { offset: c_offset, ..a }, Columns { offset: k_offset, ..a });
            all.extend(state.dispatches(|latents| {
                // The first makes all queries.
                if latents.first > 0 {
                    return MlaLatent { step, shape: s, c, k_pe, turns, latents }.dispatch(label, target);
                }
                MlaProject {
                    step,
                    shape: s,
                    heads: h,
                    a,
                    a_codes,
                    c_offset,
                    k_offset,
                    turns,
                    q_b,
                    kv_b,
                    scale,
                    query,
                    latents,
                }
                .dispatch(label, target)
            }));
        } else {
            let mut c = Columns { offset: c_offset, ..a };
            let k_pe = Columns { offset: k_offset, ..a };
            if let Some(weight) = &self.kv_norm {
                let normed = work.latent.strided(s.latent);
                let (x, y, width, eps) = (c, normed, s.latent, LORA_NORM_EPS);
                let norm = RmsNorm { step, x, weight, y, width, eps, logit_rows: false };
                all.push(norm.dispatch(&format!("{label}.kv_a_layernorm"), target));
                c = normed;
            }
            let q_norm = self.q_norm.as_ref().map(|weight| Norm { weight, eps: LORA_NORM_EPS });
            let input = match self.q_rank {
                Some(_) => Input { x: a, norm: q_norm, codes: None },
                None => input,
            };
            let q = work.q.strided(q_b.n());
            all.extend(product("q_proj", work.product_of(input, q_b, q, Epilogue::Store)));
            let append =
                |latents: &Slots| MlaLatent { step, shape: s, c, k_pe, turns, latents }.dispatch(label, target);
            all.extend(state.dispatches(append));
            let (q, q_stride) = (q.buffer, q.stride);
            all.push(MlaQuery { step, shape: s, heads: h, q, q_stride, turns, kv_b, scale, query }.query(
                label,
                pass.is_wide(),
                target,
            ));
        }
        let spans = options.spans(pass.is_wide()).of_sums(h.heads, s);
        let (sums, weights) = (&work.sums, &work.weights);
        all.extend(state.dispatches(|latents| {
            let attend = MlaAttend { step, shape: s, heads: h.heads, spans, query, latents, sums, weights };
            mla_attend_coop::attend(&attend, label, StepRows::Apart, target)
        }));
        let o = work.heads.strided(h.heads * h.v);
        let codes = pass.codes(work, MlaCombine::can_code(h)).map(|c| c.codes);
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
                codes,
            }
            .combine(label, target),
        );
        let out_proj = work.product(o, None, &self.out_proj, work.x.all(), Epilogue::Add);
        all.extend(product("out_proj", Product { x_codes: codes, y_codes: pass.codes_of_x(work, next), ..out_proj }));
        all
    }

    fn cache(&self, words: &[f32], length: usize) -> Vec<CacheTensor> {
        let s = self.cache;
        let rope = 4 * s.latent_quads();
        let rows = words.chunks_exact(s.row_words()).take(length);
        let rows = rows.flat_map(|r| [&r[..s.latent], &r[rope..rope + s.rope]].concat()).collect();
        vec![("latent", vec![length, s.latent + s.rope], rows)]
    }
}
