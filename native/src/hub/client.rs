//! Talks to a hub over HTTP. Redirects are followed here and not by the HTTP client, because the first answer carries
//! what names the content (commit, ETag, size), and the token must not travel to the host that serves the bytes.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::Value;
use ureq::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use ureq::{Agent, Body};

use super::{HubName, HubOptions};

/// Why a request, or a series of them, did not give what was asked for.
pub(super) enum Failure {
    /// Trying again cannot help.
    Lasting(anyhow::Error),
    /// A broken connection or a busy server.
    Passing { error: anyhow::Error, wait: Option<Duration> },
    /// The file is no longer the one that [`RemoteFile`] describes.
    Changed,
}

impl Failure {
    pub(super) fn into_error(self) -> anyhow::Error {
        match self {
            Failure::Lasting(error) | Failure::Passing { error, .. } => error,
            Failure::Changed => anyhow!("the file changed at the hub while it was downloaded"),
        }
    }

    fn passing(error: anyhow::Error) -> Self {
        Failure::Passing { error, wait: None }
    }
}

/// A revision's commit and the paths of its files.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// A file at the hub.
pub(super) struct RemoteFile {
    model: HubName,
    pub(super) name: String,
    url: String,
    /// Its ETag as a file name.
    pub(super) blob: String,
    /// The ETag as the serving host itself gives it, for `If-Range`; `None` when another host serves the bytes, whose
    /// ETags are its own.
    if_range: Option<String>,
    /// Known for files in large file storage.
    pub(super) sha256: Option<String>,
    /// In bytes.
    pub(super) size: u64,
}

pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    origin: Origin,
    authorization: Option<HeaderValue>,
    attempts: u32,
    first_delay: Duration,
}

/// An answer at the end of its redirects, and what the hub itself said on the way.
struct Answer {
    response: Response<Body>,
    /// False when another host gave the response.
    from_hub: bool,
    url: String,
    /// `X-Repo-Commit`.
    commit: Option<String>,
    etag: Option<String>,
    /// The ETag and the size are those of large file storage.
    linked: bool,
    linked_size: Option<u64>,
}

impl Client {
    pub(super) fn new(options: &HubOptions) -> anyhow::Result<Self> {
        let uri: Uri = options.endpoint.parse().with_context(|| format!("HF_ENDPOINT: {}", options.endpoint))?;
        let origin = Origin::of(&uri)
            .with_context(|| format!("HF_ENDPOINT: expected http(s)://host, found {}", options.endpoint))?;
        let authorization = match &options.token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                    .map_err(|_| anyhow!("the hub token (HF_TOKEN) has characters that cannot be sent"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("zebra/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(options.idle_timeout))
            .timeout_recv_response(Some(options.idle_timeout))
            .timeout_per_read(Some(options.idle_timeout))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            endpoint: options.endpoint.clone(),
            origin,
            authorization,
            attempts: options.attempts,
            first_delay: options.first_delay,
        })
    }

    /// The files of a revision, asked for at most `attempts` times.
    pub(super) fn listing(&self, name: &HubName, attempts: u32) -> Result<Listing, Failure> {
        let url = format!("{}/api/models/{}/revision/{}", self.endpoint, name.repo, escaped(&name.revision, ""));
        self.patiently(attempts, |_| {
            let mut answer = self.ask(&Method::GET, &url, &[], true)?;
            self.check(&answer, name, None)?;
            let text = answer
                .response
                .body_mut()
                .with_config()
                .limit(64 << 20)
                .read_to_vec()
                .map_err(|e| Failure::passing(anyhow!("{url}: {e}")))?;
            listing_of(&text, answer.commit.as_deref())
                .with_context(|| format!("{url}: not a hub's answer"))
                .map_err(Failure::Lasting)
        })
    }

    /// What the hub says of one file of a commit.
    pub(super) fn file(&self, name: &HubName, commit: &str, file: &str) -> Result<RemoteFile, Failure> {
        let url =
            |at: &str| format!("{}/{}/resolve/{}/{}", self.endpoint, name.repo, escaped(at, ""), escaped(file, "/"));
        self.patiently(self.attempts, |_| {
            let mut url_used = url(commit);
            let mut answer = self.ask_about(&url_used)?;
            if answer.response.status() == StatusCode::NOT_FOUND && commit != name.revision {
                // Some mirrors know branches only. Theirs must still be at the commit that was listed.
                url_used = url(&name.revision);
                answer = self.ask_about(&url_used)?;
                if answer.commit.as_deref().is_some_and(|c| c != commit) {
                    return Err(Failure::Lasting(anyhow!("{name} moved on to another commit meanwhile; run again")));
                }
            }
            let url = url_used;
            self.check(&answer, name, Some(file))?;
            let lacks = |what: &str| Failure::Lasting(anyhow!("{url}: the answer has no {what}: not a hub's"));
            let etag = answer.etag.as_deref().ok_or_else(|| lacks("ETag"))?;
            let plain = etag.trim_start_matches("W/").trim_matches('"');
            let size = answer
                .linked_size
                .or_else(|| content_range(answer.response.headers()).and_then(|r| r.total))
                .or_else(|| number(answer.response.headers(), header::CONTENT_LENGTH.as_str()))
                .ok_or_else(|| lacks("size"))?;
            let is_sha256 = plain.len() == 64 && plain.bytes().all(|b| b.is_ascii_hexdigit());
            Ok(RemoteFile {
                model: name.clone(),
                name: file.into(),
                blob: blob_name(plain).ok_or_else(|| lacks("usable ETag"))?,
                if_range: (!answer.linked && !etag.starts_with("W/")).then(|| etag.to_owned()),
                sha256: (answer.linked && is_sha256).then(|| plain.to_ascii_lowercase()),
                size,
                url,
            })
        })
    }

    /// The headers of a file, from the hub and no other host.
    fn ask_about(&self, url: &str) -> Result<Answer, Failure> {
        let answer = self.ask(&Method::HEAD, url, &[], false)?;
        match answer.response.status() {
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                self.ask(&Method::GET, url, &[(header::RANGE, "bytes=0-0")], false)
            }
            _ => Ok(answer),
        }
    }

    /// Receives `remote` into `partial`, going on after the bytes that are there. `received` is told the bytes that are
    /// in the file, and how many of them are new.
    pub(super) fn download(
        &self,
        remote: &RemoteFile,
        partial: &Path,
        received: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Failure> {
        let disk = |e: std::io::Error| disk_failure(&e, partial, remote.size);
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(partial).map_err(disk)?;
        let mut furthest = 0;
        self.patiently(self.attempts, |failures| {
            let result = self.receive(remote, &mut file, partial, received);
            // Attempts that bring new bytes are not counted, or no large file would ever come over a bad line.
            let here = file.metadata().map_err(disk)?.len();
            if here > furthest {
                furthest = here;
                *failures = 0;
            }
            result
        })?;
        file.sync_all().map_err(disk)
    }

    /// One attempt at the rest of a file.
    fn receive(
        &self,
        remote: &RemoteFile,
        file: &mut File,
        partial: &Path,
        received: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Failure> {
        let RemoteFile { name, url, size, .. } = remote;
        let disk = |e: std::io::Error| disk_failure(&e, partial, *size);
        let mut here = file.seek(SeekFrom::End(0)).map_err(disk)?;
        if here > *size {
            file.set_len(0).map_err(disk)?;
            here = file.seek(SeekFrom::Start(0)).map_err(disk)?;
        }
        received(here, 0);
        if here == *size {
            return Ok(());
        }
        let range = format!("bytes={here}-");
        let mut headers = Vec::new();
        if here > 0 {
            headers.push((header::RANGE, range.as_str()));
            if let Some(etag) = &remote.if_range {
                headers.push((header::IF_RANGE, etag));
            }
        }
        let mut answer = self.ask(&Method::GET, url, &headers, true)?;
        let plain = |etag: &str| blob_name(etag.trim_start_matches("W/").trim_matches('"'));
        if answer.etag.as_deref().and_then(plain).is_some_and(|blob| blob != remote.blob) {
            return Err(Failure::Changed);
        }
        let headers = answer.response.headers();
        let promised = match answer.response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = content_range(headers);
                if range.as_ref().is_none_or(|r| r.start != here) {
                    let found = headers.get(header::CONTENT_RANGE).map_or("none".into(), |v| format!("{v:?}"));
                    return Err(Failure::Lasting(anyhow!("{url}: Content-Range from {here} expected, {found} found")));
                }
                range.and_then(|r| r.total)
            }
            StatusCode::OK => {
                if here > 0 {
                    // A server without ranges sends the whole file again.
                    file.set_len(0).map_err(disk)?;
                    here = file.seek(SeekFrom::Start(0)).map_err(disk)?;
                }
                number(headers, header::CONTENT_LENGTH.as_str())
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                file.set_len(0).map_err(disk)?;
                return Err(Failure::passing(anyhow!("{}: the server refused to go on at byte {here}", shown(url))));
            }
            _ => {
                self.check(&answer, &remote.model, Some(name))?;
                return Err(Failure::Lasting(anyhow!("{}: HTTP status {}", shown(url), answer.response.status())));
            }
        };
        if let Some(promised) = promised.filter(|p| p != size) {
            return Err(Failure::Lasting(anyhow!("{name}: {size} bytes expected, the server has {promised}")));
        }
        let mut body = answer.response.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) if here == *size => return Ok(()),
                Ok(0) => {
                    let error = anyhow!("{name}: the connection ended after {here} of {size} bytes");
                    return Err(Failure::passing(error));
                }
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => {
                    let error = anyhow!("{name}: the connection broke after {here} of {size} bytes: {e}");
                    return Err(Failure::passing(error));
                }
            };
            if here + n as u64 > *size {
                file.set_len(0).map_err(disk)?;
                return Err(Failure::Lasting(anyhow!("{name}: {size} bytes expected, the server sends more")));
            }
            file.write_all(&buffer[..n]).map_err(disk)?;
            here += n as u64;
            received(here, n as u64);
        }
    }

    /// Runs `attempt` until it works, fails for good, or has failed `attempts` times in a row; it may set the count of
    /// failures back.
    fn patiently<T>(
        &self,
        attempts: u32,
        mut attempt: impl FnMut(&mut u32) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut failures = 0;
        loop {
            match attempt(&mut failures) {
                Err(Failure::Passing { error, wait }) if failures + 1 < attempts => {
                    let delay = self.first_delay.saturating_mul(1 << failures.min(5));
                    let delay = wait.unwrap_or(delay).min(Duration::from_secs(60));
                    failures += 1;
                    log::warn!("{error:#}; trying again in {:.0} s", delay.as_secs_f64().ceil());
                    std::thread::sleep(delay);
                }
                other => return other,
            }
        }
    }

    /// One request with its redirects; those to other hosts only when `abroad`.
    fn ask(
        &self,
        method: &Method,
        url: &str,
        headers: &[(header::HeaderName, &str)],
        abroad: bool,
    ) -> Result<Answer, Failure> {
        let mut url = url.to_owned();
        let (mut commit, mut etag, mut linked, mut linked_size) = (None, None, false, None);
        for _ in 0..10 {
            let uri: Uri = url.parse().map_err(|e| Failure::Lasting(anyhow!("{}: {e}", shown(&url))))?;
            let from_hub = Origin::of(&uri).as_ref() == Some(&self.origin);
            let mut request = Request::builder().method(method).uri(&uri).header(header::ACCEPT_ENCODING, "identity");
            for (name, value) in headers {
                // The hub's own ETag says nothing to the host that it sends us to.
                if from_hub || *name != header::IF_RANGE {
                    request = request.header(name, *value);
                }
            }
            if let (true, Some(authorization)) = (from_hub, &self.authorization) {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let request = request.body(()).map_err(|e| Failure::Lasting(anyhow!("{}: {e}", shown(&url))))?;
            let response = self.agent.run(request).map_err(|e| Failure::passing(anyhow!("{}: {e}", shown(&url))))?;
            let said = response.headers();
            if from_hub && !linked {
                // A large file's own ETag and size; the redirect's are about the redirect.
                commit = text(said, "x-repo-commit").or(commit);
                linked = said.contains_key("x-linked-etag");
                etag = text(said, "x-linked-etag").or_else(|| text(said, "etag")).or(etag);
                linked_size = number(said, "x-linked-size").or(linked_size);
            }
            let location = response.status().is_redirection().then(|| text(said, "location")).flatten();
            let next = location.map(|l| joined(&uri, &url, &l)).transpose().map_err(Failure::Lasting)?;
            match next {
                Some(next) if abroad || Origin::of_url(&next).as_ref() == Some(&self.origin) => url = next,
                _ => return Ok(Answer { response, from_hub, url, commit, etag, linked, linked_size }),
            }
        }
        Err(Failure::Lasting(anyhow!("{}: more than 10 redirects", shown(&url))))
    }

    /// Turns a refusal into a message that says what to do about it.
    fn check(&self, answer: &Answer, name: &HubName, file: Option<&str>) -> Result<(), Failure> {
        let status = answer.response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        let url = shown(&answer.url);
        let headers = answer.response.headers();
        let wait = number(headers, "retry-after").map(Duration::from_secs);
        let busy = status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || status == StatusCode::REQUEST_TIMEOUT
            // Links to other hosts are signed for a limited time: the hub gives a new one.
            || !answer.from_hub;
        if busy {
            return Err(Failure::Passing { error: anyhow!("{url}: HTTP status {status}"), wait });
        }
        let code = text(headers, "x-error-code").unwrap_or_default();
        let said = text(headers, "x-error-message").map(|m| format!(" (the hub says: {m})")).unwrap_or_default();
        let (endpoint, repo, revision) = (&self.endpoint, &name.repo, &name.revision);
        let sign_in = match self.authorization {
            None => "no token was sent: set HF_TOKEN or run `hf auth login`",
            Some(_) => "the token that was sent (HF_TOKEN or the token file) gives no right to it",
        };
        let error = match status {
            StatusCode::FORBIDDEN => anyhow!(
                "access refused (403){said}: the model is gated or private; accept its terms at {endpoint}/{repo}; {sign_in}"
            ),
            StatusCode::UNAUTHORIZED if code == "GatedRepo" => anyhow!(
                "access refused (401){said}: the model is gated; accept its terms at {endpoint}/{repo}; {sign_in}"
            ),
            StatusCode::UNAUTHORIZED => anyhow!(
                "access refused (401){said}: {endpoint} has no public model {repo} (it may be gated or private); {sign_in}"
            ),
            StatusCode::NOT_FOUND => match file {
                Some(file) => anyhow!("not found (404){said}: {url}: the hub lists {file} but does not have it"),
                None if code == "RevisionNotFound" => {
                    anyhow!("not found (404){said}: the model {repo} has no revision \"{revision}\"")
                }
                None => anyhow!("not found (404){said}: {endpoint} has no model {repo} with a revision \"{revision}\""),
            },
            _ => anyhow!("{url}: HTTP status {status}{said}"),
        };
        Err(Failure::Lasting(error))
    }
}

fn disk_failure(error: &std::io::Error, path: &Path, size: u64) -> Failure {
    let shown = path.display();
    Failure::Lasting(match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            let rest = size.saturating_sub(path.metadata().map_or(0, |m| m.len()));
            anyhow!("{shown}: the disk is full; {rest} more bytes are needed. Run again to go on where it stopped")
        }
        _ => anyhow!("{shown}: {error}"),
    })
}

/// `commit` is what the headers said, for hubs whose answer has none.
fn listing_of(text: &[u8], commit: Option<&str>) -> anyhow::Result<Listing> {
    let json: Value = serde_json::from_slice(text)?;
    let commit = json["sha"].as_str().or(commit).context("key \"sha\": no string found")?;
    // It becomes the name of a folder.
    if commit.is_empty() || !commit.bytes().all(|b| b.is_ascii_alphanumeric()) {
        anyhow::bail!("key \"sha\": expected a commit, found \"{commit}\"");
    }
    let siblings = json["siblings"].as_array().context("key \"siblings\": no list found")?;
    let name = |s: &Value| Some(s["rfilename"].as_str()?.to_owned());
    let files: Option<Vec<String>> = siblings.iter().map(name).collect();
    Ok(Listing { commit: commit.into(), files: files.context("key \"rfilename\": no string found")? })
}

#[derive(PartialEq, Eq)]
struct Origin {
    https: bool,
    host: String,
    port: u16,
}

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let https = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
        Some(Self { https, host: uri.host()?.to_ascii_lowercase(), port })
    }

    fn of_url(url: &str) -> Option<Self> {
        Self::of(&url.parse().ok()?)
    }
}

/// The address that `location` means, seen from `base`.
fn joined(base: &Uri, base_url: &str, location: &str) -> anyhow::Result<String> {
    let scheme = base.scheme_str().unwrap_or("https");
    let root = || format!("{scheme}://{}", base.authority().map_or("", |a| a.as_str()));
    let next = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        root() + location
    } else {
        let path = base.path();
        format!("{}{}{location}", root(), &path[..path.rfind('/').map_or(0, |i| i + 1)])
    };
    if scheme == "https" && !next.starts_with("https://") {
        anyhow::bail!("{}: refused to follow a redirect away from https, to {}", shown(base_url), shown(&next));
    }
    Ok(next)
}

struct ContentRange {
    start: u64,
    total: Option<u64>,
}

/// `bytes START-END/TOTAL`.
fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let value = text(headers, "content-range")?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    Some(ContentRange { start: range.split_once('-')?.0.trim().parse().ok()?, total: total.trim().parse().ok() })
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

/// An ETag as a file name: the hub's are hexadecimal, other servers' may hold anything.
fn blob_name(etag: &str) -> Option<String> {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = etag.chars().map(safe).collect();
    (!name.is_empty() && !name.starts_with('.') && name.len() <= 200).then_some(name)
}

/// An address without its query, which may hold a signature.
fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

/// Percent-encodes all but unreserved characters and those of `keep`.
fn escaped(text: &str, keep: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || keep.contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(escaped("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(escaped("a b/ü.json", "/"), "a%20b/%C3%BC.json");
        let join = |base: &str, location| joined(&base.parse().unwrap(), base, location).map_err(|e| e.to_string());
        assert_eq!(join("https://h:8/a/b?q", "/c?d").unwrap(), "https://h:8/c?d");
        assert_eq!(join("https://h/a/b", "c").unwrap(), "https://h/a/c");
        assert_eq!(join("https://h/a/b", "//o/c").unwrap(), "https://o/c");
        assert_eq!(join("http://h/a", "https://o/c").unwrap(), "https://o/c");
        assert!(join("https://h/a", "http://h/c").unwrap_err().contains("away from https"));
        assert!(Origin::of_url("https://H/a") == Origin::of_url("https://h:443/b"));
        assert!(Origin::of_url("https://h/a") != Origin::of_url("http://h/a"));
        assert_eq!(shown("https://h/a?signature=1"), "https://h/a");
    }

    #[test]
    fn etags_become_file_names() {
        assert_eq!(blob_name("5f3c-1a").as_deref(), Some("5f3c-1a"));
        assert_eq!(blob_name("../x:y").as_deref(), None);
        assert_eq!(blob_name("x/../y").as_deref(), Some("x_.._y"));
        assert_eq!(blob_name(""), None);
    }

    #[test]
    fn listings() {
        let good = br#"{"sha":"abc","siblings":[{"rfilename":"a.json"}]}"#;
        assert_eq!(listing_of(good, None).unwrap().files, ["a.json"]);
        assert_eq!(listing_of(br#"{"siblings":[]}"#, Some("abc")).unwrap().commit, "abc");
        assert!(listing_of(br#"{"siblings":[]}"#, None).is_err());
        assert!(listing_of(br#"{"sha":"../x","siblings":[]}"#, None).is_err());
        assert!(listing_of(b"<html>", None).is_err());
    }
}
