//! CPU twins and helpers of the tests.

pub mod compare;
pub mod files;
pub mod golden;
pub mod harness;
pub mod random;
pub mod reference;
