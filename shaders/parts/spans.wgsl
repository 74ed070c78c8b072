// How the context of a row is cut into spans, one for each workgroup of mla_attend.wgsl and block of heads. A row's
// spans follow from its own length alone, as long as the step has no more than params.parts / params.spans rows.

override SPAN_UNIT: u32; // a span is whole units of so many positions

// Spans that each row of this step has room for.
fn spans_of_step() -> u32 { return clamp(params.parts / max(step_rows(), 1u), 1u, params.spans); }

// Positions of a span: the least that so many spans can share.
fn span_of(length: u32, spans: u32) -> u32 {
    let all = spans * SPAN_UNIT;
    return (length + all - 1u) / all * SPAN_UNIT;
}
