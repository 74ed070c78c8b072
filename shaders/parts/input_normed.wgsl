// The product's x is rmsnorm(x) * gain. A row's 1 / rms is a factor of all its sums, so they are made of x * gain and
// multiplied by it at their end: nobody waits for the norm.

const NORMED: bool = true;

@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;    // [rows, x_stride]
@group(0) @binding(4) var<storage, read> gain: array<vec4<f32>>; // [width], padded as x

fn gained(v: vec4<f32>, quad: u32) -> vec4<f32> { return v * gain[quad]; }
