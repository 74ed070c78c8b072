//! `--model NAME`: finds the folder of a model, and downloads it when the name is one of a hub.
//!
//! The cache is laid out as Hugging Face's own tools lay it out, so that they and this program share downloads. A
//! download that was cut off, by the network or by the user, goes on where it stopped.

mod cache;
mod client;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use zebra_runtime::config::{CONFIG_FILES, ConfigFiles, Family};

use self::cache::ModelCache;
use self::client::{Client, Failure, RemoteFile};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// How far a download is. Bytes count all files of the model, those already here included.
#[derive(Debug, Clone)]
pub struct DownloadProgress {
    /// The file that is being received.
    pub file: String,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes of the whole model, as far as it is known: the weights join once their index has been read.
    pub total: u64,
    /// Bytes a second received lately; bytes that were already here do not count.
    pub bytes_per_second: f64,
}

/// Where the hub is and how to talk to it. No `Debug`: it holds the token.
pub struct HubOptions {
    /// The hub's address without a slash at the end (`HF_ENDPOINT`).
    pub endpoint: String,
    /// Sent to the endpoint only (`HF_TOKEN`, or the file that `hf auth login` writes).
    pub token: Option<String>,
    /// The folder of `models--owner--name` folders (`HF_HUB_CACHE`, `HF_HOME`); `None` when there is no home folder.
    pub cache: Option<PathBuf>,
    /// Ask no network at all (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Failures in a row, without a new byte between them, before a download is given up.
    pub attempts: u32,
    /// The wait after the first failure; it doubles with each further one.
    pub first_delay: Duration,
    /// How long a connection may be silent.
    pub idle_timeout: Duration,
}

impl HubOptions {
    /// The options that the environment gives, by the variables of Hugging Face's own tools.
    pub fn from_env() -> Self {
        Self::from_variables(&|name| std::env::var(name).ok(), std::env::home_dir())
    }

    fn from_variables(variable: &dyn Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Self {
        let get = |names: &[&str]| {
            let mut values = names.iter().filter_map(|name| variable(name));
            values.find_map(|value| Some(value.trim().to_owned()).filter(|v| !v.is_empty()))
        };
        let hf_home = get(&["HF_HOME"])
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(get(&["XDG_CACHE_HOME"])?).join("huggingface")))
            .or_else(|| Some(home?.join(".cache").join("huggingface")));
        let token_file = get(&["HF_TOKEN_PATH"]).map(PathBuf::from).or_else(|| Some(hf_home.as_ref()?.join("token")));
        let token = get(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]).or_else(|| {
            let text = std::fs::read_to_string(token_file?).ok()?;
            Some(text.trim().to_owned()).filter(|t| !t.is_empty())
        });
        let offline = get(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
            .is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_ascii_lowercase().as_str()));
        Self {
            endpoint: get(&["HF_ENDPOINT"]).unwrap_or(DEFAULT_ENDPOINT.into()).trim_end_matches('/').into(),
            token,
            cache: get(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
                .map(PathBuf::from)
                .or_else(|| Some(hf_home?.join("hub"))),
            offline,
            attempts: 6,
            first_delay: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(30),
        }
    }
}

/// A model's name at a hub: `owner/name`, or `owner/name@revision` (a branch, a tag or a commit).
#[derive(Debug, Clone, PartialEq, Eq)]
struct HubName {
    /// `owner/name`.
    repo: String,
    revision: String,
}

impl HubName {
    /// `None` for what cannot be a hub name by the hub's own rules, such as a path of three parts.
    fn parse(text: &str) -> Option<Self> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, "main"));
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let part =
            |p: &str| !p.is_empty() && !p.starts_with(['.', '-']) && !p.ends_with(['.', '-']) && p.chars().all(plain);
        let (owner, name) = repo.split_once('/')?;
        let named = part(owner) && part(name) && !repo.contains("..") && !repo.contains("--");
        // The revision becomes a path below `refs`.
        let revised = revision.split('/').all(|p| !p.is_empty() && !p.starts_with('.') && p.chars().all(plain));
        (named && revised).then(|| Self { repo: repo.into(), revision: revision.into() })
    }
}

impl std::fmt::Display for HubName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.repo)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// The local folder of `model`: an existing folder as it is, else the hub's model of that name, downloaded into the
/// cache as far as it is not there yet.
pub fn resolve(
    model: &str,
    options: &HubOptions,
    progress: &mut dyn FnMut(DownloadProgress),
) -> anyhow::Result<PathBuf> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.into());
    }
    const FORM: &str = "a folder with config.json, safetensors files and a tokenizer";
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
        bail!("{model}: GGUF files are not supported; give the checkpoint itself: {FORM}, or its hub name owner/name");
    }
    if path.exists() {
        bail!("{model}: expected {FORM}, found a file");
    }
    let Some(name) = HubName::parse(model) else {
        bail!("{model}: no such folder, and not a hub name (owner/name or owner/name@revision) either");
    };
    fetch(&name, options, progress).with_context(|| format!("model {model} (no such folder, so taken as a hub name)"))
}

fn fetch(name: &HubName, options: &HubOptions, progress: &mut dyn FnMut(DownloadProgress)) -> anyhow::Result<PathBuf> {
    let cache_folder = options.cache.as_ref().context("no home folder is known to keep models in; set HF_HOME")?;
    let cache = ModelCache::new(cache_folder, name);
    let cached = cache.complete()?;
    if options.offline {
        return cached.with_context(|| {
            format!("HF_HUB_OFFLINE is set, and {} holds no complete copy of {name}", cache_folder.display())
        });
    }
    // A commit never changes: nothing is to be asked.
    if let (Some(folder), true) = (&cached, is_commit(&name.revision)) {
        return Ok(folder.clone());
    }

    let client = Client::new(options)?;
    let listing = match client.listing(name, if cached.is_some() { 1 } else { options.attempts }) {
        Ok(listing) => listing,
        Err(Failure::Passing { error, .. }) => match cached {
            Some(folder) => {
                log::warn!("{error:#}; using the copy of {name} that is in the cache");
                return Ok(folder);
            }
            None => return Err(error.context(format!("{name} could not be downloaded"))),
        },
        Err(failure) => return Err(failure.into_error()),
    };
    let mut download = Download {
        client: &client,
        cache: &cache,
        name,
        commit: &listing.commit,
        files: Vec::new(),
        meter: Meter::new(),
        progress,
    };

    let has = |file: &str| listing.files.iter().any(|f| f == file);
    if !has("config.json") {
        bail!("{name} has no config.json, so it is no checkpoint in Hugging Face form; {}", held(&listing.files));
    }
    let small = |f: &&String| !f.contains('/') && (f.ends_with(".json") || *f == "chat_template.jinja");
    download.get(listing.files.iter().filter(small).map(String::as_str))?;

    let folder = cache.snapshot(&listing.commit);
    // Known before gigabytes are fetched.
    let mut configs = Vec::new();
    for file in CONFIG_FILES.into_iter().filter(|file| has(file)) {
        let path = folder.join(file);
        configs.push((file, std::fs::read(&path).with_context(|| format!("{} could not be read", path.display()))?));
    }
    Family::find(&ConfigFiles::new(configs))
        .map_err(|found| zebra_runtime::Error::UnknownModel { path: name.to_string(), found })?;
    let weights = if has(INDEX) { cache::indexed(&folder.join(INDEX))? } else { vec![SINGLE.to_owned()] };
    if let Some(missing) = weights.iter().find(|w| !has(w)) {
        bail!("{name} has no file {missing}; {}", held(&listing.files));
    }
    download.get(weights.iter().map(String::as_str))?;
    // Last, so that a branch never points to half a model.
    cache.set_branch(&listing.commit)?;
    Ok(folder)
}

/// The files of a model while they are fetched.
struct Download<'a> {
    client: &'a Client,
    cache: &'a ModelCache,
    name: &'a HubName,
    commit: &'a str,
    /// Size and bytes here of every file that is known so far.
    files: Vec<Counted>,
    meter: Meter,
    progress: &'a mut dyn FnMut(DownloadProgress),
}

struct Counted {
    name: String,
    size: u64,
    here: u64,
}

impl Download<'_> {
    /// Fetches the files that are not in the snapshot yet.
    fn get<'f>(&mut self, names: impl Iterator<Item = &'f str>) -> anyhow::Result<()> {
        let mut wanted = Vec::new();
        for name in names {
            let index = self.files.len();
            if let Some(size) = self.cache.size_in_snapshot(self.commit, name)? {
                self.files.push(Counted { name: name.into(), size, here: size });
            } else {
                let remote = self.client.file(self.name, self.commit, name).map_err(Failure::into_error)?;
                self.files.push(Counted { name: name.into(), size: remote.size, here: 0 });
                wanted.push((index, remote));
            }
        }
        for (index, remote) in wanted {
            self.get_one(index, remote)?;
        }
        Ok(())
    }

    fn get_one(&mut self, index: usize, mut remote: RemoteFile) -> anyhow::Result<()> {
        // A file that keeps changing is given up at some point.
        for _ in 0..4 {
            let blob = self.cache.blob(&remote.blob);
            let _lock = self.cache.lock(&remote.blob)?;
            // Another program, or another revision with the same file, may have brought it.
            if !blob.exists() {
                let partial = self.cache.partial(&remote.blob);
                let received = self.client.download(&remote, &partial, &mut |here, new| {
                    self.files[index].here = here;
                    if self.meter.count(new) || here == remote.size {
                        (self.progress)(report(&self.files, index, self.meter.rate));
                    }
                });
                match received {
                    Ok(()) => {}
                    Err(Failure::Changed) => {
                        log::warn!("{} changed at the hub while it was downloaded; starting it again", remote.name);
                        let name = remote.name;
                        remote = self.client.file(self.name, self.commit, &name).map_err(Failure::into_error)?;
                        self.files[index] = Counted { name, size: remote.size, here: 0 };
                        continue;
                    }
                    Err(failure) => return Err(failure.into_error()),
                }
                if let Some(expected) = &remote.sha256 {
                    check_sha256(&partial, expected)?;
                }
                std::fs::rename(&partial, &blob)
                    .with_context(|| format!("{} could not be renamed to {}", partial.display(), blob.display()))?;
            }
            self.files[index].here = self.files[index].size;
            (self.progress)(report(&self.files, index, self.meter.rate));
            return self.cache.link(self.commit, &remote.name, &remote.blob);
        }
        bail!("{} of {} changes at the hub each time it is asked for", remote.name, self.name)
    }
}

fn report(files: &[Counted], index: usize, bytes_per_second: f64) -> DownloadProgress {
    DownloadProgress {
        file: files[index].name.clone(),
        done: files.iter().map(|f| f.here).sum(),
        total: files.iter().map(|f| f.size).sum(),
        bytes_per_second,
    }
}

/// Measures the rate, and says when it is time to report again.
struct Meter {
    since: Instant,
    bytes: u64,
    reported: Option<Instant>,
    rate: f64,
}

impl Meter {
    fn new() -> Self {
        Self { since: Instant::now(), bytes: 0, reported: None, rate: 0.0 }
    }

    fn count(&mut self, new: u64) -> bool {
        self.bytes += new;
        let seconds = self.since.elapsed().as_secs_f64();
        if seconds >= 1.0 {
            let now = self.bytes as f64 / seconds;
            self.rate = if self.rate == 0.0 { now } else { 0.7 * self.rate + 0.3 * now };
            self.since = Instant::now();
            self.bytes = 0;
        }
        let due = self.reported.is_none_or(|at| at.elapsed() >= Duration::from_millis(100));
        if due {
            self.reported = Some(Instant::now());
        }
        due
    }
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// What a repository holds, for a message.
fn held(files: &[String]) -> String {
    let mut shown: Vec<&str> = files.iter().map(String::as_str).filter(|f| !f.starts_with('.')).take(8).collect();
    if shown.len() < files.len() {
        shown.push("…");
    }
    if shown.is_empty() { "it holds no files".into() } else { format!("it holds {}", shown.join(", ")) }
}

/// Large files have their SHA-256 as ETag: silent damage would become silent nonsense in the answers.
fn check_sha256(file: &Path, expected: &str) -> anyhow::Result<()> {
    use sha2::{Digest, Sha256};
    let shown = file.display();
    let mut reader = std::fs::File::open(file).with_context(|| format!("{shown} could not be opened"))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer).with_context(|| format!("{shown} could not be read"))? {
            0 => break,
            n => hash.update(&buffer[..n]),
        }
    }
    let found: String = hash.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if found != expected {
        std::fs::remove_file(file).with_context(|| format!("{shown} is damaged and could not be removed"))?;
        bail!("the download is damaged: SHA-256 {expected} expected, {found} found; it was removed, run again");
    }
    Ok(())
}
