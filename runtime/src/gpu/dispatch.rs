//! One dispatch as plain data: a kernel with its constants, parameters, bindings and a grid that follows the step.

use super::Buffer;

/// A shader and how it is specialised. Two equal kernels share one pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// The name of the file in `shaders/`, of the binding in `kernels/` and of the CPU twin in the tests.
    pub name: &'static str,
    /// The shader's text: the kernel's own file and the parts joined to it, in any order.
    pub sources: Vec<&'static str>,
    /// `override` constants of the shader.
    pub constants: Vec<(&'static str, f64)>,
}

impl Kernel {
    /// The joined text. Chrome asks for a directive where subgroup operations are used; naga, whose parser knows the
    /// operations without it, refuses the directive. Cooperative matrices are naga's own.
    pub fn text(&self, chrome: bool) -> String {
        let joined = self.sources.join("\n");
        if joined.contains("coop_mat") {
            format!("enable f16;\nenable wgpu_cooperative_matrix;\n{joined}")
        } else if chrome && joined.contains("@builtin(subgroup_") {
            format!("enable subgroups;\n{joined}")
        } else {
            joined
        }
    }
}

/// How a shader declares a storage buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    ReadWrite,
}

/// A buffer at a binding number. Number 1 is always the parameters.
#[derive(Debug, Clone)]
pub struct Binding {
    pub number: u32,
    pub access: Access,
    pub buffer: Buffer,
}

/// What a step runs, known to the CPU before it: the grids follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepShape {
    /// Rows in the step.
    pub rows: u32,
    /// Runs of rows of one slot.
    pub segments: u32,
    /// Rows whose logits are asked for.
    pub logit_rows: u32,
    /// The longest context of any row, itself included (an upper bound).
    pub longest: u32,
}

/// One dimension of a grid, in workgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Always so many.
    Fixed(u32),
    /// One for every `per` rows.
    Rows { per: u32 },
    /// One for every segment.
    Segments,
    /// One for every `per` logit rows.
    LogitRows { per: u32 },
    /// One for every `unit` positions of the longest context, but at most `most`, and over all rows `parts`.
    Spans { unit: u32, most: u32, parts: u32 },
}

impl Extent {
    /// Workgroups along this dimension in a step of this shape.
    pub fn of(self, shape: StepShape) -> u32 {
        match self {
            Extent::Fixed(n) => n,
            Extent::Rows { per } => shape.rows.div_ceil(per),
            Extent::Segments => shape.segments,
            Extent::LogitRows { per } => shape.logit_rows.div_ceil(per),
            Extent::Spans { unit, most, parts } => {
                shape.longest.div_ceil(unit).min((parts / shape.rows.max(1)).clamp(1, most))
            }
        }
    }
}

/// A grid: `items` along x, folded into y where there are more than a dimension holds, and `z`. Shaders read their item
/// as `wid.y * groups.x + wid.x` and guard it against the number of items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    pub items: [Extent; 3],
    pub z: Extent,
}

impl Grid {
    /// `items` along x and y, `z` along z.
    pub fn new(items: Extent, z: Extent) -> Self {
        Self { items: [items, Extent::Fixed(1), Extent::Fixed(1)], z }
    }

    /// Workgroups in x, y and z. The product of the items is what is folded.
    pub fn workgroups(self, shape: StepShape, limit: u32) -> [u32; 3] {
        let items = self.items.iter().map(|extent| extent.of(shape)).product::<u32>();
        let x = items.min(limit);
        [x, if x == 0 { 0 } else { items.div_ceil(x) }, self.z.of(shape)]
    }
}

/// What a dispatch moves and computes at the least, as it grows with the step: what its time is measured against. Padding,
/// parameters and what a cache gives twice do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Bytes whatever the step: weights.
    pub bytes: usize,
    /// Bytes and multiply-adds of each row, or of each logit row where the grid is over those.
    pub row_bytes: usize,
    pub row_macs: usize,
    /// Bytes of each segment: a slot's state.
    pub segment_bytes: usize,
    /// Bytes of each position of a segment's context, which its rows share.
    pub position_bytes: usize,
    /// Multiply-adds of each position of each row's context.
    pub position_macs: usize,
}

/// How much there is in a step of what a [`Cost`] grows with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepSize {
    pub shape: StepShape,
    /// Contexts of all rows, added up.
    pub row_positions: u64,
    /// Contexts of all segments at their ends, added up.
    pub segment_positions: u64,
}

/// What one run of a dispatch moves and computes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Amount {
    pub bytes: f64,
    pub macs: f64,
}

impl Cost {
    /// The work of a dispatch with this grid in a step of this size.
    pub fn of(self, grid: Grid, size: StepSize) -> Amount {
        let shape = size.shape;
        if grid.workgroups(shape, u32::MAX).contains(&0) {
            return Amount::default();
        }
        let is_logits = |extent: &Extent| matches!(extent, Extent::LogitRows { .. });
        let by_logit_rows = grid.items.iter().chain([&grid.z]).any(is_logits);
        let rows = f64::from(if by_logit_rows { shape.logit_rows } else { shape.rows });
        Amount {
            bytes: self.bytes as f64
                + self.row_bytes as f64 * rows
                + self.segment_bytes as f64 * f64::from(shape.segments)
                + self.position_bytes as f64 * size.segment_positions as f64,
            macs: self.row_macs as f64 * rows + self.position_macs as f64 * size.row_positions as f64,
        }
    }
}

/// One dispatch of a plan.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Where it stands in the model, such as `"layer3.ssm_scan"`.
    pub label: String,
    pub kernel: Kernel,
    /// The bytes of the shader's `Params`.
    pub params: Vec<u8>,
    pub bindings: Vec<Binding>,
    pub grid: Grid,
    /// Whether only this adapter's limits ask for this dispatch (a further piece of a split matrix).
    pub forced_by_limits: bool,
    pub cost: Cost,
}

impl Dispatch {
    /// Says what it costs.
    pub fn costs(mut self, cost: Cost) -> Self {
        self.cost = cost;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_grows_with_what_its_grid_is_over() {
        let shape = StepShape { rows: 6, segments: 2, logit_rows: 3, longest: 12 };
        let size = StepSize { shape, row_positions: 50, segment_positions: 20 };
        let cost =
            Cost { bytes: 1000, row_bytes: 10, row_macs: 7, segment_bytes: 100, position_bytes: 1, position_macs: 2 };
        let over = |z| cost.of(Grid::new(Extent::Fixed(4), z), size);
        assert_eq!(over(Extent::Rows { per: 4 }), Amount { bytes: 1280.0, macs: 142.0 });
        assert_eq!(over(Extent::LogitRows { per: 1 }), Amount { bytes: 1250.0, macs: 121.0 });
        let none = StepSize { shape: StepShape { logit_rows: 0, ..shape }, ..size };
        assert_eq!(cost.of(Grid::new(Extent::Fixed(4), Extent::LogitRows { per: 1 }), none), Amount::default());
    }
}
