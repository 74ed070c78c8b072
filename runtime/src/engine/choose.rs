//! Which twins of the kernels run, by a short measurement on the adapter itself: what it offers is not always what is
//! fastest on it. A model's own widths are timed, one layer of each kind with weights of zeros, by the GPU's clock. Where
//! the choice is kept from one start to the next is not known here.

use std::ops::Range;

use super::NARROW_ROWS;
use crate::Result;
use crate::config::{AttentionConfig, Layer, MixerKind, MlaConfig, ModelConfig, TensorKind};
use crate::gpu::{Dispatch, Gpu};
use crate::model::{CacheFormat, Model, Plan, PlanOptions, Row, Step, Token, Twins};
use crate::weights::Preset;

/// A twin is left out where the steps that it is for take less than this share of their time without it.
const FASTER: f64 = 0.95;

/// The two steps that are timed: of one row at this position, and of this many rows from the first position on.
const POSITION: u32 = 512;
const ROWS: u32 = 256;
/// Rows of the embedding: both steps have no head, whose product is one like the others.
const VOCAB: usize = 256;

/// How often a step is timed on each of two models; the best counts. Once so many nanoseconds are spent, no more often than
/// the least.
const TIMES: usize = 8;
const LEAST_TIMES: usize = 2;
const ENOUGH: f64 = 20e6;

/// Nanoseconds of a step with a twin and without it, for each of the steps that it makes a difference to.
type Times = Vec<[f64; 2]>;

/// Whether a measurement pays: not of a CPU, and not without a clock. What is offered stands then.
pub fn is_measurable(gpu: &Gpu) -> bool {
    gpu.has_timestamps() && !gpu.description().is_software()
}

/// The twins to run a model with, in a fraction of a second and the memory of four layers, once their shaders are compiled.
///
/// # Errors
/// What loading and running a model gives, and [`Error::Limit`](crate::Error::Limit) when the device has no timestamps.
pub async fn measure(gpu: &Gpu, config: &ModelConfig, preset: Preset, cache: CacheFormat) -> Result<Twins> {
    let bench = Bench { gpu, config: cut(config), preset, cache };
    fastest(Twins::offered(gpu), async |with, without| bench.compare(with, without).await).await
}

/// What a choice depends on beside the adapter and the program, in one line: what [`measure`] looks at of its arguments.
pub fn key(config: &ModelConfig, preset: Preset, cache: CacheFormat) -> String {
    let mut key = format!("{preset} {}", cache.name());
    let config = cut(config);
    for layer in &config.layers {
        key += &format!(", {}", sizes(&layer.mixer.kind));
        let shapes = layer.tensors(config.hidden_size).into_iter().filter(|tensor| tensor.kind == TensorKind::Matrix);
        for shape in shapes.map(|tensor| tensor.shape) {
            key += &format!(" {}x{}", shape[0], shape[1]);
        }
    }
    key
}

/// A mixer's own description: heads and states, which matrices of the same shapes may be cut into differently. Not RoPE's
/// angles, which take the same time whatever they are.
fn sizes(kind: &MixerKind) -> String {
    let mut kind = kind.clone();
    match &mut kind {
        MixerKind::Mla(MlaConfig { rope, .. }) | MixerKind::Attention(AttentionConfig { rope, .. }) => {
            rope.inv_freq.clear();
        }
        MixerKind::Mamba2(_) | MixerKind::Mamba1(_) | MixerKind::DiscreteMamba2(_) => {}
    }
    format!("{kind:?}")
}

/// Begins with all and leaves out, one after the other, what makes its steps slower.
async fn fastest(offered: Twins, mut compare: impl AsyncFnMut(Twins, Twins) -> Result<Times>) -> Result<Twins> {
    let mut twins = offered;
    for i in 0..offered.axes().len() {
        let axis = twins.axes()[i];
        if axis.on && is_slower(&compare(twins, axis.without).await?) {
            twins = axis.without;
        }
    }
    Ok(twins)
}

/// Whether its steps together, each as important as the other, gain from leaving it out.
fn is_slower(times: &[[f64; 2]]) -> bool {
    // A coarse clock may say that something took no time.
    times.iter().map(|[with, without]| without.max(1.0) / with.max(1.0)).product::<f64>() < FASTER
}

/// The first layer of each kind, and next to no vocabulary.
fn cut(config: &ModelConfig) -> ModelConfig {
    let mut layers: Vec<Layer> = Vec::new();
    for layer in &config.layers {
        if layers.iter().all(|known| known.mixer.name() != layer.mixer.name()) {
            layers.push(layer.clone());
        }
    }
    ModelConfig { vocab_size: VOCAB, vocab_rows: VOCAB, head: None, layers, ..config.clone() }
}

struct Bench<'a> {
    gpu: &'a Gpu,
    config: ModelConfig,
    preset: Preset,
    cache: CacheFormat,
}

impl Bench<'_> {
    fn context(&self) -> u32 {
        (POSITION + 1).min(self.config.max_position_embeddings as u32)
    }

    /// What the steps need: no head, and no list of another width, whose shaders would have to be compiled.
    fn plan(&self, twins: Twins) -> Result<Plan> {
        let options = PlanOptions {
            preset: self.preset,
            cache: self.cache,
            slots: 1,
            context: self.context(),
            max_rows: ROWS,
            narrow_rows: NARROW_ROWS,
            logit_rows: 1,
            twins,
        };
        let mut plan = Plan::new(&self.config, options, self.gpu.limits())?;
        for lists in [&mut plan.narrow, &mut plan.batch] {
            lists.body.clear();
        }
        for lists in [&mut plan.single, &mut plan.narrow, &mut plan.batch, &mut plan.wide] {
            lists.head.clear();
        }
        plan.sampling.clear();
        Ok(plan)
    }

    /// The times of the steps that two sets of twins run differently.
    async fn compare(&self, with: Twins, without: Twins) -> Result<Times> {
        let plans = [self.plan(with)?, self.plan(without)?];
        let last = self.context() - 1;
        let mut steps = Vec::new();
        if differ(&plans.each_ref().map(|plan| &*plan.single.body)) {
            steps.push(step(last..last + 1));
        }
        let rows = ROWS.min(self.context());
        if rows > NARROW_ROWS && differ(&plans.each_ref().map(|plan| &*plan.wide.body)) {
            steps.push(step(0..rows));
        }
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        let [with, without] = plans;
        let mut models =
            [Model::of_zeros(self.gpu.clone(), with).await?, Model::of_zeros(self.gpu.clone(), without).await?];
        let mut times = Vec::new();
        for step in &steps {
            times.push(time(&mut models, step).await?);
        }
        Ok(times)
    }
}

fn step(positions: Range<u32>) -> Step {
    let row = |position| Row { slot: 0, token: Token::Id(0), position, logits: false, sample: false };
    Step { rows: positions.map(row).collect() }
}

/// Whether two lists run different kernels.
fn differ([a, b]: &[&[Dispatch]; 2]) -> bool {
    a.len() != b.len() || a.iter().zip(*b).any(|(a, b)| a.kernel != b.kernel)
}

/// The best times of a step on two models, by turns: a GPU that was idle is slow at first, for both, and the weights of one
/// push those of the other out of its caches, as a whole model's do.
async fn time(models: &mut [Model; 2], step: &Step) -> Result<[f64; 2]> {
    let (mut best, mut spent) = ([f64::INFINITY; 2], 0.0);
    for done in 0..TIMES {
        if done >= LEAST_TIMES && spent > ENOUGH {
            break;
        }
        for (model, best) in models.iter_mut().zip(&mut best) {
            let nanoseconds = model.time(step).await?;
            *best = best.min(nanoseconds);
            spent += nanoseconds;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use pollster::block_on;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{CONFIG_FILE, ConfigFiles, Family};
    use crate::gpu::Cooperative;

    const MATRICES: Option<Cooperative> = Some(Cooperative { side: 16, lanes: 32 });

    fn all() -> Twins {
        Twins { subgroups: true, matmul_coop: MATRICES, mla_attend_coop: MATRICES, ..Twins::portable() }
    }

    /// What is chosen where a step of one row and one of many take such times.
    fn chosen(offered: Twins, times: impl Fn(Twins) -> [f64; 2]) -> Twins {
        let compare = async |with, without| {
            let (with, without): ([f64; 2], [f64; 2]) = (times(with), times(without));
            Ok(with.into_iter().zip(without).filter(|(a, b)| a != b).map(<[f64; 2]>::from).collect())
        };
        block_on(fastest(offered, compare)).expect("times")
    }

    #[test]
    fn what_is_faster_without_is_left_out() {
        // Everything helps.
        let helps = |t: Twins| {
            let off = t.axes().iter().filter(|axis| !axis.on).count() as f64;
            [100.0 + 20.0 * off, 1e6 + 2e5 * off]
        };
        assert_eq!(chosen(all(), helps), all());
        assert_eq!(chosen(Twins::portable(), helps), Twins::portable());
        // Subgroups cost a twentieth and more of both steps together; of one of them less than that.
        let costs = |few: f64, many: f64| {
            chosen(all(), |t| if t.subgroups { [100.0, 1000.0] } else { [100.0 * few, 1000.0 * many] }).subgroups
        };
        assert!(!costs(0.94, 1.0) && !costs(0.97, 0.97) && !costs(0.5, 1.8));
        assert!(costs(0.96, 1.0) && costs(0.9, 1.1) && costs(1.0, 1.0));
        // A clock that says nothing changes nothing.
        assert_eq!(chosen(all(), |t| if t == all() { [0.0; 2] } else { [0.5; 2] }), all());
    }

    #[test]
    fn each_is_judged_beside_what_was_chosen_before_it() {
        // A prompt: 9 on matrices, 6 in int8, 4 in f32. Only without matrices is it seen that f32 is the fastest.
        let prompt = |t: Twins| match (t.matmul_coop, t.matmul_i8) {
            (Some(_), _) => 9.0,
            (None, true) => 6.0,
            (None, false) => 4.0,
        };
        let found = chosen(all(), |t| [100.0, prompt(t)]);
        assert_eq!(found, Twins { matmul_coop: None, matmul_i8: false, ..all() });
        // Int8 pays for many rows and not for one.
        let found = chosen(Twins::portable(), |t| {
            [if t.matvec_i8 { 90.0 } else { 80.0 }, if t.matmul_i8 { 500.0 } else { 900.0 }]
        });
        assert_eq!(found, Twins { matvec_i8: false, ..Twins::portable() });
    }

    #[test]
    fn an_error_is_the_measurements() {
        let compare = async |_, _| Err(crate::Error::DeviceLost("gone".into()));
        assert!(block_on(fastest(all(), compare)).is_err());
    }

    fn key_of(family: Family, config: &Value) -> String {
        let files = ConfigFiles::new([(CONFIG_FILE, config.to_string().into_bytes())]);
        let config = ModelConfig::parse(family, &files, &|_| None).expect("a configuration");
        key(&config, Preset::Q4, CacheFormat::Q8)
    }

    #[test]
    fn a_choice_is_of_heads_and_states_too() {
        let llama = |heads: usize, kv_heads: usize, theta: f64| {
            key_of(
                Family::Llama,
                &json!({
                    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                    "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": 64 / heads,
                    "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": theta, "vocab_size": 97,
                    "tie_word_embeddings": true,
                }),
            )
        };
        // Matrices of the same shapes: 4 heads of 16 columns with 2 of keys and values, or 8 of 8 with 4.
        assert_ne!(llama(4, 2, 1e4), llama(8, 4, 1e4));
        assert_eq!(llama(4, 2, 1e4), llama(4, 2, 5e5), "the same work");

        let llamba = |d_state: usize, groups: usize| {
            key_of(
                Family::Llamba,
                &json!({
                    "model_type": "llamba", "d_model": 64, "n_layer": 2, "vocab_size": 96, "tie_embeddings": true,
                    "norm_epsilon": 1e-5, "mlp_cfg": {"intermediate_size": 96},
                    "ssm_cfg": {
                        "activation": "identity", "d_state": d_state, "expand": 1, "n_qk_heads": groups, "n_v_heads": 4,
                    },
                }),
            )
        };
        assert_ne!(llamba(16, 2), llamba(8, 4));
        assert_eq!(llamba(16, 2).lines().count(), 1);
    }
}
