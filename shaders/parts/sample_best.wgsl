// The best tokens of a row of logits, at most CANDIDATES, exactly, and how many of them a draw keeps.
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

// The room in `keys` and `ids` for so many of the best tokens.
fn room_for(wanted: u32) -> u32 { return select(CANDIDATES, CANDIDATES / 4u, wanted <= CANDIDATES / 8u); }

// Leaves the best `wanted` tokens of a row, and some more, sorted in `keys` and `ids`. `start` is the row's first quad,
// `top` its best value. Every lane calls it.
fn find_best(lid: u32, start: u32, top: f32, wanted: u32) {
    let quads = (params.vocab + 3u) / 4u;
    let room = room_for(wanted);
    if (lid == 0u) {
        bound = vec3<u32>(0u);
        above = 0u;
        searching = select(0u, 1u, params.vocab > room);
        atomicStore(&found, 0u);
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
}

// Leaves in `kept` how many of the best tokens stay: the first that top_k, top_p or min_p refuses ends them. Its
// probability is taken among the top_k, or among all tokens, whose sum is `heated`. Every lane calls it.
fn keep_best(lid: u32, s: Settings, top: f32, heated: f32, wanted: u32) {
    let limit = select(wanted, min(s.top_k, wanted), s.top_k > 0u);
    let block = room_for(wanted) / BLOCKS;
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
        total = select(heated, total, s.top_k > 0u);
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
