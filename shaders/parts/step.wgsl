// The step: which rows run, of which slots, at which positions. Written by embed.wgsl, read by every other kernel.
// [0] = (rows, segments, logit rows, 0), then MAX_ROWS rows, MAX_ROWS segments, MAX_ROWS logit rows, each one vec4;
// a logit row is (row, 1 where a token is drawn from it, slot, 0).

override MAX_ROWS: u32;

struct Row {
    token: u32,
    slot: u32,
    position: u32,
    live: bool,   // false: the slot is frozen; the row runs but must change no state
    offset: u32,  // rows of the same segment before this one
}

struct Segment {
    first: u32,   // row
    count: u32,   // rows
    slot: u32,
}

@group(0) @binding(0) var<storage, read> step: array<vec4<u32>>; // [1 + 3 * MAX_ROWS]

fn step_rows() -> u32 { return step[0].x; }
fn step_segments() -> u32 { return step[0].y; }
fn step_logit_rows() -> u32 { return step[0].z; }

fn row_at(r: u32) -> Row {
    let v = step[1u + r];
    return Row(v.x, v.y, v.z, (v.w & 1u) == 1u, v.w >> 1u);
}

fn segment_at(s: u32) -> Segment {
    let v = step[1u + MAX_ROWS + s];
    return Segment(v.x, v.y, v.z);
}

// The row whose logits are logit row l, and its slot.
fn logit_row_at(l: u32) -> u32 { return step[1u + 2u * MAX_ROWS + l].x; }
fn logit_row_slot(l: u32) -> u32 { return step[1u + 2u * MAX_ROWS + l].z; }
