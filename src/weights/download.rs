//! Downloads of weights, kept in a cache.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::io::download::{Checksum, Download};

/// Fetches a file of weights into [`cache_folder`], unless it is there already, and returns its
/// path for [`load`](super::load).
///
/// `sha256` has 64 hexadecimal digits as `sha256sum` prints them, or their first 8 or more:
/// torchvision publishes 8 at the end of its files' names, and `models::published` has them. Eight
/// digits show damage and mix-ups; only all 64 show a forged file.
///
/// An existing file is checked against the sha256 each time; when it is right, no server is asked.
/// Otherwise the file gets its name only when it is whole and right, and a transfer that breaks off
/// goes on at the next call. At most 1 GiB is accepted; a [`Download`] has other limits, mirrors
/// and time-outs.
///
/// ```no_run
/// use convnet::weights;
///
/// let path = weights::download("https://download.pytorch.org/models/resnet18-f37072fd.pth", "f37072fd")?;
/// let state = weights::load(path)?;
/// # Ok::<(), convnet::Error>(())
/// ```
///
/// # Errors
/// [`Error::Download`] when the address does not give the right content, [`Error::Io`] when the
/// file cannot be written, [`Error::Argument`] when the sha256 is not 8 to 64 hexadecimal digits,
/// or no folder for caches is known.
pub fn download(url: &str, sha256: &str) -> Result<PathBuf> {
    download_into(cache_folder()?, url, sha256)
}

/// Fetches a file of weights as [`download`] does, into another folder, which is made when there is
/// none.
///
/// # Errors
/// [`Error::Download`] when the address does not give the right content, [`Error::Io`] when the
/// file cannot be written, [`Error::Argument`] when the sha256 is not 8 to 64 hexadecimal digits.
pub fn download_into(folder: impl AsRef<Path>, url: &str, sha256: &str) -> Result<PathBuf> {
    if !(8..=64).contains(&sha256.len()) || !sha256.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        let message = format!("expected a sha256 of 64 hexadecimal digits, or its first 8 or more, got {sha256:?}");
        return Err(Error::argument("download", message));
    }
    let sha256 = sha256.to_ascii_lowercase();
    // Files of different content never share a name.
    let path = folder.as_ref().join(format!("{}-{}", &sha256[..sha256.len().min(16)], file_name(url)));
    Download::new([url], Checksum::File { sha256 }).to(&path)?;
    Ok(path)
}

/// Returns the last part of an address, with an underscore for each character that may mean
/// something to a file system.
fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-+".contains(c) { c } else { '_' };
    let start = last.chars().count().saturating_sub(100);
    last.chars().skip(start).map(plain).collect()
}

/// Returns the folder in which [`download`] keeps files: `convnet/weights` in `$XDG_CACHE_HOME`, or
/// else in the system's folder for caches (`~/.cache`, `~/Library/Caches`, `%LOCALAPPDATA%`).
///
/// # Errors
/// [`Error::Argument`] when none of these is known.
pub fn cache_folder() -> Result<PathBuf> {
    Ok(caches(|name| env::var_os(name), env::home_dir())?.join("convnet").join("weights"))
}

/// Returns the folder for the caches of all programs.
pub(super) fn caches(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Result<PathBuf> {
    // A relative path there is invalid, says the XDG specification.
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let of_system = || {
        let home = home.filter(|home| home.is_absolute());
        match env::consts::OS {
            "windows" => absolute("LOCALAPPDATA").or(home.map(|home| home.join("AppData").join("Local"))),
            "macos" | "ios" => home.map(|home| home.join("Library").join("Caches")),
            _ => home.map(|home| home.join(".cache")),
        }
    };
    absolute("XDG_CACHE_HOME").or_else(of_system).ok_or_else(|| {
        Error::argument("cache folder", "neither XDG_CACHE_HOME nor a home directory is known; name a folder, as in `download_into`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn cache_is_where_the_environment_says_if_that_is_absolute() {
        let place = |xdg: Option<&str>, home: Option<&str>| {
            caches(|name| xdg.filter(|_| name == "XDG_CACHE_HOME").map(OsString::from), home.map(PathBuf::from))
        };
        assert_eq!(place(Some("/x"), Some("/home/me")).unwrap(), Path::new("/x"));
        for xdg in [None, Some("x"), Some("")] {
            assert_eq!(place(xdg, Some("/home/me")).unwrap(), Path::new("/home/me/.cache"));
        }
        let error = place(None, None).unwrap_err().to_string();
        assert!(error.contains("XDG_CACHE_HOME"), "{error}");
    }

    #[test]
    fn file_is_named_after_the_end_of_its_address() {
        assert_eq!(file_name("https://example.org/models/resnet18-f37072fd.pth?download=true#x"), "resnet18-f37072fd.pth");
        assert_eq!(file_name("https://example.org/a%2f..\\é:b"), "a_2f..___b");
        assert_eq!(file_name("https://example.org/"), "");
        assert_eq!(file_name(&format!("/{}.pth", "x".repeat(500))).len(), 100);
    }
}
