// A cached row in f16: two words a quad, latent quads first, then the quads of the roped k_pe. `tile_word` reads a word
// of a row of the kernel's tile.

fn latent_quad(row: u32, q: u32) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(tile_word(row, 2u * q)), unpack2x16float(tile_word(row, 2u * q + 1u)));
}

fn rope_quad(row: u32, q: u32) -> vec4<f32> { return latent_quad(row, LATENT_QUADS + q); }
