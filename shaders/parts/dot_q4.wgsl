// Weights as int4 for int8 dot products: a group of 32 is one vec4, its layout as parts/weight_q4.wgsl says.

alias Word = vec4<u32>;
alias Packed = vec4<u32>;

const DOT_SCALE: f32 = 0.0625; // of dot_group's sums

// Group `group` of the matrix, rows being whole groups.
fn packed_group(group: u32) -> Packed { return word_at(group); }

// Sixteen times the sum of 32 weights times 32 codes: `a` the first 16, `b` the others. With its high bit turned a nibble
// is the weight in two's complement; in the high half of a byte it is sixteen times that, whatever the low half was.
fn dot_group(w: Packed, a: vec4<u32>, b: vec4<u32>) -> i32 {
    let low = ((w << vec4<u32>(4u)) ^ vec4<u32>(0x80808080u)) & vec4<u32>(0xf0f0f0f0u);
    let high = (w ^ vec4<u32>(0x80808080u)) & vec4<u32>(0xf0f0f0f0u);
    return dot4I8Packed(low.x, a.x) + dot4I8Packed(high.x, a.y) + dot4I8Packed(low.y, a.z) + dot4I8Packed(high.y, a.w)
        + dot4I8Packed(low.z, b.x) + dot4I8Packed(high.z, b.y) + dot4I8Packed(low.w, b.z) + dot4I8Packed(high.w, b.w);
}
