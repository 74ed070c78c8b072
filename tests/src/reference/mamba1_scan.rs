//! A Mamba1 mixer between its first product and out_proj; channel c reads group c / 16 of B and C:
//!
//! u = silu(sum_k w[:, k] x[t - 3 + k] + bias), x repeated before it;
//! dt = softplus(raw + dt_bias + dt_bias); S = exp(-exp(A_log) dt) S + dt u B; y = (S C + D u) silu(z).

use super::silu;
use super::ssm_scan::softplus;
use super::step::Step;
use zebra_runtime::kernels::mamba1_scan::{Mamba1Shape, STATES};

/// What a scan reads.
#[derive(Debug)]
pub struct Mamba1Scan<'a> {
    pub shape: Mamba1Shape,
    /// `[rows, stride]` of [down | x | z | B | C].
    pub rows: &'a [f32],
    pub stride: usize,
    /// dt_proj's products without its bias, `[rows, d_inner]`.
    pub raw: &'a [f64],
    /// `[d_inner, 4]`.
    pub conv_weight: &'a [f32],
    /// `[d_inner]` each.
    pub conv_bias: &'a [f32],
    pub dt_bias: &'a [f32],
    pub d: &'a [f32],
    /// `[d_inner, 16]`.
    pub a_log: &'a [f32],
    pub y_stride: usize,
}

/// Writes y, and of the live slots' states `[slots, state]` what follows.
pub fn mamba1_scan(step: &Step, m: &Mamba1Scan<'_>, state: &mut [f64], y: &mut [f64]) {
    let s = &m.shape;
    let [_, x_at, z_at, b_at, c_at] = s.offsets();
    let repeat = s.d_inner / s.d_xb;
    for segment in &step.segments {
        let slot = &mut state[segment.slot * s.state()..][..s.state()];
        let mut after = slot.to_vec();
        let (scan, taps) = after.split_at_mut(s.taps_offset());
        for r in segment.first..segment.first + segment.count {
            let row = &m.rows[r * m.stride..][..m.stride];
            for c in 0..s.d_inner {
                let (group, i) = (c / STATES, c % STATES);
                let shared = group / repeat * STATES;
                let last = &mut taps[4 * c..][..4];
                last.rotate_left(1);
                last[3] = f64::from(row[x_at + shared + i]);
                let sum: f64 = (0..4).map(|k| f64::from(m.conv_weight[4 * c + k]) * last[k]).sum();
                let u = silu(sum + f64::from(m.conv_bias[c]));
                let dt = softplus(m.raw[r * s.d_inner + c] + 2.0 * f64::from(m.dt_bias[c]));
                let mut sum = f64::from(m.d[c]) * u;
                for n in 0..STATES {
                    let v = &mut scan[c * STATES + n];
                    let decay = (-f64::from(m.a_log[c * STATES + n]).exp() * dt).exp();
                    *v = decay * *v + dt * u * f64::from(row[b_at + shared + n]);
                    sum += *v * f64::from(row[c_at + group * STATES + n]);
                }
                y[r * m.y_stride + c] = sum * silu(f64::from(row[z_at + c]));
            }
        }
        if step.rows[segment.first].live {
            slot.copy_from_slice(&after);
        }
    }
}
