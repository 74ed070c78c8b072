// Sums over teams of TEAM lanes of a workgroup, by subgroup operations.

override WG: u32 = 64u;
override SLOT_SUMS: u32; // slots * WG
override SHARED: u32;    // lanes whose sums subgroup operations add: what every subgroup is known to have, TEAM at most

struct Lanes {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

var<workgroup> slot_sums: array<f32, SLOT_SUMS>; // four of each SHARED lanes

// Place of the lane in the workgroup, subgroup by subgroup.
fn lane_index(lanes: Lanes) -> u32 { return lanes.subgroup * lanes.size + lanes.lane; }

// Every lane leaves its shares of four sums. After a barrier `together` has them. Each exchange halves what a lane still
// has to add: 6 shuffles for four sums over 32 lanes, where four subgroupAdd are 20 or more.
fn put(lanes: Lanes, slot: u32, value: vec4<f32>) {
    let odd = (lanes.lane & 1u) == 1u;
    let two = select(value.xy, value.zw, odd) + subgroupShuffleXor(select(value.zw, value.xy, odd), 1u);
    let second = (lanes.lane & 2u) == 2u;
    var sum = select(two.x, two.y, second) + subgroupShuffleXor(select(two.y, two.x, second), 2u);
    if (SHARED > 4u) { sum += subgroupShuffleXor(sum, 4u); }
    if (SHARED > 8u) { sum += subgroupShuffleXor(sum, 8u); }
    if (SHARED > 16u) { sum += subgroupShuffleXor(sum, 16u); }
    if (SHARED > 32u) { sum += subgroupShuffleXor(sum, 32u); }
    let lane = lane_index(lanes);
    if (lane % SHARED < 4u) {
        // Lane 0 has sum 0, lane 1 has 2, lane 2 has 1, lane 3 has 3.
        slot_sums[slot * WG + lane / SHARED * 4u + ((lane & 1u) << 1u) + ((lane >> 1u) & 1u)] = sum;
    }
}

// Sum j of what the lanes of a team left.
fn together(lanes: Lanes, slot: u32, j: u32, team: u32) -> f32 {
    let first = slot * WG + 4u * team * (TEAM / SHARED) + j;
    var sum = 0.0;
    for (var s = 0u; s < TEAM / SHARED; s++) {
        sum += slot_sums[first + 4u * s];
    }
    return sum;
}
