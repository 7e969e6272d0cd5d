//! Weights from the Hugging Face hub, in the cache that its Python library uses too.
//!
//! The hub answers a request for a file with its commit and its name in the cache: the sha256 of
//! large files, git's sha1 of small ones. So every file is checked. The layout of the cache is that
//! of `hf-hub`, whose client is not used, since it waits and reads without limits and makes paths
//! of unchecked answers.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use ureq::http::{HeaderMap, Uri, header};

use super::download::caches;
use crate::error::{Error, Result, short};
use crate::io::atomic_file::write_atomically;
use crate::io::download::{Checksum, Download, Limits, failure, limit_setters};

/// Fetches a file of a model's repository on the Hugging Face hub, unless the cache has it, and
/// returns its path for [`load`](super::load).
///
/// See [`Hub`] for other revisions, endpoints and folders.
///
/// ```no_run
/// use convnet::weights;
///
/// let path = weights::from_hub("timm/resnet18.a1_in1k", "model.safetensors")?;
/// let state = weights::load(path)?;
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Argument`] for invalid names or when no folder for caches is known, [`Error::Download`]
/// when the hub does not give the file, [`Error::Io`] when the cache cannot be written.
pub fn from_hub(repo: &str, file: &str) -> Result<PathBuf> {
    Hub::new()?.file(repo, file)
}

/// The Hugging Face hub, or a server with its interface, and the cache of its files.
///
/// ```
/// use convnet::weights::Hub;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # std::env::set_current_dir(&folder).unwrap();
/// # let snapshot = "models/models--timm--resnet18.a1_in1k/snapshots/a0e7be5e5a1e0c2b5d2f0f4c8b4b4d4e6f708192";
/// # std::fs::create_dir_all(snapshot).unwrap();
/// # std::fs::write(format!("{snapshot}/model.safetensors"), "").unwrap(); // so that nothing is downloaded
/// let hub = Hub::new()?
///     .endpoint("https://hub.example.org")
///     .cache("models")
///     .revision("a0e7be5e5a1e0c2b5d2f0f4c8b4b4d4e6f708192");
/// // A file of this commit that is in the cache is not requested again.
/// let path = hub.file("timm/resnet18.a1_in1k", "model.safetensors")?;
/// assert!(path.starts_with("models"));
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Hub {
    endpoint: String,
    revision: String,
    cache: PathBuf,
    limits: Limits,
}

impl Hub {
    /// Makes a hub at `$HF_ENDPOINT`, or else `https://huggingface.co`, with the cache in
    /// `$HF_HUB_CACHE`, `$HF_HOME/hub`, or `huggingface/hub` in the folder for caches, as for the
    /// Python library, and the branch `main`.
    ///
    /// # Errors
    /// [`Error::Argument`] when no folder for caches is known.
    pub fn new() -> Result<Hub> {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        Ok(Hub {
            endpoint: variable("HF_ENDPOINT")
                .and_then(|value| value.into_string().ok())
                .unwrap_or_else(|| "https://huggingface.co".to_string()),
            revision: "main".to_string(),
            cache: default_cache(variable, env::home_dir())?,
            limits: Limits::default(),
        })
    }

    /// Sets the server.
    pub fn endpoint(mut self, url: impl Into<String>) -> Hub {
        self.endpoint = url.into();
        self
    }

    /// Sets the revision: a branch, a tag, or the 40 digits of a commit.
    pub fn revision(mut self, revision: impl Into<String>) -> Hub {
        self.revision = revision.into();
        self
    }

    /// Sets the folder of the cache.
    pub fn cache(mut self, folder: impl Into<PathBuf>) -> Hub {
        self.cache = folder.into();
        self
    }

    limit_setters!();

    /// Returns the path of a file of a model's repository. A cached file is returned without asking
    /// a server, even when its branch has moved on since; a commit as the
    /// [revision](Self::revision) fixes the content.
    ///
    /// # Errors
    /// [`Error::Argument`] for names that are not those of a repository, revision or file;
    /// [`Error::Download`] when the hub does not have the file, does not give its checksum, or
    /// sends another one; [`Error::Io`] when the cache cannot be written.
    pub fn file(&self, repo: &str, file: &str) -> Result<PathBuf> {
        check("repository", repo, repo.split('/').count() <= 2)?;
        check("revision", &self.revision, true)?;
        check("file", file, true)?;
        let described = Repo::with_revision(repo.to_string(), RepoType::Model, self.revision.clone());
        let folder = self.cache.join(described.folder_name());
        let cached = Cache::new(self.cache.clone()).repo(described);
        if let Some(path) = self.find(&cached, file) {
            return Ok(path);
        }
        let url = |revision: &str| format!("{}/{repo}/resolve/{revision}/{file}", self.endpoint.trim_end_matches('/'));
        let Entry { commit, name, checksum } = self.ask(&url(&self.revision.replace('/', "%2F")))?;

        let blob = folder.join("blobs").join(&name);
        let mut download = Download::new([url(&commit)], checksum);
        download.limits = self.limits;
        download.to(&blob)?;
        let path = cached.pointer_path(&commit).join(file);
        link(&blob, &path, &folder).map_err(Error::io(&path))?;
        // Last, since the cache answers for this commit from here on.
        if self.revision != commit {
            let reference = folder.join("refs").join(&self.revision);
            if let Some(parent) = reference.parent() {
                fs::create_dir_all(parent).map_err(Error::io(parent))?;
            }
            write_atomically(&reference, |out| out.write_all(commit.as_bytes()))?;
        }
        Ok(path)
    }

    fn find(&self, cached: &CacheRepo, file: &str) -> Option<PathBuf> {
        if is_commit(&self.revision) {
            return Some(cached.pointer_path(&self.revision).join(file)).filter(|path| path.exists());
        }
        cached.get(file)
    }

    /// Asks the hub for the entry of a file. A renamed repository is followed; the redirect to the
    /// server of the bytes is not.
    fn ask(&self, url: &str) -> Result<Entry> {
        let mut address = url.to_string();
        for _ in 0..5 {
            let response = self.limits.head(&address)?;
            let (status, headers) = (response.status(), response.headers());
            let elsewhere = text(headers, header::LOCATION.as_str()).filter(|_| status.is_redirection());
            match elsewhere {
                Some(path) if path.starts_with('/') && !path.starts_with("//") => address = on_same_host(&address, path)?,
                _ if status.is_success() || status.is_redirection() => return Entry::of(headers).map_err(|message| failure(url, message)),
                _ => return Err(failure(url, format!("the server answered {status}"))),
            }
        }
        Err(failure(url, "the server redirects in a circle"))
    }
}

/// The entry of a file at the hub.
struct Entry {
    commit: String,
    /// The name in the cache.
    name: String,
    checksum: Checksum,
}

impl Entry {
    fn of(headers: &HeaderMap) -> Result<Entry, String> {
        let commit = text(headers, "x-repo-commit").ok_or("the server does not say of which commit the file is; not a hub?")?;
        if !is_commit(commit) {
            return Err(format!("the server calls the file's commit `{}`, expected 40 hexadecimal digits", short(commit)));
        }
        let tag =
            text(headers, "x-linked-etag").or_else(|| text(headers, "etag")).ok_or("the server does not state the file's checksum")?;
        let name = tag.trim_start_matches("W/").trim_matches('"').to_string();
        let checksum = match name.len() {
            64 if is_hex(&name) => Checksum::File { sha256: name.clone() },
            40 if is_hex(&name) => Checksum::GitBlob { sha1: name.clone() },
            _ => return Err(format!("the server names the file `{}`, expected a sha256 or a sha1", short(tag))),
        };
        Ok(Entry { commit: commit.to_string(), name, checksum })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && is_hex(text)
}

fn on_same_host(url: &str, path: &str) -> Result<String> {
    let uri: Uri = url.parse().map_err(|error| failure(url, format!("not an address: {error}")))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme), Some(authority)) => Ok(format!("{scheme}://{authority}{path}")),
        _ => Err(failure(url, "not an address of a server")),
    }
}

/// Checks that a name can be part of an address and of a path below the cache.
fn check(what: &str, name: &str, fits: bool) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+/".contains(c);
    let below = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    let parts = name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if fits && below && parts && name.chars().all(plain) {
        return Ok(());
    }
    Err(Error::argument(
        "hub",
        format!(
            "\"{}\" is no name of a {what} on the hub; names have ASCII letters, digits and ._-+/ (a repository is `owner/name`)",
            short(name)
        ),
    ))
}

/// Makes `path`, in `folder`, an alias of `blob`: a relative link as the Python library makes it,
/// or the same file where links need a privilege.
fn link(blob: &Path, path: &Path, folder: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(folder);
    fs::create_dir_all(parent)?;
    // A link that leads nowhere.
    if path.is_symlink() {
        fs::remove_file(path)?;
    }
    #[cfg(unix)]
    let made = {
        let up: PathBuf = parent.strip_prefix(folder).into_iter().flat_map(Path::components).map(|_| Component::ParentDir).collect();
        let target = up.join(blob.strip_prefix(folder).unwrap_or(blob));
        std::os::unix::fs::symlink(target, path)
    };
    #[cfg(not(unix))]
    let made = fs::hard_link(blob, path);
    match made {
        // Another process was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn default_cache(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(folder) = variable("HF_HUB_CACHE") {
        return Ok(folder.into());
    }
    if let Some(folder) = variable("HF_HOME") {
        return Ok(PathBuf::from(folder).join("hub"));
    }
    Ok(caches(variable, home)?.join("huggingface").join("hub"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_is_where_the_python_library_has_it() {
        let place = |set: &[&str]| {
            let variable = |name: &str| set.contains(&name).then(|| OsString::from(format!("/{name}")));
            default_cache(variable, Some("/home/me".into())).unwrap()
        };
        assert_eq!(place(&["HF_HUB_CACHE", "HF_HOME"]), Path::new("/HF_HUB_CACHE"));
        assert_eq!(place(&["HF_HOME", "XDG_CACHE_HOME"]), Path::new("/HF_HOME/hub"));
        assert_eq!(place(&["XDG_CACHE_HOME"]), Path::new("/XDG_CACHE_HOME/huggingface/hub"));
    }

    #[test]
    fn names_that_lead_out_of_the_cache_or_the_address_are_refused() {
        for good in ["model.safetensors", "timm/resnet18.a1_in1k", "onnx/model.bin"] {
            check("file", good, true).unwrap();
        }
        for bad in ["", "..", "a/../b", "/etc/passwd", "a//b", "a/", "./a", "a?b", "a#b", "a\\b", "C:x", "a b", "é"] {
            assert!(check("file", bad, true).is_err(), "{bad:?}");
        }
    }
}
