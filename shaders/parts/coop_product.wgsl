// What the products on cooperative matrices share: their rows of x, which half_rows.wgsl has made f16 and divided by a power
// of two each; their outputs; and which rows of W a tile of OUTPUTS has.
//
// The epilogue is one of parts/epilogue.wgsl, or PARTS: where there are few tiles, SPLITS workgroups share one, each of
// which walks a part of k and leaves its sums as they are for add_parts.wgsl: y is [SPLITS, rows in whole tiles,
// y_stride].

struct Params {
    n: u32,            // outputs: rows of W, in SWIGLU half of them
    groups: u32,       // of 32, in a row of W
    x_octs: u32,       // of a row of x: whole blocks
    y_stride: u32,
    y_offset: u32,     // of this part of W, where an adapter's limits cut it
    counter: u32,      // which of the step's counts is the number of rows: 0 rows, 2 logit rows
    part_stride: u32,  // of y in PARTS
}

struct Oct {
    low: vec4<f16>,
    high: vec4<f16>,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<Oct>;        // [MAX_ROWS] exponents, [rows, x_octs]
@group(0) @binding(3) var<storage, read_write> y: array<f32>;  // [rows, y_stride]

const PARTS: u32 = 4u; // an EPILOGUE
override SPLITS: u32 = 1u; // parts of k

const BLOCK: u32 = 64u;       // of k
const BLOCK_GROUPS: u32 = 2u;
const BLOCK_OCTS: u32 = 8u;
const STRIDE: u32 = 18u;      // of a tile's row, in quads: 16 bytes over, so that rows lie in different banks

// Row of W in column c of tile `item`. A tile may hang over the end: it reads a row that exists and stores nothing.
fn output_row(item: u32, c: u32) -> u32 {
    if (EPILOGUE == SWIGLU) {
        // Columns alternate by matrices: one of gate, then the one of up that belongs to it.
        let n = item * (OUTPUTS / 2u) + c / (2u * SIDE) * SIDE + c % SIDE;
        return min(n, params.n - 1u) + ((c / SIDE) & 1u) * params.n;
    }
    return min(item * OUTPUTS + c, params.n - 1u);
}

// An oct of a row of x; of the last row where there are no more.
fn x_oct(row: u32, rows: u32, oct: u32) -> Oct { return x[MAX_ROWS + min(row, rows - 1u) * params.x_octs + oct]; }

// A group of a row of W. A group past the row's end is read from its last: x is zero there.
fn w_group(row: u32, group: u32) -> Group { return group_at(row * params.groups + min(group, params.groups - 1u)); }

// What a row of x was divided by.
fn row_scale(row: u32, rows: u32) -> f32 {
    let exponent = i32(x[min(row, rows - 1u)].low.x);
    return bitcast<f32>(u32(exponent + 127) << 23u);
}

// Puts a sum out; in SWIGLU it is of up, and `gate` belongs to it.
fn put(r: u32, n: u32, v: f32, gate: f32) {
    let to = r * params.y_stride + params.y_offset + n;
    if (EPILOGUE == ADD) {
        y[to] += v;
    } else if (EPILOGUE == SWIGLU) {
        y[to] = silu(gate) * v;
    } else {
        y[to] = activated(v);
    }
}
