//! `x[r, :] = W[token(r), :]`.

use super::step::Step;

/// `weight` is `[vocab, hidden]`; rows of x are `stride` long, what pads them is zero.
pub fn embed(step: &Step, weight: &[f32], hidden: usize, stride: usize, x: &mut [f64]) {
    for (r, row) in step.rows.iter().enumerate() {
        for i in 0..stride {
            x[r * stride + i] = if i < hidden { f64::from(weight[row.token as usize * hidden + i]) } else { 0.0 };
        }
    }
}
