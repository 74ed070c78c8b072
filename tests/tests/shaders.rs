//! Every shader that a plan can run, as it is joined, is compiled by naga (native; Firefox) and by Tint (Chrome): each
//! accepts some of what the other refuses.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use naga::back::pipeline_constants::process_overrides;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use pollster::block_on;
use serde_json::{Value, json};
use zebra_runtime::config::{
    AttentionConfig, BaseAttention, DiscreteMamba2Config, Family, Layer, Mamba1Config, Mamba2Config, MixerConfig,
    MixerKind, MlaConfig, MlpConfig, MlpKind, ModelConfig, NormConfig, NormKind, Rope,
};
use zebra_runtime::engine::CacheFormat;
use zebra_runtime::gpu::{Access, Buffer, Cooperative, Dispatch, Limits, Purpose};
use zebra_runtime::kernels::add_parts::AddParts;
use zebra_runtime::kernels::gqa_append::GqaAppend;
use zebra_runtime::kernels::gqa_attend;
use zebra_runtime::kernels::gqa_combine::GqaCombine;
use zebra_runtime::kernels::half_rows::{HalfRows, bytes as half_rows_bytes};
use zebra_runtime::kernels::matmul_coop::{MatMulCoop, parts_bytes};
use zebra_runtime::kernels::mla_attend::{MlaAttend, Spans};
use zebra_runtime::kernels::mla_attend_coop::{self, StepRows};
use zebra_runtime::kernels::mla_attend_wide;
use zebra_runtime::kernels::mla_combine::MlaCombine;
use zebra_runtime::kernels::mla_combine_coop;
use zebra_runtime::kernels::mla_latent::CacheShape;
use zebra_runtime::kernels::mla_query::{MlaHeads, MlaQuery};
use zebra_runtime::kernels::mla_query_coop;
use zebra_runtime::kernels::product::{Epilogue, Norm};
use zebra_runtime::kernels::read_bandwidth::ReadBandwidth;
use zebra_runtime::kernels::rmsnorm::Columns;
use zebra_runtime::kernels::slots::Slots;
use zebra_runtime::kernels::{Matrix, Target, Twins};
use zebra_runtime::model::{Plan, PlanOptions};
use zebra_runtime::weights::{Checkpoint, Preset, WeightFormat};
use zebra_tests::files::TestFolder;
use zebra_tests::harness::report;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A model of one MLA and one Mamba2 layer with the widths of a released one.
fn released(
    hidden: usize,
    mlp: usize,
    heads: usize,
    ranks: [usize; 2],
    mla_dims: [usize; 3],
    d_xb: usize,
) -> ModelConfig {
    let [nope, rope, value] = mla_dims;
    let head_dim = hidden / heads;
    let mla = MlaConfig {
        heads,
        kv_heads: 8,
        q_lora_rank: Some(ranks[0]),
        kv_lora_rank: ranks[1],
        qk_nope_head_dim: nope,
        qk_rope_head_dim: rope,
        v_head_dim: value,
        lora_layer_norm: false,
        rope: Rope { inv_freq: vec![1.0; rope / 2], attention_scale: 1.0, softmax_scale: 1.0 },
    };
    let mamba2 = Mamba2Config {
        heads,
        head_dim,
        d_inner: hidden,
        d_xb,
        d_conv: 4,
        repeat_kv_before_conv: false,
        norm_eps: 1e-5,
    };
    let norm = |name: &str| NormConfig::rms(name, 1e-5);
    let layer = |i: usize, kind| Layer {
        input_norm: norm(&format!("{i}.input_norm")),
        mixer: MixerConfig { prefix: format!("{i}.mixer."), kind },
        post_norm: norm(&format!("{i}.post_norm")),
        mlp: MlpConfig { prefix: format!("{i}.mlp."), intermediate_size: mlp, kind: MlpKind::SwiGlu },
    };
    ModelConfig {
        family: Family::ZebraLlama,
        hidden_size: hidden,
        vocab_size: 128_256,
        vocab_rows: 128_256,
        max_position_embeddings: 131_072,
        embedding: "embed_tokens.weight".into(),
        head: None,
        layers: vec![layer(0, MixerKind::Mla(mla)), layer(1, MixerKind::Mamba2(mamba2))],
        final_norm: norm("norm"),
        base: BaseAttention { layers: 2, kv_heads: 8, head_dim },
        eos_token_ids: vec![],
        bos_token_id: None,
    }
}

/// A model of one layer with the widths of a Minitron.
fn minitron(hidden: usize, mlp: usize, heads: usize) -> ModelConfig {
    let (head_dim, rotary, kv_heads) = (128, 64, 8);
    let rope = Rope { inv_freq: vec![1.0; rotary / 2], attention_scale: 1.0, softmax_scale: 1.0 };
    let kind = MixerKind::Attention(AttentionConfig { heads, kv_heads, head_dim, rotary, rope });
    let norm = |name: &str| NormConfig {
        kind: NormKind::Layer { bias: format!("{name}.bias") },
        ..NormConfig::rms(format!("{name}.weight"), 1e-5)
    };
    let layer = Layer {
        input_norm: norm("input_norm"),
        mixer: MixerConfig { prefix: "mixer.".into(), kind },
        post_norm: norm("post_norm"),
        mlp: MlpConfig { prefix: "mlp.".into(), intermediate_size: mlp, kind: MlpKind::Relu2 },
    };
    ModelConfig {
        family: Family::Minitron,
        vocab_size: 256_000,
        vocab_rows: 256_000,
        max_position_embeddings: 4096,
        head: Some("lm_head.weight".into()),
        layers: vec![layer],
        final_norm: norm("norm"),
        base: BaseAttention { layers: 1, kv_heads, head_dim },
        ..released(hidden, mlp, heads, [32; 2], [32; 3], hidden)
    }
}

fn configurations() -> Vec<(String, ModelConfig)> {
    let folders = [
        "models/zebra-pocket",
        "tests/fixtures/tiny-gqa",
        "tests/fixtures/tiny-mha",
        "tests/fixtures/tiny-lnorm",
        "tests/fixtures/tiny-mambainllama-mamba1",
        "tests/fixtures/tiny-minitron",
        "tests/fixtures/tiny-llamba",
    ];
    let mut all: Vec<_> = folders
        .iter()
        .map(|folder| {
            let files = TestFolder::open(&root().join(folder));
            let checkpoint = block_on(Checkpoint::open(&*files)).expect(folder);
            ((*folder).to_owned(), checkpoint.config().clone())
        })
        .collect();
    all.push(("1B".into(), released(2048, 8192, 32, [1344, 128], [32, 32, 64], 512)));
    all.push(("3B".into(), released(3072, 8192, 24, [1536, 128], [64, 64, 128], 1024)));
    all.push(("8B".into(), released(4096, 14_336, 32, [2048, 160], [64, 64, 128], 1024)));
    all.push(("X-EcoMLA 8B".into(), released(4096, 14_336, 32, [2048, 816], [64, 64, 128], 1024)));
    for (name, hidden, mlp) in [("3B of Mamba1", 3072, 8192), ("8B of Mamba1", 4096, 14_336)] {
        let mut config = released(hidden, mlp, 32, [1, 1], [1, 2, 1], 1024);
        let mamba1 = Mamba1Config { d_inner: hidden, d_xb: 1024, dt_rank: hidden / 16 };
        config.layers.remove(0);
        config.layers[0].mixer.kind = MixerKind::Mamba1(mamba1);
        all.push((name.into(), config));
    }
    all.push(("Minitron 4B".into(), minitron(3072, 9216, 24)));
    all.push(("Minitron 8B".into(), minitron(4096, 16_384, 48)));
    for (name, hidden, mlp, head_dim) in
        [("Llamba 1B", 2048, 8192, 64), ("Llamba 3B", 3072, 8192, 96), ("Llamba 8B", 4096, 14_336, 128)]
    {
        let mut config = released(hidden, mlp, 32, [1, 1], [1, 2, 1], hidden);
        config.layers.remove(0);
        config.layers[0].mixer.kind =
            MixerKind::DiscreteMamba2(DiscreteMamba2Config { heads: 32, head_dim, groups: 32, d_state: 64 });
        all.push((name.into(), config));
    }
    all
}

/// One shader as a dispatch binds it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Shader {
    name: &'static str,
    source: String,
    /// The same as Chrome wants it.
    chrome: String,
    /// Values of the override constants, as bits: a set wants an order.
    constants: Vec<(&'static str, u64)>,
    /// Binding number and whether it is written.
    bindings: Vec<(u32, bool)>,
}

impl Shader {
    fn of(dispatch: &Dispatch) -> Self {
        Self {
            name: dispatch.kernel.name,
            source: dispatch.kernel.text(false),
            chrome: dispatch.kernel.text(true),
            constants: dispatch.kernel.constants.iter().map(|(name, value)| (*name, value.to_bits())).collect(),
            bindings: dispatch.bindings.iter().map(|b| (b.number, b.access == Access::ReadWrite)).collect(),
        }
    }

    fn constants(&self) -> impl Iterator<Item = (String, f64)> {
        self.constants.iter().map(|(name, bits)| ((*name).to_owned(), f64::from_bits(*bits)))
    }

    /// For `tests/browser/tint.mjs`.
    fn for_tint(&self) -> Value {
        let mut bindings = vec![json!({"binding": 1, "type": "uniform"})];
        bindings.extend(self.bindings.iter().map(|(number, written)| {
            json!({"binding": number, "type": if *written { "storage" } else { "read-only-storage" }})
        }));
        let constants: serde_json::Map<String, Value> =
            self.constants().map(|(name, value)| (name, json!(value))).collect();
        json!({
            "name": format!("{} {:?}", self.name, self.constants().collect::<Vec<_>>()),
            "source": self.chrome,
            "constants": constants,
            "bindings": bindings,
        })
    }
}

/// The shaders of every plan: models, weight and cache formats, subgroups, the plain path, and matrices that the least
/// limits split or that fit whole.
fn all_shaders() -> Vec<Shader> {
    let mut all = BTreeSet::new();
    let roomy =
        Limits { binding: 2 << 30, buffer: 4 << 30, storage_buffers: 10, workgroup_memory: 32 << 10, ..Limits::LEAST };
    // Each without int8 dot products too.
    let f32 = |twins| Twins { matvec_i8: false, matmul_i8: false, ..twins };
    let kernels = [Twins::portable(), WITH_SUBGROUPS, f32(Twins::portable()), f32(WITH_SUBGROUPS), Twins::plain()];
    for (name, config) in configurations() {
        for (preset, cache) in
            Preset::ALL.into_iter().flat_map(|p| [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8].map(|c| (p, c)))
        {
            for (limits, twins) in [Limits::LEAST, roomy].into_iter().flat_map(|l| kernels.map(|k| (l, k))) {
                let options = PlanOptions {
                    preset,
                    cache,
                    slots: 2,
                    context: 256,
                    max_rows: 64,
                    narrow_rows: 8,
                    logit_rows: 2,
                    twins,
                };
                let plan = match Plan::new(&config, options, limits) {
                    Ok(plan) => plan,
                    // The largest matrices at f32 are too large for what WebGPU promises.
                    Err(e @ zebra_runtime::Error::Limit { .. }) if limits == Limits::LEAST => {
                        report(&format!("shaders: {name} at {} under the least limits: {e}", preset.name()));
                        continue;
                    }
                    Err(e) => panic!("{name}: {e}"),
                };
                let lists = [&plan.single, &plan.narrow, &plan.batch, &plan.wide];
                let dispatches = lists.iter().flat_map(|l| l.body.iter().chain(&l.head)).chain(&plan.sampling);
                all.extend(dispatches.map(Shader::of));
            }
        }
    }
    // The one that no plan has: it measures adapters.
    let buffer = Buffer::new("data", 4096, Purpose::Control);
    let read = ReadBandwidth { data: &buffer, bytes: 4096, workgroups: 1, sums: &buffer };
    all.insert(Shader::of(&read.dispatch("test")));
    all.into_iter().collect()
}

/// What goes before and after products on cooperative matrices: shaders for every adapter, whether or not a plan has
/// them.
fn around_cooperative() -> Vec<Shader> {
    let mut all = BTreeSet::new();
    let (step, x) = (control(4 * (1 + 3 * 512)), control(512 * 96));
    let (weight, y) = (control(96), Buffer::new("half", half_rows_bytes(512, 96), Purpose::Control));
    for (norm, logit_rows) in [(false, false), (true, false), (true, true)] {
        let rows = HalfRows {
            step: &step,
            x: Columns::rows(&x, 96),
            norm: norm.then_some(Norm { weight: &weight, eps: 1e-5 }),
            y: &y,
            width: 96,
            logit_rows,
        };
        all.insert(Shader::of(&rows.dispatch("test", TARGET)));
    }
    for epilogue in [Epilogue::Store, Epilogue::Add, Epilogue::SwiGlu, Epilogue::Relu2] {
        let parts = AddParts {
            step: &step,
            x: &y,
            parts: &x,
            splits: 2,
            rows: 32,
            stride: 192,
            n: 96,
            y: Columns::rows(&x, 96),
            epilogue,
            logit_rows: false,
        };
        all.insert(Shader::of(&parts.dispatch("test", TARGET)));
    }
    all.into_iter().collect()
}

/// Attention of grouped queries: the tiny one, SmolLM2's and Llama 8B's heads, ones of no whole group, values of another
/// width; every cache format, o coded and not.
fn grouped() -> Vec<Shader> {
    let mut all = BTreeSet::new();
    let (step, other) = (control(4 * (1 + 3 * 512)), control(512 * 96));
    for (kv_heads, group, head_dim, v) in [
        (2, 2, 16, 16),
        (3, 3, 64, 64),
        (8, 4, 128, 128),
        (4, 8, 80, 80),
        (1, 1, 10, 7),
        (2, 2, 96, 32),
        (1, 8, 96, 96),
    ] {
        for (format, spans) in [CacheFormat::F32, CacheFormat::F16, CacheFormat::Q8]
            .into_iter()
            .flat_map(|f| [(f, Spans::narrow(16)), (f, Spans::wide(16))])
        {
            let (shape, heads) = (CacheShape::gqa(format, kv_heads, head_dim, v, 16), kv_heads * group);
            let append = GqaAppend {
                step: &step,
                shape,
                heads,
                rope: head_dim,
                q: Columns::rows(&other, (heads + kv_heads) * head_dim + kv_heads * v),
                k_offset: heads * head_dim,
                v_offset: (heads + kv_heads) * head_dim,
                turns: &other,
                scale: 1.0,
                query: &other,
                latents: &Slots::all(&other, 1),
            };
            all.insert(Shader::of(&append.dispatch("test", TARGET)));
            let attend = MlaAttend {
                step: &step,
                shape,
                heads,
                spans,
                query: &other,
                latents: &Slots::all(&other, 1),
                sums: &other,
                weights: &other,
            };
            all.insert(Shader::of(&attend.dispatch("test", TARGET)));
            // Teams that exchange by subgroup operations need subgroups of a size.
            let roomy = Limits { workgroup_memory: 32 << 10, subgroup: 32, ..Limits::LEAST };
            for limits in [Limits::LEAST, roomy] {
                let target = Target { limits, ..TARGET };
                if gqa_attend::fits(shape, target) {
                    all.insert(Shader::of(&gqa_attend::dispatch(&attend, "test", target)));
                }
            }
            for codes in [None, GqaCombine::can_code(shape).then_some(&other)] {
                let combine = GqaCombine {
                    step: &step,
                    shape,
                    heads,
                    spans,
                    sums: &other,
                    weights: &other,
                    o: &other,
                    o_stride: heads * v,
                    codes,
                };
                all.insert(Shader::of(&combine.dispatch("test", TARGET)));
            }
        }
    }
    all.into_iter().collect()
}

/// Products and attention on cooperative matrices, which naga alone knows: both sizes of matrices and of tiles, every
/// format and epilogue, whole and cut.
fn cooperative() -> Vec<Shader> {
    let mut all = BTreeSet::new();
    all.extend(attention());
    let (step, half) = (control(4 * (1 + 3 * 512)), Buffer::new("half", half_rows_bytes(512, 2048), Purpose::Control));
    for matrices in [Cooperative { side: 16, lanes: 32 }, Cooperative { side: 8, lanes: 8 }] {
        for format in [WeightFormat::F16, WeightFormat::Q8, WeightFormat::Q4] {
            // The last is walked in parts of k.
            for (n, k, pieces) in [(96, 96, 1), (4096, 96, 1), (4096, 96, 3), (96, 2048, 1)] {
                let limits =
                    Limits { binding: Matrix::row_bytes(format, k) * 4096u64.div_ceil(pieces), ..Limits::LEAST };
                let weight = Matrix::new("weight", format, n, k, &limits);
                let (y, parts) = (control(512 * n), Buffer::new("parts", parts_bytes(matrices, k), Purpose::Control));
                for epilogue in [Epilogue::Store, Epilogue::Add, Epilogue::SwiGlu, Epilogue::Relu2] {
                    let product = MatMulCoop {
                        step: &step,
                        x: &half,
                        weight: &weight,
                        y: Columns::rows(&y, n),
                        epilogue,
                        logit_rows: false,
                        parts: &parts,
                    };
                    // Of prompts, and of batches of one to four rows of matrices where the adapter has the memory.
                    for rows in [512, 4 * matrices.side, 3 * matrices.side, matrices.side + 1, 1] {
                        let workgroup_memory = if rows == 512 { limits.workgroup_memory } else { 48 << 10 };
                        let target = Target { limits: Limits { workgroup_memory, ..limits }, ..TARGET };
                        let dispatches = product.dispatches("test", matrices, rows, target);
                        all.extend(dispatches.iter().map(Shader::of));
                    }
                }
            }
        }
    }
    all.into_iter().collect()
}

/// The attention of [`cooperative`].
fn attention() -> Vec<Shader> {
    let mut all = BTreeSet::new();
    let (step, other) = (control(4 * (1 + 3 * 512)), control(512 * 96));
    for matrices in [Cooperative { side: 16, lanes: 32 }, Cooperative { side: 8, lanes: 8 }] {
        for format in [CacheFormat::F16, CacheFormat::Q8] {
            for (latent, rope, memory) in [(128, 32, 48 << 10), (160, 64, 40 << 10), (160, 66, 48 << 10)] {
                let attend = MlaAttend {
                    step: &step,
                    shape: CacheShape::mla(format, latent, rope, 256),
                    heads: 32,
                    spans: Spans::narrow(256),
                    query: &other,
                    latents: &Slots::all(&other, 1),
                    sums: &other,
                    weights: &other,
                };
                let limits = Limits { workgroup_memory: memory, ..Limits::LEAST };
                let target = Target { limits, ..TARGET };
                all.insert(Shader::of(&mla_attend_coop::dispatch(&attend, "test", StepRows::Apart, matrices, target)));
            }
            // An X-EcoMLA-8B's latent, a 1B's, a Zebra-8B's, and one of no whole matrices.
            for (latent, rope, heads) in [(816, 64, 32), (512, 32, 32), (160, 64, 32), (290, 10, 9)] {
                let attend = MlaAttend {
                    step: &step,
                    shape: CacheShape::mla(format, latent, rope, 16),
                    heads,
                    spans: Spans::narrow(16),
                    query: &other,
                    latents: &Slots::all(&other, 1),
                    sums: &other,
                    weights: &other,
                };
                let limits = Limits { workgroup_memory: 48 << 10, ..Limits::LEAST };
                // Of 8 x 8 only a latent of up to 512 fits.
                if mla_attend_wide::fits(attend.shape, matrices, &limits) {
                    let target = Target { limits, ..TARGET };
                    all.insert(Shader::of(&mla_attend_wide::dispatch(&attend, "test", matrices, target)));
                }
            }
            let queries = control(512 * 32 * 880);
            for weights in [WeightFormat::F16, WeightFormat::Q8, WeightFormat::Q4] {
                let limits = Limits { binding: 4 << 20, storage_buffers: 10, ..Limits::LEAST };
                let kv_b = Matrix::new("kv_b", weights, 8 * (64 + 128), 816, &limits);
                let pieces = Matrix::new("kv_b", weights, 8 * (64 + 128), 816, &Limits { binding: 1 << 20, ..limits });
                for kv_b in [kv_b, pieces] {
                    let combine = MlaCombine {
                        step: &step,
                        shape: CacheShape::mla(format, 816, 64, 16),
                        heads: MlaHeads { heads: 32, kv_heads: 8, nope: 64, v: 128 },
                        spans: Spans::wide(16),
                        sums: &other,
                        weights: &other,
                        kv_b: &kv_b,
                        o: &other,
                        o_stride: 32 * 128,
                        codes: None,
                    };
                    let target = Target { limits, ..TARGET };
                    all.insert(Shader::of(&mla_combine_coop::dispatch(&combine, "test", matrices, target)));
                    let query = MlaQuery {
                        step: &step,
                        shape: combine.shape,
                        heads: combine.heads,
                        q: &other,
                        q_stride: 32 * 128,
                        turns: &other,
                        kv_b: &kv_b,
                        scale: 1.0,
                        query: &queries,
                    };
                    all.insert(Shader::of(&mla_query_coop::dispatch(&query, "test", matrices, target)));
                }
            }
            for (kv_heads, group, head_dim) in [(8, 4, 128), (3, 3, 64), (2, 8, 80)] {
                let attend = MlaAttend {
                    step: &step,
                    shape: CacheShape::gqa(format, kv_heads, head_dim, head_dim, 16),
                    heads: kv_heads * group,
                    spans: Spans::narrow(16),
                    query: &other,
                    latents: &Slots::all(&other, 1),
                    sums: &other,
                    weights: &other,
                };
                let limits = Limits { workgroup_memory: 48 << 10, ..Limits::LEAST };
                let target = Target { limits, ..TARGET };
                for rows in [StepRows::Apart, StepRows::Runs] {
                    all.insert(Shader::of(&mla_attend_coop::dispatch(&attend, "test", rows, matrices, target)));
                }
            }
        }
    }
    all.into_iter().collect()
}

const TARGET: Target = Target { twins: WITH_SUBGROUPS, max_rows: 512, slots: 1, limits: Limits::LEAST };
const WITH_SUBGROUPS: Twins = Twins { subgroups: true, ..Twins::portable() };

fn control(words: usize) -> Buffer {
    Buffer::new("test", 4 * words as u64, Purpose::Control)
}

/// What naga says against a shader.
fn refused_by_naga(source: &str, constants: impl Iterator<Item = (String, f64)>) -> Option<String> {
    let module = match naga::front::wgsl::parse_str(source) {
        Ok(module) => module,
        Err(e) => return Some(e.emit_to_string(source)),
    };
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info = match validator.validate(&module) {
        Ok(info) => info,
        Err(e) => return Some(e.emit_to_string(source)),
    };
    let constants = constants.collect();
    process_overrides(&module, &info, Some((naga::ShaderStage::Compute, "main")), &constants)
        .err()
        .map(|e| e.to_string())
}

#[test]
fn naga_accepts_every_shader() {
    let mut shaders = all_shaders();
    shaders.extend(around_cooperative());
    shaders.extend(grouped());
    shaders.extend(cooperative());
    let mut refused = Vec::new();
    for shader in &shaders {
        if let Some(reason) = refused_by_naga(&shader.source, shader.constants()) {
            refused.push(format!("{}: {reason}", shader.name));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    report(&format!("shaders: {} accepted by naga", shaders.len()));
    let control = "@compute @workgroup_size(1) fn main() { let x: u32 = 1.5f; }";
    assert!(refused_by_naga(control, std::iter::empty()).is_some(), "the control must be refused");
}

#[test]
fn tint_accepts_every_shader() {
    let shaders: Vec<Value> =
        all_shaders().iter().chain(&around_cooperative()).chain(&grouped()).map(Shader::for_tint).collect();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let list = folder.path().join("shaders.json");
    std::fs::write(&list, serde_json::to_vec(&shaders).expect("JSON")).expect("the list is written");
    let run = Command::new("node").arg(root().join("tests/browser/tint.mjs")).arg(&list).output();
    let run = run.unwrap_or_else(|e| panic!("node could not be run ({e}): run scripts/setup-test-tools.sh"));
    let (said, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}{errors}");
    report(&format!("shaders: {}", said.trim()));
}

/// A file that nothing joins would be compiled by nobody.
#[test]
fn every_shader_file_is_part_of_a_plan() {
    let mut shaders = all_shaders();
    shaders.extend(around_cooperative());
    shaders.extend(grouped());
    shaders.extend(cooperative());
    let mut files = 0;
    for folder in ["shaders", "shaders/parts"] {
        for entry in std::fs::read_dir(root().join(folder)).expect("the folder of shaders") {
            let path = entry.expect("a readable folder").path();
            if path.extension().is_some_and(|e| e == "wgsl") {
                let text = std::fs::read_to_string(&path).expect("a shader");
                assert!(shaders.iter().any(|s| s.source.contains(&text)), "{} is in no plan", path.display());
                files += 1;
            }
        }
    }
    report(&format!("shaders: {files} files, all joined in {} shaders", shaders.len()));
}
