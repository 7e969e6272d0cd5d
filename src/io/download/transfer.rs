//! HTTP requests, with limits on time and size.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::Duration;

use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use crate::error::{Error, Result};
use crate::io::download::{Download, Limits, Part};

/// The most time for a transfer, against servers that send a byte now and then.
const LONGEST_TRANSFER: Duration = Duration::from_secs(3600);

impl Download {
    /// Sends one request and appends the answer to the partial file.
    pub(crate) fn transfer(&self, url: &str, part: &mut Part) -> Result<()> {
        let mut start = part.length()?;
        let mut response = self.request(url, start)?;
        if start > 0 && response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // The partial file is longer than the whole: it is not a part of it.
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
        if announced.is_some_and(|length| length > self.limits.size.saturating_sub(start)) {
            let length = announced.unwrap_or(0).saturating_add(start);
            return Err(failure(url, format!("oversized: {length} bytes announced, the limit is {}", self.limits.size)));
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
                    return Err(failure(
                        url,
                        format!("broke off after {length} bytes: {}", self.limits.describe(ureq::Error::from(error))),
                    ));
                }
            };
            length += count as u64;
            if length > self.limits.size {
                part.clear()?;
                return Err(failure(url, format!("oversized: it goes on beyond the limit of {} bytes", self.limits.size)));
            }
            part.file.write_all(&buffer[..count]).map_err(Error::io(&part.path))?;
        }
    }

    fn request(&self, url: &str, start: u64) -> Result<Response<Body>> {
        // Without transfer encodings, which would change what ranges and lengths count.
        let mut request = self.limits.agent(url, 5).get(url).header(header::ACCEPT_ENCODING, "identity");
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        request.call().map_err(|error| failure(url, self.limits.describe(error)))
    }
}

impl Limits {
    /// Makes a client with these time limits; with no redirects allowed, a redirect is its answer.
    fn agent(&self, url: &str, redirects: u32) -> Agent {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(redirects)
            .max_redirects_will_error(redirects > 0)
            .timeout_resolve(Some(self.connect))
            .timeout_connect(Some(self.connect))
            .timeout_send_request(Some(self.stall))
            .timeout_recv_response(Some(self.stall))
            .timeout_per_read(Some(self.stall))
            .timeout_per_call(Some(LONGEST_TRANSFER));
        if is_loopback(url) {
            config = config.proxy(None);
        }
        Agent::new_with_config(config.build())
    }

    /// Asks for the headers of an address, without following redirects.
    #[cfg(feature = "hub")]
    pub(crate) fn head(&self, url: &str) -> Result<Response<Body>> {
        let request = self.agent(url, 0).head(url).header(header::ACCEPT_ENCODING, "identity");
        request.call().map_err(|error| failure(url, self.describe(error)))
    }

    fn describe(&self, error: ureq::Error) -> String {
        match error {
            ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => {
                format!("no connection within {:?}", self.connect)
            }
            ureq::Error::Timeout(ureq::Timeout::PerCall) => format!("not finished within {LONGEST_TRANSFER:?}"),
            ureq::Error::Timeout(_) => format!("stalled: no data for {:?}", self.stall),
            error => error.to_string(),
        }
    }
}

pub(crate) fn failure(url: &str, message: impl Into<String>) -> Error {
    Error::Download { url: url.into(), message: message.into() }
}

/// Returns whether a partial answer begins at this byte.
fn continues_at(response: &Response<Body>, start: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.is_some_and(|range| range.trim().starts_with(&format!("bytes {start}-")))
}

/// Returns whether the address is on this machine, which no proxy reaches.
fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<ureq::http::Uri>();
    uri.is_ok_and(|uri| matches!(uri.host(), Some("127.0.0.1" | "localhost" | "[::1]")))
}
