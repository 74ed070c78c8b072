// A cached row in int8: one word a latent quad, then f16 scales of each eight quads, two to a word, then the roped
// k_pe in f16, two words a quad (its error would be multiplied over the whole context's positions, and it is short).

fn latent_quad(base: u32, q: u32) -> vec4<f32> {
    let scale = unpack2x16float(latents[base + params.latent_quads + (q >> 4u)])[(q >> 3u) & 1u];
    return scale * vec4<f32>(unpack4xI8(latents[base + q]));
}

fn rope_quad(base: u32, q: u32) -> vec4<f32> {
    let at = base + params.latent_quads + (params.latent_quads + 15u) / 16u + 2u * q;
    return vec4<f32>(unpack2x16float(latents[at]), unpack2x16float(latents[at + 1u]));
}
