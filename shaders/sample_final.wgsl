// The token of a logit row, drawn from softmax(z / temperature) cut to top_k, top_p and min_p; its log softmax(z); and
// what follows for its slot.
//
// One workgroup owns one logit row. It puts the chunks of sample_partial.wgsl together, which is all that a plain draw
// needs. A truncated one, or one that reports its best tokens, has them found, at most CANDIDATES, exactly:
//
//   - A token's place is (q, ~key, id) in ascending order, where q = (top - z) * 2^25 in 30 bits, so that its upper
//     bits are even bins of the distance from the best; the key after it parts what q does not, and the id what is equal.
//   - A round counts the tokens by ten bits of the place and keeps the bin in which the wanted number is reached, until
//     the tokens up to that bin fit. One round does as a rule, eight do always.
//   - The tokens up to the bin are collected in any order and sorted by (value falling, id rising).
//
// Counts are integers and sums run in one order, so that nothing depends on how an adapter schedules its lanes.

const BINS: u32 = 1024u;
const BLOCKS: u32 = 32u;        // lanes that each sum a block of bins or candidates
const ROUNDS: u32 = 8u;
const MOST_CHUNKS: u32 = 128u;
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

var<workgroup> slot: vec4<u32>;                         // as it was before
var<workgroup> folds: array<vec2<f32>, MOST_CHUNKS>;
var<workgroup> top_key: atomic<u32>;
var<workgroup> top_id: atomic<u32>;
var<workgroup> drawn_key: atomic<u32>;
var<workgroup> drawn_id: atomic<u32>;
var<workgroup> faults: atomic<u32>;
var<workgroup> counts: array<atomic<u32>, BINS>;
var<workgroup> block_counts: array<u32, BLOCKS>;
var<workgroup> block_sums: array<f32, BLOCKS>;
var<workgroup> bound: vec3<u32>;                        // the place that tokens are collected up to, as far as it is known
var<workgroup> above: u32;                              // tokens before that place
var<workgroup> searching: u32;                          // 1 while the tokens up to that place do not fit
var<workgroup> found: atomic<u32>;
var<workgroup> kept: atomic<u32>;
var<workgroup> keys: array<u32, CANDIDATES>;
var<workgroup> ids: array<u32, CANDIDATES>;

fn place(bits: u32, id: u32, top: f32) -> vec3<u32> {
    // The product scales by a power of two and loses nothing; the largest f32 below 2^30 is 2^30 - 64.
    let q = u32(clamp((top - bitcast<f32>(bits)) * 33554432.0, 0.0, 1073741760.0));
    return vec3<u32>(q, ~key_of(bits), id);
}

// The bits of a place that the rounds before this one have settled.
fn settled(round: u32) -> vec3<u32> {
    switch (round) {
        case 0u: { return vec3<u32>(0u, 0u, 0u); }
        case 1u: { return vec3<u32>(0xfff00000u, 0u, 0u); }
        case 2u: { return vec3<u32>(0xfffffc00u, 0u, 0u); }
        case 3u: { return vec3<u32>(NONE, 0u, 0u); }
        case 4u: { return vec3<u32>(NONE, 0xffc00000u, 0u); }
        case 5u: { return vec3<u32>(NONE, 0xfffff000u, 0u); }
        case 6u: { return vec3<u32>(NONE, 0xfffffffcu, 0u); }
        case 7u: { return vec3<u32>(NONE, NONE, 0xfffffc00u); }
        default: { return vec3<u32>(NONE, NONE, NONE); }
    }
}

// The ten bits of a place that a round looks at.
fn digit(round: u32, p: vec3<u32>) -> u32 {
    switch (round) {
        case 0u: { return (p.x >> 20u) & 1023u; }
        case 1u: { return (p.x >> 10u) & 1023u; }
        case 2u: { return p.x & 1023u; }
        case 3u: { return p.y >> 22u; }
        case 4u: { return (p.y >> 12u) & 1023u; }
        case 5u: { return (p.y >> 2u) & 1023u; }
        case 6u: { return ((p.y & 3u) << 8u) | ((p.z >> 10u) & 255u); }
        default: { return p.z & 1023u; }
    }
}

// A place whose round has this digit, all else being 0.
fn with_digit(round: u32, d: u32) -> vec3<u32> {
    switch (round) {
        case 0u: { return vec3<u32>(d << 20u, 0u, 0u); }
        case 1u: { return vec3<u32>(d << 10u, 0u, 0u); }
        case 2u: { return vec3<u32>(d, 0u, 0u); }
        case 3u: { return vec3<u32>(0u, d << 22u, 0u); }
        case 4u: { return vec3<u32>(0u, d << 12u, 0u); }
        case 5u: { return vec3<u32>(0u, d << 2u, 0u); }
        case 6u: { return vec3<u32>(0u, d >> 8u, (d & 255u) << 10u); }
        default: { return vec3<u32>(0u, 0u, d); }
    }
}

fn is_up_to(p: vec3<u32>, end: vec3<u32>) -> bool {
    if (p.x != end.x) { return p.x < end.x; }
    if (p.y != end.y) { return p.y < end.y; }
    return p.z <= end.z;
}

fn is_before(key: u32, id: u32, other_key: u32, other_id: u32) -> bool {
    return key > other_key || (key == other_key && id < other_id);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let l = wid.z;
    let row = row_at(logit_row_at(l));
    let asked = sample_asked(l);
    let s = settings[row.slot];
    let start = l * params.stride;
    let quads = (params.vocab + 3u) / 4u;

    if (lid == 0u) {
        slot = slots[row.slot];
        atomicStore(&top_key, 0u);
        atomicStore(&top_id, NONE);
        atomicStore(&drawn_key, 0u);
        atomicStore(&drawn_id, NONE);
        atomicStore(&faults, 0u);
        atomicStore(&found, 0u);
    }
    workgroupBarrier();

    // The chunks together.
    let has_chunk = lid < params.chunks;
    let chunk = partials[l * params.chunks + min(lid, params.chunks - 1u)];
    if (has_chunk) {
        atomicMax(&top_key, chunk.top_key);
        atomicOr(&faults, chunk.faults);
    }
    workgroupBarrier();
    let top = value_of(atomicLoad(&top_key));
    if (has_chunk && chunk.top_key == atomicLoad(&top_key)) {
        atomicMin(&top_id, chunk.top_id);
    }
    if (lid < MOST_CHUNKS) {
        let chunk_top = value_of(chunk.top_key);
        let parts = vec2<f32>(
            chunk.sum * exp(chunk_top - top),
            chunk.heated * exp(heat(chunk_top, top, s.inverse_temperature)),
        );
        folds[lid] = select(vec2<f32>(0.0), parts, has_chunk);
    }
    workgroupBarrier();
    for (var half = MOST_CHUNKS / 2u; half > 0u; half /= 2u) {
        if (lid < half) {
            folds[lid] += folds[lid + half];
        }
        workgroupBarrier();
    }
    let log_sum = log(folds[0].x);

    // The best tokens, where the draw or the report needs them.
    let truncated = asked && truncates(s);
    var wanted = select(0u, min(s.logprobs, TOPS), asked);
    if (truncated) {
        wanted = max(wanted, select(CANDIDATES, min(s.top_k, CANDIDATES), s.top_k > 0u));
    }
    wanted = min(wanted, params.vocab);
    if (wanted > 0u) {
        let room = select(CANDIDATES, CANDIDATES / 4u, wanted <= CANDIDATES / 8u);
        if (lid == 0u) {
            bound = vec3<u32>(0u);
            above = 0u;
            searching = select(0u, 1u, params.vocab > room);
        }
        var rounds = 0u;
        for (var round = 0u; round < ROUNDS; round++) {
            if (workgroupUniformLoad(&searching) == 0u) {
                break;
            }
            rounds = round + 1u;
            for (var i = lid; i < BINS; i += WG) {
                atomicStore(&counts[i], 0u);
            }
            workgroupBarrier();
            let mask = settled(round);
            let group = bound;
            for (var q = lid; q < quads; q += WG) {
                let bits = logits[start + q];
                for (var j = 0u; j < 4u; j++) {
                    let id = 4u * q + j;
                    let p = place(bits[j], id, top);
                    if (id < params.vocab && all((p & mask) == group)) {
                        atomicAdd(&counts[digit(round, p)], 1u);
                    }
                }
            }
            workgroupBarrier();
            if (lid < BLOCKS) {
                var count = 0u;
                for (var i = 0u; i < BINS / BLOCKS; i++) {
                    count += atomicLoad(&counts[lid * (BINS / BLOCKS) + i]);
                }
                block_counts[lid] = count;
            }
            workgroupBarrier();
            if (lid == 0u) {
                var before = above;
                var bin = 0u;
                for (; bin < BLOCKS - 1u; bin++) {
                    if (before + block_counts[bin] >= wanted) { break; }
                    before += block_counts[bin];
                }
                bin *= BINS / BLOCKS;
                let last = bin + BINS / BLOCKS - 1u;
                for (; bin < last; bin++) {
                    let count = atomicLoad(&counts[bin]);
                    if (before + count >= wanted) { break; }
                    before += count;
                }
                above = before;
                bound |= with_digit(round, bin);
                searching = select(0u, 1u, before + atomicLoad(&counts[bin]) > room);
            }
        }

        for (var i = lid; i < room; i += WG) {
            keys[i] = 0u;
            ids[i] = NONE;
        }
        workgroupBarrier();
        let mask = settled(rounds);
        for (var q = lid; q < quads; q += WG) {
            let bits = logits[start + q];
            for (var j = 0u; j < 4u; j++) {
                let id = 4u * q + j;
                if (id < params.vocab && is_up_to(place(bits[j], id, top) & mask, bound)) {
                    let at = atomicAdd(&found, 1u);
                    if (at < room) { // always, unless the logits are not finite
                        keys[at] = key_of(bits[j]);
                        ids[at] = id;
                    }
                }
            }
        }
        workgroupBarrier();
        for (var width = 2u; width <= room; width *= 2u) {
            for (var gap = width / 2u; gap > 0u; gap /= 2u) {
                for (var i = lid; i < room / 2u; i += WG) {
                    let a = (i / gap) * 2u * gap + i % gap;
                    let b = a + gap;
                    let falling = (a & width) == 0u;
                    if (is_before(keys[b], ids[b], keys[a], ids[a]) == falling) {
                        let key = keys[a];
                        let id = ids[a];
                        keys[a] = keys[b];
                        ids[a] = ids[b];
                        keys[b] = key;
                        ids[b] = id;
                    }
                }
                workgroupBarrier();
            }
        }

        // How many of them stay: the first that top_k, top_p or min_p refuses ends them. Its probability is taken among
        // the top_k, or among all tokens.
        let limit = select(wanted, min(s.top_k, wanted), s.top_k > 0u);
        let block = room / BLOCKS;
        if (lid < BLOCKS) {
            var sum = 0.0;
            for (var i = lid * block; i < min((lid + 1u) * block, limit); i++) {
                sum += exp(heat(value_of(keys[i]), top, s.inverse_temperature));
            }
            block_sums[lid] = sum;
        }
        if (lid == 0u) {
            atomicStore(&kept, limit);
        }
        workgroupBarrier();
        if (lid < BLOCKS) {
            var before = 0.0;
            var total = 0.0;
            for (var b = 0u; b < BLOCKS; b++) {
                before += select(0.0, block_sums[b], b < lid);
                total += block_sums[b];
            }
            total = select(folds[0].y, total, s.top_k > 0u);
            for (var i = lid * block; i < min((lid + 1u) * block, limit); i++) {
                let weight = exp(heat(value_of(keys[i]), top, s.inverse_temperature));
                if (i > 0u && ((s.top_p < 1.0 && before >= s.top_p * total) || weight < s.min_p)) {
                    atomicMin(&kept, i);
                    break;
                }
                before += weight;
            }
        }
        workgroupBarrier();
    }

    // The draw: among the candidates, or among the chunks' own draws. A lane has its best, the workgroup the best of those.
    var best_key = 0u;
    var best_id = NONE;
    if (truncated) {
        let end = atomicLoad(&kept);
        for (var i = lid; i < end; i += WG) {
            let hot = heat(value_of(keys[i]), top, s.inverse_temperature);
            let key = key_of(bitcast<u32>(hot + noise(s, slot.w, ids[i])));
            if (is_before(key, ids[i], best_key, best_id)) {
                best_key = key;
                best_id = ids[i];
            }
        }
    } else if (has_chunk && chunk.drawn < params.vocab) {
        let z = bitcast<f32>(logits[start + chunk.drawn / 4u][chunk.drawn % 4u]);
        best_key = key_of(bitcast<u32>(heat(z, top, s.inverse_temperature) + noise(s, slot.w, chunk.drawn)));
        best_id = chunk.drawn;
    }
    atomicMax(&drawn_key, best_key);
    workgroupBarrier();
    if (best_key == atomicLoad(&drawn_key)) {
        atomicMin(&drawn_id, best_id);
    }
    workgroupBarrier();

    let live = asked && slot.z == 1u;
    let sound = live && atomicLoad(&faults) == 0u;
    let to = l * SAMPLED;
    for (var i = lid; i < TOPS; i += WG) {
        let has = sound && i < min(s.logprobs, wanted);
        sampled[to + 4u + 2u * i] = select(NONE, ids[i], has);
        sampled[to + 5u + 2u * i] = select(0u, bitcast<u32>(value_of(keys[i]) - top - log_sum), has);
    }
    if (lid == 0u) {
        var id = 0u;
        var flags = 0u;
        var logprob = 0.0;
        if (live && !sound) {
            flags = FLAG_NOT_FINITE;
            slots[row.slot].z = 0u;
        }
        if (sound) {
            id = select(atomicLoad(&drawn_id), atomicLoad(&top_id), s.inverse_temperature <= 0.0);
            id = min(id, params.vocab - 1u);
            logprob = bitcast<f32>(logits[start + id / 4u][id % 4u]) - top - log_sum;
            flags = FLAG_SAMPLED;
            for (var i = 0u; i < min(s.stops, STOPS); i++) {
                if (stops[row.slot * STOPS + i] == id) {
                    flags |= FLAG_STOPPED;
                }
            }
            if (slot.w + 1u >= s.max_tokens) {
                flags |= FLAG_LENGTH;
            }
            let position = row.position + 1u;
            slots[row.slot] = vec4<u32>(id, position, select(0u, 1u, flags == FLAG_SAMPLED), slot.w + 1u);
            history[row.slot * HISTORY + position % HISTORY] = id;
        }
        sampled[to] = id;
        sampled[to + 1u] = flags;
        sampled[to + 2u] = bitcast<u32>(logprob);
        sampled[to + 3u] = slot.w;
    }
}
