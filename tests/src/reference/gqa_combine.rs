//! Spans of one head put together.

use super::mla_combine::{Span, together};

/// What the head has read.
pub fn gqa_combine(spans: &[Span], values: usize) -> Vec<f64> {
    together(spans, values)
}
