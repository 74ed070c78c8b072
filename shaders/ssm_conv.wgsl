// u[r, c] = silu(sum_{j<4} w[c, j] * in[t - 3 + j, c] + b[c]): the depthwise causal convolution over [x | B | C], for
// the chunked scan (ssm_scan.wgsl does its own). Discrete Mamba2 has no silu.
//
// One lane owns one channel of one row. Inputs before the segment come from the slot's state, whose four taps are the
// last four inputs, oldest first. The state itself is carried on by ssm_states.wgsl, once everyone has read it here.

override WG: u32 = 64u;

struct Params {
    scan_quads: u32,
    state_quads: u32,
    d_inner: u32,
    d_shared: u32,
    shared_channels: u32,
    repeat: u32,
    sharers: u32,
    in_stride: u32,
    u_stride: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> zxbcdt: array<f32>;        // [rows, in_stride]
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;  // [channels] taps, the current input's last
@group(0) @binding(4) var<storage, read> bias: array<f32>;          // [channels]
@group(0) @binding(5) var<storage, read> state: array<vec4<f32>>;   // [slots, state_quads]
@group(0) @binding(6) var<storage, read_write> u: array<f32>;       // [rows, u_stride]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let c = (wid.y * groups.x + wid.x) * WG + lid;
    if (c >= channels()) {
        return;
    }
    let r = wid.z;
    let row = row_at(r);
    let reader = reader_of(c);
    let input = head_input(reader.x, reader.y) + reader.z;
    let taps = state[taps_quad(row.slot, reader.x, reader.y) + reader.z];
    let w = weight[c];
    var sum = bias[c];
    for (var j = 0u; j < 4u; j++) {
        let back = 3u - j;
        if (back <= row.offset) {
            sum += w[j] * zxbcdt[(r - back) * params.in_stride + input];
        } else {
            // back - offset inputs before the segment: the last of them is tap 3.
            sum += w[j] * taps[4u - (back - row.offset)];
        }
    }
    if (SILU) {
        sum = sum / (1.0 + exp(-sum));
    }
    u[r * params.u_stride + c] = sum;
}
