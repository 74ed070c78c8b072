//! The Mamba1 mixer as MambaInLlama has it (arXiv 2408.15237; Mamba: arXiv 2312.00752, section 3).

use super::PlanOptions;
use super::mixer::{CacheTensor, Maker, Mixer, Place};
use super::state::Kept;
use super::work::Room;
use crate::config::Mamba1Config;
use crate::gpu::{Buffer, Dispatch, Limits};
use crate::kernels::mamba1_scan::{Mamba1Scan, Mamba1Shape, STATES, TimeSteps};
use crate::kernels::product::{Epilogue, Product};
use crate::kernels::{Matrix, Target};

/// Weights of one layer's mixer.
#[derive(Debug)]
pub struct Mamba1 {
    shape: Mamba1Shape,
    /// [dt_proj_down; in_proj_x; in_proj_z; B_proj; C_proj].
    in_proj: Matrix,
    dt_proj: Matrix,
    conv_weight: Buffer,
    /// (D, dt_proj's bias, conv1d's bias, 0) of each channel.
    channels: Buffer,
    a_log: Buffer,
    out_proj: Matrix,
}

impl Mamba1 {
    /// `prefix` is `"model.layers.N.mamba."`.
    pub fn new(config: &Mamba1Config, prefix: &str, maker: &mut Maker<'_>) -> Self {
        let &Mamba1Config { d_inner, d_xb, dt_rank } = config;
        let shape = Mamba1Shape { d_inner, d_xb, dt_rank };
        let (hidden, tensors) = (maker.hidden, &mut *maker.tensors);
        let name = |tail: &str| format!("{prefix}{tail}");
        // down first: where it is no whole groups the zeros behind it are these rows' own.
        let parts = ["dt_proj_down", "in_proj_x", "in_proj_z", "B_proj", "C_proj"];
        let parts = parts.map(|tail| name(&format!("{tail}.weight")));
        let parts: Vec<(&str, usize)> = parts.iter().map(String::as_str).zip(shape.parts()).collect();
        let channels = [name("D"), name("dt_proj.bias"), name("conv1d.bias")];
        Self {
            shape,
            in_proj: tensors.stacked(&name("in_proj.weight"), &parts, hidden, 32),
            dt_proj: tensors.matrix(&name("dt_proj.weight"), d_inner, dt_rank),
            conv_weight: tensors.vector(&name("conv1d.weight"), &[d_inner, 1, 4]),
            channels: tensors.vectors(&name("channels"), &channels.each_ref().map(String::as_str), &[d_inner], 4),
            a_log: tensors.vector(&name("A_log"), &[d_inner, STATES]),
            out_proj: tensors.matrix(&name("out_proj.weight"), hidden, d_inner),
        }
    }
}

impl Mixer for Mamba1 {
    fn kept(&self) -> Kept {
        Kept::Whole { bytes: 4 * self.shape.state() as u64 }
    }

    fn room(&self, _: &PlanOptions, _: &Limits) -> Room {
        let s = self.shape;
        Room { wide: self.in_proj.n(), u: s.d_inner, heads: s.d_inner, ..Room::default() }
    }

    fn can_code(&self, target: Target) -> bool {
        Product::can_code(&self.out_proj, Epilogue::Add, target)
    }

    /// `x += out_proj(scan(conv(x), dt, B, C) * silu(z))`, n = norm(x).
    fn dispatches(&self, at: &Place<'_>) -> Vec<Dispatch> {
        let Place { label, work, input, next, state, pass, .. } = *at;
        let state = state.whole();
        let (s, target) = (self.shape, pass.target);
        let product =
            |tail: &str, product: Product<'_>| product.dispatches(&format!("{label}.{tail}"), pass.width, target);
        let rows = work.wide.strided(self.in_proj.n());
        let mut all = product("in_proj", work.product_of(input, &self.in_proj, rows, Epilogue::Store));
        // Few rows' time steps are made in the scan; the plain kernels make them in one way, however many
        // rows there are.
        let at_once = !pass.is_wide() && !target.twins.plain && Mamba1Scan::can_project(&self.dt_proj, target);
        let time_steps = if at_once {
            TimeSteps::Project(&self.dt_proj)
        } else {
            let dt = work.u.strided(s.d_inner);
            all.extend(product("dt_proj", work.product(rows, None, &self.dt_proj, dt, Epilogue::Store)));
            TimeSteps::Rows(dt)
        };
        let y = work.heads.strided(s.d_inner);
        let y_codes = pass.codes(work, Mamba1Scan::can_code(s, target));
        all.push(
            Mamba1Scan {
                step: &work.step,
                shape: s,
                rows,
                time_steps,
                conv_weight: &self.conv_weight,
                channels: &self.channels,
                a_log: &self.a_log,
                state,
                y,
                y_codes,
            }
            .dispatch(label, target),
        );
        let out_proj = work.product(y, None, &self.out_proj, work.x.all(), Epilogue::Add);
        let (x_codes, y_codes) = (y_codes.map(|c| c.codes), pass.codes_of_x(work, next));
        all.extend(product("out_proj", Product { x_codes, y_codes, ..out_proj }));
        all
    }

    fn cache(&self, words: &[f32], _: usize) -> Vec<CacheTensor> {
        let s = self.shape;
        let (ssm, conv) = words[..s.state()].split_at(s.taps_offset());
        vec![("conv", vec![s.d_inner, 4], conv.to_vec()), ("ssm", vec![s.d_inner, STATES], ssm.to_vec())]
    }
}
