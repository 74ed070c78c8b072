// A cached row in f16: two words a quad, latent quads first, then the quads of the roped k_pe.

fn latent_quad(base: u32, q: u32) -> vec4<f32> {
    let at = base + 2u * q;
    return vec4<f32>(unpack2x16float(latents[at]), unpack2x16float(latents[at + 1u]));
}

fn rope_quad(base: u32, q: u32) -> vec4<f32> { return latent_quad(base, params.latent_quads + q); }
