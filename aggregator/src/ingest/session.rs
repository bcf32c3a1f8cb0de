//! One agent's session, from its hello to its end.
//!
//! A session is taken in (hello, roster, turn thread, welcome), converses ([`super::conversation`]) and is seen off,
//! whatever ended it.

use std::time::Duration;

use leeward_common::wire::{
    frame,
    v1::{self, FromAgent, FromAggregator, RefuseCode},
};
use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    Ingest,
    control::{ControlOut, Ending},
    conversation::{Conversation, Parts, denied},
    credit, frames,
    identity::Identity,
    limits::Pace,
    line::{Incoming, Line},
    refusal::Refusal,
    roster::{Change, Seat},
    tables::Tables,
};
use crate::{
    mesh::{MAX_AGENT_ID_LENGTH, Registration},
    store::key::Epoch,
    turn::{Arrival, Connected, Disconnected, TurnError},
};

/// From the handshake to the hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// What an agent says of itself, found good.
struct Newcomer {
    registration: Registration,
    /// Whether it can be sent orders.
    takes_orders: bool,
    /// The version of the control messages that both sides speak.
    version: u16,
    /// Earlier boot epochs of which it still has batches.
    backlog: Vec<u64>,
}

/// One session.
pub(super) struct Session {
    ingest: Ingest,
    connection: Line,
    identity: Identity,
    id: u64,
    pace: Pace,
}

impl Session {
    pub(super) fn new(
        ingest: Ingest,
        connection: Line,
        identity: Identity,
        id: u64,
        pace: Pace,
    ) -> Self {
        Self {
            ingest,
            connection,
            identity,
            id,
            pace,
        }
    }

    /// Serves the agent until it goes or is refused.
    pub(super) async fn run(self) {
        let accepted = timeout(HELLO_TIMEOUT, self.connection.accept_control()).await;
        let Ok(Some((send, mut receive))) = accepted else {
            self.connection.close(
                Refusal::malformed("").close_code(),
                b"no control stream was opened",
            );
            return;
        };
        let mut control = ControlOut::new(send);
        let (agent, remote) = (&self.identity.agent, self.connection.remote_address());
        let ending = match self.hello(&mut receive).await {
            Ok(newcomer) => self.attend(newcomer, &mut control, receive).await,
            Err(ending) => ending,
        };
        match ending {
            Ending::Gone => {
                let reason = self.connection.close_reason();
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

    async fn hello(&self, receive: &mut Incoming) -> Result<Newcomer, Ending> {
        let Ok(hello) = timeout(HELLO_TIMEOUT, read_hello(receive)).await else {
            let reason = format!("no hello within {} s", HELLO_TIMEOUT.as_secs());
            return Err(Refusal::malformed(reason).into());
        };
        Ok(self.check(hello?)?)
    }

    /// What the agent may register: itself and nothing else.
    fn check(&self, hello: v1::Hello) -> Result<Newcomer, Refusal> {
        if self
            .ingest
            .gate
            .limits()
            .borrow()
            .denied
            .contains(&self.identity.agent)
        {
            return Err(denied(&self.identity.agent));
        }
        let v1::Hello {
            agent,
            region,
            boot_epoch,
            addresses,
            answer_port,
            stamp_port,
            build,
            orders: takes_orders,
            versions,
            mut backlog,
        } = hello;
        let Some(version) = v1::common_version(v1::VERSIONS, versions) else {
            let ([ours, our_newest], [oldest, newest]) = (v1::VERSIONS, versions);
            let reason = format!(
                "the agent speaks versions {oldest} to {newest} of the control messages, this aggregator {ours} to \
                 {our_newest}; bring both sides to builds that fit"
            );
            return Err(Refusal::new(RefuseCode::Version, reason));
        };
        if version < v1::VERSION_BACKLOG {
            backlog.clear();
        }
        backlog.retain(|&earlier| earlier != boot_epoch);
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
        let registration = Registration {
            agent,
            region,
            boot_epoch,
            addresses,
            answer_port,
            stamp_port,
            build,
        };
        Ok(Newcomer {
            registration,
            takes_orders,
            version,
            backlog,
        })
    }

    /// Takes the agent in, converses, and sees it off.
    async fn attend(
        &self,
        newcomer: Newcomer,
        control: &mut ControlOut,
        receive: Incoming,
    ) -> Ending {
        let registration = &newcomer.registration;
        let (agent, session) = (registration.agent.clone(), self.id);
        let remote = self.connection.remote_address();
        let seat = self
            .ingest
            .roster
            .join(
                registration.clone(),
                session,
                newcomer.takes_orders,
                (remote, self.connection.transport()),
            )
            .await;
        let ending = match seat {
            Some(seat) => self.seated(newcomer, seat, control, receive).await,
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
        newcomer: Newcomer,
        seat: Seat,
        control: &mut ControlOut,
        receive: Incoming,
    ) -> Ending {
        let Newcomer {
            registration,
            version,
            backlog,
            ..
        } = newcomer;
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
                    backlog,
                    known,
                })
            })
            .await;
        let known = match known {
            Ok(known) => known,
            Err(error) => return Ending::from_turn(error),
        };
        let durable_below = known.get(&epoch.boot).copied().unwrap_or(0);
        let earlier = known.iter().filter(|&(&boot, _)| boot != epoch.boot);
        let backlog = earlier.map(|(&boot_epoch, &durable_below)| v1::KnownEpoch {
            boot_epoch,
            durable_below,
        });
        info!(agent = %epoch.agent, remote = %self.connection.remote_address(), durable_below, "session began");
        self.ingest.metrics.ingest.sessions_opened.inc();
        let aggregator = self.ingest.name.to_string();
        let welcome = FromAggregator::Welcome(v1::Welcome {
            aggregator,
            durable_below,
            findings: true,
            version,
            backlog: backlog.collect(),
            credit: (version >= v1::VERSION_BACKLOG).then(|| credit::of(&self.ingest.turn)),
        });
        let tables = Tables::new(known.into_keys());
        let ending = match control.write(&welcome).await {
            Ok(()) => {
                let parts = Parts {
                    ingest: &self.ingest,
                    connection: &self.connection,
                    identity: &self.identity,
                    epoch,
                    version,
                    tables,
                    pace: self.pace.clone(),
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
async fn read_hello(receive: &mut Incoming) -> Result<v1::Hello, Ending> {
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
