// A group of k in four rows of W, for products on int8 dot products. Joined beside parts/dot_*.wgsl.

struct Four {
    w0: Packed,
    w1: Packed,
    w2: Packed,
    w3: Packed,
    scales: vec4<f32>,
}

fn four_at(g: vec4<u32>) -> Four {
    return Four(packed_group(g.x), packed_group(g.y), packed_group(g.z), packed_group(g.w),
                vec4<f32>(scale_of(g.x), scale_of(g.y), scale_of(g.z), scale_of(g.w)));
}

// The group's part of four sums: x as its first 16 codes, the others, and their scale.
fn four_products(w: Four, a: vec4<u32>, b: vec4<u32>, scale: f32) -> vec4<f32> {
    let sums = vec4<i32>(dot_group(w.w0, a, b), dot_group(w.w1, a, b), dot_group(w.w2, a, b), dot_group(w.w3, a, b));
    return (DOT_SCALE * scale) * w.scales * vec4<f32>(sums);
}
