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

/// `u = silu(conv(zxbcdt)), S = a S + dt x B^T, y = rmsnorm_per_head((S C + D x) * silu(z)) * weight`.
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
    /// `[heads]` of (A_log, D, dt_bias, 0).
    pub heads: &'a Buffer,
    /// `[d_inner]`.
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
    /// Of a row.
    quads: usize,
    /// Lanes that share four rows.
    lanes: usize,
    /// Quads of each of them that a lane holds.
    keep: usize,
}

impl Tiling {
    fn new(head_dim: usize, invocations: usize) -> Self {
        let quads = head_dim / 4;
        let most = (invocations.min(MOST_LANES) / quads).clamp(1, quads);
        let keep = quads.div_ceil(most);
        // No more lanes than so many kept quads ask for, but three: the convolution has 3 quads for each of a row.
        Self { quads, lanes: quads.div_ceil(keep).max(3), keep }
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
        assert!(s.head_dim.is_multiple_of(4) && s.head_dim <= 128, "{label}: head_dim {}", s.head_dim);
        let tiling = Tiling::new(s.head_dim, target.limits.invocations as usize);
        assert!(tiling.keep <= MOST_KEPT, "{label}: {tiling:?}");
        assert!(s.d_inner <= self.y_stride && s.in_proj() <= self.in_stride, "{label}: rows are too short");
        assert!(self.in_stride.is_multiple_of(4) && self.y_stride.is_multiple_of(4), "{label}: no whole quads");
        assert_words(self.conv_weight, 4 * s.channels() as u64, "ssm_scan.conv_weight");
        assert_words(self.conv_bias, s.channels() as u64, "ssm_scan.conv_bias");
        assert_words(self.heads, 4 * s.heads as u64, "ssm_scan.heads");
        assert_words(self.weight, s.d_inner as u64, "ssm_scan.weight");
        let coding = coded::parts(self.y_codes, s.head_dim, label);
        let mut sources =
            vec![shader!("ssm_scan.wgsl"), shader!("parts/ssm_shape.wgsl"), shader!("parts/softplus.wgsl"), STEP];
        sources.extend(coding.sources);
        let mut constants = target.constants(vec![
            ("WG", (tiling.quads * tiling.lanes) as f64),
            ("QUADS", tiling.quads as f64),
            ("LANES", tiling.lanes as f64),
            ("KEEP", tiling.keep as f64),
            ("PITCH", tiling.pitch() as f64),
            ("PARTS", (tiling.quads * tiling.pitch()) as f64),
            ("CHANNELS", (3 * tiling.quads) as f64),
            ("CONVOLVED", (6 * tiling.quads) as f64),
        ]);
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
            bytes: 4 * s.d_inner,
            row_bytes: 4 * (s.channels() + 2 * s.d_inner),
            row_macs: 3 * s.d_inner * s.head_dim,
            segment_bytes: 8 * s.d_inner * s.head_dim,
            ..Cost::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_head_dim_fits() {
        // WebGPU promises 256 invocations and 16 KiB of workgroup memory.
        for (invocations, head_dim) in
            [256, 512, 1024].into_iter().flat_map(|i| (4..=128).step_by(4).map(move |d| (i, d)))
        {
            let t = Tiling::new(head_dim, invocations);
            assert!(t.quads * t.lanes <= invocations && t.keep <= MOST_KEPT, "{head_dim}: {t:?}");
            assert!(t.lanes * t.keep >= t.quads && t.lanes >= 3, "{head_dim}: {t:?}");
            assert!(16 * (6 * t.quads + t.quads * t.pitch()) + 4 * t.quads <= 16_384, "{head_dim}: {t:?}");
        }
    }
}
