// A row's values rounded to int8 for the product that reads them next: [rows, 3, groups, 4] words, of each group of 32
// the first 16 codes, the other 16, and (scale, sum of squares of the values before a norm's gain, 0, 0). So lanes that
// take neighbouring groups read neighbouring words.

const CODES: bool = true;

@group(0) @binding(14) var<storage, read_write> coded: array<u32>;

override CODED: u32; // values that a workgroup rounds at once: whole groups

var<workgroup> coded_values: array<vec2<f32>, CODED>; // (what is rounded, the square of what it was)

// The largest magnitude of eight values, and the sum of their squares.
fn eight(at: u32) -> vec2<f32> {
    let a = coded_values[at];
    let b = coded_values[at + 1u];
    let c = coded_values[at + 2u];
    let d = coded_values[at + 3u];
    let e = coded_values[at + 4u];
    let f = coded_values[at + 5u];
    let g = coded_values[at + 6u];
    let h = coded_values[at + 7u];
    let top = max(max(max(abs(a.x), abs(b.x)), max(abs(c.x), abs(d.x))),
                  max(max(abs(e.x), abs(f.x)), max(abs(g.x), abs(h.x))));
    return vec2<f32>(top, ((a.y + b.y) + (c.y + d.y)) + ((e.y + f.y) + (g.y + h.y)));
}

// Stores quad `i` of the workgroup's values, which the lanes have left in coded_values before a barrier, as a part of
// group `group` of `row`, which has `groups`. Each lane finds its group's largest value for itself: that is cheaper than to wait.
fn store_coded(i: u32, row: u32, group: u32, groups: u32) {
    let first = i / 8u * 32u;
    let e0 = eight(first);
    let e1 = eight(first + 8u);
    let e2 = eight(first + 16u);
    let e3 = eight(first + 24u);
    let top = max(max(e0.x, e1.x), max(e2.x, e3.x));
    let inverse = select(0.0, 127.0 / top, top > 0.0);
    let at = 4u * i;
    let v = vec4<f32>(coded_values[at].x, coded_values[at + 1u].x, coded_values[at + 2u].x, coded_values[at + 3u].x);
    let to = 4u * (3u * row * groups + group);
    coded[to + i % 8u / 4u * 4u * groups + i % 4u] = pack4xI8(vec4<i32>(round(v * inverse)));
    if (i % 8u == 0u) {
        coded[to + 8u * groups] = bitcast<u32>(top / 127.0);
        coded[to + 8u * groups + 1u] = bitcast<u32>((e0.y + e1.y) + (e2.y + e3.y));
    }
}
