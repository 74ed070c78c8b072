//! `parts/ssm_shape.wgsl`: the numbers of a Mamba2 mixer that its kernels share, and the layout of its carried state; and
//! the parts for its form, `parts/ssm_mamba2.wgsl` or `parts/ssm_discrete.wgsl` with their `parts/gate_*.wgsl`.

use super::shader;
use crate::gpu::Buffer;

/// The largest head_dim and d_state.
pub(crate) const MOST: usize = 128;

/// What kind of Mamba2 it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SsmForm {
    /// As MambaInLlama has it: in_proj's rows are [z | x | B | C | dt], and heads share x and B.
    Mamba2 {
        /// Width of x and of B in in_proj.
        d_xb: usize,
        /// x and B are repeated for each head before the convolution, not after it.
        repeat_kv_before_conv: bool,
    },
    /// As Llamba has it: in_proj's rows are [x | B | C | z | a], and heads share B and C. No silu follows the convolution,
    /// x is not scaled, `a` alone decides what is forgotten, and what is gated has a bias on z and no norm.
    Discrete {
        /// Of B and C, each of d_state.
        groups: usize,
    },
}

/// Widths and offsets in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SsmShape {
    pub form: SsmForm,
    pub heads: usize,
    /// P, a multiple of 4 up to 128.
    pub head_dim: usize,
    /// N, a multiple of 4 up to 128; P of [`SsmForm::Mamba2`].
    pub d_state: usize,
}

impl SsmShape {
    /// Width of z and of y.
    pub fn d_inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width in in_proj of each of the two parts that heads share.
    pub fn d_shared(&self) -> usize {
        match self.form {
            SsmForm::Mamba2 { d_xb, .. } => d_xb,
            SsmForm::Discrete { groups } => groups * self.d_state,
        }
    }

    /// Heads that share one group of those.
    pub fn repeat(&self) -> usize {
        self.heads * self.d_state / self.d_shared()
    }

    /// Width of each of them among the convolved channels.
    pub fn shared_channels(&self) -> usize {
        match self.form {
            SsmForm::Mamba2 { repeat_kv_before_conv: true, .. } => self.d_inner(),
            _ => self.d_shared(),
        }
    }

    /// Convolved channels of x, of B and of C.
    pub fn part_channels(&self) -> [usize; 3] {
        let (shared, own) = (self.shared_channels(), self.d_inner());
        match self.form {
            SsmForm::Mamba2 { .. } => [shared, shared, own],
            SsmForm::Discrete { .. } => [own, shared, shared],
        }
    }

    /// Convolved channels [x | B | C].
    pub fn channels(&self) -> usize {
        self.part_channels().iter().sum()
    }

    /// Rows of in_proj.
    pub fn in_proj(&self) -> usize {
        2 * self.d_inner() + 2 * self.d_shared() + self.heads
    }

    /// The first column of z in in_proj.
    pub fn z_column(&self) -> usize {
        match self.form {
            SsmForm::Mamba2 { .. } => 0,
            SsmForm::Discrete { .. } => self.channels(),
        }
    }

    /// f32 of a slot's state: [heads, P, N], then [heads, P + 2 N, 4], the last four inputs of each channel of x, B and C,
    /// oldest first. Heads that share a channel keep those each for itself.
    pub fn state(&self) -> usize {
        self.taps_offset() + 4 * self.heads * self.head_channels()
    }

    /// f32 before the convolution's part of a slot's state.
    pub fn taps_offset(&self) -> usize {
        self.d_inner() * self.d_state
    }

    /// Channels that a head reads.
    pub fn head_channels(&self) -> usize {
        self.head_dim + 2 * self.d_state
    }

    /// Where the four inputs of a convolved channel are in a slot's state, as the first head keeps them that reads it.
    pub fn taps_of(&self, channel: usize) -> usize {
        let (mut part, mut inside, mut first) = (0, channel, 0);
        let widths = [self.head_dim, self.d_state, self.d_state];
        while inside >= self.part_channels()[part] {
            inside -= self.part_channels()[part];
            first += widths[part];
            part += 1;
        }
        let (group, i) = (inside / widths[part], inside % widths[part]);
        let readers = self.heads * widths[part] / self.part_channels()[part];
        self.taps_offset() + 4 * (group * readers * self.head_channels() + first + i)
    }

    /// Heads that share the convolved channels of one group.
    fn sharers(&self) -> usize {
        self.heads * self.d_state / self.shared_channels()
    }

    /// What `Params` of the kernels begins with.
    pub(crate) fn params(&self) -> [u32; 7] {
        let (scan, state) = (self.taps_offset() / 4, self.state() / 4);
        let (shared, repeat) = ([self.d_shared(), self.shared_channels()], [self.repeat(), self.sharers()]);
        [scan, state, self.d_inner(), shared[0], shared[1], repeat[0], repeat[1]].map(|v| v as u32)
    }

    /// The parts that kernels of in_proj's columns or of the state are joined to.
    pub(crate) fn sources(&self) -> [&'static str; 2] {
        let form = match self.form {
            SsmForm::Mamba2 { .. } => shader!("parts/ssm_mamba2.wgsl"),
            SsmForm::Discrete { .. } => shader!("parts/ssm_discrete.wgsl"),
        };
        [shader!("parts/ssm_shape.wgsl"), form]
    }

    /// Their constants.
    pub(crate) fn constants(&self) -> [(&'static str, f64); 2] {
        [("P_QUADS", (self.head_dim / 4) as f64), ("N_QUADS", (self.d_state / 4) as f64)]
    }

    /// The part that gates.
    pub(crate) fn gate(&self) -> &'static str {
        match self.form {
            SsmForm::Mamba2 { .. } => shader!("parts/gate_normed.wgsl"),
            SsmForm::Discrete { .. } => shader!("parts/gate_biased.wgsl"),
        }
    }

    /// # Panics
    /// When no kernel covers it, which the configuration refuses before.
    pub(crate) fn check(&self, label: &str) {
        let fits = |v: usize| v.is_multiple_of(4) && (4..=MOST).contains(&v);
        assert!(fits(self.head_dim) && fits(self.d_state), "{label}: {self:?}");
        assert!(matches!(self.form, SsmForm::Discrete { .. }) || self.head_dim == self.d_state, "{label}: {self:?}");
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
        s.check(label);
        assert!(s.in_proj() <= self.in_stride && s.channels() <= self.u_stride, "{label}: rows are too short");
        assert!(self.u_stride.is_multiple_of(4), "{label}: rows of u are no whole quads");
    }
}
