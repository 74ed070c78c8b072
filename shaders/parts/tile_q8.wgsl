// A q8 group as int8 codes, for kernels that share it among lanes. Joined beside parts/dot_q8.wgsl.

// The 32 weights of a group, four neighbours a word: the first 16 and the others.
fn group_codes(w: Packed) -> array<vec4<u32>, 2> { return array<vec4<u32>, 2>(w.a, w.b); }
