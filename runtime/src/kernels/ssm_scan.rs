//! `ssm_scan.wgsl`: the selective scan token by token, with the per-head gated norm of its output.

use super::ssm_conv::SsmShape;
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Quads of the state that a lane can hold in registers.
const MOST_QUADS: usize = 16;

/// `S = a S + dt x B^T, y = rmsnorm_per_head((S C + D x) * silu(z)) * weight`.
#[derive(Debug)]
pub struct SsmScan<'a> {
    pub step: &'a Buffer,
    pub shape: SsmShape,
    /// `[rows, in_stride]`, the rows of in_proj.
    pub zxbcdt: &'a Buffer,
    pub in_stride: usize,
    /// `[rows, u_stride]`, convolved.
    pub u: &'a Buffer,
    pub u_stride: usize,
    /// `[heads]` of (A_log, D, dt_bias, 0).
    pub heads: &'a Buffer,
    /// `[d_inner]`.
    pub weight: &'a Buffer,
    /// `[slots, state]`, read and carried on.
    pub state: &'a Buffer,
    /// `[rows, y_stride]`.
    pub y: &'a Buffer,
    pub y_stride: usize,
    pub eps: f32,
}

/// Lanes that share one row of a head's state: at most four, so that each holds whole quads.
pub(crate) fn lanes_per_row(head_dim: usize) -> usize {
    let quads = head_dim / 4;
    (1..=4).rev().find(|l| quads.is_multiple_of(*l) && head_dim * l <= 256).unwrap_or(1)
}

impl SsmScan<'_> {
    /// Whether a head's state can be held in the registers of a workgroup: head_dim is a multiple of 4, at most 128, and
    /// divides among the lanes.
    pub fn supports(head_dim: usize) -> bool {
        let quads = head_dim / 4;
        head_dim > 0 && head_dim.is_multiple_of(4) && head_dim <= 128 && quads / lanes_per_row(head_dim) <= MOST_QUADS
    }

    /// # Panics
    /// When [`SsmScan::supports`] says no: the plan refuses it before.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let s = self.shape;
        let lanes = lanes_per_row(s.head_dim);
        let quads = s.head_dim / 4 / lanes;
        assert!(Self::supports(s.head_dim), "{label}: head_dim {}", s.head_dim);
        assert!(s.d_inner <= self.y_stride && s.in_proj() <= self.in_stride, "{label}: rows are too short");
        assert_words(self.heads, 4 * s.heads as u64, "ssm_scan.heads");
        assert_words(self.weight, s.d_inner as u64, "ssm_scan.weight");
        let params = [
            s.head_dim as u32,
            s.repeat() as u32,
            s.repeated(),
            self.in_stride as u32,
            s.d_inner as u32,
            (2 * s.d_inner + 2 * s.d_xb) as u32,
            self.u_stride as u32,
            s.xb_channels() as u32,
            2 * s.xb_channels() as u32,
            self.y_stride as u32,
            s.state() as u32,
            s.taps_offset() as u32,
            self.eps.to_bits(),
        ];
        dispatch(
            label,
            "ssm_scan",
            vec![
                shader!("ssm_scan.wgsl"),
                shader!("parts/conv_input.wgsl"),
                shader!("parts/conv_carry.wgsl"),
                shader!("parts/softplus.wgsl"),
                STEP,
                target.lanes(s.head_dim * lanes),
            ],
            target.constants(vec![
                ("WG", (s.head_dim * lanes) as f64),
                ("LANES", lanes as f64),
                ("QUADS", quads as f64),
            ]),
            &params,
            bindings(self.step, &[self.zxbcdt, self.u, self.heads, self.weight], &[self.state, self.y]),
            Grid::new(Extent::Fixed(s.heads as u32), Extent::Segments),
        )
        .costs(Cost {
            bytes: 4 * s.d_inner,
            row_bytes: 4 * (s.channels() + 2 * s.d_inner),
            row_macs: 3 * s.d_inner * s.head_dim,
            segment_bytes: 8 * s.d_inner * s.head_dim,
            ..Cost::default()
        })
    }
}
