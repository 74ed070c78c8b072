// log(1 + exp(v)) to a few ulp of the result: steps dt of 0.001 matter, and WGSL bounds log's absolute error only, as
// rounding of 1 + exp(v) would too. So with e = exp(-|v|), s = e / (2 + e) <= 1/3, it is max(v, 0) + 2 atanh(s), whose
// series ends within 1e-8.
fn softplus(v: f32) -> f32 {
    let e = exp(-abs(v));
    let s = e / (2.0 + e);
    let t = s * s;
    let series = 1.0 + t * (1.0 / 3.0 + t * (1.0 / 5.0 + t * (1.0 / 7.0 + t * (1.0 / 9.0 + t * (1.0 / 11.0 + t / 13.0)))));
    return max(v, 0.0) + 2.0 * s * series;
}
