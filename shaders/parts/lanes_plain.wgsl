// Sums over a workgroup of WG lanes by a tree in workgroup memory: always in the same order, on every machine.

override WG: u32 = 64u;

struct Lanes {
    @builtin(local_invocation_index) index: u32,
}

var<workgroup> lane_sums: array<vec4<f32>, WG>;

// Every lane calls it and gets the sum. Safe to call again at once.
fn workgroup_sum4(lanes: Lanes, value: vec4<f32>) -> vec4<f32> {
    lane_sums[lanes.index] = value;
    workgroupBarrier();
    // Halving rounded up, so that a WG that is no power of two sums right too.
    var count = WG;
    while (count > 1u) {
        let half = (count + 1u) / 2u;
        if (lanes.index + half < count) {
            lane_sums[lanes.index] += lane_sums[lanes.index + half];
        }
        count = half;
        workgroupBarrier();
    }
    let sum = lane_sums[0];
    workgroupBarrier();
    return sum;
}

fn workgroup_sum(lanes: Lanes, value: f32) -> f32 {
    return workgroup_sum4(lanes, vec4<f32>(value, 0.0, 0.0, 0.0)).x;
}

// The largest value of the lanes that lanes_first speaks for: here every lane speaks for itself.
fn lanes_max(value: u32) -> u32 { return value; }
fn lanes_first(lanes: Lanes) -> bool { return true; }
