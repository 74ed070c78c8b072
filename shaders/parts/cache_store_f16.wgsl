// Writes a cached row as parts/cache_f16.wgsl reads it.

fn store_row(base: u32, lane: u32, lanes: u32) {
    for (var q = lane; q < params.latent_quads + params.rope_quads; q += lanes) {
        let v = new_quad(q);
        latents[base + 2u * q] = pack2x16float(v.xy);
        latents[base + 2u * q + 1u] = pack2x16float(v.zw);
    }
}
