//! `mamba1_scan.wgsl`: convolution, selective scan and gate of a Mamba1 mixer, token by token.

use super::coded::{self, Coding};
use super::matrix::{self, GROUP};
use super::rmsnorm::Columns;
use super::{Matrix, STEP, Target, assert_words, bindings, dispatch, read, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid};

/// States of a channel, and channels that share a group of B and of C.
pub const STATES: usize = 16;
/// Lanes that share a channel's states: a pair each.
const PAIRS: usize = STATES / 2;
/// Channels of a workgroup: a group that is coded.
const CHANNELS: usize = GROUP;
/// Rows that it takes at a time.
const ROWS: usize = 8;
/// Shares of a channel in workgroup memory, as the shader has it.
const PITCH: usize = PAIRS + 1;
/// Storage buffers that it binds beside W_dt, or the rows of dt, and beside y's codes.
const BUFFERS: u32 = 7;

/// The numbers of a Mamba1 mixer, and the columns of its first product: [down | x | z | B | C], each from a multiple of
/// 32 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mamba1Shape {
    /// Channels, whole groups of [`STATES`].
    pub d_inner: usize,
    /// Width of x and of B before they are repeated to `d_inner`, whole groups.
    pub d_xb: usize,
    /// Width of `down`, from which W_dt makes the time steps.
    pub dt_rank: usize,
}

impl Mamba1Shape {
    /// Widths of the parts of a row.
    pub fn parts(&self) -> [usize; 5] {
        [self.dt_rank, self.d_xb, self.d_inner, self.d_xb, self.d_inner]
    }

    /// Where they begin.
    pub fn offsets(&self) -> [usize; 5] {
        let mut at = 0;
        self.parts().map(|width| {
            let offset = at;
            at = (offset + width).next_multiple_of(GROUP);
            offset
        })
    }

    /// Columns up to the end of C.
    pub fn width(&self) -> usize {
        self.offsets()[4] + self.d_inner
    }

    /// f32 of a slot's state: [d_inner, 16], then [d_inner, 4], the last four inputs of each channel, oldest first.
    pub fn state(&self) -> usize {
        self.taps_offset() + 4 * self.d_inner
    }

    /// f32 before the convolution's part of a slot's state.
    pub fn taps_offset(&self) -> usize {
        STATES * self.d_inner
    }
}

/// What makes the time steps, before their bias.
#[derive(Debug, Clone, Copy)]
pub enum TimeSteps<'a> {
    /// A product before it has made them: `[rows, stride]`.
    Rows(Columns<'a>),
    /// dt_proj `[d_inner, dt_rank]`, if [`Mamba1Scan::can_project`].
    Project(&'a Matrix),
}

/// `u = silu(conv(x)), S = exp(-exp(A_log) dt) S + dt u B, y = (S C + D u) * silu(z)`.
#[derive(Debug)]
pub struct Mamba1Scan<'a> {
    pub step: &'a Buffer,
    pub shape: Mamba1Shape,
    /// `[rows, stride]`, see [`Mamba1Shape`].
    pub rows: Columns<'a>,
    pub time_steps: TimeSteps<'a>,
    /// `[d_inner, 4]`.
    pub conv_weight: &'a Buffer,
    /// `[d_inner]` of (D, dt_proj's bias, the convolution's bias, 0).
    pub channels: &'a Buffer,
    /// `[d_inner, 16]`.
    pub a_log: &'a Buffer,
    /// `[slots, state]`, read and carried on.
    pub state: &'a Buffer,
    /// `[rows, stride]`.
    pub y: Columns<'a>,
    /// Where y is left coded instead, if [`Mamba1Scan::can_code`].
    pub y_codes: Option<Coding<'a>>,
}

impl Mamba1Scan<'_> {
    /// Whether y can be left coded: whole groups make a row.
    pub fn can_code(shape: Mamba1Shape, target: Target) -> bool {
        shape.d_inner.is_multiple_of(GROUP) && target.limits.storage_buffers >= BUFFERS + 2
    }

    /// Whether the adapter can bind dt_proj beside everything else.
    pub fn can_project(dt_proj: &Matrix, target: Target) -> bool {
        let buffers = BUFFERS + 1;
        target.limits.storage_buffers > buffers + u32::from(dt_proj.scales().is_some())
            && dt_proj.parts(&target.limits, buffers).len() == 1
    }

    /// # Panics
    /// When a buffer or a row is too small, or the adapter cannot do what is asked for.
    pub fn dispatch(&self, label: &str, target: Target) -> Dispatch {
        let (s, rows, y) = (self.shape, self.rows, self.y);
        assert!(s.d_inner.is_multiple_of(s.d_xb) && s.d_xb.is_multiple_of(STATES), "{label}: {s:?}");
        assert!(rows.offset == 0 && rows.stride.is_multiple_of(4), "{label}: rows are no whole quads");
        assert!(s.width() <= rows.stride && s.d_inner <= y.stride && y.offset == 0, "{label}: rows are too short");
        assert_words(self.conv_weight, 4 * s.d_inner as u64, "mamba1_scan.conv_weight");
        assert_words(self.channels, 4 * s.d_inner as u64, "mamba1_scan.channels");
        assert_words(self.a_log, (STATES * s.d_inner) as u64, "mamba1_scan.a_log");
        assert_words(self.state, s.state() as u64, "mamba1_scan.state");
        if self.y_codes.is_some() {
            let whole = y.stride.is_multiple_of(GROUP) && Self::can_code(s, target);
            assert!(whole, "{label}: y cannot be left coded");
        }
        let coding = coded::parts(self.y_codes, CHANNELS, label);
        let mut sources = vec![shader!("mamba1_scan.wgsl"), shader!("parts/softplus.wgsl"), STEP];
        sources.extend(coding.sources);
        let mut constants = target.constants(vec![
            ("WG", (ROWS * CHANNELS) as f64),
            ("CHANNELS", CHANNELS as f64),
            ("ROWS", ROWS as f64),
            ("PARTS", (ROWS * CHANNELS * PITCH) as f64),
        ]);
        // A group of each row.
        constants.extend(coding.constants.into_iter().map(|(name, group)| (name, group * ROWS as f64)));
        let inputs = [rows.buffer, self.conv_weight, self.channels, self.a_log];
        let mut all = bindings(self.step, &inputs, &[self.state, y.buffer]);
        all.extend(coding.bindings);
        let (mut dt_stride, mut octs, mut cost) = (0, 0, Cost::default());
        match self.time_steps {
            TimeSteps::Rows(dt) => {
                assert!(dt.offset == 0 && s.d_inner <= dt.stride, "{label}: rows of dt are too short");
                dt_stride = dt.stride;
                sources.push(shader!("parts/dt_rows.wgsl"));
                all.push(read(8, dt.buffer));
                cost.row_bytes = 4 * s.d_inner;
            }
            TimeSteps::Project(dt_proj) => {
                assert!((dt_proj.n(), dt_proj.k()) == (s.d_inner, s.dt_rank), "{label}: {dt_proj:?}");
                assert!(
                    Self::can_project(dt_proj, target),
                    "{label}: dt_proj does not fit into the adapter's bindings"
                );
                let part: matrix::Part<'_> = dt_proj.parts(&target.limits, BUFFERS + 1)[0];
                octs = dt_proj.k_padded() / 8;
                sources.push(shader!("parts/dt_proj.wgsl"));
                sources.extend(part.sources());
                constants.extend(part.constants());
                all.extend(part.bindings());
                cost = part.product_cost(0);
            }
        }
        let [_, x_at, z_at, b_at, c_at] = s.offsets();
        let params =
            [s.d_inner, s.d_inner / s.d_xb, rows.stride / 4, x_at, z_at, b_at, c_at, y.stride, dt_stride, octs];
        let grid = Grid::new(Extent::Fixed(s.d_inner.div_ceil(CHANNELS) as u32), Extent::Segments);
        dispatch(label, "mamba1_scan", sources, constants, &params.map(|v| v as u32), all, grid).costs(Cost {
            bytes: cost.bytes + 4 * (STATES + 8) * s.d_inner,
            row_bytes: cost.row_bytes + 4 * (2 * s.d_xb + 3 * s.d_inner),
            row_macs: cost.row_macs + 3 * STATES * s.d_inner,
            segment_bytes: 8 * s.state(),
            ..cost
        })
    }
}
