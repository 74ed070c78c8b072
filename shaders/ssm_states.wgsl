// The first half of the selective scan by chunks (Mamba2, "Transformers are SSMs", section 6), which ssm_chunk.wgsl
// completes: the state S [P, N] of each head as it enters each chunk of CHUNK rows, and as it leaves the segment,
//
//   S = exp(sum of log a over the chunk) S + sum_j after[j] x_j (outer) B_j
//   after[j] = dt_j exp(sum of log a from j + 1 to the chunk's last row)       (discrete Mamba2: without dt_j)
//
// Chunks lie on multiples of CHUNK of the step's rows, whatever the segments: what a segment has of one counts alone,
// and its state as it enters chunk c is number c + (number of the segment) of `states`, where two never meet. Exponents
// are sums of log a <= 0 taken over the very rows they span: nothing overflows, and no large sum is subtracted.
//
// This is a matrix product over the rows, scaled at each chunk: one workgroup walks the rows of one segment, owns a tile
// of T x T quads of one head's S and holds it in registers, turned ([N, P], as ssm_chunk.wgsl wants it): a lane has one
// quad of p of 4 rows n. x and after B go through workgroup memory SLAB rows at a time, twice, so that one barrier does
// for each time, and the loads of the next SLAB are under way while these are multiplied. The first workgroup of a head
// carries the state of the convolution.
//
// Floor: rows * heads * P * N multiply-adds (512 x 32 x 128 x 128: 268 M), and the states written, rows / CHUNK times
// heads * P * N f32 (8 x 32 x 128 x 128: 16.8 MB).

override WG: u32;           // T * T
override T: u32;            // quads of p and of n in a tile: 8 or 16
override CHUNK: u32;        // 32 or 64
override SLAB: u32;         // 8, 16 or 32, 2 T at the most
override TILE: u32;         // SLAB * T
override TILES: u32;        // 2 * TILE
override LOADS: u32;        // quads of x, and of B, that a lane loads of a slab: TILE / WG rounded up, 1 or 2
override SPAN: u32;         // rows whose decays are at hand: a multiple of CHUNK
override SPAN_QUADS: u32;   // SPAN / 4, WG at the most

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
    p_tiles: u32,     // tiles of a head along p
    n_tiles: u32,     // and along n
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> zxbcdt: array<f32>;              // [rows, in_stride]
@group(0) @binding(3) var<storage, read> u: array<vec4<f32>>;             // [rows, u_quads]
@group(0) @binding(4) var<storage, read> heads: array<vec4<f32>>;         // [heads] see `rates`
@group(0) @binding(5) var<storage, read_write> state: array<vec4<f32>>;   // [slots, state_quads]
@group(0) @binding(6) var<storage, read_write> states: array<vec4<f32>>;  // [chunks and segments, heads][N, P / 4]

var<workgroup> xs: array<vec4<f32>, TILES>;          // [2, SLAB, T] x
var<workgroup> bs: array<vec4<f32>, TILES>;          // [2, SLAB, T] after B
var<workgroup> after: array<vec4<f32>, SPAN_QUADS>;
var<workgroup> logs: array<f32, SPAN_QUADS>;         // log a of four rows
var<workgroup> decays: array<f32, SPAN_QUADS>;       // of whole chunks

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let tiles = params.p_tiles * params.n_tiles;
    let head = wid.x / tiles;
    let tile = wid.x % tiles;
    let segment = segment_at(wid.z);
    let end = segment.first + segment.count;
    let p_first = tile % params.p_tiles * T;
    let n_first = tile / params.p_tiles * T;
    let x_quad = head_channel(head, 0u) / 4u + p_first;
    let b_quad = head_channel(head, 1u) / 4u + n_first;

    // What the lane loads of each slab: this quad of this row, and of the row WG / T = T later.
    let quad = lid % T;
    let line = lid / T;
    let has_x = p_first + quad < P_QUADS;
    let has_b = n_first + quad < N_QUADS;

    // What it holds of the state. A tile may hang over the end.
    let p = p_first + lid % T;
    let n = n_first + lid / T;
    let inside = p < P_QUADS && n < N_QUADS;
    let state_at = scan_quad(segment.slot, head, 4u * p) + n;
    var t0 = vec4<f32>(0.0);
    var t1 = vec4<f32>(0.0);
    var t2 = vec4<f32>(0.0);
    var t3 = vec4<f32>(0.0);
    if (inside) {
        let rows = transpose(mat4x4<f32>(state[state_at], state[state_at + N_QUADS], state[state_at + 2u * N_QUADS],
                                         state[state_at + 3u * N_QUADS]));
        t0 = rows[0];
        t1 = rows[1];
        t2 = rows[2];
        t3 = rows[3];
    }

    let first_slab = segment.first / SLAB;
    let slabs = (end + SLAB - 1u) / SLAB;
    var x0 = row_quad(segment, first_slab, line, has_x, x_quad + quad);
    var b0 = row_quad(segment, first_slab, line, has_b, b_quad + quad);
    var x1 = vec4<f32>(0.0);
    var b1 = vec4<f32>(0.0);
    if (LOADS > 1u) {
        x1 = row_quad(segment, first_slab, line + T, has_x, x_quad + quad);
        b1 = row_quad(segment, first_slab, line + T, has_b, b_quad + quad);
    }
    for (var slab = first_slab; slab < slabs; slab++) {
        let row = slab * SLAB;
        if (slab == first_slab || row % SPAN == 0u) {
            decay_span(segment, head, row - row % SPAN, lid);
        }
        if (slab == first_slab || row % CHUNK == 0u) {
            if (inside) {
                let number = (row / CHUNK + wid.z) * params.heads + head;
                let to = 4u * (number * N_QUADS + n) * P_QUADS + p;
                states[to] = t0;
                states[to + P_QUADS] = t1;
                states[to + 2u * P_QUADS] = t2;
                states[to + 3u * P_QUADS] = t3;
            }
            let decay = decays[row % SPAN / CHUNK];
            t0 *= decay;
            t1 *= decay;
            t2 *= decay;
            t3 *= decay;
        }

        let half = slab % 2u * TILE;
        if (line < SLAB) {
            xs[half + lid] = x0;
            bs[half + lid] = b0 * after_of(row % SPAN + line);
        }
        if (LOADS > 1u && line + T < SLAB) {
            xs[half + WG + lid] = x1;
            bs[half + WG + lid] = b1 * after_of(row % SPAN + line + T);
        }
        workgroupBarrier();
        if (slab + 1u < slabs) {
            x0 = row_quad(segment, slab + 1u, line, has_x, x_quad + quad);
            b0 = row_quad(segment, slab + 1u, line, has_b, b_quad + quad);
            if (LOADS > 1u) {
                x1 = row_quad(segment, slab + 1u, line + T, has_x, x_quad + quad);
                b1 = row_quad(segment, slab + 1u, line + T, has_b, b_quad + quad);
            }
        }

        for (var j = 0u; j < TILE; j += 4u * T) {
            let x_at = half + j + lid % T;
            let b_at = half + j + lid / T;
            let xa = xs[x_at];
            let ba = bs[b_at];
            let xb = xs[x_at + T];
            let bb = bs[b_at + T];
            let xc = xs[x_at + 2u * T];
            let bc = bs[b_at + 2u * T];
            let xd = xs[x_at + 3u * T];
            let bd = bs[b_at + 3u * T];
            t0 = t0 + ba.x * xa + bb.x * xb + bc.x * xc + bd.x * xd;
            t1 = t1 + ba.y * xa + bb.y * xb + bc.y * xc + bd.y * xd;
            t2 = t2 + ba.z * xa + bb.z * xb + bc.z * xc + bd.z * xd;
            t3 = t3 + ba.w * xa + bb.w * xb + bc.w * xc + bd.w * xd;
        }
    }

    if (row_at(segment.first).live) {
        if (inside) {
            let rows = transpose(mat4x4<f32>(t0, t1, t2, t3));
            state[state_at] = rows[0];
            state[state_at + N_QUADS] = rows[1];
            state[state_at + 2u * N_QUADS] = rows[2];
            state[state_at + 3u * N_QUADS] = rows[3];
        }
        if (tile == 0u) {
            carry_conv(segment, head, lid);
        }
    }
}

// A quad of row `line` of a slab. What lies outside of the segment counts as 0: it may be another slot's infinity, or
// memory nobody wrote.
fn row_quad(segment: Segment, slab: u32, line: u32, has: bool, q: u32) -> vec4<f32> {
    let row = slab * SLAB + line;
    if (has && line < SLAB && row >= segment.first && row < segment.first + segment.count) {
        return u[row * params.u_quads + q];
    }
    return vec4<f32>(0.0);
}

fn after_of(row: u32) -> f32 {
    return after[row / 4u][row % 4u];
}

// `after` and `decays` of the segment's rows from `span` on. A lane has four rows.
fn decay_span(segment: Segment, head: u32, span: u32, lid: u32) {
    let per_head = rates(heads[head]);
    let a = -exp(per_head.x);
    var dt = vec4<f32>(0.0);
    if (lid < SPAN_QUADS) {
        let row = span + 4u * lid;
        dt.x = time_step(segment, head, per_head.z, row);
        dt.y = time_step(segment, head, per_head.z, row + 1u);
        dt.z = time_step(segment, head, per_head.z, row + 2u);
        dt.w = time_step(segment, head, per_head.z, row + 3u);
        logs[lid] = a * ((dt.x + dt.y) + (dt.z + dt.w));
    }
    workgroupBarrier();
    if (lid < SPAN_QUADS) {
        let chunk = lid / (CHUNK / 4u);
        var later = 0.0;
        let end = (chunk + 1u) * (CHUNK / 4u);
        for (var q = lid + 1u; q < end; q += 4u) {
            later += (log_of(q, end) + log_of(q + 1u, end)) + (log_of(q + 2u, end) + log_of(q + 3u, end));
        }
        let scale = select(vec4<f32>(1.0), dt, SCALES);
        after[lid] = scale * exp(vec4<f32>(a * (dt.y + (dt.z + dt.w)), a * (dt.z + dt.w), a * dt.w, 0.0) + later);
        if (lid % (CHUNK / 4u) == 0u) {
            decays[chunk] = exp(logs[lid] + later);
        }
    }
    workgroupBarrier();
}

// One before `end`, else 0; four are on their way at a time.
fn log_of(q: u32, end: u32) -> f32 { return select(0.0, logs[min(q, SPAN_QUADS - 1u)], q < end); }

fn time_step(segment: Segment, head: u32, bias: f32, row: u32) -> f32 {
    if (row >= segment.first && row < segment.first + segment.count) {
        return softplus(zxbcdt[row * params.in_stride + dt_column(head)] + bias);
    }
    return 0.0;
}

// Carries the head's part of the convolution's state over the segment.
fn carry_conv(segment: Segment, head: u32, lid: u32) {
    for (var c = lid; c < 4u * (P_QUADS + 2u * N_QUADS); c += WG) {
        let part = select(select(2u, 1u, c < part_first(2u)), 0u, c < part_first(1u));
        let taps = taps_quad(segment.slot, head, part) + c - part_first(part);
        let input = head_input(head, part) + c - part_first(part);
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
