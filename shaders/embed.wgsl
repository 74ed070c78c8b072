// x[r, :] = W[token(r), :], and the step's tables made final.
//
// The CPU's request names rows; a row whose token is FROM_SLOT takes token, position and liveness from its slot, where
// the sampler left them, so that the CPU need not know the last token to ask for the next. One workgroup owns WG quads
// of one row; the first of a row also writes that row's step entries.

const FROM_SLOT: u32 = 0xffffffffu;

override MAX_ROWS: u32;
override WG: u32 = 64u;

struct Params {
    quads: u32,        // of a row of W and x: hidden padded to groups of 32
    vocab: u32,
    first_row: u32,    // of this part of W, where an adapter's limits cut it
    rows: u32,         // rows of W in this part
    hidden: u32,
}

@group(0) @binding(0) var<storage, read> request: array<vec4<u32>>;      // as parts/step.wgsl, tokens may be FROM_SLOT
@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> slots: array<vec4<u32>>;        // [slots] (token, position, live, answer index)
@group(0) @binding(3) var<storage, read_write> step: array<vec4<u32>>;   // [1 + 3 * MAX_ROWS]
@group(0) @binding(4) var<storage, read_write> x: array<vec4<f32>>;      // [rows, quads]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lid: u32) {
    let r = wid.z;
    let item = wid.y * groups.x + wid.x;
    var row = request[1u + r];
    if (row.x == FROM_SLOT) {
        let slot = slots[row.y];
        row = vec4<u32>(slot.x, row.y, slot.y, slot.z);
    }
    if (item == 0u && lid == 0u) {
        step[1u + r] = row;
        step[1u + MAX_ROWS + r] = request[1u + MAX_ROWS + r];
        step[1u + 2u * MAX_ROWS + r] = request[1u + 2u * MAX_ROWS + r];
        if (r == 0u) {
            step[0] = request[0];
        }
    }
    let quad = item * WG + lid;
    let token = min(row.x, params.vocab - 1u);
    let owned = quad < params.quads && token >= params.first_row && token - params.first_row < params.rows;
    var v = vec4<f32>(0.0);
    if (owned) {
        v = weight_quad((token - params.first_row) * params.quads + quad);
        x[r * params.quads + quad] = v;
    }
    if (CODES) {
        for (var j = 0u; j < 4u; j++) {
            var gain = 0.0;
            if (4u * quad + j < params.hidden) {
                gain = gain_at(4u * quad + j);
            }
            coded_values[4u * lid + j] = vec2<f32>(v[j] * gain, v[j] * v[j]);
        }
        workgroupBarrier();
        if (owned) {
            store_coded(lid, r, quad / 8u, params.quads / 8u);
        }
    }
}
