//! The program from outside: exit codes, what is on stdout and what on stderr, bad input, and the model inside of it on
//! this machine's GPU.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const ZEBRA: &str = "A zebra is any of several fleet black-and-white striped African equines.";

/// Runs `zebra` with `input` on stdin.
fn zebra(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_zebra"))
        .args(arguments)
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", env!("CARGO_TARGET_TMPDIR"))
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .env_remove("ZEBRA_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that refuses its arguments does not wait for its input.
    drop(child.stdin.take().unwrap().write_all(input));
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

/// Runs `zebra`, which must succeed, and gives its stdout.
fn succeeds(arguments: &[&str], input: &[u8]) -> String {
    let output = zebra(arguments, input);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    assert!(!output.stderr.contains(&0x1b), "colours without a terminal: {}", stderr(&output));
    stdout(&output).to_owned()
}

/// Runs `zebra`, which must fail with `code`, write nothing to stdout and say `reason`.
fn fails(code: i32, reason: &str, arguments: &[&str], input: &[u8]) {
    let output = zebra(arguments, input);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
    assert_eq!(stdout(&output), "", "{arguments:?}");
    let said = stderr(&output);
    assert!(said.contains(reason), "{arguments:?}: expected \"{reason}\" in: {said}");
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
}

/// The one JSON object on the one line.
fn object(output: &str) -> Value {
    assert_eq!(output.matches('\n').count(), 1, "{output}");
    assert!(output.ends_with('\n'), "{output}");
    serde_json::from_str(output).unwrap()
}

#[test]
fn help_and_version_succeed() {
    assert!(succeeds(&["--help"], b"").contains("Examples:"));
    assert!(succeeds(&["eval", "kld", "--help"], b"").contains("zebra eval kld"));
    assert!(succeeds(&["--version"], b"").starts_with("zebra "));
}

#[test]
fn usage_errors_exit_with_2() {
    fails(2, "Usage", &[], b"");
    fails(2, "--frobnicate", &["generate", "--frobnicate"], b"");
    fails(2, "possible values: f32, f16, q8, q4", &["generate", "--prompt", "a", "--format", "q5"], b"");
    fails(2, "cannot be used with", &["generate", "--prompt", "a", "--messages", "b.json"], b"");
}

#[test]
fn bad_prompts_and_options_exit_with_1() {
    fails(1, "--prompt: expected a prompt", &["generate", "--prompt", " "], b"");
    fails(1, "stdin: expected a prompt", &["generate"], b"\n");
    fails(1, "stdin: expected UTF-8, found byte 0xff at 2", &["generate"], b"ab\xff");
    fails(1, "temperature: expected 0 to", &["generate", "--prompt", "a", "--temperature", "-1"], b"");
    fails(1, "temperature: expected 0 to", &["chat", "--temperature", "nan"], b"hi\n");
    fails(1, "top_p: expected 0 to 1", &["generate", "--prompt", "a", "--top-p", "1.5"], b"");
    fails(1, "stop: expected", &["generate", "--prompt", "a", "--stop", ""], b"");
    fails(1, "no-such-file.json", &["generate", "--messages", "no-such-file.json"], b"");
}

#[cfg(unix)]
#[test]
fn a_prompt_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let prompt = std::ffi::OsStr::from_bytes(b"zebra\xff");
    let output = Command::new(env!("CARGO_BIN_EXE_zebra")).args(["generate", "--prompt"]).arg(prompt).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--prompt: expected UTF-8"), "{}", stderr(&output));
}

#[test]
fn bad_models_and_adapters_exit_with_1() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    fails(1, "config.json", &["generate", "--prompt", "a", "--model", path], b"");
    let missing = format!("{path}/missing/folder");
    fails(1, &missing, &["generate", "--prompt", "a", "--model", &missing], b"");
    fails(1, "no-such-gpu", &["generate", "--prompt", "a", "--adapter", "no-such-gpu"], b"");
}

#[test]
fn an_answer_is_the_fixtures_and_its_json_has_every_key() {
    let text = succeeds(&["generate", "--prompt", "What is a zebra?", "--temperature", "0"], b"");
    assert_eq!(text, format!("{ZEBRA}\n"));

    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pocket-chats.json");
    let chats: Value = serde_json::from_slice(&std::fs::read(fixtures).unwrap()).unwrap();
    let arguments = ["generate", "--temperature", "0", "--seed", "7", "--json"];
    let report = object(&succeeds(&arguments, b"What is a zebra?\n"));
    let keys: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["text", "ids", "prompt_ids", "finish_reason", "seed", "usage", "timings"]);
    assert_eq!(report["text"], ZEBRA);
    assert_eq!(report["ids"], chats[0]["greedy_ids"]);
    assert_eq!(report["prompt_ids"], chats[0]["prompt_ids"]);
    assert_eq!((&report["finish_reason"], &report["seed"]), (&json!("stop"), &json!(7)));
    let usage = json!({"prompt_tokens": 20, "cached_tokens": 0, "completion_tokens": 19, "total_tokens": 39});
    assert_eq!(report["usage"], usage);
    assert!(report["timings"]["load_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn an_answer_ends_at_its_limits() {
    let arguments = ["generate", "--prompt", "What is a zebra?", "--temperature", "0", "--json"];
    let report = object(&succeeds(&[&arguments[..], &["--max-tokens", "5"]].concat(), b""));
    assert_eq!((&report["text"], &report["finish_reason"]), (&json!("A zebra is any"), &json!("length")));
    let report = object(&succeeds(&[&arguments[..], &["--stop", " black", "--stop", "xyz"]].concat(), b""));
    assert_eq!(report["text"], "A zebra is any of several fleet");
    assert_eq!(report["finish_reason"], "stop");
    // 20 tokens of prompt leave room for so many.
    let report = object(&succeeds(&[&arguments[..], &["--context", "24"]].concat(), b""));
    assert_eq!(report["finish_reason"], "length");
    fails(1, "context: ", &[&arguments[..], &["--context", "10"]].concat(), b"");
}

#[test]
fn raw_prompts_have_no_template_and_seeds_repeat() {
    let arguments = ["generate", "--prompt", "A zebra is", "--raw", "--max-tokens", "8", "--temperature", "1.5"];
    let run = |seed| object(&succeeds(&[&arguments[..], &["--json", "--seed", seed]].concat(), b""));
    let (first, again, other) = (run("11"), run("11"), run("12"));
    assert_eq!(first["prompt_ids"], json!([8186, 32, 1698, 1267, 266]), "the begin token and the text");
    assert_eq!(first["ids"], again["ids"]);
    assert_ne!(first["ids"], other["ids"]);
}

#[test]
fn a_base_model_goes_on_with_the_text() {
    let pocket = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/zebra-pocket");
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(pocket).unwrap() {
        let path = entry.unwrap().path();
        let to = folder.path().join(path.file_name().unwrap());
        match path.file_name().unwrap().to_str().unwrap() {
            "tokenizer_config.json" => {
                let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                config.as_object_mut().unwrap().remove("chat_template").expect("it has one");
                std::fs::write(to, config.to_string()).unwrap();
            }
            _ => drop(std::fs::copy(&path, to).unwrap()),
        }
    }
    let model = ["--model", folder.path().to_str().unwrap(), "--max-tokens", "8", "--temperature", "0"];
    let generate = |more: &[&str]| succeeds(&[&["generate"], &model[..], more].concat(), b"");
    let raw = generate(&["--prompt", "A zebra is", "--raw"]);
    assert_eq!(generate(&["--prompt", "A zebra is"]), raw);
    // A chat goes on with all that was written before, too.
    let first = raw.trim_end_matches('\n');
    let second = generate(&["--raw", "--prompt", &format!("A zebra is{first}\nA lion is")]);
    let chat = succeeds(&[&["chat"], &model[..]].concat(), b"A zebra is\nA lion is\n");
    assert_eq!(chat, format!("{raw}{second}"));
    // Roles would be lost.
    let file = folder.path().join("chat.json");
    std::fs::write(&file, r#"[{"role": "user", "content": "a"}]"#).unwrap();
    let chat = [&["generate", "--messages", file.to_str().unwrap()], &model[..]].concat();
    fails(1, "this checkpoint has none; give a prompt instead of messages", &chat, b"");
}

#[test]
fn a_piped_chat_answers_line_by_line_and_can_be_saved_and_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chat.json");
    let file = path.to_str().unwrap();
    let input = format!("What is a zebra?\n\n/save {file}\n/undo\nWhat is a zebra?");
    let output = succeeds(&["chat", "--temperature", "0"], input.as_bytes());
    assert_eq!(output, format!("{ZEBRA}\n{ZEBRA}\n"));

    let saved: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(saved[0], json!({"role": "user", "content": "What is a zebra?"}));
    assert_eq!((&saved[1]["role"], &saved[1]["content"]), (&json!("assistant"), &json!(ZEBRA)));

    // What was saved goes on when it is loaded. Another chat does not overwrite the file.
    let before = std::fs::read(&path).unwrap();
    let input = format!("/load {file}\n/regenerate\n");
    assert_eq!(succeeds(&["chat", "--temperature", "0"], input.as_bytes()), format!("{ZEBRA}\n"));
    fails(1, "is there already", &["chat"], format!("/save {file}\n").as_bytes());
    assert_eq!(std::fs::read(&path).unwrap(), before);

    fails(1, "stdin, line 1: expected UTF-8", &["chat"], b"\xff\n");
}

#[test]
fn a_measurement_tells_each_test_and_two_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let tests = ["--prompt", "16", "--generate", "4", "--depth", "0,8", "--batch", "1,2", "--repetitions", "2"];
    let measured = succeeds(&[&["bench", "--profile", "--json"], &tests[..]].concat(), b"");
    let report = object(&measured);
    let names: Vec<&str> = report["results"].as_array().unwrap().iter().map(|r| r["test"].as_str().unwrap()).collect();
    assert_eq!(names, ["pp16", "tg4", "tg4 x 2", "pp16 @ d8", "tg4 @ d8", "tg4 @ d8 x 2"]);
    assert!(report["results"][1]["gpu_busy"].as_f64().unwrap() > 0.0);
    let bytes = |value: &Value| value.as_f64().unwrap();
    let held = bytes(&report["allocator_bytes"]["used"]) / bytes(&report["peak_gpu_bytes"]);
    assert!((1.0..1.05).contains(&held), "the allocator holds {held} of what is planned");
    assert!(report["adapter_speed"]["gigabytes_per_second"].as_f64().unwrap() > 0.0);
    let kernels = report["results"][1]["profile"]["kernels"].as_array().unwrap();
    let count: u64 = kernels.iter().map(|k| k["dispatches"].as_u64().unwrap()).sum();
    assert_eq!(count, report["dispatches_per_token"].as_u64().unwrap());
    // Every weight is read once a token, except of the embedding all but one row.
    let bytes: f64 = kernels.iter().map(|k| k["bytes"].as_f64().unwrap()).sum();
    let weights = report["weight_bytes"].as_f64().unwrap();
    assert!((0.9..1.3).contains(&(bytes / weights)), "{bytes} bytes for weights of {weights}");

    let faster =
        measured.replace("\"test\":\"pp16\",\"tokens_per_second\":", "\"test\":\"pp16\",\"tokens_per_second\":99");
    std::fs::write(file("a.json"), &measured).unwrap();
    std::fs::write(file("b.json"), faster.replace("zebra-pocket (built in)", "other")).unwrap();
    std::fs::write(file("c.json"), "{\"model\": \"x\"}").unwrap();
    let compare = |a: &str, b: &str| zebra(&["bench", "--compare", &file(a), &file(b)], b"");
    let same = compare("a.json", "a.json");
    assert_eq!((same.status.code(), stderr(&same)), (Some(0), ""));
    assert!(stdout(&same).contains("| tg4 @ d8 x 2 |"), "{}", stdout(&same));
    assert!(stdout(&same).contains("| +0.0% |") && !stdout(&same).contains('*'), "{}", stdout(&same));
    let other = compare("a.json", "b.json");
    assert!(stdout(&other).contains("% * |") && stdout(&other).contains("\n* outside"), "{}", stdout(&other));
    let warned = "warning: the reports are not of the same thing: model \"zebra-pocket (built in)\" and \"other\"\n";
    assert_eq!(stderr(&other), warned);

    let refused = "c.json: expected a report of `zebra bench --json`";
    fails(1, refused, &["bench", "--compare", &file("a.json"), &file("c.json")], b"");
    fails(1, "missing.json", &["bench", "--compare", &file("missing.json"), &file("a.json")], b"");
    fails(2, "cannot be used with", &["bench", "--compare", "a.json", "b.json", "--profile"], b"");
}
