// A Mamba1 mixer between its first product and out_proj, token by token: the depthwise causal convolution of x, the
// selective scan, and the gate (Mamba as MambaInLlama has it; a channel c reads group c / 16 of B and C):
//
//   u = silu(sum_{j<4} w[j] x[t - 3 + j] + b)
//   dt = softplus(W_dt down + bias + bias)      the bias is the linear layer's and the scan's
//   S = exp(-exp(A_log) dt) S + dt u B          S [channels, 16]
//   y = (S C + D u) * silu(z)
//
// One workgroup owns CHANNELS channels of one segment and walks its rows, ROWS at a time. Only S goes from row to row:
// of a block everything else is made at once, a lane for each channel of each row; then a lane holds a pair of a
// channel's S and takes the block's rows in turn, with no barrier between them, four rows' decays ahead of their sums;
// then what the pairs leave is summed and gated, again a lane for each channel of each row. The next block's inputs are
// under way meanwhile.
//
// parts/dt_proj.wgsl makes W_dt down here, for few rows; parts/dt_rows.wgsl reads what a product before it made. Where
// out_proj takes its input in int8, the workgroup rounds its group of 32 channels and y is not written.
//
// Floor of a token: its state read and written (4096 channels: 262 KB each way), and W_dt (1.1 MB of q8).

override WG: u32;        // ROWS * CHANNELS = CHANNELS * PAIRS
override CHANNELS: u32;
override ROWS: u32;      // a multiple of 4
override PARTS: u32;     // ROWS * CHANNELS * PITCH

const STATES: u32 = 16u;
const PAIRS: u32 = 8u;   // of states
const PITCH: u32 = 9u;   // parts of a channel: PAIRS made odd, so that channels do not share banks

struct Params {
    d_inner: u32,
    repeat: u32,     // groups of channels that share one of x and of B
    in_quads: u32,   // vec4 of a row of rows
    x_at: u32,       // columns in a row
    z_at: u32,
    b_at: u32,
    c_at: u32,
    y_stride: u32,   // f32 of a row of y
    dt_stride: u32,  // f32 of a row of dt_rows
    octs: u32,       // eights of a row of W_dt
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> rows: array<vec4<f32>>;         // [rows, in_quads] [down | x | z | B | C]
@group(0) @binding(3) var<storage, read> conv_weight: array<vec4<f32>>;  // [d_inner] taps, the current input's last
@group(0) @binding(4) var<storage, read> channels: array<vec4<f32>>;     // [d_inner] (D, W_dt's bias, the conv's, 0)
@group(0) @binding(5) var<storage, read> a_log: array<vec2<f32>>;        // [d_inner, PAIRS]
@group(0) @binding(6) var<storage, read_write> state: array<vec2<f32>>; // [slots] ([d_inner, PAIRS], taps [d_inner, 2])
@group(0) @binding(7) var<storage, read_write> y: array<f32>;            // [rows, y_stride]

var<workgroup> us: array<vec2<f32>, WG>;     // [ROWS, CHANNELS] (dt, u)
var<workgroup> bc: array<vec2<f32>, WG>;     // [ROWS, CHANNELS] (B, C) of state c % 16 of channel c's group
var<workgroup> parts: array<f32, PARTS>;     // [ROWS, CHANNELS, PITCH] shares of S C, and before of W_dt down

// What a lane needs of a row.
struct Inputs {
    x: vec4<f32>,  // the last four, those before the segment replaced by its first
    z: f32,
    b: f32,
    c: f32,
    dt: f32,
}

// What a row does to a pair of states.
struct Turn {
    decay: vec2<f32>,
    add: vec2<f32>,
    c: vec2<f32>,
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let item = wid.y * groups.x + wid.x;
    let segment = segment_at(wid.z);
    let live = row_at(segment.first).live;

    // The lane's channel of a row.
    let offset = lid / CHANNELS;
    let channel = min(item * CHANNELS + lid % CHANNELS, params.d_inner - 1u);
    let is_channel = item * CHANNELS + lid % CHANNELS < params.d_inner;
    var now = inputs_at(segment, offset, channel);
    let own = channels[channel];
    let weights = conv_weight[channel];
    let slot_at = segment.slot * params.d_inner * (PAIRS + 2u);
    let taps_at = slot_at + params.d_inner * PAIRS + 2u * channel;
    let taps = vec4<f32>(state[taps_at], state[taps_at + 1u]);

    // The lane's pair of states.
    let place = lid / PAIRS;
    let pair = lid % PAIRS;
    let holder = min(item * CHANNELS + place, params.d_inner - 1u);
    let is_holder = item * CHANNELS + place < params.d_inner;
    let pair_at = slot_at + holder * PAIRS + pair;
    let rate = a_log[holder * PAIRS + pair];
    var s = state[pair_at];

    if (PROJECTS) {
        project(segment.first, min(ROWS, segment.count), holder, place, pair);
        workgroupBarrier();
    }
    let a = -exp(rate);
    var window = vec4<f32>(0.0);
    for (var first = 0u; first < segment.count; first += ROWS) {
        let count = min(ROWS, segment.count - first);
        let next = inputs_at(segment, first + ROWS + offset, channel);

        window = now.x;
        if (first == 0u) {
            window = after_taps(window, taps, min(offset, segment.count - 1u));
        }
        let sum = dot(weights, window) + own.z;
        let u = sum / (1.0 + exp(-sum));
        var raw = now.dt;
        if (PROJECTS) {
            raw = parts_sum(lid);
        }
        us[lid] = vec2<f32>(softplus(raw + own.y + own.y), u);
        bc[lid] = vec2<f32>(now.b, now.c);
        workgroupBarrier();

        for (var t = 0u; t < count; t += 4u) {
            let t0 = turn_at(t, place, pair, a);
            let t1 = turn_at(t + 1u, place, pair, a);
            let t2 = turn_at(t + 2u, place, pair, a);
            let t3 = turn_at(t + 3u, place, pair, a);
            // Rows behind the last one change nothing; what they leave in parts is not read.
            let s0 = t0.decay * s + t0.add;
            let s1 = select(s0, t1.decay * s0 + t1.add, t + 1u < count);
            let s2 = select(s1, t2.decay * s1 + t2.add, t + 2u < count);
            let s3 = select(s2, t3.decay * s2 + t3.add, t + 3u < count);
            let at = (t * CHANNELS + place) * PITCH + pair;
            parts[at] = dot(s0, t0.c);
            parts[at + CHANNELS * PITCH] = dot(s1, t1.c);
            parts[at + 2u * CHANNELS * PITCH] = dot(s2, t2.c);
            parts[at + 3u * CHANNELS * PITCH] = dot(s3, t3.c);
            s = s3;
        }
        workgroupBarrier();

        let gated = (parts_sum(lid) + own.x * u) * now.z / (1.0 + exp(-now.z));
        let r = segment.first + first + offset;
        if (CODES) {
            coded_values[lid] = vec2<f32>(gated, 0.0);
            workgroupBarrier();
            // Lanes past the block's quads find no row.
            let row = lid / 8u;
            if (row < count && item < params.d_inner / CHANNELS) {
                store_coded(lid, segment.first + first + row, item, params.y_stride / CHANNELS);
            }
        } else if (offset < count && is_channel) {
            y[r * params.y_stride + channel] = gated;
        }
        if (PROJECTS && first + ROWS < segment.count) {
            workgroupBarrier();
            project(segment.first + first + ROWS, min(ROWS, segment.count - first - ROWS), holder, place, pair);
            workgroupBarrier();
        }
        now = next;
    }
    if (live) {
        if (is_holder) {
            state[pair_at] = s;
        }
        // The last row's lanes have seen what the next segment's first will need.
        if (is_channel && offset == (segment.count - 1u) % ROWS) {
            state[taps_at] = window.xy;
            state[taps_at + 1u] = window.zw;
        }
    }
}

// Of the segment's row `offset`, or of its last one.
fn inputs_at(segment: Segment, offset: u32, channel: u32) -> Inputs {
    let o = min(offset, segment.count - 1u);
    let r = segment.first + o;
    let xb = channel / STATES / params.repeat * STATES + channel % STATES;
    let x = params.x_at + xb;
    return Inputs(
        vec4<f32>(value(r - min(o, 3u), x), value(r - min(o, 2u), x), value(r - min(o, 1u), x), value(r, x)),
        value(r, params.z_at + channel),
        value(r, params.b_at + xb),
        value(r, params.c_at + channel),
        dt_at(r, channel),
    );
}

fn value(r: u32, column: u32) -> f32 { return rows[r * params.in_quads + column / 4u][column % 4u]; }

// The last four inputs of the segment's row `offset`, of which x has those of the segment and `taps` those before it.
fn after_taps(x: vec4<f32>, taps: vec4<f32>, offset: u32) -> vec4<f32> {
    let first = select(vec4<f32>(taps.zw, x.zw), vec4<f32>(taps.yzw, x.w), offset == 0u);
    let second = select(x, vec4<f32>(taps.w, x.yzw), offset == 2u);
    return select(second, first, offset < 2u);
}

// The sum of the shares of a lane's channel of a row.
fn parts_sum(lid: u32) -> f32 {
    let at = lid * PITCH;
    return ((parts[at] + parts[at + 1u]) + (parts[at + 2u] + parts[at + 3u]))
        + ((parts[at + 4u] + parts[at + 5u]) + (parts[at + 6u] + parts[at + 7u]));
}

fn turn_at(t: u32, place: u32, pair: u32, a: vec2<f32>) -> Turn {
    let dtu = us[t * CHANNELS + place];
    let at = t * CHANNELS + place / STATES * STATES + 2u * pair;
    let first = bc[at];
    let second = bc[at + 1u];
    return Turn(
        exp(a * dtu.x),
        dtu.x * dtu.y * vec2<f32>(first.x, second.x),
        vec2<f32>(first.y, second.y),
    );
}
