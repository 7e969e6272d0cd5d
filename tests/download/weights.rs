//! Weights by address and from a hub; both are kept in a cache.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use convnet::nn::StateDict;
use convnet::{Error, Tensor, weights};

use super::server::{Answer, Request, Server, answer, serve};
use super::{CONTENT, SHA256};

fn file_of(server: &Server) -> String {
    format!("http://{}/models/net.bin?download=true", server.address)
}

fn assert_refused<T: std::fmt::Debug>(result: convnet::Result<T>, words: &str) {
    let message = result.unwrap_err().to_string();
    assert!(message.contains(words), "{message:?} should say {words:?}");
}

/// Every file below a folder, links and partial ones too, by relative path.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|below| format!("{name}/{below}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

#[test]
fn weights_are_fetched_once_and_then_come_from_the_cache_without_a_server() {
    let cache = tempfile::tempdir().unwrap();
    let folder = cache.path().join("not/yet/there");
    let server = Server::start(|_, request| serve(request, CONTENT));
    let url = file_of(&server);
    let path = weights::download_into(&folder, &url, SHA256).unwrap();
    assert_eq!(path, folder.join("aaeed00891b71363-net.bin"));
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
    drop(server);
    assert_eq!(weights::download_into(&folder, &url, &SHA256.to_uppercase()).unwrap(), path);
    assert_eq!(files(&folder), ["aaeed00891b71363-net.bin"]);
}

#[test]
fn first_eight_digits_of_a_sha256_are_enough_as_torchvision_publishes_them() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| serve(request, CONTENT));
    let path = weights::download_into(cache.path(), &file_of(&server), &SHA256[..8]).unwrap();
    assert_eq!(path, cache.path().join("aaeed008-net.bin"));
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
    fs::write(&path, &CONTENT[1..]).unwrap();
    weights::download_into(cache.path(), &file_of(&server), &SHA256[..8]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
}

#[test]
fn a_cached_file_that_was_damaged_is_fetched_anew() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| serve(request, CONTENT));
    let path = weights::download_into(cache.path(), &file_of(&server), SHA256).unwrap();
    fs::write(&path, &CONTENT[1..]).unwrap();
    weights::download_into(cache.path(), &file_of(&server), SHA256).unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
    assert_eq!(server.starts(), [None, None]);
}

#[test]
fn weights_of_another_sha256_are_not_kept() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|_, request| serve(request, &CONTENT[1..]));
    assert_refused(weights::download_into(cache.path(), &file_of(&server), SHA256), "its sha256 is");
    assert_eq!(files(cache.path()), [""; 0]);
    assert_refused(weights::download_into(cache.path(), &file_of(&server), "f37072fd"), "expected f37072fd");
    for wrong in ["", &SHA256[..7], &format!("{SHA256}0"), &SHA256.replace('a', "g")] {
        assert_refused(weights::download_into(cache.path(), &file_of(&server), wrong), "64 hexadecimal digits");
    }
}

#[test]
fn a_transfer_of_weights_that_breaks_off_goes_on_at_the_next_call() {
    let cache = tempfile::tempdir().unwrap();
    let server = Server::start(|number, request| match number {
        0 => answer(&format!("200 OK\r\nContent-Length: {}", CONTENT.len()), &CONTENT[..30]),
        1 => answer("503 Service Unavailable\r\nContent-Length: 0", b""),
        _ => serve(request, CONTENT),
    });
    assert_refused(weights::download_into(cache.path(), &file_of(&server), SHA256), "503");
    assert_eq!(files(cache.path()), ["aaeed00891b71363-net.bin.part"]);
    let path = weights::download_into(cache.path(), &file_of(&server), SHA256).unwrap();
    assert_eq!(fs::read(path).unwrap(), CONTENT);
    assert_eq!(server.starts(), [None, Some(30), Some(30)]);
}

#[test]
fn weights_that_an_address_redirects_to_keep_the_name_of_the_address() {
    let cache = tempfile::tempdir().unwrap();
    let store = Server::start(|_, request| serve(request, CONTENT));
    let there = store.url();
    let server = Server::start(move |_, _| answer(&format!("302 Found\r\nLocation: {there}\r\nContent-Length: 0"), b""));
    let path = weights::download_into(cache.path(), &file_of(&server), SHA256).unwrap();
    assert!(path.ends_with("aaeed00891b71363-net.bin") && fs::read(&path).unwrap() == CONTENT);
}

#[test]
fn downloaded_weights_load() {
    let folder = tempfile::tempdir().unwrap();
    let saved = folder.path().join("net.safetensors");
    let state = StateDict::from_iter([("weight", Tensor::ones([2, 3]))]);
    weights::save(&saved, &state).unwrap();
    let content = fs::read(&saved).unwrap();
    let served = content.clone();
    let hub = hub(move |request| serve(request, &served), &sha256(&content));
    let path = reader(&hub, folder.path()).file("org/net", "net.safetensors").unwrap();
    assert_eq!(weights::load(path).unwrap().get("weight").unwrap().to_vec::<f32>().unwrap(), [1.0; 6]);
}

fn sha256(content: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// As `git hash-object` gives it.
const SHA1: &str = "871d9acc2e4a5ff1ac82faf0c1c406de7f8dd52b";

/// A hub that knows one file by this name in the cache, and sends it by `respond`.
fn hub(respond: impl Fn(&Request) -> Answer + Send + 'static, tag: &str) -> Server {
    let tag = tag.to_string();
    Server::start(move |_, request| {
        if request.head { answer(&format!("200 OK\r\nX-Repo-Commit: {COMMIT}\r\nETag: \"{tag}\""), b"") } else { respond(request) }
    })
}

fn reader(server: &Server, cache: &Path) -> weights::Hub {
    let hub = weights::Hub::new().unwrap().endpoint(format!("http://{}/", server.address)).cache(cache.join("hub")).size_limit(1000);
    hub.connect_timeout(Duration::from_secs(5)).stall_timeout(Duration::from_secs(5))
}

fn paths(server: &Server) -> Vec<String> {
    server.requests.lock().unwrap().iter().map(|request| request.path.clone()).collect()
}

#[test]
fn a_file_of_the_hub_is_in_the_cache_where_the_python_library_puts_it() {
    let cache = tempfile::tempdir().unwrap();
    let server = hub(|request| serve(request, CONTENT), SHA256);
    let reader = reader(&server, cache.path());
    let path = reader.file("org/net", "sub/net.bin").unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
    assert_eq!(
        files(cache.path()),
        [
            format!("hub/models--org--net/blobs/{SHA256}"),
            "hub/models--org--net/refs/main".to_string(),
            format!("hub/models--org--net/snapshots/{COMMIT}/sub/net.bin"),
        ]
    );
    assert_eq!(fs::read_to_string(cache.path().join("hub/models--org--net/refs/main")).unwrap(), COMMIT);
    #[cfg(unix)]
    assert_eq!(fs::read_link(&path).unwrap(), Path::new("../../../blobs").join(SHA256));
    assert_eq!(paths(&server), ["/org/net/resolve/main/sub/net.bin".to_string(), format!("/org/net/resolve/{COMMIT}/sub/net.bin")]);

    drop(server);
    assert_eq!(reader.file("org/net", "sub/net.bin").unwrap(), path, "the cache needs no server");
    assert_eq!(reader.clone().revision(COMMIT).file("org/net", "sub/net.bin").unwrap(), path);
    assert!(matches!(reader.file("org/net", "other.bin"), Err(Error::Download { .. })));
    assert!(matches!(reader.revision("v2").file("org/net", "sub/net.bin"), Err(Error::Download { .. })));
}

#[test]
fn a_small_file_of_the_hub_is_checked_by_the_name_that_git_gives_it() {
    let cache = tempfile::tempdir().unwrap();
    let server = hub(|request| serve(request, CONTENT), SHA1);
    let path = reader(&server, cache.path()).file("net", "config.json").unwrap();
    assert_eq!(fs::read(path).unwrap(), CONTENT);
    let other = hub(|request| serve(request, &CONTENT[1..]), SHA1);
    assert_refused(reader(&other, cache.path()).file("other", "config.json"), "its sha1 as a git blob is");
}

#[test]
fn large_files_of_the_hub_come_from_another_host_and_renamed_repositories_are_followed() {
    let cache = tempfile::tempdir().unwrap();
    let store = Server::start(|_, request| serve(request, CONTENT));
    let there = store.url();
    let server = Server::start(move |_, request| match &request.path[..] {
        path if path.starts_with("/old/") => {
            answer(&format!("307 Temporary Redirect\r\nLocation: {}\r\nContent-Length: 0", path.replace("old", "org")), b"")
        }
        // The `ETag` of the store must not be taken for the file's.
        _ => answer(
            &format!(
                "302 Found\r\nLocation: {there}\r\nContent-Length: 0\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-ETag: \"{SHA256}\"\r\nETag: \"x\""
            ),
            b"",
        ),
    });
    let path = reader(&server, cache.path()).file("old/net", "net.bin").unwrap();
    assert_eq!(fs::read(path).unwrap(), CONTENT);
    assert_eq!(store.starts(), [None], "the question is the hub's to answer");
    let circle = Server::start(|_, request| answer(&format!("307 Temporary Redirect\r\nLocation: {}", request.path), b""));
    assert_refused(reader(&circle, cache.path()).file("a/b", "net.bin"), "in a circle");
}

#[test]
fn wrong_short_or_long_content_from_the_hub_is_not_kept() {
    let cases: [(fn(&Request) -> Answer, &str); 5] = [
        (|request| serve(request, &CONTENT[1..]), "its sha256 is"),
        (|_| answer("200 OK\r\nContent-Length: 81", &CONTENT[..0]), "broke off after 0 bytes"),
        (|_| answer("200 OK\r\nContent-Length: 1001", CONTENT), "oversized"),
        (|_| answer("200 OK", &[0; 100_000]), "oversized"),
        (|_| Answer { bytes: b"HTTP/1.1 200 OK\r\nContent-Length: 81\r\n\r\n01".to_vec(), hang: true }, "stalled"),
    ];
    for (respond, words) in cases {
        let cache = tempfile::tempdir().unwrap();
        let server = hub(respond, SHA256);
        let mut hub = reader(&server, cache.path());
        if words == "stalled" {
            hub = hub.stall_timeout(Duration::from_millis(300));
        }
        let start = Instant::now();
        assert_refused(hub.file("org/net", "net.bin"), words);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(files(cache.path()).iter().all(|file| file.ends_with(".part")), "{:?}", files(cache.path()));
    }
}

#[test]
fn a_transfer_from_the_hub_that_breaks_off_goes_on_at_the_next_call() {
    let cache = tempfile::tempdir().unwrap();
    let partial = hub(
        |request| match request.start {
            None => answer("200 OK\r\nContent-Length: 81", &CONTENT[..30]),
            Some(_) => answer("503 Service Unavailable\r\nContent-Length: 0", b""),
        },
        SHA256,
    );
    assert_refused(reader(&partial, cache.path()).file("org/net", "net.bin"), "503");
    let whole = hub(|request| serve(request, CONTENT), SHA256);
    let path = reader(&whole, cache.path()).file("org/net", "net.bin").unwrap();
    assert_eq!(fs::read(path).unwrap(), CONTENT);
    assert_eq!(whole.starts(), [None, Some(30)]);
}

#[test]
fn an_answer_that_no_hub_gives_is_an_error_and_writes_nothing() {
    let cases = [
        ("200 OK".to_string(), "of which commit"),
        (format!("200 OK\r\nX-Repo-Commit: {COMMIT}"), "does not state the file's checksum"),
        ("200 OK\r\nX-Repo-Commit: ../../outside\r\nETag: \"x\"".to_string(), "expected 40 hexadecimal digits"),
        (format!("200 OK\r\nX-Repo-Commit: {COMMIT}\r\nETag: \"../../../outside\""), "expected a sha256 or a sha1"),
        (format!("200 OK\r\nX-Repo-Commit: {COMMIT}\r\nETag: \"{}\"", "/".repeat(64)), "expected a sha256 or a sha1"),
        ("404 Not Found".to_string(), "the server answered 404 Not Found"),
        ("401 Unauthorized".to_string(), "401"),
        (format!("302 Found\r\nX-Repo-Commit: {COMMIT}\r\nX-Linked-ETag: \u{e9}"), "checksum"),
    ];
    for (head, words) in cases {
        let cache = tempfile::tempdir().unwrap();
        let server = Server::start(move |_, _| answer(&head, b""));
        assert_refused(reader(&server, cache.path()).file("org/net", "net.bin"), words);
        assert_eq!(files(cache.path()), [""; 0]);
    }
    let silent = Server::start(|_, _| Answer { bytes: Vec::new(), hang: true });
    let cache = tempfile::tempdir().unwrap();
    let hub = reader(&silent, cache.path()).stall_timeout(Duration::from_millis(300));
    assert_refused(hub.file("org/net", "net.bin"), "stalled");
}

#[test]
fn invalid_names_are_refused_before_any_request() {
    let server = Server::start(|_, request| serve(request, CONTENT));
    let cache = tempfile::tempdir().unwrap();
    let hub = reader(&server, cache.path());
    for (repo, file) in [("", "f"), ("a/b/c", "f"), ("../b", "f"), ("a/b", "../f"), ("a/b", "/f"), ("a/b", ""), ("a/b", "f?x")] {
        assert!(matches!(hub.file(repo, file), Err(Error::Argument { .. })), "{repo} {file}");
    }
    assert!(matches!(hub.clone().revision("../x").file("a/b", "f"), Err(Error::Argument { .. })));
    for endpoint in ["", "nonsense", "ftp://127.0.0.1"] {
        assert!(matches!(hub.clone().endpoint(endpoint).file("a/b", "f"), Err(Error::Download { .. })), "{endpoint:?}");
    }
    assert_eq!(server.starts(), []);
}
