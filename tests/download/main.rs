//! Downloads, from a server on this machine that misbehaves in many ways.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use convnet::data::{Checksum, Cifar10, Cifar100, Dataset, Download, FashionMnist, Mnist};
use convnet::{Error, Result};
use flate2::{Compression, write::GzEncoder};

mod server;
mod weights;

use server::{Answer, Server, answer, ok, serve};

/// What the server has, and its sha256 as `sha256sum` gives it.
const CONTENT: &[u8] = b"0123456789 this is the content of the file that all these tests fetch 9876543210\n";
const SHA256: &str = "aaeed00891b7136390c8d30e03ae0169965b01d8ed697b42063873fbd3aebe33";

struct Target {
    dir: tempfile::TempDir,
}

impl Target {
    fn new() -> Target {
        Target { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("file")
    }

    fn part(&self) -> PathBuf {
        self.dir.path().join("file.part")
    }

    fn fetch(&self, urls: &[String]) -> Result<()> {
        download(urls).to(self.path())
    }

    /// Asserts that the whole file is there, and nothing else.
    fn assert_whole(&self) {
        assert_eq!(fs::read(self.path()).unwrap(), CONTENT);
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    /// Asserts that there is no file, and an error that contains this text.
    fn assert_failed(&self, result: Result<()>, words: &str) {
        assert!(matches!(result, Err(Error::Download { .. })), "{result:?}");
        let message = result.unwrap_err().to_string();
        assert!(message.contains(words), "{message:?} should say {words:?}");
        assert!(message.contains("http://127.0.0.1"), "{message:?} should name the address");
        assert!(!self.path().exists(), "nothing may have the final name");
    }
}

fn checksum() -> Checksum {
    Checksum::File { sha256: SHA256.into() }
}

fn download(urls: &[String]) -> Download {
    Download::new(urls, checksum()).size_limit(1000).connect_timeout(Duration::from_secs(5)).stall_timeout(Duration::from_secs(5))
}

#[test]
fn a_good_server_gives_the_file_once() {
    let server = Server::start(|_, request| serve(request, CONTENT));
    let target = Target::new();
    target.fetch(&[server.url()]).unwrap();
    target.assert_whole();
    target.fetch(&[server.url()]).unwrap();
    assert_eq!(server.starts(), [None], "a file that is there is not fetched again");
}

#[test]
fn directories_are_made_and_a_wrong_file_is_replaced() {
    let server = Server::start(|_, request| serve(request, CONTENT));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some/where/file");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "an older version").unwrap();
    download(&[server.url()]).to(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), CONTENT);
    download(&[server.url()]).to(dir.path().join("else/where/file")).unwrap();
}

#[test]
fn a_refusal_makes_it_ask_the_next_mirror() {
    let bad = Server::start(|_, _| answer("404 Not Found\r\nContent-Length: 4", b"gone"));
    let good = Server::start(|_, request| serve(request, CONTENT));
    let target = Target::new();
    target.fetch(&[bad.url(), good.url()]).unwrap();
    target.assert_whole();
    let target = Target::new();
    target.assert_failed(target.fetch(&[bad.url()]), "the server answered 404 Not Found");
    assert!(!target.part().exists());
}

#[test]
fn the_error_lists_what_each_mirror_did() {
    let gone = Server::start(|_, _| answer("404 Not Found\r\nContent-Length: 0", b""));
    let wrong = Server::start(|_, _| ok(b"something else"));
    let target = Target::new();
    let error = target.fetch(&[gone.url(), wrong.url()]).unwrap_err().to_string();
    assert!(
        error.contains("404") && error.contains(&gone.url()) && error.contains(&wrong.url()) && error.contains("its sha256 is"),
        "{error}"
    );
}

#[test]
fn wrong_content_never_gets_the_final_name() {
    let server = Server::start(|_, _| ok(&[&CONTENT[1..], b"!"].concat()));
    let target = Target::new();
    target.assert_failed(target.fetch(&[server.url()]), "not the published file: its sha256 is");
    assert!(!target.part().exists(), "it is of no use either");
}

#[test]
fn a_server_that_announces_more_than_it_sends_is_asked_to_go_on_and_then_given_up() {
    let server = Server::start(|_, request| match request.start {
        None => answer(&format!("200 OK\r\nContent-Length: {}", CONTENT.len()), &CONTENT[..30]),
        Some(start) => answer(&format!("206 Partial Content\r\nContent-Length: 51\r\nContent-Range: bytes {start}-80/81"), b""),
    });
    let target = Target::new();
    target.assert_failed(target.fetch(&[server.url()]), "broke off after 30 bytes");
    assert_eq!(fs::read(target.part()).unwrap(), &CONTENT[..30], "for the next time");
    assert_eq!(server.starts(), [None, Some(30)]);
}

#[test]
fn a_server_that_announces_less_than_it_sends_is_found_out() {
    let server = Server::start(|_, _| answer("200 OK\r\nContent-Length: 20", CONTENT));
    let target = Target::new();
    target.assert_failed(target.fetch(&[server.url()]), "its sha256 is");
}

#[test]
fn a_stalled_transfer_ends_with_an_error_in_time() {
    let stall = |sent: usize| {
        Server::start(move |_, _| Answer {
            bytes: [b"HTTP/1.1 200 OK\r\nContent-Length: 81\r\n\r\n", CONTENT].concat()[..sent].to_vec(),
            hang: true,
        })
    };
    // In the head, right after it, in the body.
    for sent in [0, 10, 40, 60] {
        let server = stall(sent);
        let target = Target::new();
        let start = Instant::now();
        let download = download(&[server.url()]).stall_timeout(Duration::from_millis(300));
        target.assert_failed(download.to(target.path()), "stalled: no data for 300ms");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[test]
fn a_transfer_that_is_cut_off_goes_on_where_it_stopped() {
    let server = Server::start(|number, request| {
        let Answer { mut bytes, .. } = serve(request, CONTENT);
        bytes.truncate(bytes.len() - [30, 5, 0][number]);
        Answer { bytes, hang: false }
    });
    let target = Target::new();
    target.fetch(&[server.url()]).unwrap();
    target.assert_whole();
    assert_eq!(server.starts(), [None, Some(51), Some(76)]);
}

#[test]
fn the_next_call_and_another_mirror_go_on_with_a_partial_file() {
    let server = Server::start(|_, request| serve(request, CONTENT));
    let target = Target::new();
    fs::write(target.part(), &CONTENT[..50]).unwrap();
    target.fetch(&["http://127.0.0.1:1/".into(), server.url()]).unwrap();
    target.assert_whole();
    assert_eq!(server.starts(), [Some(50)]);
}

#[test]
fn a_complete_partial_file_needs_no_server() {
    let target = Target::new();
    fs::write(target.part(), CONTENT).unwrap();
    target.fetch(&["http://127.0.0.1:1/".into()]).unwrap();
    target.assert_whole();
}

#[test]
fn a_partial_file_that_does_not_fit_is_thrown_away() {
    for (part, starts) in [(vec![b'x'; 10], [Some(10), None]), (vec![b'x'; 500], [Some(500), None])] {
        let server = Server::start(|_, request| serve(request, CONTENT));
        let target = Target::new();
        fs::write(target.part(), part).unwrap();
        target.fetch(&[server.url()]).unwrap();
        target.assert_whole();
        assert_eq!(server.starts(), starts);
    }
}

#[test]
fn a_server_without_ranges_starts_again() {
    let server = Server::start(|_, _| ok(CONTENT));
    let target = Target::new();
    fs::write(target.part(), &CONTENT[..50]).unwrap();
    target.fetch(&[server.url()]).unwrap();
    target.assert_whole();
    assert_eq!(server.starts(), [Some(50)]);
}

#[test]
fn another_range_than_asked_for_is_not_taken() {
    let server = Server::start(|_, _| answer("206 Partial Content\r\nContent-Length: 10\r\nContent-Range: bytes 0-9/81", &CONTENT[..10]));
    let target = Target::new();
    fs::write(target.part(), &CONTENT[..50]).unwrap();
    target.assert_failed(target.fetch(&[server.url()]), "another part of the file than asked for");
}

#[test]
fn redirects_are_followed_but_not_in_a_circle() {
    let server = Server::start(|_, request| match &request.path[..] {
        "/file" => answer("302 Found\r\nLocation: /there\r\nContent-Length: 0", b""),
        "/there" => serve(request, CONTENT),
        path => answer(&format!("302 Found\r\nLocation: {path}\r\nContent-Length: 0"), b""),
    });
    let target = Target::new();
    target.fetch(&[server.url()]).unwrap();
    target.assert_whole();
    let target = Target::new();
    target.assert_failed(target.fetch(&[format!("http://{}/circle", server.address)]), "redirect");
    assert!(server.starts().len() <= 2 + 6 + 1);
}

#[test]
fn an_oversized_file_is_refused_announced_or_not() {
    let announced = Server::start(|_, _| answer("200 OK\r\nContent-Length: 1001", &[0; 1001]));
    let target = Target::new();
    target.assert_failed(target.fetch(&[announced.url()]), "oversized: 1001 bytes announced, the limit is 1000");
    let huge = Server::start(|_, _| answer(&format!("200 OK\r\nContent-Length: {}", u64::MAX), b"x"));
    target.assert_failed(target.fetch(&[huge.url()]), "oversized");
    let silent = Server::start(|_, _| answer("200 OK", &[0; 100_000]));
    target.assert_failed(target.fetch(&[silent.url()]), "oversized: it goes on beyond the limit of 1000 bytes");
    assert!(!target.part().exists());
}

#[test]
fn an_address_without_a_server_is_an_error() {
    let target = Target::new();
    target.assert_failed(target.fetch(&["http://127.0.0.1:1/file".into()]), "download of http://127.0.0.1:1/file");
    for url in ["", "nonsense", "ftp://127.0.0.1/file", "http://"] {
        assert!(matches!(target.fetch(&[url.into()]), Err(Error::Download { .. })), "{url:?}");
    }
    assert_eq!(target.fetch(&[]).unwrap_err().to_string(), format!("download: no address to fetch {} from", target.path().display()));
}

#[test]
fn a_directory_in_place_of_the_file_is_an_error() {
    let target = Target::new();
    fs::create_dir(target.path()).unwrap();
    let message = target.fetch(&["http://127.0.0.1:1/file".into()]).unwrap_err().to_string();
    assert!(message.contains("this is a directory") && message.contains(target.path().to_str().unwrap()), "{message}");
}

#[test]
fn two_downloads_of_one_file_do_not_mix() {
    let target = Target::new();
    let held = fs::File::create(target.part()).unwrap();
    held.try_lock().unwrap();
    let message = target.fetch(&["http://127.0.0.1:1/file".into()]).unwrap_err().to_string();
    assert!(message.contains("another process is downloading this file"), "{message}");
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_checksum_of_the_unpacked_content_takes_any_compression_but_no_bomb() {
    let checksum = || Checksum::Unpacked { sha256: SHA256.to_uppercase(), length: CONTENT.len() as u64 };
    let fetch = |content: Vec<u8>| {
        let server = Server::start(move |_, request| serve(request, &content));
        let dir = tempfile::tempdir().unwrap();
        Download::new([server.url()], checksum()).to(dir.path().join("file.gz")).map_err(|error| error.to_string())
    };
    fetch(gzip(CONTENT)).unwrap();
    let two_members = [gzip(&CONTENT[..9]), gzip(&CONTENT[9..])].concat();
    fetch(two_members).unwrap();
    assert!(fetch(gzip(&[CONTENT, &vec![0; 1 << 20]].concat())).unwrap_err().contains("it unpacks to more, not to 81 bytes"));
    assert!(fetch(gzip(&CONTENT[1..])).unwrap_err().contains("it unpacks to 80, not to 81 bytes"));
    let mut damaged = gzip(CONTENT);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    let message = fetch(damaged).unwrap_err();
    assert!(message.contains("it does not unpack") || message.contains("its sha256 is"), "{message}");
}

#[test]
fn datasets_refuse_what_is_not_the_published_file() {
    let server = Server::start(|_, _| ok(&gzip(b"not MNIST")));
    let mirror = format!("http://{}/mnist/", server.address);
    let dir = tempfile::tempdir().unwrap();
    let message = Mnist::download_from(dir.path(), &[&mirror]).unwrap_err().to_string();
    assert!(message.contains("train-images-idx3-ubyte.gz: not the published file: it unpacks to 9, not to 47040016 bytes"), "{message}");
    let message = FashionMnist::download_from(dir.path(), &[&mirror]).unwrap_err().to_string();
    assert!(message.contains("expected 08dc20ab1689590a"), "{message}");
    assert_eq!(server.requests.lock().unwrap()[0].path, "/mnist/train-images-idx3-ubyte.gz");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    fs::write(dir.path().join("train-images.idx3-ubyte"), "in the way").unwrap();
    let message = Mnist::download_from(dir.path(), &[&mirror]).unwrap_err().to_string();
    assert!(message.contains("train-images.idx3-ubyte: not the published file") && message.contains("Remove it"), "{message}");
}

/// On real files, packed with gzip, in `data/mnist` or the directory that `CONVNET_MNIST` names.
#[test]
#[ignore = "needs MNIST as gzip in data/mnist or in CONVNET_MNIST"]
fn the_real_mnist_is_fetched_and_read() {
    let source = std::env::var_os("CONVNET_MNIST").map_or_else(|| PathBuf::from("data/mnist"), PathBuf::from);
    let server = Server::start(move |_, request| serve(request, &fs::read(source.join(&request.path[1..])).unwrap()));
    let mirror = format!("http://{}", server.address);
    let dir = tempfile::tempdir().unwrap();
    Mnist::download_from(dir.path(), &[&mirror]).unwrap();
    assert_eq!(Mnist::test(dir.path()).unwrap().len(), 10_000);
    Mnist::download_from(dir.path(), &[&mirror]).unwrap();
    assert_eq!(server.starts().len(), 4, "nothing is fetched twice");
}

#[test]
fn cifar_is_fetched_unless_it_is_there_and_only_the_published_archive_counts() {
    let server = Server::start(|_, request| serve(request, CONTENT));
    let dir = tempfile::tempdir().unwrap();
    for result in [Cifar10::download_from(&dir, &[&server.url()]), Cifar100::download_from(&dir, &[&server.url()])] {
        assert!(matches!(&result, Err(Error::Download { .. })), "{result:?}");
        assert!(result.unwrap_err().to_string().contains("not the published file"));
    }
    assert!(fs::read_dir(&dir).unwrap().next().is_none(), "nothing is left");
    let requests = server.starts().len();
    fs::create_dir(dir.path().join("cifar-100-python")).unwrap();
    for part in ["train", "test"] {
        fs::write(dir.path().join("cifar-100-python").join(part), "").unwrap();
    }
    Cifar100::download_from(&dir, &[&server.url()]).unwrap();
    assert_eq!(server.starts().len(), requests, "an unpacked dataset is not fetched again");
}
