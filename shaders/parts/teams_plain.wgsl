// Sums over teams of TEAM lanes of a workgroup, by trees in workgroup memory.

override WG: u32 = 64u;
override SLOT_SUMS: u32; // slots * TEAMS

struct Lanes {
    @builtin(local_invocation_index) index: u32,
}

var<workgroup> slot_sums: array<vec4<f32>, SLOT_SUMS>;
var<workgroup> shares: array<vec4<f32>, WG>;

fn lane_index(lanes: Lanes) -> u32 { return lanes.index; }

// Every lane leaves its shares of four sums. After a barrier `together` has them.
fn put(lanes: Lanes, slot: u32, value: vec4<f32>) {
    let i = lanes.index;
    shares[i] = value;
    workgroupBarrier();
    for (var half = TEAM / 2u; half > 0u; half /= 2u) {
        if (i % TEAM < half) {
            shares[i] += shares[i + half];
        }
        workgroupBarrier();
    }
    if (i % TEAM == 0u) {
        slot_sums[slot * TEAMS + i / TEAM] = shares[i];
    }
}

// Sum j of what the lanes of a team left.
fn together(lanes: Lanes, slot: u32, j: u32, team: u32) -> f32 { return slot_sums[slot * TEAMS + team][j]; }
