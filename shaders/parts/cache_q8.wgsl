// A cached row in int8: one word a latent quad, then f16 scales of each eight quads, two to a word, then the roped
// k_pe in f16, two words a quad (its error would be multiplied over the whole context's positions, and it is short).
// `tile_word` reads a word of a row of the kernel's tile.

const SCALES: u32 = 16u; // quads whose scales share a word

fn latent_quad(row: u32, q: u32) -> vec4<f32> {
    let scale = unpack2x16float(tile_word(row, LATENT_QUADS + q / SCALES))[(q >> 3u) & 1u];
    return scale * vec4<f32>(unpack4xI8(tile_word(row, q)));
}

fn rope_quad(row: u32, q: u32) -> vec4<f32> {
    let at = LATENT_QUADS + (LATENT_QUADS + SCALES - 1u) / SCALES + 2u * q;
    return vec4<f32>(unpack2x16float(tile_word(row, at)), unpack2x16float(tile_word(row, at + 1u)));
}
