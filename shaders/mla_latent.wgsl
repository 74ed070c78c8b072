// Appends [latent | rope(k_pe)] of each row to its slot's cache (MLA, absorbed form: this row is all that is kept).
//
// One workgroup owns one row.

override WG: u32 = 64u;
override ROW_QUADS: u32; // latent_quads + rope_quads

struct Params {
    latent: u32,         // kv_lora_rank
    rope: u32,           // qk_rope_head_dim
    latent_quads: u32,
    rope_quads: u32,
    c_stride: u32,       // of the rows that hold the latent
    c_offset: u32,
    k_stride: u32,       // of the rows that hold k_pe
    k_offset: u32,
    row_words: u32,      // of a cached row
    context: u32,        // cached rows of a slot
    first_slot: u32,     // see parts/slots.wgsl
    slots: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> c: array<f32>;                 // [rows, c_stride]
@group(0) @binding(3) var<storage, read> k_pe: array<f32>;              // [rows, k_stride]
@group(0) @binding(4) var<storage, read> turns: array<vec2<f32>>;       // see parts/rope.wgsl
@group(0) @binding(5) var<storage, read_write> latents: array<u32>;     // [slots here, context, row_words]

var<workgroup> row_new: array<vec4<f32>, ROW_QUADS>; // latent quads, then rope quads

fn new_quad(q: u32) -> vec4<f32> { return row_new[q]; }

fn roped(start: u32, i: u32, position: u32) -> f32 {
    if (i >= params.rope) {
        return 0.0;
    }
    let pair = pair_of(i);
    return turned(vec2<f32>(k_pe[start + first_of(pair)], k_pe[start + second_of(pair)]), i, position);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let r = wid.z;
    let row = row_at(r);
    for (var q = lid; q < params.latent_quads; q += WG) {
        var v = vec4<f32>(0.0);
        for (var j = 0u; j < 4u; j++) {
            if (4u * q + j < params.latent) {
                v[j] = c[r * params.c_stride + params.c_offset + 4u * q + j];
            }
        }
        row_new[q] = v;
    }
    for (var q = lid; q < params.rope_quads; q += WG) {
        var v = vec4<f32>(0.0);
        for (var j = 0u; j < 4u; j++) {
            v[j] = roped(r * params.k_stride + params.k_offset, 4u * q + j, row.position);
        }
        row_new[params.latent_quads + q] = v;
    }
    workgroupBarrier();
    if (row.live && is_here(row.slot) && row.position < params.context) {
        store_row((first_position(row.slot) + row.position) * params.row_words, lid, WG);
    }
}
