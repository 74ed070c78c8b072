//! Zebra-Llama: `config.json` is the base Llama's, `hybrid_config.json` has the mixers, in either of AMD's two schemas.

use super::layers::MixerKind;
use super::llama::{Llama, check_listed, listed};
use super::mla::MlaSizes;
use super::{ConfigFiles, Family, HYBRID_CONFIG_FILE, ModelConfig, Shapes, mamba2};
use crate::Result;

pub(super) fn read(files: &ConfigFiles, shapes: Shapes<'_>) -> Result<ModelConfig> {
    let base = Llama::new(files)?;
    let hybrid = files.object(HYBRID_CONFIG_FILE)?;
    base.agrees(&hybrid)?;
    // HyLo, a successor, also has Gated DeltaNet.
    hybrid.expect_text("linear_type", &["mamba", "mamba2"])?;
    let is_mla = listed(&hybrid, "mla_layers", base.layers)?;
    check_listed(&hybrid, "mla_layers", &is_mla, [&["mla.out_proj.weight"], &["mamba.out_proj.weight"]], shapes)?;
    let theta = || base.config.positive("rope_theta");
    let mla = if is_mla.contains(&true) { Some(MlaSizes::parse(&hybrid, theta)?) } else { None };
    let mamba = if is_mla.contains(&false) { Some(mamba2::sizes(&hybrid, base.hidden_size)?) } else { None };
    let eps = hybrid.positive("rms_norm_eps")? as f32;
    base.model(Family::ZebraLlama, eps, shapes, |n| match (&mla, &mamba) {
        (Some(sizes), _) if is_mla[n] => Ok(("mla.", MixerKind::Mla(sizes.layer(n, base.hidden_size, shapes)?))),
        (_, Some(sizes)) => Ok(("mamba.", MixerKind::Mamba2(mamba2::layer(sizes, n, shapes)?))),
        _ => unreachable!("a layer is one of the two kinds, and each kind that occurs has its sizes"),
    })
}
