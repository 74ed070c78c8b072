// Kernels whose lanes own four rows of W at a time: set s of them, and where the sums of x's row r come from.

// Row of W that is sum j of set s. The last set may hang over: it reads a row that exists and stores nothing.
fn output_row(s: u32, j: u32) -> u32 {
    if (EPILOGUE == SWIGLU) {
        return min(s * 2u + (j & 1u), params.n - 1u) + (j >> 1u) * params.n;
    }
    return min(s * 4u + j, params.n - 1u);
}

// First quad of row r of x: of the row that logit row r asks for, where the product runs over those.
fn x_row(r: u32) -> u32 {
    var row = r;
    if (params.counter == 2u) {
        row = logit_row_at(r);
    }
    return row * params.x_stride + params.x_offset;
}

fn scale_of_norm(squares: f32) -> f32 { return inverseSqrt(squares / f32(params.width) + params.eps); }
