//! The discrete Mamba2 mixer of Llamba (arXiv 2502.14458; "Transformers to SSMs", arXiv 2408.10189). Its dispatches are
//! [`Mamba2`]'s: what its kernels leave out or do otherwise, their shape tells them.
//!
//! ```text
//! [x | B | C | z | a] = in_proj n;  [x | B | C] = conv([x | B | C])
//! S = exp(-softplus(a)) S + x (outer) B;  y = S C + D x;  out = out_proj(y * silu(z + z_bias))
//! ```

use super::mamba2::Mamba2;
use super::mixer::Maker;
use crate::config::DiscreteMamba2Config;
use crate::kernels::ssm_shape::{SsmForm, SsmShape};

/// `prefix` is `"backbone.layers.N.mixer."`.
pub fn discrete_mamba2(config: &DiscreteMamba2Config, prefix: &str, maker: &mut Maker<'_>) -> Mamba2 {
    let &DiscreteMamba2Config { heads, head_dim, groups, d_state } = config;
    let s = SsmShape { form: SsmForm::Discrete { groups }, heads, head_dim, d_state };
    let (hidden, tensors) = (maker.hidden, &mut *maker.tensors);
    let name = |tail: &str| format!("{prefix}{tail}");
    Mamba2 {
        shape: s,
        // There is no norm.
        eps: 0.0,
        in_proj: tensors.matrix(&name("in_proj.weight"), s.in_proj(), hidden),
        conv_weight: tensors.vector(&name("conv1d.weight"), &[s.channels(), 1, 4]),
        conv_bias: tensors.vector(&name("conv1d.bias"), &[s.channels()]),
        heads: tensors.vectors(&name("heads"), &[&name("D")], &[heads], 4),
        gate: tensors.vector(&name("z_bias"), &[s.d_inner()]),
        out_proj: tensors.matrix(&name("out_proj.weight"), hidden, s.d_inner()),
    }
}
