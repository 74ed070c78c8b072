//! CPU twins of the shaders, of the same names: plain loops from the formulas, sums in f64. They know nothing of tiles,
//! lanes, spans or bindings. Inputs are the f32 that the GPU gets; outputs are f64, of which a twin writes exactly the
//! elements that its shader must write.

pub mod add_parts;
pub mod cache;
pub mod embed;
pub mod gqa_append;
pub mod gqa_combine;
pub mod half_rows;
pub mod layernorm;
pub mod mamba1_scan;
pub mod matmul_i8;
pub mod mla_attend;
pub mod mla_combine;
pub mod mla_latent;
pub mod mla_query;
pub mod product;
pub mod quantize_rows;
pub mod rmsnorm;
pub mod rope;
pub mod sample;
pub mod ssm_chunk;
pub mod ssm_conv;
pub mod ssm_scan;
pub mod step;
pub mod weight;

/// x * sigmoid(x).
pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// max(x, 0)^2.
pub fn relu2(x: f64) -> f64 {
    x.max(0.0).powi(2)
}

/// Sum of products.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "a product of vectors of one length");
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
