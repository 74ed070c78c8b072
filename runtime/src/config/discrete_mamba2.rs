//! Sizes of the discrete Mamba2 mixer, as Llamba configures it.

use super::object::Object;
use super::{MAX_HEAD_DIM, MAX_HEADS, TensorList};
use crate::Result;

/// The taps of the causal convolution: the authors' constant.
const D_CONV: usize = 4;
/// What the kernels have room for.
const MOST: usize = 128;

/// Sizes of one discrete Mamba2 layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscreteMamba2Config {
    /// State heads.
    pub heads: usize,
    /// Width of a head's x and y: its state is `[head_dim, d_state]`.
    pub head_dim: usize,
    /// Groups of B and C; head h uses group h / (heads / groups).
    pub groups: usize,
    /// Width of a group.
    pub d_state: usize,
}

impl DiscreteMamba2Config {
    /// Width of z and of the output.
    pub fn d_inner(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Channels of the convolution: [x | B | C].
    pub fn conv_channels(&self) -> usize {
        self.d_inner() + 2 * self.groups * self.d_state
    }

    /// Rows of `in_proj`: [x | B | C | z | a].
    pub fn in_proj_rows(&self) -> usize {
        self.conv_channels() + self.d_inner() + self.heads
    }

    pub(super) fn tensors(&self, p: &str, hidden: usize, list: &mut TensorList) {
        list.matrix(format!("{p}in_proj.weight"), self.in_proj_rows(), hidden);
        list.vector(format!("{p}conv1d.weight"), &[self.conv_channels(), 1, D_CONV]);
        list.vector(format!("{p}conv1d.bias"), &[self.conv_channels()]);
        list.vector(format!("{p}z_bias"), &[self.d_inner()]);
        list.vector(format!("{p}D"), &[self.heads]);
        list.matrix(format!("{p}out_proj.weight"), hidden, self.d_inner());
    }

    /// As `ssm_cfg` of `config.json` has it.
    pub(super) fn parse(ssm: &Object, hidden: usize) -> Result<Self> {
        ssm.expect_size("d_conv", D_CONV)?;
        ssm.expect_text("activation", &["identity"])?;
        ssm.expect_flag("conv_bias", true)?;
        // With it in_proj and out_proj have biases, and z has none.
        ssm.expect_flag("bias", false)?;
        let heads = ssm.size("n_v_heads", MAX_HEADS)?;
        let groups = ssm.size("n_qk_heads", MAX_HEADS)?;
        let d_state = ssm.size("d_state", MAX_HEAD_DIM)?;
        let d_inner = ssm.size("expand", 64)? * hidden;
        let head_dim = d_inner / heads;
        let covered = |v: usize| v.is_multiple_of(4) && (4..=MOST).contains(&v);
        if head_dim * heads != d_inner || !covered(head_dim) {
            let expected = format!("a divisor of expand * d_model = {d_inner} into a multiple of 4, at most {MOST}");
            return Err(ssm.wrong("n_v_heads", expected, heads));
        }
        if !covered(d_state) {
            return Err(ssm.wrong("d_state", format!("a multiple of 4, at most {MOST}"), d_state));
        }
        if !heads.is_multiple_of(groups) {
            return Err(ssm.wrong("n_qk_heads", format!("a divisor of n_v_heads, {heads}"), groups));
        }
        Ok(Self { heads, head_dim, groups, d_state })
    }
}
