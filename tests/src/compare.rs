//! The judge of all kernel tests: how far an output is from its twin's, row by row.

use std::fmt;

use crate::harness::POISON;

/// An expected value of an element that must not be written. Any other NaN among the expected ones is refused.
pub const UNTOUCHED: f64 = f64::from_bits(0x7ff8_0000_dead_beef);

/// What an output may differ by. Both are of a row; a row of fewer than 8 values is judged by the scale of all rows.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Sum of squared errors over the sum of squared (expected) values.
    pub nmse: f64,
    /// The largest error, in standard deviations of the expected values.
    pub max_sd: f64,
}

impl Tolerance {
    /// For errors that are spread evenly: none over `max_sd`, their mean square below a ninth of its square.
    pub fn sd(max_sd: f64) -> Self {
        Self { nmse: max_sd * max_sd / 9.0, max_sd }
    }
}

/// The worst of what was compared.
#[derive(Debug, Clone, Copy, Default)]
pub struct Worst {
    pub values: usize,
    pub nmse: f64,
    pub max_sd: f64,
}

impl Worst {
    /// The worse of both, their values counted together.
    pub fn and(self, other: Worst) -> Worst {
        Worst {
            values: self.values + other.values,
            nmse: self.nmse.max(other.nmse),
            max_sd: self.max_sd.max(other.max_sd),
        }
    }
}

impl fmt::Display for Worst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values, worst NMSE {:.1e}, worst error {:.1e} sd", self.values, self.nmse, self.max_sd)
    }
}

fn written(expected: &[f64]) -> impl Iterator<Item = f64> {
    expected.iter().copied().filter(|e| e.to_bits() != UNTOUCHED.to_bits())
}

/// Mean square and standard deviation.
fn spread(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    let square = values.clone().map(|v| v * v).sum::<f64>() / n;
    let variance = values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
    (square, variance.sqrt())
}

/// Compares rows of `stride` values.
///
/// # Errors
/// Says what differs most, or which element was not written, was written and must not be, or is no number.
pub fn compare(got: &[f32], expected: &[f64], stride: usize, tolerance: Tolerance) -> Result<Worst, String> {
    if got.len() != expected.len() {
        return Err(format!("{} values were put out, {} are expected", got.len(), expected.len()));
    }
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let place = || format!("row {} column {}", i / stride, i % stride);
        if e.to_bits() == UNTOUCHED.to_bits() {
            if g.to_bits() != POISON {
                return Err(format!("{}: {g} was written where nothing may be", place()));
            }
        } else if !e.is_finite() {
            return Err(format!("{}: the expected value is {e}", place()));
        } else if g.to_bits() == POISON {
            return Err(format!("{}: was not written, {e} is expected", place()));
        } else if !g.is_finite() {
            return Err(format!("{}: {g}, {e} is expected", place()));
        }
    }
    let (all_square, all_sd) = spread(written(expected).collect::<Vec<_>>().into_iter());
    // A single value has no deviation: its own size then stands for it.
    let all_sd = if all_sd > 0.0 { all_sd } else { all_square.sqrt() };
    let mut worst = Worst::default();
    for (r, (g, e)) in got.chunks(stride).zip(expected.chunks(stride)).enumerate() {
        let values = written(e).count();
        if values == 0 {
            continue;
        }
        let (mut square, mut sd) = spread(written(e).collect::<Vec<_>>().into_iter());
        if values < 8 || sd == 0.0 {
            (square, sd) = (all_square, all_sd);
        }
        let errors = || {
            g.iter()
                .zip(e)
                .enumerate()
                .filter(|(_, (_, e))| e.to_bits() != UNTOUCHED.to_bits())
                .map(|(c, (g, e))| (c, (f64::from(*g) - e).abs()))
        };
        let mean = errors().map(|(_, d)| d * d).sum::<f64>() / values as f64;
        let nmse = if mean == 0.0 { 0.0 } else { mean / square };
        let (column, most) = errors().fold((0, 0.0), |a, b| if b.1 > a.1 { b } else { a });
        let max_sd = if most == 0.0 { 0.0 } else { most / sd };
        // Written so that a NaN fails.
        if !(nmse <= tolerance.nmse && max_sd <= tolerance.max_sd) {
            return Err(format!(
                "row {r}: NMSE {nmse:.2e} (at most {:.1e}), largest error {max_sd:.2e} sd (at most {:.1e}) at column \
                 {column}: {} is {}",
                tolerance.nmse, tolerance.max_sd, e[column], g[column]
            ));
        }
        worst = worst.and(Worst { values, nmse, max_sd });
    }
    Ok(worst)
}

/// Compares element by element; `allowed` is the largest error of an element, by its index and its expected value.
///
/// # Errors
/// As [`compare`].
pub fn compare_each(
    got: &[f32],
    expected: &[f64],
    stride: usize,
    allowed: impl Fn(usize, f64) -> f64,
) -> Result<Worst, String> {
    let worst = compare(got, expected, stride, Tolerance { nmse: f64::MAX, max_sd: f64::MAX })?;
    for (i, (g, e)) in got.iter().zip(expected).enumerate().filter(|(_, (_, e))| e.is_finite()) {
        let (error, most) = ((f64::from(*g) - e).abs(), allowed(i, *e));
        if error > most {
            let (row, column) = (i / stride, i % stride);
            return Err(format!("row {row} column {column}: {g} is off {e} by {error:.2e} (at most {most:.1e})"));
        }
    }
    Ok(worst)
}

/// Compares element by element, by the size of each.
///
/// # Errors
/// As [`compare`].
pub fn compare_relative(got: &[f32], expected: &[f64], stride: usize, relative: f64) -> Result<Worst, String> {
    compare_each(got, expected, stride, |_, e| relative * e.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const STRIDE: usize = 40;
    const TOLERANCE: f64 = 1e-5;

    fn rows() -> (Vec<f32>, Vec<f64>) {
        let expected: Vec<f64> = Random::new(1).normals(5 * STRIDE, 2.0).into_iter().map(f64::from).collect();
        (expected.iter().map(|v| *v as f32).collect(), expected)
    }

    fn judge(got: &[f32], expected: &[f64]) -> Result<Worst, String> {
        compare(got, expected, STRIDE, Tolerance::sd(TOLERANCE))
    }

    #[test]
    fn the_same_passes_and_is_counted() {
        let (got, expected) = rows();
        let worst = judge(&got, &expected).expect("equal rows");
        assert_eq!(worst.values, 200);
        assert_eq!(worst.max_sd, 0.0);
        compare_relative(&got, &expected, STRIDE, 1e-7).expect("equal rows");
    }

    #[test]
    fn rounding_passes_and_a_hundred_times_it_does_not() {
        let (got, expected) = rows();
        let near: Vec<f32> = got.iter().map(|v| v * (1.0 + 1e-6)).collect();
        judge(&near, &expected).expect("within the tolerance");
        let far: Vec<f32> = got.iter().map(|v| v * (1.0 + 1e-4)).collect();
        judge(&far, &expected).expect_err("scaled rows");
    }

    #[test]
    fn a_swapped_row_is_refused() {
        let (mut got, expected) = rows();
        let (a, b) = got.split_at_mut(STRIDE);
        a.swap_with_slice(&mut b[..STRIDE]);
        judge(&got, &expected).expect_err("swapped rows");
    }

    #[test]
    fn one_scaled_value_is_refused() {
        let (mut got, expected) = rows();
        got[77] *= 1.001;
        judge(&got, &expected).expect_err("a scaled value");
        compare_relative(&got, &expected, STRIDE, 1e-4).expect_err("a scaled value");
    }

    #[test]
    fn an_error_in_a_small_row_is_not_hidden_by_a_large_one() {
        let (mut got, mut expected) = rows();
        for i in 0..STRIDE {
            got[i] *= 1e6;
            expected[i] *= 1e6;
        }
        judge(&got, &expected).expect("still equal");
        got[STRIDE + 3] += 0.01;
        judge(&got, &expected).expect_err("an error of 0.005 sd beside a row of 1e6");
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(POISON)] {
            let (mut got, expected) = rows();
            got[199] = bad;
            judge(&got, &expected).expect_err("not a number");
        }
        let (got, mut expected) = rows();
        expected[3] = f64::NAN;
        judge(&got, &expected).expect_err("a twin that is not a number");
    }

    #[test]
    fn a_short_output_is_refused() {
        let (got, expected) = rows();
        judge(&got[..199], &expected).expect_err("one value is missing");
        judge(&[], &expected).expect_err("no values");
    }

    #[test]
    fn a_write_where_none_may_be_is_refused() {
        let (mut got, mut expected) = rows();
        expected[39] = UNTOUCHED;
        judge(&got, &expected).expect_err("written");
        got[39] = f32::from_bits(POISON);
        assert_eq!(judge(&got, &expected).expect("untouched").values, 199);
    }

    #[test]
    fn single_values_are_judged_by_all() {
        let expected = [1.0, -2.0, 0.5];
        compare(&[1.0, -2.0, 0.5], &expected, 1, Tolerance::sd(1e-6)).expect("equal");
        compare(&[1.0, -2.0, 0.501], &expected, 1, Tolerance::sd(1e-4)).expect_err("0.501 for 0.5");
        compare(&[2.0], &[2.001], 1, Tolerance::sd(1e-4)).expect_err("2 for 2.001");
    }
}
