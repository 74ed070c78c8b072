// A Mamba2 mixer between in_proj and out_proj, token by token: the depthwise causal convolution of [x | B | C], the
// selective scan, and the gated norm of each head (Mamba2 as MambaInLlama has it):
//
//   [x | B | C] = silu(sum_{j<4} w[j] in[t - 3 + j] + b)
//   dt = softplus(dt_raw + dt_bias)      a = exp(-exp(A_log) dt)
//   S = a S + dt x (outer) B             y = S C + D x
//   out = rmsnorm_per_head(y * silu(z)) * weight
//
// Discrete Mamba2 has less of it: no silu after the convolution, x not scaled, a = exp(-softplus(dt_raw)), and
// out = y * silu(z + bias). parts/ssm_*.wgsl and parts/gate_*.wgsl have what differs.
//
// One workgroup owns one head of one segment and holds its state S [P, N] in registers: LANES lanes share four rows p of
// S and take their quads of n in turn: what they read of B and C serves four rows. The first CHANNELS lanes convolve
// four channels each and keep their taps; the first P_QUADS lanes have four values of y each.
//
// For one token this is a chain of waits, not of arithmetic: all that a head reads is asked for before anything is
// waited for, the short reads first; a row's inputs are asked for, and convolved, during the row before it.
//
// Where out_proj takes its input in int8, the workgroup rounds its head (parts/store_coded.wgsl) and y is not written.
//
// Floor of a token: its state read and written (32 heads of 128 x 128: 2.1 MB each way).

override WG: u32;         // P_QUADS * LANES, at least CHANNELS
override LANES: u32;      // that share four rows of S
override KEEP: u32;       // quads of n that a lane holds of each of its rows: N_QUADS / LANES rounded up, at most 4
override PITCH: u32;      // quads between the parts of different rows: LANES made odd, so that they do not share banks
override PARTS: u32;      // P_QUADS * PITCH
override CHANNELS: u32;   // quads of a head's x, B and C: P_QUADS + 2 * N_QUADS
override CONVOLVED: u32;  // 2 * CHANNELS

struct Params {
    scan_quads: u32,
    state_quads: u32,
    d_inner: u32,
    d_shared: u32,
    shared_channels: u32,
    repeat: u32,
    sharers: u32,
    in_quads: u32,      // vec4 of a row of in_proj
    y_quads: u32,       // vec4 of a row of y
    eps: f32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> zxbcdt: array<vec4<f32>>;       // [rows, in_quads]
@group(0) @binding(3) var<storage, read> conv_weight: array<vec4<f32>>;  // [channels] taps, the current input's last
@group(0) @binding(4) var<storage, read> conv_bias: array<vec4<f32>>;    // [channels / 4]
@group(0) @binding(5) var<storage, read> heads: array<vec4<f32>>;        // [heads] see `rates`
@group(0) @binding(6) var<storage, read> weight: array<vec4<f32>>;       // [d_inner / 4], or z's bias
@group(0) @binding(7) var<storage, read_write> state: array<vec4<f32>>;  // [slots, state_quads]
@group(0) @binding(8) var<storage, read_write> y: array<vec4<f32>>;      // [rows, y_quads]

var<workgroup> us: array<vec4<f32>, CONVOLVED>;  // [this token and the next][x | B | C], convolved
var<workgroup> parts: array<vec4<f32>, PARTS>;   // [P_QUADS, PITCH] each lane's share of S C, of its four rows
var<workgroup> squares: array<f32, P_QUADS>;     // of four gated values each

// Four channels of the convolution.
struct Channels {
    taps: array<vec4<f32>, 4>,     // the last four inputs of each
    weights: array<vec4<f32>, 4>,
    bias: vec4<f32>,
}

// What a lane needs of a row.
struct Inputs {
    channels: vec4<f32>,
    z: vec4<f32>,
    dt: f32,
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let head = wid.x;
    let segment = segment_at(wid.z);
    let last = segment.first + segment.count - 1u;
    let live = row_at(segment.first).live;

    // The lane's four channels, and its four values of z and y.
    let convolves = lid < CHANNELS;
    let own = min(lid, CHANNELS - 1u);
    let part = select(select(2u, 1u, own < P_QUADS + N_QUADS), 0u, own < P_QUADS);
    let quad = own - part_first(part) / 4u;
    let input_quad = head_input(head, part) / 4u + quad;
    let y_quad = head * P_QUADS + lid % P_QUADS;
    let z_quad = z_column() / 4u + y_quad;
    let channel = head_channel(head, part) + 4u * quad;
    let taps_at = taps_quad(segment.slot, head, part) + 4u * quad;
    var now = inputs_at(segment.first, input_quad, z_quad, head);
    let per_head = rates(heads[head]);
    var channels: Channels;
    if (convolves) {
        for (var k = 0u; k < 4u; k++) {
            channels.taps[k] = state[taps_at + k];
            channels.weights[k] = conv_weight[channel + k];
        }
        channels.bias = conv_bias[channel / 4u];
    }
    let norm = weight[y_quad];

    // The lane's share of S: quads lane, lane + LANES.. of four rows. Past the end it holds the last one, for nothing.
    let group = lid / LANES;
    let lane = lid % LANES;
    let state_at = scan_quad(segment.slot, head, 4u * group);
    var s: array<vec4<f32>, 16>;
    for (var i = 0u; i < KEEP; i++) {
        for (var k = 0u; k < 4u; k++) {
            s[4u * i + k] = state[state_at + k * N_QUADS + min(i * LANES + lane, N_QUADS - 1u)];
        }
    }

    let decay = -exp(per_head.x);
    if (convolves) {
        us[lid] = convolve(&channels, now.channels);
    }
    workgroupBarrier();
    for (var t = 0u; t < segment.count; t++) {
        let r = segment.first + t;
        let next = inputs_at(min(r + 1u, last), input_quad, z_quad, head);
        let u = t % 2u * CHANNELS;
        let dt = softplus(now.dt + per_head.z);
        let a = exp(decay * dt);
        let x = select(1.0, dt, SCALES) * us[u + group];
        var sums = vec4<f32>(0.0);
        for (var i = 0u; i < KEEP; i++) {
            let q = i * LANES + lane;
            let at = u + P_QUADS + min(q, N_QUADS - 1u);
            let b = us[at];
            let c = select(vec4<f32>(0.0), us[at + N_QUADS], q < N_QUADS);
            for (var k = 0u; k < 4u; k++) {
                s[4u * i + k] = s[4u * i + k] * a + x[k] * b;
                sums[k] += dot(s[4u * i + k], c);
            }
        }
        parts[group * PITCH + lane] = sums;
        workgroupBarrier();
        var gated = vec4<f32>(0.0);
        if (lid < P_QUADS) {
            var v = per_head.y * us[u + lid];
            for (var i = 0u; i < LANES; i++) {
                v += parts[lid * PITCH + i];
            }
            let gate = gate_of(now.z, norm);
            gated = v * gate / (1.0 + exp(-gate));
            if (NORMS) {
                squares[lid] = dot(gated, gated);
            }
        }
        if (convolves && t + 1u < segment.count) {
            us[CHANNELS - u + lid] = convolve(&channels, next.channels);
        }
        workgroupBarrier();
        if (lid < P_QUADS) {
            if (NORMS) {
                var sum = 0.0;
                for (var q = 0u; q < P_QUADS; q++) {
                    sum += squares[q];
                }
                gated = gated * inverseSqrt(sum / f32(4u * P_QUADS) + params.eps) * norm;
            }
            if (CODES) {
                for (var k = 0u; k < 4u; k++) {
                    coded_values[4u * lid + k] = vec2<f32>(gated[k], 0.0);
                }
            } else {
                y[r * params.y_quads + y_quad] = gated;
            }
        }
        if (CODES) {
            workgroupBarrier();
            if (lid < P_QUADS) {
                store_coded(lid, r, y_quad / 8u, params.y_quads / 8u);
            }
        }
        now = next;
    }
    if (live) {
        for (var i = 0u; i < KEEP; i++) {
            let q = i * LANES + lane;
            for (var k = 0u; k < 4u; k++) {
                if (q < N_QUADS) {
                    state[state_at + k * N_QUADS + q] = s[4u * i + k];
                }
            }
        }
        if (convolves) {
            for (var k = 0u; k < 4u; k++) {
                state[taps_at + k] = channels.taps[k];
            }
        }
    }
}

fn inputs_at(r: u32, input_quad: u32, z_quad: u32, head: u32) -> Inputs {
    let row = r * params.in_quads;
    let dt = dt_column(head);
    return Inputs(zxbcdt[row + input_quad], zxbcdt[row + z_quad], zxbcdt[row + dt / 4u][dt % 4u]);
}

// Takes the next input of four channels in.
fn convolve(channels: ptr<function, Channels>, inputs: vec4<f32>) -> vec4<f32> {
    var sums = (*channels).bias;
    for (var k = 0u; k < 4u; k++) {
        let taps = vec4<f32>((*channels).taps[k].yzw, inputs[k]);
        (*channels).taps[k] = taps;
        sums[k] += dot((*channels).weights[k], taps);
    }
    if (SILU) {
        sums = sums / (1.0 + exp(-sums));
    }
    return sums;
}
