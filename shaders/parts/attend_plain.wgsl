// What lanes of a team in gqa_attend.wgsl tell each other, through workgroup memory: the place of the sums that are put
// together at the end, first what is told, then weights.

override WG: u32;

struct Lanes {
    @builtin(local_invocation_index) index: u32,
}

var<workgroup> shown_scales: array<vec4<u32>, WG>;

fn lane_index(lanes: Lanes) -> u32 { return lanes.index; }

fn of_team(lanes: Lanes, lane: u32) -> u32 { return lanes.index / TEAM * TEAM + lane; }

// The first barrier waits for those who still read what was told before.
fn tell(lanes: Lanes, v: vec4<f32>) {
    workgroupBarrier();
    pool[lanes.index] = v;
    workgroupBarrier();
}

fn from_other(lanes: Lanes, v: vec4<f32>, mask: u32) -> vec4<f32> {
    tell(lanes, v);
    return pool[lanes.index ^ mask];
}

// Of four neighbours first, then of the fours.
fn most_of_team(lanes: Lanes, v: vec4<f32>) -> vec4<f32> {
    tell(lanes, v);
    let i = lanes.index & ~3u;
    var most = max(max(pool[i], pool[i + 1u]), max(pool[i + 2u], pool[i + 3u]));
    tell(lanes, most);
    for (var lane = 0u; lane < TEAM; lane += 4u) {
        most = max(most, pool[of_team(lanes, lane)]);
    }
    return most;
}

fn sum_of_team(lanes: Lanes, v: vec4<f32>) -> vec4<f32> {
    tell(lanes, v);
    let i = lanes.index & ~3u;
    tell(lanes, (pool[i] + pool[i + 1u]) + (pool[i + 2u] + pool[i + 3u]));
    var sum = vec4<f32>(0.0);
    for (var lane = 0u; lane < TEAM; lane += 4u) {
        sum += pool[of_team(lanes, lane)];
    }
    return sum;
}

fn show_scales(lanes: Lanes, own: vec4<u32>) {
    if (CODED) {
        workgroupBarrier();
        shown_scales[lanes.index] = own;
        workgroupBarrier();
    }
}

// Word k of the scales of a lane of the team.
fn scales_word(lanes: Lanes, own: vec4<u32>, k: u32, lane: u32) -> u32 {
    return shown_scales[of_team(lanes, lane)][k];
}

// Those who read the last ones have told others of scores since.
fn show_weight(lanes: Lanes, own: vec4<f32>) {
    pool[WG + lanes.index] = own;
    workgroupBarrier();
}

fn weight_of(lanes: Lanes, own: vec4<f32>, lane: u32) -> vec4<f32> { return pool[WG + of_team(lanes, lane)]; }
