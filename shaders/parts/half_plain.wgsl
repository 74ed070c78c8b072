// half_rows.wgsl of the rows as they are.

@group(0) @binding(3) var<storage, read_write> y: array<vec4<u32>>;    // [MAX_ROWS] exponents, [rows, octs]

const NORM: bool = false;

fn norm_weight(i: u32) -> f32 { return 1.0; }
