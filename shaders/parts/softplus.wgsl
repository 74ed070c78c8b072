// log(1 + exp(v)) = max(v, 0) + log(1 + e), e = exp(-|v|) <= 1, and log(1 + e) = 2 artanh(e / (2 + e)) by its series:
// 1 + e rounded to an f32 would cost the small time steps their digits (dt = 0.001 loses four), and overflows nowhere.
fn softplus(v: f32) -> f32 {
    let e = exp(-abs(v));
    let s = e / (2.0 + e);
    let q = s * s;
    let series = 1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q * (1.0 / 11.0 + q / 13.0)))));
    return max(v, 0.0) + 2.0 * s * series;
}
