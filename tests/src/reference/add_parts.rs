//! Parts of sums put together. The twin of `add_parts.wgsl`.

use zebra_runtime::kernels::product::Epilogue;

use super::{relu2, silu};

/// Writes (or adds to) a row of y: `parts` hold the row's outputs, in SwiGLU `[gate | up]`, each divided by 2^exponent.
pub fn add_parts(parts: &[&[f32]], exponent: i32, epilogue: Epilogue, y: &mut [f64]) {
    let outputs = y.len();
    let sum = |n: usize| f64::from(exponent).exp2() * parts.iter().map(|part| f64::from(part[n])).sum::<f64>();
    for (n, y) in y.iter_mut().enumerate() {
        *y = match epilogue {
            Epilogue::Store => sum(n),
            Epilogue::Add => *y + sum(n),
            Epilogue::SwiGlu => silu(sum(n)) * sum(outputs + n),
            Epilogue::Relu2 => relu2(sum(n)),
        };
    }
}
