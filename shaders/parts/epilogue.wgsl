// What becomes of the sums of a product with W.
//
// STORE: y = sum. ADD: y += sum (the residual). SWIGLU: W is [gate; up], y = silu(gate) * up, half as many outputs.
// RELU2: y = max(sum, 0)^2.

const STORE: u32 = 0u;
const ADD: u32 = 1u;
const SWIGLU: u32 = 2u;
const RELU2: u32 = 3u;
override EPILOGUE: u32 = 0u;

fn silu(v: f32) -> f32 { return v / (1.0 + exp(-v)); }
fn silu4(v: vec4<f32>) -> vec4<f32> { return v / (1.0 + exp(-v)); }

// A sum that is an output of its own. What is no number stays none.
fn activated(sum: f32) -> f32 {
    if (EPILOGUE == RELU2) {
        return select(sum * sum, 0.0, sum < 0.0);
    }
    return sum;
}
