// The product's x as it is.

const NORMED: bool = false;

fn gained(v: vec4<f32>, quad: u32) -> vec4<f32> { return v; }
