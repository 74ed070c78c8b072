// Weights as int8 for int8 dot products: a group of 32 is two vec4.

alias Word = vec4<u32>;
struct Packed { a: vec4<u32>, b: vec4<u32> }

const DOT_SCALE: f32 = 1.0; // of dot_group's sums

// Group `group` of the matrix, rows being whole groups.
fn packed_group(group: u32) -> Packed { return Packed(word_at(2u * group), word_at(2u * group + 1u)); }

// The sum of 32 weights times 32 codes: `a` the first 16, `b` the others.
fn dot_group(w: Packed, a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(w.a.x, a.x) + dot4I8Packed(w.a.y, a.y) + dot4I8Packed(w.a.z, a.z) + dot4I8Packed(w.a.w, a.w)
        + dot4I8Packed(w.b.x, b.x) + dot4I8Packed(w.b.y, b.y) + dot4I8Packed(w.b.z, b.z) + dot4I8Packed(w.b.w, b.w);
}
