// y[r, n] = sum_k x[r, k] W[n, k] for few rows, x normed or as it is.
//
// One workgroup owns four outputs and ROWS rows. A lane takes every WG-th eight of k for all of them; then the lanes
// are summed. The order of a sum does not depend on how many rows the step has.

fn store(r: u32, item: u32, sum: vec4<f32>) {
    let to = r * params.y_stride + params.y_offset;
    if (EPILOGUE == SWIGLU) {
        let n = item * 2u;
        if (n < params.n) { y[to + n] = silu(sum.x) * sum.z; }
        if (n + 1u < params.n) { y[to + n + 1u] = silu(sum.y) * sum.w; }
        return;
    }
    for (var j = 0u; j < 4u; j++) {
        let n = item * 4u + j;
        if (n < params.n) {
            if (EPILOGUE == ADD) {
                y[to + n] += sum[j];
            } else {
                y[to + n] = activated(sum[j]);
            }
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, lanes: Lanes) {
    let item = wid.y * groups.x + wid.x;
    let rows = step[0][params.counter];
    let r0 = wid.z * ROWS;
    var start: array<u32, 4>;
    for (var j = 0u; j < 4u; j++) {
        start[j] = output_row(item, j) * params.k_octs;
    }
    var row_start: array<u32, ROWS>;
    var sums: array<vec4<f32>, ROWS>;
    var squares: array<f32, ROWS>;
    for (var i = 0u; i < ROWS; i++) {
        row_start[i] = x_row(min(r0 + i, rows - 1u));
        sums[i] = vec4<f32>(0.0);
        squares[i] = 0.0;
    }
    for (var oct = lanes.index; oct < params.k_octs; oct += WG) {
        let w0 = weight_oct(start[0] + oct);
        let w1 = weight_oct(start[1] + oct);
        let w2 = weight_oct(start[2] + oct);
        let w3 = weight_oct(start[3] + oct);
        for (var i = 0u; i < ROWS; i++) {
            let at = row_start[i] + 2u * oct;
            var a = x[at];
            var b = x[at + 1u];
            if (NORMED) {
                squares[i] += dot(a, a) + dot(b, b);
            }
            a = gained(a, 2u * oct);
            b = gained(b, 2u * oct + 1u);
            sums[i] += vec4<f32>(
                dot(w0[0], a) + dot(w0[1], b),
                dot(w1[0], a) + dot(w1[1], b),
                dot(w2[0], a) + dot(w2[1], b),
                dot(w3[0], a) + dot(w3[1], b),
            );
        }
    }
    for (var i = 0u; i < ROWS; i++) {
        var sum = workgroup_sum4(lanes, sums[i]);
        if (NORMED) {
            sum *= scale_of_norm(workgroup_sum(lanes, squares[i]));
        }
        if (lanes.index == 0u && r0 + i < rows) {
            store(r0 + i, item, sum);
        }
    }
}
