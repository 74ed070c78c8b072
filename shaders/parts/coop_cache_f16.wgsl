// A cached row in f16, as parts/cache_f16.wgsl has it, to a line of mla_attend_coop.wgsl's tile.

// As it was read: what is made of it waits for the memory, and so comes later.
struct Cached {
    words: vec4<u32>, // two quads
}

fn cached_at(row: u32, i: u32) -> Cached { return Cached(latents[row + i]); }

fn quad(w: vec2<u32>) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)));
}

fn keep_cached(to: u32, i: u32, c: Cached) {
    tile[to + 2u * i] = quad(c.words.xy);
    if (2u * i + 1u < QUERY_QUADS) {
        tile[to + 2u * i + 1u] = quad(c.words.zw);
    }
}
