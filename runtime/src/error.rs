//! The one error of the runtime. Each variant names the thing, what was expected and what was found, so that a caller
//! can show it as it is; [`Error::code`] is the stable short name that crosses a worker or an HTTP boundary.

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between a checkpoint's files and an answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read: missing, unreadable, or the connection ended.
    #[error("{path}: {reason}")]
    File { path: String, reason: String },
    /// A JSON configuration lacks a key or holds a value that cannot be used.
    #[error("{file}: key \"{key}\": expected {expected}, found {found}")]
    Config { file: String, key: String, expected: String, found: String },
    /// A folder that holds some other kind of model, or none.
    #[error(
        "{path}: {found}; supported: safetensors checkpoints of Zebra-Llama (hybrid_config.json), X-EcoMLA (MLA_config.json), MambaInLlama \
             (mamba_config.json), Llama, Llamba and Minitron (config.json)"
    )]
    UnknownModel { path: String, found: String },
    /// A safetensors file that is truncated or whose header lies.
    #[error("{file}: {reason}")]
    Safetensors { file: String, reason: String },
    /// A tensor that is missing or is not what the configuration says.
    #[error("tensor \"{name}\": expected {expected}, found {found}")]
    Tensor { name: String, expected: String, found: String },
    /// A tokenizer file that cannot be used, or text that it cannot encode.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A chat template that cannot be compiled or rendered.
    #[error("chat template: {0}")]
    Template(String),
    /// A prompt that is empty or otherwise cannot be run.
    #[error("prompt: {0}")]
    Prompt(String),
    /// More tokens than the context holds.
    #[error("context: {need} tokens are needed, {have} fit; {advice}")]
    Context { need: usize, have: usize, advice: String },
    /// A sampling option outside its range.
    #[error("{name}: expected {expected}, found {found}")]
    Option { name: String, expected: String, found: String },
    /// No GPU adapter, or none of the asked name.
    #[error("no usable GPU adapter: {found}. {advice}")]
    NoAdapter { found: String, advice: String },
    /// An adapter limit that the model exceeds.
    #[error("{what}: the adapter's {limit} is {have}, {need} needed; {advice}")]
    Limit { what: String, limit: String, need: u64, have: u64, advice: String },
    /// GPU memory ran out.
    #[error("out of GPU memory: {what} needs {need} bytes; {advice}")]
    OutOfMemory { what: String, need: u64, advice: String },
    /// The GPU was lost (driver reset, unplugged, suspended).
    #[error("the GPU was lost: {0}")]
    DeviceLost(String),
    /// The GPU API refused something of ours: always a defect of this crate.
    #[error("GPU error in {what}: {reason} (please report this)")]
    Gpu { what: String, reason: String },
    /// A snapshot that belongs to another model or is no longer kept.
    #[error("snapshot: {0}")]
    Snapshot(String),
    /// The caller asked to stop.
    #[error("stopped")]
    Aborted,
}

impl Error {
    /// The stable short name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Error::File { .. } => "file",
            Error::Config { .. } | Error::UnknownModel { .. } => "bad-model",
            Error::Safetensors { .. } | Error::Tensor { .. } => "integrity",
            Error::Tokenizer(_) | Error::Template(_) => "bad-tokenizer",
            Error::Prompt(_) | Error::Option { .. } => "bad-request",
            Error::Context { .. } => "context",
            Error::NoAdapter { .. } => "no-webgpu",
            Error::Limit { .. } => "limit",
            Error::OutOfMemory { .. } => "out-of-memory",
            Error::DeviceLost(_) => "device-lost",
            Error::Gpu { .. } => "gpu",
            Error::Snapshot(_) => "snapshot",
            Error::Aborted => "aborted",
        }
    }
}
