// Exchange between the lanes of a workgroup by subgroup operations: parts of sums in slots, and pairs of lanes.

override WG: u32 = 64u;
override SLOT_SUMS: u32; // slots * WG / 4

struct Lanes {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

var<workgroup> slots_of_sums: array<vec4<f32>, SLOT_SUMS>; // one for each subgroup, which has four lanes at least

// Place of the lane in the workgroup, subgroup by subgroup.
fn lane_index(lanes: Lanes) -> u32 { return lanes.subgroup * lanes.size + lanes.lane; }

// Every lane leaves its share of a sum. After a barrier `together` has it.
fn put(lanes: Lanes, slot: u32, value: vec4<f32>) {
    let sum = subgroupAdd(value);
    if (lanes.lane == 0u) {
        slots_of_sums[slot * (WG / 4u) + lanes.subgroup] = sum;
    }
}

// What lanes first .. first + count left, both multiples of the subgroups' size.
fn together(lanes: Lanes, slot: u32, first: u32, count: u32) -> vec4<f32> {
    var sum = vec4<f32>(0.0);
    for (var s = first / lanes.size; s < (first + count) / lanes.size; s++) {
        sum += slots_of_sums[slot * (WG / 4u) + s];
    }
    return sum;
}

// The larger value, or the sum, of lanes 2i and 2i + 1, for both.
fn pair_max(lanes: Lanes, value: f32) -> f32 { return max(value, subgroupShuffleXor(value, 1u)); }
fn pair_sum(lanes: Lanes, value: i32) -> i32 { return value + subgroupShuffleXor(value, 1u); }
