//! The `zebra` binary: arguments, files, the terminal. Everything about models is in `zebra-runtime`.

mod answer;
mod args;
mod bench;
mod chat;
mod embedded;
mod eval;
mod files;
mod generate;
mod hub;
mod info;
mod load;
mod make_random;
mod messages;
mod output;
mod pipelines;
mod quantize;
mod staging;
mod terminal;
mod twins;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command, EvalCommand};
use crate::terminal::Terminal;

fn main() -> ExitCode {
    // Usage errors end here, with exit code 2.
    let cli = Cli::parse();
    without_device_select();
    terminal::log_to_stderr();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::reader_left(&error) => ExitCode::SUCCESS,
        Err(error) => {
            Terminal::new(false).error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Mesa's layer that reorders GPUs asks a Wayland server which is the main one, and without any prints two lines of
/// errors. Where there is no session to ask, it is left out; GPUs are ordered by their kind in any case.
fn without_device_select() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread runs yet that could read the environment.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let adapter = cli.adapter.as_deref();
    match &cli.command {
        Command::Chat(args) => chat::run(args, adapter),
        Command::Generate(args) => generate::run(args, adapter),
        Command::Info(args) => info::run(args, adapter),
        Command::Quantize(args) => quantize::run(args),
        Command::MakeRandom(args) => make_random::run(args),
        Command::Bench(args) => bench::run(args, adapter),
        Command::Eval(args) => match &args.command {
            EvalCommand::Logits(args) => eval::logits::run(args, adapter),
            EvalCommand::Questions(args) => eval::questions::run(args, adapter),
            EvalCommand::Kld(args) => eval::kld::run(args, adapter),
        },
    }
}
