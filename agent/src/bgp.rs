//! What routers tell about the prefixes that regions are reached by. Listening only: nothing is ever announced.
//!
//! ```text
//!   bytes ──▶ bmp, session ──▶ wire ──▶ peer::Event ──▶ observer ──▶ windows and events
//!   files ──▶ replay/pcap, mrt ───────────┘              │
//!                                         feed: does this count?   watch: is this ours?
//! ```
//!
//! In reading order:
//!
//! - [`update`]: what a BGP UPDATE says, whoever parsed it. [`wire`]: from bytes, by the parser of live sessions.
//! - [`peer`]: who said it, and what happened to the session that it was said on.
//! - [`bmp`]: a router's BMP stream, cut into messages, and what they say about its peers.
//! - [`session`]: a session with a peer that connected to us.
//! - [`watch`]: the prefixes that are followed.
//! - [`feed`]: whether a feed may be believed right now. A lost feed is not a withdrawal.
//! - [`penalty`]: RFC 2439's figure of merit, as a measure. [`prefix`]: what one feed says about one watched prefix.
//! - [`rpki`]: who may announce what. [`leak`]: signs that a route was passed on to whom it should not have been.
//! - [`table`]: the routes of one feed, compactly. [`inference`]: which link failed, from what it loses. [`tables`]: those of
//!   all feeds.
//! - [`observer`]: all of it together: events of feeds in; windows and urgent events of watched prefixes out.
//! - [`mrt`], [`pcap`], [`replay`]: recordings, and `leeward-agent bgp replay`.
//!
//! - [`systems`]: whose an address is, asked by other threads.
//! - [`live`]: routers and peers that are connected, on a thread of their own. [`cache`]: the way to who knows the authorizations.
//!   [`ris`], [`collectors`]: what route collectors elsewhere hear, and the way to them.
//!
//! All of it is pure but for [`live`], [`cache`], [`collectors`] and the reading of files in [`replay`]. What each figure means is told in `docs/bgp.md`.

pub mod bmp;
pub mod cache;
pub mod collectors;
pub mod feed;
pub mod inference;
pub mod leak;
pub mod live;
pub mod mrt;
pub mod observer;
pub mod pcap;
pub mod peer;
pub mod penalty;
pub mod prefix;
pub mod replay;
pub mod ris;
pub mod routes;
pub mod rpki;
pub mod session;
pub mod systems;
pub mod table;
pub mod tables;
pub mod update;
pub mod watch;
pub mod wire;
