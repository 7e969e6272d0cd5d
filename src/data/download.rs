//! Fetching datasets over HTTP without trusting servers or the network.
//!
//! A file is written to `NAME.part` beside its target, and renamed only when its sha256 is right: what has the final name is whole. An
//! interrupted transfer goes on where it stopped, at the next attempt or the next run; a partial file that turns out not to fit is thrown
//! away. Mirrors are tried in turn.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use super::{FashionMnist, Mnist, mnist};
use crate::error::{Error, Result};

const MIRRORS_OF_MNIST: [&str; 2] =
    ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"];

const MIRRORS_OF_FASHION_MNIST: [&str; 2] = [
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
];

/// Of the content: the four files are about in several compressions.
const MNIST: [(&str, &str, u64); 4] = [
    ("train-images", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 47_040_016),
    ("train-labels", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60_008),
    ("t10k-images", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 7_840_016),
    ("t10k-labels", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10_008),
];

/// Of the compressed files, of which there is one version.
const FASHION_MNIST: [(&str, &str); 4] = [
    ("train-images", "08dc20ab1689590a0bcd66e874647b6ee8464e2d501b5a3f1f78831db19a3fdc"),
    ("train-labels", "b0197879cbda89f3dc7b894f9fd52b858e68ea4182b6947c9d8c2b67e5f18dcc"),
    ("t10k-images", "78dcbbfb5a27efaf1b6c1d616caca68560be8766c5bffcb2791df9273a534229"),
    ("t10k-labels", "42bd18137a62d5998cdeae52bf3a0676ac6b706f5cf8439b47bb5b151ae3dccf"),
];

/// The largest of the files, Fashion-MNIST's training images, has 26 MB.
const LARGEST: u64 = 64 << 20;

/// How often a mirror that breaks off, having sent something, is asked to go on.
const RESUMPTIONS: usize = 3;

/// Against servers that send a byte now and then.
const LONGEST_TRANSFER: Duration = Duration::from_secs(3600);

impl Mnist {
    /// Fetches what is missing of the four files into `dir` (12 MB), for [`train`](Self::train) and [`test`](Self::test) to read.
    ///
    /// # Errors
    /// As [`Download::to`]; [`Error::Format`] when `dir` has a file of another content whose name would be preferred.
    pub fn download(dir: impl AsRef<Path>) -> Result<()> {
        Mnist::download_from(dir, &MIRRORS_OF_MNIST)
    }

    /// As [`download`](Self::download), from addresses to which `train-images-idx3-ubyte.gz` and so on are appended.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn download_from(dir: impl AsRef<Path>, mirrors: &[&str]) -> Result<()> {
        MNIST.iter().try_for_each(|&(stem, sha256, length)| {
            fetch("Mnist", dir.as_ref(), "MNIST", stem, mirrors, Checksum::Unpacked { sha256: sha256.into(), length })
        })
    }
}

impl FashionMnist {
    /// Fetches what is missing of the four files into `dir` (31 MB), for [`train`](Self::train) and [`test`](Self::test) to read.
    ///
    /// # Errors
    /// As [`Mnist::download`].
    pub fn download(dir: impl AsRef<Path>) -> Result<()> {
        FashionMnist::download_from(dir, &MIRRORS_OF_FASHION_MNIST)
    }

    /// As [`download`](Self::download), from addresses to which `train-images-idx3-ubyte.gz` and so on are appended.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn download_from(dir: impl AsRef<Path>, mirrors: &[&str]) -> Result<()> {
        FASHION_MNIST.iter().try_for_each(|&(stem, sha256)| {
            fetch("FashionMnist", dir.as_ref(), "FashionMNIST", stem, mirrors, Checksum::File { sha256: sha256.into() })
        })
    }
}

fn fetch(name: &str, dir: &Path, folder: &str, stem: &str, mirrors: &[&str], checksum: Checksum) -> Result<()> {
    let kind = if stem.ends_with("images") { "idx3-ubyte" } else { "idx1-ubyte" };
    let file = format!("{stem}-{kind}.gz");
    let target = dir.join(&file);
    if let Ok(found) = mnist::find(name, dir, folder, stem, kind) {
        let Some(problem) = checksum.problem_of(&found)? else { return Ok(()) };
        if found != target {
            return Err(Error::format(
                found,
                format!("not the published file, and in its place: {problem}. Remove it or take another directory"),
            ));
        }
    }
    let urls = mirrors.iter().map(|mirror| format!("{}/{file}", mirror.trim_end_matches('/')));
    Download::new(urls, checksum).size_limit(LARGEST).to(target)
}

/// What a downloaded file must hash to; hexadecimal.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Checksum {
    /// The sha256 of the file.
    File {
        /// 64 digits.
        sha256: String,
    },
    /// The sha256 of what the file unpacks to, for gzip files of which there are several compressions.
    Unpacked {
        /// 64 digits.
        sha256: String,
        /// The number of bytes it unpacks to.
        length: u64,
    },
}

impl Checksum {
    /// What is wrong with a file, `None` when it is right.
    fn problem_of(&self, path: &Path) -> Result<Option<String>> {
        if path.is_dir() {
            return Err(Error::format(path, "expected a file or nothing here, this is a directory"));
        }
        self.problem(&mut File::open(path).map_err(Error::io(path))?, path)
    }

    fn problem(&self, file: &mut File, path: &Path) -> Result<Option<String>> {
        file.rewind().map_err(Error::io(path))?;
        let hashed = match self {
            Checksum::File { .. } => hash(file, u64::MAX),
            Checksum::Unpacked { length, .. } => {
                let mut magic = [0; 2];
                let packed = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
                file.rewind().map_err(Error::io(path))?;
                // One byte more than there should be tells a longer file without reading it all.
                let most = length.saturating_add(1);
                if packed { hash(MultiGzDecoder::new(file), most) } else { hash(file, most) }
            }
        };
        let (found, sha256) = match (hashed, self) {
            (Err(error), _) if error.raw_os_error().is_some() => return Err(Error::io(path)(error)),
            (Err(error), _) => return Ok(Some(format!("it does not unpack: {error}"))),
            (Ok((_, bytes)), Checksum::Unpacked { length, .. }) if bytes != *length => {
                let found = if bytes > *length { "more".to_string() } else { bytes.to_string() };
                return Ok(Some(format!("it unpacks to {found}, not to {length} bytes")));
            }
            (Ok((found, _)), Checksum::File { sha256 } | Checksum::Unpacked { sha256, .. }) => (found, sha256),
        };
        Ok((!found.eq_ignore_ascii_case(sha256)).then(|| format!("its sha256 is {found}, expected {sha256}")))
    }
}

/// The sha256 and the number of the first `most` bytes.
fn hash(reader: impl Read, most: u64) -> io::Result<(String, u64)> {
    let (mut hasher, mut bytes, mut reader) = (Sha256::new(), 0, reader.take(most));
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                bytes += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok((hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), bytes))
}

/// One file, to be fetched from the first of several addresses that gives the right content.
///
/// ```no_run
/// use convnet::data::{Checksum, Download};
///
/// let sha256 = "08dc20ab1689590a0bcd66e874647b6ee8464e2d501b5a3f1f78831db19a3fdc".into();
/// Download::new(["https://example.org/train-images-idx3-ubyte.gz"], Checksum::File { sha256 }).to("data/train-images-idx3-ubyte.gz")?;
/// # Ok::<(), convnet::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Download {
    urls: Vec<String>,
    checksum: Checksum,
    size_limit: u64,
    connect_timeout: Duration,
    stall_timeout: Duration,
}

impl Download {
    /// From these addresses, tried in order.
    pub fn new<U: Into<String>>(urls: impl IntoIterator<Item = U>, checksum: Checksum) -> Download {
        Download {
            urls: urls.into_iter().map(U::into).collect(),
            checksum,
            size_limit: 1 << 30,
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
        }
    }

    /// The most bytes to accept; 1 GiB by default.
    pub fn size_limit(mut self, bytes: u64) -> Download {
        self.size_limit = bytes;
        self
    }

    /// How long to wait for a connection; 15 s by default.
    pub fn connect_timeout(mut self, timeout: Duration) -> Download {
        self.connect_timeout = timeout;
        self
    }

    /// How long to wait for the next bytes; 30 s by default.
    pub fn stall_timeout(mut self, timeout: Duration) -> Download {
        self.stall_timeout = timeout;
        self
    }

    /// Fetches the file to `path`, unless what is there already has the right content. Makes the directory when there is none.
    ///
    /// # Errors
    /// [`Error::Download`] when no address gives the right content; it tells what each did. A transfer that was cut off leaves
    /// `path` with `.part` appended, where the next call goes on. [`Error::Io`] when the file cannot be written, [`Error::Format`] when
    /// `path` is a directory, [`Error::Argument`] without addresses.
    pub fn to(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        if self.is_done(path)? {
            return Ok(());
        }
        if self.urls.is_empty() {
            return Err(Error::argument("download", format!("no address to fetch {} from", path.display())));
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(Error::io(directory))?;
        let mut part = Part::open(path)?;
        // Another process may have finished, and renamed what we opened, before we had the lock.
        if self.is_done(path)? {
            let _ = fs::remove_file(&part.path);
            return Ok(());
        }
        self.fill(&mut part)?;
        part.file.sync_all().map_err(Error::io(&part.path))?;
        fs::rename(&part.path, path).map_err(Error::io(path))?;
        // Makes the new name last through a crash, where the system lets directories be synced.
        let _ = File::open(directory).and_then(|directory| directory.sync_all());
        Ok(())
    }

    fn is_done(&self, path: &Path) -> Result<bool> {
        Ok(path.exists() && self.checksum.problem_of(path)?.is_none())
    }

    /// Completes the partial file from the first mirror that can.
    fn fill(&self, part: &mut Part) -> Result<()> {
        if part.length()? > 0 && self.checksum.problem(&mut part.file, &part.path)?.is_none() {
            return Ok(());
        }
        let mut failures = Vec::new();
        for url in &self.urls {
            match self.fill_from(url, part) {
                Err(Error::Download { url, message }) => failures.push((url, message)),
                other => return other,
            }
        }
        let (url, mut message) = failures.swap_remove(0);
        failures.iter().for_each(|(url, other)| message += &format!("; {url}: {other}"));
        Err(Error::Download { url, message })
    }

    fn fill_from(&self, url: &str, part: &mut Part) -> Result<()> {
        let mut resumptions = 0;
        loop {
            let before = part.length()?;
            match self.transfer(url, part) {
                Ok(()) => {
                    let Some(problem) = self.checksum.problem(&mut part.file, &part.path)? else { return Ok(()) };
                    part.clear()?;
                    // What was there before may be at fault: once more from the start.
                    if before == 0 {
                        return Err(failure(url, format!("not the published file: {problem}")));
                    }
                }
                Err(error @ Error::Download { .. }) => {
                    resumptions += 1;
                    if part.length()? <= before || resumptions > RESUMPTIONS {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One request; appends to the partial file what the server sends.
    fn transfer(&self, url: &str, part: &mut Part) -> Result<()> {
        let mut start = part.length()?;
        let mut response = self.request(url, start)?;
        if start > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // Longer than the file: not a part of it.
            part.clear()?;
            start = 0;
            response = self.request(url, start)?;
        }
        match response.status() {
            StatusCode::OK => {
                part.clear()?;
                start = 0;
            }
            StatusCode::PARTIAL_CONTENT if start > 0 && continues_at(&response, start) => {}
            StatusCode::PARTIAL_CONTENT => return Err(failure(url, "the server sent another part of the file than asked for")),
            status => return Err(failure(url, format!("the server answered {status}"))),
        }
        let announced = response.body().content_length();
        if announced.is_some_and(|length| length > self.size_limit.saturating_sub(start)) {
            let length = announced.unwrap_or(0).saturating_add(start);
            return Err(failure(url, format!("oversized: {length} bytes announced, the limit is {}", self.size_limit)));
        }
        part.file.seek(SeekFrom::Start(start)).map_err(Error::io(&part.path))?;
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 64 * 1024];
        let mut length = start;
        loop {
            let count = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(failure(url, format!("broke off after {length} bytes: {}", self.describe(ureq::Error::from(error)))));
                }
            };
            length += count as u64;
            if length > self.size_limit {
                part.clear()?;
                return Err(failure(url, format!("oversized: it goes on beyond the limit of {} bytes", self.size_limit)));
            }
            part.file.write_all(&buffer[..count]).map_err(Error::io(&part.path))?;
        }
    }

    fn request(&self, url: &str, start: u64) -> Result<Response<Body>> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(5)
            .timeout_resolve(Some(self.connect_timeout))
            .timeout_connect(Some(self.connect_timeout))
            .timeout_send_request(Some(self.stall_timeout))
            .timeout_recv_response(Some(self.stall_timeout))
            .timeout_per_read(Some(self.stall_timeout))
            .timeout_per_call(Some(LONGEST_TRANSFER));
        if is_loopback(url) {
            config = config.proxy(None);
        }
        // Bytes as they are stored: a transfer encoding would change what ranges and lengths count.
        let mut request = Agent::new_with_config(config.build()).get(url).header(header::ACCEPT_ENCODING, "identity");
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        request.call().map_err(|error| failure(url, self.describe(error)))
    }

    fn describe(&self, error: ureq::Error) -> String {
        match error {
            ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
                format!("no connection within {:?}", self.connect_timeout)
            }
            ureq::Error::Timeout(ureq::Timeout::PerCall) => format!("not finished within {LONGEST_TRANSFER:?}"),
            ureq::Error::Timeout(_) => format!("stalled: no data for {:?}", self.stall_timeout),
            error => error.to_string(),
        }
    }
}

fn failure(url: &str, message: impl Into<String>) -> Error {
    Error::Download { url: url.into(), message: message.into() }
}

/// Whether a partial answer begins at this byte.
fn continues_at(response: &Response<Body>, start: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.trim().starts_with(&format!("bytes {start}-")))
}

/// Whether the address is on this machine, which no proxy reaches.
fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<ureq::http::Uri>();
    uri.is_ok_and(|uri| matches!(uri.host(), Some("127.0.0.1" | "localhost" | "[::1]")))
}

/// The partial file, locked against other processes.
struct Part {
    path: PathBuf,
    file: File,
}

impl Part {
    fn open(target: &Path) -> Result<Part> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(Error::io(&path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let message = "another process is downloading this file";
                Err(Error::io(&path)(io::Error::new(io::ErrorKind::WouldBlock, message)))
            }
            // A file system without locks still has the checksum.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Part { path, file }),
        }
    }

    fn length(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(Error::io(&self.path))?.len())
    }

    fn clear(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(Error::io(&self.path))
    }
}

impl Drop for Part {
    /// An empty file is no progress to keep. (After the renaming there is none of this name.)
    fn drop(&mut self) {
        if self.length().is_ok_and(|length| length == 0) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
