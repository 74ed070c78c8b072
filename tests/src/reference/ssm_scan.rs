//! The convolution, the selective scan with the gated norm of each head, and the state they leave:
//!
//! [x | B | C] = silu(sum_k w[:, k] in[t - 3 + k] + bias);
//! dt = softplus(dt + dt_bias); a = exp(-exp(A_log) dt); S = a S + dt x (outer) B; y = S C + D x;
//! y = rmsnorm_per_head(y silu(z)) weight.

use super::silu;
use super::ssm_conv::{channel, conv_inputs};
use super::step::Step;
use zebra_runtime::kernels::ssm_shape::SsmShape;

/// What a scan reads.
#[derive(Debug)]
pub struct SsmScan<'a> {
    pub shape: SsmShape,
    pub zxbcdt: &'a [f32],
    pub in_stride: usize,
    /// `[channels, 4]`.
    pub conv_weight: &'a [f32],
    /// `[channels]`.
    pub conv_bias: &'a [f32],
    /// `[heads]` each.
    pub a_log: &'a [f32],
    pub d: &'a [f32],
    pub dt_bias: &'a [f32],
    /// `[d_inner]`.
    pub weight: &'a [f32],
    pub eps: f32,
    pub y_stride: usize,
}

/// log(1 + exp(v)).
pub fn softplus(v: f64) -> f64 {
    if v > 0.0 { v + (-v).exp().ln_1p() } else { v.exp().ln_1p() }
}

/// Writes y, and of the live slots' states `[slots, state]` what follows.
pub fn ssm_scan(step: &Step, m: &SsmScan<'_>, state: &mut [f64], y: &mut [f64]) {
    let s = &m.shape;
    let p = s.head_dim;
    for segment in &step.segments {
        let slot = &mut state[segment.slot * s.state()..][..s.state()];
        let mut after = slot.to_vec();
        let (scan, taps) = after.split_at_mut(s.taps_offset());
        for t in 0..segment.count {
            let r = segment.first + t;
            let row = &m.zxbcdt[r * m.in_stride..][..s.in_proj()];
            let (z, dts) = (&row[..s.d_inner], &row[2 * s.d_inner + 2 * s.d_xb..]);
            let inputs = conv_inputs(s, row);
            for h in 0..s.heads {
                // The head's x, B and C, each channel after its own last four inputs.
                let mut u = vec![0.0; 3 * p];
                for (at, u) in u.iter_mut().enumerate() {
                    let c = channel(s, h, at / p, at % p);
                    let last = &mut taps[4 * (3 * h * p + at)..][..4];
                    last.rotate_left(1);
                    last[3] = f64::from(inputs[c]);
                    let sum: f64 = (0..4).map(|k| f64::from(m.conv_weight[4 * c + k]) * last[k]).sum();
                    *u = silu(sum + f64::from(m.conv_bias[c]));
                }
                let (x, b, c) = (&u[..p], &u[p..2 * p], &u[2 * p..]);
                let dt = softplus(f64::from(dts[h]) + f64::from(m.dt_bias[h]));
                let a = (-f64::from(m.a_log[h]).exp() * dt).exp();
                let mut gated = vec![0.0; p];
                for i in 0..p {
                    let mut sum = f64::from(m.d[h]) * x[i];
                    for n in 0..p {
                        let v = &mut scan[(h * p + i) * p + n];
                        *v = a * *v + dt * x[i] * b[n];
                        sum += *v * c[n];
                    }
                    gated[i] = sum * silu(f64::from(z[h * p + i]));
                }
                let mean = gated.iter().map(|v| v * v).sum::<f64>() / p as f64;
                for i in 0..p {
                    let norm = gated[i] / (mean + f64::from(m.eps)).sqrt();
                    y[r * m.y_stride + h * p + i] = norm * f64::from(m.weight[h * p + i]);
                }
            }
        }
        if step.rows[segment.first].live {
            slot.copy_from_slice(&after);
        }
    }
}
