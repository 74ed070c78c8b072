//! Sessions over a model: slots with their histories, snapshots that bring them back, and answers that are drawn on the
//! GPU while the CPU only listens. Knows the model, the tokenizer and the sampler, and no kernel.

pub mod choose;
mod generate;
mod pace;
pub mod probe;
mod sampling;
pub mod self_test;
mod snapshot;

use std::collections::VecDeque;
use std::rc::Rc;

pub use crate::model::{CacheFormat, Twins};
pub use generate::{Abort, FinishReason, Finished, GenerateOptions, Generation, Piece};
pub use pace::{Clock, SUBMITS_AHEAD, steps_in_submit};
pub use sampling::SamplingOptions;
pub use snapshot::Snapshot;

use self::pace::Pace;
use self::snapshot::{Block, History};
use crate::config::{CONFIG_FILE, ModelConfig};
use crate::files::Files;
use crate::gpu::{Gpu, Limits};
use crate::model::{Model, Plan, PlanOptions};
use crate::text::{ChatTemplate, GenerationDefaults, Message, Tokenizer, encode_chat};
use crate::weights::{Checkpoint, Preset};
use crate::{Error, Result};

/// Steps of so many rows or fewer run matrix-vector products.
pub(crate) const NARROW_ROWS: u32 = 8;

/// Rows of a prompt that one step reads: enough to fill a GPU; fewer on a CPU, whose caches they should fit.
const CHUNK_ROWS: u32 = 512;
const SOFTWARE_CHUNK_ROWS: u32 = 64;

/// Bytes of text that one token may stand for: twice Llama 3's longest, a run of blanks.
const LONGEST_TOKEN: usize = 256;

/// The context when nobody asks for another.
const DEFAULT_CONTEXT: usize = 4096;

/// Which kernels run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// All that the adapter offers.
    #[default]
    Auto,
    /// One order of summation, whatever the number of rows: ids never depend on how a prompt is cut or batched.
    Plain,
    /// Those that were found to be the fastest ([`choose::measure`]), as far as the adapter offers them.
    Measured(Twins),
}

impl KernelChoice {
    fn twins(self, gpu: &Gpu) -> Twins {
        let offered = Twins::offered(gpu);
        match self {
            Self::Auto => offered,
            Self::Plain => Twins::plain(),
            Self::Measured(twins) => twins.within(offered),
        }
    }
}

/// How to load a model.
#[derive(Clone)]
pub struct LoadOptions {
    /// The weights' format: that of a quantized folder, else q8, when not given.
    pub preset: Option<Preset>,
    pub cache: CacheFormat,
    /// Positions of a slot: the smaller of the model's maximum and 4,096 when not given.
    pub context: Option<usize>,
    /// Sequences that can be under way at once.
    pub slots: usize,
    pub kernels: KernelChoice,
    /// GPU bytes that snapshots may hold together; the oldest go first.
    pub snapshot_budget: u64,
    /// Rows of a step; chosen by the adapter when not given.
    pub chunk_rows: Option<u32>,
    /// Rows of a step whose logits can be asked for: one for each slot when not given.
    pub logit_rows: Option<u32>,
    /// Of the newest snapshots, how many are held in host memory too: what [`Engine::revive`] starts from.
    pub mirrored: usize,
    /// With a clock a prompt is cut into submits of about 100 ms, so that whatever else the GPU draws goes on, and steps of
    /// an answer that take less than some milliseconds go several in one submit.
    pub clock: Option<Clock>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            preset: None,
            cache: CacheFormat::Q8,
            context: None,
            slots: 1,
            kernels: KernelChoice::Auto,
            snapshot_budget: 256 << 20,
            chunk_rows: None,
            logit_rows: None,
            mirrored: 0,
            clock: None,
        }
    }
}

impl LoadOptions {
    /// The plan of a model on an adapter: what [`Engine::load`] makes, and what can be counted and sized without it.
    pub fn plan(&self, checkpoint: &Checkpoint<'_>, gpu: &Gpu) -> Result<Plan> {
        self.plan_within(checkpoint, gpu, gpu.limits())
    }

    /// The plan under other limits than the adapter's: what would be needed where they do not suffice.
    pub fn plan_within(&self, checkpoint: &Checkpoint<'_>, gpu: &Gpu, limits: Limits) -> Result<Plan> {
        let config = checkpoint.config();
        Plan::new(config, self.plan_options(config, checkpoint.stored(), gpu)?, limits)
    }

    fn plan_options(&self, config: &ModelConfig, stored: Option<Preset>, gpu: &Gpu) -> Result<PlanOptions> {
        let option = |name: &str, expected: String, found: String| Error::Option { name: name.into(), expected, found };
        let most = config.max_position_embeddings;
        let context = self.context.unwrap_or(most.min(DEFAULT_CONTEXT));
        if context == 0 || context > most {
            return Err(option("context", format!("1 to {most}, the model's maximum"), context.to_string()));
        }
        if self.slots == 0 || self.slots > 1024 {
            return Err(option("slots", "1 to 1024".into(), self.slots.to_string()));
        }
        let chunk = if gpu.description().is_software() { SOFTWARE_CHUNK_ROWS } else { CHUNK_ROWS };
        let max_rows = self.chunk_rows.unwrap_or(chunk).max(self.slots as u32);
        Ok(PlanOptions {
            preset: self.preset.or(stored).unwrap_or(Preset::Q8),
            cache: self.cache,
            slots: self.slots as u32,
            context: context as u32,
            max_rows,
            narrow_rows: NARROW_ROWS,
            logit_rows: self.logit_rows.unwrap_or(self.slots as u32).min(max_rows),
            twins: self.kernels.twins(gpu),
        })
    }
}

/// What loading reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of weights on the GPU.
    Weights { done: u64, total: u64 },
    /// The weights are there; what is left are shaders.
    Shaders,
}

/// A loaded model with its tokenizer, ready to answer.
pub struct Engine {
    model: Model,
    config: ModelConfig,
    parameters: u64,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    defaults: GenerationDefaults,
    slots: Vec<Slot>,
    /// Kept by the engine itself, the one used last at the back.
    kept: VecDeque<Snapshot>,
    budget: u64,
    mirrored: usize,
    pace: Pace,
    /// Where the reading of the last prompt was cut. How rows are read together decides the order of their sums, so that
    /// an answer that goes on after a lost device cuts where its first attempt did.
    cuts: Vec<usize>,
}

/// What the CPU knows of a slot.
#[derive(Debug, Default)]
struct Slot {
    history: History,
    /// Blocks that hold the slot's first rows, in place.
    blocks: Vec<Rc<Block>>,
    /// An answer was left before its end: nobody knows the state.
    lost: bool,
}

impl Engine {
    /// Reads a checkpoint, quantizes what is not, and makes everything a step needs.
    ///
    /// # Errors
    /// A checkpoint that is not what it says, a model that does not fit ([`Error::OutOfMemory`], [`Error::Limit`]).
    pub async fn load(
        files: &dyn Files,
        gpu: Gpu,
        options: &LoadOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Engine> {
        Self::from_checkpoint(&Checkpoint::open(files).await?, gpu, options, progress).await
    }

    /// As [`Engine::load`], of a checkpoint that is open already.
    pub async fn from_checkpoint(
        checkpoint: &Checkpoint<'_>,
        gpu: Gpu,
        options: &LoadOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Engine> {
        let files = checkpoint.files();
        let (config, parameters) = (checkpoint.config().clone(), checkpoint.parameters());
        let tokenizer = Tokenizer::load(files).await?;
        check_vocabulary(&config, &tokenizer)?;
        let template = ChatTemplate::load(files).await?;
        let defaults = GenerationDefaults::load(files, &tokenizer).await?;
        let plan = options.plan(checkpoint, &gpu)?;
        let pace = Pace::new(options.clock.clone(), plan.options.max_rows);
        let model = load_model(checkpoint, gpu, plan, progress).await?;
        let slots = (0..options.slots).map(|_| Slot::default()).collect();
        Ok(Engine {
            model,
            config,
            parameters,
            tokenizer,
            template,
            defaults,
            slots,
            kept: VecDeque::new(),
            budget: options.snapshot_budget,
            mirrored: options.mirrored,
            pace,
            cuts: Vec::new(),
        })
    }

    /// Brings the model back on another device, after its own was lost. Slots are empty then; what snapshots hold in
    /// host memory stays, and [`GenerateOptions::answered`] goes on with an answer.
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub async fn revive(&mut self, files: &dyn Files, gpu: Gpu, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let checkpoint = Checkpoint::open(files).await?;
        let options = self.model.plan().options.clone();
        let options = PlanOptions { twins: options.twins.within(Twins::offered(&gpu)), ..options };
        let plan = Plan::new(checkpoint.config(), options, gpu.limits())?;
        for snapshot in &self.kept {
            snapshot.lose_gpu();
        }
        self.kept.retain(Snapshot::is_held);
        self.slots.fill_with(Slot::default);
        self.model = load_model(&checkpoint, gpu, plan, progress).await?;
        Ok(())
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Weights of the checkpoint, each stored tensor counted once.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The checkpoint's chat template; a base model has none.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Stop ids and sampling values of the checkpoint.
    pub fn defaults(&self) -> &GenerationDefaults {
        &self.defaults
    }

    /// Positions of a slot.
    pub fn context(&self) -> usize {
        self.model.plan().options.context as usize
    }

    /// The model itself, for steps of one's own: what a slot knows of its history does not follow them.
    pub fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }

    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The prompt of a text that is to be gone on with.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.check_length(text.len())?;
        self.tokenizer.encode(text, true)
    }

    /// Refuses text that no tokenizer could make fit. Cutting it into tokens would take memory of many times its size.
    fn check_length(&self, bytes: usize) -> Result<()> {
        let (need, have) = (bytes.div_ceil(LONGEST_TOKEN), self.context());
        if need > have {
            let advice = format!("a text of {bytes} bytes has more tokens than that: shorten it");
            return Err(Error::Context { need, have, advice });
        }
        Ok(())
    }

    /// The prompt of a chat, ending where the assistant's answer begins.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.check_length(messages.iter().map(|m| m.content.len()).sum())?;
        let none = || Error::Template("this checkpoint has none; give a prompt instead of messages".into());
        encode_chat(&self.tokenizer, self.template.as_ref().ok_or_else(none)?, messages, true)
    }

    /// Tokens that a slot has read.
    pub fn tokens(&self, slot: usize) -> &[u32] {
        &self.slots[slot].history.tokens
    }

    /// Forgets what a slot has read.
    pub fn reset(&mut self, slot: usize) {
        self.model.clear(slot as u32);
        self.slots[slot] = Slot::default();
    }

    /// Says that steps of one's own ([`Engine::model_mut`]) read these tokens into an empty slot, so that its snapshots and
    /// forks hold them.
    pub fn assume_read(&mut self, slot: usize, tokens: Vec<u32>) {
        self.slots[slot] = Slot { history: History { tokens, ..History::default() }, ..Slot::default() };
    }

    /// The state of a slot as a value.
    pub async fn snapshot(&mut self, slot: usize) -> Result<Snapshot> {
        let state = &mut self.slots[slot];
        if state.lost {
            return Err(Error::Snapshot(format!("slot {slot} was left in the middle of an answer; reset it")));
        }
        Snapshot::take(&self.model, slot as u32, &state.history, &mut state.blocks).await
    }

    /// Brings a slot to a snapshot's state.
    pub fn restore(&mut self, slot: usize, snapshot: &Snapshot) -> Result<()> {
        let state = &mut self.slots[slot];
        snapshot.restore(&self.model, slot as u32, &mut state.blocks)?;
        state.history = snapshot.history.clone();
        state.lost = false;
        Ok(())
    }

    /// Copies the state of one slot into another.
    pub async fn fork(&mut self, slot: usize, into: usize) -> Result<()> {
        let snapshot = self.snapshot(slot).await?;
        self.restore(into, &snapshot)
    }

    /// Fills a slot to `depth` positions with the cached rows of a snapshot, over and over: a context of a length that nobody
    /// waits for to be read, to measure decoding with. What the slot says then means nothing: only [`Engine::reset`] or
    /// [`Engine::restore`] makes it one to answer from.
    ///
    /// # Errors
    /// A depth over the context or under the snapshot's length; an empty snapshot.
    pub fn fill(&mut self, slot: usize, snapshot: &Snapshot, depth: usize) -> Result<()> {
        self.slots[slot] = Slot { lost: true, ..Slot::default() };
        snapshot.repeat(&self.model, slot as u32, depth)
    }

    /// Brings a slot as far into `prompt` as anything known reaches, short of its last token, whose logits are wanted.
    /// Returns how many tokens need not be read.
    fn rewind(&mut self, slot: usize, prompt: &[u32]) -> Result<usize> {
        let usable = |tokens: &[u32]| tokens.len() < prompt.len() && prompt.starts_with(tokens);
        let here = &self.slots[slot];
        let in_place = if !here.lost && usable(&here.history.tokens) { here.history.tokens.len() } else { 0 };
        let best = self
            .kept
            .iter()
            .enumerate()
            .filter(|(_, s)| usable(s.tokens()))
            .max_by_key(|(_, s)| s.tokens().len())
            .map(|(i, s)| (i, s.tokens().len()));
        match best {
            Some((i, len)) if len > in_place => {
                // It moves to the back: the one used last.
                if let Some(snapshot) = self.kept.remove(i) {
                    self.restore(slot, &snapshot)?;
                    self.kept.push_back(snapshot);
                }
                Ok(len)
            }
            _ if in_place > 0 => Ok(in_place),
            _ => {
                self.reset(slot);
                Ok(0)
            }
        }
    }

    /// Keeps a snapshot of a slot, and drops the oldest ones over the budget.
    async fn keep(&mut self, slot: usize) -> Result<()> {
        let need = self.model.plan().state.recurrent_bytes();
        if need > self.budget || self.slots[slot].history.tokens.is_empty() {
            return Ok(());
        }
        let tokens = &self.slots[slot].history.tokens;
        self.kept.retain(|s| s.tokens() != tokens);
        let snapshot = self.snapshot(slot).await?;
        self.kept.push_back(snapshot);
        while self.kept.len() > 1 && self.kept.iter().map(Snapshot::gpu_bytes).sum::<u64>() > self.budget {
            self.kept.pop_front();
        }
        Ok(())
    }

    /// Brings the newest snapshots to host memory, and only those.
    async fn mirror(&self) -> Result<()> {
        let newest: Vec<&Snapshot> = self.kept.iter().rev().take(self.mirrored).collect();
        for snapshot in self.kept.iter().rev().skip(self.mirrored) {
            snapshot.leave_host(&newest);
        }
        for snapshot in newest {
            snapshot.mirror().await?;
        }
        Ok(())
    }
}

/// A tokenizer must be the model's own: its ids have rows in the embedding, and what ends an answer is one of them.
fn check_vocabulary(config: &ModelConfig, tokenizer: &Tokenizer) -> Result<()> {
    let last = tokenizer.last_id().map_or(-1, i64::from);
    let wrong = |key: &str, expected: String, found: String| Error::Config {
        file: CONFIG_FILE.into(),
        key: key.into(),
        expected,
        found,
    };
    if last >= config.vocab_size as i64 {
        let expected = format!("a number above {last}, the last id of tokenizer.json");
        return Err(wrong("vocab_size", expected, config.vocab_size.to_string()));
    }
    match config.eos_token_ids.iter().find(|id| i64::from(**id) > last) {
        Some(id) => {
            let expected = format!("ids of tokenizer.json, which ends at {last}");
            Err(wrong("eos_token_id", expected, id.to_string()))
        }
        None => Ok(()),
    }
}

async fn load_model(
    checkpoint: &Checkpoint<'_>,
    gpu: Gpu,
    plan: Plan,
    progress: &mut dyn FnMut(Progress),
) -> Result<Model> {
    let total: u64 = plan.bytes().iter().map(|(_, bytes)| bytes).sum();
    let (options, limits) = (plan.options.clone(), gpu.limits());
    let progress = &mut |done, total| {
        progress(Progress::Weights { done, total });
        if done == total {
            progress(Progress::Shaders);
        }
    };
    Model::load(gpu, checkpoint, plan, progress)
        .await
        .map_err(|e| does_not_fit(e, total, checkpoint.config(), options, limits))
}

/// Adds to an out-of-memory error what the whole model needs and what would need less.
fn does_not_fit(error: Error, total: u64, config: &ModelConfig, options: PlanOptions, limits: Limits) -> Error {
    let Error::OutOfMemory { what, need, .. } = error else { return error };
    let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
    let (preset, context) = (options.preset, options.context);
    let advice = match Plan::new(config, PlanOptions { preset: Preset::Q4, ..options }, limits) {
        Ok(plan) if preset != Preset::Q4 => {
            let q4: u64 = plan.bytes().iter().map(|(_, bytes)| bytes).sum();
            format!("as q4 it would need {}", gib(q4))
        }
        _ => "a shorter context would need less".into(),
    };
    Error::OutOfMemory {
        what,
        need,
        advice: format!("the model needs {} as {preset} with a context of {context}; {advice}", gib(total)),
    }
}
