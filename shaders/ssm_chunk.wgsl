// The selective scan by chunks of CHUNK rows (Mamba2, "Transformers are SSMs", section 6), equal to ssm_scan.wgsl: with
// the state S [P, N] that enters each chunk, which ssm_states.wgsl made, no chunk waits for another.
//
//   scores[i, j] = (C_i . B_j) dt_j exp(sum of log a over j+1..i) + (i == j) D      for j <= i (discrete: without dt_j)
//   y_i = exp(sum of log a from the first row to i) S C_i + sum_j scores[i, j] x_j
//
// where rows are those that one segment has of the chunk. Exponents are sums of log a <= 0 taken over the very rows they
// span. One workgroup owns one head of them: it makes the scores, a lane 4 x 4 of them, keeps them in workgroup memory,
// and makes y, a lane 8 rows of one quad of p. What is summed over, n, then n again, then j, goes through workgroup
// memory 4 quads at a time; the loads of the next 4 are under way while these are multiplied. The gated norm of y is
// gated_norm.wgsl's.
//
// Floor: rows * heads * (P * N + CHUNK / 2 * (P + N)) multiply-adds (512 x 32 x (16,384 + 8,192): 403 M; tiles on the
// diagonal make it 450 M).

override WG: u32;             // at least CHUNK / 8 * P_QUADS and (CHUNK / 4)^2
override CHUNK: u32;          // 32 or 64
override CHUNK_QUADS: u32;    // CHUNK / 4
override LEFT_LOADS: u32;     // quads that a lane loads of 4 quads of CHUNK rows: 1 or 2
override RIGHT_LOADS: u32;    // quads that a lane loads of 16 rows of P_QUADS: 1 to 4
override SCORES: u32;         // quads of the scores: CHUNK * CHUNK_QUADS + CHUNK_QUADS
override LEFT: u32;           // SCORES, and 4 quads of CHUNK rows of C, CHUNK_QUADS more so that rows do not share banks
override RIGHT: u32;          // the same of B, or 16 rows of P_QUADS of S or x

const SLAB: u32 = 4u;         // quads of what is summed over, in workgroup memory at once

struct Params {
    scan_quads: u32,
    state_quads: u32,
    d_inner: u32,
    d_shared: u32,
    shared_channels: u32,
    repeat: u32,
    sharers: u32,
    in_stride: u32,   // of the in_proj rows
    u_quads: u32,     // vec4 of a row of u
    heads: u32,
    y_quads: u32,     // vec4 of a row of y
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> zxbcdt: array<f32>;         // [rows, in_stride]
@group(0) @binding(3) var<storage, read> u: array<vec4<f32>>;        // [rows, u_quads]
@group(0) @binding(4) var<storage, read> heads: array<vec4<f32>>;    // [heads] see `rates`
@group(0) @binding(5) var<storage, read> states: array<vec4<f32>>;   // [chunks and segments, heads][N, P / 4]
@group(0) @binding(6) var<storage, read_write> y: array<vec4<f32>>;  // [rows, y_quads], before the norm

// Row r of the scores begins at r * CHUNK_QUADS + r / 4, of C and B at r * SLAB + r / 4.
var<workgroup> left: array<vec4<f32>, LEFT>;      // scores [CHUNK, CHUNK_QUADS], C [CHUNK, SLAB]
var<workgroup> right: array<vec4<f32>, RIGHT>;    // B [CHUNK, SLAB]; S turned, or x, [4 SLAB, P_QUADS]
var<workgroup> dts: array<vec4<f32>, CHUNK_QUADS>;   // what x is scaled by
var<workgroup> logs: array<vec4<f32>, CHUNK_QUADS>;  // log a

// Rows lo to hi of the chunk that begins at row `base` of the step.
struct Part {
    base: u32,
    lo: u32,
    hi: u32,
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let item = wid.y * groups.x + wid.x;
    let number = item / params.heads;
    if (number < step_segments()) {
        let segment = segment_at(number);
        let base = wid.z * CHUNK;
        let end = segment.first + segment.count;
        if (segment.first < base + CHUNK && end > base) {
            let part = Part(base, max(base, segment.first) - base, min(base + CHUNK, end) - base);
            head_of_part(part, item % params.heads, (wid.z + number) * params.heads + item % params.heads, lid);
        }
    }
}

fn head_of_part(part: Part, head: u32, state: u32, lid: u32) {
    let x_quad = head_channel(head, 0u) / 4u;
    let b_quad = head_channel(head, 1u) / 4u;
    let c_quad = head_channel(head, 2u) / 4u;
    let state_at = state * 4u * N_QUADS * P_QUADS;
    let slabs = (N_QUADS + SLAB - 1u) / SLAB;
    let per_head = rates(heads[head]);

    var l0 = line_quad(part, c_quad, 0u, lid);
    var r0 = line_quad(part, b_quad, 0u, lid);
    var l1 = vec4<f32>(0.0);
    var r1 = vec4<f32>(0.0);
    var r2 = vec4<f32>(0.0);
    var r3 = vec4<f32>(0.0);
    if (LEFT_LOADS > 1u) {
        l1 = line_quad(part, c_quad, 0u, lid + WG);
        r1 = line_quad(part, b_quad, 0u, lid + WG);
    }
    if (lid < CHUNK_QUADS) {
        let row = 4u * lid;
        let dt = vec4<f32>(time_step(part, head, per_head.z, row), time_step(part, head, per_head.z, row + 1u),
                           time_step(part, head, per_head.z, row + 2u), time_step(part, head, per_head.z, row + 3u));
        dts[lid] = select(vec4<f32>(1.0), dt, SCALES);
        logs[lid] = -exp(per_head.x) * dt;
    }

    // Scores: quads of rows by quads of columns. The 32 lanes of a subgroup have 4 x 8 of them, so that some subgroups
    // lie above the diagonal with all of their lanes.
    let block = lid / 32u;
    let across = CHUNK_QUADS / 8u;
    let i = block / across * 4u + lid % 32u / 8u;
    let j = block % across * 8u + lid % 8u;
    let is_score = i < CHUNK_QUADS;
    var s0 = vec4<f32>(0.0);
    var s1 = vec4<f32>(0.0);
    var s2 = vec4<f32>(0.0);
    var s3 = vec4<f32>(0.0);
    for (var slab = 0u; slab < slabs; slab++) {
        workgroupBarrier();
        store_line(SCORES, lid, l0);
        store_right_line(lid, r0);
        if (LEFT_LOADS > 1u) {
            store_line(SCORES, lid + WG, l1);
            store_right_line(lid + WG, r1);
        }
        workgroupBarrier();
        if (slab + 1u < slabs) {
            l0 = line_quad(part, c_quad, slab + 1u, lid);
            r0 = line_quad(part, b_quad, slab + 1u, lid);
            if (LEFT_LOADS > 1u) {
                l1 = line_quad(part, c_quad, slab + 1u, lid + WG);
                r1 = line_quad(part, b_quad, slab + 1u, lid + WG);
            }
        } else {
            // The first ones of y.
            l0 = line_quad(part, c_quad, 0u, lid);
            if (LEFT_LOADS > 1u) {
                l1 = line_quad(part, c_quad, 0u, lid + WG);
            }
            r0 = state_quad(state_at, 0u, lid);
            if (RIGHT_LOADS > 1u) {
                r1 = state_quad(state_at, 0u, lid + WG);
            }
            if (RIGHT_LOADS > 2u) {
                r2 = state_quad(state_at, 0u, lid + 2u * WG);
                r3 = state_quad(state_at, 0u, lid + 3u * WG);
            }
        }
        if (is_score && j <= i) {
            let c_at = SCORES + 4u * i * SLAB + i;
            let b_at = 4u * j * SLAB + j;
            for (var q = 0u; q < SLAB; q++) {
                let b = transpose(mat4x4<f32>(right[b_at + q], right[b_at + SLAB + q], right[b_at + 2u * SLAB + q],
                                              right[b_at + 3u * SLAB + q]));
                s0 = sum_of(s0, left[c_at + q], b[0], b[1], b[2], b[3]);
                s1 = sum_of(s1, left[c_at + SLAB + q], b[0], b[1], b[2], b[3]);
                s2 = sum_of(s2, left[c_at + 2u * SLAB + q], b[0], b[1], b[2], b[3]);
                s3 = sum_of(s3, left[c_at + 3u * SLAB + q], b[0], b[1], b[2], b[3]);
            }
        }
    }
    if (is_score) {
        if (j < i) {
            let between = logs_of(j + 1u, i);
            let dt = dts[j];
            let before = logs[j];
            let own = logs[i];
            let head_part = vec4<f32>(before.y + (before.z + before.w), before.z + before.w, before.w, 0.0) + between;
            s0 *= dt * exp(head_part + own.x);
            s1 *= dt * exp(head_part + (own.x + own.y));
            s2 *= dt * exp(head_part + (own.x + own.y + own.z));
            s3 *= dt * exp(head_part + ((own.x + own.y) + (own.z + own.w)));
        } else if (j == i) {
            // On the diagonal; above it 0, whatever was computed there.
            let l = logs[i];
            let own = vec4<f32>(s0.x, s1.y, s2.z, s3.w) * dts[i] + per_head.y;
            s0 = vec4<f32>(own.x, 0.0, 0.0, 0.0);
            s1 = vec4<f32>(s1.x * dts[i].x * exp(l.y), own.y, 0.0, 0.0);
            s2 = vec4<f32>(s2.xy * dts[i].xy * exp(vec2<f32>(l.y + l.z, l.z)), own.z, 0.0);
            s3 = vec4<f32>(s3.xyz * dts[i].xyz * exp(vec3<f32>(l.y + (l.z + l.w), l.z + l.w, l.w)), own.w);
        }
        let to = 4u * i * CHUNK_QUADS + i + j;
        left[to] = s0;
        left[to + CHUNK_QUADS] = s1;
        left[to + 2u * CHUNK_QUADS] = s2;
        left[to + 3u * CHUNK_QUADS] = s3;
    }

    // y: first C S, which the decays then scale, then scores x.
    let p = lid % P_QUADS;
    let group = lid / P_QUADS;
    let row = 8u * group;
    let is_y = row < CHUNK && row < part.hi && row + 8u > part.lo;
    let x_first = part.lo / (4u * SLAB);
    let turns = slabs + (part.hi + 4u * SLAB - 1u) / (4u * SLAB) - x_first;
    var y0 = vec4<f32>(0.0);
    var y1 = vec4<f32>(0.0);
    var y2 = vec4<f32>(0.0);
    var y3 = vec4<f32>(0.0);
    var y4 = vec4<f32>(0.0);
    var y5 = vec4<f32>(0.0);
    var y6 = vec4<f32>(0.0);
    var y7 = vec4<f32>(0.0);
    for (var turn = 0u; turn < turns; turn++) {
        workgroupBarrier();
        if (turn < slabs) {
            store_line(SCORES, lid, l0);
            if (LEFT_LOADS > 1u) {
                store_line(SCORES, lid + WG, l1);
            }
        }
        store_right(lid, r0);
        if (RIGHT_LOADS > 1u) {
            store_right(lid + WG, r1);
        }
        if (RIGHT_LOADS > 2u) {
            store_right(lid + 2u * WG, r2);
            store_right(lid + 3u * WG, r3);
        }
        workgroupBarrier();
        let next = turn + 1u;
        if (next < slabs) {
            l0 = line_quad(part, c_quad, next, lid);
            if (LEFT_LOADS > 1u) {
                l1 = line_quad(part, c_quad, next, lid + WG);
            }
            r0 = state_quad(state_at, next, lid);
            if (RIGHT_LOADS > 1u) {
                r1 = state_quad(state_at, next, lid + WG);
            }
            if (RIGHT_LOADS > 2u) {
                r2 = state_quad(state_at, next, lid + 2u * WG);
                r3 = state_quad(state_at, next, lid + 3u * WG);
            }
        } else if (next < turns) {
            let slab = x_first + next - slabs;
            r0 = row_quad(part, x_quad, slab, lid);
            if (RIGHT_LOADS > 1u) {
                r1 = row_quad(part, x_quad, slab, lid + WG);
            }
            if (RIGHT_LOADS > 2u) {
                r2 = row_quad(part, x_quad, slab, lid + 2u * WG);
                r3 = row_quad(part, x_quad, slab, lid + 3u * WG);
            }
        }

        var at = SCORES + row * SLAB + 2u * group;
        var pitch = SLAB;
        var is_summed = is_y;
        if (turn >= slabs) {
            let slab = x_first + turn - slabs;
            at = row * CHUNK_QUADS + 2u * group + slab * SLAB;
            pitch = CHUNK_QUADS;
            is_summed = is_y && slab * 4u * SLAB < row + 8u;
        }
        if (turn == slabs && is_y) {
            let sum = logs_of(0u, 2u * group);
            let a = logs[2u * group];
            let b = logs[2u * group + 1u];
            let sums = sum + vec4<f32>(a.x, a.x + a.y, a.x + a.y + a.z, (a.x + a.y) + (a.z + a.w));
            let low = exp(sums);
            let high = exp(sums.w + vec4<f32>(b.x, b.x + b.y, b.x + b.y + b.z, (b.x + b.y) + (b.z + b.w)));
            y0 *= low.x;
            y1 *= low.y;
            y2 *= low.z;
            y3 *= low.w;
            y4 *= high.x;
            y5 *= high.y;
            y6 *= high.z;
            y7 *= high.w;
        }
        if (is_summed) {
            for (var q = 0u; q < SLAB; q++) {
                let l = at + q;
                let v0 = right[4u * q * P_QUADS + p];
                let v1 = right[(4u * q + 1u) * P_QUADS + p];
                let v2 = right[(4u * q + 2u) * P_QUADS + p];
                let v3 = right[(4u * q + 3u) * P_QUADS + p];
                y0 = sum_of(y0, left[l], v0, v1, v2, v3);
                y1 = sum_of(y1, left[l + pitch], v0, v1, v2, v3);
                y2 = sum_of(y2, left[l + 2u * pitch], v0, v1, v2, v3);
                y3 = sum_of(y3, left[l + 3u * pitch], v0, v1, v2, v3);
                y4 = sum_of(y4, left[l + 4u * pitch + 1u], v0, v1, v2, v3);
                y5 = sum_of(y5, left[l + 5u * pitch + 1u], v0, v1, v2, v3);
                y6 = sum_of(y6, left[l + 6u * pitch + 1u], v0, v1, v2, v3);
                y7 = sum_of(y7, left[l + 7u * pitch + 1u], v0, v1, v2, v3);
            }
        }
    }
    if (is_y) {
        let q = head * P_QUADS + p;
        store_row(part, row, q, y0);
        store_row(part, row + 1u, q, y1);
        store_row(part, row + 2u, q, y2);
        store_row(part, row + 3u, q, y3);
        store_row(part, row + 4u, q, y4);
        store_row(part, row + 5u, q, y5);
        store_row(part, row + 6u, q, y6);
        store_row(part, row + 7u, q, y7);
    }
}

// sum + v a, as a chain of multiply-adds.
fn sum_of(sum: vec4<f32>, v: vec4<f32>, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
    return sum + v.x * a + v.y * b + v.z * c + v.w * d;
}

// The logs of quads `first` to `end`, four on their way at a time.
fn logs_of(first: u32, end: u32) -> f32 {
    var sum = 0.0;
    for (var q = first; q < end; q += 4u) {
        sum += (log_of(q, end) + log_of(q + 1u, end)) + (log_of(q + 2u, end) + log_of(q + 3u, end));
    }
    return sum;
}

fn log_of(q: u32, end: u32) -> f32 {
    let l = logs[min(q, CHUNK_QUADS - 1u)];
    return select(0.0, (l.x + l.y) + (l.z + l.w), q < end);
}

fn time_step(part: Part, head: u32, bias: f32, row: u32) -> f32 {
    if (row >= part.lo && row < part.hi) {
        return softplus(zxbcdt[(part.base + row) * params.in_stride + dt_column(head)] + bias);
    }
    return 0.0;
}

// What lies outside of the segment counts as 0: it may be another slot's infinity, or memory nobody wrote.

// Of SLAB quads of each row of the chunk, number `item`.
fn line_quad(part: Part, quad: u32, slab: u32, item: u32) -> vec4<f32> {
    let row = item / SLAB;
    let q = slab * SLAB + item % SLAB;
    if (row >= part.lo && row < part.hi && q < N_QUADS) {
        return u[(part.base + row) * params.u_quads + quad + q];
    }
    return vec4<f32>(0.0);
}

// Of 4 SLAB whole rows, number `item`.
fn row_quad(part: Part, quad: u32, slab: u32, item: u32) -> vec4<f32> {
    let row = 4u * SLAB * slab + item / P_QUADS;
    if (row >= part.lo && row < part.hi) {
        return u[(part.base + row) * params.u_quads + quad + item % P_QUADS];
    }
    return vec4<f32>(0.0);
}

// Of 4 SLAB rows n of the turned state, number `item`.
fn state_quad(state_at: u32, slab: u32, item: u32) -> vec4<f32> {
    let q = 4u * SLAB * slab * P_QUADS + item;
    if (q < 4u * N_QUADS * P_QUADS) {
        return states[state_at + q];
    }
    return vec4<f32>(0.0);
}

fn store_line(first: u32, item: u32, v: vec4<f32>) {
    if (item < CHUNK * SLAB) {
        left[first + item + item / (4u * SLAB)] = v;
    }
}

fn store_right_line(item: u32, v: vec4<f32>) {
    if (item < CHUNK * SLAB) {
        right[item + item / (4u * SLAB)] = v;
    }
}

fn store_right(item: u32, v: vec4<f32>) {
    if (item < 4u * SLAB * P_QUADS) {
        right[item] = v;
    }
}

fn store_row(part: Part, row: u32, q: u32, v: vec4<f32>) {
    if (row >= part.lo && row < part.hi) {
        y[(part.base + row) * params.y_quads + q] = v;
    }
}
