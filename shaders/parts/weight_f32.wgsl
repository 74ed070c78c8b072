// Weights as f32: eight of them are two vec4.

alias Word = vec4<f32>;

// The eight weights that start at 8 * oct, rows being whole groups of 32.
fn weight_oct(oct: u32) -> mat2x4<f32> {
    return mat2x4<f32>(word_at(2u * oct), word_at(2u * oct + 1u));
}

// The four weights that start at 4 * quad.
fn weight_quad(quad: u32) -> vec4<f32> { return word_at(quad); }
