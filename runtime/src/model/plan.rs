//! The whole model planned: every buffer described, every dispatch listed, nothing allocated.

use super::mixer::{CacheTensor, Maker, Mixer, Place, Tables, mixer};
use super::mlp::Mlp;
use super::norm::BlockNorm;
use super::state::State;
use super::work::{Room, Work};
use super::{Pass, Tensors};
use crate::config::ModelConfig;
use crate::gpu::{Buffer, Dispatch, Limits, Purpose};
use crate::kernels::embed::Embed;
use crate::kernels::mla_latent::CacheFormat;
use crate::kernels::product::{Epilogue, Product, Width};
use crate::kernels::sample::{MOST_VOCAB, Sample, SampleBuffers};
use crate::kernels::{Target, Twins};
use crate::weights::Preset;
use crate::{Error, Result};

/// What a plan is made for.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    pub preset: Preset,
    pub cache: CacheFormat,
    /// Sequences that can be under way at once.
    pub slots: u32,
    /// Positions of each.
    pub context: u32,
    /// Rows of a step.
    pub max_rows: u32,
    /// Steps of more than one row and at most so many run the narrow list.
    pub narrow_rows: u32,
    /// Rows of a step whose logits may be asked for.
    pub logit_rows: u32,
    pub twins: Twins,
}

/// A place in a list of dispatches where the residual stream can be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Dispatches before it.
    pub at: usize,
    /// `"layer3.mixer"` once the mixer was added, `"layer3.out"` once the MLP was.
    pub name: String,
}

/// Dispatches of a decoded token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DispatchCount {
    pub total: usize,
    /// Those that only the adapter's limits ask for.
    pub forced_by_limits: usize,
}

/// One list of dispatches for steps of a width.
#[derive(Debug)]
pub struct Lists {
    /// From the embedding to the last residual.
    pub body: Vec<Dispatch>,
    /// Final norm and lm_head of the rows that ask for logits.
    pub head: Vec<Dispatch>,
    /// Where the residual can be tapped in `body`.
    pub marks: Vec<Mark>,
}

/// A model's buffers and dispatches.
#[derive(Debug)]
pub struct Plan {
    pub options: PlanOptions,
    pub tensors: Tensors,
    pub work: Work,
    pub state: State,
    /// What the CPU asks for in a step, laid out as `parts/step.wgsl`.
    pub request: Buffer,
    pub tables: Tables,
    mixers: Vec<Box<dyn Mixer>>,
    pub sample: SampleBuffers,
    pub single: Lists,
    pub narrow: Lists,
    /// More rows, each of a slot of its own.
    pub batch: Lists,
    pub wide: Lists,
    pub sampling: Vec<Dispatch>,
}

#[derive(Debug)]
struct LayerPlan {
    input_norm: BlockNorm,
    mixer: Box<dyn Mixer>,
    post_norm: BlockNorm,
    mlp: Mlp,
}

impl Plan {
    /// # Errors
    /// [`Error::Config`] for a geometry that the kernels do not cover, [`Error::Limit`] for one that the adapter does not.
    pub fn new(config: &ModelConfig, options: PlanOptions, limits: Limits) -> Result<Self> {
        check(config)?;
        let PlanOptions { twins, max_rows, slots, .. } = options;
        let target = Target { twins, max_rows, slots, limits };
        let hidden = config.hidden_size;
        let mut tensors = Tensors::new(options.preset, limits);
        let embedding = tensors.matrix(&config.embedding, config.vocab_rows, hidden);
        let mut maker = Maker { options: &options, limits, hidden, tensors: &mut tensors, tables: Tables::default() };
        let mut layers = Vec::with_capacity(config.layers.len());
        for (i, layer) in config.layers.iter().enumerate() {
            layers.push(LayerPlan {
                input_norm: BlockNorm::new(&layer.input_norm, hidden, maker.tensors),
                mixer: mixer(i, &layer.mixer, &mut maker)?,
                post_norm: BlockNorm::new(&layer.post_norm, hidden, maker.tensors),
                mlp: Mlp::new(&layer.mlp, hidden, maker.tensors),
            });
        }
        let tables = maker.tables;
        let final_norm = BlockNorm::new(&config.final_norm, hidden, &mut tensors);
        let lm_head = match &config.head {
            Some(name) => tensors.matrix(name, config.vocab_rows, hidden),
            None => embedding.clone(),
        };

        let room = layers.iter().map(|layer| layer.mixer.room(&options, &limits)).fold(Room::default(), Room::max);
        let work = Work::new(config, &options, &room);
        let state = State::new(layers.iter().map(|layer| &*layer.mixer), options.slots, &limits)?;
        let request = Buffer::new("request", work.step.size(), Purpose::Control);
        let sample = SampleBuffers::new(options.slots as usize, options.logit_rows as usize);
        let can_code = layers.iter().all(|layer| layer.mlp.can_code(target) && layer.mixer.can_code(target));
        let lists = |width: Width| {
            let pass = Pass { width, target, coded: can_code && !width.is_tiled() };
            let step = &work.step;
            // The gain of the norm that comes after so many layers.
            let gain_after = |layer: usize| layers.get(layer).map_or(&final_norm, |layer| &layer.input_norm).gain();
            let x_codes = pass.codes_of_x(&work, gain_after(0));
            let (slots, x) = (&sample.slots, &work.x.buffer);
            let embed = Embed { request: &request, slots, step, weight: &embedding, x, x_codes };
            let mut body = embed.dispatches("model", target);
            let mut marks = Vec::new();
            for (i, (layer, carried)) in layers.iter().zip(&state.layers).enumerate() {
                let label = format!("layer{i}");
                let (input, norm) = layer.input_norm.input(&format!("{label}.input_norm"), &work, pass);
                body.extend(norm);
                body.extend(layer.mixer.dispatches(&Place {
                    label: &label,
                    work: &work,
                    input,
                    next: layer.post_norm.gain(),
                    state: carried,
                    options: &options,
                    pass,
                }));
                marks.push(Mark { at: body.len(), name: format!("{label}.mixer") });
                let (input, norm) = layer.post_norm.input(&format!("{label}.post_norm"), &work, pass);
                body.extend(norm);
                body.extend(layer.mlp.dispatches(&label, &work, input, gain_after(i + 1), pass));
                marks.push(Mark { at: body.len(), name: format!("{label}.out") });
            }
            let (input, norm) = final_norm.input("final_norm", &work, pass);
            let logits = work.product_of(input, &lm_head, work.logits.all(), Epilogue::Store);
            let mut head = Vec::from_iter(norm);
            head.extend(Product { logit_rows: true, ..logits }.dispatches("lm_head", width, target));
            Lists { body, head, marks }
        };
        let [single, narrow, batch, wide] = [Width::Single, Width::Narrow, Width::Batch, Width::Wide].map(lists);
        let sampling = Sample {
            step: &work.step,
            logits: &work.logits.buffer,
            stride: work.logits.stride,
            vocab: config.vocab_size,
            buffers: &sample,
        }
        .dispatches("sample", target);
        let mixers = layers.into_iter().map(|layer| layer.mixer).collect();
        Ok(Self {
            options,
            mixers,
            tensors,
            work,
            state,
            request,
            tables,
            sample,
            single,
            narrow,
            batch,
            wide,
            sampling,
        })
    }

    /// What the f32 words of a layer's carried state are, see [`Mixer::cache`].
    pub fn cache(&self, layer: usize, words: &[f32], length: usize) -> Vec<CacheTensor> {
        self.mixers[layer].cache(words, length)
    }

    /// Every buffer of the plan, each once.
    pub fn buffers(&self) -> Vec<Buffer> {
        let mut all = self.tensors.buffers();
        all.extend(self.work.buffers());
        all.extend(self.state.buffers());
        all.push(self.request.clone());
        all.extend(self.tables.0.iter().map(|(buffer, _)| buffer.clone()));
        all.extend(self.sample.buffers());
        all
    }

    /// Bytes of the plan's buffers for each purpose.
    pub fn bytes(&self) -> Vec<(Purpose, u64)> {
        let buffers = self.buffers();
        Purpose::ALL.iter().map(|&p| (p, buffers.iter().filter(|b| b.purpose() == p).map(Buffer::size).sum())).collect()
    }

    /// Dispatches of one decoded token, sampling included.
    pub fn dispatches_per_token(&self) -> DispatchCount {
        let all = || self.single.body.iter().chain(&self.single.head).chain(&self.sampling);
        DispatchCount { total: all().count(), forced_by_limits: all().filter(|d| d.forced_by_limits).count() }
    }
}

/// What no kernel covers is refused before anything is made.
fn check(config: &ModelConfig) -> Result<()> {
    if config.vocab_size > MOST_VOCAB {
        return Err(Error::Config {
            file: "config.json".into(),
            key: "vocab_size".into(),
            expected: format!("at most {MOST_VOCAB}"),
            found: config.vocab_size.to_string(),
        });
    }
    Ok(())
}
