// What lanes of a team in gqa_attend.wgsl tell each other, by subgroup operations: a subgroup is one team or more. What
// is shown stays where it is until another lane asks for it.

override WG: u32;

struct Lanes {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

// Place of the lane in the workgroup, subgroup by subgroup.
fn lane_index(lanes: Lanes) -> u32 { return lanes.subgroup * lanes.size + lanes.lane; }

fn of_team(lanes: Lanes, lane: u32) -> u32 { return lanes.lane / TEAM * TEAM + lane; }

fn from_other(lanes: Lanes, v: vec4<f32>, mask: u32) -> vec4<f32> { return subgroupShuffleXor(v, mask); }

fn most_of_team(lanes: Lanes, v: vec4<f32>) -> vec4<f32> {
    var most = max(v, subgroupShuffleXor(v, 1u));
    most = max(most, subgroupShuffleXor(most, 2u));
    if (TEAM > 4u) { most = max(most, subgroupShuffleXor(most, 4u)); }
    if (TEAM > 8u) { most = max(most, subgroupShuffleXor(most, 8u)); }
    if (TEAM > 16u) { most = max(most, subgroupShuffleXor(most, 16u)); }
    return most;
}

fn sum_of_team(lanes: Lanes, v: vec4<f32>) -> vec4<f32> {
    var sum = v + subgroupShuffleXor(v, 1u);
    sum += subgroupShuffleXor(sum, 2u);
    if (TEAM > 4u) { sum += subgroupShuffleXor(sum, 4u); }
    if (TEAM > 8u) { sum += subgroupShuffleXor(sum, 8u); }
    if (TEAM > 16u) { sum += subgroupShuffleXor(sum, 16u); }
    return sum;
}

fn show_scales(lanes: Lanes, own: vec4<u32>) {}

// Word k of the scales of a lane of the team.
fn scales_word(lanes: Lanes, own: vec4<u32>, k: u32, lane: u32) -> u32 {
    return subgroupShuffle(own[k], of_team(lanes, lane));
}

fn show_weight(lanes: Lanes, own: vec4<f32>) {}

fn weight_of(lanes: Lanes, own: vec4<f32>, lane: u32) -> vec4<f32> {
    return subgroupShuffle(own, of_team(lanes, lane));
}
