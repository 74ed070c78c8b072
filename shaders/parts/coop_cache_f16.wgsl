// Cached rows in f16, as parts/cache_f16.wgsl has them, to mla_attend_coop.wgsl's tile.

override TILE_VEC4: u32 = TILE * ROW_VEC4;
override ROUNDS: u32 = (TILE_VEC4 + WG - 1u) / WG;

// As it was read: what is made of it waits for the memory, and so comes later.
struct Cached {
    words: vec4<u32>, // two quads
}

// What a lane has of round j of a tile of so many rows, of which `base` is the first: zeros past the last.
fn ask(j: u32, lid: u32, base: u32, count: u32) -> Cached {
    let i = lid + j * WG;
    if (i < count * ROW_VEC4) {
        let place = select(i / ROW_VEC4 * (KV_HEADS * ROW_VEC4) + i % ROW_VEC4, i, KV_HEADS == 1u);
        return Cached(latents[base * ROW_VEC4 + place]);
    }
    return Cached();
}

fn quad(w: vec2<u32>) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)));
}

fn keep(j: u32, lid: u32, c: Cached) {
    let i = lid + j * WG;
    if (i < TILE_VEC4) {
        let q = 2u * (i % ROW_VEC4);
        let to = i / ROW_VEC4 * PITCH + q;
        tile[to] = quad(c.words.xy);
        if (q + 1u < ROW_QUADS) {
            tile[to + 1u] = quad(c.words.zw);
        }
    }
}
