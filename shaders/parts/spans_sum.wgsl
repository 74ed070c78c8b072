// The spans of a head's attention put together, each with its own maximum. A lane sums one quad over every SHARES-th span,
// weighed by the largest maximum among its own; the shares are folded by the largest of all. `first_part` and
// `second_part`, whether or not the row has as many spans, wait for nothing; then `share_spans`, a barrier, `whole_quad`.

override QUADS: u32;                     // at most WG
override SHARES: u32;                    // WG / QUADS, rounded down: lanes that share a quad

const NONE: f32 = -1e30;                 // the maximum of no span

@group(0) @binding(2) var<storage, read> sums: array<vec4<f32>>;        // [rows, heads, spans, QUADS]
@group(0) @binding(3) var<storage, read> weights: array<vec2<f32>>;     // [rows, heads, spans] (maximum, sum)

var<workgroup> folds: array<vec4<f32>, WG>;      // [SHARES, QUADS]
var<workgroup> tops: array<vec2<f32>, SHARES>;   // (maximum, sum of weights by it)

// A quad of a span.
struct Part {
    sum: vec4<f32>,
    weight: vec2<f32>,
}

fn part_at(start: u32, s: u32, spans: u32, quad: u32) -> Part {
    var part = Part(vec4<f32>(0.0), vec2<f32>(NONE, 0.0));
    if (s < spans) {
        part = Part(sums[(start + s) * QUADS + quad], weights[start + s]);
    }
    return part;
}

// What another row may have left there is none of this one's.
fn reached(part: Part, there: bool) -> Part {
    return Part(select(vec4<f32>(0.0), part.sum, there), select(vec2<f32>(NONE, 0.0), part.weight, there));
}

fn weighed(part: Part, top: f32) -> Part {
    let factor = exp(part.weight.x - top);
    return Part(factor * part.sum, vec2<f32>(top, factor * part.weight.y));
}

// A quad of a share by the largest maximum of all.
fn folded(share: u32, q: u32, most: f32) -> Part {
    let i = min(share, SHARES - 1u);
    return reached(weighed(Part(folds[i * QUADS + q], tops[i]), most), share < SHARES);
}

// Spans that a row has room for; where each has its most, the step need not be asked.
fn spans_with_room() -> u32 {
    var room = params.spans;
    if (params.parts / MAX_ROWS < params.spans) {
        room = spans_of_step();
    }
    return room;
}

fn first_part(start: u32, room: u32, lid: u32) -> Part { return part_at(start, lid / QUADS, room, lid % QUADS); }

fn second_part(start: u32, room: u32, lid: u32) -> Part {
    return part_at(start, lid / QUADS + SHARES, room, lid % QUADS);
}

fn share_spans(first_there: Part, second_there: Part, start: u32, spans: u32, lid: u32) {
    let share = lid / QUADS;
    let quad = lid % QUADS;
    var first = reached(first_there, share < spans);
    var second = reached(second_there, share + SHARES < spans);
    var top = max(first.weight.x, second.weight.x);
    first = weighed(first, top);
    second = weighed(second, top);
    var sum = first.sum + second.sum;
    var total = first.weight.y + second.weight.y;
    for (var s = share + 2u * SHARES; s < spans; s += 6u * SHARES) {
        let p0 = part_at(start, s, spans, quad);
        let p1 = part_at(start, s + SHARES, spans, quad);
        let p2 = part_at(start, s + 2u * SHARES, spans, quad);
        let p3 = part_at(start, s + 3u * SHARES, spans, quad);
        let p4 = part_at(start, s + 4u * SHARES, spans, quad);
        let p5 = part_at(start, s + 5u * SHARES, spans, quad);
        let most = max(top, max(max(max(p0.weight.x, p1.weight.x), max(p2.weight.x, p3.weight.x)),
                                max(p4.weight.x, p5.weight.x)));
        let faded = exp(top - most);
        let f0 = weighed(p0, most);
        let f1 = weighed(p1, most);
        let f2 = weighed(p2, most);
        let f3 = weighed(p3, most);
        let f4 = weighed(p4, most);
        let f5 = weighed(p5, most);
        sum = faded * sum + (((f0.sum + f1.sum) + (f2.sum + f3.sum)) + (f4.sum + f5.sum));
        total = faded * total + (((f0.weight.y + f1.weight.y) + (f2.weight.y + f3.weight.y))
            + (f4.weight.y + f5.weight.y));
        top = most;
    }
    folds[lid] = sum;
    if (quad == 0u && share < SHARES) {
        tops[share] = vec2<f32>(top, total);
    }
}

// Four shares at a time; those past the last one with a span have nothing.
fn whole_quad(q: u32, spans: u32) -> vec4<f32> {
    let end = min(SHARES, spans);
    var most = NONE;
    for (var i = 0u; i < end; i += 4u) {
        most = max(most, max(max(tops[i].x, tops[min(i + 1u, SHARES - 1u)].x),
                             max(tops[min(i + 2u, SHARES - 1u)].x, tops[min(i + 3u, SHARES - 1u)].x)));
    }
    var all = vec4<f32>(0.0);
    var by = 0.0;
    for (var i = 0u; i < end; i += 4u) {
        let f0 = folded(i, q, most);
        let f1 = folded(i + 1u, q, most);
        let f2 = folded(i + 2u, q, most);
        let f3 = folded(i + 3u, q, most);
        all += (f0.sum + f1.sum) + (f2.sum + f3.sum);
        by += (f0.weight.y + f1.weight.y) + (f2.weight.y + f3.weight.y);
    }
    return all / by;
}
