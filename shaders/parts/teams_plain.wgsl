// Exchange between the lanes of a workgroup by workgroup memory: parts of sums in slots, and pairs of lanes.

override WG: u32 = 64u;
override SLOT_SUMS: u32; // slots * WG

struct Lanes {
    @builtin(local_invocation_index) index: u32,
}

var<workgroup> slots_of_sums: array<vec4<f32>, SLOT_SUMS>;
var<workgroup> pairs: array<f32, WG>;

fn lane_index(lanes: Lanes) -> u32 { return lanes.index; }

// Every lane leaves its share of a sum. After a barrier `together` has it.
fn put(lanes: Lanes, slot: u32, value: vec4<f32>) { slots_of_sums[slot * WG + lanes.index] = value; }

// What lanes first .. first + count left.
fn together(lanes: Lanes, slot: u32, first: u32, count: u32) -> vec4<f32> {
    var sum = vec4<f32>(0.0);
    for (var i = first; i < first + count; i++) {
        sum += slots_of_sums[slot * WG + i];
    }
    return sum;
}

// The larger value, or the sum, of lanes 2i and 2i + 1, for both.
fn pair_max(lanes: Lanes, value: f32) -> f32 {
    pairs[lanes.index] = value;
    workgroupBarrier();
    let other = pairs[lanes.index ^ 1u];
    workgroupBarrier();
    return max(value, other);
}

fn pair_sum(lanes: Lanes, value: i32) -> i32 {
    pairs[lanes.index] = f32(value);
    workgroupBarrier();
    let other = pairs[lanes.index ^ 1u];
    workgroupBarrier();
    return value + i32(other);
}
