// y[r, :] = x[s, :] * rsqrt(mean(x[s, :]^2) + eps) * weight, where s = r, or the row of logit row r.
//
// One workgroup owns one row. Rows lie `x_stride` apart from `x_offset` on, so that a part of a wider row can be
// normed; what pads y's rows to its stride stays zero.

override LOGIT_ROWS: bool = false;

struct Params {
    width: u32,
    x_stride: u32,
    x_offset: u32,
    y_stride: u32,
    y_offset: u32,
    eps: f32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<f32>;            // [rows, x_stride]
@group(0) @binding(3) var<storage, read> weight: array<f32>;       // [width]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;      // [rows, y_stride]

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, lanes: Lanes) {
    let r = wid.z;
    var s = r;
    if (LOGIT_ROWS) {
        s = logit_row_at(r);
    }
    let start = s * params.x_stride + params.x_offset;
    var squares = 0.0;
    for (var i = lanes.index; i < params.width; i += WG) {
        let v = x[start + i];
        squares += v * v;
    }
    let scale = inverseSqrt(workgroup_sum(lanes, squares) / f32(params.width) + params.eps);
    let to = r * params.y_stride + params.y_offset;
    for (var i = lanes.index; i < params.width; i += WG) {
        y[to + i] = x[start + i] * scale * weight[i];
    }
}
