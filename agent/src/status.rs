//! `/metrics`, `/healthz` and `/flows`, on loopback, for a Prometheus, a health check or a person on the same host.
//!
//! Three fixed pages need no HTTP framework: a request is one bounded read, an answer one write, and the connection is
//! closed. Requests are few, small and local; whatever does not look like one is answered with an error or dropped.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

/// The longest request head.
const REQUEST_BYTES: usize = 8 << 10;

/// From accepting a connection to closing it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// Requests under way; a further one waits in the kernel.
const REQUESTS_MAX: usize = 8;

/// What the pages show.
pub trait Pages: Send + Sync + 'static {
    /// The Prometheus text format.
    fn metrics(&self) -> String;

    /// What each flow of each path did lately, a line for each.
    fn flows(&self) -> String;

    /// Whether the agent does its work, and what a person would like to know about it.
    fn health(&self) -> Health;
}

/// Answer to a health check.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Health {
    /// Whether the agent does its work.
    pub healthy: bool,
    /// For people.
    pub text: String,
}

/// Serves the pages for ever.
pub async fn serve(listener: TcpListener, pages: Arc<dyn Pages>) {
    let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let _ = timeout(REQUEST_TIMEOUT, answer(stream, pages.as_ref())).await;
            drop(permit);
        });
    }
}

async fn answer(mut stream: TcpStream, pages: &dyn Pages) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(1_024);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() >= REQUEST_BYTES || stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    stream
        .write_all(respond(&request, pages).as_bytes())
        .await?;
    stream.shutdown().await
}

fn respond(request: &[u8], pages: &dyn Pages) -> String {
    let line = request
        .split(|&byte| byte == b'\r')
        .next()
        .unwrap_or_default();
    let mut words = std::str::from_utf8(line).unwrap_or_default().split(' ');
    let (method, path, version) = (words.next(), words.next(), words.next());
    if !version.is_some_and(|version| version.starts_with("HTTP/1.")) {
        return response(
            "400 Bad Request",
            "text/plain",
            "not an HTTP request\n",
            Body::Sent,
        );
    }
    let body = match method {
        Some("GET") => Body::Sent,
        Some("HEAD") => Body::Measured,
        _ => {
            return response(
                "405 Method Not Allowed",
                "text/plain",
                "only GET is served here\n",
                Body::Sent,
            );
        }
    };
    let path = path.unwrap_or_default();
    match path.split('?').next().unwrap_or_default() {
        "/metrics" => response(
            "200 OK",
            "text/plain; version=0.0.4; charset=utf-8",
            &pages.metrics(),
            body,
        ),
        "/flows" => response("200 OK", "text/plain; charset=utf-8", &pages.flows(), body),
        "/healthz" => {
            let Health { healthy, text } = pages.health();
            let status = if healthy {
                "200 OK"
            } else {
                "503 Service Unavailable"
            };
            response(status, "text/plain; charset=utf-8", &text, body)
        }
        _ => response(
            "404 Not Found",
            "text/plain",
            "only /metrics, /healthz and /flows are served here\n",
            body,
        ),
    }
}

/// Whether the answer carries its body or only its length.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Body {
    Sent,
    Measured,
}

fn response(status: &str, content_type: &str, text: &str, body: Body) -> String {
    let mut response = String::with_capacity(text.len() + 256);
    let _ = write!(
        response,
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        text.len()
    );
    if body == Body::Sent {
        response.push_str(text);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    struct Fixed(bool);

    impl Pages for Fixed {
        fn metrics(&self) -> String {
            "leeward_agent_x 1\n".to_owned()
        }

        fn flows(&self) -> String {
            "a line\n".to_owned()
        }

        fn health(&self) -> Health {
            Health {
                healthy: self.0,
                text: "words\n".to_owned(),
            }
        }
    }

    async fn ask(healthy: bool, request: &[u8]) -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, Arc::new(Fixed(healthy))));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        timeout(Duration::from_secs(5), stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        serving.abort();
        answer
    }

    #[tokio::test]
    async fn the_pages_are_served() {
        let metrics = ask(true, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
        assert!(
            metrics.ends_with("\r\n\r\nleeward_agent_x 1\n"),
            "{metrics}"
        );
        assert!(
            ask(true, b"GET /healthz HTTP/1.0\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 200")
        );
        assert!(
            ask(false, b"GET /healthz HTTP/1.0\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 503")
        );
        let flows = ask(true, b"GET /flows HTTP/1.1\r\n\r\n").await;
        assert!(flows.ends_with("\r\n\r\na line\n"), "{flows}");
        let head = ask(true, b"HEAD /metrics HTTP/1.1\r\n\r\n").await;
        assert!(
            head.contains("Content-Length: 18\r\n") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
    }

    #[tokio::test]
    async fn whatever_else_is_asked_is_refused() {
        for (request, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"GET /metrics\r\n\r\n", "400"),
            (b"\xff\xfe\x00\r\n\r\n", "400"),
            (b"", "400"),
        ] {
            let answer = ask(true, request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn a_request_without_end_is_cut_off() {
        let answer = ask(true, &[b'A'; 2 * REQUEST_BYTES]).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 400"),
            "{answer}"
        );
    }
}
