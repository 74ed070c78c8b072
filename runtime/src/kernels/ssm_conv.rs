//! `ssm_conv.wgsl`: the depthwise causal convolution over [x | B | C], with the state before a segment.

use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

const WG: u32 = 64;

/// The numbers of a Mamba2 mixer that its kernels share. Widths and offsets in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SsmShape {
    pub heads: usize,
    /// P = N.
    pub head_dim: usize,
    /// heads * head_dim.
    pub d_inner: usize,
    /// Width of x and of B in in_proj.
    pub d_xb: usize,
    /// x and B are repeated for each head before the convolution, not after it.
    pub repeat_kv_before_conv: bool,
}

impl SsmShape {
    /// Heads that share one group of x and B.
    pub fn repeat(&self) -> usize {
        self.d_inner / self.d_xb
    }

    /// Width of x and of B among the convolved channels.
    pub fn xb_channels(&self) -> usize {
        if self.repeat_kv_before_conv { self.d_inner } else { self.d_xb }
    }

    /// Convolved channels [x | B | C].
    pub fn channels(&self) -> usize {
        2 * self.xb_channels() + self.d_inner
    }

    /// Rows of in_proj: [z | x | B | C | dt].
    pub fn in_proj(&self) -> usize {
        2 * self.d_inner + 2 * self.d_xb + self.heads
    }

    /// f32 of a slot's state: [heads, P, N], then the last four inputs of each channel.
    pub fn state(&self) -> usize {
        self.taps_offset() + 4 * self.channels()
    }

    /// f32 before the convolution's part of a slot's state.
    pub fn taps_offset(&self) -> usize {
        self.d_inner * self.head_dim
    }

    /// What the shaders call `repeated`.
    pub(crate) fn repeated(&self) -> u32 {
        if self.repeat_kv_before_conv { self.d_inner as u32 } else { 0 }
    }
}

/// `u[r, c] = silu(conv(zxbcdt)[r, c] + bias[c])`.
#[derive(Debug)]
pub struct SsmConv<'a> {
    pub step: &'a Buffer,
    pub shape: SsmShape,
    /// `[rows, in_stride]`, the rows of in_proj.
    pub zxbcdt: &'a Buffer,
    pub in_stride: usize,
    /// `[channels, 4]`.
    pub weight: &'a Buffer,
    /// `[channels]`.
    pub bias: &'a Buffer,
    /// `[slots, state]`.
    pub state: &'a Buffer,
    /// `[rows, u_stride]`.
    pub u: &'a Buffer,
    pub u_stride: usize,
}

impl SsmConv<'_> {
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let s = self.shape;
        assert!(s.in_proj() <= self.in_stride && s.channels() <= self.u_stride, "{label}: rows are too short");
        assert_words(self.weight, 4 * s.channels() as u64, "ssm_conv.weight");
        assert_words(self.bias, s.channels() as u64, "ssm_conv.bias");
        let params = [
            s.channels() as u32,
            self.in_stride as u32,
            s.d_inner as u32,
            self.u_stride as u32,
            s.state() as u32,
            s.taps_offset() as u32,
            s.repeated(),
            s.head_dim as u32,
            s.repeat() as u32,
        ];
        dispatch(
            label,
            "ssm_conv",
            vec![shader!("ssm_conv.wgsl"), shader!("parts/conv_input.wgsl"), STEP],
            target.constants(vec![("WG", f64::from(WG))]),
            &params,
            bindings(self.step, &[self.zxbcdt, self.weight, self.bias, self.state], &[self.u]),
            Grid::new(Extent::Fixed((s.channels() as u32).div_ceil(WG)), Extent::Rows { per: 1 }),
        )
        .costs(Cost {
            bytes: 20 * s.channels(),
            row_bytes: 8 * s.channels(),
            row_macs: 4 * s.channels(),
            segment_bytes: 16 * s.channels(),
            ..Cost::default()
        })
    }
}
