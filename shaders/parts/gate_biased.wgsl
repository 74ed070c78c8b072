// A head's output is gated by silu(z + bias), the bias in the place of a norm's weight, and not normed.

const NORMS: bool = false;

fn gate_of(z: vec4<f32>, bias: vec4<f32>) -> vec4<f32> { return z + bias; }
