// q_a and q_b_proj for mla_project.wgsl on int8 dot products. An item is a group of 32: q_a has it in int8 already
// (parts/store_coded.wgsl), and products within it are exact.

@group(0) @binding(14) var<storage, read> a_codes: array<vec4<u32>>; // [rows, 3, a_groups]: codes, then the scale

struct Input {
    a: vec4<u32>,
    b: vec4<u32>,
    scale: f32,
}

alias Weights = Four;

fn input_at(r: u32, group: u32) -> Input {
    let at = 3u * r * params.a_groups + group;
    let scale = bitcast<f32>(a_codes[at + 2u * params.a_groups].x);
    return Input(a_codes[at], a_codes[at + params.a_groups], scale);
}

fn weights_at(rows: vec4<u32>, group: u32) -> Weights { return four_at(rows * ITEMS + group); }

fn products(w: Weights, x: Input) -> vec4<f32> { return four_products(w, x.a, x.b, x.scale); }
