//! RIS Live: what the peers of route collectors all over the world hear, as JSON over a WebSocket.
//!
//! Pure: what is to be asked, and what an answer says. Each peer of a collector is a feed. The routes are read from the BGP message
//! itself (`raw`), by the parser of live sessions: the JSON beside it leaves out attributes. A collector's peer is followed from
//! the midst of its session, since there is no table to begin with; what it says of its session is all that tells when that
//! ends. See <https://ris-live.ripe.net/manual/>.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    peer::{Collector, Down, Event, Feed, View},
    update::Update,
    watch::Wanted,
    wire::{self, Dialect, Refused, Speaker},
};

/// The longest message that is read. The largest UPDATE has 64 KiB, twice that as hexadecimal digits, and the same once more in words.
pub const MESSAGE_MAX: usize = 1 << 20;

/// So many prefixes are asked for at once.
const ASKED_AT_ONCE: usize = 256;

/// What a message says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Told {
    /// Routes of a peer of a collector, which is in this system (0 if that is not said).
    Routes(Feed, u32, Update),
    /// Something happened to the peer's session with its collector.
    Session(Feed, Event),
    /// The server does not do what it was asked for.
    Error(String),
    /// Nothing about routes.
    Else,
}

/// The questions that make the server tell of these prefixes and their parts, of what holds these addresses, and of sessions.
#[must_use]
pub fn questions(wanted: &Wanted) -> Vec<String> {
    let options = Options { include_raw: true };
    let updates = |prefixes: &[IpNet], parts: Option<bool>, around: Option<bool>| Subscription {
        kind: "UPDATE",
        prefix: Some(prefixes.iter().map(IpNet::to_string).collect()),
        more_specific: parts,
        less_specific: around,
        options: Some(options),
    };
    let prefixes = wanted.prefixes.chunks(ASKED_AT_ONCE);
    let prefixes = prefixes.map(|prefixes| updates(prefixes, Some(true), None));
    let addresses = wanted.addresses.chunks(ASKED_AT_ONCE);
    let addresses = addresses.map(|addresses| updates(addresses, None, Some(true)));
    let sessions = Subscription {
        kind: "RIS_PEER_STATE",
        prefix: None,
        more_specific: None,
        less_specific: None,
        options: None,
    };
    prefixes
        .chain(addresses)
        .chain([sessions])
        .map(|data| text("ris_subscribe", Some(data)))
        .collect()
}

/// The question whether the server is still there.
#[must_use]
pub fn ping() -> String {
    text("ping", None)
}

fn text(kind: &str, data: Option<Subscription<'_>>) -> String {
    serde_json::to_string(&Question { kind, data })
        .expect("a question has nothing that JSON has not")
}

#[derive(Serialize)]
struct Question<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    data: Option<Subscription<'a>>,
}

#[derive(Serialize)]
struct Subscription<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<Vec<String>>,
    #[serde(rename = "moreSpecific", skip_serializing_if = "Option::is_none")]
    more_specific: Option<bool>,
    #[serde(rename = "lessSpecific", skip_serializing_if = "Option::is_none")]
    less_specific: Option<bool>,
    #[serde(rename = "socketOptions", skip_serializing_if = "Option::is_none")]
    options: Option<Options>,
}

#[derive(Clone, Copy, Serialize)]
struct Options {
    #[serde(rename = "includeRaw")]
    include_raw: bool,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: serde_json::Value,
}

/// What is said of a peer; whatever else there is is passed over.
#[derive(Deserialize)]
struct Data {
    peer: IpAddr,
    #[serde(default)]
    peer_asn: String,
    host: String,
    #[serde(rename = "type")]
    kind: String,
    raw: Option<String>,
    state: Option<String>,
}

/// Reads a message of the server at this address.
///
/// # Errors
///
/// Returns why it cannot be read.
pub fn read(server: IpAddr, text: &str) -> Result<Told, Refused> {
    let refused = |why: String| Refused::new("RIS message", why);
    if text.len() > MESSAGE_MAX {
        return Err(refused(format!("it is longer than {MESSAGE_MAX} bytes")));
    }
    let message: Message =
        serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
    match message.kind.as_str() {
        "ris_message" => {}
        "ris_error" => {
            let why = message.data.get("message").and_then(|why| why.as_str());
            return Ok(Told::Error(
                why.unwrap_or_default().chars().take(256).collect(),
            ));
        }
        _ => return Ok(Told::Else),
    }
    let data: Data =
        serde_json::from_value(message.data).map_err(|error| refused(error.to_string()))?;
    let collector = Collector::new(&data.host)
        .ok_or_else(|| refused("its host is no name of a collector".to_owned()))?;
    let feed = Feed {
        source: server,
        neighbour: data.peer.to_canonical(),
        distinguisher: 0,
        view: View::Outside(collector),
    };
    let system = data.peer_asn.parse().unwrap_or_default();
    match (data.kind.as_str(), data.state.as_deref()) {
        ("UPDATE", _) => {
            let raw = data
                .raw
                .ok_or_else(|| refused("it comes without the BGP message".to_owned()))?;
            let bytes = hex::decode(raw).map_err(|error| refused(error.to_string()))?;
            Ok(Told::Routes(feed, system, routes(&bytes)?))
        }
        // As documented, and as sent.
        ("RIS_PEER_STATE" | "STATE", Some("connected")) => {
            Ok(Told::Session(feed, Event::Up { system }))
        }
        ("RIS_PEER_STATE" | "STATE", Some("down")) => {
            let down = Down::SessionLost("with its collector".to_owned());
            Ok(Told::Session(feed, Event::Down(down)))
        }
        _ => Ok(Told::Else),
    }
}

/// The routes of a BGP message. Nobody says whether the session has AS numbers of four octets; a path that is read with the wrong
/// ones does not come out even.
fn routes(bytes: &[u8]) -> Result<Update, Refused> {
    let usual = Dialect::usual(Speaker::Hearsay);
    let old = Dialect {
        four_octet_as: false,
        ..usual
    };
    wire::update(bytes, &usual).or_else(|error| wire::update(bytes, &old).map_err(|_| error))
}

#[cfg(test)]
#[path = "ris/tests.rs"]
mod tests;
