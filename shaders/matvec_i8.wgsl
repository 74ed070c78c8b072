// y[r, n] = sum_k x[r, k] W[n, k] for few rows on int8 dot products, x normed or as it is.
//
// A workgroup rounds its ROWS rows of x (times the norm's gain) to int8, with a scale for each group of 32, as W has
// them: codes in workgroup memory, BLOCK groups at a time. Then a team of TEAM lanes makes four outputs: a lane takes
// every TEAM-th group of k, 16 or 32 bytes of W in one or two loads. A workgroup has WG / TEAM teams, each makes TURNS
// sets of four outputs one after another. The next words of W are under way while x is rounded and while the last ones
// are multiplied. Products within a group are exact.
//
// A norm's 1 / rms is a factor of the row's sums: it is not waited for.

override TEAM: u32;    // a multiple of the subgroups' size
override BLOCK: u32;   // groups
override TURNS: u32;   // 1 where k has more than one block
override CODES: u32;   // 2 * ROWS * BLOCK
override UNITS: u32;   // ROWS * BLOCK

var<workgroup> codes: array<vec4<u32>, CODES>;  // first halves of the groups of each row, then second halves
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

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, lanes: Lanes) {
    let rows = step[0][params.counter];
    let r0 = wid.z * ROWS;
    let lane = lane_index(lanes);
    let team = lane / TEAM;
    let l = lane % TEAM;
    let first_set = ((wid.y * groups.x + wid.x) * (WG / TEAM) + team) * TURNS;
    let k_groups = params.k_octs / 4u;

    // What a lane stores of a set: output j of row i.
    let outputs = select(4u, 2u, EPILOGUE == SWIGLU);
    let i_out = min(l / 4u, ROWS - 1u);
    let j_out = l % 4u;
    let stores = l < 4u * ROWS && j_out < outputs && r0 + i_out < rows;
    let y_row = (r0 + i_out) * params.y_stride + params.y_offset;

    var row_start: array<u32, ROWS>;
    var sums: array<vec4<f32>, ROWS>;
    var squares = vec4<f32>(0.0);
    for (var i = 0u; i < ROWS; i++) {
        row_start[i] = x_row(min(r0 + i, rows - 1u));
        sums[i] = vec4<f32>(0.0);
    }
    for (var block = 0u; block < k_groups; block += BLOCK) {
        let width = min(BLOCK, k_groups - block);
        var next = four(first_set, block + min(l, width - 1u));

        // A lane rounds half a group, its neighbour the other half.
        for (var i = 0u; i < ROWS; i++) {
            for (var h0 = 0u; h0 < 2u * width; h0 += WG) {
                let h = h0 + lane;
                let quad = (2u * block + min(h, 2u * width - 1u)) * 4u;
                var v0 = x[row_start[i] + quad];
                var v1 = x[row_start[i] + quad + 1u];
                var v2 = x[row_start[i] + quad + 2u];
                var v3 = x[row_start[i] + quad + 3u];
                if (NORMED && h < 2u * width) {
                    squares[i] += dot(v0, v0) + dot(v1, v1) + dot(v2, v2) + dot(v3, v3);
                }
                v0 = gained(v0, quad);
                v1 = gained(v1, quad + 1u);
                v2 = gained(v2, quad + 2u);
                v3 = gained(v3, quad + 3u);
                let top = pair_max(lanes, max(max(largest(v0), largest(v1)), max(largest(v2), largest(v3))));
                let inverse = select(0.0, 127.0 / top, top > 0.0);
                let c = vec4<u32>(code(v0, inverse), code(v1, inverse), code(v2, inverse), code(v3, inverse));
                var sum = 0;
                if (OFFSET > 0.0) {
                    let ones = 0x01010101u;
                    sum = pair_sum(lanes, dot4I8Packed(c.x, ones) + dot4I8Packed(c.y, ones) + dot4I8Packed(c.z, ones)
                        + dot4I8Packed(c.w, ones));
                }
                if (h < 2u * width) {
                    codes[((h & 1u) * ROWS + i) * BLOCK + h / 2u] = c;
                    if ((h & 1u) == 0u) {
                        let scale = top / 127.0;
                        units[i * BLOCK + h / 2u] = vec2<f32>(scale, scale * OFFSET * f32(sum));
                    }
                }
            }
        }
        if (NORMED && block + BLOCK >= k_groups) {
            put(lanes, 2u * ROWS, squares);
        }
        workgroupBarrier();

        for (var turn = 0u; turn < TURNS; turn++) {
            let s = first_set + turn;
            let n_out = s * outputs + j_out;
            // The residual is asked for before the products, not after them.
            var old = 0.0;
            if (EPILOGUE == ADD && block + BLOCK >= k_groups && stores && n_out < params.n) {
                old = y[y_row + n_out];
            }
            for (var g = l; g < width; g += TEAM) {
                let w = next;
                if (g + TEAM < width) {
                    next = four(s, block + g + TEAM);
                } else if (turn + 1u < TURNS) {
                    next = four(s + 1u, block + l);
                }
                for (var i = 0u; i < ROWS; i++) {
                    let a = codes[i * BLOCK + g];
                    let b = codes[(ROWS + i) * BLOCK + g];
                    let unit = units[i * BLOCK + g];
                    let products = vec4<f32>(vec4<i32>(dot_group(w.w0, a, b), dot_group(w.w1, a, b),
                                                       dot_group(w.w2, a, b), dot_group(w.w3, a, b)));
                    sums[i] += w.scales * (unit.x * products - unit.y);
                }
            }
            if (block + BLOCK >= k_groups) {
                // By turns two sets of slots: one may still be read when the next is written.
                let slot = (turn & 1u) * ROWS;
                for (var i = 0u; i < ROWS; i++) {
                    put(lanes, slot + i, sums[i]);
                    sums[i] = vec4<f32>(0.0);
                }
                workgroupBarrier();
                if (stores && n_out < params.n) {
                    var sum = together(lanes, slot + i_out, team * TEAM, TEAM);
                    if (NORMED) {
                        sum *= scale_of_norm(together(lanes, 2u * ROWS, 0u, WG)[i_out]);
                    }
                    if (EPILOGUE == SWIGLU) {
                        y[y_row + n_out] = silu(sum[j_out]) * sum[j_out + 2u];
                    } else {
                        y[y_row + n_out] = old + sum[j_out];
                    }
                }
            }
        }
        if (block + BLOCK < k_groups) {
            workgroupBarrier();
        }
    }
}
