//! Rotary position embeddings as configurations describe them.

use serde_json::Value;

use super::object::Object;
use crate::Result;

/// The rotary embedding of a layer's queries and keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Angle per position of pair i: `[rotated width / 2]`.
    pub inv_freq: Vec<f32>,
    /// Multiplies both cosine and sine.
    pub attention_scale: f32,
    /// Multiplies the scores: (width of a head's key)^-0.5, times YaRN's own factor when `mscale_all_dim` is set.
    pub softmax_scale: f32,
}

/// Where a Llama's configuration has no `rope_theta`.
const LLAMA_THETA: f64 = 10_000.0;

/// Angles without any scaling: theta^(-2i / dim).
pub(super) fn plain(dim: usize, theta: f64) -> Vec<f32> {
    let angle = |i: usize| {
        // Rounded where PyTorch's f32 rounds, so that angles agree with the reference at far positions too.
        let power = theta.powf(f64::from((2 * i) as f32 / dim as f32)) as f32;
        1.0 / power
    };
    (0..dim / 2).map(angle).collect()
}

/// The kind of scaling, after the key that tells it: very old files say "type".
fn told(scaling: &Object) -> Result<Option<(&'static str, &str)>> {
    for key in ["rope_type", "type"] {
        if let Some(kind) = scaling.text(key)? {
            return Ok(Some((key, kind)));
        }
    }
    Ok(None)
}

/// Llama's own: `rope_scaling` (`rope_parameters` in newer files) of kind "llama3", or none.
pub(super) fn llama(base: &Object, dim: usize, head_dim: usize) -> Result<Rope> {
    let scaling = match base.object("rope_scaling")? {
        Some(scaling) => Some(scaling),
        None => base.object("rope_parameters")?,
    };
    let inner = scaling.as_ref().map(|s| s.optional_positive("rope_theta")).transpose()?.flatten();
    let theta = base.optional_positive("rope_theta")?.or(inner).unwrap_or(LLAMA_THETA);
    let mut inv_freq = plain(dim, theta);
    if let Some(scaling) = scaling {
        match told(&scaling)? {
            None | Some((_, "default")) => {}
            Some((_, "llama3")) => {
                let factor = scaling.positive("factor")?;
                let (low, high) = (scaling.positive("low_freq_factor")?, scaling.positive("high_freq_factor")?);
                let original = scaling.positive("original_max_position_embeddings")?;
                if low >= high {
                    return Err(scaling.wrong("low_freq_factor", format!("less than high_freq_factor, {high}"), low));
                }
                for f in &mut inv_freq {
                    let e = f64::from(*f);
                    let turns = original * e / (2.0 * std::f64::consts::PI);
                    let smooth = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                    *f = ((1.0 - smooth) * e / factor + smooth * e) as f32;
                }
            }
            Some((key, kind)) => return Err(scaling.wrong(key, "\"default\" or \"llama3\"", kind)),
        }
    }
    Ok(Rope { inv_freq, attention_scale: 1.0, softmax_scale: (head_dim as f64).powf(-0.5) as f32 })
}

/// The rotary embedding that AMD's code makes of `rope_scaling`. The older schema keeps Llama's own dictionary there
/// ("llama3") and says "yarn" at the top level; what that code computed is YaRN all the same.
pub(super) fn mla(file: &Object, dim: usize, theta: f64, qk_head_dim: f64) -> Result<Rope> {
    let plain = plain(dim, theta);
    let softmax_scale = qk_head_dim.powf(-0.5);
    let Some(scaling) = file.object("rope_scaling")? else {
        return Ok(Rope { inv_freq: plain, attention_scale: 1.0, softmax_scale: softmax_scale as f32 });
    };
    let kind = match (told(&scaling)?, file.text("rope_type")?) {
        (None | Some((_, "llama3" | "default")), Some(outer)) => Some((file, "rope_type", outer)),
        (inner, _) => inner.map(|(key, kind)| (&scaling, key, kind)),
    };
    if let Some((object, key, kind)) = kind.filter(|(.., kind)| *kind != "yarn") {
        return Err(object.wrong(key, "\"yarn\" (here or as top-level rope_type)", kind));
    }

    let factor = scaling.positive("factor")?;
    let original = scaling.optional_positive("original_max_position_embeddings")?.unwrap_or(4096.0);
    let beta_fast = scaling.optional_positive("beta_fast")?.unwrap_or(32.0);
    let beta_slow = scaling.optional_positive("beta_slow")?.unwrap_or(1.0);
    let mscale = scaling.number("mscale")?.unwrap_or(1.0);
    let mscale_all_dim = scaling.number("mscale_all_dim")?.unwrap_or(0.0);

    let d = dim as f64;
    let corrected =
        |rotations: f64| d * (original / (rotations * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln());
    let low = corrected(beta_fast).floor().max(0.0);
    let mut high = corrected(beta_slow).ceil().min(d - 1.0);
    if low == high {
        high += 0.001; // AMD's guard against a division by zero
    }
    let inv_freq: Vec<f32> = plain
        .iter()
        .enumerate()
        .map(|(i, &e)| {
            let ramp = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
            e / factor as f32 * ramp + e * (1.0 - ramp)
        })
        .collect();
    let magnitude = |m: f64| {
        if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 }
    };
    let attention_scale = (magnitude(mscale) / magnitude(mscale_all_dim)) as f32;
    let of_all = if mscale_all_dim != 0.0 { magnitude(mscale_all_dim).powi(2) } else { 1.0 };
    let softmax_scale = (softmax_scale * of_all) as f32;
    if !inv_freq.iter().all(|f| f.is_finite()) || !attention_scale.is_finite() || !softmax_scale.is_finite() {
        return Err(file.wrong("rope_scaling", "values that give finite frequencies", Value::Object(scaling.map)));
    }
    Ok(Rope { inv_freq, attention_scale, softmax_scale })
}
