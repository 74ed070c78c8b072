//! The tables of `parts/rope.wgsl`: turns of the low and the high part of a position.

/// Positions whose low parts have a table entry.
const LOW: usize = 256;

/// `[256 + context / 256][pairs]` of (cos, sin): positions 0..256, times `scale`, then multiples of 256. Angles are
/// taken in f64: at position 100,000 an f32 angle would be wrong by 0.004.
pub fn turns(inv_freq: &[f32], scale: f32, context: usize) -> Vec<[f32; 2]> {
    let low = (0..LOW).map(|p| (p, f64::from(scale)));
    let high = (0..context.div_ceil(LOW)).map(|p| (p * LOW, 1.0));
    low.chain(high)
        .flat_map(|(position, scale)| {
            inv_freq.iter().map(move |&f| {
                let (sin, cos) = (position as f64 * f64::from(f)).sin_cos();
                [(cos * scale) as f32, (sin * scale) as f32]
            })
        })
        .collect()
}
