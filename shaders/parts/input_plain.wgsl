// The product's x as it is.

const NORMED: bool = false;

@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>; // [rows, x_stride]

fn gained(v: vec4<f32>, quad: u32) -> vec4<f32> { return v; }
