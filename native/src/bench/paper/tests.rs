use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use pollster::block_on;
use zebra_runtime::engine::{Engine, LoadOptions};
use zebra_runtime::gpu::Gpu;
use zebra_runtime::model::{Row as StepRow, Step, Token};

use super::rows::{Largest, Limit, Measured, Outcome, Refusal, Unit};
use super::run::refusal;
use super::*;
use crate::args::{BenchCommand, Cli, Command};
use crate::bench::Bench;

/// What a command line asks for.
fn args(line: &str) -> PaperArgs {
    let cli = Cli::try_parse_from(["zebra", "bench", "paper"].into_iter().chain(line.split(' ')));
    match cli.unwrap_or_else(|e| panic!("{line}: {e}")).command {
        Command::Bench(args) => match args.command {
            Some(BenchCommand::Paper(args)) => args,
            None => panic!("{line}: another command"),
        },
        other => panic!("{line}: {other:?}"),
    }
}

fn row(model: &str, prompt: u32, speed: f64) -> Row {
    let key = Key {
        model: model.into(),
        format: "q4".into(),
        cache: "q8".into(),
        batch: 48,
        prompt,
        generate: 256,
        mode: Mode::Read,
        adapter: "a GPU".into(),
    };
    let measured = Measured {
        kernels: "k".into(),
        depth: prompt,
        prompt_seconds: Some(10.0),
        decode_seconds: 2.0,
        decode_tokens_per_second: speed,
        end_to_end_tokens_per_second: Some(speed / 6.0),
        allocator_bytes: Some(3 << 30),
    };
    Row {
        key,
        driver: "driver 1".into(),
        commit: "abc".into(),
        parameters: 8_380_000_000,
        gpu_bytes: 2 << 30,
        cache_bytes_per_token: 1000,
        state_bytes_per_sequence: 1 << 20,
        percent_of_llama: 2.734,
        largest_batch: Some(Largest { batch: 99, by: Limit::Memory }),
        outcome: Outcome::Measured(measured),
    }
}

fn too_large(model: &str, prompt: u32) -> Row {
    let outcome = Outcome::DoesNotFit(Refusal::of_memory(207 << 30, Some(139 << 30)));
    Row { outcome, largest_batch: None, ..row(model, prompt, 0.0) }
}

#[test]
fn rows_that_are_asked_for_twice_are_one_and_say_how_they_are_filled() {
    let adapter = block_on(Gpu::open(None)).expect("an adapter").description().clone();
    let modes = |line: &str| {
        let keys = keys(&args(line), "8b-8mla", &adapter);
        keys.into_iter().map(|key| (key.batch, key.prompt, key.mode)).collect::<Vec<_>>()
    };
    use Mode::{Random, Read, Shared};
    assert_eq!(
        modes("--batch 4,1 --prompt 8192,8193,8192 --out o"),
        [(4, 8192, Read), (4, 8193, Shared), (1, 8192, Read), (1, 8193, Shared)]
    );
    assert_eq!(modes("--prompt 64 --read-to 0 --out o"), [(48, 64, Shared)]);
    assert_eq!(modes("--prompt 64,131072 --random-context --out o"), [(48, 64, Random), (48, 131_072, Random)]);
}

#[test]
fn rows_come_back_from_the_disk_and_are_replaced_by_their_key() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("not/there/yet");
    let mut record = Record::open(&folder).expect("opens");
    record.put(row("8b-8mla", 1024, 100.0)).expect("saved");
    record.put(too_large("llama-8b", 32_768)).expect("saved");
    record.put(row("8b-8mla", 1024, 200.0)).expect("saved");

    let again = Record::open(&folder).expect("opens");
    assert_eq!(again.rows(), [row("8b-8mla", 1024, 200.0), too_large("llama-8b", 32_768)]);
    let other = Key { generate: 128, ..row("8b-8mla", 1024, 0.0).key };
    assert!(again.get(&row("8b-8mla", 1024, 0.0).key).is_some() && again.get(&other).is_none());
    assert_eq!(fs::read_dir(&folder).expect("the folder").count(), 1, "and no partial file");

    let file = folder.join("paper.json");
    let whole = fs::read_to_string(&file).expect("there");
    fs::write(&file, &whole[..whole.len() / 2]).expect("damaged");
    let error = format!("{:#}", Record::open(&folder).expect_err("refused"));
    assert!(error.contains("paper.json: expected the rows of an earlier run"), "{error}");
}

#[test]
fn the_table_has_every_row_and_the_papers_ratios() {
    let rows = [
        row("8b-8mla", 1024, 3000.0),
        row("8b-8mla", 32_768, 2000.0),
        row("mambainllama-8b-50", 1024, 1000.0),
        Row { cache_bytes_per_token: 12_500, ..row("minitron-8b", 1024, 900.0) },
        row("llama-8b", 1024, 600.0),
        too_large("llama-8b", 32_768),
    ];
    let text = table::markdown(&rows.iter().collect::<Vec<_>>());
    for expected in [
        "q4, cache q8, 256 tokens generated, on a GPU (driver 1), commit abc\n",
        "| zebra-8b-8mla | 8.38 B | 48 | 1024 | read | 3000.0 | 500.0 | 2.00 | 3.00 | 2.0 | 1000 | 2.73% | 99 |",
        "| llama-8b | 8.38 B | 48 | 32768 | read | does not fit: the model with its cache needs 207.00 GiB, there: 139.00 \
         GiB | – | 2.00 | – | 32.2 | 1000 | 2.73% | not known |",
        "| decode throughput, by prompt | batch | context | 1024 | 32768 | the paper's, 8B |\n|---|---|---|---|---|---|\n",
        "| zebra-8b-8mla over mambainllama-8b-50 | 48 | read | 3.00 | – | 2.6–3.8 up to",
        "| zebra-8b-8mla over llama-8b | 48 | read | 5.00 | llama-8b does not fit | 3.9 at 16,384 |\n",
        "minitron-8b 12.5 times zebra-8b-8mla's",
        "- read: every sequence's prompt was really read",
    ] {
        assert!(text.contains(expected), "{expected}\nis not in\n{text}");
    }
    assert!(!text.contains("- shared:") && !text.contains("- random:"), "only what was done is explained");
    let columns = |line: &str| line.matches('|').count();
    let first_table: Vec<&str> = text.lines().skip(2).take(8).collect();
    assert!(first_table.iter().all(|line| columns(line) == 14), "{first_table:#?}");
    assert_eq!(table::markdown(&[]), "No row was measured.\n");
}

#[test]
fn the_plot_has_a_line_a_model_and_marks_what_does_not_fit() {
    let random = |mut row: Row| {
        row.key.mode = Mode::Random;
        row
    };
    let rows = [
        row("8b-8mla", 1024, 3000.0),
        row("8b-8mla", 32_768, 1500.0),
        random(row("8b-8mla", 131_072, 1000.0)),
        row("llama-8b", 1024, 600.0),
        too_large("llama-8b", 32_768),
    ];
    let text = plot::svg(&rows.iter().collect::<Vec<_>>());
    assert!(text.starts_with("<svg xmlns=") && text.ends_with("</svg>\n"));
    assert!(text.contains("prefers-color-scheme:dark") && !text.contains("NaN") && !text.contains("inf"), "{text}");
    // Two plots of three lines: two models and the random one, which is dashed there and in the legend.
    assert_eq!((text.matches("<polyline").count(), text.matches("stroke-dasharray").count()), (6, 3));
    // What does not fit has a cache and no speed.
    assert_eq!((text.matches("<circle").count(), text.matches(">×<title>").count()), (4 + 5, 1));
    assert!(text.contains("needs 207.00 GiB"), "{text}");
    // 3,000 of 4,000, at 1,024 where the axis begins.
    assert!(text.contains("points=\"80.0,125.0 "), "{text}");
    let legend = [">zebra-8b-8mla</text>", ">zebra-8b-8mla, random</text>", ">llama-8b</text>", ">× does not fit"];
    assert!(legend.iter().all(|name| text.contains(name)), "{text}");
    // Whatever is there, a plot comes of it.
    for rows in [vec![], vec![&rows[0]], vec![&rows[4]]] {
        let text = plot::svg(&rows);
        assert!(text.ends_with("</svg>\n") && !text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}

/// A folder of kept models, in which the pocket model stands for others.
fn kept(parent: &Path, names: &[&str]) -> PathBuf {
    let pocket = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/zebra-pocket");
    let models = parent.join("models");
    for name in names {
        let folder = models.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        for entry in fs::read_dir(&pocket).expect("the pocket model") {
            let from = entry.expect("an entry").path();
            fs::copy(&from, folder.join(from.file_name().expect("a name"))).expect("copied");
        }
    }
    models
}

/// The whole command on small models: what is measured, what does not fit, and that a second run measures only the rest.
#[test]
fn a_paper_is_measured_row_by_row_and_gone_on_with() {
    let parent = tempfile::tempdir().expect("a folder");
    let models = kept(parent.path(), &["8b-8mla-q8", "8b-16mla-q8"]);
    let out = parent.path().join("out");
    let line = |rest: &str| {
        let (models, out) = (models.display(), out.display());
        args(&format!("--format q8 --batch 2 --generate 4 --models {models} --out {out} {rest}"))
    };
    let rows = || Record::open(&out).expect("saved").rows().to_vec();
    run(&line("--only 8b-8mla --prompt 24,40,5000 --read-to 30"), None).expect("runs");

    let first = rows();
    assert_eq!(first.len(), 3);
    let of = |prompt: u32| first.iter().find(|row| row.key.prompt == prompt).expect("a row");
    let read = of(24).measured().expect("it fits");
    assert!(read.prompt_seconds.is_some() && read.decode_tokens_per_second > 0.0);
    assert!(read.end_to_end_tokens_per_second.expect("known") < read.decode_tokens_per_second);
    let shared = of(40).measured().expect("it fits");
    assert_eq!(
        (of(40).key.mode, shared.prompt_seconds, shared.end_to_end_tokens_per_second),
        (Mode::Shared, None, None)
    );
    let refusal = of(5000).refusal().expect("the model has 4,096 positions");
    assert_eq!((refusal.unit, refusal.need, refusal.have), (Unit::Positions, 5004, Some(4096)));
    assert!(of(24).cache_bytes_per_token > 0 && of(24).state_bytes_per_sequence > 0);
    assert!(of(24).largest_batch.is_none(), "nobody knows a CPU's memory");

    // Another model and mode: the rows that are there stay as they are.
    run(&line("--only 8b-8mla --prompt 24,1030 --random-context"), None).expect("runs");
    let same = line("--only 8b-8mla,8b-16mla --prompt 24 --random-context");
    run(&same, None).expect("runs");
    let second = rows();
    assert_eq!((second.len(), &second[..3]), (6, &first[..]));
    assert!(second[3..].iter().all(|row| row.key.mode == Mode::Random && row.measured().is_some()));
    let saved = fs::read(out.join("paper.json")).expect("saved");
    run(&same, None).expect("runs");
    assert!(fs::read(out.join("paper.json")).expect("saved") == saved, "a row was measured again");
    run(&PaperArgs { again: true, only: vec!["8b-16mla".into()], ..same }, None).expect("runs");
    let again = rows();
    assert_eq!((again.len(), &again[..5]), (6, &second[..5]));
    assert!(again[5] != second[5], "the control: no row was measured");

    // So little memory that one sequence fits and a thousand do not.
    let fits = second[0].gpu_bytes;
    let gib = 1.01 * fits as f64 / f64::from(1 << 30);
    run(&line(&format!("--only 8b-8mla --prompt 24 --batch 1,1000 --memory {gib}")), None).expect("runs");
    let third = rows();
    let of = |batch: u32| third.iter().find(|row| row.key.batch == batch).expect("a row");
    let largest = of(1).largest_batch.expect("the memory is known");
    assert!(of(1).measured().is_some() && (2..1000).contains(&largest.batch) && largest.by == Limit::Memory);
    let refusal = of(1000).refusal().expect("too large");
    assert_eq!((refusal.need, refusal.have), (of(1000).gpu_bytes, Some((gib * f64::from(1 << 30)) as u64)));

    let table = fs::read_to_string(out.join("paper.md")).expect("a table");
    assert!(table.contains("does not fit") && table.contains("| zebra-8b-16mla |"), "{table}");
    assert!(fs::read_to_string(out.join("paper.svg")).expect("a plot").contains("8b-16mla"));
    let mut names: Vec<_> = fs::read_dir(&out).expect("the folder").map(|e| e.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["paper.json", "paper.md", "paper.svg"]);
}

#[test]
fn only_what_is_too_large_is_refused() {
    let row = row("8b-8mla", 1024, 1.0);
    let of = |error: Error| refusal(&anyhow::Error::from(error).context("while loading"), &row, Some(7));
    let limit = |limit: &str| Error::Limit {
        what: "cache of layer 3".into(),
        limit: limit.into(),
        need: 5 << 30,
        have: 4 << 30,
        advice: "a context of 9 fits".into(),
    };
    let refused = of(limit("largest binding")).expect("too large");
    assert_eq!(
        refused.to_string(),
        "does not fit: cache of layer 3 (the adapter's largest binding) needs 5.00 GiB, there: 4.00 GiB"
    );
    assert_eq!(of(limit("storage buffers")).map(|r| r.unit), Some(Unit::Count));
    let memory = Error::OutOfMemory { what: "layer0.cache".into(), need: 1, advice: String::new() };
    assert_eq!(of(memory), Some(Refusal::of_memory(row.gpu_bytes, Some(7))));
    assert_eq!(of(Error::DeviceLost("gone".into())), None);
    assert_eq!(of(Error::Aborted), None);
}

#[test]
fn a_slot_filled_with_rows_decodes_as_the_one_that_read_them() {
    let gpu = block_on(Gpu::open(None)).expect("an adapter");
    let options = LoadOptions { slots: 3, context: Some(256), ..LoadOptions::default() };
    let files = crate::embedded::files().expect("the pocket model");
    let mut engine: Engine = block_on(Engine::load(&files, gpu, &options, &mut |_| {})).expect("loads");
    let vocab = engine.config().vocab_size as u32;
    let mut bench = Bench { engine: &mut engine, vocab };
    bench.read(0, 0, 20, false).expect("reads");
    bench.engine.assume_read(0, (0..20).map(|p| bench.id(p)).collect());
    let snapshot = block_on(bench.engine.snapshot(0)).expect("a snapshot");
    bench.engine.fill(1, &snapshot, 20).expect("filled");
    bench.engine.fill(2, &snapshot, 250).expect("filled");
    for depth in [19, 257] {
        assert!(bench.engine.fill(2, &snapshot, depth).is_err(), "{depth}");
    }
    let row = |slot: u32, position: u32| StepRow { slot, token: Token::Id(7), position, logits: true, sample: false };
    let step = Step { rows: vec![row(0, 20), row(1, 20), row(2, 250)] };
    let logits = block_on(bench.engine.model_mut().logits(&step, vocab as usize)).expect("a step");
    assert!(logits[0] == logits[1], "the copy is not what was read");
    assert!(logits[2].iter().all(|v| v.is_finite()) && logits[2] != logits[0]);
    // What was filled is nothing to go on from.
    assert!(block_on(bench.engine.snapshot(2)).is_err());
}
