// Writes a cached row as parts/cache_q8.wgsl reads it. A lane owns two groups of eight quads, which share a word of
// scales. Codes are taken with the scale as f16 rounds it, so that reading gives back what was measured.

fn store_row(base: u32, lane: u32, lanes: u32) {
    let pairs = (params.latent_quads + 15u) / 16u;
    for (var pair = lane; pair < pairs; pair += lanes) {
        var rounded = vec2<f32>(0.0);
        for (var g = 0u; g < 2u; g++) {
            let first = pair * 16u + g * 8u;
            let end = min(first + 8u, params.latent_quads);
            var most = 0.0;
            for (var q = first; q < end; q++) {
                let v = abs(new_quad(q));
                most = max(most, max(max(v.x, v.y), max(v.z, v.w)));
            }
            rounded[g] = unpack2x16float(pack2x16float(vec2<f32>(min(most / 127.0, 65504.0), 0.0))).x;
            var inverse = 0.0;
            if (rounded[g] > 0.0) {
                inverse = 1.0 / rounded[g];
            }
            for (var q = first; q < end; q++) {
                let codes = vec4<i32>(clamp(round(new_quad(q) * inverse), vec4<f32>(-127.0), vec4<f32>(127.0)));
                latents[base + q] = pack4xI8(codes);
            }
        }
        latents[base + params.latent_quads + pair] = pack2x16float(rounded);
    }
    let ropes = base + params.latent_quads + pairs;
    for (var q = lane; q < params.rope_quads; q += lanes) {
        // WGSL leaves open what an f16 too large for its range becomes.
        let v = clamp(new_quad(params.latent_quads + q), vec4<f32>(-65504.0), vec4<f32>(65504.0));
        latents[ropes + 2u * q] = pack2x16float(v.xy);
        latents[ropes + 2u * q + 1u] = pack2x16float(v.zw);
    }
}
