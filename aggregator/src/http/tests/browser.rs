//! A client that stays: it asks, waits, and reads events as they come, over a real socket.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
};

use super::*;

/// An answer, as far as it was read.
pub(super) struct Reply {
    pub(super) status: u16,
    head: Vec<(String, String)>,
    stream: BufReader<TcpStream>,
    /// Of a chunked body: what was received and is no whole event yet.
    text: String,
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Heard {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) data: serde_json::Value,
}

/// Asks; returns once the head of the answer is there.
pub(super) async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Reply {
    Reply::read(ask(address, path, headers).await).await
}

/// Asks and reads nothing.
pub(super) async fn ask(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // A client that does not read is soon noticed.
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

impl Reply {
    pub(super) async fn read(stream: TcpStream) -> Self {
        let mut stream = BufReader::new(stream);
        let mut head = Vec::new();
        let status = line(&mut stream).await.expect("there is an answer");
        loop {
            let line = line(&mut stream).await.expect("the head has an end");
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            head.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Self {
            status: status.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            stream,
            text: String::new(),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.head.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) async fn json<T: DeserializeOwned>(mut self) -> T {
        let length = self.header("content-length").expect("a length").parse();
        let mut body = vec![0; length.unwrap()];
        timeout(DEADLINE, self.stream.read_exact(&mut body))
            .await
            .unwrap()
            .unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// The next event; `None` at the end of the stream. Comments and the delay of a reconnect are passed over.
    pub(super) async fn event(&mut self) -> Option<Heard> {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let heard = parse(event);
                self.text = rest.to_owned();
                if heard != Heard::default() {
                    return Some(heard);
                }
            }
            let chunk = self.chunk().await?;
            self.text.push_str(&chunk);
        }
    }

    /// The next event of this name; the ones before it are passed over.
    pub(super) async fn event_named(&mut self, name: &str) -> Heard {
        loop {
            let heard = self.event().await.expect("the stream goes on");
            if heard.name == name {
                return heard;
            }
        }
    }

    async fn chunk(&mut self) -> Option<String> {
        let size = line(&mut self.stream).await?;
        let size = usize::from_str_radix(&size, 16).unwrap();
        let mut chunk = vec![0; size + 2];
        timeout(DEADLINE, self.stream.read_exact(&mut chunk))
            .await
            .unwrap()
            .unwrap();
        (size > 0).then(|| String::from_utf8_lossy(&chunk[..size]).into_owned())
    }
}

async fn line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    let read = timeout(DEADLINE, stream.read_line(&mut line)).await;
    match read.expect("a line before the deadline") {
        Ok(1..) => Some(line.trim_end().to_owned()),
        Ok(0) | Err(_) => None,
    }
}

fn parse(event: &str) -> Heard {
    let mut heard = Heard::default();
    for line in event.lines() {
        match line.split_once(": ") {
            Some(("id", id)) => heard.id = id.to_owned(),
            Some(("event", name)) => heard.name = name.to_owned(),
            Some(("data", data)) => heard.data = serde_json::from_str(data).unwrap(),
            _ => {}
        }
    }
    heard
}
