// Weights as int8 with an f16 scale for each group of 32, by groups of two words, as f16.
//
// 1152 + code is an f16 whose last byte is the code with its sign turned: two of them cost one `and` and one `xor`.

alias Word = vec4<u32>;

// As it was read: what is made of it waits for the memory, and so comes later.
struct Group {
    low: vec4<u32>,
    high: vec4<u32>,
    scales: u32, // of two groups
    odd: u32,    // this one is the second of them
}

fn group_at(group: u32) -> Group {
    let at = FIRST_GROUP + group;
    return Group(word_at(2u * group), word_at(2u * group + 1u), scales[at >> 1u], at & 1u);
}

fn bytes(w: u32) -> vec2<f16> {
    return vec2<f16>(unpack2x16float((w & 0x00ff00ffu) ^ 0x64806480u));
}

fn four_codes(w: u32, scale: f16) -> vec4<f16> {
    return (vec4<f16>(bytes(w), bytes(w >> 8u)) - 1152.0h) * scale;
}

fn put_codes(to: u32, w: vec4<u32>, scale: f16) {
    tiles[to] = four_codes(w.x, scale);
    tiles[to + 1u] = four_codes(w.y, scale);
    tiles[to + 2u] = four_codes(w.z, scale);
    tiles[to + 3u] = four_codes(w.w, scale);
}

fn put_group(to: u32, g: Group) {
    let scale = f16(unpack2x16float(g.scales)[g.odd]);
    put_codes(to, g.low, scale);
    put_codes(to + 4u, g.high, scale);
}
