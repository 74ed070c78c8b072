// The part of a chunked scan (Mamba2, "Transformers are SSMs", section 6) that needs no state: for each head and each
// chunk of CHUNK rows of the step, row i taking the state's own inputs j of its chunk,
//
//   scores[i, j] = (C_i . B_j) dt_j exp(sum of log a over j+1..i) + (i == j) D      for j <= i of the same segment
//   before[i]    = exp(sum of log a from the segment's first row in the chunk to i)
//   after[j]     = dt_j exp(sum of log a from j + 1 to the segment's last row in the chunk)
//
// Chunks lie on multiples of CHUNK of the step's rows, whatever the segments: a segment that begins or ends inside of
// one is masked. Exponents are sums of log a <= 0 taken over the very rows they span: nothing overflows, and no large
// sum is subtracted from another. One workgroup of 8 x 8 lanes owns one head of one chunk.
//
// Floor: rows * heads * CHUNK * N / 2 multiply-adds (512 x 32 x 16 x 64 / 2: 8 M; 13 M here, by tiles on the diagonal).

override CHUNK: u32;    // 8, 16, 24 or 32
override TILE: u32;     // CHUNK / 8

const SIDE: u32 = 8u;   // lanes along i and along j
const WG: u32 = 64u;    // SIDE * SIDE
const SLAB: u32 = 8u;   // quads of n in workgroup memory at once
const PITCH: u32 = 9u;  // quads from row to row there: odd, so that rows do not share banks

struct Params {
    head_dim: u32,
    d_inner: u32,
    d_xb: u32,
    xb_channels: u32,
    repeat: u32,
    sharers: u32,
    in_stride: u32,   // of the in_proj rows
    u_quads: u32,     // vec4 of a row of u
    heads: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> zxbcdt: array<f32>;            // [rows, in_stride]
@group(0) @binding(3) var<storage, read> u: array<vec4<f32>>;           // [rows, u_quads]
@group(0) @binding(4) var<storage, read> heads: array<vec4<f32>>;       // [heads] (A_log, D, dt_bias, 0)
@group(0) @binding(5) var<storage, read_write> scores: array<f32>;      // [chunks, heads][CHUNK + 2, CHUNK]: scores, before, after

var<workgroup> bs: array<vec4<f32>, CHUNK * PITCH>;
var<workgroup> cs: array<vec4<f32>, CHUNK * PITCH>;
var<workgroup> dts: array<f32, CHUNK>;
var<workgroup> logs: array<f32, CHUNK>;            // log a
var<workgroup> starts: array<u32, CHUNK>;          // 1 where a segment begins
var<workgroup> decays: array<f32, CHUNK * CHUNK>;  // what C_i . B_j is multiplied by, 0 where it is masked

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let head = wid.x;
    let first = wid.z * CHUNK;
    let rows = min(step_rows() - first, CHUNK);
    let base = (wid.z * params.heads + head) * (CHUNK + 2u) * CHUNK;
    let per_head = heads[head];
    if (lid < rows) {
        let dt = softplus(zxbcdt[(first + lid) * params.in_stride + dt_column(head)] + per_head.z);
        dts[lid] = dt;
        logs[lid] = -exp(per_head.x) * dt;
        starts[lid] = select(0u, 1u, row_at(first + lid).offset == 0u);
    }
    workgroupBarrier();
    if (lid < CHUNK) {
        scores[base + CHUNK * CHUNK + lid] = decay_before(lid, rows);
        scores[base + CHUNK * CHUNK + CHUNK + lid] = decay_column(lid, rows);
    }

    let quads = params.head_dim / 4u;
    let b_quad = first * params.u_quads + head_channel(head, 1u) / 4u;
    let c_quad = first * params.u_quads + head_channel(head, 2u) / 4u;
    let row = lid / SIDE;
    let column = lid % SIDE;
    var sums: array<vec4<f32>, 4>;
    for (var slab = 0u; slab < quads; slab += SLAB) {
        let width = min(SLAB, quads - slab);
        for (var i = lid; i < rows * SLAB; i += WG) {
            let q = i % SLAB;
            if (q < width) {
                let source = i / SLAB * params.u_quads + slab + q;
                let to = i / SLAB * PITCH + q;
                bs[to] = u[b_quad + source];
                cs[to] = u[c_quad + source];
            }
        }
        workgroupBarrier();
        for (var q = 0u; q < width; q++) {
            for (var m = 0u; m < TILE; m++) {
                let c = cs[(row + m * SIDE) * PITCH + q];
                // Tiles above the diagonal are masked whole.
                for (var n = 0u; n <= m; n++) {
                    sums[m][n] += dot(c, bs[(column + n * SIDE) * PITCH + q]);
                }
            }
        }
        workgroupBarrier();
    }
    for (var m = 0u; m < TILE; m++) {
        for (var n = 0u; n < TILE; n++) {
            let i = row + m * SIDE;
            let j = column + n * SIDE;
            let decay = decays[i * CHUNK + j];
            var score = 0.0;
            // Not a product with 0: what is masked may be another slot's infinity, or memory nobody wrote.
            if (decay > 0.0) {
                score = sums[m][n] * decay;
            }
            if (i == j) {
                score += per_head.y;
            }
            scores[base + i * CHUNK + j] = score;
        }
    }
}

// The decay of the state that entered the chunk, or the segment inside of it, up to and with row i.
fn decay_before(i: u32, rows: u32) -> f32 {
    if (i >= rows) {
        return 0.0;
    }
    var sum = logs[i];
    for (var k = i; k > 0u && starts[k] == 0u; k--) {
        sum += logs[k - 1u];
    }
    return exp(sum);
}

// Column j of `decays`. Returns its last entry in the segment: what input j is worth in the state that leaves.
fn decay_column(j: u32, rows: u32) -> f32 {
    var sum = 0.0;
    var open = j < rows;
    var last = 0.0;
    for (var i = 0u; i < CHUNK; i++) {
        var decay = 0.0;
        if (i > j && i < rows) {
            open = open && starts[i] == 0u;
            sum += logs[i];
        }
        if (i >= j && i < rows && open) {
            decay = dts[j] * exp(sum);
            last = decay;
        }
        decays[i * CHUNK + j] = decay;
    }
    return last;
}
