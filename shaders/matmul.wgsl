// y[r, n] = sum_k x[r, k] W[n, k] for many rows.
//
// One workgroup of 64 lanes owns a tile of 64 rows by 64 rows of W and walks k by 32: both tiles go through workgroup
// memory, transposed, and a lane sums 8 x 8 products in registers. In SWIGLU a tile is 32 rows of gate and the 32 rows
// of up that belong to them, and a lane owns 4 of each.

const TILE: u32 = 64u;
const QUADS: u32 = 16u;   // of a tile

var<workgroup> tile_x: array<vec4<f32>, 512>; // [32 k, 16 quads of rows]
var<workgroup> tile_w: array<vec4<f32>, 512>; // [32 k, 16 quads of outputs]

override GATHERS: bool = false; // x has all rows of the step, and y those that ask for logits

// Row of x that is row r of y.
fn row_of_x(r: u32) -> u32 {
    if (GATHERS) {
        return logit_row_at(r);
    }
    return r;
}

// Row of W in column c of tile `item`. A tile may hang over the end: it reads a row that exists and stores nothing.
fn output_row(item: u32, c: u32) -> u32 {
    if (EPILOGUE == SWIGLU) {
        // Columns alternate by quads: 4 of gate, then the 4 of up.
        let n = item * 32u + (c >> 3u) * 4u + (c & 3u);
        return min(n, params.n - 1u) + ((c >> 2u) & 1u) * params.n;
    }
    return min(item * TILE + c, params.n - 1u);
}

fn store_quad(r: u32, n0: u32, v: vec4<f32>) {
    let to = r * params.y_stride + params.y_offset + n0;
    for (var j = 0u; j < 4u; j++) {
        if (n0 + j < params.n) {
            if (EPILOGUE == ADD) {
                y[to + j] += v[j];
            } else {
                y[to + j] = activated(v[j]);
            }
        }
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let item = wid.y * groups.x + wid.x;
    let rows = step[0][params.counter];
    let r0 = wid.z * TILE;
    let k_quads = 2u * params.k_octs;
    // A lane loads, for both tiles, 4 rows by 4 k at k quad `lk`, row quads `lr` and `lr + 8`.
    let lk = lid & 7u;
    let lr = lid >> 3u;
    var x_from: array<u32, 8>;
    var w_from: array<u32, 8>;
    for (var i = 0u; i < 8u; i++) {
        let line = (lr + (i >> 2u) * 8u) * 4u + (i & 3u);
        x_from[i] = row_of_x(min(r0 + line, rows - 1u)) * params.x_stride + params.x_offset + lk;
        w_from[i] = output_row(item, line) * k_quads + lk;
    }
    // A lane sums rows 8 * ty .. + 8 by columns 8 * tx .. + 8.
    let tx = lid & 7u;
    let ty = lid >> 3u;
    var low: array<vec4<f32>, 8>;
    var high: array<vec4<f32>, 8>;
    for (var i = 0u; i < 8u; i++) {
        low[i] = vec4<f32>(0.0);
        high[i] = vec4<f32>(0.0);
    }
    for (var k = 0u; k < k_quads; k += 8u) {
        workgroupBarrier();
        for (var h = 0u; h < 2u; h++) {
            let a = transpose(mat4x4<f32>(x[x_from[h * 4u] + k], x[x_from[h * 4u + 1u] + k],
                                          x[x_from[h * 4u + 2u] + k], x[x_from[h * 4u + 3u] + k]));
            let b = transpose(mat4x4<f32>(weight_quad(w_from[h * 4u] + k), weight_quad(w_from[h * 4u + 1u] + k),
                                          weight_quad(w_from[h * 4u + 2u] + k), weight_quad(w_from[h * 4u + 3u] + k)));
            let to = lk * 4u * QUADS + lr + h * 8u;
            tile_x[to] = a[0];
            tile_x[to + QUADS] = a[1];
            tile_x[to + 2u * QUADS] = a[2];
            tile_x[to + 3u * QUADS] = a[3];
            tile_w[to] = b[0];
            tile_w[to + QUADS] = b[1];
            tile_w[to + 2u * QUADS] = b[2];
            tile_w[to + 3u * QUADS] = b[3];
        }
        workgroupBarrier();
        for (var kk = 0u; kk < 32u; kk++) {
            let a0 = tile_x[kk * QUADS + 2u * ty];
            let a1 = tile_x[kk * QUADS + 2u * ty + 1u];
            let b0 = tile_w[kk * QUADS + 2u * tx];
            let b1 = tile_w[kk * QUADS + 2u * tx + 1u];
            low[0] += a0.x * b0;
            high[0] += a0.x * b1;
            low[1] += a0.y * b0;
            high[1] += a0.y * b1;
            low[2] += a0.z * b0;
            high[2] += a0.z * b1;
            low[3] += a0.w * b0;
            high[3] += a0.w * b1;
            low[4] += a1.x * b0;
            high[4] += a1.x * b1;
            low[5] += a1.y * b0;
            high[5] += a1.y * b1;
            low[6] += a1.z * b0;
            high[6] += a1.z * b1;
            low[7] += a1.w * b0;
            high[7] += a1.w * b1;
        }
    }
    for (var i = 0u; i < 8u; i++) {
        let r = r0 + ty * 8u + i;
        if (r < rows) {
            if (EPILOGUE == SWIGLU) {
                store_quad(r, item * 32u + tx * 4u, silu4(low[i]) * high[i]);
            } else {
                store_quad(r, item * TILE + tx * 8u, low[i]);
                store_quad(r, item * TILE + tx * 8u + 4u, high[i]);
            }
        }
    }
}
