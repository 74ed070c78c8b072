//! Sizes of the Mamba1 mixer, as MambaInLlama configures it.

use super::object::Object;
use super::{MAX_WIDTH, TensorList};
use crate::Result;

/// The taps of the causal convolution: the only number that any released checkpoint has.
const D_CONV: usize = 4;
/// States of a channel, and channels of a group of B and C: the class's default, which no released checkpoint changes.
const D_STATE: usize = 16;

/// Sizes of one Mamba1 layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Mamba1Config {
    /// Channels: width of z, C and the output.
    pub d_inner: usize,
    /// Width of x and B before they are repeated to `d_inner`, x before the convolution.
    pub d_xb: usize,
    /// Rank of the two factors that make the time steps.
    pub dt_rank: usize,
}

impl Mamba1Config {
    /// The state of a layer is `[d_inner, d_state]`.
    pub fn d_state(&self) -> usize {
        D_STATE
    }

    /// Taps of the causal convolution.
    pub fn d_conv(&self) -> usize {
        D_CONV
    }

    pub(super) fn tensors(&self, p: &str, hidden: usize, list: &mut TensorList) {
        let &Self { d_inner, d_xb, dt_rank } = self;
        list.matrix(format!("{p}in_proj_x.weight"), d_xb, hidden);
        list.matrix(format!("{p}in_proj_z.weight"), d_inner, hidden);
        list.matrix(format!("{p}B_proj.weight"), d_xb, hidden);
        list.matrix(format!("{p}C_proj.weight"), d_inner, hidden);
        list.matrix(format!("{p}dt_proj_down.weight"), dt_rank, hidden);
        list.matrix(format!("{p}dt_proj.weight"), d_inner, dt_rank);
        list.vector(format!("{p}dt_proj.bias"), &[d_inner]);
        list.vector(format!("{p}conv1d.weight"), &[d_inner, 1, D_CONV]);
        list.vector(format!("{p}conv1d.bias"), &[d_inner]);
        list.vector(format!("{p}A_log"), &[d_inner, D_STATE]);
        list.vector(format!("{p}D"), &[d_inner]);
        list.matrix(format!("{p}out_proj.weight"), hidden, d_inner);
    }
}

/// The sizes that `mamba_config.json` gives all Mamba1 layers.
pub(super) fn sizes(file: &Object, hidden: usize) -> Result<Mamba1Config> {
    let ssm = file.object("ssm_cfg")?;
    let mut expand = 1;
    let mut dt_rank = hidden.div_ceil(16);
    if let Some(ssm) = &ssm {
        // What the mixer's code allows and no released checkpoint uses: refused rather than computed wrongly.
        ssm.expect_size("d_conv", D_CONV)?;
        ssm.expect_size("d_state", D_STATE)?;
        ssm.expect_text("activation", &["silu", "swish"])?;
        for (key, value) in [("conv_bias", true), ("bias", false), ("repeat_kv_before_conv", true)] {
            ssm.expect_flag(key, value)?;
        }
        if let Some(groups) = ssm.optional("ngroups") {
            return Err(ssm.wrong("ngroups", "no such key, as the layers' tensors are Mamba1's", groups.clone()));
        }
        expand = ssm.optional_size("expand", 64)?.unwrap_or(expand);
        if ssm.optional("dt_rank").is_some_and(|rank| rank != "auto") {
            dt_rank = ssm.size("dt_rank", MAX_WIDTH)?;
        }
    }
    let d_inner = file.optional_size("d_inner", MAX_WIDTH)?.unwrap_or(expand * hidden);
    let d_xb = file.size("d_xb", MAX_WIDTH)?;
    if !d_inner.is_multiple_of(D_STATE) {
        return Err(file.wrong("d_inner", format!("a multiple of d_state ({D_STATE})"), d_inner));
    }
    if !d_inner.is_multiple_of(d_xb) || !d_xb.is_multiple_of(D_STATE) {
        let expected = format!("a divisor of d_inner ({d_inner}) that is a multiple of d_state ({D_STATE})");
        return Err(file.wrong("d_xb", expected, d_xb));
    }
    Ok(Mamba1Config { d_inner, d_xb, dt_rank })
}
