//! `zebra make-random`: a checkpoint of a released model's exact geometry with random weights, to measure sizes and
//! speed with where the released weights cannot be had. Codes and scales of the quantized formats are drawn directly:
//! nothing is quantized, and several gigabytes take seconds.
//!
//! `presets` has the models' forms and numbers, `draws` the values, `tokenizer` the text side.

mod draws;
mod presets;
mod tokenizer;

use serde_json::Value;
use zebra_runtime::Result;
use zebra_runtime::weights::safetensors::Dtype;
use zebra_runtime::weights::{Preset, ShardLayout, Storage};

use self::draws::{Random, Writer, draws};
use self::presets::Recipe;
use crate::args::{MakeRandomArgs, RandomFormat};
use crate::staging::Staging;
use crate::terminal::Terminal;

/// Runs the command.
pub fn run(args: &MakeRandomArgs) -> anyhow::Result<()> {
    let terminal = Terminal::new(false);
    let bar = terminal.bytes(&format!("Writing {}", args.out.display()));
    make(&presets::recipe(args.preset), args, &mut |done, total| bar.set(done, total))?;
    drop(bar);
    terminal.note(format_args!("Wrote {}", args.out.display()));
    Ok(())
}

/// Makes the folder. `progress` gets the bytes of weights written and their total number. Whatever fails leaves
/// nothing behind.
fn make(recipe: &Recipe, args: &MakeRandomArgs, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let specs = recipe.config()?.tensors();
    let mut staging = Staging::begin(&args.out)?;
    let text = |value: &Value| format!("{value:#}\n");
    let mut files: Vec<_> = recipe.configs.iter().map(|(name, value)| (*name, text(value))).collect();
    files.push(("generation_config.json", text(&recipe.text.generation_config())));
    files.push(("tokenizer_config.json", text(&recipe.text.tokenizer_config()?)));
    files.push(("tokenizer.json", tokenizer::tokenizer(recipe.text)));
    for (name, content) in files {
        staging.write(name, 0, content.as_bytes())?;
    }

    let (storage, shard_bytes) = match args.format {
        // One file, larger than 4 GiB, is what AMD's own tools leave behind.
        RandomFormat::F32 => (Storage::Plain(Dtype::F32), u64::MAX),
        RandomFormat::Bf16 => (Storage::Plain(Dtype::BF16), u64::MAX),
        RandomFormat::Q8 => (Storage::Preset(Preset::Q8), ShardLayout::SHARD_BYTES),
        RandomFormat::Q4 => (Storage::Preset(Preset::Q4), ShardLayout::SHARD_BYTES),
    };
    let layout = ShardLayout::new(&specs, storage, shard_bytes);
    pollster::block_on(layout.write_heads(&mut staging))?;
    let heads = layout.shards().iter().map(|shard| shard.head.len() as u64).sum();
    let mut writer = Writer::new(&mut staging, heads, layout.bytes(), progress);
    for (i, spec) in specs.iter().enumerate() {
        let mut random = Random::new(args.seed, i as u64);
        for (values, place) in draws(spec, storage, &layout, &mut random) {
            writer.fill(place, &values, &mut random)?;
        }
    }
    staging.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;

    use clap::ValueEnum;
    use futures_util::FutureExt;
    use futures_util::future::LocalBoxFuture;
    use zebra_runtime::config::{Family, TensorSpec};
    use zebra_runtime::engine::{CacheFormat, LoadOptions};
    use zebra_runtime::files::{Files, MemoryFiles};
    use zebra_runtime::gpu::{Cooperative, Gpu, Limits, Purpose};
    use zebra_runtime::model::{Model, Plan, PlanOptions, Row, Step, Token, Twins};
    use zebra_runtime::text::Tokenizer;
    use zebra_runtime::weights::{Checkpoint, GROUP, MatrixChunk, MatrixSink, WeightFormat, format};

    use super::presets::{Base, LLAMA_1B, Ranks, ZEBRA_1B, recipe, zebra};
    use super::tokenizer::{LLAMA_3, SMOLLM_2, Text};
    use super::*;
    use crate::args::{Geometry, RandomFormat};
    use crate::files::FolderFiles;

    #[test]
    fn geometries_are_the_released_ones() {
        use Family::{Llama, Llamba, MambaInLlama, Minitron, XEcoMla, ZebraLlama};
        // Parameters, those of a head in AMD's files included, cached values per token, layers that cache, and tensors:
        // of Zebra and Llama as their tables give them, of the others by the formulas of docs/families.md.
        let expected = [
            ("1b-4mla", ZebraLlama, 1.2857 + 0.2627, 640, 4, 199),
            ("1b-8mla", ZebraLlama, 1.2671 + 0.2627, 1280, 8, 187),
            ("3b-6mla", ZebraLlama, 3.3896 + 0.3940, 1152, 6, 349),
            ("3b-14mla", ZebraLlama, 3.2692 + 0.3940, 2688, 14, 325),
            ("8b-8mla", ZebraLlama, 8.3791, 1792, 8, 395),
            ("8b-16mla", ZebraLlama, 8.1857, 3584, 16, 371),
            ("llama-1b", Llama, 1.2358, 16 * 1024, 16, 146),
            ("llama-3b", Llama, 3.2127, 28 * 2048, 28, 254),
            ("llama-8b", Llama, 8.0303, 32 * 2048, 32, 291),
            ("smollm2-135m", Llama, 0.1345, 30 * 384, 30, 272),
            ("x-ecomla-1b", XEcoMla, 1.2347 + 0.2627, 16 * 544, 16, 163),
            ("x-ecomla-3b", XEcoMla, 3.2176 + 0.3940, 28 * 880, 28, 283),
            ("x-ecomla-8b", XEcoMla, 8.0376, 32 * 880, 32, 323),
            ("mambainllama-1b-50", MambaInLlama, 1.2700, 8 * 1024, 8, 178),
            ("mambainllama-3b-50", MambaInLlama, 3.3463, 14 * 2048, 14, 310),
            ("mambainllama-8b-50", MambaInLlama, 8.3014, 16 * 2048, 16, 355),
            ("mambainllama-8b-25", MambaInLlama, 8.4369, 8 * 2048, 8, 387),
            ("mambainllama-8b-12.5", MambaInLlama, 8.5047, 4 * 2048, 4, 403),
            ("mambainllama-8b-0", MambaInLlama, 8.5724, 0, 0, 419),
            ("mambainllama-8b-mamba1-50", MambaInLlama, 8.3338, 16 * 2048, 16, 419),
            ("llamba-1b", Llamba, 1.4052, 0, 0, 178),
            ("llamba-3b", Llamba, 3.5681, 0, 0, 310),
            ("llamba-8b", Llamba, 8.8412, 0, 0, 355),
            ("minitron-4b", Minitron, 4.1905, 32 * 2048, 32, 324),
            ("minitron-8b", Minitron, 8.2717, 32 * 2048, 32, 324),
        ];
        assert_eq!(Geometry::value_variants().len(), expected.len());
        for (preset, (name, family, billions, cached, caching, tensors)) in
            Geometry::value_variants().iter().zip(expected)
        {
            assert_eq!(preset.to_possible_value().map(|value| value.get_name().to_owned()).as_deref(), Some(name));
            let config = recipe(*preset).config().expect("a released geometry is valid");
            let specs = config.tensors();
            assert_eq!(config.family, family);
            let parameters: u64 = specs.iter().map(TensorSpec::elements).sum();
            assert!((parameters as f64 / 1e9 - billions).abs() < 1.1e-4, "{name}: {parameters}");
            assert_eq!(specs.len(), tensors, "{name}");
            let rows: Vec<usize> = config.layers.iter().map(|layer| layer.mixer.cache_elements()).collect();
            let found = (rows.iter().filter(|row| **row > 0).count(), config.cache_elements());
            assert_eq!(found, (caching, cached), "{name}");
        }
    }

    #[test]
    fn activations_of_a_prompts_chunk_are_small() {
        const MOST: u64 = 200_000_000;
        let limits = Limits {
            binding: 2 << 30,
            buffer: 1 << 40,
            workgroups: 65_535,
            workgroup_memory: 48 << 10,
            invocations: 1024,
            storage_buffers: 1 << 20,
            uniform_alignment: 64,
            subgroup: 32,
        };
        let activations = |model, slots, context, logit_rows, twins| {
            // What the program asks for on a GPU, see `LoadOptions`.
            let options = PlanOptions {
                preset: Preset::Q4,
                cache: CacheFormat::Q8,
                slots,
                context,
                max_rows: 512,
                narrow_rows: 8,
                logit_rows,
                twins,
            };
            let plan = Plan::new(&recipe(model).config().expect("valid"), options, limits).expect("it fits");
            plan.bytes().iter().find(|(purpose, _)| *purpose == Purpose::Activations).expect("some").1
        };
        let matrices = Some(Cooperative { side: 16, lanes: 32 });
        let units = Twins { subgroups: true, matmul_coop: matrices, mla_attend_coop: matrices, ..Twins::portable() };
        for model in [Geometry::B8Mla8, Geometry::B8Mla16] {
            for twins in [units, Twins { subgroups: true, ..Twins::portable() }, Twins::plain()] {
                for (slots, context) in [(1, 4096), (1, 131_072), (48, 4352)] {
                    let bytes = activations(model, slots, context, slots, twins);
                    println!("{model:?}, {slots} slots of {context}: {:.1} MB", bytes as f64 / 1e6);
                    // A step may hold a row of each slot: the chunked scan then a layer's state of each, and it asks for logits.
                    let most = MOST + u64::from(slots - 1) * (5 << 19);
                    assert!(bytes <= most, "{model:?}, {slots} slots of {context}, {twins}: {bytes}");
                }
            }
        }
        // Only because few rows ask for logits.
        assert!(activations(Geometry::B8Mla8, 1, 4096, 512, units) > MOST);
    }

    #[test]
    fn the_gpu_holds_what_was_planned() {
        const MIB: u64 = 1 << 20;
        let parent = tempfile::tempdir().expect("a temporary folder");
        let out = parent.path().join("model");
        make(
            &small(),
            &MakeRandomArgs { preset: Geometry::B1Mla4, format: RandomFormat::Q4, seed: 7, out: out.clone() },
            &mut |_, _| {},
        )
        .expect("makes");
        let folder = FolderFiles::open(&out).expect("the folder is there");
        for files in [&folder as &dyn Files, &crate::embedded::files().expect("the pocket model")] {
            let gpu = pollster::block_on(Gpu::open(None)).expect("an adapter");
            let checkpoint = pollster::block_on(Checkpoint::open(files)).expect("it opens");
            let plan = LoadOptions::default().plan(&checkpoint, &gpu).expect("it fits");
            let planned: u64 = plan.bytes().iter().map(|(_, bytes)| bytes).sum();
            let model = pollster::block_on(Model::load(gpu.clone(), &checkpoint, plan, &mut |_, _| {}));
            let mut model = model.expect("it loads");
            let row = Row { slot: 0, token: Token::Id(1), position: 0, logits: true, sample: true };
            let ticket = model.submit(&Step { rows: vec![row] }).expect("a step");
            pollster::block_on(model.wait(ticket)).expect("a token");

            let held = gpu.held().expect("an allocator that tells");
            let what = format!("{}: {planned} planned, {held:?}", files.describe());
            println!("{what}");
            assert_eq!(gpu.allocated().values().sum::<u64>(), planned, "{what}");
            // Beside what is planned: parameters, and the buffers that tokens come back in.
            assert!((planned..planned + planned / 20 + MIB).contains(&held.used), "{what}");
            // The last block is not full.
            assert!(held.reserved <= planned + planned / 20 + 64 * MIB, "{what}");
            drop(model);
            assert!(gpu.held().is_some_and(|left| left.used < 4 * MIB), "{what}: {:?} are left", gpu.held());
        }
    }

    /// A geometry that tests can write to the disk: the 1B's form, two layers of it.
    fn small() -> Recipe {
        const SMALL: Base =
            Base { hidden: 256, intermediate: 512, heads: 8, kv_heads: 4, head_dim: 32, layers: 2, ..LLAMA_1B };
        zebra(&SMALL, &Ranks { q: 96, ..ZEBRA_1B }, &[1])
    }

    /// Mean and standard deviation of a matrix.
    struct Moments(WeightFormat, usize, f64, f64, usize);

    impl MatrixSink for Moments {
        fn write<'a>(&'a mut self, chunk: MatrixChunk<'a>) -> LocalBoxFuture<'a, Result<()>> {
            let (format, k) = (self.0, self.1);
            let mut row = vec![0.0; k.next_multiple_of(GROUP)];
            let (w, s) = (format.row_words(k), format.row_scales(k));
            for r in 0..chunk.rows {
                format::decode_row(format, &chunk.words[r * w..][..w], &chunk.scales[r * s..][..s], &mut row);
                for &value in &row[..k] {
                    self.2 += f64::from(value);
                    self.3 += f64::from(value).powi(2);
                    self.4 += 1;
                }
            }
            async { Ok(()) }.boxed_local()
        }
    }

    #[test]
    fn random_folders_open_and_have_sensible_weights() {
        let parent = tempfile::tempdir().expect("a temporary folder");
        for format in [RandomFormat::F32, RandomFormat::Bf16, RandomFormat::Q8, RandomFormat::Q4] {
            let out = parent.path().join(format!("{format:?}"));
            let args = MakeRandomArgs { preset: Geometry::B1Mla4, format, seed: 7, out: out.clone() };
            let mut last = (0, 1);
            make(&small(), &args, &mut |done, total| last = (done, total)).expect("makes");
            let weights = fs::metadata(out.join("model.safetensors")).expect("one file").len();
            assert_eq!(last, (weights, weights));

            let files = FolderFiles::open(&out).expect("the folder is there");
            let checkpoint = pollster::block_on(Checkpoint::open(&files)).expect("it opens");
            for spec in checkpoint.tensors() {
                if let [n, k] = spec.shape[..] {
                    let format = checkpoint.stored().unwrap_or(Preset::F32).format_of(&spec.name);
                    let mut sink = Moments(format, k, 0.0, 0.0, 0);
                    pollster::block_on(checkpoint.matrix(&spec.name, n, k, format, &mut sink)).expect("finite");
                    let count = sink.4 as f64;
                    let deviation = (sink.3 / count).sqrt() * (k as f64).sqrt();
                    let mean = sink.2 / count * (k as f64).sqrt() * count.sqrt();
                    // The mean of so many draws around 0, and their deviation, in units of what is expected.
                    assert!((deviation - 1.0).abs() < 0.05, "{} {format}: {deviation}", spec.name);
                    assert!(mean.abs() < 6.0, "{} {format}: {mean}", spec.name);
                } else {
                    let values = pollster::block_on(checkpoint.vector(&spec.name, &spec.shape)).expect("finite");
                    let within = |low: f32, high: f32| values.iter().all(|v| (low..=high).contains(v));
                    let ok = match spec.name.rsplit('.').next() {
                        Some("A_log") => within(0.0, 16f32.ln() + 0.01),
                        Some("dt_bias") => within(-6.95, -2.2),
                        Some("bias") => within(0.0, 0.0),
                        _ if spec.name.contains("conv1d") => within(-0.9, 0.9) && !within(-0.5, 0.5),
                        _ => within(1.0, 1.0),
                    };
                    assert!(ok, "{}: {:?}", spec.name, &values[..4.min(values.len())]);
                }
            }
        }
        // The same seed gives the same file, another one another.
        let file = |name: &str, seed| {
            let args = MakeRandomArgs {
                preset: Geometry::B1Mla4,
                format: RandomFormat::Q4,
                seed,
                out: parent.path().join(name),
            };
            make(&small(), &args, &mut |_, _| {}).expect("makes");
            fs::read(args.out.join("model.safetensors")).expect("readable")
        };
        let (a, b) = (file("a", 7), file("b", 8));
        assert!(a == fs::read(parent.path().join("Q4/model.safetensors")).expect("readable"));
        assert!(a != b);
    }

    #[test]
    fn tokenizers_are_whole() {
        whole(
            &LLAMA_3,
            128_000,
            &[
                ("<|begin_of_text|>", 128_000),
                ("<|end_of_text|>", 128_001),
                ("<|finetune_right_pad_id|>", 128_004),
                ("<|start_header_id|>", 128_006),
                ("<|end_header_id|>", 128_007),
                ("<|eom_id|>", 128_008),
                ("<|eot_id|>", 128_009),
                ("<|python_tag|>", 128_010),
                ("<|reserved_special_token_247|>", 128_255),
            ],
        );
        whole(&SMOLLM_2, 49_152, &[("<|endoftext|>", 0), ("<|im_start|>", 1), ("<|im_end|>", 2)]);
    }

    /// Of `ordinary` tokens in the model's own vocabulary.
    fn whole(text: &Text, ordinary: usize, specials: &[(&str, u32)]) {
        let json = tokenizer::tokenizer(text);
        let value: Value = serde_json::from_str(&json).expect("JSON");
        let vocabulary = value["model"]["vocab"].as_object().expect("an object");
        assert_eq!(vocabulary.len(), ordinary);
        let ids: HashSet<u64> = vocabulary.values().filter_map(Value::as_u64).collect();
        assert_eq!((ids.len(), ids.iter().max()), (ordinary, Some(&(ordinary as u64 - 1))));
        let list = value["model"]["merges"].as_array().expect("a list");
        assert_eq!(list.len(), text.merges);
        assert_eq!(list.iter().collect::<HashSet<_>>().len(), text.merges, "a pair occurs twice");
        for pair in list {
            let [a, b] = [0, 1].map(|i| pair[i].as_str().expect("a token"));
            assert!([a, b, &format!("{a}{b}")].iter().all(|token| vocabulary.contains_key(*token)), "{pair}");
        }

        let files = MemoryFiles::new("random", vec![("tokenizer.json".into(), json.into_bytes().into())]);
        let tokenizer = pollster::block_on(Tokenizer::load(&files)).expect("it loads");
        assert_eq!(tokenizer.vocab_size(), text.vocabulary);
        for &(token, id) in specials {
            assert_eq!(tokenizer.id(token), Some(id), "{token}");
        }
        let line = "What is a zebra? Ünïcödé, 12345 🦓\n\tdone";
        let ids = tokenizer.encode(line, true).expect("encodes");
        assert_eq!(ids[0] == text.begin, text.begins);
        assert!(ids.len() < line.len(), "{} ids for {} bytes", ids.len(), line.len());
        assert_eq!(tokenizer.decode(&ids).expect("decodes"), line);
    }
}
