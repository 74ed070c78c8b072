// RoPE on pairs of elements of a vector: interleaved, (2i, 2i + 1), or its halves', (i, i + rope / 2), as Llama has them.
// Angles come from two tables made in f64 on the CPU, for the high and the low part of a position, and are added by
// multiplying the turns: a GPU's own cos and sin lose digits at large angles. `turns` is [256 low positions, then
// context / 256 high ones][rope / 2] of (cos, sin); the low ones carry the attention factor of YaRN.

override HALVES: bool = false;

fn turn(i: u32, position: u32) -> vec2<f32> {
    let pairs = params.rope / 2u;
    let low = turns[(position & 255u) * pairs + i];
    let high = turns[(256u + (position >> 8u)) * pairs + i];
    return vec2<f32>(low.x * high.x - low.y * high.y, low.x * high.y + low.y * high.x);
}

// A pair turned.
fn turned_by(t: vec2<f32>, pair: vec2<f32>) -> vec2<f32> {
    return vec2<f32>(pair.x * t.x - pair.y * t.y, pair.x * t.y + pair.y * t.x);
}

// The pair of element i, and the elements of a pair.
fn pair_of(i: u32) -> u32 { return select(i >> 1u, i % max(params.rope / 2u, 1u), HALVES); }
fn first_of(pair: u32) -> u32 { return select(2u * pair, pair, HALVES); }
fn second_of(pair: u32) -> u32 { return select(2u * pair + 1u, pair + params.rope / 2u, HALVES); }

// Element i of a turned vector whose pair at i is (first, second).
fn turned(pair: vec2<f32>, i: u32, position: u32) -> f32 {
    let v = turned_by(turn(pair_of(i), position), pair);
    return select(v.x, v.y, i == second_of(pair_of(i)));
}
