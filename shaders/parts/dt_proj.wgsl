// W_dt down for mamba1_scan.wgsl, made in it: a row's first 8 * octs columns are `down`. The lanes of a channel's pairs
// take its eights in turn, four at a time, whose weights serve all rows of a block.

const PROJECTS: bool = true;

fn dt_at(r: u32, channel: u32) -> f32 { return 0.0; }

// Leaves each lane's share of `count` rows in parts.
fn project(first: u32, count: u32, channel: u32, place: u32, pair: u32) {
    let last = params.octs - 1u;
    let w = channel * params.octs;
    for (var oct = 0u; oct < params.octs; oct += 4u * PAIRS) {
        let o = oct + pair + vec4<u32>(0u, PAIRS, 2u * PAIRS, 3u * PAIRS);
        let at = min(o, vec4<u32>(last));
        var x0 = eight_at(first, at.x);
        var x1 = eight_at(first, at.y);
        var x2 = eight_at(first, at.z);
        var x3 = eight_at(first, at.w);
        let w0 = weight_oct(w + at.x);
        let w1 = weight_oct(w + at.y);
        let w2 = weight_oct(w + at.z);
        let w3 = weight_oct(w + at.w);
        for (var t = 0u; t < count; t++) {
            let all = vec4<f32>(product(w0, x0), product(w1, x1), product(w2, x2), product(w3, x3));
            let sums = select(vec4<f32>(0.0), all, o <= vec4<u32>(last));
            let to = (t * CHANNELS + place) * PITCH + pair;
            let before = select(parts[to], 0.0, oct == 0u);
            parts[to] = before + ((sums.x + sums.y) + (sums.z + sums.w));
            let r = first + min(t + 1u, count - 1u);
            x0 = eight_at(r, at.x);
            x1 = eight_at(r, at.y);
            x2 = eight_at(r, at.z);
            x3 = eight_at(r, at.w);
        }
    }
}

fn eight_at(r: u32, oct: u32) -> mat2x4<f32> {
    let at = r * params.in_quads + 2u * oct;
    return mat2x4<f32>(rows[at], rows[at + 1u]);
}

fn product(w: mat2x4<f32>, x: mat2x4<f32>) -> f32 { return dot(w[0], x[0]) + dot(w[1], x[1]); }
