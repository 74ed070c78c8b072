//! `parts/ssm_shape.wgsl`: the numbers of a Mamba2 mixer that its kernels share, and the layout of its carried state.

use crate::gpu::Buffer;

/// Widths and offsets in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SsmShape {
    pub heads: usize,
    /// P = N, a multiple of 4 up to 128.
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

    /// f32 of a slot's state: [heads, P, N], then [heads, 3 (x, B, C), head_dim, 4], the last four inputs of each
    /// channel, oldest first. Heads that share x and B keep those each for itself.
    pub fn state(&self) -> usize {
        self.taps_offset() + 12 * self.d_inner
    }

    /// f32 before the convolution's part of a slot's state.
    pub fn taps_offset(&self) -> usize {
        self.d_inner * self.head_dim
    }

    /// Where the four inputs of a convolved channel are in a slot's state, as the first head keeps them that reads it.
    pub fn taps_of(&self, channel: usize) -> usize {
        let part = (channel / self.xb_channels()).min(2);
        let inside = channel - part * self.xb_channels();
        let (group, i) = (inside / self.head_dim, inside % self.head_dim);
        let head = if part < 2 { group * self.sharers() } else { group };
        self.taps_offset() + 4 * ((3 * head + part) * self.head_dim + i)
    }

    /// Heads that share the convolved channels of one group of x and B.
    fn sharers(&self) -> usize {
        self.d_inner / self.xb_channels()
    }

    /// What `Params` of the kernels begins with.
    pub(crate) fn params(&self) -> [u32; 6] {
        let all = [self.head_dim, self.d_inner, self.d_xb, self.xb_channels(), self.repeat(), self.sharers()];
        all.map(|v| v as u32)
    }
}

/// Rows of in_proj, and convolved.
#[derive(Debug, Clone, Copy)]
pub struct SsmRows<'a> {
    pub step: &'a Buffer,
    pub shape: SsmShape,
    /// `[rows, in_stride]`, the rows of in_proj.
    pub zxbcdt: &'a Buffer,
    pub in_stride: usize,
    /// `[rows, u_stride]` of [x | B | C].
    pub u: &'a Buffer,
    /// A multiple of 4.
    pub u_stride: usize,
}

impl SsmRows<'_> {
    /// # Panics
    /// When a row does not hold its parts.
    pub(crate) fn check(&self, label: &str) {
        let s = self.shape;
        assert!(s.head_dim.is_multiple_of(4) && s.head_dim <= 128, "{label}: head_dim {}", s.head_dim);
        assert!(s.in_proj() <= self.in_stride && s.channels() <= self.u_stride, "{label}: rows are too short");
        assert!(self.u_stride.is_multiple_of(4), "{label}: rows of u are no whole quads");
    }
}
