// y[r, n] = sum_k x[r, k] W[n, k] for few rows on int8 dot products, x normed or as it is.
//
// A workgroup rounds its ROWS rows of x (times the norm's gain) to int8, with a scale for each group of 32, as W has
// them: codes in workgroup memory, BLOCK groups at a time. Then a team of TEAM lanes makes four outputs: a lane takes
// every TEAM-th group of k, 16 or 32 bytes of W in one or two loads; its first two are under way while x is rounded.
// Products within a group are exact.
//
// A norm's 1 / rms is a factor of the row's sums: it is not waited for.

override TEAM: u32;    // a multiple of the subgroups' size, a power of two as WG is
override BLOCK: u32;   // groups
override CODES: u32;   // 4 * ROWS * BLOCK
override UNITS: u32;   // ROWS * BLOCK

var<workgroup> codes: array<vec2<u32>, CODES>;  // first quarters of the groups of each row, then second ones …
var<workgroup> units: array<vec2<f32>, UNITS>;       // a group's (scale, scale * OFFSET * sum of its codes)

struct Four {
    w0: Packed,
    w1: Packed,
    w2: Packed,
    w3: Packed,
    scales: vec4<f32>,
}

// A group of k in the four rows of a set.
fn four(s: u32, group: u32) -> Four {
    let groups = params.k_octs / 4u;
    let g0 = output_row(s, 0u) * groups + group;
    let g1 = output_row(s, 1u) * groups + group;
    let g2 = output_row(s, 2u) * groups + group;
    let g3 = output_row(s, 3u) * groups + group;
    return Four(packed_group(g0), packed_group(g1), packed_group(g2), packed_group(g3),
                vec4<f32>(scale_of(g0), scale_of(g1), scale_of(g2), scale_of(g3)));
}

fn largest(v: vec4<f32>) -> f32 {
    let a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}

fn code(v: vec4<f32>, inverse: f32) -> u32 { return pack4xI8(vec4<i32>(round(v * inverse))); }

// Rounds `width` groups from `block` on of one row of x, whose quads begin at `start`, as row i of the workgroup. A lane
// takes a quarter of a group, its neighbours the others. Returns its share of the sum of squares.
fn round_row(lanes: Lanes, lane: u32, i: u32, start: u32, block: u32, width: u32) -> f32 {
    var squares = 0.0;
    for (var q0 = 0u; q0 < 4u * width; q0 += WG) {
        let q = q0 + lane;
        let quad = 2u * (4u * block + min(q, 4u * width - 1u));
        var v0 = x[start + quad];
        var v1 = x[start + quad + 1u];
        if (NORMED && q < 4u * width) {
            squares += dot(v0, v0) + dot(v1, v1);
        }
        v0 = gained(v0, quad);
        v1 = gained(v1, quad + 1u);
        let top = four_max(lanes, max(largest(v0), largest(v1)));
        let inverse = select(0.0, 127.0 / top, top > 0.0);
        let c = vec2<u32>(code(v0, inverse), code(v1, inverse));
        var sum = 0;
        if (OFFSET > 0.0) {
            sum = four_sum(lanes, dot4I8Packed(c.x, 0x01010101u) + dot4I8Packed(c.y, 0x01010101u));
        }
        if (q < 4u * width) {
            codes[((q & 3u) * ROWS + i) * BLOCK + (q >> 2u)] = c;
            if ((q & 3u) == 0u) {
                let scale = top / 127.0;
                units[i * BLOCK + (q >> 2u)] = vec2<f32>(scale, scale * OFFSET * f32(sum));
            }
        }
    }
    return squares;
}

// What group g of the block adds to the four sums of row i.
fn products(w: Four, i: u32, g: u32) -> vec4<f32> {
    let a = vec4<u32>(codes[i * BLOCK + g], codes[(ROWS + i) * BLOCK + g]);
    let b = vec4<u32>(codes[(2u * ROWS + i) * BLOCK + g], codes[(3u * ROWS + i) * BLOCK + g]);
    let unit = units[i * BLOCK + g];
    let sums = vec4<i32>(dot_group(w.w0, a, b), dot_group(w.w1, a, b), dot_group(w.w2, a, b), dot_group(w.w3, a, b));
    return w.scales * (unit.x * vec4<f32>(sums) - unit.y);
}

// Rows are named, not counted in a loop: drivers leave such loops as they are, and arrays that one walks in memory.
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, lanes: Lanes) {
    let rows = step[0][params.counter];
    let r0 = wid.z * ROWS;
    let lane = lane_index(lanes);
    let team = lane / TEAM;
    let l = lane % TEAM;
    let own_set = (wid.y * groups.x + wid.x) * (WG / TEAM) + team;
    let k_groups = params.k_octs / 4u;

    // What a lane stores of its team's set: output j of row i.
    let outputs = select(4u, 2u, EPILOGUE == SWIGLU);
    let i_out = min(l / 4u, ROWS - 1u);
    let j_out = l % 4u;
    let n_out = own_set * outputs + j_out;
    let stores = l < 4u * ROWS && j_out < outputs && n_out < params.n && r0 + i_out < rows;
    let y_row = (r0 + i_out) * params.y_stride + params.y_offset;
    var old = 0.0;

    let start0 = x_row(min(r0, rows - 1u));
    var start1 = 0u;
    var start2 = 0u;
    var start3 = 0u;
    if (ROWS > 1u) {
        start1 = x_row(min(r0 + 1u, rows - 1u));
        start2 = x_row(min(r0 + 2u, rows - 1u));
        start3 = x_row(min(r0 + 3u, rows - 1u));
    }
    var sum0 = vec4<f32>(0.0);
    var sum1 = vec4<f32>(0.0);
    var sum2 = vec4<f32>(0.0);
    var sum3 = vec4<f32>(0.0);
    var squares = vec4<f32>(0.0);
    for (var block = 0u; block < k_groups; block += BLOCK) {
        let width = min(BLOCK, k_groups - block);
        let last = block + BLOCK >= k_groups;
        let first = four(own_set, block + min(l, width - 1u));
        let second = four(own_set, block + min(l + TEAM, width - 1u));
        squares.x += round_row(lanes, lane, 0u, start0, block, width);
        if (ROWS > 1u) {
            squares.y += round_row(lanes, lane, 1u, start1, block, width);
            squares.z += round_row(lanes, lane, 2u, start2, block, width);
            squares.w += round_row(lanes, lane, 3u, start3, block, width);
        }
        workgroupBarrier();

        // The residual is asked for before the products, not after them.
        if (EPILOGUE == ADD && last && stores) {
            old = y[y_row + n_out];
        }
        for (var g = l; g < width; g += TEAM) {
            var w = first;
            if (g == l + TEAM) {
                w = second;
            } else if (g != l) {
                w = four(own_set, block + g);
            }
            sum0 += products(w, 0u, g);
            if (ROWS > 1u) {
                sum1 += products(w, 1u, g);
                sum2 += products(w, 2u, g);
                sum3 += products(w, 3u, g);
            }
        }
        if (!last) {
            workgroupBarrier();
        }
    }
    put(lanes, 0u, sum0);
    if (ROWS > 1u) {
        put(lanes, 1u, sum1);
        put(lanes, 2u, sum2);
        put(lanes, 3u, sum3);
    }
    if (NORMED) {
        put(lanes, ROWS, squares);
    }
    workgroupBarrier();
    if (stores) {
        let sum = together(lanes, i_out, j_out, team * TEAM, TEAM);
        var factor = 1.0;
        if (NORMED) {
            factor = scale_of_norm(together(lanes, ROWS, i_out, 0u, WG));
        }
        if (EPILOGUE == SWIGLU) {
            let up = together(lanes, i_out, j_out + 2u, team * TEAM, TEAM);
            y[y_row + n_out] = silu(factor * sum) * (factor * up);
        } else {
            y[y_row + n_out] = old + factor * sum;
        }
    }
}
