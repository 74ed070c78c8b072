// o[r, h, :] = Wv[g(h)] (sum of the spans' parts, each with its own maximum): from latents back to values.
//
// One workgroup owns one head of one row, or PART_ROWS of its values. Its lanes put the latent together
// (parts/spans_sum.wgsl), then LANES_A_ROW lanes share a row of Wv. What a lane needs of Wv first, and its first two
// spans, whether or not the row has as many, wait for nothing.

override LATENT_QUADS_PADDED: u32; // padded to groups of 32
override WG: u32 = 256u;
override LANES_A_ROW: u32;         // of Wv: 4, 8 or 16, each with 8 neighbouring bytes of q8 at once
override ROWS: u32;                // of Wv at once, whole groups of 32 where the values are left coded
override OCTS: u32;                // of a row of Wv for a lane
override PARTS: u32 = 1u;          // of a head's values
override PART_ROWS: u32;           // of Wv in each

const OCTS_AHEAD: u32 = 7u;

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
@group(0) @binding(4) var<storage, read_write> o: array<f32>;           // [rows, heads, v_dim], rows o_stride apart

var<workgroup> latent: array<vec4<f32>, LATENT_QUADS_PADDED>;
var<workgroup> values: array<f32, WG>;

// An oct of Wv times its part of the latent; what hangs over the row's end counts for nothing.
fn product(w: mat2x4<f32>, oct: u32) -> f32 {
    let at = 2u * min(oct, params.w_octs - 1u);
    return select(0.0, dot(w[0], latent[at]) + dot(w[1], latent[at + 1u]), oct < params.w_octs);
}

fn four_values(i: u32) -> f32 { return (values[i] + values[i + 1u]) + (values[i + 2u] + values[i + 3u]); }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let h = wid.x / PARTS;
    let d_first = wid.x % PARTS * PART_ROWS;
    let d_end = min(d_first + PART_ROWS, params.v_dim);
    let r = wid.z;
    let length = min(row_at(r).position + 1u, params.context);
    let room = spans_with_room();
    let start = (r * params.heads + h) * room;
    let first = first_part(start, room, lid);
    let second = second_part(start, room, lid);

    let lane = lid % LANES_A_ROW;
    let row = lid / LANES_A_ROW;
    let wv = h / params.share * (params.nope + params.v_dim) + params.nope;
    let ahead = (wv + min(d_first + row, params.v_dim - 1u)) * params.w_octs;
    let last = params.w_octs - 1u;
    let w0 = weight_oct(ahead + min(lane, last));
    var w1 = w0;
    var w2 = w0;
    var w3 = w0;
    var w4 = w0;
    var w5 = w0;
    var w6 = w0;
    if (OCTS > 1u) { w1 = weight_oct(ahead + min(lane + LANES_A_ROW, last)); }
    if (OCTS > 2u) { w2 = weight_oct(ahead + min(lane + 2u * LANES_A_ROW, last)); }
    if (OCTS > 3u) { w3 = weight_oct(ahead + min(lane + 3u * LANES_A_ROW, last)); }
    if (OCTS > 4u) { w4 = weight_oct(ahead + min(lane + 4u * LANES_A_ROW, last)); }
    if (OCTS > 5u) { w5 = weight_oct(ahead + min(lane + 5u * LANES_A_ROW, last)); }
    if (OCTS > 6u) { w6 = weight_oct(ahead + min(lane + 6u * LANES_A_ROW, last)); }

    let span = span_of(length, room);
    let spans = (length + span - 1u) / span;
    share_spans(first, second, start, spans, lid);
    workgroupBarrier();

    for (var q = lid; q < LATENT_QUADS_PADDED; q += WG) {
        var all = vec4<f32>(0.0);
        if (q < QUADS) {
            all = whole_quad(q, spans);
        }
        latent[q] = all;
    }
    workgroupBarrier();

    for (var d0 = d_first; d0 < d_end; d0 += ROWS) {
        var value = 0.0;
        if (d0 == d_first) {
            value = product(w0, lane);
            if (OCTS > 1u) { value += product(w1, lane + LANES_A_ROW); }
            if (OCTS > 2u) { value += product(w2, lane + 2u * LANES_A_ROW); }
            if (OCTS > 3u) { value += product(w3, lane + 3u * LANES_A_ROW); }
            if (OCTS > 4u) { value += product(w4, lane + 4u * LANES_A_ROW); }
            if (OCTS > 5u) { value += product(w5, lane + 5u * LANES_A_ROW); }
            if (OCTS > 6u) { value += product(w6, lane + 6u * LANES_A_ROW); }
        } else {
            workgroupBarrier();
        }
        let at = (wv + min(d0 + row, params.v_dim - 1u)) * params.w_octs;
        let had = select(0u, OCTS_AHEAD * LANES_A_ROW, d0 == d_first);
        for (var oct = lane + had; oct < params.w_octs; oct += LANES_A_ROW) {
            value += product(weight_oct(at + oct), oct);
        }
        values[lid] = value;
        workgroupBarrier();
        let d = d0 + lid;
        var whole = 0.0;
        if (lid < ROWS && d < d_end) {
            whole = four_values(LANES_A_ROW * lid);
            if (LANES_A_ROW > 4u) { whole += four_values(LANES_A_ROW * lid + 4u); }
            if (LANES_A_ROW > 8u) {
                whole += four_values(LANES_A_ROW * lid + 8u) + four_values(LANES_A_ROW * lid + 12u);
            }
            // Who reads codes reads nothing else.
            if (!CODES) { o[r * params.o_stride + h * params.v_dim + d] = whole; }
        }
        if (CODES) {
            if (lid < ROWS) {
                coded_values[lid] = vec2<f32>(whole, whole * whole);
            }
            workgroupBarrier();
            if (lid < ROWS / 4u && d0 + 4u * lid < d_end) {
                store_coded(lid, r, (h * params.v_dim + d0) / 32u + lid / 8u, params.heads * params.v_dim / 32u);
            }
        }
    }
}
