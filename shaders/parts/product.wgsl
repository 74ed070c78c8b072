// What the kernels of a product with a weight matrix share: parameters and y. x is declared by parts/input_*.wgsl, what
// becomes of the sums by parts/epilogue.wgsl.

struct Params {
    n: u32,            // outputs: rows of W, in SWIGLU half of them
    k_octs: u32,       // k / 8, k padded to groups of 32
    x_stride: u32,     // in quads
    x_offset: u32,     // in quads
    y_stride: u32,
    y_offset: u32,     // of this part of W, where an adapter's limits cut it
    counter: u32,      // which of the step's counts is the number of rows: 0 rows, 2 logit rows
    width: u32,        // k without padding, of the norm
    eps: f32,          // of the norm
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;          // [rows, y_stride]
