//! Frames off a QUIC stream: the header first, and room for the payload only when its size is known to be allowed.

use leeward_common::wire::{
    WireError,
    frame::{self, HEADER_BYTES, Header},
};
use quinn::{ReadExactError, RecvStream};

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
pub(super) async fn header(stream: &mut RecvStream) -> Result<Header, NoFrame> {
    let mut bytes = [0; HEADER_BYTES];
    match stream.read_exact(&mut bytes).await {
        Ok(()) => Ok(frame::parse_header(&bytes)?),
        Err(ReadExactError::FinishedEarly(0) | ReadExactError::ReadError(_)) => Err(NoFrame::Ended),
        Err(ReadExactError::FinishedEarly(have)) => {
            Err(truncated("frame header", have, HEADER_BYTES))
        }
    }
}

/// Reads the payload that a header announces.
pub(super) async fn payload(stream: &mut RecvStream, header: &Header) -> Result<Vec<u8>, NoFrame> {
    let mut bytes = vec![0; header.length];
    match stream.read_exact(&mut bytes).await {
        Ok(()) => Ok(bytes),
        Err(ReadExactError::ReadError(_)) => Err(NoFrame::Ended),
        Err(ReadExactError::FinishedEarly(have)) => {
            Err(truncated("frame payload", have, header.length))
        }
    }
}

/// Checks that a stream ends here.
pub(super) async fn end(stream: &mut RecvStream) -> Result<(), NoFrame> {
    match stream.read(&mut [0]).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(NoFrame::Refused(Refusal::malformed(
            "bytes follow the batch on its stream",
        ))),
        Err(_) => Err(NoFrame::Ended),
    }
}

fn truncated(what: &'static str, have: usize, need: usize) -> NoFrame {
    WireError::Truncated { what, have, need }.into()
}
