// Of a chunk of a row of logits z: the best token, sum exp(z - top), sum exp((z - top) / temperature), and the token
// that maximises z / temperature + noise.
//
// One workgroup owns one chunk of one logit row, a lane every WG-th quad of it. Maxima go through integer atomics,
// which have no order; sums through a tree, which has one.

const WG: u32 = 256u;

struct Params {
    vocab: u32,
    stride: u32,       // in quads, start one row of logits to the next
    chunk: u32,        // tokens, a multiple of 4
    chunks: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> slots: array<vec4<u32>>;           // [slots] (token, position, live, index)
@group(0) @binding(3) var<storage, read> settings: array<Settings>;         // [slots]
@group(0) @binding(4) var<storage, read> logits: array<vec4<u32>>;          // [logit rows, stride], f32 by their bits
@group(0) @binding(5) var<storage, read_write> partials: array<Partial>;    // [logit rows, chunks]

var<workgroup> top_key: atomic<u32>;
var<workgroup> top_id: atomic<u32>;
var<workgroup> drawn_key: atomic<u32>;
var<workgroup> drawn_id: atomic<u32>;
var<workgroup> faults: atomic<u32>;
var<workgroup> sums: array<vec2<f32>, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let l = wid.z;
    let row = row_at(logit_row_at(l));
    let s = settings[row.slot];
    let index = slots[row.slot].w;
    let draws = s.inverse_temperature > 0.0 && !truncates(s);
    let first = wid.x * params.chunk;
    let end = min(first + params.chunk, params.vocab);
    let start = l * params.stride;

    if (lid == 0u) {
        atomicStore(&top_key, 0u);
        atomicStore(&top_id, NONE);
        atomicStore(&drawn_key, 0u);
        atomicStore(&drawn_id, NONE);
        atomicStore(&faults, 0u);
    }
    workgroupBarrier();

    var best_key = 0u;
    var best_id = NONE;
    var fault = 0u;
    for (var q = first / 4u + lid; q < (end + 3u) / 4u; q += WG) {
        let bits = logits[start + q];
        for (var j = 0u; j < 4u; j++) {
            let id = 4u * q + j;
            if (id < end) {
                fault |= select(1u, 0u, is_finite(bits[j]));
                let key = key_of(bits[j]);
                if (key > best_key) { // a lane's tokens rise, so that the first of equals stays
                    best_key = key;
                    best_id = id;
                }
            }
        }
    }
    atomicMax(&top_key, best_key);
    atomicOr(&faults, fault);
    workgroupBarrier();
    if (best_key == atomicLoad(&top_key)) {
        atomicMin(&top_id, best_id);
    }

    let top = value_of(atomicLoad(&top_key));
    var sum = vec2<f32>(0.0);
    best_key = 0u;
    best_id = NONE;
    for (var q = first / 4u + lid; q < (end + 3u) / 4u; q += WG) {
        let z = bitcast<vec4<f32>>(logits[start + q]);
        for (var j = 0u; j < 4u; j++) {
            let id = 4u * q + j;
            if (id < end) {
                let hot = heat(z[j], top, s.inverse_temperature);
                sum += vec2<f32>(exp(z[j] - top), exp(hot));
                if (draws) {
                    let key = key_of(bitcast<u32>(hot + noise(s, index, id)));
                    if (key > best_key) {
                        best_key = key;
                        best_id = id;
                    }
                }
            }
        }
    }
    atomicMax(&drawn_key, best_key);
    sums[lid] = sum;
    workgroupBarrier();
    if (best_key == atomicLoad(&drawn_key)) {
        atomicMin(&drawn_id, best_id);
    }
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if (lid < half) {
            sums[lid] += sums[lid + half];
        }
        workgroupBarrier();
    }
    if (lid == 0u) {
        partials[l * params.chunks + wid.x] = Partial(
            atomicLoad(&top_key), atomicLoad(&top_id), atomicLoad(&drawn_id), atomicLoad(&faults), sums[0].x, sums[0].y,
        );
    }
}
