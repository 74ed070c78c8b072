use super::*;

#[test]
fn layouts_byte_by_byte() {
    // Two rows of 33: the second group is one weight and 31 of padding.
    let mut row = vec![0.0f32; 64];
    for (i, value) in row.iter_mut().take(33).enumerate() {
        *value = i as f32 - 8.0;
    }
    let encode = |format: WeightFormat, row: &[f32]| {
        let (mut words, mut scales) = (vec![0xaa; format.row_words(33)], vec![0xaa; format.row_scales(33)]);
        format::encode_row(format, row, &mut words, &mut scales);
        (words, scales)
    };

    let (words, scales) = encode(WeightFormat::F32, &row);
    assert_eq!((words.len(), scales.len()), (256, 0));
    assert_eq!(words[4 * 9..4 * 10], 1.0f32.to_le_bytes());
    let (words, _) = encode(WeightFormat::F16, &row);
    assert_eq!(words.len(), 128);
    assert_eq!(words[2 * 9..2 * 10], [0x00, 0x3c]);

    // Extreme 127 in the first group and -127 in the second: both scales are exactly 1, codes are the values.
    (row[0], row[32]) = (127.0, -127.0);
    let (words, scales) = encode(WeightFormat::Q8, &row);
    assert_eq!(scales, [0x00, 0x3c, 0x00, 0x3c]);
    let expected: Vec<u8> = row.iter().map(|&value| value as i8 as u8).collect();
    assert_eq!(words, expected);

    // Codes -8..7 in order, twice, then a lone -8: scale 0.5 gives every weight exactly.
    let mut row: Vec<f32> = (0..64).map(|i| if i < 32 { (i % 16) as f32 * 0.5 - 4.0 } else { 0.0 }).collect();
    let (words, scales) = encode(WeightFormat::Q4, &row);
    assert_eq!(scales, [0x00, 0x38, 0x00, 0x00]);
    // Byte 4j + b: element 8j + b low, 8j + 4 + b high.
    let expected: Vec<u8> =
        (0..16u8).map(|i| ((8 * (i / 4) + i % 4) % 16) | (((8 * (i / 4) + 4 + i % 4) % 16) << 4)).collect();
    assert_eq!(expected[..5], [0x40, 0x51, 0x62, 0x73, 0xc8]);
    assert_eq!(words[..16], expected);
    // Zeros are nibble 8 with a scale of 0.
    assert_eq!(words[16..], [0x88; 16]);
    row[32] = 3.0;
    let (words, scales) = encode(WeightFormat::Q4, &row);
    let mut back = vec![0.0; 64];
    format::decode_row(WeightFormat::Q4, &words, &scales, &mut back);
    assert!((back[32] - 3.0).abs() < 3.0 / 2048.0, "{}", back[32]);
    assert_eq!((&back[..32], &back[33..]), (&row[..32], &row[33..]));
}

#[test]
fn quantization_errors() {
    let (n, k) = (200, 256);
    let mut errors = [0f64; 2];
    let mut at_maximum = 0f64;
    let mut energy = 0f64;
    // An error counts by the size of its weight, as the search has it.
    let counted = |w: f32, error: f32| f64::from(w.abs()) * f64::from(error).powi(2);
    for r in 0..n {
        let row: Vec<f32> = (0..k).map(|i| weight(r * k + i)).collect();
        energy += row.iter().map(|&w| counted(w, w)).sum::<f64>();
        for (format, error) in [WeightFormat::Q8, WeightFormat::Q4].into_iter().zip(&mut errors) {
            let (mut words, mut scales) = (vec![0; format.row_words(k)], vec![0; format.row_scales(k)]);
            format::encode_row(format, &row, &mut words, &mut scales);
            let mut back = vec![0.0; k];
            format::decode_row(format, &words, &scales, &mut back);
            *error += row.iter().zip(&back).map(|(a, b)| counted(*a, a - b)).sum::<f64>();
        }
        // The simple rule, for comparison: the extreme is code -8.
        for group in row.chunks(GROUP) {
            let extreme = group.iter().copied().fold(0f32, |m, v| if v.abs() > m.abs() { v } else { m });
            let scale = extreme / -8.0;
            let rounded = group.iter().map(|&w| (w, w - (w / scale).round().clamp(-8.0, 7.0) * scale));
            at_maximum += rounded.map(|(w, error)| counted(w, error)).sum::<f64>();
        }
    }
    let [q8, q4] = errors.map(|error| (error / energy).sqrt());
    let at_maximum = (at_maximum / energy).sqrt();
    println!("relative errors: q8 {q8:.5}, q4 {q4:.5} (extreme at -8: {at_maximum:.5})");
    assert!(q8 < 0.0038, "{q8}");
    assert!(q4 < 0.0560, "{q4}");
    assert!(q4 < 0.93 * at_maximum, "{q4}: the search gains nothing over {at_maximum}");
}

#[test]
fn quantization_of_extremes() {
    // A group whose scale is a subnormal f16, one whose scale rounds to zero, one with a huge outlier.
    for (values, tolerance) in [([3e-6f32, -1e-6], 0.1), ([1e-9, -1e-9], 1.0), ([1e5, -3.0], 0.01)] {
        let mut row = [0.0f32; GROUP];
        row[..2].copy_from_slice(&values);
        for format in [WeightFormat::Q8, WeightFormat::Q4] {
            assert_eq!(format::first_unfit(format, &row), None);
            let (mut words, mut scales) = (vec![0; format.row_words(GROUP)], vec![0; format.row_scales(GROUP)]);
            format::encode_row(format, &row, &mut words, &mut scales);
            let mut back = [0.0; GROUP];
            format::decode_row(format, &words, &scales, &mut back);
            let error = row.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error <= values[0] * tolerance, "{format} of {values:?}: {back:?}");
        }
    }
    assert_eq!(format::first_unfit(WeightFormat::F16, &[1.0, -65505.0, 0.0]), Some(1));
    assert_eq!(format::first_unfit(WeightFormat::F32, &[1.0, f32::MAX, f32::NEG_INFINITY]), Some(2));
    assert_eq!(format::first_unfit(WeightFormat::Q4, &[1e6, f32::NAN]), Some(0));
}

#[test]
fn half_floats_decode_exactly() {
    // All 65,536 of each kind, against the half crate.
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut f16s = vec![0.0; 1 << 16];
    format::decode_f16(&bytes, &mut f16s);
    let mut bf16s = vec![0.0; 1 << 16];
    format::decode_bf16(&bytes, &mut bf16s);
    for bits in 0..=u16::MAX {
        let (a, b) = (half::f16::from_bits(bits).to_f32(), half::bf16::from_bits(bits).to_f32());
        let (x, y) = (f16s[bits as usize], bf16s[bits as usize]);
        assert!(x.to_bits() == a.to_bits() || x.is_nan() && a.is_nan(), "f16 {bits:#x}: {x} is not {a}");
        assert!(y.to_bits() == b.to_bits() || y.is_nan() && b.is_nan(), "bf16 {bits:#x}: {y} is not {b}");
    }
}
