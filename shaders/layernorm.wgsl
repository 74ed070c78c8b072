// y[r, :] = (x[r, :] - mean) / sqrt(var + eps) * (1 + weight) + bias, mean and var of x[r, :]: Nemotron's LayerNorm1P.
//
// One workgroup owns one row, of which its lanes take quads by turns, WG at a time. The variance is that of what is left
// of the mean: nothing large is subtracted from something large. What pads a row to whole groups of 32 becomes zero.
// Where a product of few rows takes them in int8, the values of each turn are rounded too (parts/store_coded.wgsl).

struct Params {
    width: u32,
    quads: u32,      // of a row of y, whole groups
    x_stride: u32,   // in quads
    y_stride: u32,   // in quads
    eps: f32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;          // [rows, x_stride]
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;     // [width], padded to whole groups
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;       // [width], padded to whole groups
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;    // [rows, y_stride]

// v where it is of quad `quad` of a row, zeros past the row's end.
fn inside(quad: u32, v: vec4<f32>) -> vec4<f32> {
    return select(vec4<f32>(0.0), v, vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.width));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, lanes: Lanes) {
    let r = wid.z;
    let start = r * params.x_stride;
    let width = f32(params.width);
    var sum = vec4<f32>(0.0);
    for (var quad = lanes.index; quad < params.quads; quad += WG) {
        sum += inside(quad, x[start + quad]);
    }
    let all = workgroup_sum4(lanes, sum);
    let mean = ((all.x + all.y) + (all.z + all.w)) / width;
    var squares = 0.0;
    for (var quad = lanes.index; quad < params.quads; quad += WG) {
        let v = inside(quad, x[start + quad] - mean);
        squares += dot(v, v);
    }
    let scale = inverseSqrt(workgroup_sum(lanes, squares) / width + params.eps);
    for (var first = 0u; first < params.quads; first += WG) {
        let quad = first + lanes.index;
        if (quad < params.quads) {
            let v = inside(quad, (x[start + quad] - mean) * scale * (1.0 + weight[quad]) + bias[quad]);
            y[r * params.y_stride + quad] = v;
            if (CODES) {
                coded_values[4u * lanes.index] = vec2<f32>(v.x, v.x * v.x);
                coded_values[4u * lanes.index + 1u] = vec2<f32>(v.y, v.y * v.y);
                coded_values[4u * lanes.index + 2u] = vec2<f32>(v.z, v.z * v.z);
                coded_values[4u * lanes.index + 3u] = vec2<f32>(v.w, v.w * v.w);
            }
        }
        if (CODES) {
            workgroupBarrier();
            if (quad < params.quads) {
                store_coded(lanes.index, r, quad / 8u, params.quads / 8u);
            }
            workgroupBarrier();
        }
    }
}
