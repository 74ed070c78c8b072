//! Rows in groups of 32, each as codes from -127 to 127 and a scale.

/// `rows` of x, normed where there is a norm.
#[derive(Debug)]
pub struct QuantizeRows<'a> {
    /// Rows of x, one for each row of codes.
    pub rows: &'a [usize],
    pub x: &'a [f32],
    pub x_stride: usize,
    pub x_offset: usize,
    pub width: usize,
    /// Weight `[width]` and epsilon of an RMS norm.
    pub norm: Option<(&'a [f32], f32)>,
}

/// Writes what is to be rounded to codes, `[rows, groups * 32]`, and the scales, `[rows, groups]`.
pub fn quantize_rows(q: &QuantizeRows<'_>, quotients: &mut [f64], scales: &mut [f64]) {
    let groups = q.width.div_ceil(32);
    for (r, from) in q.rows.iter().enumerate() {
        let x = &q.x[from * q.x_stride + q.x_offset..][..q.width];
        let mut v: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let mut factor = 1.0;
        if let Some((weight, eps)) = q.norm {
            let mean = v.iter().map(|v| v * v).sum::<f64>() / q.width as f64;
            factor = 1.0 / (mean + f64::from(eps)).sqrt();
            v.iter_mut().zip(weight).for_each(|(v, w)| *v *= f64::from(*w));
        }
        v.resize(32 * groups, 0.0);
        for g in 0..groups {
            let group = &v[32 * g..][..32];
            let scale = group.iter().fold(0f64, |most, v| most.max(v.abs())) / 127.0;
            scales[r * groups + g] = scale * factor;
            for (i, v) in group.iter().enumerate() {
                quotients[(r * groups + g) * 32 + i] = if scale > 0.0 { v / scale } else { 0.0 };
            }
        }
    }
}
