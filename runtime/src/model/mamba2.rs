//! The Mamba2 mixer as MambaInLlama has it (Zebra-Llama paper, section 3; Mamba2: "Transformers are SSMs", section 7), and
//! what any Mamba2 has between its two projections.

use super::PlanOptions;
use super::mixer::{CacheTensor, Maker, Mixer, Place};
use super::state::Kept;
use super::work::Room;
use crate::config::Mamba2Config;
use crate::gpu::{Buffer, Dispatch, Limits};
use crate::kernels::gated_norm::GatedNorm;
use crate::kernels::product::{Epilogue, Product};
use crate::kernels::ssm_chunk::SsmChunk;
use crate::kernels::ssm_conv::SsmConv;
use crate::kernels::ssm_scan::SsmScan;
use crate::kernels::ssm_shape::{SsmForm, SsmRows, SsmShape};
use crate::kernels::ssm_states::SsmStates;
use crate::kernels::{Matrix, Target};

/// The numbers its kernels need.
fn shape(config: &Mamba2Config) -> SsmShape {
    let &Mamba2Config { heads, head_dim, d_xb, repeat_kv_before_conv, .. } = config;
    SsmShape { form: SsmForm::Mamba2 { d_xb, repeat_kv_before_conv }, heads, head_dim, d_state: head_dim }
}

/// Weights of one layer's mixer.
#[derive(Debug)]
pub struct Mamba2 {
    pub(super) shape: SsmShape,
    /// Of the gated norm.
    pub(super) eps: f32,
    pub(super) in_proj: Matrix,
    pub(super) conv_weight: Buffer,
    pub(super) conv_bias: Buffer,
    /// (A_log, D, dt_bias, 0) of each head, or (D, 0, 0, 0).
    pub(super) heads: Buffer,
    /// The weight of the gated norm, or z's bias.
    pub(super) gate: Buffer,
    pub(super) out_proj: Matrix,
}

impl Mamba2 {
    /// `prefix` is `"model.layers.N.mamba."`.
    pub fn new(config: &Mamba2Config, prefix: &str, maker: &mut Maker<'_>) -> Self {
        let s = shape(config);
        let (hidden, tensors) = (maker.hidden, &mut *maker.tensors);
        let name = |tail: &str| format!("{prefix}{tail}");
        let heads = [name("A_log"), name("D"), name("dt_bias")];
        Self {
            shape: s,
            eps: config.norm_eps,
            in_proj: tensors.matrix(&name("in_proj.weight"), s.in_proj(), hidden),
            conv_weight: tensors.vector(&name("conv1d.weight"), &[s.channels(), 1, 4]),
            conv_bias: tensors.vector(&name("conv1d.bias"), &[s.channels()]),
            heads: tensors.vectors(&name("heads"), &heads.each_ref().map(String::as_str), &[s.heads], 4),
            gate: tensors.vector(&name("norm.weight"), &[s.d_inner()]),
            out_proj: tensors.matrix(&name("out_proj.weight"), hidden, s.d_inner()),
        }
    }
}

impl Mixer for Mamba2 {
    fn kept(&self) -> Kept {
        Kept::Whole { bytes: 4 * self.shape.state() as u64 }
    }

    fn room(&self, options: &PlanOptions, limits: &Limits) -> Room {
        let s = self.shape;
        let (rows, slots) = (options.max_rows as usize, options.slots as usize);
        Room {
            wide: s.in_proj(),
            u: s.channels(),
            chunk_states: if options.twins.plain { 0 } else { SsmStates::words(s, rows, slots, limits) },
            heads: s.d_inner(),
            ..Room::default()
        }
    }

    fn can_code(&self, target: Target) -> bool {
        Product::can_code(&self.out_proj, Epilogue::Add, target)
    }

    /// `x += out_proj(gated_norm(scan(conv(in_proj(n)))))`, n = norm(x).
    fn dispatches(&self, at: &Place<'_>) -> Vec<Dispatch> {
        let Place { label, work, input, next, state, pass, .. } = *at;
        let state = state.whole();
        let s = self.shape;
        let zxbcdt = work.wide.strided(s.in_proj());
        let y = work.heads.strided(s.d_inner());
        let target = pass.target;
        let in_proj = work.product_of(input, &self.in_proj, zxbcdt, Epilogue::Store);
        let mut all = in_proj.dispatches(&format!("{label}.in_proj"), pass.width, target);
        let y_codes = pass.codes(work, SsmScan::can_code(s, target));
        if pass.is_chunked() {
            // Many rows of a slot: by chunks, whose states are made first, so that none waits for another.
            let (step, heads, states) = (&work.step, &self.heads, &work.chunk_states);
            let u = work.u.strided(s.channels());
            let rows = SsmRows {
                step,
                shape: s,
                zxbcdt: zxbcdt.buffer,
                in_stride: zxbcdt.stride,
                u: u.buffer,
                u_stride: u.stride,
            };
            let conv = SsmConv { rows, weight: &self.conv_weight, bias: &self.conv_bias, state };
            let norm = GatedNorm {
                step,
                shape: s,
                zxbcdt: zxbcdt.buffer,
                in_stride: zxbcdt.stride,
                weight: &self.gate,
                y: y.buffer,
                y_stride: y.stride,
                eps: self.eps,
            };
            all.extend([
                conv.dispatch(label, target),
                SsmStates { rows, heads, state, states }.dispatch(label, target),
                SsmChunk { rows, heads, states, y: y.buffer, y_stride: y.stride }.dispatch(label, target),
                norm.dispatch(label, target),
            ]);
        } else {
            all.push(
                SsmScan {
                    step: &work.step,
                    shape: s,
                    zxbcdt: zxbcdt.buffer,
                    in_stride: zxbcdt.stride,
                    conv_weight: &self.conv_weight,
                    conv_bias: &self.conv_bias,
                    heads: &self.heads,
                    weight: &self.gate,
                    state,
                    y: y.buffer,
                    y_stride: y.stride,
                    y_codes,
                    eps: self.eps,
                }
                .dispatch(label, target),
            );
        }
        let out_proj = Product {
            x_codes: y_codes.map(|c| c.codes),
            y_codes: pass.codes_of_x(work, next),
            ..work.product(y, None, &self.out_proj, work.x.all(), Epilogue::Add)
        };
        all.extend(out_proj.dispatches(&format!("{label}.out_proj"), pass.width, target));
        all
    }

    fn cache(&self, words: &[f32], _: usize) -> Vec<CacheTensor> {
        let s = self.shape;
        let conv = (0..s.channels()).flat_map(|c| words[s.taps_of(c)..][..4].to_vec()).collect();
        let ssm = words[..s.taps_offset()].to_vec();
        vec![("conv", vec![s.channels(), 4], conv), ("ssm", vec![s.heads, s.head_dim, s.d_state], ssm)]
    }
}
