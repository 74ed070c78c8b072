// A cached row in f32: four words a quad, latent quads first, then the quads of the roped k_pe.

fn latent_quad(base: u32, q: u32) -> vec4<f32> {
    let at = base + 4u * q;
    return bitcast<vec4<f32>>(vec4<u32>(latents[at], latents[at + 1u], latents[at + 2u], latents[at + 3u]));
}

fn rope_quad(base: u32, q: u32) -> vec4<f32> { return latent_quad(base, params.latent_quads + q); }
