//! What a step runs, as the twins read it.

/// One token of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub token: u32,
    pub slot: usize,
    pub position: usize,
    /// Whether it may change its slot's state.
    pub live: bool,
    /// Rows of the same segment before it.
    pub offset: usize,
}

/// Rows of one slot that follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub first: usize,
    pub count: usize,
    pub slot: usize,
}

/// A step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    pub rows: Vec<Row>,
    pub segments: Vec<Segment>,
    /// The row of each asked-for row of logits.
    pub logit_rows: Vec<usize>,
}
