// Values stay f32: the counterpart of parts/store_coded.wgsl, never called.

const CODES: bool = false;

var<workgroup> coded_values: array<vec2<f32>, 4>;

fn store_coded(i: u32, row: u32, group: u32, groups: u32) {}
