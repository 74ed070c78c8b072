// The product's x in int8, as parts/store_coded.wgsl or quantize_rows.wgsl leave it. A norm's 1 / rms is a factor of all
// the sums of a row, so they are made of x * gain and multiplied by it at their end: nobody waits for the norm.

override NORMED: bool = false;

@group(0) @binding(2) var<storage, read> x: array<vec4<u32>>; // [rows, 3, params.x_stride / 3]

// A group of 32: its codes, its scale, the sum of squares of what was rounded.
struct Input {
    a: vec4<u32>,
    b: vec4<u32>,
    scale: f32,
    squares: f32,
}

fn input(start: u32, group: u32) -> Input {
    let groups = params.x_stride / 3u;
    let at = start + group;
    let unit = bitcast<vec2<f32>>(x[at + 2u * groups].xy);
    return Input(x[at], x[at + groups], unit.x, unit.y);
}
