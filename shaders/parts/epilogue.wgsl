// What a matrix product does with its sums. OUTPUTS_AT maps the four sums of an item to rows of W and to y.
//
// STORE: y = sum. ADD: y += sum (the residual). SWIGLU: W is [gate; up], y = silu(gate) * up, half as many outputs.

const STORE: u32 = 0u;
const ADD: u32 = 1u;
const SWIGLU: u32 = 2u;
override EPILOGUE: u32 = 0u;

fn silu(v: f32) -> f32 { return v / (1.0 + exp(-v)); }
