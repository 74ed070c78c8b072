//! CPU twins and helpers of the tests.
