// Writes a cached row as parts/cache_f32.wgsl reads it: lane l of `lanes` every lanes-th word, beginning with l.

fn store_row(base: u32, lane: u32, lanes: u32) {
    for (var w = lane; w < params.row_words; w += lanes) {
        latents[base + w] = bitcast<u32>(new_quad(w >> 2u)[w & 3u]);
    }
}
