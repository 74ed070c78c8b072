//! The buffers that rows pass through on their way to logits. One set serves every layer and both widths of a step.

use super::PlanOptions;
use crate::config::{Layer, ModelConfig};
use crate::gpu::{Buffer, Limits, Purpose};
use crate::kernels::coded;
use crate::kernels::half_rows;
use crate::kernels::matmul_coop;
use crate::kernels::mla_attend::Spans;
use crate::kernels::product::{Epilogue, Norm, Product, Scratch};
use crate::kernels::rmsnorm::Columns;
use crate::kernels::ssm_states::SsmStates;
use crate::kernels::{Matrix, Twins};

/// Activations of a step: row-major f32, row strides padded to 32.
#[derive(Debug, Clone)]
pub struct Work {
    /// The final tables of the step, see `parts/step.wgsl`.
    pub step: Buffer,
    /// The residual stream.
    pub x: Rows,
    /// Its norm, where a step has many rows; few are normed as they are read.
    pub n: Rows,
    /// Coded rows (see [`coded`]): the residual stream's, times the next norm's weight, of a step of few rows.
    pub x_codes: Buffer,
    /// Those of the heads or of the MLP, and of whatever goes into a product and was not left coded.
    pub codes: Buffer,
    /// The same in f16, where there are cooperative matrices.
    pub half: Buffer,
    /// Sums of parts of k, where a product on cooperative matrices has few tiles.
    pub parts: Buffer,
    /// in_proj's [z | x | B | C | dt], or MLA's [q_a | latent | k_pe].
    pub wide: Rows,
    /// Convolved [x | B | C].
    pub u: Rows,
    /// What enters the chunks of the chunked scan.
    pub chunk_states: Buffer,
    /// Output of the heads, before out_proj.
    pub heads: Rows,
    /// silu(gate) * up.
    pub act: Rows,
    /// MLA queries.
    pub q: Rows,
    /// Normed latents where a checkpoint has lora norms.
    pub latent: Rows,
    /// Absorbed queries, and the attention's parts.
    pub query: Buffer,
    pub sums: Buffer,
    pub weights: Buffer,
    pub logits: Rows,
}

/// A row-major buffer and its row stride in f32.
#[derive(Debug, Clone)]
pub struct Rows {
    pub buffer: Buffer,
    pub stride: usize,
}

impl Rows {
    fn new(label: &str, rows: usize, width: usize) -> Self {
        let stride = width.next_multiple_of(32);
        Self { buffer: Buffer::new(label, 4 * (rows * stride) as u64, Purpose::Activations), stride }
    }

    /// Whole rows.
    pub fn all(&self) -> Columns<'_> {
        Columns::rows(&self.buffer, self.stride)
    }

    /// The same bytes as rows of another width, for a buffer that layers of several widths share.
    pub fn strided(&self, width: usize) -> Columns<'_> {
        let stride = width.next_multiple_of(32);
        assert!(stride <= self.stride, "{:?} has rows of {}, {stride} are needed", self.buffer, self.stride);
        Columns::rows(&self.buffer, stride)
    }

    fn buffers(&self) -> Buffer {
        self.buffer.clone()
    }
}

impl Work {
    pub fn new(config: &ModelConfig, options: &PlanOptions, limits: &Limits) -> Self {
        let rows = options.max_rows as usize;
        let mut most = Most::default();
        for layer in &config.layers {
            most.take(layer, options, limits);
        }
        let make = |label: &str, width: usize| Rows::new(label, rows, width);
        let f32s = |label: &str, count: usize| Buffer::new(label, 4 * count as u64, Purpose::Activations);
        let logit_rows = options.logit_rows as usize;
        let Twins { matmul_coop, matmul_i8, .. } = options.twins;
        let many_coded = matmul_i8 && matmul_coop.is_none();
        let narrow = options.narrow_rows.min(options.max_rows).max(1) as usize;
        let widest = config.hidden_size.max(config.intermediate_size).max(most.heads).max(most.n).next_multiple_of(32);
        Self {
            step: Buffer::new("step", 16 * (1 + 3 * rows as u64), Purpose::Control),
            x: make("x", config.hidden_size),
            n: make("n", config.hidden_size.max(most.n)),
            x_codes: f32s("x_codes", coded::words(narrow, config.hidden_size)),
            codes: f32s("codes", coded::words(if many_coded { rows } else { narrow }, widest.max(most.coded))),
            half: f32s(
                "half",
                if matmul_coop.is_some() { half_rows::bytes(options.max_rows, widest) as usize / 4 } else { 0 },
            ),
            parts: f32s("parts", matmul_coop.map_or(0, |m| matmul_coop::parts_bytes(m, widest) as usize / 4)),
            wide: make("wide", most.wide),
            u: make("u", most.u),
            chunk_states: f32s("chunk_states", most.chunk_states),
            heads: make("heads", most.heads),
            act: make("act", config.intermediate_size),
            q: make("q", most.q),
            latent: make("latent", most.latent),
            query: f32s("query", rows * most.query),
            sums: f32s("sums", most.sums),
            weights: f32s("weights", most.weights),
            logits: Rows::new("logits", logit_rows, config.vocab_size),
        }
    }

    /// `y (+)= norm(x) weight^T` over the rows of the step.
    pub fn product<'a>(
        &'a self,
        x: Columns<'a>,
        norm: Option<Norm<'a>>,
        weight: &'a Matrix,
        y: Columns<'a>,
        epilogue: Epilogue,
    ) -> Product<'a> {
        let scratch = Scratch { rows: self.n.all(), codes: &self.codes, half: &self.half, parts: &self.parts };
        Product {
            step: &self.step,
            x,
            x_codes: None,
            norm,
            weight,
            y,
            y_codes: None,
            epilogue,
            logit_rows: false,
            scratch,
        }
    }

    pub fn buffers(&self) -> Vec<Buffer> {
        let rows = [&self.x, &self.n, &self.wide, &self.u, &self.heads, &self.act, &self.q, &self.latent, &self.logits];
        let mut all: Vec<Buffer> = rows.iter().map(|r| r.buffers()).collect();
        all.extend([
            self.step.clone(),
            self.x_codes.clone(),
            self.codes.clone(),
            self.half.clone(),
            self.chunk_states.clone(),
            self.parts.clone(),
            self.query.clone(),
            self.sums.clone(),
            self.weights.clone(),
        ]);
        all
    }
}

/// The widest of each over the layers.
#[derive(Default)]
struct Most {
    coded: usize,
    n: usize,
    wide: usize,
    u: usize,
    chunk_states: usize,
    heads: usize,
    q: usize,
    latent: usize,
    query: usize,
    sums: usize,
    weights: usize,
}

impl Most {
    fn take(&mut self, layer: &Layer, options: &PlanOptions, limits: &Limits) {
        let up = |most: &mut usize, v: usize| *most = (*most).max(v);
        match layer {
            Layer::Mamba2(m) => {
                let shape = super::mamba2::shape(m);
                up(&mut self.wide, shape.in_proj());
                up(&mut self.u, shape.channels());
                let (rows, slots) = (options.max_rows as usize, options.slots as usize);
                let words = if options.twins.plain { 0 } else { SsmStates::words(shape, rows, slots, limits) };
                up(&mut self.chunk_states, words);
                up(&mut self.heads, shape.d_inner);
            }
            Layer::Mla(m) => {
                let cache = super::mla::cache_shape(m, options);
                let q_a = m.q_lora_rank.unwrap_or(0);
                let a = q_a.next_multiple_of(32) + m.kv_lora_rank + m.qk_rope_head_dim;
                up(&mut self.n, q_a);
                up(&mut self.wide, a);
                up(&mut self.coded, a);
                up(&mut self.heads, m.heads * m.v_head_dim);
                up(&mut self.q, m.heads * (m.qk_nope_head_dim + m.qk_rope_head_dim));
                up(&mut self.latent, if m.lora_layer_norm { m.kv_lora_rank } else { 0 });
                up(&mut self.query, 4 * m.heads * cache.row_quads());
                let narrow = options.narrow_rows.min(options.max_rows) as usize;
                for (wide, rows) in [(false, narrow), (true, options.max_rows as usize)] {
                    let parts = m.heads * options.spans(wide).room(rows);
                    up(&mut self.sums, 4 * parts * cache.latent_quads());
                    up(&mut self.weights, 2 * parts);
                }
            }
        }
    }
}

impl PlanOptions {
    /// How attention cuts the rows' contexts.
    pub(super) fn spans(&self, wide: bool) -> Spans {
        match (self.twins.plain, wide) {
            (true, _) => Spans::one(),
            (false, true) => Spans::wide(self.context as usize),
            (false, false) => Spans::narrow(self.context as usize),
        }
    }
}
