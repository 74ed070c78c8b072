// Values and keys cached in int8, as parts/cache_q8.wgsl has them, to gqa_attend_coop.wgsl's tile.
//
// 1152 + code is an f16 whose last byte is the code with its sign turned: two of them cost one `and` and one `xor`, and
// come as the first and the third of a word, the second and the fourth.

const QUADS_EACH: u32 = 4u;                 // of a load
override SCALES: u32 = 2u * HEAD_QUADS;     // first word of a row's scales, two to a word, each of two loads

// As it was read: what is made of it waits for the memory, and so comes later.
struct Cached {
    words: vec4<u32>,
    scales: u32,
}

// vec4 i of the row that begins at `row`.
fn ask(row: u32, i: u32) -> Cached {
    let w = SCALES + i / 4u;
    return Cached(latents[row + i], latents[row + w / 4u][w % 4u]);
}

fn codes(w: u32) -> vec2<f16> {
    return vec2<f16>(unpack2x16float((w & 0x00ff00ffu) ^ 0x64806480u));
}

fn quad(word: u32, scale: f16) -> vec4<f16> {
    return (vec4<f16>(codes(word), codes(word >> 8u)) - 1152.0h) * scale;
}

// The order of a quad's numbers in the tile; twice is none.
fn ordered(v: vec4<f32>) -> vec4<f32> { return v.xzyw; }

fn keep(to: u32, i: u32, c: Cached) {
    let scale = f16(unpack2x16float(c.scales >> ((i & 2u) * 8u)).x);
    tile[to] = quad(c.words.x, scale);
    tile[to + VECS] = quad(c.words.y, scale);
    tile[to + 2u * VECS] = quad(c.words.z, scale);
    tile[to + 3u * VECS] = quad(c.words.w, scale);
}
