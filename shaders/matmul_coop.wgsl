// y[r, n] = sum_k x[r, k] W[n, k] for many rows, on cooperative matrices: factors of f16, sums of f32.
//
// A workgroup owns a tile of ROWS rows by OUTPUTS rows of W and walks k by BLOCK: rows of x, which half_rows.wgsl has
// made f16, and rows of W, made f16 here, go through workgroup memory. A subgroup owns 2 x 4 matrices of the sums. What
// the next block needs is on its way from memory while this one is multiplied.
//
// f16 holds neither large nor tiny numbers: half_rows.wgsl has divided each row of x by a power of two, by which its
// sums are multiplied at the end. Of each eight neighbours along k, x and W have the second and third exchanged, and the
// sixth and seventh: so a q4 word comes apart into pairs.

override LANES: u32;       // of a subgroup: SIDE * SIDE / PER_LANE
override SUBGROUPS_M: u32; // along the rows
override SUBGROUPS_N: u32; // along the outputs

const TILES_M: u32 = 2u; // matrices of a subgroup along the rows
const TILES_N: u32 = 4u; // and along the outputs
const PER_LANE: u32 = 8u; // elements of a matrix

override WG: u32 = SUBGROUPS_M * SUBGROUPS_N * LANES;
override ROWS: u32 = SUBGROUPS_M * TILES_M * SIDE;
override OUTPUTS: u32 = SUBGROUPS_N * TILES_N * SIDE;
override GROUPS_PER_LANE: u32 = OUTPUTS * BLOCK_GROUPS / WG; // 4 at most
override OCTS_PER_LANE: u32 = ROWS * BLOCK_OCTS / WG;        // 8 at most

override TILE_QUADS: u32 = (ROWS + OUTPUTS) * STRIDE;
override ALL_SUMS: u32 = SUBGROUPS_M * SUBGROUPS_N * SIDE * SIDE;

var<workgroup> tiles: array<vec4<f16>, TILE_QUADS>; // x's, then W's
var<workgroup> sums: array<f32, ALL_SUMS>;          // a matrix for each subgroup
var<workgroup> row_scales: array<f32, ROWS>;

// Where a lane's part of the tile lies.
struct Place {
    item: u32,
    r0: u32,   // row of the tile's first line
    rows: u32, // of x
    m0: u32,   // first line of the subgroup's matrices
    n0: u32,   // and their first column
    mine: u32, // of the subgroup's matrix in `sums`
    lane: u32,
    lid: u32,
}

// What a lane carries of a block from memory to the tiles. Named: an array that a loop indexes would lie in memory, and
// what goes there is waited for at once.
struct Carried {
    x0: Oct,
    x1: Oct,
    x2: Oct,
    x3: Oct,
    x4: Oct,
    x5: Oct,
    x6: Oct,
    x7: Oct,
    w0: Group,
    w1: Group,
    w2: Group,
    w3: Group,
}

fn ask_x(i: u32, block: u32, place: Place) -> Oct {
    let at = place.lid + i * WG;
    return x_oct(place.r0 + at / BLOCK_OCTS, place.rows, block * BLOCK_OCTS + at % BLOCK_OCTS);
}

fn ask_w(i: u32, block: u32, place: Place) -> Group {
    let at = place.lid + i * WG;
    return w_group(output_row(place.item, at / BLOCK_GROUPS), block * BLOCK_GROUPS + at % BLOCK_GROUPS);
}

fn ask(block: u32, place: Place) -> Carried {
    var c: Carried;
    c.w0 = ask_w(0u, block, place);
    if (GROUPS_PER_LANE > 1u) {
        c.w1 = ask_w(1u, block, place);
    }
    if (GROUPS_PER_LANE > 2u) {
        c.w2 = ask_w(2u, block, place);
        c.w3 = ask_w(3u, block, place);
    }
    c.x0 = ask_x(0u, block, place);
    c.x1 = ask_x(1u, block, place);
    c.x2 = ask_x(2u, block, place);
    c.x3 = ask_x(3u, block, place);
    if (OCTS_PER_LANE > 4u) {
        c.x4 = ask_x(4u, block, place);
        c.x5 = ask_x(5u, block, place);
        c.x6 = ask_x(6u, block, place);
        c.x7 = ask_x(7u, block, place);
    }
    return c;
}

fn keep_x(i: u32, oct: Oct, lid: u32) {
    let at = lid + i * WG;
    let to = at / BLOCK_OCTS * STRIDE + at % BLOCK_OCTS * 2u;
    tiles[to] = oct.low;
    tiles[to + 1u] = oct.high;
}

fn keep_w(i: u32, group: Group, lid: u32) {
    let at = lid + i * WG;
    put_group((ROWS + at / BLOCK_GROUPS) * STRIDE + at % BLOCK_GROUPS * 8u, group);
}

fn keep(c: Carried, lid: u32) {
    keep_x(0u, c.x0, lid);
    keep_x(1u, c.x1, lid);
    keep_x(2u, c.x2, lid);
    keep_x(3u, c.x3, lid);
    if (OCTS_PER_LANE > 4u) {
        keep_x(4u, c.x4, lid);
        keep_x(5u, c.x5, lid);
        keep_x(6u, c.x6, lid);
        keep_x(7u, c.x7, lid);
    }
    keep_w(0u, c.w0, lid);
    if (GROUPS_PER_LANE > 1u) {
        keep_w(1u, c.w1, lid);
    }
    if (GROUPS_PER_LANE > 2u) {
        keep_w(2u, c.w2, lid);
        keep_w(3u, c.w3, lid);
    }
}

// What becomes of matrix (i, j) of a subgroup, once it is in `sums`. `gate` is kept from an even j to the next.
fn finish(i: u32, j: u32, place: Place, gate: ptr<function, array<f32, PER_LANE>>) {
    for (var e = 0u; e < PER_LANE; e++) {
        let at = e * LANES + place.lane;
        let line = place.m0 + i * SIDE + at / SIDE;
        let r = place.r0 + line;
        let v = sums[place.mine + at] * row_scales[line];
        var n = place.item * OUTPUTS + place.n0 + j * SIDE + at % SIDE;
        if (EPILOGUE == SWIGLU) {
            n = place.item * (OUTPUTS / 2u) + place.n0 / 2u + j / 2u * SIDE + at % SIDE;
            if (j % 2u == 0u) {
                (*gate)[e] = v;
                continue;
            }
        }
        if (r < place.rows && n < params.n) {
            put(r, n, v, (*gate)[e]);
        }
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>,
        @builtin(local_invocation_index) lid: u32, @builtin(subgroup_id) subgroup: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
    // Tiles of rows come first: those that run together share the rows of W they read. Then the parts of k.
    let tile = (wid.z * grid.y + wid.y) * grid.x + wid.x;
    let item = tile / grid.z / SPLITS;
    let part = tile / grid.z % SPLITS;
    let r0 = tile % grid.z * ROWS;
    let rows = step[0][params.counter];
    let m0 = subgroup / SUBGROUPS_N * (TILES_M * SIDE);
    let n0 = subgroup % SUBGROUPS_N * (TILES_N * SIDE);
    let mine = subgroup * (SIDE * SIDE);
    let place = Place(item, r0, rows, m0, n0, mine, lane, lid);

    let blocks = params.x_octs / BLOCK_OCTS;
    let first = part * blocks / SPLITS;
    let end = (part + 1u) * blocks / SPLITS;
    var carried = ask(first, place);

    if (EPILOGUE != PARTS) {
        for (var i = lid; i < ROWS; i += WG) {
            row_scales[i] = row_scale(r0 + i, rows);
        }
    }

    // An array of matrices would not stay in registers: 30 TFLOP/s for 200 on an NVIDIA H200.
    var c00 = Sums();
    var c01 = Sums();
    var c02 = Sums();
    var c03 = Sums();
    var c10 = Sums();
    var c11 = Sums();
    var c12 = Sums();
    var c13 = Sums();

    for (var block = first; block < end; block++) {
        workgroupBarrier();
        keep(carried, lid);
        workgroupBarrier();
        // The last block loads itself again.
        carried = ask(min(block + 1u, end - 1u), place);
        for (var k = 0u; k < BLOCK / SIDE; k++) {
            let x_at = m0 * STRIDE + k * (SIDE / 4u);
            let w_at = (ROWS + n0) * STRIDE + k * (SIDE / 4u);
            let a0 = coopLoadT<Left>(&tiles[x_at], STRIDE);
            let a1 = coopLoadT<Left>(&tiles[x_at + SIDE * STRIDE], STRIDE);
            let b0 = coopLoad<Right>(&tiles[w_at], STRIDE);
            let b1 = coopLoad<Right>(&tiles[w_at + SIDE * STRIDE], STRIDE);
            let b2 = coopLoad<Right>(&tiles[w_at + 2u * SIDE * STRIDE], STRIDE);
            let b3 = coopLoad<Right>(&tiles[w_at + 3u * SIDE * STRIDE], STRIDE);
            c00 = coopMultiplyAdd(a0, b0, c00);
            c01 = coopMultiplyAdd(a0, b1, c01);
            c02 = coopMultiplyAdd(a0, b2, c02);
            c03 = coopMultiplyAdd(a0, b3, c03);
            c10 = coopMultiplyAdd(a1, b0, c10);
            c11 = coopMultiplyAdd(a1, b1, c11);
            c12 = coopMultiplyAdd(a1, b2, c12);
            c13 = coopMultiplyAdd(a1, b3, c13);
        }
    }

    if (EPILOGUE == PARTS) {
        // naga wants names for what a store is told.
        let stride = params.y_stride;
        let to00 = part * params.part_stride + (r0 + m0) * stride + item * OUTPUTS + n0;
        let to01 = to00 + SIDE;
        let to02 = to01 + SIDE;
        let to03 = to02 + SIDE;
        let to10 = to00 + SIDE * stride;
        let to11 = to10 + SIDE;
        let to12 = to11 + SIDE;
        let to13 = to12 + SIDE;
        coopStoreT(c00, &y[to00], stride);
        coopStoreT(c01, &y[to01], stride);
        coopStoreT(c02, &y[to02], stride);
        coopStoreT(c03, &y[to03], stride);
        coopStoreT(c10, &y[to10], stride);
        coopStoreT(c11, &y[to11], stride);
        coopStoreT(c12, &y[to12], stride);
        coopStoreT(c13, &y[to13], stride);
        return;
    }

    // Which elements of a cooperative matrix a lane has is not known: they go through workgroup memory.
    var gate: array<f32, PER_LANE>;
    workgroupBarrier();
    coopStoreT(c00, &sums[mine], SIDE);
    workgroupBarrier();
    finish(0u, 0u, place, &gate);
    workgroupBarrier();
    coopStoreT(c01, &sums[mine], SIDE);
    workgroupBarrier();
    finish(0u, 1u, place, &gate);
    workgroupBarrier();
    coopStoreT(c02, &sums[mine], SIDE);
    workgroupBarrier();
    finish(0u, 2u, place, &gate);
    workgroupBarrier();
    coopStoreT(c03, &sums[mine], SIDE);
    workgroupBarrier();
    finish(0u, 3u, place, &gate);
    workgroupBarrier();
    coopStoreT(c10, &sums[mine], SIDE);
    workgroupBarrier();
    finish(1u, 0u, place, &gate);
    workgroupBarrier();
    coopStoreT(c11, &sums[mine], SIDE);
    workgroupBarrier();
    finish(1u, 1u, place, &gate);
    workgroupBarrier();
    coopStoreT(c12, &sums[mine], SIDE);
    workgroupBarrier();
    finish(1u, 2u, place, &gate);
    workgroupBarrier();
    coopStoreT(c13, &sums[mine], SIDE);
    workgroupBarrier();
    finish(1u, 3u, place, &gate);
}
