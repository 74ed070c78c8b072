// Weights as int4 with an f16 scale for each group of 32: eight of them are one u32, the first four in its low nibbles.
// A weight is (nibble - 8) * scale.

alias Word = u32;

// The eight weights that start at 8 * oct, rows being whole groups of 32.
fn weight_oct(oct: u32) -> mat2x4<f32> {
    let w = word_at(oct);
    let s = scale_of(oct >> 2u);
    let low = vec4<f32>(unpack4xU8(w & 0x0f0f0f0fu));
    let high = vec4<f32>(unpack4xU8((w >> 4u) & 0x0f0f0f0fu));
    return mat2x4<f32>(s * (low - 8.0), s * (high - 8.0));
}

// The four weights that start at 4 * quad.
fn weight_quad(quad: u32) -> vec4<f32> {
    let nibbles = (word_at(quad >> 1u) >> ((quad & 1u) * 4u)) & 0x0f0f0f0fu;
    return scale_of(quad >> 3u) * (vec4<f32>(unpack4xU8(nibbles)) - 8.0);
}
