// The selective scan by chunks of CHUNK rows (Mamba2, "Transformers are SSMs", section 6), equal to ssm_scan.wgsl:
//
//   y_i = sum_j scores[i, j] x_j + before[i] S C_i      S = before[last] S + sum_j after[j] x_j (outer) B_j
//
// with scores, before and after from ssm_scores.wgsl (D is in the scores). As y[p] needs no row of the state S [P, N]
// but row p, one workgroup owns BLOCK rows of one head of one segment and holds them in registers: a lane has one quad
// of n of KEEP rows. The first block of a head carries the state of the convolution. The gated norm of y, which needs
// a head's whole y, is gated_norm.wgsl's.
//
// Both sums of y are one matrix product of [scores | before C], CHUNK rows, with [x | S], BLOCK rows, in workgroup
// memory.
//
// Floor: rows * heads * P * (CHUNK / 2 + 2 N) multiply-adds (512 x 32 x 64 x (8 + 128): 143 M, here 151 M).

override WG: u32;       // ROWS * QUADS, a multiple of BLOCK
override QUADS: u32;    // head_dim / 4
override CHUNK: u32;    // a multiple of 8
override ROWS: u32;     // rows of S that the lanes hold one quad each of
override KEEP: u32;     // rows of S that a lane has a quad of, at most 4
override BLOCK: u32;    // ROWS * KEEP
override OUTPUTS: u32;  // of y in a lane: CHUNK * BLOCK / WG rounded up, at most 16
override PITCH: u32;    // quads from row to row of `left` and `right`: CHUNK / 4 + QUADS, made odd
override LEFT: u32;     // CHUNK * PITCH
override RIGHT: u32;    // BLOCK * PITCH

struct Params {
    head_dim: u32,
    d_inner: u32,
    d_xb: u32,
    xb_channels: u32,
    repeat: u32,
    sharers: u32,
    in_stride: u32,      // of the in_proj rows
    u_quads: u32,        // vec4 of a row of u
    y_stride: u32,
    heads: u32,
    blocks: u32,         // of a head
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> zxbcdt: array<f32>;            // [rows, in_stride]
@group(0) @binding(3) var<storage, read> u: array<vec4<f32>>;           // [rows, u_quads]
@group(0) @binding(4) var<storage, read> scores: array<vec4<f32>>;      // [chunks, heads][CHUNK + 2, CHUNK / 4]
@group(0) @binding(5) var<storage, read_write> state: array<vec4<f32>>; // [slots, state_quads]
@group(0) @binding(6) var<storage, read_write> y: array<f32>;           // [rows, y_stride], before the norm

var<workgroup> left: array<vec4<f32>, LEFT>;    // [CHUNK, PITCH] scores | before C, then [CHUNK, QUADS] after B
var<workgroup> right: array<vec4<f32>, RIGHT>;  // [BLOCK, PITCH] x | S

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let head = wid.x / params.blocks;
    let block = wid.x % params.blocks;
    let segment = segment_at(wid.z);
    let end = segment.first + segment.count;
    let chunk_quads = CHUNK / 4u;
    let x_at = head_channel(head, 0u) + block * BLOCK;
    let b_quad = head_channel(head, 1u) / 4u;
    let c_quad = head_channel(head, 2u) / 4u;

    // The lane's share of the state, and its place in y.
    let n = lid % QUADS;
    let row = lid / QUADS;
    let state_at = scan_quad(segment.slot, head, block * BLOCK + row) + n;
    let p = lid % BLOCK;
    let i_first = lid / BLOCK;

    // Loops of as many turns as every chunk of a full step has, so that their loads are under way at once.
    let width = chunk_quads + QUADS;
    let left_loads = (CHUNK * width + WG - 1u) / WG;
    let x_loads = (BLOCK * chunk_quads + WG - 1u) / WG;
    let b_loads = (CHUNK * QUADS + WG - 1u) / WG;

    var s: array<vec4<f32>, 4>;
    for (var k = 0u; k < KEEP; k++) {
        s[k] = state[state_at + k * ROWS * QUADS];
    }
    for (var chunk = segment.first / CHUNK; chunk * CHUNK < end; chunk++) {
        let base = chunk * CHUNK;
        let lo = max(base, segment.first) - base;
        let hi = min(base + CHUNK, end) - base;
        let scores_at = (chunk * params.heads + head) * (CHUNK + 2u) * chunk_quads;
        let before_at = scores_at + CHUNK * chunk_quads;
        let after_at = before_at + chunk_quads;

        for (var k = 0u; k < left_loads; k++) {
            let i = (k * WG + lid) / width;
            let q = (k * WG + lid) % width;
            if (i >= lo && i < hi) {
                if (q < chunk_quads) {
                    left[i * PITCH + q] = scores[scores_at + i * chunk_quads + q];
                } else {
                    let before = scores[before_at + i / 4u][i % 4u];
                    left[i * PITCH + q] = before * u[(base + i) * params.u_quads + c_quad + q - chunk_quads];
                }
            }
        }
        // Four rows of x to a quad. What lies outside of the segment counts as 0.
        for (var k = 0u; k < x_loads; k++) {
            let q = (k * WG + lid) / BLOCK;
            let channel = x_at + p;
            var x = vec4<f32>(0.0);
            for (var l = 0u; l < 4u; l++) {
                let j = 4u * q + l;
                if (j >= lo && j < hi) {
                    x[l] = u[(base + j) * params.u_quads + channel / 4u][channel % 4u];
                }
            }
            if (q < chunk_quads) {
                right[p * PITCH + q] = x;
            }
        }
        for (var k = 0u; k < KEEP; k++) {
            right[(row + k * ROWS) * PITCH + chunk_quads + n] = s[k];
        }
        workgroupBarrier();

        var sums: array<f32, 16>;
        for (var k = 0u; k < OUTPUTS; k++) {
            sums[k] = 0.0;
        }
        for (var q = lo / 4u; q < (hi + 3u) / 4u; q++) {
            let x = right[p * PITCH + q];
            for (var k = 0u; k < OUTPUTS; k++) {
                sums[k] += dot(left[min(i_first + k * (WG / BLOCK), CHUNK - 1u) * PITCH + q], x);
            }
        }
        for (var q = chunk_quads; q < width; q++) {
            let x = right[p * PITCH + q];
            for (var k = 0u; k < OUTPUTS; k++) {
                sums[k] += dot(left[min(i_first + k * (WG / BLOCK), CHUNK - 1u) * PITCH + q], x);
            }
        }
        for (var k = 0u; k < OUTPUTS; k++) {
            let i = i_first + k * (WG / BLOCK);
            if (i >= lo && i < hi) {
                y[(base + i) * params.y_stride + head * params.head_dim + block * BLOCK + p] = sums[k];
            }
        }
        workgroupBarrier();

        // Whole quads of rows, as x has them: 0 times what nobody wrote might be NaN.
        for (var k = 0u; k < b_loads; k++) {
            let item = k * WG + lid;
            let j = item / QUADS;
            var b = vec4<f32>(0.0);
            if (j >= lo && j < hi) {
                b = scores[after_at + j / 4u][j % 4u] * u[(base + j) * params.u_quads + b_quad + n];
            }
            if (j < CHUNK) {
                left[item] = b;
            }
        }
        workgroupBarrier();

        let decay = scores[before_at + (hi - 1u) / 4u][(hi - 1u) % 4u];
        for (var k = 0u; k < KEEP; k++) {
            s[k] *= decay;
        }
        for (var q = lo / 4u; q < (hi + 3u) / 4u; q++) {
            let b0 = left[4u * q * QUADS + n];
            let b1 = left[(4u * q + 1u) * QUADS + n];
            let b2 = left[(4u * q + 2u) * QUADS + n];
            let b3 = left[(4u * q + 3u) * QUADS + n];
            for (var k = 0u; k < KEEP; k++) {
                let x = right[(row + k * ROWS) * PITCH + q];
                s[k] += x.x * b0 + x.y * b1 + x.z * b2 + x.w * b3;
            }
        }
        workgroupBarrier();
    }
    if (row_at(segment.first).live) {
        for (var k = 0u; k < KEEP; k++) {
            state[state_at + k * ROWS * QUADS] = s[k];
        }
        if (block == 0u) {
            carry_conv(segment, head, lid);
        }
    }
}

// Carries the head's part of the convolution's state over the segment.
fn carry_conv(segment: Segment, head: u32, lid: u32) {
    for (var c = lid; c < 3u * params.head_dim; c += WG) {
        let part = c / params.head_dim;
        let taps = taps_quad(segment.slot, head, part) + c % params.head_dim;
        let input = head_input(head, part) + c % params.head_dim;
        let old = state[taps];
        var next = vec4<f32>(0.0);
        for (var i = 0u; i < 4u; i++) {
            // Input i of the last four is row count - 4 + i of the segment, or an older tap.
            if (segment.count + i >= 4u) {
                next[i] = zxbcdt[(segment.first + segment.count + i - 4u) * params.in_stride + input];
            } else {
                next[i] = old[segment.count + i];
            }
        }
        state[taps] = next;
    }
}
