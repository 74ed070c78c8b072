//! `sample_partial.wgsl` and `sample_final.wgsl`: from logits to the next token of each slot, in two dispatches whatever
//! the slots ask for.

use super::{STEP, Target, assert_words, bindings, dispatch, shader};
use crate::gpu::{Buffer, Cost, Dispatch, Extent, Grid, Purpose};

/// Logit biases that a slot may have.
pub const SLOT_BIAS: usize = 256;
/// Tokens that a slot remembers for penalties: the one at position p at p % `SLOT_HISTORY`.
pub const SLOT_HISTORY: usize = 256;
/// Stop tokens that a slot may have.
pub const SLOT_STOPS: usize = 16;
/// Best tokens among which a truncated draw happens, at most.
pub const CANDIDATES: usize = 1024;
/// Best tokens that a result can report.
pub const TOP_LOGPROBS: usize = 20;
/// Tokens of the largest vocabulary.
pub const MOST_VOCAB: usize = 1 << 18;

/// Lanes of `sample_partial`, and tokens of the part of a row of logits that they look at.
const PARTIAL_WG: usize = 256;
const CHUNK: usize = 4 * PARTIAL_WG;
/// Lanes of `sample_final`, one for each chunk.
const MOST_CHUNKS: usize = MOST_VOCAB / CHUNK;
/// Words of `Partial` in `parts/sample.wgsl`.
const PARTIAL: usize = 8;
/// Tokens of a lane of `sample_final`, which goes over a whole row, and its lanes at most.
const FINAL_TOKENS: usize = 32;
const FINAL_WG: usize = 1024;

// A lane of `sample_partial` has one of each.
const _: () = assert!(SLOT_BIAS == PARTIAL_WG && SLOT_HISTORY == PARTIAL_WG);

const PART: &str = shader!("parts/sample.wgsl");

/// `Settings` of `parts/sample.wgsl`. Made by [`SamplingOptions::settings`](crate::engine::sampling::SamplingOptions).
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct SlotSettings {
    pub seed: [u32; 2],
    /// 0: the best token, without a draw.
    pub inverse_temperature: f32,
    /// 0: off; at most [`CANDIDATES`].
    pub top_k: u32,
    /// 1: off.
    pub top_p: f32,
    /// 0: off.
    pub min_p: f32,
    /// 1: off.
    pub repetition: f32,
    pub presence: f32,
    pub frequency: f32,
    /// Last tokens of the context that penalties look at, at most [`SLOT_HISTORY`].
    pub window: u32,
    /// Entries of the slot's biases and stops.
    pub biases: u32,
    pub stops: u32,
    /// Tokens of the answer.
    pub max_tokens: u32,
    /// Best tokens to report, at most [`TOP_LOGPROBS`].
    pub logprobs: u32,
    pub unused: [u32; 2],
}

/// All that a slot asks of the sampler, as its buffers hold it.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleSettings {
    pub slot: SlotSettings,
    /// (token, f32 by its bits); the tokens differ. At most [`SLOT_BIAS`].
    pub bias: Vec<[u32; 2]>,
    pub stops: [u32; SLOT_STOPS],
}

/// What a logit row gave.
#[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Sampled {
    /// The token, where one was drawn.
    pub id: u32,
    /// Bits of `Sampled::SAMPLED` and so on; 0 for a row that draws nothing or whose slot is frozen.
    pub flags: u32,
    /// log softmax of the logits with biases and penalties, before temperature and truncation.
    pub logprob: f32,
    /// The token's place in the answer, from 0.
    pub index: u32,
    /// (token, log probability by its bits), best first; see [`Sampled::best`].
    pub top: [[u32; 2]; TOP_LOGPROBS],
}

impl Sampled {
    /// A token was drawn.
    pub const SAMPLED: u32 = 1;
    /// It is a stop token.
    pub const STOPPED: u32 = 2;
    /// It is the last that the answer may have.
    pub const LENGTH: u32 = 4;
    /// A logit is infinite or NaN: nothing was drawn, the slot is frozen.
    pub const NOT_FINITE: u32 = 8;

    /// Whether a flag is set.
    pub fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// The best tokens that were asked for with their log probabilities, best first.
    pub fn best(&self) -> impl Iterator<Item = (u32, f32)> + '_ {
        self.top.iter().take_while(|t| t[0] != u32::MAX).map(|t| (t[0], f32::from_bits(t[1])))
    }
}

/// What the sampler keeps for each slot, and its results.
#[derive(Debug)]
pub struct SampleBuffers {
    /// `[slots]` vec4: next token, its position, live (0 or 1), index of the token after it in the answer.
    pub slots: Buffer,
    /// `[slots]` [`SlotSettings`].
    pub settings: Buffer,
    /// `[slots, SLOT_HISTORY]`.
    pub history: Buffer,
    /// `[slots, SLOT_BIAS]` (token, f32 by its bits).
    pub bias: Buffer,
    /// `[slots, SLOT_STOPS]`.
    pub stops: Buffer,
    /// `[logit rows]` [`Sampled`].
    pub sampled: Buffer,
    /// `[logit rows, chunks]` of `Partial`, within a step.
    partials: Buffer,
}

impl SampleBuffers {
    /// Buffers for so many slots and logit rows of a step.
    pub fn new(slots: usize, rows: usize) -> Self {
        let words = |label: &str, n: usize| Buffer::new(label, 4 * n as u64, Purpose::Control);
        Self {
            slots: words("slots", slots * 4),
            settings: words("settings", slots * size_of::<SlotSettings>() / 4),
            history: words("history", slots * SLOT_HISTORY),
            bias: words("bias", slots * SLOT_BIAS * 2),
            stops: words("stops", slots * SLOT_STOPS),
            sampled: words("sampled", rows * size_of::<Sampled>() / 4),
            partials: words("partials", rows * MOST_CHUNKS * PARTIAL),
        }
    }

    /// All of them.
    pub fn buffers(&self) -> Vec<Buffer> {
        let all = [&self.slots, &self.settings, &self.history, &self.bias, &self.stops, &self.sampled, &self.partials];
        all.into_iter().cloned().collect()
    }
}

/// Draws the next token of every logit row that the step marks so. Changes the logits of these rows: biases and
/// penalties stay in them. A step may draw from a slot once.
#[derive(Debug)]
pub struct Sample<'a> {
    pub step: &'a Buffer,
    /// `[logit rows, stride]`.
    pub logits: &'a Buffer,
    /// f32 from one row of logits to the next, a multiple of 4.
    pub stride: usize,
    pub vocab: usize,
    pub buffers: &'a SampleBuffers,
}

impl Sample<'_> {
    /// # Panics
    /// When the vocabulary is empty or over [`MOST_VOCAB`]: the configuration refuses it before.
    pub fn dispatches(&self, label: &str, target: Target) -> Vec<Dispatch> {
        let (vocab, stride, b) = (self.vocab, self.stride, self.buffers);
        assert!((1..=MOST_VOCAB).contains(&vocab), "{label}: a vocabulary of {vocab}");
        assert!(vocab <= stride && stride % 4 == 0, "{label}: rows of {stride} for a vocabulary of {vocab}");
        let rows = b.sampled.size() / size_of::<Sampled>() as u64;
        let slots = b.slots.size() / 16;
        assert_words(self.logits, stride as u64, "sample.logits");
        assert_words(&b.settings, slots * size_of::<SlotSettings>() as u64 / 4, "sample.settings");
        assert_words(&b.history, slots * SLOT_HISTORY as u64, "sample.history");
        assert_words(&b.bias, slots * SLOT_BIAS as u64 * 2, "sample.bias");
        assert_words(&b.stops, slots * SLOT_STOPS as u64, "sample.stops");

        let chunks = vocab.div_ceil(CHUNK);
        assert_words(&b.partials, rows * (chunks * PARTIAL) as u64, "sample.partials");
        let each = |items: usize| Grid::new(Extent::Fixed(items as u32), Extent::LogitRows { per: 1 });
        let most = FINAL_WG.min(1 << target.limits.invocations.ilog2());
        assert!(most >= MOST_CHUNKS, "{label}: workgroups of {most}");
        let wg = vocab.div_ceil(FINAL_TOKENS).next_power_of_two().clamp(MOST_CHUNKS, most);
        vec![
            dispatch(
                label,
                "sample_partial",
                vec![shader!("sample_partial.wgsl"), PART, STEP, target.lanes(PARTIAL_WG)],
                target.constants(vec![("WG", PARTIAL_WG as f64)]),
                &[vocab as u32, stride as u32, chunks as u32],
                bindings(self.step, &[&b.slots, &b.settings, &b.history, &b.bias], &[self.logits, &b.partials]),
                each(chunks),
            )
            .costs(Cost { row_bytes: 4 * (vocab + chunks * PARTIAL), ..Cost::default() }),
            dispatch(
                label,
                "sample_final",
                vec![shader!("sample_final.wgsl"), shader!("parts/sample_best.wgsl"), PART, STEP],
                target.constants(vec![("WG", wg as f64)]),
                &[vocab as u32, (stride / 4) as u32, chunks as u32],
                bindings(
                    self.step,
                    &[&b.settings, &b.stops, self.logits, &b.partials],
                    &[&b.slots, &b.history, &b.sampled],
                ),
                each(1),
            )
            .costs(Cost { row_bytes: 4 * chunks * PARTIAL + size_of::<Sampled>(), ..Cost::default() }),
        ]
    }
}
