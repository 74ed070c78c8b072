// Values and keys cached in f16, as parts/cache_f16.wgsl has them, to gqa_attend_coop.wgsl's tile.

const QUADS_EACH: u32 = 2u; // of a load

// As it was read: what is made of it waits for the memory, and so comes later.
struct Cached {
    words: vec4<u32>,
}

// vec4 i of the row that begins at `row`.
fn ask(row: u32, i: u32) -> Cached {
    return Cached(latents[row + i]);
}

fn quad(w: vec2<u32>) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)));
}

// The order of a quad's numbers in the tile.
fn ordered(v: vec4<f32>) -> vec4<f32> { return v; }

fn keep(to: u32, i: u32, c: Cached) {
    tile[to] = quad(c.words.xy);
    tile[to + VECS] = quad(c.words.zw);
}
