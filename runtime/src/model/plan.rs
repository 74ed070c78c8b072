//! The whole model planned: every buffer described, every dispatch listed, nothing allocated.

use super::mamba2::Mamba2;
use super::mla::Mla;
use super::mlp::Mlp;
use super::state::{Carried, State};
use super::work::Work;
use super::{Pass, Tensors};
use crate::config::{Layer, ModelConfig};
use crate::gpu::{Buffer, Dispatch, Limits, Purpose};
use crate::kernels::embed::Embed;
use crate::kernels::mla_attend::MOST_LATENT;
use crate::kernels::mla_latent::CacheFormat;
use crate::kernels::product::{Epilogue, Norm, Product, Width};
use crate::kernels::sample::{MOST_VOCAB, Sample, SampleBuffers};
use crate::kernels::{Target, Twins, rope};
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
    /// RoPE tables of each MLA layer; layers with one RoPE share a table.
    pub turns: Vec<(Buffer, Vec<[f32; 2]>)>,
    pub sample: SampleBuffers,
    pub single: Lists,
    pub narrow: Lists,
    /// More rows, each of a slot of its own.
    pub batch: Lists,
    pub wide: Lists,
    pub sampling: Vec<Dispatch>,
}

/// A layer's mixer; of MLA with the RoPE table it uses.
enum Mixer {
    Mla(Box<Mla>, Buffer),
    Mamba2(Box<Mamba2>),
}

struct LayerPlan {
    input_norm: Buffer,
    mixer: Mixer,
    post_norm: Buffer,
    mlp: Mlp,
}

impl LayerPlan {
    /// Whether what it adds to the residual stream can be left coded.
    fn can_code(&self, target: Target) -> bool {
        self.mlp.can_code(target)
            && match &self.mixer {
                Mixer::Mla(mla, _) => mla.can_code(target),
                Mixer::Mamba2(mamba2) => mamba2.can_code(target),
            }
    }
}

impl Plan {
    /// # Errors
    /// [`Error::Config`] for a geometry that the kernels do not cover, [`Error::Limit`] for one that the adapter does not.
    pub fn new(config: &ModelConfig, options: PlanOptions, limits: Limits) -> Result<Self> {
        check(config, &options, limits)?;
        let PlanOptions { twins, max_rows, slots, .. } = options;
        let target = Target { twins, max_rows, slots, limits };
        let mut tensors = Tensors::new(options.preset, limits);
        let hidden = config.hidden_size;
        let embedding = tensors.matrix("model.embed_tokens.weight", config.vocab_size, hidden);
        let mut turns = Vec::new();
        let layers: Vec<LayerPlan> = config
            .layers
            .iter()
            .enumerate()
            .map(|(i, layer)| {
                let prefix = format!("model.layers.{i}.");
                let norm = |tensors: &mut Tensors, tail: &str| tensors.vector(&format!("{prefix}{tail}"), &[hidden]);
                LayerPlan {
                    input_norm: norm(&mut tensors, "input_layernorm.weight"),
                    mixer: match layer {
                        Layer::Mla(m) => {
                            let table = rope::turns(&m.rope.inv_freq, m.rope.attention_scale, options.context as usize);
                            let buffer = shared_table(&mut turns, table);
                            let mla = Mla::new(m, &options, hidden, &format!("{prefix}mla."), &mut tensors);
                            Mixer::Mla(Box::new(mla), buffer)
                        }
                        Layer::Mamba2(m) => {
                            Mixer::Mamba2(Box::new(Mamba2::new(m, hidden, &format!("{prefix}mamba."), &mut tensors)))
                        }
                    },
                    post_norm: norm(&mut tensors, "post_attention_layernorm.weight"),
                    mlp: Mlp::new(hidden, config.intermediate_size, &format!("{prefix}mlp."), &mut tensors),
                }
            })
            .collect();
        let final_norm = tensors.vector("model.norm.weight", &[hidden]);
        let head = if config.tied_head {
            embedding.clone()
        } else {
            tensors.matrix("lm_head.weight", config.vocab_size, hidden)
        };

        let work = Work::new(config, &options, &limits);
        let state = State::new(config, &options);
        let request = Buffer::new("request", work.step.size(), Purpose::Control);
        let sample = SampleBuffers::new(options.slots as usize, options.logit_rows as usize);
        let can_code = layers.iter().all(|layer| layer.can_code(target));
        let lists = |width: Width| {
            let pass = Pass { width, target, coded: can_code && !width.is_tiled() };
            let step = &work.step;
            let norm = |weight| Norm { weight, eps: config.rms_norm_eps };
            // The weight of the norm that comes after so many layers.
            let norm_after = |layer: usize| layers.get(layer).map_or(&final_norm, |layer| &layer.input_norm);
            let x_codes = pass.codes_of_x(&work, norm_after(0));
            let (slots, x) = (&sample.slots, &work.x.buffer);
            let embed = Embed { request: &request, slots, step, weight: &embedding, x, x_codes };
            let mut body = embed.dispatches("model", target);
            let mut marks = Vec::new();
            for (i, (layer, carried)) in layers.iter().zip(&state.layers).enumerate() {
                let label = format!("layer{i}");
                let (input_norm, post_norm) = (norm(&layer.input_norm), norm(&layer.post_norm));
                body.extend(match (&layer.mixer, carried) {
                    (Mixer::Mla(mla, turns), Carried::Latents { buffer, .. }) => {
                        mla.dispatches(&label, &work, input_norm, post_norm.weight, turns, buffer, &options, pass)
                    }
                    (Mixer::Mamba2(mamba2), Carried::Ssm { buffer, .. }) => {
                        mamba2.dispatches(&label, &work, input_norm, post_norm.weight, buffer, pass)
                    }
                    _ => unreachable!("states are made from the same layers"),
                });
                marks.push(Mark { at: body.len(), name: format!("{label}.mixer") });
                body.extend(layer.mlp.dispatches(&label, &work, post_norm, norm_after(i + 1), pass));
                marks.push(Mark { at: body.len(), name: format!("{label}.out") });
            }
            let last = Norm { weight: &final_norm, eps: config.final_norm_eps };
            let logits = work.product(work.x.all(), Some(last), &head, work.logits.all(), Epilogue::Store);
            let head = Product { x_codes: pass.x_codes(&work), logit_rows: true, ..logits }
                .dispatches("lm_head", width, target);
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
        Ok(Self { options, tensors, work, state, request, turns, sample, single, narrow, batch, wide, sampling })
    }

    /// Every buffer of the plan, each once.
    pub fn buffers(&self) -> Vec<Buffer> {
        let mut all = self.tensors.buffers();
        all.extend(self.work.buffers());
        all.extend(self.state.buffers());
        all.push(self.request.clone());
        all.extend(self.turns.iter().map(|(buffer, _)| buffer.clone()));
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

/// The table's buffer: that of an equal table when there is one.
fn shared_table(tables: &mut Vec<(Buffer, Vec<[f32; 2]>)>, table: Vec<[f32; 2]>) -> Buffer {
    if let Some((buffer, _)) = tables.iter().find(|(_, t)| *t == table) {
        return buffer.clone();
    }
    let buffer = Buffer::new(format!("rope{}", tables.len()), 8 * table.len() as u64, Purpose::Weights);
    tables.push((buffer.clone(), table));
    buffer
}

/// What no kernel covers, or the adapter cannot hold, is refused before anything is made.
fn check(config: &ModelConfig, options: &PlanOptions, limits: Limits) -> Result<()> {
    if config.vocab_size > MOST_VOCAB {
        return Err(Error::Config {
            file: "config.json".into(),
            key: "vocab_size".into(),
            expected: format!("at most {MOST_VOCAB}"),
            found: config.vocab_size.to_string(),
        });
    }
    for (i, layer) in config.layers.iter().enumerate() {
        if let Layer::Mla(m) = layer {
            if m.kv_lora_rank > MOST_LATENT {
                return Err(Error::Config {
                    file: "hybrid_config.json".into(),
                    key: format!("kv_lora_rank of layer {i}"),
                    expected: format!("at most {MOST_LATENT}"),
                    found: m.kv_lora_rank.to_string(),
                });
            }
            let shape = super::mla::cache_shape(m, options);
            let (need, have) = (u64::from(options.slots) * shape.slot_bytes(), limits.binding.min(limits.buffer));
            if need > have {
                let fits = have / u64::from(options.slots) / (4 * shape.row_words() as u64);
                return Err(Error::Limit {
                    what: format!(
                        "latent cache of layer {i} for {} positions in {} slots",
                        options.context, options.slots
                    ),
                    limit: "largest binding".into(),
                    need,
                    have,
                    advice: format!("a context of {fits} fits"),
                });
            }
        }
    }
    Ok(())
}
