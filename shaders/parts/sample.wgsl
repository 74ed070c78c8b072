// What a slot asks of the sampler, the order of values, and the noise of a draw. Values are ordered by integer keys, so
// that maxima and ties come out the same on every adapter, and whether a value is finite is asked of its bits.

const CANDIDATES: u32 = 1024u; // best tokens among which a truncated draw happens, at most
const HISTORY: u32 = 256u;     // tokens that a slot remembers: the one at position p at p % HISTORY
const BIASES: u32 = 256u;      // of a slot, at most
const NONE: u32 = 0xffffffffu; // no token

struct Settings {
    seed_low: u32,
    seed_high: u32,
    inverse_temperature: f32, // 0: the best token, without a draw
    top_k: u32,               // 0: off
    top_p: f32,               // 1: off
    min_p: f32,               // 0: off
    repetition: f32,          // 1: off
    presence: f32,
    frequency: f32,
    window: u32,              // last tokens of the context that penalties look at, at most HISTORY
    biases: u32,
    stops: u32,
    max_tokens: u32,          // of the answer
    logprobs: u32,            // best tokens to report
    unused: vec2<u32>,
}

struct Partial {
    top: vec4<u32>,     // key of the best value, the lowest token that has it, not 0: there are values that are not finite
    sums: vec2<f32>,    // of exp(value - top) and of exp((value - top) * inverse_temperature)
    drawn: vec2<u32>,   // the token with the best value * inverse_temperature + noise, its bits; of a plain draw alone
}

// Whether the step wants a token drawn from logit row l.
fn sample_asked(l: u32) -> bool { return step[1u + 2u * MAX_ROWS + l].y == 1u; }

// Whether a token is drawn from all of them.
fn draws_plainly(s: Settings) -> bool { return s.inverse_temperature > 0.0 && !truncates(s); }

// Whether fewer than all tokens may be drawn.
fn truncates(s: Settings) -> bool {
    return s.inverse_temperature > 0.0 && (s.top_k > 0u || s.top_p < 1.0 || s.min_p > 0.0);
}

// A key that orders as the f32 of these bits does; -0 is 0.
fn key_of(bits: u32) -> u32 {
    let b = select(bits, 0u, bits == 0x80000000u);
    return select(b | 0x80000000u, ~b, (b >> 31u) == 1u);
}

fn value_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, (key >> 31u) == 1u));
}

fn is_finite(bits: u32) -> bool { return (bits & 0x7f800000u) != 0x7f800000u; }

// The exponent of a value's probability before the sum: 0 for the best. What lies lower than the bound is never drawn.
fn heat(value: f32, top: f32, inverse_temperature: f32) -> f32 {
    return max((value - top) * inverse_temperature, -1e6);
}

// pcg4d (Jarzynski and Olano, Hash Functions for GPU Rendering, 2020): four words in, one of four mixed words out.
fn hash(seed_low: u32, seed_high: u32, index: u32, id: u32) -> u32 {
    var v = vec4<u32>(seed_low, seed_high, index, id) * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4<u32>(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v.w;
}

// Gumbel noise: -log(-log(u)) of a uniform u that depends on seed, place in the answer and token alone. The token that
// maximises value / temperature + noise is a draw from the softmax. The tokens that win have u near 1, where an f32 has
// too few steps: there -log(u) = -log(1 - v) is taken as a series in v.
fn noise(s: Settings, index: u32, id: u32) -> f32 {
    let h = hash(s.seed_low, s.seed_high, index, id);
    let v = (f32(h) + 0.5) * 2.3283064365386963e-10;
    let u = (f32(~h) + 0.5) * 2.3283064365386963e-10;
    if (v < 0.015625) {
        return -log(v * (1.0 + v * (0.5 + v * (1.0 / 3.0 + v * 0.25))));
    }
    return -log(-log(u));
}
