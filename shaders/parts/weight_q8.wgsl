// Weights as int8 with an f16 scale for each group of 32: eight of them are two u32.

alias Word = vec2<u32>;

// The eight weights that start at 8 * oct, rows being whole groups of 32.
fn weight_oct(oct: u32) -> mat2x4<f32> {
    let w = word_at(oct);
    let s = scale_of(oct >> 2u);
    return mat2x4<f32>(s * vec4<f32>(unpack4xI8(w.x)), s * vec4<f32>(unpack4xI8(w.y)));
}

// The four weights that start at 4 * quad.
fn weight_quad(quad: u32) -> vec4<f32> {
    let w = word_at(quad >> 1u);
    return scale_of(quad >> 3u) * vec4<f32>(unpack4xI8(select(w.x, w.y, (quad & 1u) == 1u)));
}
