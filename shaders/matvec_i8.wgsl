// y[r, n] = sum_k x[r, k] W[n, k] for few rows on int8 dot products, x in int8 already (parts/input_coded.wgsl).
//
// A team of TEAM lanes makes four outputs of ROWS rows: a lane takes every TEAM-th group of k, 16 or 32 bytes of W for
// each output, the next group under way while one is multiplied. Nothing is shared before the sums, so nothing is
// waited for but memory. Products within a group are exact.
//
// A workgroup makes OUTPUTS neighbouring outputs. Where the next product takes y in int8 they are one group of 32, and
// the workgroup rounds them itself (parts/store_coded.wgsl).

override TEAM: u32;    // a power of two as WG is
override TEAMS: u32;
override OUTPUTS: u32; // of the workgroup's teams: four each, in SWIGLU two

// A group of k in the four rows of a set.
fn four(s: u32, group: u32) -> Four {
    let rows = vec4<u32>(output_row(s, 0u), output_row(s, 1u), output_row(s, 2u), output_row(s, 3u));
    return four_at(rows * (params.k_octs / 4u) + group);
}

fn products(w: Four, x: Input) -> vec4<f32> { return four_products(w, x.a, x.b, x.scale); }

// Rows are named, not counted in a loop: drivers leave such loops as they are, and arrays that one walks in memory.
@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, lanes: Lanes) {
    let rows = step[0][params.counter];
    let r0 = wid.z * ROWS;
    let lane = lane_index(lanes);
    let team = lane / TEAM;
    let l = lane % TEAM;
    let item = wid.y * grid.x + wid.x;
    let own_set = item * TEAMS + team;
    let groups = params.k_octs / 4u;

    // What a lane stores in the end: output `out` of row `i`. The residual and the gain are asked for first.
    let i = min(lane / OUTPUTS, ROWS - 1u);
    let out = lane % OUTPUTS;
    let n = item * OUTPUTS + out;
    let stores = lane < ROWS * OUTPUTS && n < params.n && (ROWS == 1u || r0 + i < rows);
    let to = (r0 + i) * params.y_stride + params.y_offset + n;
    var old = 0.0;
    if (EPILOGUE == ADD && stores) {
        old = y[to];
    }
    var gain = 0.0;
    if (CODES && stores) {
        gain = gain_at(n);
    }

    // A row alone is one of the step's: nothing waits for their number.
    let start0 = x_row(select(r0, min(r0, rows - 1u), ROWS > 1u));
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
    var w = four(own_set, min(l, groups - 1u));
    for (var g = l; g < groups; g += TEAM) {
        let next = four(own_set, select(g, g + TEAM, g + TEAM < groups));
        let x0 = input(start0, g);
        sum0 += products(w, x0);
        squares.x += x0.squares;
        if (ROWS > 1u) {
            let x1 = input(start1, g);
            let x2 = input(start2, g);
            let x3 = input(start3, g);
            sum1 += products(w, x1);
            sum2 += products(w, x2);
            sum3 += products(w, x3);
            squares += vec4<f32>(0.0, x1.squares, x2.squares, x3.squares);
        }
        w = next;
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

    var value = 0.0;
    if (stores) {
        let of_team = select(4u, 2u, EPILOGUE == SWIGLU);
        let from_team = out / of_team;
        let j = out % of_team;
        var factor = 1.0;
        if (NORMED) {
            factor = scale_of_norm(together(lanes, ROWS, i, from_team));
        }
        value = factor * together(lanes, i, j, from_team);
        if (EPILOGUE == SWIGLU) {
            value = silu(value) * (factor * together(lanes, i, j + 2u, from_team));
        } else {
            value = activated(value) + old;
        }
        // An activation has one reader, which takes its codes.
        if (!(CODES && (EPILOGUE == SWIGLU || EPILOGUE == RELU2))) {
            y[to] = value;
        }
    }
    if (CODES) {
        if (lane < ROWS * OUTPUTS) {
            coded_values[lane] = vec2<f32>(value * gain, value * value);
        }
        workgroupBarrier();
        let row = r0 + lane / (OUTPUTS / 4u);
        if (lane < ROWS * OUTPUTS / 4u && (ROWS == 1u || row < rows)) {
            let groups_out = (params.y_stride + 31u) / 32u;
            store_coded(lane, row, (params.y_offset + item * OUTPUTS) / 32u, groups_out);
        }
    }
}
