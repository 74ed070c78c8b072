// Writes a cached row as parts/cache_f16.wgsl reads it.

fn store_row(base: u32, lane: u32, lanes: u32) {
    for (var q = lane; q < params.latent_quads + params.rope_quads; q += lanes) {
        // WGSL leaves open what an f16 too large for its range becomes.
        let v = clamp(new_quad(q), vec4<f32>(-65504.0), vec4<f32>(65504.0));
        latents[base + 2u * q] = pack2x16float(v.xy);
        latents[base + 2u * q + 1u] = pack2x16float(v.zw);
    }
}
