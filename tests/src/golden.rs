//! Whole models against what PyTorch computed for them: reading fixtures and comparing with them.

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use zebra_runtime::config::ModelConfig;
use zebra_runtime::engine::probe::{NamedTensor, Values};

/// The tensors of a fixture: f32 as they are, ids as integers.
///
/// # Panics
/// When it is not one.
pub fn read(bytes: &[u8]) -> BTreeMap<String, Values> {
    let tensors = SafeTensors::deserialize(bytes).expect("the fixture is whole");
    let read = |t: safetensors::tensor::TensorView<'_>| match t.dtype() {
        safetensors::Dtype::F32 => Values::F32(bytemuck::pod_collect_to_vec(t.data())),
        safetensors::Dtype::I32 => {
            let ids: Vec<i32> = bytemuck::pod_collect_to_vec(t.data());
            Values::I64(ids.into_iter().map(i64::from).collect())
        }
        safetensors::Dtype::I64 => Values::I64(bytemuck::pod_collect_to_vec(t.data())),
        other => panic!("a fixture holds {other:?}"),
    };
    tensors.tensors().into_iter().map(|(name, t)| (name, read(t))).collect()
}

/// # Panics
/// When they are not ids.
pub fn ids(values: &Values) -> Vec<u32> {
    match values {
        Values::I64(ids) => ids.iter().map(|&id| id as u32).collect(),
        Values::F32(_) => panic!("ids are expected"),
    }
}

/// # Panics
/// When they are not f32.
pub fn f32s(values: &Values) -> &[f32] {
    match values {
        Values::F32(values) => values,
        Values::I64(_) => panic!("f32 are expected"),
    }
}

/// The largest difference in standard deviations of what is expected; infinite for other lengths and for NaN.
pub fn worst_sd(got: &[f32], expected: &[f32]) -> f64 {
    if got.len() != expected.len() {
        return f64::INFINITY;
    }
    let n = expected.len() as f64;
    let mean = expected.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let sd = (expected.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let errors = got.iter().zip(expected).map(|(&g, &e)| (f64::from(g) - f64::from(e)).abs());
    errors.fold(0.0, |worst: f64, e| if e.is_nan() { f64::INFINITY } else { worst.max(e) }) / sd
}

/// Compares tensors by name.
///
/// # Errors
/// The first that is off by more than `tolerance` standard deviations; else a line that names the worst.
pub fn compare(
    what: &str,
    got: &[NamedTensor],
    expected: &BTreeMap<String, Values>,
    tolerance: f64,
) -> Result<String, String> {
    let mut worst = (0.0, String::new());
    for tensor in got {
        let name = &tensor.name;
        let expected = expected.get(name).ok_or_else(|| format!("{what}: the fixture has no {name}"))?;
        match (&tensor.values, expected) {
            (Values::F32(got), Values::F32(expected)) => {
                let sd = worst_sd(got, expected);
                if sd >= worst.0 {
                    worst = (sd, name.clone());
                }
                if sd.is_nan() || sd > tolerance {
                    return Err(format!("{what}: {name} is {sd:.2e} sd off, at most {tolerance:.0e}"));
                }
            }
            (got, expected) if got == expected => {}
            (got, expected) => return Err(format!("{what}: {name}: {expected:?} is {got:?}")),
        }
    }
    Ok(format!("{what}: {} tensors, the worst {} by {:.1e} sd", got.len(), worst.1, worst.0))
}

/// Takes what PyTorch says of rows that are no token's from the logits.
pub fn without_padding(expected: &mut BTreeMap<String, Values>, config: &ModelConfig) {
    for (_, values) in expected.iter_mut().filter(|(name, _)| name.ends_with("logits")) {
        let rows = f32s(values).chunks_exact(config.vocab_rows);
        *values = Values::F32(rows.flat_map(|row| row[..config.vocab_size].to_vec()).collect());
    }
}
