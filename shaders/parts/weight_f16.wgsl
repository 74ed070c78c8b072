// Weights as f16, two to a u32: eight of them are one vec4.

alias Word = vec4<u32>;

// The eight weights that start at 8 * oct, rows being whole groups of 32.
fn weight_oct(oct: u32) -> mat2x4<f32> {
    let w = word_at(oct);
    return mat2x4<f32>(
        vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)),
        vec4<f32>(unpack2x16float(w.z), unpack2x16float(w.w)),
    );
}

// The four weights that start at 4 * quad.
fn weight_quad(quad: u32) -> vec4<f32> {
    let w = word_at(quad >> 1u);
    let half = select(w.xy, w.zw, (quad & 1u) == 1u);
    return vec4<f32>(unpack2x16float(half.x), unpack2x16float(half.y));
}
