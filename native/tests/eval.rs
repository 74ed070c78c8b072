//! `zebra eval` on the pocket model: exact answers and KL divergence of the quantized formats. This is CI's share, the
//! first 40 of 200 questions; the full sets are in docs/bench.md.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs the program with `--json` and takes the one line it prints.
fn zebra(args: &[&str]) -> Value {
    let run = Command::new(env!("CARGO_BIN_EXE_zebra")).args(args).arg("--json").current_dir(root()).output();
    let run = run.expect("zebra runs");
    let (said, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "zebra {args:?}: {errors}");
    assert_eq!(said.trim_end().lines().count(), 1, "one line: {said}");
    serde_json::from_str(&said).expect("JSON")
}

const MODEL: &str = "models/zebra-pocket";
const QUESTIONS: &str = "tests/fixtures/pocket-questions.jsonl";

#[test]
fn quantized_answers_stay_exact_and_predictions_close() {
    for (format, least_exact, most_kld) in [("q8", 39, 0.0002), ("q4", 33, 0.020)] {
        let report = zebra(&["eval", "questions", "--model", MODEL, "--format", format, QUESTIONS, "--limit", "40"]);
        let exact = report["exact"].as_u64().expect("a count");
        println!("{format}: {exact} of {} answers exact", report["total"]);
        assert_eq!(report["total"], 40);
        assert!(exact >= least_exact, "{format}: {exact} exact, at least {least_exact}");

        let report = zebra(&[
            "eval",
            "kld",
            "--model",
            MODEL,
            "--format",
            format,
            "--reference",
            MODEL,
            "--chats",
            QUESTIONS,
            "--limit",
            "40",
        ]);
        let kld = report["kld"].as_f64().expect("a number");
        println!("{format}: KL divergence {kld:.6} over {} positions, report {report}", report["positions"]);
        assert!(kld > 0.0 && kld <= most_kld, "{format}: KL divergence {kld}, at most {most_kld}");
        assert!(report["top1_agreement"].as_f64().is_some_and(|same| same > 0.95 && same <= 1.0));
    }
}
