//! The command line: every command, option and example, a file for each command. Values that are only wrong for a model (a
//! temperature below 0, an empty prompt) are refused where they are used, with exit code 1; what clap refuses ends with exit
//! code 2.

mod bench;
mod chat;
mod eval;
mod generate;
mod info;
mod make_random;
mod model;
mod paper;
mod quantize;
mod sampling;

use clap::{Parser, Subcommand};

pub use self::bench::{BenchArgs, BenchCommand};
pub use self::chat::ChatArgs;
pub use self::eval::{EvalArgs, EvalCommand, KldArgs, LogitsArgs, QuestionsArgs};
pub use self::generate::GenerateArgs;
pub use self::info::InfoArgs;
pub use self::make_random::{Geometry, MakeRandomArgs, RandomFormat};
pub use self::model::{Cache, Format, Kernels, ModelArgs};
pub use self::paper::{PaperArgs, PaperFormat, PaperSize};
pub use self::quantize::{QuantizeArgs, StoredFormat};
pub use self::sampling::SamplingArgs;

/// Runs Zebra-Llama language models (hybrid MLA + Mamba2) on any GPU.
#[derive(Debug, Parser)]
#[command(
    name = "zebra",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "\
Examples:
  zebra chat
  zebra generate --prompt \"What is a zebra?\" --temperature 0
  zebra info --model ./Zebra-Llama-1B-4MLA-12Mamba-DPO
  zebra quantize ./Zebra-Llama-1B-4MLA-12Mamba-DPO ./zebra-1b-q4 --format q4

Without --model the small model inside of the program is used. `zebra COMMAND --help` shows more."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// The GPU to use: its index or a part of its name, as `zebra info` lists them [default: the fastest kind]
    #[arg(long, global = true, env = "ZEBRA_ADAPTER", value_name = "NAME|INDEX", help_heading = "GPU")]
    pub adapter: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Chat(ChatArgs),
    Generate(GenerateArgs),
    Info(InfoArgs),
    Quantize(QuantizeArgs),
    MakeRandom(MakeRandomArgs),
    Bench(BenchArgs),
    Eval(EvalArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command) {
            let subcommands: Vec<_> = command.get_subcommands().filter(|c| c.get_name() != "help").collect();
            if subcommands.is_empty() || !command.is_subcommand_required_set() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{}", command.get_name());
            }
            subcommands.into_iter().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn values_that_only_a_model_refuses_are_parsed() {
        for line in [
            "zebra generate --prompt a --temperature -1 --top-p -0.5 --min-p nan --repetition-penalty -2",
            "zebra generate --raw --stop a --stop b --logit-bias 5=-inf --logit-bias 7=1.5",
            "zebra chat --adapter 0 --context 0",
            "zebra --adapter lavapipe chat",
            "zebra bench --depth 0,8192 --batch 1,8 --json --profile",
            "zebra bench --compare a.json b.json",
            "zebra bench paper --sizes 8b,1b --batch 1,48 --prompt 1024,131072 --random-context --out p",
            "zebra bench paper --only 8b-8mla --cache f16 --format q8 --memory 0.5 --read-to 0 --again --out p",
            "zebra eval logits --ids 5,17,3 --decode 8 --dump out.safetensors --step-by-step",
            "zebra eval kld --reference models/x --text book.txt --limit 3",
            "zebra make-random --preset 8b-16mla --format bf16 out",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"));
        }
    }

    #[test]
    fn contradictions_are_usage_errors() {
        for line in [
            "zebra",
            "zebra generate --prompt a --messages b.json",
            "zebra generate --messages b.json --raw",
            "zebra generate --temperature hot",
            "zebra generate --format q5",
            "zebra eval kld --reference a",
            "zebra eval kld --reference a --text b --chats c",
            "zebra eval logits --dump out",
            "zebra quantize a b --format f32",
            "zebra chat --logit-bias 5",
            "zebra bench --compare a.json",
            "zebra bench --compare a.json b.json --json",
            "zebra bench --compare a.json b.json --depth 8192",
            "zebra bench --compare a.json b.json --format q4",
            "zebra bench paper",
            "zebra bench --depth 8192 paper --out p",
            "zebra bench paper --out p --sizes 70b",
            "zebra bench paper --out p --batch 0",
            "zebra bench paper --out p --batch 1025",
            "zebra bench paper --out p --prompt 0",
            "zebra bench paper --out p --prompt 1024,2000000",
            "zebra bench paper --out p --generate 0",
            "zebra bench paper --out p --memory 0",
            "zebra bench paper --out p --memory nan",
            "zebra bench paper --out p --format f32",
            "zebra bench paper --out p --random-context --read-to 8",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
