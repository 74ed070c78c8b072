// Exchange between the lanes of a workgroup by workgroup memory: shares of sums in slots, and fours of lanes.

override WG: u32 = 64u;
override SLOT_SUMS: u32; // slots * WG

struct Lanes {
    @builtin(local_invocation_index) index: u32,
}

var<workgroup> slot_sums: array<vec4<f32>, SLOT_SUMS>;
var<workgroup> fours: array<f32, WG>;

fn lane_index(lanes: Lanes) -> u32 { return lanes.index; }

// Every lane leaves its shares of four sums. After a barrier `together` has them.
fn put(lanes: Lanes, slot: u32, value: vec4<f32>) { slot_sums[slot * WG + lanes.index] = value; }

// Sum j of what lanes first .. first + count left.
fn together(lanes: Lanes, slot: u32, j: u32, first: u32, count: u32) -> f32 {
    var sum = 0.0;
    for (var i = first; i < first + count; i++) {
        sum += slot_sums[slot * WG + i][j];
    }
    return sum;
}

// The largest value, or the sum, of lanes 4i .. 4i + 3, for each of them.
fn four_max(lanes: Lanes, value: f32) -> f32 {
    fours[lanes.index] = value;
    workgroupBarrier();
    let i = lanes.index & ~3u;
    let most = max(max(fours[i], fours[i + 1u]), max(fours[i + 2u], fours[i + 3u]));
    workgroupBarrier();
    return most;
}

fn four_sum(lanes: Lanes, value: i32) -> i32 {
    fours[lanes.index] = f32(value);
    workgroupBarrier();
    let i = lanes.index & ~3u;
    let sum = fours[i] + fours[i + 1u] + fours[i + 2u] + fours[i + 3u];
    workgroupBarrier();
    return i32(sum);
}
