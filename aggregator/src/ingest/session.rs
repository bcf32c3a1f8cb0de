//! One agent's session, from its hello to its end.
//!
//! A session is taken in (hello, roster, turn thread, welcome), converses ([`super::conversation`]) and is seen off,
//! whatever ended it.

use std::time::Duration;

use leeward_common::wire::{
    frame,
    v1::{self, FromAgent, FromAggregator, RefuseCode},
};
use quinn::{Connection, RecvStream};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    Ingest,
    control::{ControlOut, Ending},
    conversation::{Conversation, Parts},
    frames,
    identity::Identity,
    refusal::Refusal,
    roster::{Change, Seat},
};
use crate::{
    mesh::{MAX_AGENT_ID_LENGTH, Registration},
    store::key::Epoch,
    turn::{Arrival, Connected, Disconnected, Known, TurnError},
};

/// From the handshake to the hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// One session.
pub(super) struct Session {
    ingest: Ingest,
    connection: Connection,
    identity: Identity,
    id: u64,
}

impl Session {
    pub(super) fn new(ingest: Ingest, connection: Connection, identity: Identity, id: u64) -> Self {
        Self {
            ingest,
            connection,
            identity,
            id,
        }
    }

    /// Serves the agent until it goes or is refused.
    pub(super) async fn run(self) {
        let accepted = timeout(HELLO_TIMEOUT, self.connection.accept_bi()).await;
        let Ok(Ok((send, mut receive))) = accepted else {
            self.connection.close(
                Refusal::malformed("").close_code(),
                b"no control stream was opened",
            );
            return;
        };
        let mut control = ControlOut::new(send);
        let (agent, remote) = (&self.identity.agent, self.connection.remote_address());
        let ending = match self.hello(&mut receive).await {
            Ok((registration, takes_orders)) => {
                self.attend(registration, takes_orders, &mut control, receive)
                    .await
            }
            Err(ending) => ending,
        };
        match ending {
            Ending::Gone => {
                let reason = self
                    .connection
                    .close_reason()
                    .map(|reason| reason.to_string());
                info!(%agent, %remote, reason, "session ended");
            }
            Ending::Refused(refusal) => {
                warn!(%agent, %remote, code = refusal.word(), reason = refusal.reason, "session refused");
                self.ingest.count_refusal(&refusal);
                control.refuse(&refusal).await;
                self.connection
                    .close(refusal.close_code(), refusal.reason.as_bytes());
            }
        }
    }

    /// What the agent registers, and whether it takes orders.
    async fn hello(&self, receive: &mut RecvStream) -> Result<(Registration, bool), Ending> {
        let Ok(hello) = timeout(HELLO_TIMEOUT, read_hello(receive)).await else {
            let reason = format!("no hello within {} s", HELLO_TIMEOUT.as_secs());
            return Err(Refusal::malformed(reason).into());
        };
        let hello = hello?;
        let takes_orders = hello.orders;
        Ok((self.check(hello)?, takes_orders))
    }

    /// What the agent may register: itself and nothing else.
    fn check(&self, hello: v1::Hello) -> Result<Registration, Refusal> {
        let v1::Hello {
            agent,
            region,
            boot_epoch,
            addresses,
            answer_port,
            stamp_port,
            build,
            orders: _,
        } = hello;
        let Identity {
            agent: certified,
            region: home,
        } = &self.identity;
        if agent != *certified || region != *home {
            return Err(Refusal::identity(format!(
                "the certificate is that of agent {certified} in region {home}, the hello comes from agent {agent} in \
                 region {region}; make the agent's config say what its certificate says"
            )));
        }
        if !self.ingest.view.load().policy.regions.contains_key(&region) {
            let reason = format!(
                "region {region} is not configured here; add a [[region]] to the aggregator's config"
            );
            return Err(Refusal::new(RefuseCode::UnknownRegion, reason));
        }
        if agent.as_str().len() > MAX_AGENT_ID_LENGTH {
            let reason = format!(
                "agent ids have at most {MAX_AGENT_ID_LENGTH} characters; {agent} has more"
            );
            return Err(Refusal::new(RefuseCode::Limit, reason));
        }
        let odd = addresses
            .iter()
            .find(|address| address.is_unspecified() || address.is_multicast());
        if let Some(address) = odd {
            return Err(Refusal::malformed(format!(
                "nobody can answer on {address}; register an address of the host"
            )));
        }
        Ok(Registration {
            agent,
            region,
            boot_epoch,
            addresses,
            answer_port,
            stamp_port,
            build,
        })
    }

    /// Takes the agent in, converses, and sees it off.
    async fn attend(
        &self,
        registration: Registration,
        takes_orders: bool,
        control: &mut ControlOut,
        receive: RecvStream,
    ) -> Ending {
        let (agent, session) = (registration.agent.clone(), self.id);
        let remote = self.connection.remote_address();
        let seat = self
            .ingest
            .roster
            .join(registration.clone(), session, takes_orders, remote)
            .await;
        let ending = match seat {
            Some(seat) => self.seated(registration, seat, control, receive).await,
            None => Ending::from_turn(TurnError::Stopping),
        };
        self.ingest
            .roster
            .send(Change::Leave {
                agent: agent.clone(),
                session,
            })
            .await;
        // If the turn thread is gone, so is everything that the agent's absence could matter to.
        let _ = self
            .hand_over(Arrival::Disconnected(Disconnected { session, agent }))
            .await;
        ending
    }

    async fn seated(
        &self,
        registration: Registration,
        seat: Seat,
        control: &mut ControlOut,
        receive: RecvStream,
    ) -> Ending {
        let epoch = Epoch {
            agent: registration.agent.clone(),
            boot: registration.boot_epoch,
        };
        let session = self.id;
        self.ingest.metrics.turn.arrivals_in.inc();
        let known = self
            .ingest
            .turn
            .ask(|known| {
                Arrival::Connected(Connected {
                    session,
                    registration,
                    known,
                })
            })
            .await;
        let Known {
            durable_below,
            tables,
        } = match known {
            Ok(known) => known,
            Err(error) => return Ending::from_turn(error),
        };
        info!(agent = %epoch.agent, remote = %self.connection.remote_address(), durable_below, "session began");
        self.ingest.metrics.ingest.sessions_opened.inc();
        let aggregator = self.ingest.name.to_string();
        let welcome = FromAggregator::Welcome(v1::Welcome {
            aggregator,
            durable_below,
            findings: true,
        });
        let ending = match control.write(&welcome).await {
            Ok(()) => {
                let parts = Parts {
                    ingest: &self.ingest,
                    connection: &self.connection,
                    identity: &self.identity,
                    epoch,
                    tables,
                };
                Conversation::run(parts, control, seat, receive).await
            }
            Err(ending) => ending,
        };
        self.ingest.metrics.ingest.sessions_closed.inc();
        ending
    }

    async fn hand_over(&self, arrival: Arrival) -> Result<(), TurnError> {
        self.ingest.metrics.turn.arrivals_in.inc();
        self.ingest.turn.send(arrival).await
    }
}

/// Only a hello is made room for: nobody has said yet who this is.
async fn read_hello(receive: &mut RecvStream) -> Result<v1::Hello, Ending> {
    let header = frames::header(receive).await?;
    if header.message_type != frame::number::HELLO {
        return Err(Refusal::malformed("the first message must be a hello").into());
    }
    let payload = frames::payload(receive, &header).await?;
    match frame::parse_from_agent(&header, &payload).map_err(Refusal::from)? {
        FromAgent::Hello(hello) => Ok(hello),
        _ => Err(Refusal::malformed("the first message must be a hello").into()),
    }
}
