//! `ssm_scan.wgsl`: convolution, selective scan and gated norm, token by token.

use super::coded::{self, Coding};
use super::matrix::GROUP;
use super::ssm_shape::SsmShape;
use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// Quads of each of its four rows of the state that a lane can hold in registers.
const MOST_KEPT: usize = 4;
/// Lanes of a workgroup, where the adapter has them: those of a head of 128 then hold 8 quads of the state each.
const MOST_LANES: usize = 512;

/// `u = silu(conv(zxbcdt)), S = a S + dt x B^T, y = rmsnorm_per_head((S C + D x) * silu(z)) * weight`, or what
/// [`SsmForm::Discrete`](super::ssm_shape::SsmForm) has of it.
#[derive(Debug)]
pub struct SsmScan<'a> {
    pub step: &'a Buffer,
    pub shape: SsmShape,
    /// `[rows, in_stride]`, the rows of in_proj.
    pub zxbcdt: &'a Buffer,
    /// A multiple of 4.
    pub in_stride: usize,
    /// `[channels, 4]`.
    pub conv_weight: &'a Buffer,
    /// `[channels]`.
    pub conv_bias: &'a Buffer,
    /// `[heads]` of (A_log, D, dt_bias, 0), or of (D, 0, 0, 0) where D is all that a head has.
    pub heads: &'a Buffer,
    /// `[d_inner]`, the norm's weight or z's bias.
    pub weight: &'a Buffer,
    /// `[slots, state]`, read and carried on.
    pub state: &'a Buffer,
    /// `[rows, y_stride]`.
    pub y: &'a Buffer,
    /// A multiple of 4.
    pub y_stride: usize,
    /// Where y is left coded instead, if [`SsmScan::can_code`].
    pub y_codes: Option<Coding<'a>>,
    pub eps: f32,
}

/// How a workgroup's lanes share a head's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    /// Fours of rows.
    quads: usize,
    /// Lanes that share four rows.
    lanes: usize,
    /// Quads of each of them that a lane holds.
    keep: usize,
    /// Quads of x, B and C.
    channels: usize,
}

impl Tiling {
    fn new(head_dim: usize, d_state: usize, invocations: usize) -> Self {
        let (quads, across) = (head_dim / 4, d_state / 4);
        let channels = quads + 2 * across;
        let most = (invocations.min(MOST_LANES) / quads).clamp(1, across);
        let keep = across.div_ceil(most);
        // No more lanes than so many kept quads ask for, but as many as the convolution has quads.
        Self { quads, lanes: across.div_ceil(keep).max(channels.div_ceil(quads)), keep, channels }
    }

    /// Quads between the parts of different rows in workgroup memory: odd, so that they do not share banks.
    fn pitch(self) -> usize {
        self.lanes | 1
    }
}

impl SsmScan<'_> {
    /// Whether y can be left coded: whole groups make a head.
    pub fn can_code(shape: SsmShape, target: Target) -> bool {
        // step, zxbcdt, five weights, state, y, its codes.
        shape.head_dim.is_multiple_of(GROUP) && target.limits.storage_buffers >= 9
    }

    /// # Panics
    /// When head_dim is no multiple of 4 or over 128, which the configuration refuses before, or a buffer too small.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let s = self.shape;
        s.check(label);
        let tiling = Tiling::new(s.head_dim, s.d_state, target.limits.invocations as usize);
        assert!(tiling.keep <= MOST_KEPT, "{label}: {tiling:?}");
        assert!(s.d_inner() <= self.y_stride && s.in_proj() <= self.in_stride, "{label}: rows are too short");
        assert!(self.in_stride.is_multiple_of(4) && self.y_stride.is_multiple_of(4), "{label}: no whole quads");
        assert_words(self.conv_weight, 4 * s.channels() as u64, "ssm_scan.conv_weight");
        assert_words(self.conv_bias, s.channels() as u64, "ssm_scan.conv_bias");
        assert_words(self.heads, 4 * s.heads as u64, "ssm_scan.heads");
        assert_words(self.weight, s.d_inner() as u64, "ssm_scan.weight");
        let coding = coded::parts(self.y_codes, s.head_dim, label);
        let mut sources = vec![shader!("ssm_scan.wgsl"), s.gate(), shader!("parts/softplus.wgsl"), STEP];
        sources.extend(s.sources());
        sources.extend(coding.sources);
        let mut constants = target.constants(vec![
            ("WG", (tiling.quads * tiling.lanes) as f64),
            ("LANES", tiling.lanes as f64),
            ("KEEP", tiling.keep as f64),
            ("PITCH", tiling.pitch() as f64),
            ("PARTS", (tiling.quads * tiling.pitch()) as f64),
            ("CHANNELS", tiling.channels as f64),
            ("CONVOLVED", (2 * tiling.channels) as f64),
        ]);
        constants.extend(s.constants());
        constants.extend(coding.constants);
        let inputs = [self.zxbcdt, self.conv_weight, self.conv_bias, self.heads, self.weight];
        let mut all = bindings(self.step, &inputs, &[self.state, self.y]);
        all.extend(coding.bindings);
        let own = [self.in_stride as u32 / 4, self.y_stride as u32 / 4, self.eps.to_bits()];
        dispatch(
            label,
            "ssm_scan",
            sources,
            constants,
            &[s.params().as_slice(), &own].concat(),
            all,
            Grid::new(Extent::Fixed(s.heads as u32), Extent::Segments),
        )
        .costs(Cost {
            bytes: 4 * s.d_inner(),
            row_bytes: 4 * (s.channels() + 2 * s.d_inner()),
            row_macs: 3 * s.d_inner() * s.d_state,
            segment_bytes: 8 * s.d_inner() * s.d_state,
            ..Cost::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ssm_shape::MOST;
    use super::*;

    #[test]
    fn every_head_fits() {
        // WebGPU promises 256 invocations and 16 KiB of workgroup memory.
        for (invocations, p) in [256, 512, 1024].into_iter().flat_map(|i| (4..=MOST).step_by(4).map(move |p| (i, p))) {
            for n in (4..=MOST).step_by(4) {
                let t = Tiling::new(p, n, invocations);
                assert!(t.quads * t.lanes <= invocations && t.keep <= MOST_KEPT, "{p} x {n}: {t:?}");
                assert!(t.lanes * t.keep >= n / 4 && t.quads * t.lanes >= t.channels, "{p} x {n}: {t:?}");
                let bytes = 16 * (2 * t.channels + t.quads * t.pitch()) + 4 * t.quads;
                // With values to be rounded.
                assert!(bytes + 8 * p <= 16_384, "{p} x {n}: {bytes} bytes, {t:?}");
            }
        }
    }
}
