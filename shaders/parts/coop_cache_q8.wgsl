// A cached row in int8, as parts/cache_q8.wgsl has it, to a line of mla_attend_coop.wgsl's tile.
//
// 1152 + code is an f16 whose last byte is the code with its sign turned: two of them cost one `and` and one `xor`.

const SCALES: u32 = 16u; // quads whose scales share a word
override ROPES: u32 = LATENT_QUADS + (LATENT_QUADS + SCALES - 1u) / SCALES; // first word of the roped k_pe
override ROPES_END: u32 = ROPES + 2u * (QUERY_QUADS - LATENT_QUADS);

// As it was read: what is made of it waits for the memory, and so comes later.
struct Cached {
    words: vec4<u32>,
    scale: u32, // of its codes, in the lower half
    after: u32, // the word behind them, where quads of the k_pe lie across
}

fn cached_at(row: u32, i: u32) -> Cached {
    var c: Cached;
    c.words = latents[row + i];
    if (4u * i < LATENT_QUADS) {
        let w = LATENT_QUADS + 4u * i / SCALES;
        c.scale = latents[row + w / 4u][w % 4u] >> (((i >> 1u) & 1u) * 16u);
    }
    if (ROPES % 2u == 1u && i + 1u < ROW_VEC4) {
        c.after = latents[row + i + 1u].x;
    }
    return c;
}

fn codes(w: u32) -> vec2<f16> {
    return vec2<f16>(unpack2x16float((w & 0x00ff00ffu) ^ 0x64806480u));
}

fn keep_word(to: u32, w: u32, word: u32, after: u32, scale: f16) {
    if (w < LATENT_QUADS) {
        tile[to + w] = (vec4<f16>(codes(word), codes(word >> 8u)).xzyw - 1152.0h) * scale;
    } else if (w >= ROPES && w < ROPES_END && (w - ROPES) % 2u == 0u) {
        let v = vec4<f32>(unpack2x16float(word), unpack2x16float(after));
        tile[to + LATENT_QUADS + (w - ROPES) / 2u] = vec4<f16>(v);
    }
}

fn keep_cached(to: u32, i: u32, c: Cached) {
    let scale = f16(unpack2x16float(c.scale).x);
    keep_word(to, 4u * i, c.words.x, c.words.y, scale);
    keep_word(to, 4u * i + 1u, c.words.y, c.words.z, scale);
    keep_word(to, 4u * i + 2u, c.words.z, c.words.w, scale);
    keep_word(to, 4u * i + 3u, c.words.w, c.after, scale);
}
