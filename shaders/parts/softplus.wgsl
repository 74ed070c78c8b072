// log(1 + exp(v)) without overflow; beyond 20 it is v to the last bit of an f32.
fn softplus(v: f32) -> f32 {
    if (v > 20.0) {
        return v;
    }
    return log(1.0 + exp(v));
}
