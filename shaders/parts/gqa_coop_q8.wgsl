// Values and keys cached in int8, as parts/cache_q8.wgsl has them, for gqa_attend_coop.wgsl.
//
// 1152 + code is an f16 whose last byte is the code with its sign turned: two of them cost one `and` and one `xor`. A
// matrix of 1152 is taken from such factors where they are multiplied. Scores are multiplied by the keys' scales, and
// weights by those of the values.

const EACH: u32 = 4u; // quads of a load
const SCALED: bool = true;
const OFFSET: f16 = 1152.0h;
// Weights are e^RISE at most; a small one times a small scale is to be a normal number, and none infinite.
const SHARE: f32 = 256.0;
const MOST: f32 = 65504.0;
override GROUPS: u32 = HEAD_QUADS / 8u;
// Where groups lie in `scores` and `shares`; one that is not there is the last one.
override GROUP_1: u32 = min(1u, GROUPS - 1u) * PLANE;
override GROUP_2: u32 = min(2u, GROUPS - 1u) * PLANE;
override GROUP_3: u32 = min(3u, GROUPS - 1u) * PLANE;
// Two loads are a group: a matrix has BOTH quads of each, and matrices of other groups lie between those of one.
const BOTH: u32 = QUADS / 2u;
override NEXT: u32 = GROUPS * QUADS;
// Rows of a round of 64 columns go by twos and leave two out: those which 16 lanes store lie in different banks.
override APART: u32 = select(1u, 2u, HEAD_QUADS == 16u);

var<workgroup> scales: array<vec4<u32>, TILE>; // of the values' groups, then of the keys', two to a word

// The row of a tile that a lane carries in round j.
fn row_of(team: u32, j: u32) -> u32 {
    return team % 2u + team / 2u * (2u * APART) + j % APART * 2u + j / APART * (TEAMS * APART);
}

// Where the first quad of a load lies.
fn place_of(piece: u32) -> u32 { return piece / 2u * QUADS + piece % 2u; }

// Where a quad of a query lies.
fn slot_of(q: u32) -> u32 { return place_of(q / 4u) + q % 4u / BOTH * NEXT + q % BOTH * 2u; }

// Which quad of a value lies there.
fn quad_of(slot: u32) -> u32 {
    let i = slot % QUADS;
    return (slot / QUADS % GROUPS * 2u + i % 2u) * 4u + slot / NEXT * BOTH + i / 2u;
}

// The order of a quad's numbers in the tile; twice is none.
fn ordered(v: vec4<f32>) -> vec4<f32> { return v.xzyw; }

fn codes(w: u32) -> vec2<f16> {
    return vec2<f16>(unpack2x16float((w & 0x00ff00ffu) ^ 0x64806480u));
}

fn quad(w: u32) -> vec4<f16> { return vec4<f16>(codes(w), codes(w >> 8u)); }

fn keep(to: u32, w: vec4<u32>) {
    tile[to] = quad(w.x);
    tile[to + 1u / BOTH * NEXT + 1u % BOTH * 2u] = quad(w.y);
    tile[to + 2u / BOTH * NEXT] = quad(w.z);
    tile[to + 3u / BOTH * NEXT + 3u % BOTH * 2u] = quad(w.w);
}

fn keep_scales(row: u32, v: vec4<u32>) {
    if (row < TILE) {
        scales[row] = v;
    }
}

// Scale i of the rows of two positions.
fn scales_at(place: u32, i: u32) -> vec2<f32> {
    return vec2<f32>(unpack2x16float(scales[place][i / 2u])[i % 2u],
                     unpack2x16float(scales[place + 1u][i / 2u])[i % 2u]);
}

// A pair of scores, from all groups.
fn scored(i: u32, place: u32) -> vec2<f32> {
    var s = scores[i] * scales_at(place, GROUPS);
    if (GROUPS > 1u) { s += scores[GROUP_1 + i] * scales_at(place, GROUPS + 1u); }
    if (GROUPS > 2u) { s += scores[GROUP_2 + i] * scales_at(place, GROUPS + 2u); }
    if (GROUPS > 2u) { s += scores[GROUP_3 + i] * scales_at(place, GROUPS + 3u); }
    return s;
}

fn keep_share(i: u32, weight: vec2<f32>, place: u32, group: u32) {
    shares[i] = vec2<f16>(min(weight * scales_at(place, group), vec2<f32>(MOST)));
}

// Keeps the weights of a pair, and says their sum.
fn share(i: u32, score: vec2<f32>, top: f32, place: u32) -> f32 {
    let weight = exp(score - top);
    let large = weight * SHARE;
    keep_share(i, large, place, 0u);
    if (GROUPS > 1u) { keep_share(GROUP_1 + i, large, place, 1u); }
    if (GROUPS > 2u) { keep_share(GROUP_2 + i, large, place, 2u); }
    if (GROUPS > 2u) { keep_share(GROUP_3 + i, large, place, 3u); }
    return weight.x + weight.y;
}
