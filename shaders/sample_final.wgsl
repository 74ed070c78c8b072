// The token of a logit row, drawn from softmax(z / temperature) cut to top_k, top_p and min_p; its log softmax(z); and
// what follows for its slot.
//
// One workgroup owns one logit row. It puts the chunks of sample_partial.wgsl together, a lane each, which is all that a
// plain draw needs; a truncated one, or one that reports its best tokens, has them found by parts/sample_best.wgsl. What
// can be needed is loaded before the first barrier: a chain of loads would take longer than all else.

const MOST_CHUNKS: u32 = 256u;
const FOLDS: u32 = 16u;         // lanes that each sum so many chunks
const TOPS: u32 = 20u;          // best tokens that a result has room for
const STOPS: u32 = 16u;         // stop tokens of a slot, at most
const SAMPLED: u32 = 44u;       // words of a result: id, flags, log probability, index, TOPS x (id, log probability)

const FLAG_SAMPLED: u32 = 1u;
const FLAG_STOPPED: u32 = 2u;
const FLAG_LENGTH: u32 = 4u;
const FLAG_NOT_FINITE: u32 = 8u;

override WG: u32 = 256u;        // at least MOST_CHUNKS

struct Params {
    vocab: u32,        // at most 2^18
    stride: u32,       // in quads, start one row of logits to the next
    chunks: u32,       // at most MOST_CHUNKS
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> settings: array<Settings>;         // [slots]
@group(0) @binding(3) var<storage, read> stops: array<u32>;                 // [slots, STOPS]
@group(0) @binding(4) var<storage, read> logits: array<vec4<u32>>;          // [logit rows, stride], f32 by their bits
@group(0) @binding(5) var<storage, read> partials: array<Partial>;          // [logit rows, chunks]
@group(0) @binding(6) var<storage, read_write> slots: array<vec4<u32>>;     // [slots] (token, position, live, index)
@group(0) @binding(7) var<storage, read_write> history: array<u32>;         // [slots, HISTORY]
@group(0) @binding(8) var<storage, read_write> sampled: array<u32>;         // [logit rows, SAMPLED]

var<workgroup> top_key: atomic<u32>;
var<workgroup> top_id: atomic<u32>;
var<workgroup> drawn_key: atomic<u32>;
var<workgroup> drawn_id: atomic<u32>;
var<workgroup> drawn_bits: u32;
var<workgroup> faults: atomic<u32>;
var<workgroup> stopped: atomic<u32>;
var<workgroup> chunk_sums: array<vec2<f32>, MOST_CHUNKS>;
var<workgroup> fold_sums: array<vec2<f32>, FOLDS>;

// The sums of all chunks, in one order.
fn row_sums() -> vec2<f32> {
    var sums = vec2<f32>(0.0);
    for (var i = 0u; i < FOLDS; i++) {
        sums += fold_sums[i];
    }
    return sums;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let l = wid.z;
    let has_chunk = lid < params.chunks;
    let chunk = partials[l * params.chunks + min(lid, params.chunks - 1u)];
    let asked = sample_asked(l);
    let slot = logit_row_slot(l);
    let position = row_at(logit_row_at(l)).position + 1u; // of the next token
    let s = settings[slot];
    let stop = stops[slot * STOPS + lid % STOPS];
    let before = slots[slot];

    if (lid == 0u) {
        atomicStore(&top_key, 0u);
        atomicStore(&top_id, NONE);
        atomicStore(&drawn_key, 0u);
        atomicStore(&drawn_id, NONE);
        atomicStore(&faults, 0u);
        atomicStore(&stopped, 0u);
        drawn_bits = 0u;
    }
    workgroupBarrier();

    // The chunks together.
    if (has_chunk) {
        atomicMax(&top_key, chunk.top.x);
        if (chunk.top.z != 0u) {
            atomicOr(&faults, 1u);
        }
    }
    workgroupBarrier();
    let top = value_of(atomicLoad(&top_key));
    if (has_chunk && chunk.top.x == atomicLoad(&top_key)) {
        atomicMin(&top_id, chunk.top.y);
    }
    if (lid < MOST_CHUNKS) {
        let chunk_top = value_of(chunk.top.x);
        let scales = vec2<f32>(exp(chunk_top - top), exp(heat(chunk_top, top, s.inverse_temperature)));
        chunk_sums[lid] = select(vec2<f32>(0.0), chunk.sums * scales, has_chunk);
    }
    workgroupBarrier();
    if (lid < FOLDS) {
        var sums = vec2<f32>(0.0);
        for (var i = lid; i < MOST_CHUNKS; i += FOLDS) {
            sums += chunk_sums[i];
        }
        fold_sums[lid] = sums;
    }
    workgroupBarrier();

    // The best tokens, where the draw or the report needs them.
    let truncated = asked && truncates(s);
    var wanted = select(0u, min(s.logprobs, TOPS), asked);
    if (truncated) {
        wanted = max(wanted, select(CANDIDATES, min(s.top_k, CANDIDATES), s.top_k > 0u));
    }
    wanted = min(wanted, params.vocab);
    if (wanted > 0u) {
        find_best(lid, l * params.stride, top, wanted);
    }

    // The draw: among the best tokens that are kept, or among the chunks' own draws. A lane has its best, the workgroup
    // the best of those.
    if (asked && s.inverse_temperature > 0.0) {
        var best_key = 0u;
        var best_id = NONE;
        var best_bits = 0u;
        if (truncated) {
            keep_best(lid, s, top, row_sums().y, wanted);
            let end = atomicLoad(&kept);
            for (var i = lid; i < end; i += WG) {
                let value = value_of(keys[i]);
                let hot = heat(value, top, s.inverse_temperature);
                let key = key_of(bitcast<u32>(hot + noise(s, before.w, ids[i])));
                if (is_before(key, ids[i], best_key, best_id)) {
                    best_key = key;
                    best_id = ids[i];
                    best_bits = bitcast<u32>(value);
                }
            }
        } else if (has_chunk && chunk.drawn.x < params.vocab) {
            best_id = chunk.drawn.x;
            best_bits = chunk.drawn.y;
            let hot = heat(bitcast<f32>(best_bits), top, s.inverse_temperature);
            best_key = key_of(bitcast<u32>(hot + noise(s, before.w, best_id)));
        }
        atomicMax(&drawn_key, best_key);
        workgroupBarrier();
        if (best_key == atomicLoad(&drawn_key)) {
            atomicMin(&drawn_id, best_id);
        }
        workgroupBarrier();
        if (best_id == atomicLoad(&drawn_id)) {
            drawn_bits = best_bits;
        }
    }
    let greedy = s.inverse_temperature <= 0.0;
    let id = min(select(atomicLoad(&drawn_id), atomicLoad(&top_id), greedy), params.vocab - 1u);
    if (lid < min(s.stops, STOPS) && stop == id) {
        atomicOr(&stopped, 1u);
    }
    workgroupBarrier();

    let live = asked && before.z == 1u;
    let sound = live && atomicLoad(&faults) == 0u;
    let to = l * SAMPLED;
    for (var i = lid; i < TOPS; i += WG) {
        let has = sound && i < min(s.logprobs, wanted);
        sampled[to + 4u + 2u * i] = select(NONE, ids[i], has);
        sampled[to + 5u + 2u * i] = select(0u, bitcast<u32>(value_of(keys[i]) - top - log(row_sums().x)), has);
    }
    if (lid == 0u) {
        var flags = 0u;
        var logprob = 0.0;
        if (live && !sound) {
            flags = FLAG_NOT_FINITE;
            slots[slot].z = 0u;
        }
        if (sound) {
            logprob = select(bitcast<f32>(drawn_bits), top, greedy) - top - log(row_sums().x);
            flags = FLAG_SAMPLED | select(0u, FLAG_STOPPED, atomicLoad(&stopped) == 1u);
            if (before.w + 1u >= s.max_tokens) {
                flags |= FLAG_LENGTH;
            }
            slots[slot] = vec4<u32>(id, position, select(0u, 1u, flags == FLAG_SAMPLED), before.w + 1u);
            history[slot * HISTORY + position % HISTORY] = id;
        }
        sampled[to] = select(0u, id, sound);
        sampled[to + 1u] = flags;
        sampled[to + 2u] = bitcast<u32>(logprob);
        sampled[to + 3u] = before.w;
    }
}
