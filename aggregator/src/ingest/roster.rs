//! Who is registered: every agent that ever connected, until it has been gone for [`FORGET_AFTER`].
//!
//! An agent stays registered while it is away, and stays in everybody's mesh: a region that dies takes its agents'
//! sessions with it, and just then the others must keep probing it. One task owns the roster and the meshes that
//! follow from it ([`crate::mesh`]); everyone else reads the published picture or sends a [`Change`].

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use leeward_common::{
    id::AgentId,
    time::{Clock, Timestamp},
    wire::{
        limits,
        v1::{AgentStatus, Mesh, MeshApplied, Order},
    },
};
use leeward_engine::{intent::Intents, policy::Policy};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};

use super::line::Transport;
use crate::{
    mesh::{self, Meshes, Registration},
    shared::Published,
};

/// How long an agent may be away before it is forgotten and leaves the mesh: as long as the journal reaches back.
pub const FORGET_AFTER: Duration = Duration::from_secs(48 * 3600);

/// Changes that wait for the roster's task. It only computes, so a full queue lasts milliseconds; whoever has a
/// change waits meanwhile.
const CHANGES: usize = 1_024;

/// How long joining agents are gathered before the meshes are computed anew, so that a storm costs few computations
/// and a single agent reaches the others within a tenth of a second.
const SETTLE: Duration = Duration::from_millis(20);

/// How often it is looked whether somebody can be forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// Every registered agent; an immutable picture.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// The agents.
    pub members: BTreeMap<AgentId, Arc<Member>>,
}

/// One registered agent.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it registered.
    pub registration: Registration,
    /// Its session, if it has one.
    pub session: Option<Session>,
    /// When it was last connected; meaningless while it has a session.
    pub last_seen: Timestamp,
    /// How it fares by its own account, and when it said so.
    pub status: Option<(Timestamp, AgentStatus)>,
    /// The mesh that it should have; `None` before the first.
    pub mesh: Option<Arc<Mesh>>,
    /// Version of the mesh that it should have; 0 before the first.
    pub mesh_version: u64,
    /// The newest mesh that it put into force, with the targets that it refused.
    pub mesh_applied: Option<MeshApplied>,
}

/// One session of an agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Session {
    /// Its number within this process; the newest of an agent is the valid one.
    pub id: u64,
    /// Since when.
    pub since: Timestamp,
    /// From where.
    pub remote: SocketAddr,
    /// What carries it.
    pub transport: Transport,
}

/// A session's place in the roster.
#[derive(Debug)]
pub struct Seat {
    /// The agent's mesh, as soon as there is one, and whenever it changes.
    pub mesh: watch::Receiver<Option<Arc<Mesh>>>,
    /// What the agent is to find out; nothing ever for one that takes no orders.
    pub orders: mpsc::Receiver<Order>,
    /// Fires when a newer session of the same agent takes over.
    pub superseded: oneshot::Receiver<()>,
}

/// Something that changes the roster.
#[derive(Debug)]
pub enum Change {
    /// A session begins.
    Join {
        /// What the agent registers.
        registration: Registration,
        /// The session's number.
        session: u64,
        /// Whether the agent takes orders.
        takes_orders: bool,
        /// Where it comes from.
        remote: (SocketAddr, Transport),
        /// Gets its place.
        seat: oneshot::Sender<Seat>,
    },
    /// A session ended.
    Leave {
        /// The agent.
        agent: AgentId,
        /// The session's number.
        session: u64,
    },
    /// An agent tells how it fares.
    Status {
        /// The agent.
        agent: AgentId,
        /// Its account.
        status: AgentStatus,
    },
    /// An agent put a mesh into force.
    MeshApplied {
        /// The agent.
        agent: AgentId,
        /// Which, and what it refused.
        applied: MeshApplied,
    },
    /// An agent is to find something out.
    Order {
        /// The agent.
        agent: AgentId,
        /// What.
        order: Order,
        /// Told whether the order is on its way.
        sent: oneshot::Sender<Result<(), NotOrdered>>,
    },
    /// Another policy is in force.
    Policy(Arc<Policy>),
    /// Services changed, and with them perhaps what is to be checked.
    Intents(Arc<Intents>),
}

/// Why an order is not on its way to an agent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotOrdered {
    /// It is not registered.
    #[error("no such agent is registered")]
    Unknown,
    /// It has no session now.
    #[error("the agent is not connected; try again when it is")]
    Away,
    /// Its build takes none.
    #[error("the agent's build takes no orders; update it")]
    TakesNone,
    /// It has not taken those of before yet.
    #[error("the agent has not taken the orders of before yet; try again later")]
    Busy,
    /// The process ends.
    #[error("the aggregator is stopping; try again later")]
    Stopping,
}

/// Orders on the way to one session. They are small and rare; while the control stream is not read none is taken.
const ORDERS: usize = 16;

/// The way to the roster's task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RosterHandle {
    changes: mpsc::Sender<Change>,
}

impl RosterHandle {
    /// A handle and the other end, for the roster's task or for a test that plays it.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Change>) {
        let (changes, receiver) = mpsc::channel(CHANGES);
        (Self { changes }, receiver)
    }

    /// Hands a change over. When the roster's task is gone the process ends, and nobody needs to know.
    pub async fn send(&self, change: Change) {
        let _ = self.changes.send(change).await;
    }

    /// Takes a place for a session; `None` while the process ends.
    pub async fn join(
        &self,
        registration: Registration,
        session: u64,
        takes_orders: bool,
        (remote, transport): (SocketAddr, Transport),
    ) -> Option<Seat> {
        let (seat, answer) = oneshot::channel();
        self.send(Change::Join {
            registration,
            session,
            takes_orders,
            remote: (remote, transport),
            seat,
        })
        .await;
        answer.await.ok()
    }

    /// Sends an order to an agent.
    ///
    /// # Errors
    ///
    /// Returns why it is not on its way.
    pub async fn order(&self, agent: AgentId, order: Order) -> Result<(), NotOrdered> {
        let (sent, answer) = oneshot::channel();
        self.send(Change::Order { agent, order, sent }).await;
        answer.await.unwrap_or(Err(NotOrdered::Stopping))
    }
}

/// Tells the roster of services whenever they change. Ends only by being aborted.
pub async fn follow(view: Arc<Published>, roster: RosterHandle) {
    let mut published = view.subscribe();
    let mut told = None;
    loop {
        let intents = Arc::clone(&view.load().intents);
        if told != Some(intents.version) {
            told = Some(intents.version);
            roster.send(Change::Intents(intents)).await;
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// The owner of the roster. Its task ends when every handle is dropped.
pub struct Keeper {
    changes: mpsc::Receiver<Change>,
    published: Arc<ArcSwap<Roster>>,
    roster: Roster,
    meshes: Meshes,
    policy: Arc<Policy>,
    intents: Arc<Intents>,
    lines: BTreeMap<AgentId, Line>,
    clock: Arc<dyn Clock>,
    /// When the meshes are to be computed anew.
    due: Option<Instant>,
}

/// The way to a live session.
struct Line {
    session: u64,
    mesh: watch::Sender<Option<Arc<Mesh>>>,
    /// `None` if the agent takes no orders.
    orders: Option<mpsc::Sender<Order>>,
    supersede: oneshot::Sender<()>,
}

impl Keeper {
    /// A roster of those who were registered before, and when they were last seen.
    #[must_use]
    pub fn new(
        registered: Vec<(Registration, Timestamp)>,
        policy: Arc<Policy>,
        intents: Arc<Intents>,
        clock: Arc<dyn Clock>,
    ) -> (Self, RosterHandle, Arc<ArcSwap<Roster>>) {
        let (handle, receiver) = RosterHandle::channel();
        let member = |(registration, last_seen): (Registration, Timestamp)| {
            let agent = registration.agent.clone();
            let member = Member {
                registration,
                session: None,
                last_seen,
                status: None,
                mesh: None,
                mesh_version: 0,
                mesh_applied: None,
            };
            (agent, Arc::new(member))
        };
        let roster = Roster {
            members: registered.into_iter().map(member).collect(),
        };
        let published = Arc::new(ArcSwap::from_pointee(roster.clone()));
        let keeper = Self {
            changes: receiver,
            published: Arc::clone(&published),
            roster,
            meshes: Meshes::default(),
            policy,
            intents,
            lines: BTreeMap::new(),
            clock,
            due: Some(Instant::now()),
        };
        (keeper, handle, published)
    }

    /// Keeps the roster until every handle is dropped.
    pub async fn run(mut self) {
        let mut forget = tokio::time::interval(FORGET_EVERY);
        let mut changes = Vec::new();
        loop {
            let due = self.due;
            tokio::select! {
                count = self.changes.recv_many(&mut changes, CHANGES) => {
                    if count == 0 {
                        return;
                    }
                    changes.drain(..).for_each(|change| self.apply(change));
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.update_meshes(),
                _ = forget.tick() => self.forget(),
            }
            self.published.store(Arc::new(self.roster.clone()));
        }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Join {
                registration,
                session,
                takes_orders,
                remote,
                seat,
            } => {
                let place = self.join(registration, session, takes_orders, remote);
                // A session that is gone by now says so with a leave of its own.
                let _ = seat.send(place);
            }
            Change::Leave { agent, session } => self.leave(&agent, session),
            Change::Status { agent, status } => {
                let now = self.clock.now();
                self.change(&agent, |member| member.status = Some((now, status)));
            }
            Change::MeshApplied { agent, applied } => {
                debug!(%agent, version = applied.version, refused = applied.refused.len(), "mesh in force");
                self.change(&agent, |member| member.mesh_applied = Some(applied));
            }
            Change::Order { agent, order, sent } => {
                // Whoever is gone by now does not need to know.
                let _ = sent.send(self.order(&agent, order));
            }
            Change::Policy(policy) => {
                self.policy = policy;
                self.due = Some(Instant::now());
            }
            Change::Intents(intents) => {
                self.intents = intents;
                self.due.get_or_insert_with(|| Instant::now() + SETTLE);
            }
        }
    }

    fn order(&self, agent: &AgentId, order: Order) -> Result<(), NotOrdered> {
        if !self.roster.members.contains_key(agent) {
            return Err(NotOrdered::Unknown);
        }
        let line = self.lines.get(agent).ok_or(NotOrdered::Away)?;
        let orders = line.orders.as_ref().ok_or(NotOrdered::TakesNone)?;
        orders.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotOrdered::Busy,
            mpsc::error::TrySendError::Closed(_) => NotOrdered::Away,
        })
    }

    fn join(
        &mut self,
        registration: Registration,
        session: u64,
        takes_orders: bool,
        (remote, transport): (SocketAddr, Transport),
    ) -> Seat {
        let agent = registration.agent.clone();
        let (supersede, superseded) = oneshot::channel();
        let known = self.meshes.of(&agent).cloned();
        let (mesh, receiver) = watch::channel(known);
        let (orders, ordered) = mpsc::channel(ORDERS);
        let seat = Seat {
            mesh: receiver,
            orders: ordered,
            superseded,
        };
        if self
            .lines
            .get(&agent)
            .is_some_and(|line| line.session > session)
        {
            // Overtaken by a newer session on the way here: dropping the line supersedes this one.
            return seat;
        }
        let old = self.roster.members.get(&agent);
        if old.is_none_or(|old| !same_answers(&old.registration, &registration)) {
            self.due.get_or_insert_with(|| Instant::now() + SETTLE);
        }
        let now = self.clock.now();
        let member = Member {
            registration,
            session: Some(Session {
                id: session,
                since: now,
                remote,
                transport,
            }),
            last_seen: now,
            status: None,
            mesh: self.meshes.of(&agent).cloned(),
            mesh_version: self.meshes.of(&agent).map_or(0, |mesh| mesh.version),
            mesh_applied: None,
        };
        self.roster.members.insert(agent.clone(), Arc::new(member));
        if let Some(line) = self.lines.insert(
            agent,
            Line {
                session,
                mesh,
                orders: takes_orders.then_some(orders),
                supersede,
            },
        ) {
            let _ = line.supersede.send(());
        }
        seat
    }

    fn leave(&mut self, agent: &AgentId, session: u64) {
        if self
            .lines
            .get(agent)
            .is_none_or(|line| line.session != session)
        {
            return;
        }
        self.lines.remove(agent);
        let now = self.clock.now();
        self.change(agent, |member| {
            member.session = None;
            member.last_seen = now;
        });
    }

    fn change(&mut self, agent: &AgentId, change: impl FnOnce(&mut Member)) {
        if let Some(member) = self.roster.members.get_mut(agent) {
            change(Arc::make_mut(member));
        }
    }

    fn update_meshes(&mut self) {
        self.due = None;
        let registered = self
            .roster
            .members
            .values()
            .map(|member| &member.registration);
        let changed = self
            .meshes
            .update(self.clock.now(), &self.policy, &self.intents, registered);
        if !changed.is_empty() {
            info!(
                agents = self.roster.members.len(),
                changed = changed.len(),
                "the mesh changed"
            );
        }
        let is_full = |(_, mesh): &&(AgentId, Arc<Mesh>)| mesh.checks.len() >= limits::CHECKS;
        if let Some((agent, _)) = changed.iter().find(is_full) {
            warn!(%agent, limit = limits::CHECKS, "there are more checks than an agent can be asked for; name fewer regions in `from`");
        }
        if !changed.is_empty() {
            let (_, left_out) = mesh::watch(&self.policy, &self.intents.reaches);
            for region in left_out {
                warn!(%region, limit = limits::WATCHED, "its prefixes are not watched: all regions together declare more than an agent can be told; declare shorter ones");
            }
        }
        for (agent, mesh) in changed {
            self.change(&agent, |member| {
                member.mesh_version = mesh.version;
                member.mesh = Some(Arc::clone(&mesh));
            });
            if let Some(line) = self.lines.get(&agent) {
                line.mesh.send_replace(Some(mesh));
            }
        }
    }

    fn forget(&mut self) {
        let horizon = self.clock.now() - FORGET_AFTER;
        let before = self.roster.members.len();
        self.roster.members.retain(|agent, member| {
            let keep = member.session.is_some() || member.last_seen >= horizon;
            if !keep {
                info!(%agent, "an agent has been away for too long and leaves the mesh");
            }
            keep
        });
        if self.roster.members.len() != before {
            self.due = Some(Instant::now());
        }
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("roster", &self.roster)
            .finish_non_exhaustive()
    }
}

/// Whether two registrations make the same targets for others.
fn same_answers(a: &Registration, b: &Registration) -> bool {
    let ports = |of: &Registration| (of.answer_port, of.stamp_port);
    a.region == b.region && a.addresses == b.addresses && ports(a) == ports(b)
}
