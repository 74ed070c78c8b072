// half_rows.wgsl with root mean square normalisation before.

@group(0) @binding(3) var<storage, read> weight: array<f32>;           // [width]
@group(0) @binding(4) var<storage, read_write> y: array<vec4<u32>>;    // [MAX_ROWS] exponents, [rows, octs]

const NORM: bool = true;

fn norm_weight(i: u32) -> f32 { return weight[min(i, params.width - 1u)]; }
