//! Frames off a stream: the header first, and room for the payload only when its size is known to be allowed.

use leeward_common::wire::{
    WireError,
    frame::{self, HEADER_BYTES, Header},
};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::refusal::Refusal;

/// Why there is no frame.
#[derive(Debug)]
pub(super) enum NoFrame {
    /// The stream ended before it began, or the connection did.
    Ended,
    /// What came is not a frame.
    Refused(Refusal),
}

impl From<WireError> for NoFrame {
    fn from(error: WireError) -> Self {
        Self::Refused(error.into())
    }
}

impl From<Refusal> for NoFrame {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Reads a header.
pub(super) async fn header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Header, NoFrame> {
    let mut bytes = [0; HEADER_BYTES];
    match fill(stream, &mut bytes).await? {
        HEADER_BYTES => Ok(frame::parse_header(&bytes)?),
        0 => Err(NoFrame::Ended),
        have => Err(truncated("frame header", have, HEADER_BYTES)),
    }
}

/// Reads until the buffer is full or the stream ends; how much came. A connection that is gone is an end without a frame.
async fn fill(stream: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> Result<usize, NoFrame> {
    let mut have = 0;
    while have < bytes.len() {
        match stream.read(&mut bytes[have..]).await {
            Ok(0) => break,
            Ok(more) => have += more,
            Err(_) => return Err(NoFrame::Ended),
        }
    }
    Ok(have)
}

/// Reads the payload that a header announces.
pub(super) async fn payload(
    stream: &mut (impl AsyncRead + Unpin),
    header: &Header,
) -> Result<Vec<u8>, NoFrame> {
    let mut bytes = vec![0; header.length];
    match fill(stream, &mut bytes).await? {
        have if have < header.length => Err(truncated("frame payload", have, header.length)),
        _ => Ok(bytes),
    }
}

/// Checks that a stream ends here.
pub(super) async fn end(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), NoFrame> {
    match stream.read(&mut [0]).await {
        Ok(0) => Ok(()),
        Ok(_) => Err(NoFrame::Refused(Refusal::malformed(
            "bytes follow the batch on its stream",
        ))),
        Err(_) => Err(NoFrame::Ended),
    }
}

fn truncated(what: &'static str, have: usize, need: usize) -> NoFrame {
    WireError::Truncated { what, have, need }.into()
}
