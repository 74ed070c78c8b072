// quantize_rows.wgsl with an RMS norm: the weight goes into the values, 1 / rms into their scales.

@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>; // [width], padded to whole quads with zeros

fn weighted(quad: u32, v: vec4<f32>) -> vec4<f32> { return v * weight[min(quad, (params.width - 1u) / 4u)]; }

// 1 / rms of the row that starts at x[start].
fn row_factor(lanes: Lanes, start: u32) -> f32 {
    var squares = 0.0;
    for (var quad = lanes.index; 4u * quad < params.width; quad += WG) {
        let v = x_quad(start, quad);
        squares += dot(v, v);
    }
    return inverseSqrt(workgroup_sum(lanes, squares) / f32(params.width) + params.eps);
}
