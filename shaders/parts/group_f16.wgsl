// Weights as f16, two to a u32, by groups of 32, of four words.

alias Word = vec4<u32>;

struct Group {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

fn group_at(group: u32) -> Group {
    let at = 4u * group;
    return Group(word_at(at), word_at(at + 1u), word_at(at + 2u), word_at(at + 3u));
}

fn four(w: vec2<u32>) -> vec4<f16> {
    return vec4<f16>(vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y))).xzyw;
}

fn put_eight(to: u32, w: vec4<u32>) {
    tiles[to] = four(w.xy);
    tiles[to + 1u] = four(w.zw);
}

fn put_group(to: u32, g: Group) {
    put_eight(to, g.a);
    put_eight(to + 2u, g.b);
    put_eight(to + 4u, g.c);
    put_eight(to + 6u, g.d);
}
