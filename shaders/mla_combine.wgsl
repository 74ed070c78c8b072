// o[r, h, :] = Wv[g(h)] (sum of the spans' parts, each with its own maximum): from latents back to values.
//
// One workgroup owns one head of one row. A lane weighs a span; then a lane sums one quad of the latent over every
// SHARES-th span; then LANES_A_ROW lanes share a row of Wv. What a lane needs of Wv first does not wait for the rest.

override LATENT_QUADS: u32;
override LATENT_QUADS_PADDED: u32; // padded to groups of 32
override WG: u32 = 256u;           // no fewer than spans
override SHARES: u32;              // WG / LATENT_QUADS, rounded down: lanes that share a quad

const LANES_A_ROW: u32 = 4u;       // of Wv: 32 neighbouring bytes of q8 at once, which is what a GPU fetches
override ROWS: u32 = WG / LANES_A_ROW;
const TOPS: u32 = 16u;

struct Params {
    heads: u32,
    share: u32,          // query heads that share a kv head
    nope: u32,
    v_dim: u32,          // v_head_dim
    w_octs: u32,         // of a row of kv_b_proj, padded to groups of 32: a multiple of LANES_A_ROW
    context: u32,
    spans: u32,          // as mla_attend.wgsl had them
    parts: u32,
    o_stride: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> sums: array<vec4<f32>>;        // [rows, heads, spans, LATENT_QUADS]
@group(0) @binding(3) var<storage, read> weights: array<vec2<f32>>;     // [rows, heads, spans] (maximum, sum)
@group(0) @binding(4) var<storage, read_write> o: array<f32>;           // [rows, heads, v_dim], rows o_stride apart

var<workgroup> tops: array<f32, WG>;
var<workgroup> most: array<f32, TOPS>;
var<workgroup> factors: array<vec2<f32>, WG>;                           // (of a span's sum, its sum of weights by it)
var<workgroup> folds: array<vec4<f32>, WG>;
var<workgroup> totals: array<f32, WG>;
var<workgroup> latent: array<vec4<f32>, LATENT_QUADS_PADDED>;
var<workgroup> values: array<f32, WG>;

fn product(w: mat2x4<f32>, oct: u32) -> f32 {
    return dot(w[0], latent[2u * oct]) + dot(w[1], latent[2u * oct + 1u]);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let h = wid.x;
    let r = wid.z;
    // The first four eights of the first row that this lane takes part in.
    let part = lid % LANES_A_ROW;
    let mine = lid / LANES_A_ROW;
    let wv = h / params.share * (params.nope + params.v_dim) + params.nope;
    let last = params.w_octs - LANES_A_ROW + part;
    let ahead = (wv + min(mine, params.v_dim - 1u)) * params.w_octs;
    let w_0 = weight_oct(ahead + part);
    let w_1 = weight_oct(ahead + min(part + LANES_A_ROW, last));
    let w_2 = weight_oct(ahead + min(part + 2u * LANES_A_ROW, last));
    let w_3 = weight_oct(ahead + min(part + 3u * LANES_A_ROW, last));

    let length = min(row_at(r).position + 1u, params.context);
    let room = spans_of_step();
    let span = span_of(length, room);
    let spans = (length + span - 1u) / span;
    let start = (r * params.heads + h) * room;

    // A lane's span, and its first four sums, all at once.
    let share = lid / LATENT_QUADS;
    let quad = lid % LATENT_QUADS;
    var weight = vec2<f32>(-1e30, 0.0);
    if (lid < spans) {
        weight = weights[start + lid];
    }
    var part_0 = vec4<f32>(0.0);
    var part_1 = vec4<f32>(0.0);
    var part_2 = vec4<f32>(0.0);
    var part_3 = vec4<f32>(0.0);
    if (share < SHARES) {
        let at = (start + share) * LATENT_QUADS + quad;
        if (share < spans) { part_0 = sums[at]; }
        if (share + SHARES < spans) { part_1 = sums[at + SHARES * LATENT_QUADS]; }
        if (share + 2u * SHARES < spans) { part_2 = sums[at + 2u * SHARES * LATENT_QUADS]; }
        if (share + 3u * SHARES < spans) { part_3 = sums[at + 3u * SHARES * LATENT_QUADS]; }
    }

    tops[lid] = weight.x;
    workgroupBarrier();
    if (lid < TOPS) {
        var top = tops[lid];
        for (var i = lid + TOPS; i < WG; i += TOPS) {
            top = max(top, tops[i]);
        }
        most[lid] = top;
    }
    workgroupBarrier();
    var top = most[0];
    for (var i = 1u; i < TOPS; i++) {
        top = max(top, most[i]);
    }
    let factor = exp(weight.x - top);
    factors[lid] = vec2<f32>(factor, factor * weight.y); // 0 where there is no span
    workgroupBarrier();

    var sum = vec4<f32>(0.0);
    var total = 0.0;
    if (share < SHARES) {
        for (var s = share; s < spans; s += 4u * SHARES) {
            let f_0 = factors[s];
            let f_1 = factors[min(s + SHARES, WG - 1u)] * select(0.0, 1.0, s + SHARES < spans);
            let f_2 = factors[min(s + 2u * SHARES, WG - 1u)] * select(0.0, 1.0, s + 2u * SHARES < spans);
            let f_3 = factors[min(s + 3u * SHARES, WG - 1u)] * select(0.0, 1.0, s + 3u * SHARES < spans);
            sum += f_0.x * part_0 + f_1.x * part_1 + f_2.x * part_2 + f_3.x * part_3;
            total += f_0.y + f_1.y + f_2.y + f_3.y;
            let at = (start + s + 4u * SHARES) * LATENT_QUADS + quad;
            if (s + 4u * SHARES < spans) { part_0 = sums[at]; }
            if (s + 5u * SHARES < spans) { part_1 = sums[at + SHARES * LATENT_QUADS]; }
            if (s + 6u * SHARES < spans) { part_2 = sums[at + 2u * SHARES * LATENT_QUADS]; }
            if (s + 7u * SHARES < spans) { part_3 = sums[at + 3u * SHARES * LATENT_QUADS]; }
        }
    }
    folds[lid] = sum;
    totals[lid] = total;
    workgroupBarrier();
    for (var q = lid; q < LATENT_QUADS_PADDED; q += WG) {
        var all = vec4<f32>(0.0);
        if (q < LATENT_QUADS) {
            var by = 0.0;
            for (var i = 0u; i < SHARES; i++) {
                all += folds[i * LATENT_QUADS + q];
                by += totals[i * LATENT_QUADS + q];
            }
            all /= by;
        }
        latent[q] = all;
    }
    workgroupBarrier();

    for (var first = 0u; first < params.v_dim; first += ROWS) {
        var value = 0.0;
        let d = first + mine;
        if (d < params.v_dim) {
            let at = (wv + d) * params.w_octs;
            var oct = part;
            if (first == 0u) {
                value = product(w_0, part);
                if (part + LANES_A_ROW <= last) { value += product(w_1, part + LANES_A_ROW); }
                if (part + 2u * LANES_A_ROW <= last) { value += product(w_2, part + 2u * LANES_A_ROW); }
                if (part + 3u * LANES_A_ROW <= last) { value += product(w_3, part + 3u * LANES_A_ROW); }
                oct += 4u * LANES_A_ROW;
            }
            for (; oct < params.w_octs; oct += LANES_A_ROW) {
                value += product(weight_oct(at + oct), oct);
            }
        }
        values[lid] = value;
        workgroupBarrier();
        if (lid < ROWS && first + lid < params.v_dim) {
            let i = LANES_A_ROW * lid;
            o[r * params.o_stride + h * params.v_dim + first + lid] =
                (values[i] + values[i + 1u]) + (values[i + 2u] + values[i + 3u]);
        }
        workgroupBarrier();
    }
}
