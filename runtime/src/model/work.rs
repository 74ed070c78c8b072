//! The buffers that rows pass through on their way to logits. One set serves every layer and both widths of a step.

use super::PlanOptions;
use super::norm::Input;
use crate::config::ModelConfig;
use crate::gpu::{Buffer, Purpose};
use crate::kernels::coded;
use crate::kernels::half_rows;
use crate::kernels::matmul_coop;
use crate::kernels::mla_attend::Spans;
use crate::kernels::product::{Epilogue, Norm, Product, Scratch};
use crate::kernels::rmsnorm::Columns;
use crate::kernels::{Matrix, Twins};

/// Activations of a step: row-major f32, row strides padded to 32.
#[derive(Debug, Clone)]
pub struct Work {
    /// The final tables of the step, see `parts/step.wgsl`.
    pub step: Buffer,
    /// The residual stream.
    pub x: Rows,
    /// Its norm, where a step has many rows; few are normed as they are read. Its layer norm always.
    pub n: Rows,
    /// Coded rows (see [`coded`]): the residual stream's, times the next norm's weight, or its layer norm's, of a step of
    /// few rows.
    pub x_codes: Buffer,
    /// Those of the heads or of the MLP, and of whatever goes into a product and was not left coded.
    pub codes: Buffer,
    /// The same in f16, where there are cooperative matrices.
    pub half: Buffer,
    /// Sums of parts of k, where a product on cooperative matrices has few tiles.
    pub parts: Buffer,
    /// What in_proj makes, or MLA's [q_a | latent | k_pe].
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
    /// `most` is what the widest of the mixers needs of each.
    pub fn new(config: &ModelConfig, options: &PlanOptions, most: &Room) -> Self {
        let rows = options.max_rows as usize;
        let make = |label: &str, width: usize| Rows::new(label, rows, width);
        let f32s = |label: &str, count: usize| Buffer::new(label, 4 * count as u64, Purpose::Activations);
        let logit_rows = options.logit_rows as usize;
        let Twins { matmul_coop, matmul_i8, .. } = options.twins;
        let many_coded = matmul_i8 && matmul_coop.is_none();
        let narrow = options.narrow_rows.min(options.max_rows).max(1) as usize;
        let intermediate = config.layers.iter().map(|layer| layer.mlp.intermediate_size).max().unwrap_or(0);
        let widest = config.hidden_size.max(intermediate).max(most.heads).max(most.n).next_multiple_of(32);
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
            act: make("act", intermediate),
            q: make("q", most.q),
            latent: make("latent", most.latent),
            query: f32s("query", rows * most.query),
            sums: f32s("sums", most.sums),
            weights: f32s("weights", most.weights),
            logits: Rows::new("logits", logit_rows, config.vocab_rows),
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

    /// `y (+)= n weight^T`, n being what comes out of a norm.
    pub fn product_of<'a>(
        &'a self,
        input: Input<'a>,
        weight: &'a Matrix,
        y: Columns<'a>,
        epilogue: Epilogue,
    ) -> Product<'a> {
        Product { x_codes: input.codes, ..self.product(input.x, input.norm, weight, y, epilogue) }
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

/// What a mixer needs of the buffers that all share: widths of rows in f32, and words of whole buffers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Room {
    /// Of rows that are left coded.
    pub coded: usize,
    /// Of rows that are normed before a product, beside the residual stream's.
    pub n: usize,
    /// Of the first product.
    pub wide: usize,
    pub u: usize,
    /// Words.
    pub chunk_states: usize,
    pub heads: usize,
    pub q: usize,
    pub latent: usize,
    /// Words of a row.
    pub query: usize,
    /// Words.
    pub sums: usize,
    /// Words.
    pub weights: usize,
}

impl Room {
    /// Room for either.
    pub fn max(self, other: Self) -> Self {
        Self {
            coded: self.coded.max(other.coded),
            n: self.n.max(other.n),
            wide: self.wide.max(other.wide),
            u: self.u.max(other.u),
            chunk_states: self.chunk_states.max(other.chunk_states),
            heads: self.heads.max(other.heads),
            q: self.q.max(other.q),
            latent: self.latent.max(other.latent),
            query: self.query.max(other.query),
            sums: self.sums.max(other.sums),
            weights: self.weights.max(other.weights),
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

    /// Spans of all rows of a step, at most.
    pub(super) fn most_spans(&self) -> usize {
        let narrow = self.narrow_rows.min(self.max_rows) as usize;
        self.spans(false).room(narrow).max(self.spans(true).room(self.max_rows as usize))
    }
}
