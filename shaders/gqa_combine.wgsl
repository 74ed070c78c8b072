// o[r, h, :] = sum of the spans' parts, each with its own maximum: the values that head h has read.
//
// One workgroup owns one head of one row. Its lanes put the value together (parts/spans_sum.wgsl), a lane a quad at the
// end.

override WG: u32;

struct Params {
    heads: u32,
    v_dim: u32,          // v_head_dim
    context: u32,
    spans: u32,          // as mla_attend.wgsl had them
    parts: u32,
    o_stride: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(4) var<storage, read_write> o: array<f32>;           // [rows, heads, v_dim], rows o_stride apart

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let h = wid.x;
    let r = wid.z;
    let length = min(row_at(r).position + 1u, params.context);
    let room = spans_with_room();
    let start = (r * params.heads + h) * room;
    let first = first_part(start, room, lid);
    let second = second_part(start, room, lid);
    let span = span_of(length, room);
    let spans = (length + span - 1u) / span;
    share_spans(first, second, start, spans, lid);
    workgroupBarrier();

    if (lid < QUADS) {
        let value = whole_quad(lid, spans);
        let d = 4u * lid;
        // Who reads codes reads nothing else.
        if (CODES) {
            coded_values[d] = vec2<f32>(value.x, value.x * value.x);
            coded_values[d + 1u] = vec2<f32>(value.y, value.y * value.y);
            coded_values[d + 2u] = vec2<f32>(value.z, value.z * value.z);
            coded_values[d + 3u] = vec2<f32>(value.w, value.w * value.w);
        } else {
            let to = r * params.o_stride + h * params.v_dim + d;
            o[to] = value.x;
            if (d + 1u < params.v_dim) { o[to + 1u] = value.y; }
            if (d + 2u < params.v_dim) { o[to + 2u] = value.z; }
            if (d + 3u < params.v_dim) { o[to + 3u] = value.w; }
        }
    }
    if (CODES) {
        workgroupBarrier();
        if (lid < QUADS) {
            store_coded(lid, r, h * params.v_dim / 32u + lid / 8u, params.heads * params.v_dim / 32u);
        }
    }
}
