// Sums over teams of TEAM lanes of a workgroup, by subgroup operations.

override WG: u32 = 64u;
override SLOT_SUMS: u32; // slots * WG

struct Lanes {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

var<workgroup> slot_sums: array<f32, SLOT_SUMS>; // four of each subgroup, which has four lanes at least

// Place of the lane in the workgroup, subgroup by subgroup.
fn lane_index(lanes: Lanes) -> u32 { return lanes.subgroup * lanes.size + lanes.lane; }

// Every lane leaves its shares of four sums. After a barrier `together` has them. Each exchange halves what a lane still
// has to add: 6 shuffles for four sums over 32 lanes, where four subgroupAdd are 20 or more.
fn put(lanes: Lanes, slot: u32, value: vec4<f32>) {
    let odd = (lanes.lane & 1u) == 1u;
    let two = select(value.xy, value.zw, odd) + subgroupShuffleXor(select(value.zw, value.xy, odd), 1u);
    let second = (lanes.lane & 2u) == 2u;
    var sum = select(two.x, two.y, second) + subgroupShuffleXor(select(two.y, two.x, second), 2u);
    // Whatever the subgroup's size, as a compiler cannot know it uniform; what lies outside of it does not count.
    sum += select(0.0, subgroupShuffleXor(sum, 4u), lanes.size > 4u);
    sum += select(0.0, subgroupShuffleXor(sum, 8u), lanes.size > 8u);
    sum += select(0.0, subgroupShuffleXor(sum, 16u), lanes.size > 16u);
    sum += select(0.0, subgroupShuffleXor(sum, 32u), lanes.size > 32u);
    if (lanes.lane < 4u) {
        // Lane 0 has sum 0, lane 1 has 2, lane 2 has 1, lane 3 has 3.
        slot_sums[slot * WG + lanes.subgroup * 4u + ((lanes.lane & 1u) << 1u) + (lanes.lane >> 1u)] = sum;
    }
}

// Sum j of what the lanes of a team left.
fn together(lanes: Lanes, slot: u32, j: u32, team: u32) -> f32 {
    let count = TEAM >> firstTrailingBit(lanes.size);
    var sum = 0.0;
    for (var s = team * count; s < (team + 1u) * count; s++) {
        sum += slot_sums[slot * WG + 4u * s + j];
    }
    return sum;
}
