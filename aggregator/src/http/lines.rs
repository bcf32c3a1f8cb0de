//! Answers that grow: one JSON object per line (`application/x-ndjson`), written by a thread that may block.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use hyper::body::Frame;
use serde::Serialize;
use tokio::sync::mpsc;

/// Lines that wait to be read; a slow reader misses progress and nothing else.
const WAITING: usize = 16;

/// Where a thread writes lines.
#[derive(Debug)]
pub(super) struct Lines(mpsc::Sender<Bytes>);

/// The same as a response.
pub(super) fn lines() -> (Lines, Response) {
    stream("application/x-ndjson")
}

/// An answer of any media type that is written piece by piece.
pub(super) fn stream(media_type: &'static str) -> (Lines, Response) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let mut response = Response::new(Body::new(Reading(receiver)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    let no_store = HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, no_store);
    (Lines(sender), response)
}

impl Lines {
    /// Whether whoever asked has left.
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Writes a line if there is room for one.
    pub(super) fn offer(&self, line: &impl Serialize) {
        let _ = self.0.try_send(text(line));
    }

    /// Writes a line; waits for room. Whoever left does not need it.
    pub(super) fn write(&self, line: &impl Serialize) {
        let _ = self.0.blocking_send(text(line));
    }

    /// Writes a piece; waits for room. Whether whoever asked is still there.
    pub(super) fn piece(&self, piece: Vec<u8>) -> bool {
        self.0.blocking_send(piece.into()).is_ok()
    }
}

fn text(line: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text.into()
}

struct Reading(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Reading {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = self.0.poll_recv(context);
        line.map(|line| line.map(|bytes| Ok(Frame::data(bytes))))
    }
}
