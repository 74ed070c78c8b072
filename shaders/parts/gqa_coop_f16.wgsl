// Values and keys cached in f16, as parts/cache_f16.wgsl has them, for gqa_attend_coop.wgsl: factors as they are, of
// one group without a scale.

const EACH: u32 = 2u; // quads of a load
const SCALED: bool = false;
const OFFSET: f16 = 0.0h;
const SHARE: f32 = 1.0;
const GROUPS: u32 = 1u;
const GROUP_1: u32 = 0u;
const GROUP_2: u32 = 0u;
const GROUP_3: u32 = 0u;
// Rows of a round are so far apart that those which 16 lanes store lie in different banks.
override APART: u32 = VECS / 2u;

// The row of a tile that a lane carries in round j.
fn row_of(team: u32, j: u32) -> u32 { return team * APART + j % APART + j / APART * (APART * TEAMS); }

// Where the first quad of a load lies.
fn place_of(piece: u32) -> u32 { return piece; }

// Where a quad of a query lies.
fn slot_of(q: u32) -> u32 { return q % 2u * VECS + q / 2u; }

// Which quad of a value lies there.
fn quad_of(slot: u32) -> u32 { return slot % VECS * 2u + slot / VECS; }

// The order of a quad's numbers in the tile.
fn ordered(v: vec4<f32>) -> vec4<f32> { return v; }

fn quad(w: vec2<u32>) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)));
}

fn keep(to: u32, w: vec4<u32>) {
    tile[to] = quad(w.xy);
    tile[to + VECS] = quad(w.zw);
}

fn keep_scales(row: u32, v: vec4<u32>) {}

fn scored(i: u32, place: u32) -> vec2<f32> { return scores[i]; }

// Keeps the weights of a pair, and says their sum.
fn share(i: u32, score: vec2<f32>, top: f32, place: u32) -> f32 {
    let v = vec2<f16>(exp(score - top));
    shares[i] = v;
    let kept = vec2<f32>(v);
    return kept.x + kept.y;
}
