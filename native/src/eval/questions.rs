//! `zebra eval questions`: greedy answers that are exactly right.

use anyhow::Result;
use pollster::block_on;
use zebra_runtime::engine::{GenerateOptions, LoadOptions, SamplingOptions};
use zebra_runtime::text::Message;

use crate::args::QuestionsArgs;
use crate::load::{self, Loaded};
use crate::output;
use crate::terminal::Terminal;

pub fn run(args: &QuestionsArgs, adapter: Option<&str>) -> Result<()> {
    let terminal = Terminal::new(args.json);
    let mut questions = Vec::new();
    for (line, value) in super::json_lines(&args.file)? {
        let get = |key| super::text(&value, key, &args.file, line).map(str::to_owned);
        questions.push((get("question")?, get("answer")?));
    }
    questions.truncate(args.limit.unwrap_or(usize::MAX));
    // Questions share no more than a few tokens: snapshots would only cost. And what is right does not depend on time.
    let options = LoadOptions { snapshot_budget: 0, clock: None, ..load::options(&args.model, 1) };
    let Loaded { mut engine, .. } = load::model(args.model.model.as_deref(), adapter, &options, &terminal)?;
    let options = GenerateOptions { sampling: SamplingOptions::greedy(), ..GenerateOptions::default() };
    let bar = terminal.count("Answering", questions.len());
    let mut exact = 0;
    for (question, answer) in &questions {
        let prompt = engine.encode_chat(&[Message::new("user", question)])?;
        let given = block_on(async {
            let mut generation = engine.generate(0, &prompt, &options).await?;
            while generation.next().await?.is_some() {}
            generation.finish().await
        })?;
        if given.text.trim() == answer.trim() {
            exact += 1;
        } else {
            terminal.note(format_args!("{question}\n  expected {answer}\n  found    {}", given.text.trim()));
        }
        bar.advance();
    }
    drop(bar);
    let total = questions.len();
    if args.json {
        return output::json(&serde_json::json!({ "exact": exact, "total": total }));
    }
    Ok(output::text(&format!("{exact} of {total} exact\n"))?)
}
