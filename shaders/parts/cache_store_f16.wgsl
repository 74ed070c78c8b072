// Writes a cached row as parts/cache_f16.wgsl reads it: lane l of `lanes` every lanes-th word, beginning with l.

fn store_row(base: u32, lane: u32, lanes: u32) {
    for (var w = lane; w < params.row_words; w += lanes) {
        var word = 0u;
        if (w < 2u * (params.latent_quads + params.rope_quads)) {
            // WGSL leaves open what an f16 too large for its range becomes.
            let v = clamp(new_quad(w >> 1u), vec4<f32>(-65504.0), vec4<f32>(65504.0));
            word = pack2x16float(select(v.xy, v.zw, (w & 1u) == 1u));
        }
        latents[base + w] = word;
    }
}
