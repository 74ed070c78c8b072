// Writes a cached row as parts/cache_f32.wgsl reads it. Lane l of LANES_STORE writes every LANES_STORE-th quad.

fn store_row(base: u32, lane: u32, lanes: u32) {
    for (var q = lane; q < params.latent_quads + params.rope_quads; q += lanes) {
        let v = bitcast<vec4<u32>>(new_quad(q));
        for (var j = 0u; j < 4u; j++) {
            latents[base + 4u * q + j] = v[j];
        }
    }
}
