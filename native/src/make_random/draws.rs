//! How the values of a random checkpoint are drawn: matrices block by block, straight into the files.

use zebra_runtime::Result;
use zebra_runtime::config::{TensorKind, TensorSpec};
use zebra_runtime::weights::safetensors::Dtype;
use zebra_runtime::weights::{Place, ShardLayout, Storage, WeightFormat, scale_name};

use crate::staging::Staging;

/// How the bytes of a stored tensor are drawn.
pub enum Values {
    /// These numbers, in this type.
    Given(Vec<f32>, Dtype),
    /// Floats of a uniform distribution around 0 with this standard deviation.
    F32(f32),
    /// The same as bf16.
    Bf16(f32),
    /// int8 codes, uniform in -127..=127.
    Q8Codes,
    /// int4 codes, uniform in -8..=7.
    Q4Codes,
    /// f16 scales, each one of these.
    Scales(Box<[[u8; 2]; 256]>),
}

/// What a tensor's stored parts are filled with. Linear maps keep the variance of what they get (standard deviation
/// 1 / sqrt(inputs)), so activations neither vanish nor explode; the state-space values are those of Mamba2's own
/// initialization.
pub fn draws<'a>(
    spec: &TensorSpec,
    storage: Storage,
    layout: &'a ShardLayout,
    random: &mut Random,
) -> Vec<(Values, Place<'a>)> {
    let place = |name: &str| layout.place(name).expect("the layout was made for these tensors");
    let deviation = match (spec.kind, spec.shape.as_slice()) {
        (TensorKind::Matrix, &[_, inputs]) => 1.0 / (inputs as f32).sqrt(),
        _ => {
            let dtype = if let Storage::Plain(dtype) = storage { dtype } else { Dtype::F32 };
            return vec![(Values::Given(small_tensor(spec, random), dtype), place(&spec.name))];
        }
    };
    let preset = match storage {
        Storage::Plain(Dtype::BF16) => return vec![(Values::Bf16(deviation), place(&spec.name))],
        Storage::Plain(_) => return vec![(Values::F32(deviation), place(&spec.name))],
        Storage::Preset(preset) => preset,
    };
    // The codes' own standard deviations: of -127..=127 and of -8..=7 about 0.
    let (codes, of_codes) = match preset.format_of(&spec.name) {
        WeightFormat::Q4 => (Values::Q4Codes, 21.5f32.sqrt()),
        _ => (Values::Q8Codes, 73.6),
    };
    // Real scales differ from group to group. Their sign is drawn too: the mean of q4 codes is -1/2, and equal signs
    // would push all outputs to one side.
    let scales = std::array::from_fn(|i| {
        let sign = if i % 2 == 0 { 1.0 } else { -1.0 };
        half::f16::from_f32(sign * deviation / of_codes * (0.75 + 0.5 * i as f32 / 255.0)).to_le_bytes()
    });
    vec![(codes, place(&spec.name)), (Values::Scales(Box::new(scales)), place(&scale_name(&spec.name)))]
}

/// The values of a norm, a convolution or one of Mamba2's per-head parameters.
fn small_tensor(spec: &TensorSpec, random: &mut Random) -> Vec<f32> {
    let count = spec.elements() as usize;
    let parts: Vec<&str> = spec.name.rsplit('.').collect();
    let mut drawn = |draw: fn(f64) -> f64| (0..count).map(|_| draw(random.uniform()) as f32).collect();
    match parts[0] {
        "A_log" => drawn(|u| (1.0 + 15.0 * u).ln()),
        // The inverse of softplus, for steps spread evenly in the logarithm from 0.001 to 0.1.
        "dt_bias" => drawn(|u| {
            let dt = 0.001 * 100f64.powf(u);
            dt + (-(-dt).exp_m1()).ln()
        }),
        "bias" => vec![0.0; count],
        // Four taps: a standard deviation of 1/2.
        "weight" if parts[1] == "conv1d" => drawn(|u| (u - 0.5) * 3f64.sqrt()),
        _ => vec![1.0; count],
    }
}

/// Bytes that are drawn and written at a time.
const BLOCK: usize = 8 << 20;

pub struct Writer<'a> {
    staging: &'a mut Staging,
    block: Vec<u8>,
    done: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Writer<'a> {
    /// `done` of `total` bytes are written already.
    pub fn new(staging: &'a mut Staging, done: u64, total: u64, progress: &'a mut dyn FnMut(u64, u64)) -> Self {
        Self { staging, block: vec![0; BLOCK], done, total, progress }
    }

    /// Draws what goes to a place of a file, and writes it.
    pub fn fill(&mut self, place: Place<'_>, values: &Values, random: &mut Random) -> Result<()> {
        let mut at = 0;
        while at < place.bytes {
            let bytes = (place.bytes - at).min(BLOCK as u64) as usize;
            let block = &mut self.block[..bytes];
            match values {
                Values::Given(list, Dtype::BF16) => {
                    // Rounded to nearest by the addition of half a step.
                    let halves = list.iter().map(|value| ((value.to_bits() + 0x8000) >> 16) as u16);
                    block.copy_from_slice(&halves.flat_map(u16::to_le_bytes).collect::<Vec<u8>>());
                }
                Values::Given(list, _) => {
                    block.copy_from_slice(&list.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
                }
                Values::F32(deviation) => {
                    let width = 2.0 * 3f32.sqrt() * deviation;
                    random.fill(block);
                    for four in block.chunks_exact_mut(4) {
                        let bits = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                        // A float from 1 to 2 out of 23 random bits.
                        let value = (f32::from_bits(0x3f80_0000 | bits >> 9) - 1.5) * width;
                        four.copy_from_slice(&value.to_le_bytes());
                    }
                }
                Values::Bf16(deviation) => {
                    let step = 3f32.sqrt() * deviation / 32_768.0;
                    random.fill(block);
                    for two in block.chunks_exact_mut(2) {
                        let value = f32::from(i16::from_le_bytes([two[0], two[1]])) * step;
                        two.copy_from_slice(&((value.to_bits() >> 16) as u16).to_le_bytes());
                    }
                }
                Values::Q8Codes => {
                    random.fill(block);
                    for code in block {
                        // -128 is no code.
                        *code = if *code == 0x80 { 0x81 } else { *code };
                    }
                }
                Values::Q4Codes => random.fill(block),
                Values::Scales(table) => {
                    random.fill(block);
                    for two in block.chunks_exact_mut(2) {
                        let scale = table[usize::from(two[0])];
                        two.copy_from_slice(&scale);
                    }
                }
            }
            self.staging.write(place.file, place.offset + at, &self.block[..bytes])?;
            at += bytes as u64;
            self.done += bytes as u64;
            (self.progress)(self.done, self.total);
        }
        Ok(())
    }
}

/// Eight xorshift64 generators side by side, so that filling memory vectorizes. Good enough for weights, and for nothing
/// that needs better.
pub struct Random([u64; 8]);

impl Random {
    /// Generators of their own for each tensor, so that files do not depend on the order of drawing.
    pub fn new(seed: u64, stream: u64) -> Self {
        // splitmix64 spreads neighbouring seeds.
        let mut state = seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95);
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ z >> 31) | 1 // never the fixed point 0
        }))
    }

    fn step(&mut self) {
        for lane in &mut self.0 {
            *lane ^= *lane << 13;
            *lane ^= *lane >> 7;
            *lane ^= *lane << 17;
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        let mut whole = bytes.chunks_exact_mut(64);
        for chunk in &mut whole {
            self.step();
            for (eight, lane) in chunk.chunks_exact_mut(8).zip(self.0) {
                eight.copy_from_slice(&lane.to_le_bytes());
            }
        }
        self.step();
        for (byte, random) in whole.into_remainder().iter_mut().zip(self.0.iter().flat_map(|lane| lane.to_le_bytes())) {
            *byte = random;
        }
    }

    /// From 0 to 1.
    fn uniform(&mut self) -> f64 {
        self.step();
        (self.0[0] >> 11) as f64 / (1u64 << 53) as f64
    }
}
