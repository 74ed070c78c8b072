// Weights as int8 with an f16 scale for each group of 32: eight of them are two u32.

alias Word = vec2<u32>;

@group(0) @binding(9) var<storage, read> scales: array<u32>; // f16 [n, k / 32], two to a u32

override FIRST_GROUP: u32 = 0u; // groups of the rows before those that are bound, where an adapter's limits cut W

fn scale_of(group: u32) -> f32 {
    let at = FIRST_GROUP + group;
    return unpack2x16float(scales[at >> 1u])[at & 1u];
}

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
