//! MambaInLlama: `config.json` is the base Llama's, `mamba_config.json` says which layers keep its attention and gives
//! the sizes of the others, all of them Mamba2 or all Mamba1, which the tensors tell.

use super::layers::MixerKind;
use super::llama::{Llama, check_listed, listed};
use super::mamba1::{self, Mamba1Config};
use super::mamba2::{self, Mamba2Config};
use super::object::Object;
use super::{AttentionConfig, ConfigFiles, Family, MAMBA_CONFIG_FILE, ModelConfig, Shapes};
use crate::{Error, Result};

/// What the layers are that are not attention.
enum Sizes {
    Mamba1(Mamba1Config),
    Mamba2(Mamba2Config),
}

/// What each kind of layer has and no other.
const ATTENTION: &str = "self_attn.q_proj.weight";
const MAMBA2: &str = "mamba.in_proj.weight";
const MAMBA1: &str = "mamba.in_proj_x.weight";

pub(super) fn read(files: &ConfigFiles, shapes: Shapes<'_>) -> Result<ModelConfig> {
    let base = Llama::new(files)?;
    // The models that were made of zephyr are Mistrals, whose attention sees a window.
    base.config.expect_text("model_type", &["llama"])?;
    let mamba = files.object(MAMBA_CONFIG_FILE)?;
    base.agrees(&mamba)?;
    let is_attention = listed(&mamba, "attn_layers", base.layers)?;
    check_listed(&mamba, "attn_layers", &is_attention, [&[ATTENTION], &[MAMBA2, MAMBA1]], shapes)?;
    let attention = AttentionConfig::parse(&base.config)?;
    let sizes = match mamba_kind(&mamba, &is_attention, shapes)? {
        _ if !is_attention.contains(&false) => None,
        "mamba1" => Some(Sizes::Mamba1(mamba1::sizes(&mamba, base.hidden_size)?)),
        _ => Some(Sizes::Mamba2(mamba2::sizes(&mamba, base.hidden_size)?)),
    };
    let eps = mamba.positive("rms_norm_eps")? as f32;
    base.model(Family::MambaInLlama, eps, shapes, |n| match &sizes {
        Some(Sizes::Mamba1(sizes)) if !is_attention[n] => Ok(("mamba.", MixerKind::Mamba1(sizes.clone()))),
        Some(Sizes::Mamba2(sizes)) if !is_attention[n] => {
            Ok(("mamba.", MixerKind::Mamba2(mamba2::layer(sizes, n, shapes)?)))
        }
        _ => Ok(base.attention(&attention)),
    })
}

/// The kind of the layers that are not attention: what their tensors are. Where none is there, `ssm_cfg` says it, and
/// that they are missing is said later.
fn mamba_kind(mamba: &Object, is_attention: &[bool], shapes: Shapes<'_>) -> Result<&'static str> {
    let mut found: Option<(usize, &'static str)> = None;
    for n in (0..is_attention.len()).filter(|n| !is_attention[*n]) {
        let at = |tensor: &str| format!("model.layers.{n}.{tensor}");
        let kinds = [("mamba2", MAMBA2), ("mamba1", MAMBA1)];
        let Some((kind, tensor)) = kinds.into_iter().find(|(_, tensor)| shapes(&at(tensor)).is_some()) else {
            continue;
        };
        match found {
            Some((first, other)) if kind != other => {
                return Err(Error::Tensor {
                    name: at(tensor),
                    expected: format!("all layers but attn_layers to be {other}, as layer {first} is"),
                    found: format!("{kind} in layer {n}"),
                });
            }
            None => found = Some((n, kind)),
            _ => {}
        }
    }
    if let Some((_, kind)) = found {
        return Ok(kind);
    }
    let has_heads = mamba.object("ssm_cfg")?.is_some_and(|ssm| ssm.optional("ngroups").is_some());
    Ok(if has_heads { "mamba2" } else { "mamba1" })
}
