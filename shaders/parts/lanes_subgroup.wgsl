// Sums over a workgroup of WG lanes by subgroup additions and one exchange between the subgroups.

override WG: u32 = 64u;

struct Lanes {
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) lane: u32,
}

var<workgroup> lane_sums: array<vec4<f32>, WG>; // one for each subgroup; a subgroup has one lane at least

// Every lane calls it and gets the sum. Safe to call again at once.
fn workgroup_sum4(lanes: Lanes, value: vec4<f32>) -> vec4<f32> {
    let part = subgroupAdd(value);
    if (lanes.lane == 0u) {
        lane_sums[lanes.subgroup] = part;
    }
    workgroupBarrier();
    var sum = vec4<f32>(0.0);
    for (var s = 0u; s < lanes.subgroups; s++) {
        sum += lane_sums[s];
    }
    workgroupBarrier();
    return sum;
}

fn workgroup_sum(lanes: Lanes, value: f32) -> f32 {
    return workgroup_sum4(lanes, vec4<f32>(value, 0.0, 0.0, 0.0)).x;
}

// The largest value of the lanes that lanes_first speaks for: those of its subgroup.
fn lanes_max(value: u32) -> u32 { return subgroupMax(value); }
fn lanes_first(lanes: Lanes) -> bool { return lanes.lane == 0u; }
