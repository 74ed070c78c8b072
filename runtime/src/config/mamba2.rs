//! Sizes of the Mamba2 mixer, as MambaInLlama and Zebra-Llama configure it.

use super::object::Object;
use super::{MAX_HEAD_DIM, MAX_HEADS, MAX_WIDTH, Shapes, TensorList};
use crate::{Error, Result};

/// The taps of the causal convolution: the only number that any released checkpoint has.
const D_CONV: usize = 4;
/// Of the gated norm: a constant in the authors' code, in no configuration file.
const GATED_NORM_EPS: f32 = 1e-5;

/// Sizes of one Mamba2 layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Mamba2Config {
    /// State heads.
    pub heads: usize,
    /// Width of a head and of its state: the state is `[heads, head_dim, head_dim]`.
    pub head_dim: usize,
    /// heads * head_dim: width of z, C and the output.
    pub d_inner: usize,
    /// Width of x and B before they are repeated to `d_inner`.
    pub d_xb: usize,
    /// Taps of the causal convolution.
    pub d_conv: usize,
    /// Whether x and B are repeated before the convolution instead of after it.
    pub repeat_kv_before_conv: bool,
    /// Epsilon of the gated norm.
    pub norm_eps: f32,
}

impl Mamba2Config {
    /// Rows of `in_proj`: [z | x | B | C | dt].
    pub fn in_proj_rows(&self) -> usize {
        2 * self.d_inner + 2 * self.d_xb + self.heads
    }

    /// Channels of the convolution: [x | B | C].
    pub fn conv_channels(&self) -> usize {
        if self.repeat_kv_before_conv { 3 * self.d_inner } else { self.d_inner + 2 * self.d_xb }
    }

    pub(super) fn tensors(&self, p: &str, hidden: usize, list: &mut TensorList) {
        list.matrix(format!("{p}in_proj.weight"), self.in_proj_rows(), hidden);
        list.vector(format!("{p}conv1d.weight"), &[self.conv_channels(), 1, self.d_conv]);
        list.vector(format!("{p}conv1d.bias"), &[self.conv_channels()]);
        list.vector(format!("{p}dt_bias"), &[self.heads]);
        list.vector(format!("{p}A_log"), &[self.heads]);
        list.vector(format!("{p}D"), &[self.heads]);
        list.vector(format!("{p}norm.weight"), &[self.d_inner]);
        list.matrix(format!("{p}out_proj.weight"), hidden, self.d_inner);
    }
}

/// The sizes that `hybrid_config.json` or `mamba_config.json` gives all Mamba2 layers.
pub(super) fn sizes(file: &Object, hidden: usize) -> Result<Mamba2Config> {
    let ssm = file.object("ssm_cfg")?.ok_or_else(|| file.missing("ssm_cfg", "an object with ngroups and d_state"))?;
    // What the mixer's code allows and no released checkpoint uses: refused rather than computed wrongly.
    ssm.expect_size("d_conv", D_CONV)?;
    ssm.expect_text("activation", &["silu", "swish"])?;
    for (key, value) in
        [("conv_bias", true), ("rmsnorm", true), ("bias", false), ("norm_before_gate", false), ("D_has_hdim", false)]
    {
        ssm.expect_flag(key, value)?;
    }
    let heads = ssm.size("ngroups", MAX_HEADS)?;
    let head_dim = ssm.size("d_state", MAX_HEAD_DIM)?;
    let d_inner = match file.optional_size("d_inner", MAX_WIDTH)? {
        Some(d_inner) => d_inner,
        None => ssm.optional_size("expand", 64)?.unwrap_or(1) * hidden,
    };
    let d_xb = file.size("d_xb", MAX_WIDTH)?;
    if !head_dim.is_multiple_of(4) || head_dim > 128 {
        return Err(file.wrong("ssm_cfg.d_state", "a multiple of 4, at most 128", head_dim));
    }
    if heads * head_dim != d_inner {
        let expected = format!("ngroups * d_state = {heads} * {head_dim} = {}", heads * head_dim);
        return Err(file.wrong("d_inner", expected, d_inner));
    }
    if !d_inner.is_multiple_of(d_xb) || !d_xb.is_multiple_of(head_dim) {
        let expected = format!("a divisor of d_inner ({d_inner}) that is a multiple of d_state ({head_dim})");
        return Err(file.wrong("d_xb", expected, d_xb));
    }
    Ok(Mamba2Config {
        heads,
        head_dim,
        d_inner,
        d_xb,
        d_conv: D_CONV,
        repeat_kv_before_conv: false,
        norm_eps: GATED_NORM_EPS,
    })
}

/// The form of the convolution is told by its channels, not by `ssm_cfg.repeat_kv_before_conv`.
pub(super) fn layer(sizes: &Mamba2Config, n: usize, shape: Shapes<'_>) -> Result<Mamba2Config> {
    let name = format!("model.layers.{n}.mamba.conv1d.weight");
    let late = Mamba2Config { repeat_kv_before_conv: false, ..sizes.clone() };
    let early = Mamba2Config { repeat_kv_before_conv: true, ..sizes.clone() };
    let found = shape(&name);
    for config in [&late, &early] {
        if found.as_deref() == Some(&[config.conv_channels(), 1, config.d_conv]) {
            return Ok(config.clone());
        }
    }
    Err(Error::Tensor {
        name,
        expected: format!(
            "shape [{}, 1, {D_CONV}], or [{}, 1, {D_CONV}] with repeat_kv_before_conv",
            late.conv_channels(),
            early.conv_channels()
        ),
        found: found.map_or("no such tensor".into(), |shape| format!("shape {shape:?}")),
    })
}
