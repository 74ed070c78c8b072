// Weights as int4 with an f16 scale for each group of 32 (see weight_q4.wgsl), by groups of one word, as f16.
//
// 1024 + nibble is an f16 whose last bits are the nibble: two of them cost one `and` and one `or`.

alias Word = vec4<u32>;

// As it was read: what is made of it waits for the memory, and so comes later.
struct Group {
    codes: vec4<u32>,
    scales: u32, // of two groups
    odd: u32,    // this one is the second of them
}

fn group_at(group: u32) -> Group {
    let at = FIRST_GROUP + group;
    return Group(word_at(group), scales[at >> 1u], at & 1u);
}

fn nibbles(w: u32) -> vec2<f16> {
    return vec2<f16>(unpack2x16float((w & 0x000f000fu) | 0x64006400u));
}

fn put_codes(to: u32, w: u32, scale: f16) {
    tiles[to] = (vec4<f16>(nibbles(w), nibbles(w >> 8u)) - 1032.0h) * scale;
    tiles[to + 1u] = (vec4<f16>(nibbles(w >> 4u), nibbles(w >> 12u)) - 1032.0h) * scale;
}

fn put_group(to: u32, g: Group) {
    let scale = f16(unpack2x16float(g.scales)[g.odd]);
    put_codes(to, g.codes.x, scale);
    put_codes(to + 2u, g.codes.y, scale);
    put_codes(to + 4u, g.codes.z, scale);
    put_codes(to + 6u, g.codes.w, scale);
}
