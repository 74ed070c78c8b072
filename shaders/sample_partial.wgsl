// Of a chunk of a row of logits z, after biases and penalties, which stay in z: the best token, sum exp(z - top),
// sum exp((z - top) / temperature), and the token that maximises z / temperature + noise.
//
//   z[t] += bias[t], then of the tokens t of the last `window` of the context:
//   z = z > 0 ? z / repetition : z * repetition      z -= (c > 0 ? presence : 0) + c * frequency
//
// where c counts t among the tokens of this answer in the window.
//
// One workgroup owns one chunk of one logit row, a lane every WG-th token of it. A lane also has one bias and one token
// of the window (WG is HISTORY and BIASES), and changes what of these lies in the chunk. Rows that nothing is drawn from
// stay as they are. Maxima go through integer atomics, which have no order.

struct Params {
    vocab: u32,
    stride: u32,       // start one row of logits to the next
    chunks: u32,       // of 4 * WG tokens
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> slots: array<vec4<u32>>;           // [slots] (token, position, live, index)
@group(0) @binding(3) var<storage, read> settings: array<Settings>;         // [slots]
@group(0) @binding(4) var<storage, read> history: array<u32>;               // [slots, HISTORY]
@group(0) @binding(5) var<storage, read> biases: array<vec2<u32>>;          // [slots, BIASES] (token, f32), tokens differ
@group(0) @binding(6) var<storage, read_write> logits: array<u32>;          // [logit rows, stride], f32 by their bits
@group(0) @binding(7) var<storage, read_write> partials: array<Partial>;    // [logit rows, chunks]

var<workgroup> recent: array<u32, HISTORY>; // newest first
var<workgroup> top_key: atomic<u32>;
var<workgroup> top_id: atomic<u32>;
var<workgroup> drawn_key: atomic<u32>;
var<workgroup> drawn_id: atomic<u32>;
var<workgroup> faults: atomic<u32>;

fn penalizes(s: Settings) -> bool {
    return s.window > 0u && (s.repetition != 1.0 || s.presence != 0.0 || s.frequency != 0.0);
}

// Biases and penalties of the tokens from `first` to `end`. Every lane of the workgroup calls it.
fn adjust(l: u32, lid: u32, s: Settings, generated: u32, first: u32, end: u32) {
    let slot = logit_row_slot(l);
    let bias = biases[slot * BIASES + lid];
    if (lid < s.biases && bias.x >= first && bias.x < end) {
        let at = l * params.stride + bias.x;
        logits[at] = bitcast<u32>(bitcast<f32>(logits[at]) + bitcast<f32>(bias.y));
    }
    // Position `position - lid`; the lanes outside of the window wrap around and are not looked at.
    let position = row_at(logit_row_at(l)).position;
    let window = min(min(s.window, HISTORY), position + 1u);
    let token = history[slot * HISTORY + (position - lid) % HISTORY];
    recent[lid] = token;
    storageBarrier();
    workgroupBarrier();
    if (penalizes(s) && lid < window && token >= first && token < end) {
        var newest = true;
        var count = 0u;
        for (var i = 0u; i < window; i++) {
            if (recent[i] == token) {
                newest = newest && i >= lid;
                count += select(0u, 1u, i < generated);
            }
        }
        if (newest) {
            let at = l * params.stride + token;
            var z = bitcast<f32>(logits[at]);
            z = select(z * s.repetition, z / s.repetition, z > 0.0);
            z -= select(0.0, s.presence, count > 0u) + f32(count) * s.frequency;
            logits[at] = bitcast<u32>(z);
        }
    }
    storageBarrier();
    workgroupBarrier();
}

// A lane's tokens: id, id + WG, and so on; past the end of the vocabulary, its last.
fn tokens_from(l: u32, id: u32) -> vec4<u32> {
    let ids = min(id + WG * vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(params.vocab - 1u));
    let at = l * params.stride + ids;
    return vec4<u32>(logits[at.x], logits[at.y], logits[at.z], logits[at.w]);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, lanes: Lanes) {
    let l = wid.z;
    let lid = lanes.index;
    let first = wid.x * 4u * WG;
    let end = min(first + 4u * WG, params.vocab);
    // All that does not wait for the slot's settings.
    var bits = tokens_from(l, first + lid);
    let slot = logit_row_slot(l);
    let s = settings[slot];
    let state = slots[slot];
    let draws = draws_plainly(s);

    if (lid == 0u) {
        atomicStore(&top_key, 0u);
        atomicStore(&top_id, NONE);
        atomicStore(&drawn_key, 0u);
        atomicStore(&drawn_id, NONE);
        atomicStore(&faults, 0u);
    }
    workgroupBarrier();
    if (sample_asked(l) && state.z == 1u && (s.biases > 0u || penalizes(s))) {
        adjust(l, lid, s, state.w, first, end);
        bits = tokens_from(l, first + lid);
    }

    var best_key = 0u;
    var best_id = NONE;
    var fault = false;
    for (var j = 0u; j < 4u; j++) {
        let id = first + lid + j * WG;
        if (id < end) {
            fault = fault || !is_finite(bits[j]);
            let key = key_of(bits[j]);
            if (key > best_key) { // a lane's tokens rise, so that the first of equals stays
                best_key = key;
                best_id = id;
            }
        }
    }
    let offered = lanes_max(best_key);
    if (lanes_first(lanes)) {
        atomicMax(&top_key, offered);
    }
    if (fault) {
        atomicOr(&faults, 1u);
    }
    workgroupBarrier();
    if (best_key == atomicLoad(&top_key)) {
        atomicMin(&top_id, best_id);
    }

    let top = value_of(atomicLoad(&top_key));
    var sum = vec4<f32>(0.0);
    best_key = 0u;
    best_id = NONE;
    var best_bits = 0u;
    for (var j = 0u; j < 4u; j++) {
        let id = first + lid + j * WG;
        if (id < end) {
            let z = bitcast<f32>(bits[j]);
            let hot = heat(z, top, s.inverse_temperature);
            sum += vec4<f32>(exp(z - top), exp(hot), 0.0, 0.0);
            if (draws) {
                let key = key_of(bitcast<u32>(hot + noise(s, state.w, id)));
                if (key > best_key) {
                    best_key = key;
                    best_id = id;
                    best_bits = bits[j];
                }
            }
        }
    }
    let drawn = lanes_max(best_key);
    if (draws && lanes_first(lanes)) {
        atomicMax(&drawn_key, drawn);
    }
    sum = workgroup_sum4(lanes, sum);
    if (draws && best_key == atomicLoad(&drawn_key)) {
        atomicMin(&drawn_id, best_id);
    }
    workgroupBarrier();
    let to = l * params.chunks + wid.x;
    if (draws && best_id == atomicLoad(&drawn_id)) {
        partials[to].drawn = vec2<u32>(best_id, best_bits);
    }
    if (lid == 0u) {
        partials[to].top = vec4<u32>(atomicLoad(&top_key), atomicLoad(&top_id), atomicLoad(&faults), 0u);
        partials[to].sums = sum.xy;
    }
}
