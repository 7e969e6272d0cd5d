//! A server on this machine whose answers a test chooses.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// What a request asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub path: String,
    /// Whether it is for the headers alone.
    pub head: bool,
    /// The first byte, of a range request.
    pub start: Option<usize>,
}

/// What to send back, byte for byte; the connection then closes, unless it hangs.
pub struct Answer {
    pub bytes: Vec<u8>,
    pub hang: bool,
}

pub fn answer(head: &str, body: &[u8]) -> Answer {
    let bytes = [format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes(), body].concat();
    Answer { bytes, hang: false }
}

pub fn ok(body: &[u8]) -> Answer {
    answer(&format!("200 OK\r\nContent-Length: {}", body.len()), body)
}

/// A proper answer to a request, ranges included.
pub fn serve(request: &Request, content: &[u8]) -> Answer {
    match request.start {
        Some(start) if start >= content.len() => answer("416 Range Not Satisfiable\r\nContent-Length: 0", b""),
        Some(start) => {
            let (rest, last, all) = (&content[start..], content.len() - 1, content.len());
            answer(&format!("206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{last}/{all}", rest.len()), rest)
        }
        None => ok(content),
    }
}

/// Answers one request after the other until it is dropped, and remembers them.
pub struct Server {
    pub address: SocketAddr,
    pub requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `respond` gets the request's number and the request.
    pub fn start(respond: impl Fn(usize, &Request) -> Answer + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, stop): (Arc<Mutex<Vec<Request>>>, Arc<AtomicBool>) = Default::default();
        let (seen, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                let request = read_request(&stream);
                let number = seen.lock().unwrap().len();
                seen.lock().unwrap().push(request.clone());
                let Answer { bytes, hang } = respond(number, &request);
                // A client may close its end early, which is no error here.
                let _ = stream.write_all(&bytes);
                if hang {
                    hanging.push(stream);
                }
            }
        });
        Server { address, requests, stop, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}/file", self.address)
    }

    pub fn starts(&self) -> Vec<Option<usize>> {
        self.requests.lock().unwrap().iter().map(|request| request.start).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

fn read_request(stream: &TcpStream) -> Request {
    let mut request = Request::default();
    for line in BufReader::new(stream).lines().map_while(std::io::Result::ok).take_while(|line| !line.is_empty()) {
        if let Some(path) = line.strip_prefix("GET ").or_else(|| line.strip_prefix("HEAD ")) {
            request.head = line.starts_with("HEAD");
            request.path = path.split(' ').next().unwrap_or_default().into();
        }
        if let Some(start) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            request.start = start.trim_end_matches('-').parse().ok();
        }
    }
    request
}
