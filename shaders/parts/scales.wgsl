// The f16 scale of each group of 32 weights, for the formats that have one.

@group(0) @binding(9) var<storage, read> scales: array<u32>; // f16 [n, k / 32], two to a u32

override FIRST_GROUP: u32 = 0u; // groups of the rows before those that are bound, where an adapter's limits cut W

fn scale_of(group: u32) -> f32 {
    let at = FIRST_GROUP + group;
    return unpack2x16float(scales[at >> 1u])[at & 1u];
}
