// W_dt down for mamba1_scan.wgsl, made by a product before it.

const PROJECTS: bool = false;

@group(0) @binding(8) var<storage, read> dt_rows: array<f32>; // [rows, dt_stride]

fn dt_at(r: u32, channel: u32) -> f32 { return dt_rows[r * params.dt_stride + channel]; }

fn project(first: u32, count: u32, channel: u32, place: u32, pair: u32) {}
