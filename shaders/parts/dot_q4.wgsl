// Weights as int4 for int8 dot products: a group of 32 is one vec4, its layout as parts/weight_q4.wgsl says.

alias Word = vec4<u32>;
alias Packed = vec4<u32>;

const OFFSET: f32 = 8.0; // of a nibble

// Group `group` of the matrix, rows being whole groups.
fn packed_group(group: u32) -> Packed { return word_at(group); }

// The sum of 32 nibbles times 32 codes: `a` the first 16, `b` the others.
fn dot_group(w: Packed, a: vec4<u32>, b: vec4<u32>) -> i32 {
    let low = w & vec4<u32>(0x0f0f0f0fu);
    let high = (w >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu);
    return dot4I8Packed(low.x, a.x) + dot4I8Packed(high.x, a.y) + dot4I8Packed(low.y, a.z) + dot4I8Packed(high.y, a.w)
        + dot4I8Packed(low.z, b.x) + dot4I8Packed(high.z, b.y) + dot4I8Packed(low.w, b.z) + dot4I8Packed(high.w, b.w);
}
