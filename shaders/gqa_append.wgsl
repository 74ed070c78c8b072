// From a row's [q | k | v] to the queries that attention reads and to the rows that its slot's cache keeps:
//
//   query[r, h] = scale * rope(q[h])      cache[slot, position, g] <- [v[g] | rope(k[g])]
//
// RoPE turns the first `rope` elements of a head, the rest passes. One workgroup owns a head of a row's queries, or
// what one of its kv heads keeps; a lane takes every WG-th element. Of a cache cut by slots the dispatches after the first
// have no heads and only append.

override WG: u32;
override ROW_COLUMNS: u32; // of an unpacked cached row, whole quads

struct Params {
    heads: u32,
    kv_heads: u32,
    head_dim: u32,
    v_dim: u32,          // v_head_dim
    rope: u32,           // elements of a head that are turned
    keys_from: u32,      // column of a cached row where its key begins
    query_columns: u32,  // of a head of the queries: head_dim, padded to whole quads
    latent_quads: u32,   // of a cached row
    rope_quads: u32,     // none
    row_words: u32,      // of a cached row
    context: u32,        // positions of a slot
    stride: u32,
    q_offset: u32,       // in a row
    k_offset: u32,
    v_offset: u32,
    scale: f32,          // of the softmax
    first_slot: u32,     // see parts/slots.wgsl
    slots: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;               // [rows, stride]
@group(0) @binding(3) var<storage, read> turns: array<vec2<f32>>;       // see parts/rope.wgsl
@group(0) @binding(4) var<storage, read_write> query: array<f32>;       // [rows, heads, query_columns]
@group(0) @binding(5) var<storage, read_write> latents: array<u32>;     // [slots here, context, kv_heads, row_words]

var<workgroup> row_new: array<f32, ROW_COLUMNS>;

fn new_quad(q: u32) -> vec4<f32> {
    let i = 4u * q;
    return vec4<f32>(row_new[i], row_new[i + 1u], row_new[i + 2u], row_new[i + 3u]);
}

// Element i of the head that begins at `start`, turned.
fn roped(start: u32, i: u32, position: u32) -> f32 {
    if (i >= params.rope) {
        return select(0.0, qkv[start + min(i, params.head_dim - 1u)], i < params.head_dim);
    }
    let pair = pair_of(i);
    return turned(vec2<f32>(qkv[start + first_of(pair)], qkv[start + second_of(pair)]), i, position);
}

fn turn_query(r: u32, h: u32, position: u32, lane: u32) {
    let start = r * params.stride + params.q_offset + h * params.head_dim;
    let to = (r * params.heads + h) * params.query_columns;
    for (var i = lane; i < params.query_columns; i += WG) {
        query[to + i] = roped(start, i, position) * params.scale;
    }
}

// Column i of the row that kv head g keeps: a value, zeros up to the key, the key.
fn column(r: u32, g: u32, i: u32, position: u32) -> f32 {
    if (i >= params.keys_from) {
        return roped(r * params.stride + params.k_offset + g * params.head_dim, i - params.keys_from, position);
    }
    let v = qkv[r * params.stride + params.v_offset + g * params.v_dim + min(i, params.v_dim - 1u)];
    return select(0.0, v, i < params.v_dim);
}

fn append(r: u32, g: u32, row: Row, lane: u32) {
    for (var i = lane; i < ROW_COLUMNS; i += WG) {
        row_new[i] = column(r, g, i, row.position);
    }
    workgroupBarrier();
    if (row.live && is_here(row.slot) && row.position < params.context) {
        let place = (first_position(row.slot) + row.position) * params.kv_heads + g;
        store_row(place * params.row_words, lane, WG);
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let row = row_at(wid.z);
    if (wid.x < params.heads) {
        turn_query(wid.z, wid.x, row.position, lid);
    } else {
        append(wid.z, wid.x - params.heads, row, lid);
    }
}
