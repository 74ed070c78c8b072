// matmul_coop.wgsl for a batch: up to 64 rows, one tile of them, each of a slot of its own.
//
// With few rows, time goes by for what each block of W costs whatever is multiplied with it: loads, f16, workgroup memory,
// barriers. So a workgroup has many lanes with few sums each. It owns ROWS rows by OUTPUTS rows of W; a subgroup owns two
// columns of matrices over its share of each block, and the shares of a sum are added at the end.
//
// Numbers are as in matmul_coop.wgsl.

override LANES: u32;          // of a subgroup
override SHARES: u32;         // subgroups that share a block
override TILES_M: u32;        // matrices along the rows: 1 to 4

const TILES_N: u32 = 2u;      // matrices of a subgroup along the outputs
const SUBGROUPS_N: u32 = 4u;  // along the outputs
const OUTPUTS: u32 = SUBGROUPS_N * TILES_N * SIDE;

override WG: u32 = SUBGROUPS_N * SHARES * LANES;      // as many as a block of OUTPUTS rows has groups
override STEPS: u32 = BLOCK / SIDE / SHARES;          // of a subgroup in a block
override PER_LANE: u32 = SIDE * SIDE / (SHARES * LANES);
override ROWS: u32 = TILES_M * SIDE;
override W_AT: u32 = ROWS * STRIDE;
override TILE_QUADS: u32 = W_AT + OUTPUTS * STRIDE;
override OCTS: u32 = ROWS * BLOCK_OCTS;               // of a block of x: 2 * WG at most
override ALL_SUMS: u32 = SUBGROUPS_N * SHARES * SIDE * SIDE;

const MOST_PER_LANE: u32 = 4u; // elements of a matrix

var<workgroup> tiles: array<vec4<f16>, TILE_QUADS>; // x's, then W's
var<workgroup> sums: array<f32, ALL_SUMS>;          // a matrix for each subgroup
var<workgroup> row_scales: array<f32, ROWS>;

fn keep_x(at: u32, oct: Oct) {
    if (at < OCTS) {
        let to = at / BLOCK_OCTS * STRIDE + at % BLOCK_OCTS * 2u;
        tiles[to] = oct.low;
        tiles[to + 1u] = oct.high;
    }
}

// A lane's share of a matrix of the sums.
struct Place {
    item: u32,
    part: u32, // of k
    rows: u32, // of x
    n0: u32,   // first column of the subgroup's matrices
    start: u32, // where the first share's matrix lies in `sums`
    lane: u32, // of all shares'
}

// What becomes of matrix (i, j), once its shares are in `sums`. `gate` is kept from an even j to the next.
fn finish(i: u32, j: u32, place: Place, gate: ptr<function, array<f32, MOST_PER_LANE>>) {
    for (var e = 0u; e < PER_LANE; e++) {
        let at = e * (SHARES * LANES) + place.lane;
        let r = i * SIDE + at / SIDE;
        var sum = sums[place.start + at];
        for (var share = 1u; share < SHARES; share++) {
            sum += sums[place.start + share * (SIDE * SIDE) + at];
        }
        let n = place.item * OUTPUTS + place.n0 + j * SIDE + at % SIDE;
        if (EPILOGUE == PARTS) {
            y[place.part * params.part_stride + r * params.y_stride + n] = sum;
            continue;
        }
        let v = sum * row_scales[r];
        if (EPILOGUE == SWIGLU && j % 2u == 0u) {
            (*gate)[e] = v;
            continue;
        }
        let gated = place.item * (OUTPUTS / 2u) + place.n0 / 2u + j / 2u * SIDE + at % SIDE;
        let output = select(n, gated, EPILOGUE == SWIGLU);
        if (r < place.rows && output < params.n) {
            put(r, output, v, (*gate)[e]);
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lid: u32, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
    let tile = wid.y * grid.x + wid.x;
    let item = tile / SPLITS;
    let part = tile % SPLITS;
    let rows = step[0][params.counter];
    let column = subgroup / SHARES;
    let share = subgroup % SHARES;
    let n0 = column * (TILES_N * SIDE);
    let mine = subgroup * (SIDE * SIDE);
    let place = Place(item, part, rows, n0, column * (SHARES * SIDE * SIDE), share * LANES + lane);

    let blocks = params.x_octs / BLOCK_OCTS;
    let first = part * blocks / SPLITS;
    let end = (part + 1u) * blocks / SPLITS;

    // A lane has one group of W, and up to two octs of x.
    let w_row = output_row(item, lid / BLOCK_GROUPS);
    let w_to = W_AT + lid / BLOCK_GROUPS * STRIDE + lid % BLOCK_GROUPS * 8u;
    let x_row = lid / BLOCK_OCTS;
    let other_row = (lid + WG) / BLOCK_OCTS;
    let x_at = lid % BLOCK_OCTS;
    var w = w_group(w_row, first * BLOCK_GROUPS + lid % BLOCK_GROUPS);
    var x_one = x_oct(x_row, rows, first * BLOCK_OCTS + x_at);
    var x_other: Oct;
    if (OCTS > WG) {
        x_other = x_oct(other_row, rows, first * BLOCK_OCTS + x_at);
    }
    if (EPILOGUE != PARTS && lid < ROWS) {
        row_scales[lid] = row_scale(lid, rows);
    }

    // Where the subgroup's share of a block begins.
    let left = share * (STEPS * SIDE / 4u);
    let right = W_AT + n0 * STRIDE + left;
    var c00 = Sums();
    var c01 = Sums();
    var c10 = Sums();
    var c11 = Sums();
    var c20 = Sums();
    var c21 = Sums();
    var c30 = Sums();
    var c31 = Sums();
    for (var block = first; block < end; block++) {
        workgroupBarrier();
        put_group(w_to, w);
        keep_x(lid, x_one);
        if (OCTS > WG) {
            keep_x(lid + WG, x_other);
        }
        workgroupBarrier();
        // The last block loads itself again.
        let next = min(block + 1u, end - 1u);
        w = w_group(w_row, next * BLOCK_GROUPS + lid % BLOCK_GROUPS);
        x_one = x_oct(x_row, rows, next * BLOCK_OCTS + x_at);
        if (OCTS > WG) {
            x_other = x_oct(other_row, rows, next * BLOCK_OCTS + x_at);
        }
        for (var k = 0u; k < STEPS; k++) {
            let at = left + k * (SIDE / 4u);
            let b0 = coopLoad<Right>(&tiles[right + k * (SIDE / 4u)], STRIDE);
            let b1 = coopLoad<Right>(&tiles[right + SIDE * STRIDE + k * (SIDE / 4u)], STRIDE);
            let a0 = coopLoadT<Left>(&tiles[at], STRIDE);
            c00 = coopMultiplyAdd(a0, b0, c00);
            c01 = coopMultiplyAdd(a0, b1, c01);
            if (TILES_M > 1u) {
                let a1 = coopLoadT<Left>(&tiles[at + SIDE * STRIDE], STRIDE);
                c10 = coopMultiplyAdd(a1, b0, c10);
                c11 = coopMultiplyAdd(a1, b1, c11);
            }
            if (TILES_M > 2u) {
                let a2 = coopLoadT<Left>(&tiles[at + 2u * SIDE * STRIDE], STRIDE);
                c20 = coopMultiplyAdd(a2, b0, c20);
                c21 = coopMultiplyAdd(a2, b1, c21);
            }
            if (TILES_M > 3u) {
                let a3 = coopLoadT<Left>(&tiles[at + 3u * SIDE * STRIDE], STRIDE);
                c30 = coopMultiplyAdd(a3, b0, c30);
                c31 = coopMultiplyAdd(a3, b1, c31);
            }
        }
    }

    // Which elements of a cooperative matrix a lane has is not known: they go through workgroup memory.
    var gate: array<f32, MOST_PER_LANE>;
    coopStoreT(c00, &sums[mine], SIDE);
    workgroupBarrier();
    finish(0u, 0u, place, &gate);
    workgroupBarrier();
    coopStoreT(c01, &sums[mine], SIDE);
    workgroupBarrier();
    finish(0u, 1u, place, &gate);
    if (TILES_M > 1u) {
        workgroupBarrier();
        coopStoreT(c10, &sums[mine], SIDE);
        workgroupBarrier();
        finish(1u, 0u, place, &gate);
        workgroupBarrier();
        coopStoreT(c11, &sums[mine], SIDE);
        workgroupBarrier();
        finish(1u, 1u, place, &gate);
    }
    if (TILES_M > 2u) {
        workgroupBarrier();
        coopStoreT(c20, &sums[mine], SIDE);
        workgroupBarrier();
        finish(2u, 0u, place, &gate);
        workgroupBarrier();
        coopStoreT(c21, &sums[mine], SIDE);
        workgroupBarrier();
        finish(2u, 1u, place, &gate);
    }
    if (TILES_M > 3u) {
        workgroupBarrier();
        coopStoreT(c30, &sums[mine], SIDE);
        workgroupBarrier();
        finish(3u, 0u, place, &gate);
        workgroupBarrier();
        coopStoreT(c31, &sums[mine], SIDE);
        workgroupBarrier();
        finish(3u, 1u, place, &gate);
    }
}
