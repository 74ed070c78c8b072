//! Downloads from a hub on this machine that breaks connections, changes files and refuses, as real ones do.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

struct Sent {
    name: &'static str,
    bytes: Vec<u8>,
    etag: String,
}

/// What the hub holds and how it misbehaves.
struct Behaviour {
    files: Vec<Sent>,
    /// The bytes of a body after which the connection breaks, one entry for each GET of a weight file.
    breaks: Vec<usize>,
    /// Applied once, after the first break: the file's new bytes and ETag.
    change_after_break: Option<(Vec<u8>, String)>,
    ranges: bool,
    /// Answers of the API before it works: status, header, value.
    api_refusals: Vec<(&'static str, &'static str, &'static str)>,
    /// Only requests with this token are answered.
    token: Option<&'static str>,
    /// Weights come from this address, as large files do.
    storage: Option<String>,
    /// What `X-Linked-Size` lies by.
    lie: u64,
    head: bool,
    branches_only: bool,
}

struct Hub {
    address: String,
    behaviour: Arc<Mutex<Behaviour>>,
    /// `METHOD path|range|authorization`.
    log: Arc<Mutex<Vec<String>>>,
}

fn weights(seed: u8) -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed).collect()
}

fn sent(name: &'static str, bytes: impl Into<Vec<u8>>, etag: &str) -> Sent {
    Sent { name, bytes: bytes.into(), etag: etag.into() }
}

impl Hub {
    fn start() -> Self {
        let index = r#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors","c":"model-1.safetensors"}}"#;
        let behaviour = Behaviour {
            files: vec![
                sent(".gitattributes", "x", "e0"),
                sent("README.md", "x", "e1"),
                sent("config.json", r#"{"architectures":["LlamaForCausalLM"]}"#, "e2"),
                sent("hybrid_config.json", "{}", "e3"),
                sent("tokenizer.json", "{}", "e4"),
                sent("chat_template.jinja", "{{ x }}", "e5"),
                sent("model.safetensors.index.json", index, "e6"),
                sent("model-1.safetensors", weights(1), "w1"),
                sent("model-2.safetensors", weights(2), "w2"),
                sent("other.safetensors", "x", "e7"),
                sent("pytorch_model.bin", "x", "e8"),
            ],
            breaks: Vec::new(),
            change_after_break: None,
            ranges: true,
            api_refusals: Vec::new(),
            token: None,
            storage: None,
            lie: 0,
            head: true,
            branches_only: false,
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Self {
            address: format!("http://{}", listener.local_addr().unwrap()),
            behaviour: Arc::new(Mutex::new(behaviour)),
            log: Arc::default(),
        };
        let (behaviour, log) = (hub.behaviour.clone(), hub.log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is what these tests are about.
                let _gone = serve(stream, &behaviour, &log);
            }
        });
        hub
    }

    fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    /// The requests since the last call that contain `part`.
    fn requests(&self, part: &str) -> Vec<String> {
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        log.into_iter().filter(|l| l.contains(part)).collect()
    }
}

fn serve(mut stream: TcpStream, behaviour: &Mutex<Behaviour>, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    let authorization = header("authorization").unwrap_or_default();
    log.lock().unwrap().push(format!("{method} {path}|{}|{authorization}", header("range").unwrap_or_default()));

    let mut b = behaviour.lock().unwrap();
    let refuse = |stream: &mut TcpStream, status: &str, more: &str| {
        write!(stream, "HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n")
    };
    if b.token.is_some_and(|t| authorization != format!("Bearer {t}")) {
        return refuse(&mut stream, "401 Unauthorized", "");
    }
    if let Some(revision) = path.strip_prefix("/api/models/zebra/small/revision/") {
        if !b.api_refusals.is_empty() {
            let (status, name, value) = b.api_refusals.remove(0);
            return refuse(&mut stream, status, &format!("{name}: {value}\r\n"));
        }
        if revision != "main" && revision != "refs%2Fpr%2F1" && revision != COMMIT {
            return refuse(&mut stream, "404 Not Found", "X-Error-Code: RevisionNotFound\r\n");
        }
        let files: Vec<_> = b.files.iter().map(|f| serde_json::json!({"rfilename": f.name})).collect();
        let text = serde_json::json!({"sha": COMMIT, "siblings": files}).to_string();
        return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
    }
    if method == "HEAD" && !b.head {
        return refuse(&mut stream, "501 Not Implemented", "");
    }
    let at = if b.branches_only { "main" } else { COMMIT };
    let path = path.split('?').next().unwrap_or_default();
    let name = path.strip_prefix(&format!("/zebra/small/resolve/{at}/")).or(path.strip_prefix("/storage/"));
    let Some(index) = name.and_then(|n| b.files.iter().position(|f| f.name == n)) else {
        return refuse(&mut stream, "404 Not Found", "");
    };
    let (bytes, etag) = (b.files[index].bytes.clone(), b.files[index].etag.clone());
    let is_weight = b.files[index].name.starts_with("model-");
    if let (Some(storage), true, false) = (&b.storage, is_weight, path.starts_with("/storage/")) {
        let more = format!(
            "Location: {storage}/storage/{}?signature=1\r\nX-Linked-Etag: \"{etag}\"\r\nX-Linked-Size: {}\r\n\
             X-Repo-Commit: {COMMIT}\r\nETag: \"of-the-redirect\"\r\n",
            b.files[index].name,
            bytes.len() as u64 + b.lie
        );
        return refuse(&mut stream, "302 Found", &more);
    }
    // The ETag of the storage host is its own.
    let shown_etag = if path.starts_with("/storage/") { "storage".into() } else { etag.clone() };
    let valid = header("if-range").is_none_or(|tag| tag == format!("\"{shown_etag}\""));
    let range = header("range").filter(|_| b.ranges && valid).map(|r| r.trim_start_matches("bytes="));
    let (status, start, end) = match range.and_then(|r| r.split_once('-')) {
        Some((start, end)) => {
            let end = end.parse::<usize>().map_or(bytes.len(), |e| e + 1);
            ("206 Partial Content", start.parse::<usize>().unwrap(), end)
        }
        None => ("200 OK", 0, bytes.len()),
    };
    write!(stream, "HTTP/1.1 {status}\r\nETag: \"{shown_etag}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n")?;
    write!(stream, "Content-Length: {}\r\n", end - start)?;
    if range.is_some() {
        write!(stream, "Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len())?;
    }
    write!(stream, "\r\n")?;
    if method == "HEAD" {
        return Ok(());
    }
    let mut body = &bytes[start..end];
    if is_weight && !b.breaks.is_empty() {
        body = &body[..b.breaks.remove(0).min(body.len())];
        if let Some((bytes, etag)) = b.change_after_break.take() {
            b.files[index].bytes = bytes;
            b.files[index].etag = etag;
        }
    }
    drop(b);
    stream.write_all(body)
}

struct Place {
    folder: tempfile::TempDir,
    options: HubOptions,
}

impl Place {
    fn new(hub: &Hub) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = HubOptions {
            endpoint: hub.address.clone(),
            token: None,
            cache: Some(folder.path().join("hub")),
            offline: false,
            attempts: 3,
            first_delay: Duration::from_millis(1),
            idle_timeout: Duration::from_secs(10),
        };
        Self { folder, options }
    }

    fn get(&self, model: &str) -> anyhow::Result<PathBuf> {
        resolve(model, &self.options, &mut |_| {})
    }

    /// Gets the model and expects an error with these words.
    fn refused(&self, model: &str, words: &[&str]) {
        let message = format!("{:#}", self.get(model).unwrap_err());
        assert!(words.iter().all(|w| message.contains(w)), "{words:?} expected in: {message}");
    }

    fn in_repo(&self, path: &str) -> PathBuf {
        self.folder.path().join("hub/models--zebra--small").join(path)
    }
}

fn same(folder: &Path, file: &str, expected: &[u8]) {
    assert!(std::fs::read(folder.join(file)).unwrap() == expected, "{file} differs");
}

#[test]
fn the_cache_has_the_standard_layout_and_only_what_is_needed() {
    let hub = Hub::start();
    let place = Place::new(&hub);
    let mut last = None;
    let folder = resolve("zebra/small", &place.options, &mut |p| last = Some(p)).unwrap();
    assert_eq!(folder, place.in_repo(&format!("snapshots/{COMMIT}")));
    let mut names: Vec<_> = folder.read_dir().unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let expected = [
        "chat_template.jinja",
        "config.json",
        "hybrid_config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
    ];
    assert_eq!(names, expected);
    assert_eq!(std::fs::read_to_string(place.in_repo("refs/main")).unwrap(), COMMIT);
    same(&place.in_repo("blobs"), "w1", &weights(1));
    #[cfg(unix)]
    assert_eq!(folder.join("model-1.safetensors").read_link().unwrap(), Path::new("../../blobs/w1"));
    let last = last.unwrap();
    assert_eq!((last.file.as_str(), last.done), ("model-2.safetensors", last.total));
    assert!(last.total > 600_000, "{last:?}");
    assert!(!place.in_repo("blobs/w1.incomplete").exists());

    // The second time asks which commit the branch is at, and nothing more; a commit asks nothing.
    hub.requests("");
    place.get("zebra/small").unwrap();
    assert_eq!(hub.requests(""), ["GET /api/models/zebra/small/revision/main||"]);
    place.get(&format!("zebra/small@{COMMIT}")).unwrap();
    assert!(hub.requests("").is_empty());
    // Another branch of the same commit shares its files.
    place.get("zebra/small@refs/pr/1").unwrap();
    assert_eq!(hub.requests("").len(), 1);
    assert_eq!(std::fs::read_to_string(place.in_repo("refs/refs/pr/1")).unwrap(), COMMIT);
}

#[test]
fn a_broken_connection_is_resumed_by_range() {
    let hub = Hub::start();
    let place = Place::new(&hub);
    hub.set(|b| b.breaks = vec![100_000, 50_000]);
    let folder = place.get("zebra/small").unwrap();
    same(&folder, "model-1.safetensors", &weights(1));
    let log = hub.requests("model-1.safetensors|");
    let ranges: Vec<_> = log.iter().filter(|l| l.starts_with("GET")).map(|l| l.split('|').nth(1).unwrap()).collect();
    assert_eq!(ranges, ["", "bytes=100000-", "bytes=150000-"]);
}

#[test]
fn a_second_run_resumes_what_the_first_one_left() {
    let hub = Hub::start();
    let mut place = Place::new(&hub);
    place.options.attempts = 1;
    hub.set(|b| b.breaks = vec![123_456]);
    place.refused("zebra/small", &["model-1.safetensors", "after 123456 of 300000 bytes"]);
    assert_eq!(place.in_repo("blobs/w1.incomplete").metadata().unwrap().len(), 123_456);
    assert!(!place.in_repo("refs/main").exists());
    hub.requests("");
    let mut first = None;
    let folder = resolve("zebra/small", &place.options, &mut |p| {
        first.get_or_insert(p);
    })
    .unwrap();
    assert!(
        hub.requests("model-1")
            .contains(&format!("GET /zebra/small/resolve/{COMMIT}/model-1.safetensors|bytes=123456-|"))
    );
    assert!(first.unwrap().done >= 123_456, "bytes that are here count as done");
    same(&folder, "model-1.safetensors", &weights(1));
    same(&folder, "model-2.safetensors", &weights(2));
}

#[test]
fn a_changed_etag_starts_again() {
    // Between two runs.
    let hub = Hub::start();
    let mut place = Place::new(&hub);
    place.options.attempts = 1;
    hub.set(|b| b.breaks = vec![100_000]);
    place.refused("zebra/small", &["after 100000 of 300000"]);
    hub.set(|b| b.files[7] = sent("model-1.safetensors", weights(9), "w9"));
    hub.requests("");
    same(&place.get("zebra/small").unwrap(), "model-1.safetensors", &weights(9));
    assert_eq!(hub.requests("model-1.safetensors|bytes="), [""; 0]);

    // Between two attempts of one run.
    let hub = Hub::start();
    let place = Place::new(&hub);
    hub.set(|b| {
        b.breaks = vec![100_000];
        b.change_after_break = Some((weights(8)[..200_000].to_vec(), "w8".into()));
    });
    same(&place.get("zebra/small").unwrap(), "model-1.safetensors", &weights(8)[..200_000]);
}

#[test]
fn a_server_without_ranges_sends_the_file_again() {
    let hub = Hub::start();
    let place = Place::new(&hub);
    hub.set(|b| (b.breaks, b.ranges) = (vec![100_000], false));
    same(&place.get("zebra/small").unwrap(), "model-1.safetensors", &weights(1));
}

#[test]
fn a_connection_that_brings_nothing_is_given_up() {
    let hub = Hub::start();
    let place = Place::new(&hub);
    hub.set(|b| b.breaks = vec![0; 100]);
    place.refused("zebra/small", &["model-1.safetensors", "after 0 of 300000 bytes"]);
    assert_eq!(hub.requests("GET").iter().filter(|l| l.contains("model-1")).count(), 3);
}

#[test]
fn mirrors_without_head_or_commits() {
    let hub = Hub::start();
    let place = Place::new(&hub);
    hub.set(|b| (b.head, b.branches_only) = (false, true));
    same(&place.get("zebra/small").unwrap(), "model-2.safetensors", &weights(2));
}

#[test]
fn a_busy_hub_is_asked_again() {
    let hub = Hub::start();
    let place = Place::new(&hub);
    hub.set(|b| {
        b.api_refusals = vec![("503 Service Unavailable", "X", "x"), ("429 Too Many Requests", "Retry-After", "0")];
    });
    place.get("zebra/small").unwrap();
}

#[test]
fn refusals_say_what_to_do() {
    let hub = Hub::start();
    let mut place = Place::new(&hub);
    hub.set(|b| b.token = Some("secret"));
    place.refused("zebra/small", &["zebra/small", "401", "no token was sent: set HF_TOKEN"]);
    place.options.token = Some("wrong".into());
    place.refused("zebra/small", &["401", "the token that was sent"]);
    place.options.token = Some("secret".into());
    hub.set(|b| b.api_refusals = vec![("403 Forbidden", "X-Error-Message", "ask for access")]);
    place.refused("zebra/small", &["403", "ask for access", "accept its terms at http://127.0.0.1", "/zebra/small"]);
    place.refused("zebra/small@v2", &["404", "has no revision \"v2\""]);
    place.refused("zebra/none", &["404", "has no model zebra/none"]);
    place.options.token = Some("a\nb".into());
    place.refused("zebra/small", &["characters that cannot be sent"]);
}

#[test]
fn the_token_stays_with_the_hub() {
    let storage = Hub::start();
    let hub = Hub::start();
    let mut place = Place::new(&hub);
    place.options.token = Some("secret".into());
    hub.set(|b| (b.token, b.storage) = (Some("secret"), Some(storage.address.clone())));
    storage.set(|b| b.breaks = vec![70_000]);
    same(&place.get("zebra/small").unwrap(), "model-1.safetensors", &weights(1));
    same(&place.in_repo("blobs"), "w1", &weights(1));
    let asked = storage.requests("");
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked[1].contains("|bytes=70000-|"), "resumed at the storage: {asked:?}");
    assert!(asked.iter().all(|l| l.ends_with('|')), "no token: {asked:?}");
    assert!(hub.requests("").iter().all(|l| l.ends_with("|Bearer secret")));
}

#[test]
fn damage_is_found() {
    let hub = Hub::start();
    let place = Place::new(&hub);
    let storage = Hub::start();
    // A size that is not the file's.
    hub.set(|b| (b.storage, b.lie) = (Some(storage.address.clone()), 5));
    place.refused("zebra/small", &["model-1.safetensors", "300005 bytes expected, the server has 300000"]);
    // A SHA-256 that is not the file's, then the right one.
    let wrong = "ab".repeat(32);
    hub.set(|b| (b.lie, b.files[7].etag) = (0, wrong.clone()));
    place.refused("zebra/small", &[&format!("SHA-256 {wrong} expected")]);
    assert!(!place.in_repo(&format!("blobs/{wrong}.incomplete")).exists());
    use sha2::Digest;
    let right: String = sha2::Sha256::digest(weights(1)).iter().map(|b| format!("{b:02x}")).collect();
    hub.set(|b| b.files[7].etag = right);
    same(&place.get("zebra/small").unwrap(), "model-1.safetensors", &weights(1));
}

#[test]
fn offline_uses_the_cache_or_says_so() {
    let hub = Hub::start();
    let mut place = Place::new(&hub);
    place.options.offline = true;
    place.refused("zebra/small", &["HF_HUB_OFFLINE is set", "no complete copy of zebra/small"]);
    place.options.offline = false;
    let folder = place.get("zebra/small").unwrap();
    hub.requests("");
    place.options.offline = true;
    assert_eq!(place.get("zebra/small").unwrap(), folder);
    assert!(hub.requests("").is_empty());
    std::fs::remove_file(place.in_repo("blobs/w2")).unwrap();
    place.refused("zebra/small", &["no complete copy of zebra/small"]);
    // The missing file alone is fetched again.
    place.options.offline = false;
    same(&place.get("zebra/small").unwrap(), "model-2.safetensors", &weights(2));
    assert_eq!(hub.requests("GET /zebra").len(), 1);
}

#[test]
fn a_hub_that_cannot_be_reached() {
    let hub = Hub::start();
    let mut place = Place::new(&hub);
    let folder = place.get("zebra/small").unwrap();
    // A port that was just free.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    place.options.endpoint = format!("http://{closed}");
    assert_eq!(place.get("zebra/small").unwrap(), folder);
    place.refused("zebra/other", &["zebra/other could not be downloaded", &closed.to_string()]);
}

#[test]
fn models_of_every_family_are_let_through() {
    for (own, config) in [
        (&["hybrid_config.json"][..], "{}"),
        (&["MLA_config.json", "mla_layer_config.json"], "{}"),
        (&["mamba_config.json"], "{}"),
        (&[], r#"{"model_type":"llama"}"#),
    ] {
        let hub = Hub::start();
        let place = Place::new(&hub);
        hub.set(|b| {
            b.files.retain(|f| f.name != "hybrid_config.json");
            b.files[2] = sent("config.json", config, "e2");
            b.files.extend(own.iter().map(|name| sent(name, "{}", name)));
        });
        let folder = place.get("zebra/small").unwrap();
        for name in own.iter().chain(&["config.json", "model-1.safetensors", "model-2.safetensors"]) {
            assert!(folder.join(name).exists(), "{name} beside {own:?}");
        }
    }
}

#[test]
fn other_kinds_of_models_are_refused_before_their_weights() {
    let hub = Hub::start();
    let place = Place::new(&hub);
    hub.set(|b| {
        b.files.retain(|f| f.name != "hybrid_config.json");
        b.files[2] = sent("config.json", r#"{"architectures":["GPT2LMHeadModel"],"model_type":"gpt2"}"#, "e2");
    });
    place.refused("zebra/small", &["zebra/small", "a GPT2LMHeadModel (model_type \"gpt2\")", "hybrid_config.json"]);
    assert!(hub.requests("model-").is_empty());
    hub.set(|b| b.files.retain(|f| f.name == "pytorch_model.bin"));
    place.refused("zebra/small", &["no config.json", "it holds pytorch_model.bin"]);

    let hub = Hub::start();
    let place = Place::new(&hub);
    hub.set(|b| b.files.retain(|f| f.name != "model-2.safetensors"));
    place.refused("zebra/small", &["has no file model-2.safetensors"]);
    hub.set(|b| b.files.retain(|f| f.name != INDEX));
    place.refused("zebra/small", &["has no file model.safetensors"]);
}

/// `/dev/full` takes no byte.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk() {
    let hub = Hub::start();
    let place = Place::new(&hub);
    std::fs::create_dir_all(place.in_repo("blobs")).unwrap();
    std::os::unix::fs::symlink("/dev/full", place.in_repo("blobs/w1.incomplete")).unwrap();
    place.refused("zebra/small", &["w1.incomplete: the disk is full; 300000 more bytes are needed"]);
}

#[test]
fn folders_win_and_files_are_refused_by_name() {
    let hub = Hub::start();
    let place = Place::new(&hub);
    let folder = place.folder.path().join("zebra/small");
    std::fs::create_dir_all(&folder).unwrap();
    let text = folder.to_str().unwrap();
    assert_eq!(place.get(text).unwrap(), folder);
    place.refused("some/model.Q4_0.gguf", &["some/model.Q4_0.gguf: GGUF files are not supported"]);
    std::fs::write(folder.join("x.safetensors"), "").unwrap();
    place.refused(&format!("{text}/x.safetensors"), &["x.safetensors: expected a folder", "found a file"]);
    place.refused("a/b/c", &["a/b/c: no such folder, and not a hub name"]);
    assert!(hub.requests("").is_empty());
}

#[test]
fn hub_names() {
    let parse = |text| HubName::parse(text).map(|n| (n.repo, n.revision));
    assert_eq!(parse("amd/Zebra-Llama-1B.x_y"), Some(("amd/Zebra-Llama-1B.x_y".into(), "main".into())));
    assert_eq!(parse("a/b@refs/pr/1"), Some(("a/b".into(), "refs/pr/1".into())));
    for bad in
        ["a", "/a", "a/", "./a", "../a", "~/a", "a/b/c", "a b/c", "a/b@", "a/b@../c", "a/b@/c", "a--b/c", "a\\b/c"]
    {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

#[test]
fn options_come_from_the_usual_variables() {
    let options = |variables: &[(&str, &str)]| {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        HubOptions::from_variables(&get, Some("/home/z".into()))
    };
    let cache = |variables: &[(&str, &str)]| options(variables).cache.unwrap().to_str().unwrap().replace('\\', "/");
    let plain = options(&[]);
    assert_eq!((plain.endpoint.as_str(), plain.token.is_some(), plain.offline), (DEFAULT_ENDPOINT, false, false));
    assert_eq!(cache(&[]), "/home/z/.cache/huggingface/hub");
    assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
    assert_eq!(cache(&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")]), "/h/hub");
    assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), "/c");
    assert_eq!(options(&[("HF_ENDPOINT", "http://m:1/")]).endpoint, "http://m:1");
    assert!(options(&[("HF_HUB_OFFLINE", "TRUE")]).offline);
    assert!(!options(&[("HF_HUB_OFFLINE", "0")]).offline);

    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("token"), "from-file\n").unwrap();
    let home = home.path().to_str().unwrap();
    assert_eq!(options(&[("HF_HOME", home)]).token.as_deref(), Some("from-file"));
    assert_eq!(options(&[("HF_HOME", home), ("HF_TOKEN", " mine ")]).token.as_deref(), Some("mine"));
}
