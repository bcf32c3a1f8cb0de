//! Places for those who stay: clients that wait for a change, and clients that follow the stream.
//!
//! An answer is over in a moment; whoever stays occupies a connection. So there are only so many places, for all
//! together and for each client, and whoever finds none is told when to come again. A place is free again when its
//! holder is dropped, which is also what happens when a client goes away.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{extract::FromRequestParts, http::request};
use leeward_common::api::problem::Code;

use super::error::Refused;
use crate::metrics::{Metrics, Stay};

/// A client: an address, or the network that one host has to itself in IPv6.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Client(IpAddr);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                Self(IpAddr::V6(network.into()))
            }
            v4 => Self(v4),
        }
    }
}

/// Put into the request by whoever accepted the connection.
impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Infallible> {
        let nobody = Self(Ipv4Addr::UNSPECIFIED.into());
        Ok(parts.extensions.get().copied().unwrap_or(nobody))
    }
}

/// Waiters at once. Each costs a connection and a timer.
const MAX_WAITERS: usize = 2_048;

/// Streams at once. They share every event; each costs its connection.
const MAX_STREAMS: usize = 12_288;

/// Places of each kind for one client: a host of many programs, a proxy before a few people.
pub(super) const PER_CLIENT: usize = 256;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    waiters: Kind,
    streams: Kind,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Kind {
    stay: Stay,
    most: usize,
    taken: AtomicUsize,
    clients: Mutex<BTreeMap<Client, usize>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    stay: Stay,
    client: Client,
}

impl Places {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            waiters: Kind::new(Stay::Wait, MAX_WAITERS),
            streams: Kind::new(Stay::Stream, MAX_STREAMS),
            metrics,
        }
    }

    /// Whether anybody stays.
    pub(super) fn any(&self) -> bool {
        [&self.waiters, &self.streams]
            .iter()
            .any(|kind| kind.taken.load(Ordering::SeqCst) > 0)
    }

    /// A place for this client.
    pub(super) fn take(self: &Arc<Self>, stay: Stay, client: Client) -> Result<Place, Refused> {
        match self.kind(stay).take(client) {
            Ok(()) => {
                self.metrics
                    .http
                    .places_taken
                    .get_or_create(&stay.into())
                    .inc();
                Ok(Place {
                    places: Arc::clone(self),
                    stay,
                    client,
                })
            }
            Err(full) => {
                self.metrics
                    .http
                    .places_refused
                    .get_or_create(&stay.into())
                    .inc();
                Err(full)
            }
        }
    }

    const fn kind(&self, stay: Stay) -> &Kind {
        match stay {
            Stay::Wait => &self.waiters,
            Stay::Stream => &self.streams,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let kind = self.places.kind(self.stay);
        let mut clients = kind.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = clients.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                clients.remove(&self.client);
            }
        }
        kind.taken.fetch_sub(1, Ordering::SeqCst);
        drop(clients);
        let freed = &self.places.metrics.http.places_freed;
        freed.get_or_create(&self.stay.into()).inc();
    }
}

impl Kind {
    fn new(stay: Stay, most: usize) -> Self {
        Self {
            stay,
            most,
            taken: AtomicUsize::new(0),
            clients: Mutex::default(),
        }
    }

    fn take(&self, client: Client) -> Result<(), Refused> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let own = clients.get(&client).copied().unwrap_or(0);
        let whose = if own >= PER_CLIENT {
            format!("{PER_CLIENT} of your host")
        } else if self.taken.load(Ordering::SeqCst) >= self.most {
            format!("{} of all clients together", self.most)
        } else {
            clients.insert(client, own + 1);
            self.taken.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        };
        Err(Refused::new(
            Code::TooManyWaiting,
            format!("{whose} {} already, which is the limit", self.stay.verb()),
            "end some of them, share one among several readers, or come again later",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Client {
        address.parse::<IpAddr>().unwrap().into()
    }

    fn places() -> Arc<Places> {
        Arc::new(Places::new(Arc::default()))
    }

    #[test]
    fn a_client_has_its_share_and_gets_a_place_back_when_one_is_dropped() {
        let places = places();
        let own = client("192.0.2.1");
        let take = |client| places.take(Stay::Wait, client);
        let mut held: Vec<Place> = (0..PER_CLIENT).map(|_| take(own).unwrap()).collect();
        assert!(take(own).is_err());
        assert!(
            take(client("192.0.2.2")).is_ok(),
            "others have their own share"
        );
        assert!(
            places.take(Stay::Stream, own).is_ok(),
            "streams are counted apart"
        );
        held.pop();
        assert!(take(own).is_ok());
        drop(held);
        assert!(!places.any());
    }

    #[test]
    fn all_clients_together_have_a_limit() {
        let places = places();
        let mut held = Vec::new();
        for host in 0_u32.. {
            match places.take(Stay::Wait, IpAddr::V4(host.into()).into()) {
                Ok(place) => held.push(place),
                Err(_) => break,
            }
        }
        assert_eq!(held.len(), MAX_WAITERS);
    }

    #[test]
    fn a_host_has_one_network_in_ipv6() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    }
}
