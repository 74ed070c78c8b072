// Cached rows in int8, as parts/cache_q8.wgsl has them, to mla_attend_coop.wgsl's tile: first rounds of four words of
// codes for each lane, then rounds of one quad of the roped k_pe.
//
// 1152 + code is an f16 whose last byte is the code with its sign turned: two of them cost one `and` and one `xor`.

const SCALES: u32 = 16u; // quads whose scales share a word
override ROPES: u32 = LATENT_QUADS + (LATENT_QUADS + SCALES - 1u) / SCALES; // first word of the roped k_pe
override ROPE_QUADS: u32 = ROW_QUADS - LATENT_QUADS;
override ROPES_EACH: u32 = max(ROPE_QUADS, 1u);                             // what numbers are divided by
override CODE_VEC4: u32 = (LATENT_QUADS + 3u) / 4u;                         // of a row
override CODE_ROUNDS: u32 = (TILE * CODE_VEC4 + WG - 1u) / WG;
override ROUNDS: u32 = CODE_ROUNDS + (TILE * ROPE_QUADS + WG - 1u) / WG;

// As it was read: what is made of it waits for the memory, and so comes later.
struct Cached {
    words: vec4<u32>, // of codes; or the quad's two
    scale: u32,       // of the codes, in the lower half
}

// What a lane has of round j of a tile of so many rows, of which `base` is the first: zeros past the last.
fn ask(j: u32, lid: u32, base: u32, count: u32) -> Cached {
    var c: Cached;
    if (j < CODE_ROUNDS) {
        let i = lid + j * WG;
        let row = (base + i / CODE_VEC4 * KV_HEADS) * ROW_VEC4;
        let q = i % CODE_VEC4;
        if (i < count * CODE_VEC4) {
            let w = LATENT_QUADS + 4u * q / SCALES;
            c.words = latents[row + q];
            c.scale = latents[row + w / 4u][w % 4u] >> (((q >> 1u) & 1u) * 16u);
        }
    } else {
        let i = lid + (j - CODE_ROUNDS) * WG;
        let row = (base + i / ROPES_EACH * KV_HEADS) * ROW_VEC4;
        let w = ROPES + 2u * (i % ROPES_EACH);
        if (i < count * ROPE_QUADS) {
            c.words.x = latents[row + w / 4u][w % 4u];
            c.words.y = latents[row + (w + 1u) / 4u][(w + 1u) % 4u];
        }
    }
    return c;
}

fn codes(w: u32) -> vec2<f16> {
    return vec2<f16>(unpack2x16float((w & 0x00ff00ffu) ^ 0x64806480u));
}

fn keep_codes(to: u32, q: u32, word: u32, scale: f16) {
    if (q < LATENT_QUADS) {
        tile[to + q] = (vec4<f16>(codes(word), codes(word >> 8u)).xzyw - 1152.0h) * scale;
    }
}

fn keep(j: u32, lid: u32, c: Cached) {
    if (j < CODE_ROUNDS) {
        let i = lid + j * WG;
        if (i < TILE * CODE_VEC4) {
            let to = i / CODE_VEC4 * PITCH;
            let q = 4u * (i % CODE_VEC4);
            let scale = f16(unpack2x16float(c.scale).x);
            // Neighbouring lanes store in different orders: to different banks.
            let turn = (lid >> 2u) & 3u;
            let by_two = select(c.words, c.words.zwxy, (turn & 2u) != 0u);
            let words = select(by_two, by_two.yxwz, (turn & 1u) != 0u);
            keep_codes(to, q + turn, words.x, scale);
            keep_codes(to, q + (1u ^ turn), words.y, scale);
            keep_codes(to, q + (2u ^ turn), words.z, scale);
            keep_codes(to, q + (3u ^ turn), words.w, scale);
        }
    } else {
        let i = lid + (j - CODE_ROUNDS) * WG;
        if (i < TILE * ROPE_QUADS) {
            let v = vec4<f32>(unpack2x16float(c.words.x), unpack2x16float(c.words.y));
            tile[i / ROPES_EACH * PITCH + LATENT_QUADS + i % ROPES_EACH] = vec4<f16>(v);
        }
    }
}
