// The gain of the norm that the coded values go through next.

@group(0) @binding(15) var<storage, read> next_gain: array<f32>; // [outputs]

fn gain_at(n: u32) -> f32 { return next_gain[n]; }
