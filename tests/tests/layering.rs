//! Who may use whom, read from the source's own lines (see the design in `runtime/src/lib.rs`).

use std::fs;
use std::path::{Path, PathBuf};

/// A part of the runtime and what it must not name.
const RULES: [(&str, &[&str]); 7] = [
    (
        "runtime/src/gpu",
        &["crate::kernels", "crate::model", "crate::engine", "crate::config", "crate::text", "crate::weights"],
    ),
    ("runtime/src/kernels", &["wgpu", "crate::model", "crate::engine", "crate::config", "crate::text", "Checkpoint"]),
    ("runtime/src/model", &["wgpu", "crate::engine", "crate::text", "crate::files"]),
    ("runtime/src/engine", &["wgpu", "crate::kernels"]),
    ("runtime/src/weights", &["wgpu", "crate::gpu", "crate::kernels", "crate::model", "crate::engine", "crate::text"]),
    ("runtime/src/text", &["wgpu", "crate::gpu", "crate::kernels", "crate::model", "crate::engine", "crate::weights"]),
    // What a browser does not have: the embedding programs bring these.
    ("runtime/src", &["std::thread", "std::time", "std::fs", "std::net", "std::env", "pollster"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Rust files of a folder, without modules of tests.
fn sources(folder: &Path) -> Vec<PathBuf> {
    files(folder, "rs")
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a readable folder").path();
        // A module of tests is a file or a folder; the folder's parent says that it is one.
        if path.ends_with("tests.rs") {
            continue;
        }
        if path.ends_with("tests") {
            let parent = fs::read_to_string(folder.join("mod.rs")).unwrap_or_default();
            assert!(parent.contains("#[cfg(test)]\nmod tests;"), "{} is no module of tests", path.display());
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found
}

/// The lines of a file that name one of the words, outside of comments and of its tests.
fn offences(text: &str, words: &[&str]) -> Vec<String> {
    text.split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .filter(|line| words.iter().any(|word| line.contains(word)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn each_part_names_only_what_it_may() {
    let mut checked = 0;
    for (folder, words) in RULES {
        for file in sources(&root().join(folder)) {
            let text = fs::read_to_string(&file).expect("source");
            let found = offences(&text, words);
            assert!(found.is_empty(), "{} must not name {words:?}: {found:#?}", file.display());
            checked += 1;
        }
    }
    println!("layering: {checked} files keep to {} rules", RULES.len());
    assert!(checked > 20, "the folders are where the rules say");
}

#[test]
fn the_binaries_use_the_runtime_and_never_each_other() {
    for (folder, others) in [("native/src", ["zebra_web", "wgpu::"]), ("web/src", ["zebra_native", "wgpu::"])] {
        for file in sources(&root().join(folder)) {
            let found = offences(&fs::read_to_string(&file).expect("source"), &others);
            assert!(found.is_empty(), "{}: {found:#?}", file.display());
        }
    }
}

#[test]
fn native_and_web_share_every_line_but_their_doors() {
    // What differs between the targets is what their GPU API asks for.
    let may_differ = ["runtime/src/gpu/device.rs", "runtime/src/gpu/program.rs"];
    for file in sources(&root().join("runtime/src")) {
        if !may_differ.iter().any(|name| file.ends_with(name)) {
            let found = offences(&fs::read_to_string(&file).expect("source"), &["target_arch", "target_family"]);
            assert!(found.is_empty(), "{}: {found:#?}", file.display());
        }
    }
    // The doors hold no shader and no step of their own.
    for folder in ["native/src", "web/src"] {
        for file in sources(&root().join(folder)) {
            let found = offences(&fs::read_to_string(&file).expect("source"), &["wgsl", "gpu::Kernel"]);
            assert!(found.is_empty(), "{}: {found:#?}", file.display());
        }
    }
}

#[test]
fn the_page_uses_the_package_by_its_name() {
    let mut checked = 0;
    let rules = [("web/page", "../package"), ("web/page", "/worker/door"), ("web/package/worker", "/page/")];
    for (folder, word) in rules {
        for file in files(&root().join(folder), "ts") {
            let text = fs::read_to_string(&file).expect("source");
            let found: Vec<&str> = text.lines().filter(|l| l.contains(" from \"") && l.contains(word)).collect();
            assert!(found.is_empty(), "{} must not import {word}: {found:#?}", file.display());
            checked += 1;
        }
    }
    assert!(checked > 10, "the folders are where the rules say");
}

#[test]
fn the_rule_itself_can_fail() {
    assert_eq!(offences("use crate::model::Plan;\n// use crate::model\n", &["crate::model"]).len(), 1);
}
