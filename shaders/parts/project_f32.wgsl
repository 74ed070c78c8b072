// q_a and q_b_proj for mla_project.wgsl in f32. An item is eight values.

struct Input {
    x0: vec4<f32>,
    x1: vec4<f32>,
}

struct Weights {
    w0: mat2x4<f32>,
    w1: mat2x4<f32>,
    w2: mat2x4<f32>,
    w3: mat2x4<f32>,
}

fn input_at(r: u32, oct: u32) -> Input {
    let at = r * params.a_stride + 2u * oct;
    return Input(a[at], a[at + 1u]);
}

fn weights_at(rows: vec4<u32>, oct: u32) -> Weights {
    let o = rows * ITEMS + oct;
    return Weights(weight_oct(o.x), weight_oct(o.y), weight_oct(o.z), weight_oct(o.w));
}

fn product(w: mat2x4<f32>, x: Input) -> f32 { return dot(w[0], x.x0) + dot(w[1], x.x1); }

fn products(w: Weights, x: Input) -> vec4<f32> {
    return vec4<f32>(product(w.w0, x), product(w.w1, x), product(w.w2, x), product(w.w3, x));
}
