// A q4 group as int8 codes, for kernels that share it among lanes. Joined beside parts/dot_q4.wgsl.

// The 32 weights of a group, four neighbours a word: the first 16 and the others.
fn group_codes(w: Packed) -> array<vec4<u32>, 2> {
    // In each byte nibble - 8: the nibble plus 0x78 carries into no neighbour and is off by its sign bit.
    let low = ((w & vec4<u32>(0x0f0f0f0fu)) + vec4<u32>(0x78787878u)) ^ vec4<u32>(0x80808080u);
    let high = (((w >> vec4<u32>(4u)) & vec4<u32>(0x0f0f0f0fu)) + vec4<u32>(0x78787878u)) ^ vec4<u32>(0x80808080u);
    return array<vec4<u32>, 2>(vec4<u32>(low.x, high.x, low.y, high.y), vec4<u32>(low.z, high.z, low.w, high.w));
}
