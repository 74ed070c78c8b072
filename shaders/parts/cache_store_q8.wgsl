// Writes a cached row as parts/cache_q8.wgsl reads it: lane l of `lanes` every lanes-th word, beginning with l. A lane
// finds the scale of its word's group by itself, which costs eight reads and no barrier.

fn largest_of_quad(q: u32) -> f32 {
    let v = abs(new_quad(min(q, params.latent_quads - 1u)));
    return max(max(v.x, v.y), max(v.z, v.w));
}

// The scale of eight quads as f16 rounds it, so that codes taken with it read back as what was measured; 0 past the last
// group.
fn scale_of_group(group: u32) -> f32 {
    let q = 8u * group;
    let first = max(max(largest_of_quad(q), largest_of_quad(q + 1u)), max(largest_of_quad(q + 2u), largest_of_quad(q + 3u)));
    let second =
        max(max(largest_of_quad(q + 4u), largest_of_quad(q + 5u)), max(largest_of_quad(q + 6u), largest_of_quad(q + 7u)));
    let most = select(0.0, max(first, second), q < params.latent_quads);
    return unpack2x16float(pack2x16float(vec2<f32>(min(most / 127.0, 65504.0), 0.0))).x;
}

fn store_row(base: u32, lane: u32, lanes: u32) {
    let scales = params.latent_quads;
    let ropes = scales + (params.latent_quads + 15u) / 16u;
    for (var w = lane; w < params.row_words; w += lanes) {
        var word = 0u;
        if (w < scales) {
            let scale = scale_of_group(w >> 3u);
            var inverse = 0.0;
            if (scale > 0.0) {
                inverse = 1.0 / scale;
            }
            word = pack4xI8(vec4<i32>(clamp(round(new_quad(w) * inverse), vec4<f32>(-127.0), vec4<f32>(127.0))));
        } else if (w < ropes) {
            // A second group past the last has nothing in it, and a scale of zero.
            let group = 2u * (w - scales);
            word = pack2x16float(vec2<f32>(scale_of_group(group), scale_of_group(group + 1u)));
        } else if (w < ropes + 2u * params.rope_quads) {
            // WGSL leaves open what an f16 too large for its range becomes.
            let half = w - ropes;
            let v = clamp(new_quad(scales + (half >> 1u)), vec4<f32>(-65504.0), vec4<f32>(65504.0));
            word = pack2x16float(select(v.xy, v.zw, (half & 1u) == 1u));
        }
        latents[base + w] = word;
    }
}
