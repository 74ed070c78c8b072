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
