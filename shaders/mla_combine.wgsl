// o[r, h, :] = Wv[g(h)] (sum of the spans' parts, each with its own maximum): from latents back to values.
//
// One workgroup owns one head of one row. A lane sums one quad of the latent over every SHARES-th span, weighed by the
// largest maximum among its own; the shares are folded by the largest of all. Then LANES_A_ROW lanes share a row of Wv.
// What a lane needs of Wv first, and its first two spans, whether or not the row has as many, wait for nothing.

override LATENT_QUADS: u32;        // at most WG
override LATENT_QUADS_PADDED: u32; // padded to groups of 32
override WG: u32 = 256u;
override SHARES: u32;              // WG / LATENT_QUADS, rounded down: lanes that share a quad
override LANES_A_ROW: u32;         // of Wv: 4 or 8, which read 32 or 64 neighbouring bytes of q8 at once
override ROWS: u32;                // of Wv at once, whole groups of 32 where the values are left coded
override OCTS: u32;                // of a row of Wv for a lane

const OCTS_AHEAD: u32 = 5u;
const NONE: f32 = -1e30;           // the maximum of no span

struct Params {
    heads: u32,
    share: u32,          // query heads that share a kv head
    nope: u32,
    v_dim: u32,          // v_head_dim
    w_octs: u32,         // of a row of kv_b_proj, padded to groups of 32
    context: u32,
    spans: u32,          // as mla_attend.wgsl had them
    parts: u32,
    o_stride: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> sums: array<vec4<f32>>;        // [rows, heads, spans, LATENT_QUADS]
@group(0) @binding(3) var<storage, read> weights: array<vec2<f32>>;     // [rows, heads, spans] (maximum, sum)
@group(0) @binding(4) var<storage, read_write> o: array<f32>;           // [rows, heads, v_dim], rows o_stride apart

var<workgroup> folds: array<vec4<f32>, WG>;                             // [SHARES, LATENT_QUADS]
var<workgroup> tops: array<vec2<f32>, SHARES>;                          // (maximum, sum of weights by it)
var<workgroup> latent: array<vec4<f32>, LATENT_QUADS_PADDED>;
var<workgroup> values: array<f32, WG>;

// A quad of a span.
struct Part {
    sum: vec4<f32>,
    weight: vec2<f32>,
}

fn part_at(start: u32, s: u32, spans: u32, quad: u32) -> Part {
    var part = Part(vec4<f32>(0.0), vec2<f32>(NONE, 0.0));
    if (s < spans) {
        part = Part(sums[(start + s) * LATENT_QUADS + quad], weights[start + s]);
    }
    return part;
}

// What another row may have left there is none of this one's.
fn reached(part: Part, there: bool) -> Part {
    return Part(select(vec4<f32>(0.0), part.sum, there), select(vec2<f32>(NONE, 0.0), part.weight, there));
}

fn weighed(part: Part, top: f32) -> Part {
    let factor = exp(part.weight.x - top);
    return Part(factor * part.sum, vec2<f32>(top, factor * part.weight.y));
}

// A quad of a share by the largest maximum of all.
fn folded(share: u32, q: u32, most: f32) -> Part {
    let i = min(share, SHARES - 1u);
    return reached(weighed(Part(folds[i * LATENT_QUADS + q], tops[i]), most), share < SHARES);
}

// An oct of Wv times its part of the latent; what hangs over the row's end counts for nothing.
fn product(w: mat2x4<f32>, oct: u32) -> f32 {
    let at = 2u * min(oct, params.w_octs - 1u);
    return select(0.0, dot(w[0], latent[at]) + dot(w[1], latent[at + 1u]), oct < params.w_octs);
}

fn four_values(i: u32) -> f32 { return (values[i] + values[i + 1u]) + (values[i + 2u] + values[i + 3u]); }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let h = wid.x;
    let r = wid.z;
    let length = min(row_at(r).position + 1u, params.context);
    // Spans that a row has room for; where each has its most, the step need not be asked.
    var room = params.spans;
    if (params.parts / MAX_ROWS < params.spans) {
        room = spans_of_step();
    }
    let share = lid / LATENT_QUADS;
    let quad = lid % LATENT_QUADS;
    let start = (r * params.heads + h) * room;
    var first = part_at(start, share, room, quad);
    var second = part_at(start, share + SHARES, room, quad);

    let lane = lid % LANES_A_ROW;
    let row = lid / LANES_A_ROW;
    let wv = h / params.share * (params.nope + params.v_dim) + params.nope;
    let ahead = (wv + min(row, params.v_dim - 1u)) * params.w_octs;
    let last = params.w_octs - 1u;
    let w0 = weight_oct(ahead + min(lane, last));
    var w1 = w0;
    var w2 = w0;
    var w3 = w0;
    var w4 = w0;
    if (OCTS > 1u) { w1 = weight_oct(ahead + min(lane + LANES_A_ROW, last)); }
    if (OCTS > 2u) { w2 = weight_oct(ahead + min(lane + 2u * LANES_A_ROW, last)); }
    if (OCTS > 3u) { w3 = weight_oct(ahead + min(lane + 3u * LANES_A_ROW, last)); }
    if (OCTS > 4u) { w4 = weight_oct(ahead + min(lane + 4u * LANES_A_ROW, last)); }

    let span = span_of(length, room);
    let spans = (length + span - 1u) / span;
    first = reached(first, share < spans);
    second = reached(second, share + SHARES < spans);
    var top = max(first.weight.x, second.weight.x);
    first = weighed(first, top);
    second = weighed(second, top);
    var sum = first.sum + second.sum;
    var total = first.weight.y + second.weight.y;
    for (var s = share + 2u * SHARES; s < spans; s += 6u * SHARES) {
        let p0 = part_at(start, s, spans, quad);
        let p1 = part_at(start, s + SHARES, spans, quad);
        let p2 = part_at(start, s + 2u * SHARES, spans, quad);
        let p3 = part_at(start, s + 3u * SHARES, spans, quad);
        let p4 = part_at(start, s + 4u * SHARES, spans, quad);
        let p5 = part_at(start, s + 5u * SHARES, spans, quad);
        let most = max(top, max(max(max(p0.weight.x, p1.weight.x), max(p2.weight.x, p3.weight.x)),
                                max(p4.weight.x, p5.weight.x)));
        let faded = exp(top - most);
        let f0 = weighed(p0, most);
        let f1 = weighed(p1, most);
        let f2 = weighed(p2, most);
        let f3 = weighed(p3, most);
        let f4 = weighed(p4, most);
        let f5 = weighed(p5, most);
        sum = faded * sum + (((f0.sum + f1.sum) + (f2.sum + f3.sum)) + (f4.sum + f5.sum));
        total = faded * total + (((f0.weight.y + f1.weight.y) + (f2.weight.y + f3.weight.y))
            + (f4.weight.y + f5.weight.y));
        top = most;
    }
    folds[lid] = sum;
    if (quad == 0u && share < SHARES) {
        tops[share] = vec2<f32>(top, total);
    }
    workgroupBarrier();

    for (var q = lid; q < LATENT_QUADS_PADDED; q += WG) {
        var all = vec4<f32>(0.0);
        if (q < LATENT_QUADS) {
            // Four shares at a time; those past the last one with a span have nothing.
            let end = min(SHARES, spans);
            var most = NONE;
            for (var i = 0u; i < end; i += 4u) {
                most = max(most, max(max(tops[i].x, tops[min(i + 1u, SHARES - 1u)].x),
                                     max(tops[min(i + 2u, SHARES - 1u)].x, tops[min(i + 3u, SHARES - 1u)].x)));
            }
            var by = 0.0;
            for (var i = 0u; i < end; i += 4u) {
                let f0 = folded(i, q, most);
                let f1 = folded(i + 1u, q, most);
                let f2 = folded(i + 2u, q, most);
                let f3 = folded(i + 3u, q, most);
                all += (f0.sum + f1.sum) + (f2.sum + f3.sum);
                by += (f0.weight.y + f1.weight.y) + (f2.weight.y + f3.weight.y);
            }
            all /= by;
        }
        latent[q] = all;
    }
    workgroupBarrier();

    for (var d0 = 0u; d0 < params.v_dim; d0 += ROWS) {
        var value = 0.0;
        if (d0 == 0u) {
            value = product(w0, lane);
            if (OCTS > 1u) { value += product(w1, lane + LANES_A_ROW); }
            if (OCTS > 2u) { value += product(w2, lane + 2u * LANES_A_ROW); }
            if (OCTS > 3u) { value += product(w3, lane + 3u * LANES_A_ROW); }
            if (OCTS > 4u) { value += product(w4, lane + 4u * LANES_A_ROW); }
        } else {
            workgroupBarrier();
        }
        let at = (wv + min(d0 + row, params.v_dim - 1u)) * params.w_octs;
        for (var oct = lane + select(0u, OCTS_AHEAD * LANES_A_ROW, d0 == 0u); oct < params.w_octs; oct += LANES_A_ROW) {
            value += product(weight_oct(at + oct), oct);
        }
        values[lid] = value;
        workgroupBarrier();
        let d = d0 + lid;
        var whole = 0.0;
        if (lid < ROWS && d < params.v_dim) {
            whole = four_values(LANES_A_ROW * lid);
            if (LANES_A_ROW > 4u) { whole += four_values(LANES_A_ROW * lid + 4u); }
            // Who reads codes reads nothing else.
            if (!CODES) { o[r * params.o_stride + h * params.v_dim + d] = whole; }
        }
        if (CODES) {
            if (lid < ROWS) {
                coded_values[lid] = vec2<f32>(whole, whole * whole);
            }
            workgroupBarrier();
            if (lid < ROWS / 4u && d0 + 4u * lid < params.v_dim) {
                store_coded(lid, r, (h * params.v_dim + d0) / 32u + lid / 8u, params.heads * params.v_dim / 32u);
            }
        }
    }
}
