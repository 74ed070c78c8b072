// sums[i] = the sum of the words that lane i reads, modulo 2^32: a kernel that only reads, to measure what the adapter gives.
//
// A lane takes every LANES-th quad, LOADS of them under way at a time.

const LOADS: u32 = 4u;

override WG: u32 = 256u;
override LANES: u32;            // of all workgroups

struct Params {
    quads: u32,
}

@group(0) @binding(1) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> data: array<vec4<u32>>;    // [quads]
@group(0) @binding(3) var<storage, read_write> sums: array<u32>;    // [LANES]

@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum = vec4<u32>(0u);
    for (var first = id.x; first < params.quads; first += LOADS * LANES) {
        for (var j = 0u; j < LOADS; j++) {
            let quad = first + j * LANES;
            sum += select(vec4<u32>(0u), data[min(quad, params.quads - 1u)], quad < params.quads);
        }
    }
    sums[id.x] = sum.x + sum.y + sum.z + sum.w;
}
