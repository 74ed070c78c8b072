// A head's output is gated by silu(z), normed, and scaled by a weight.

const NORMS: bool = true;

fn gate_of(z: vec4<f32>, weight: vec4<f32>) -> vec4<f32> { return z; }
