// Weights as f32, by groups of 32, of eight words; rounded to f16.

alias Word = vec4<f32>;

struct Group {
    low: mat4x4<f32>,
    high: mat4x4<f32>,
}

fn group_at(group: u32) -> Group {
    let at = 8u * group;
    return Group(
        mat4x4<f32>(word_at(at), word_at(at + 1u), word_at(at + 2u), word_at(at + 3u)),
        mat4x4<f32>(word_at(at + 4u), word_at(at + 5u), word_at(at + 6u), word_at(at + 7u)),
    );
}

fn put_sixteen(to: u32, w: mat4x4<f32>) {
    tiles[to] = vec4<f16>(w[0].xzyw);
    tiles[to + 1u] = vec4<f16>(w[1].xzyw);
    tiles[to + 2u] = vec4<f16>(w[2].xzyw);
    tiles[to + 3u] = vec4<f16>(w[3].xzyw);
}

fn put_group(to: u32, g: Group) {
    put_sixteen(to, g.low);
    put_sixteen(to + 4u, g.high);
}
