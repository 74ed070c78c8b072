//! How the values of a matrix are laid out, on the GPU and in quantized files, and how f32 rows become that.
//!
//! A matrix is `[N, K]`, rows first. K is cut into G = ceil(K / 32) groups; the last one is padded with zeros.
//!
//! | format | words | scales | a weight |
//! |---|---|---|---|
//! | f32 | f32 `[N][32 G]` | | w |
//! | f16 | f16 `[N][32 G]` | | w |
//! | q8 | i8 `[N][32 G]` | f16 `[N][G]` | code * scale, code in -127..=127 |
//! | q4 | u8 `[N][G][16]` | f16 `[N][G]` | (nibble - 8) * scale |
//!
//! Byte 4j + b of a q4 group (j, b < 4) holds element 8j + b in its low nibble and element 8j + 4 + b in its high one:
//! one u32 of them unpacks to two vectors of four neighbours. Everything is little-endian.

use half::f16;

use crate::{Error, Result};

/// Weights that share a scale, along a row.
pub const GROUP: usize = 32;

/// Bytes of a q4 group's codes.
const Q4_BYTES: usize = GROUP / 2;

/// The format of one matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit integers and one f16 scale for 32 of them.
    Q8,
    /// 4-bit integers and one f16 scale for 32 of them.
    Q4,
}

/// The format of a whole model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// Every matrix in f32.
    F32,
    /// Every matrix in f16.
    F16,
    /// Every matrix in q8.
    Q8,
    /// q4, but q8 for the embedding, the head and the small low-rank matrices, where four bits cost the most.
    Q4,
}

impl WeightFormat {
    /// All formats, widest first.
    pub const ALL: [WeightFormat; 4] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Q8, WeightFormat::Q4];

    /// The name in options and metadata.
    pub fn name(self) -> &'static str {
        match self {
            WeightFormat::F32 => "f32",
            WeightFormat::F16 => "f16",
            WeightFormat::Q8 => "q8",
            WeightFormat::Q4 => "q4",
        }
    }

    /// The format of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Bytes of words that a row of `k` weights takes.
    pub fn row_words(self, k: usize) -> usize {
        let groups = k.div_ceil(GROUP);
        groups
            * match self {
                WeightFormat::F32 => 4 * GROUP,
                WeightFormat::F16 => 2 * GROUP,
                WeightFormat::Q8 => GROUP,
                WeightFormat::Q4 => Q4_BYTES,
            }
    }

    /// Bytes of scales that a row of `k` weights takes: 0 for the plain formats.
    pub fn row_scales(self, k: usize) -> usize {
        match self {
            WeightFormat::F32 | WeightFormat::F16 => 0,
            WeightFormat::Q8 | WeightFormat::Q4 => 2 * k.div_ceil(GROUP),
        }
    }

    /// Bytes of a matrix `[n, k]`, words and scales.
    pub fn bytes(self, n: usize, k: usize) -> u64 {
        n as u64 * (self.row_words(k) + self.row_scales(k)) as u64
    }

    /// Whether the format has scales.
    pub fn is_quantized(self) -> bool {
        matches!(self, WeightFormat::Q8 | WeightFormat::Q4)
    }

    /// The largest magnitude that the format can hold: above it an f16 value or scale would be infinite.
    fn largest(self) -> f32 {
        const F16_MAX: f32 = 65504.0;
        match self {
            WeightFormat::F32 => f32::MAX,
            WeightFormat::F16 => F16_MAX,
            WeightFormat::Q8 => 127.0 * F16_MAX,
            WeightFormat::Q4 => 7.0 * F16_MAX,
        }
    }
}

impl Preset {
    /// All presets, widest first.
    pub const ALL: [Preset; 4] = [Preset::F32, Preset::F16, Preset::Q8, Preset::Q4];

    /// The name in options and metadata.
    pub fn name(self) -> &'static str {
        self.main_format().name()
    }

    /// The preset of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name)
    }

    /// The format of the large matrices.
    pub fn main_format(self) -> WeightFormat {
        match self {
            Preset::F32 => WeightFormat::F32,
            Preset::F16 => WeightFormat::F16,
            Preset::Q8 => WeightFormat::Q8,
            Preset::Q4 => WeightFormat::Q4,
        }
    }

    /// The format of the matrix of this checkpoint name.
    pub fn format_of(self, tensor_name: &str) -> WeightFormat {
        const SENSITIVE: [&str; 5] = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "dt_proj"];
        let part = tensor_name.strip_suffix(".weight").unwrap_or(tensor_name).rsplit('.').next().unwrap_or_default();
        match self {
            Preset::Q4 if matches!(part, "embed_tokens" | "embedding" | "lm_head") || SENSITIVE.contains(&part) => {
                WeightFormat::Q8
            }
            _ => self.main_format(),
        }
    }
}

impl std::fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::fmt::Display for Preset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Preset {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::parse(name).ok_or_else(|| Error::Option {
            name: "format".into(),
            expected: "f32, f16, q8 or q4".into(),
            found: format!("\"{name}\""),
        })
    }
}

/// The first value of a row that `format` cannot hold: NaN, infinite or too large.
pub fn first_unfit(format: WeightFormat, row: &[f32]) -> Option<usize> {
    // Magnitudes of floats order as their bits do, NaN and infinity above every number: one integer maximum answers
    // for the whole row.
    let limit = format.largest().to_bits();
    let magnitude = |value: f32| value.to_bits() & 0x7fff_ffff;
    let largest = row.iter().fold(0, |most, &value| most.max(magnitude(value)));
    if largest <= limit { None } else { row.iter().position(|&value| magnitude(value) > limit) }
}

/// Lays out one row in `format`. `row` is padded to whole groups and holds nothing that [`first_unfit`] finds; `words`
/// and `scales` are exactly [`WeightFormat::row_words`] and [`WeightFormat::row_scales`] long.
pub fn encode_row(format: WeightFormat, row: &[f32], words: &mut [u8], scales: &mut [u8]) {
    assert_eq!(row.len() % GROUP, 0, "a row is padded to whole groups");
    assert_eq!(words.len(), format.row_words(row.len()), "words of a row");
    assert_eq!(scales.len(), format.row_scales(row.len()), "scales of a row");
    match format {
        WeightFormat::F32 => {
            for (bytes, value) in words.chunks_exact_mut(4).zip(row) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        }
        WeightFormat::F16 => {
            for (bytes, &value) in words.chunks_exact_mut(2).zip(row) {
                bytes.copy_from_slice(&f16::from_f32(value).to_le_bytes());
            }
        }
        WeightFormat::Q8 => {
            for ((group, codes), scale) in
                groups(row).zip(words.chunks_exact_mut(GROUP)).zip(scales.chunks_exact_mut(2))
            {
                scale.copy_from_slice(&encode_q8(group, codes).to_le_bytes());
            }
        }
        WeightFormat::Q4 => {
            for ((group, codes), scale) in
                groups(row).zip(words.chunks_exact_mut(Q4_BYTES)).zip(scales.chunks_exact_mut(2))
            {
                scale.copy_from_slice(&encode_q4(group, codes).to_le_bytes());
            }
        }
    }
}

/// The weights of one row in `format`, padding included: the inverse of [`encode_row`].
pub fn decode_row(format: WeightFormat, words: &[u8], scales: &[u8], row: &mut [f32]) {
    assert_eq!(words.len(), format.row_words(row.len()), "words of a row");
    assert_eq!(scales.len(), format.row_scales(row.len()), "scales of a row");
    let scale = |group: usize| f16::from_le_bytes([scales[2 * group], scales[2 * group + 1]]).to_f32();
    match format {
        WeightFormat::F32 => decode_f32(words, row),
        WeightFormat::F16 => decode_f16(words, row),
        WeightFormat::Q8 => {
            for (i, (weight, &code)) in row.iter_mut().zip(words).enumerate() {
                *weight = f32::from(code as i8) * scale(i / GROUP);
            }
        }
        WeightFormat::Q4 => {
            for (i, weight) in row.iter_mut().enumerate() {
                let (group, e) = (i / GROUP, i % GROUP);
                let byte = words[group * Q4_BYTES + 4 * (e / 8) + e % 4];
                let nibble = if e % 8 < 4 { byte & 15 } else { byte >> 4 };
                *weight = (f32::from(nibble) - 8.0) * scale(group);
            }
        }
    }
}

/// Little-endian f32 bytes to values.
pub fn decode_f32(bytes: &[u8], values: &mut [f32]) {
    for (value, b) in values.iter_mut().zip(bytes.chunks_exact(4)) {
        *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    }
}

/// Little-endian bf16 bytes to values: the upper halves of f32.
pub fn decode_bf16(bytes: &[u8], values: &mut [f32]) {
    for (value, b) in values.iter_mut().zip(bytes.chunks_exact(2)) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
    }
}

/// Little-endian f16 bytes to values, subnormal numbers and infinities included.
pub fn decode_f16(bytes: &[u8], values: &mut [f32]) {
    /// 2^112: the distance of the two exponent biases.
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    for (value, b) in values.iter_mut().zip(bytes.chunks_exact(2)) {
        let bits = u32::from(u16::from_le_bytes([b[0], b[1]]));
        // Exponent and fraction moved to their f32 places are the number divided by 2^112; the product is exact, also
        // for subnormal numbers. Only infinity and NaN need their exponent filled up.
        let magnitude = f32::from_bits((bits & 0x7fff) << 13) * REBIAS;
        let special = if bits & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
        *value = f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16);
    }
}

/// A padded row as groups of known length, so that the loops over them unroll.
fn groups(row: &[f32]) -> impl Iterator<Item = &[f32; GROUP]> {
    row.chunks_exact(GROUP).map(|chunk| chunk.try_into().expect("chunks_exact gives chunks of that size"))
}

/// Rounds to the nearest integer, for magnitudes below 2^22: two additions instead of a library call, so that loops
/// vectorize on every target.
#[inline(always)]
fn round(value: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: above it the last bit of a float is worth 1
    (value + MAGIC) - MAGIC
}

/// Comparisons instead of `f32::clamp`, which must treat NaN and costs instructions for it; values are finite here.
#[inline(always)]
fn clamp(value: f32, low: f32, high: f32) -> f32 {
    let value = if value > low { value } else { low };
    if value < high { value } else { high }
}

/// 1 / scale, or 0 for a scale of 0, whose codes must all be 0.
fn inverse(scale: f16) -> f32 {
    if scale.to_f32() == 0.0 { 0.0 } else { 1.0 / scale.to_f32() }
}

/// The value of largest magnitude, with its sign.
fn extreme(group: &[f32; GROUP]) -> f32 {
    let mut most = [0f32; 8];
    let mut least = [0f32; 8];
    for eight in group.chunks_exact(8) {
        for lane in 0..8 {
            most[lane] = if eight[lane] > most[lane] { eight[lane] } else { most[lane] };
            least[lane] = if eight[lane] < least[lane] { eight[lane] } else { least[lane] };
        }
    }
    let most = most.into_iter().fold(0.0, f32::max);
    let least = least.into_iter().fold(0.0, f32::min);
    if -least > most { least } else { most }
}

fn encode_q8(group: &[f32; GROUP], codes: &mut [u8]) -> f16 {
    // Codes are chosen for the scale as it is stored, so that its rounding costs nothing.
    let exact = extreme(group).abs() / 127.0;
    let mut scale = f16::from_f32(exact);
    if !scale.is_normal() && scale.to_f32() < exact {
        // So few bits are left to a subnormal scale that rounding it down would cut off the extreme.
        scale = f16::from_bits(scale.to_bits() + 1);
    }
    let inverse = inverse(scale);
    for (code, &value) in codes.iter_mut().zip(group) {
        *code = round(clamp(value * inverse, -127.0, 127.0)) as i8 as u8;
    }
    scale
}

/// The q4 codes of a group for 1 / scale, as floats from -8 to 7.
#[inline(always)]
fn q4_code(value: f32, inverse: f32) -> f32 {
    round(clamp(value * inverse, -8.0, 7.0))
}

/// Σ |value| code value and Σ |value| code² for the codes of a scale: what least squares needs when an error counts by the
/// size of its weight.
///
/// Large weights carry most of an output. On the pocket model, every error alike and errors by |w|: greedy chats of 16 that
/// stay the same 10 and 14, exact answers of 200 questions 176 and 177, KL divergence from f32 on them 0.0181 and 0.0188.
#[inline(always)]
fn q4_moments(group: &[f32; GROUP], inverse: f32) -> (f32, f32) {
    let mut with_value = [0f32; 8];
    let mut with_self = [0f32; 8];
    for eight in group.chunks_exact(8) {
        for lane in 0..8 {
            let code = q4_code(eight[lane], inverse);
            let size = eight[lane].abs();
            with_value[lane] += size * code * eight[lane];
            with_self[lane] += size * code * code;
        }
    }
    (sum_lanes(with_value), sum_lanes(with_self))
}

#[inline(always)]
fn sum_lanes(lanes: [f32; 8]) -> f32 {
    let four: [f32; 4] = std::array::from_fn(|i| lanes[i] + lanes[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Where the extreme of a group may fall, in codes: negative on the side that has eight steps. Ten times as many leave
/// hardly less error.
const Q4_CANDIDATES: [f32; 8] = [-8.0, -7.5, -7.0, -8.5, -9.0, 7.0, 6.5, 7.5];

/// Finds the scale of least squared error, weighted as [`q4_moments`] says: of each candidate's codes the best scale is known (least squares), and with
/// it how much of the group they explain. The best is refitted with its scale rounded to f16.
fn encode_q4(group: &[f32; GROUP], codes: &mut [u8]) -> f16 {
    let extreme = extreme(group);
    let mut best = (0.0, f16::ZERO);
    if extreme != 0.0 {
        let per_step = 1.0 / extreme;
        for candidate in Q4_CANDIDATES {
            let (with_value, with_self) = q4_moments(group, candidate * per_step);
            // Not 0: the extreme has a code of at least 6.
            let fit = with_value / with_self;
            let explained = with_value * fit;
            if explained > best.0 {
                best = (explained, f16::from_f32(fit));
            }
        }
        // The codes that fit the rounded scale may have a better scale again; the error decides.
        let (with_value, with_self) = q4_moments(group, inverse(best.1));
        let refit = f16::from_f32(if with_self > 0.0 { with_value / with_self } else { 0.0 });
        let gain = |scale: f16, (with_value, with_self): (f32, f32)| {
            let scale = scale.to_f32();
            scale * (2.0 * with_value - scale * with_self)
        };
        if refit != best.1 && gain(refit, q4_moments(group, inverse(refit))) > gain(best.1, (with_value, with_self)) {
            best.1 = refit;
        }
    }
    let inverse = inverse(best.1);
    let nibbles: [u8; GROUP] = std::array::from_fn(|i| (q4_code(group[i], inverse) + 8.0) as i32 as u8);
    for j in 0..4 {
        for b in 0..4 {
            codes[4 * j + b] = nibbles[8 * j + b] | nibbles[8 * j + 4 + b] << 4;
        }
    }
    best.1
}
