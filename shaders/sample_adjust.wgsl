// z[l, t] += bias[t], then over the tokens t of the last `window` of the context, in place:
//
//   z = z > 0 ? z / repetition : z * repetition      z -= (c > 0 ? presence : 0) + c * frequency
//
// where c counts t among the tokens of this answer in the window. One workgroup owns one logit row; a lane has one bias
// and one token of the window, the newest of its kind. Rows that nothing is drawn from stay as they are.

const WG: u32 = 256u; // HISTORY and BIASES

struct Params {
    vocab: u32,
    stride: u32,       // start one row of logits to the next
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> slots: array<vec4<u32>>;       // [slots] (token, position, live, answer index)
@group(0) @binding(3) var<storage, read> settings: array<Settings>;     // [slots]
@group(0) @binding(4) var<storage, read> history: array<u32>;           // [slots, HISTORY]
@group(0) @binding(5) var<storage, read> biases: array<vec2<u32>>;      // [slots, BIASES] (token, f32), tokens differ
@group(0) @binding(6) var<storage, read_write> logits: array<f32>;      // [logit rows, stride]

var<workgroup> recent: array<u32, HISTORY>; // newest first

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let l = wid.z;
    let row = row_at(logit_row_at(l));
    let s = settings[row.slot];
    let live = sample_asked(l) && slots[row.slot].z == 1u;
    let generated = slots[row.slot].w;
    let window = min(min(s.window, HISTORY), row.position + 1u);

    let bias = biases[row.slot * BIASES + lid];
    if (live && lid < s.biases && bias.x < params.vocab) {
        logits[l * params.stride + bias.x] += bitcast<f32>(bias.y);
    }
    // Position row.position - lid; the lanes outside of the window wrap around and are not looked at.
    let token = history[row.slot * HISTORY + (row.position - lid) % HISTORY];
    recent[lid] = token;
    storageBarrier();
    workgroupBarrier();

    var newest = live && lid < window && token < params.vocab;
    var count = 0u;
    for (var i = 0u; i < window; i++) {
        if (recent[i] == token) {
            newest = newest && i >= lid;
            count += select(0u, 1u, i < generated);
        }
    }
    if (newest) {
        let at = l * params.stride + token;
        var z = logits[at];
        z = select(z * s.repetition, z / s.repetition, z > 0.0);
        z -= select(0.0, s.presence, count > 0u) + f32(count) * s.frequency;
        logits[at] = z;
    }
}
