// coded[r, g] = (codes, scale) of group g of 32: scale = max |v[r, :]| in it / 127, codes = round(v[r, :] / scale), where
// v[r, :] is x[s, :], or x[s, :] / rms(x[s, :]) * weight (parts/quantize_*.wgsl); s = r, or the row of logit row r.
//
// The workgroups of a row take its quads WG at a time, in turns; with a norm there is one. A lane owns a quad, eight
// lanes a group. k is padded to whole groups with codes of zero. A value that is no number makes its group's scale one
// too.

override LOGIT_ROWS: bool = false;

struct Params {
    width: u32,
    groups: u32,     // of 32 in a row
    x_stride: u32,   // in quads
    x_offset: u32,   // in quads
    eps: f32,        // of the norm
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;          // [rows, x_stride]
@group(0) @binding(4) var<storage, read_write> coded: array<u32>;      // as parts/store_coded.wgsl, without squares

const GROUP_QUADS: u32 = 8u;
const LEAST_SCALE: f32 = 1.17549435e-38; // below it 1 / scale may be infinite

var<workgroup> largest: array<u32, WG>; // |v| of each quad, as bits: they order as the magnitudes do, NaN above all

// Quad `quad` of the row that starts at x[start], zeros behind its end, whatever lies there.
fn x_quad(start: u32, quad: u32) -> vec4<f32> {
    let v = x[start + min(quad, (params.width - 1u) / 4u)];
    let inside = vec4<u32>(4u * quad) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.width);
    return select(vec4<f32>(0.0), v, inside);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, lanes: Lanes) {
    let r = wid.z;
    var s = r;
    if (LOGIT_ROWS) {
        s = logit_row_at(r);
    }
    let start = s * params.x_stride + params.x_offset;
    let factor = row_factor(lanes, start);
    let quads = GROUP_QUADS * params.groups;
    for (var first = (wid.y * grid.x + wid.x) * WG; first < quads; first += grid.x * grid.y * WG) {
        let quad = first + lanes.index;
        let v = weighted(quad, x_quad(start, quad));
        let size = bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu);
        workgroupBarrier();
        largest[lanes.index] = max(max(size.x, size.y), max(size.z, size.w));
        workgroupBarrier();
        var top = 0u;
        for (var i = 0u; i < GROUP_QUADS; i++) {
            top = max(top, largest[lanes.index / GROUP_QUADS * GROUP_QUADS + i]);
        }
        let scale = bitcast<f32>(top) / 127.0;
        var inverse = 0.0;
        if (scale >= LEAST_SCALE) {
            inverse = 1.0 / scale;
        }
        if (quad < quads) {
            let rounded = clamp(round(v * inverse), vec4<f32>(-127.0), vec4<f32>(127.0));
            let to = 4u * (3u * r * params.groups + quad / GROUP_QUADS);
            coded[to + quad % GROUP_QUADS / 4u * 4u * params.groups + quad % 4u] = pack4xI8(vec4<i32>(rounded));
            if (lanes.index % GROUP_QUADS == 0u) {
                coded[to + 8u * params.groups] = bitcast<u32>(scale * factor);
            }
        }
    }
}
